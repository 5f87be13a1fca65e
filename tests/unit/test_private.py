"""Files of keys and values: for their owner alone however they come to be, and refused where others may read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consistency import private
from consistency.cli.outputs import write_private
from consistency.cli.show.browse.shelf import Shelf
from consistency.errors import LockedError, UsageError
from consistency.ledger import open_ledger
from consistency.model.ring import MURMUR3, Ring
from consistency.private import create_private
from consistency.results.findings import FindingsWriter, copy_findings, read_findings, read_header
from consistency.rows.explain import choose_finding
from consistency.watching.findings_folder import FindingsFolder
from repair.keeping.files import REPAIR_PLAN, SealedWriter
from tests.unit.fake_cluster import nodes
from tests.unit.test_findings import FINDING, HEADER
from tests.unit.test_terminal import report, table_report

READERS: dict[str, Callable[[Path], Any]] = {
    "read_findings": lambda path: list(read_findings(path)),
    "read_header": read_header,
    "explain": lambda path: choose_finding(path, 1),
    "browse": Shelf,
    "copy_findings": lambda path: copy_findings(path, path.with_name("copy"), {1}, "--output"),
}


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let every new file be open to all, to some, or to nobody: not even its owner."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def findings(path: Path) -> Path:
    """Write a findings file of one finding."""
    with FindingsWriter(path, HEADER) as writer:
        writer.write(FINDING)
    return path


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("opened", [0o640, 0o604, 0o660, 0o666])
@pytest.mark.parametrize("reader", READERS)
def test_findings_that_others_may_read_are_refused(tmp_path: Path, reader: str, opened: int) -> None:
    """By whoever reads them, in one line with the command that closes the file; then they are read."""
    path = findings(tmp_path / "my findings.jsonl")
    path.chmod(opened)
    with pytest.raises(UsageError, match=f"mode {opened:04o}") as caught:
        READERS[reader](path)
    assert f"chmod 600 '{path}'" in str(caught.value)
    assert "\n" not in str(caught.value)
    path.chmod(0o600)
    READERS[reader](path)


def test_nobody_is_told_to_close_a_file_that_is_not_ours(tmp_path: Path) -> None:
    """A wrong name is a wrong name: no chmod of somebody else's file."""
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    with pytest.raises(UsageError) as caught:
        read_header(path)
    assert "chmod" not in str(caught.value)


@pytest.mark.usefixtures("umask")
def test_what_holds_keys_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, and also where a file of that name was open to all before."""
    for name in ("new", "open"):
        path, page, copy = tmp_path / name, tmp_path / f"{name}.html", tmp_path / f"{name}-copy"
        if name == "open":
            for file in (path, page, copy):
                os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
                file.chmod(0o666)
        findings(path)
        write_private("--html", str(page), "<p>")
        copy_findings(path, copy, {1}, "--output")
        assert [mode(file) for file in (path, page, copy)] == [0o600] * 3


def test_a_ledger_that_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    """It is ours alone to write."""
    path = tmp_path / "ledger"
    with open_ledger(path):
        assert mode(path) == 0o600
    path.chmod(0o664)
    with open_ledger(path):
        assert mode(path) == 0o600


def test_a_file_that_is_there_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """Somebody may have laid it there to read along."""
    (tmp_path / "there").write_text("")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "there")


def test_a_watch_keeps_what_it_found_before_in_a_file_that_was_opened_to_others(tmp_path: Path) -> None:
    """It closes its file again and reads it: rows of ranges that a visit did not reach are still there after it."""
    folder = FindingsFolder(tmp_path)
    latest = findings(tmp_path / "shop.orders.jsonl")
    latest.chmod(0o644)
    visit = folder.of_visit("shop.orders", "run")
    assert visit is not None
    FindingsWriter(visit, HEADER).close()
    seen = report(table_report(), findings_path=str(visit))
    kept = folder.keep(seen, "shop.orders", Ring("test", MURMUR3, nodes()), sliced=True, reached=())
    assert kept.findings_path == str(latest)
    assert mode(latest) == 0o600
    assert list(read_findings(latest)) == [FINDING]


WRITERS: dict[str, Callable[[Path], Any]] = {
    "findings": lambda path: FindingsWriter(path, HEADER),
    "plan": lambda path: SealedWriter(path, REPAIR_PLAN),
}


def finished(writer: Any) -> None:
    """Write a line and, where that is not done by closing it, put the file in its place."""
    if isinstance(writer, SealedWriter):
        writer.add(REPAIR_PLAN.mark)
        writer.end()
    else:
        writer.write(FINDING)


@pytest.mark.parametrize("writer", WRITERS)
def test_two_runs_do_not_make_one_file_of_both(tmp_path: Path, writer: str) -> None:
    """The second one to begin is told, at once; the first one's file is its own, and whole when it is named so."""
    path = tmp_path / "file"
    first = WRITERS[writer](path)
    with pytest.raises(LockedError, match=f"another run writes to {path}: wait for its end, or name another file"):
        WRITERS[writer](path)
    with first:
        finished(first)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    with WRITERS[writer](path):
        pass


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_has_its_name_before_another_run_may_begin_one(
    tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the run that ends would name the other one's unfinished file."""
    path, refused = tmp_path / "file", []
    replace = Path.replace

    def begin_another(self: Path, target: Path) -> Path:
        with pytest.raises(LockedError):
            WRITERS[writer](path)
        refused.append(self)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", begin_another)
    with WRITERS[writer](path) as first:
        finished(first)
    assert len(refused) == 1


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_run_left_is_replaced(tmp_path: Path, writer: str) -> None:
    """Whatever it is: no lock outlives its process. What a link leads to is not touched."""
    path, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    for leave in (Path.touch, lambda partial: partial.symlink_to(elsewhere)):
        leave(tmp_path / "file.partial")
        with WRITERS[writer](path) as begun:
            finished(begun)
        assert elsewhere.read_text() == "mine"
        assert not (tmp_path / "file.partial").exists()


def test_a_file_that_was_taken_away_meanwhile_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its lock another run may have found it unlocked, and cleared it away."""
    locked = private._locked
    monkeypatch.setattr(private, "_locked", lambda handle: (tmp_path / "file.partial").unlink() or locked(handle))
    with pytest.raises(LockedError):
        private.begin_partial(tmp_path / "file")


def test_a_copy_that_fails_clears_away_its_own_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never began has none: what lies there is another run's, which still writes it."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    findings(source)
    partial = private.partial_of(copy)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UsageError, match="No space left"):
            copy_findings(source, copy, {1}, "--output")
    assert not partial.exists()
    another = private.begin_partial(copy)
    monkeypatch.setattr("consistency.results.findings.read_header", lambda path: path.unlink())
    with pytest.raises(UsageError, match="No such file"):
        copy_findings(source, copy, {1}, "--output")
    assert partial.exists()
    os.close(another)
