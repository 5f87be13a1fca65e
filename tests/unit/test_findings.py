"""The findings file: private, whole or marked partial, and refused in one line where it is not ours."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from consistency.errors import UsageError
from consistency.results.findings import Finding, FindingsWriter, Header, ReplicaView, State, read_findings
from consistency.results.kinds import Kind

HEADER = Header("run", "cluster", "ring", "2026-01-01T00:00:00+00:00", "consistency 0")
FINDING = Finding(
    kind=Kind.STALE,
    keyspace="ks",
    table="t",
    token=-5,
    key={"id": 1, "b": "0x00"},
    key_hex={"id": "00000001", "b": "00"},
    replicas={"a:1": ReplicaView(State.CURRENT, {"v": 5, "m": [1, None]}), "b:1": ReplicaView(State.MISSING)},
    columns=("v",),
    facts=(Kind.STALE,),
)


def write(path: Path) -> None:
    """Write a file of one finding."""
    with FindingsWriter(path, HEADER) as writer:
        writer.write(FINDING)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Every field survives, the mode is 0600, and no partial file is left."""
    path = tmp_path / "f.jsonl"
    write(path)
    assert list(read_findings(path)) == [FINDING]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["f.jsonl"]


def test_a_run_that_breaks_off_keeps_the_earlier_file(tmp_path: Path) -> None:
    """The file of the run before stays; what the broken run found is beside it, marked partial."""
    path = tmp_path / "f.jsonl"
    write(path)
    before = path.read_text()
    with pytest.raises(RuntimeError), FindingsWriter(path, HEADER):
        raise RuntimeError
    assert path.read_text() == before
    assert (tmp_path / "f.jsonl.partial").exists()


def test_a_device_is_not_replaced_by_a_file() -> None:
    """Writing to /dev/null leaves it what it is."""
    write(Path("/dev/null"))
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("{}\n", "not a findings file"),
        ("not json\n", "line 1"),
        ('{"type": "findings", "schema": 99}\n', "schema 99"),
        ('{"type": "findings", "schema": 1}\n{"kind": "stale"}\n', "line 2"),
        ('{"type": "findings", "schema": 1}\n{"kind": "st', "line 2"),
        ('{"type": "findings", "schema": 1}\n[1]\n', "line 2"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    """Empty, foreign, truncated, of another schema: a usage error that names file and line."""
    path = tmp_path / "f.jsonl"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=words) as caught:
        list(read_findings(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_finding_holds_no_field_for_values() -> None:
    """The JSON form has exactly the documented fields."""
    assert set(json.loads(json.dumps(FINDING.as_json()))) == {
        "kind", "keyspace", "table", "token", "key", "key_hex", "replicas", "columns", "facts",
        "forecast",
    }  # fmt: skip


HAS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@HAS_FULL
def test_a_full_disk_is_remembered_and_the_counting_goes_on() -> None:
    """Where nothing can be written any more, the writer says why and counts on."""
    writer = FindingsWriter(Path("/dev/full"), HEADER)
    writer.write(FINDING)
    writer.close()
    assert writer.error == "No space left on device"
    assert writer.counts == {Kind.STALE: 1}


@HAS_FULL
def test_a_file_cut_short_is_not_left_for_the_whole(tmp_path: Path) -> None:
    """The file of the run before stays; what could not be finished is gone."""
    path = tmp_path / "f.jsonl"
    write(path)
    before = path.read_text()
    writer = FindingsWriter(path, HEADER)
    assert writer._file is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())
    os.close(full)
    writer.write(FINDING)
    writer.close()
    assert writer.error
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.jsonl"]
