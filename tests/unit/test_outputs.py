"""What commands write for others to read: it takes the place of its like, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consistency.cli.outputs import require_json, require_log, require_page, require_writable, write_json, write_public
from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.results.json_lines import OTHERS
from consistency.watching.metrics import RunEnd, render
from repair.keeping.files import FORMATS, json_line

REQUIRES: dict[str, Callable[[str], Any]] = {
    "--json": lambda path: require_json("--json", path),
    "--html": lambda path: require_page("--html", path),
    "--metrics": lambda path: require_writable("--metrics", path, begins=b"# HELP"),
    "--log-file": lambda path: require_log("--log-file", path),
}


@pytest.mark.parametrize("option", REQUIRES)
def test_no_report_takes_the_place_of_a_file_that_a_command_reads(tmp_path: Path, option: str) -> None:
    """A journal holds pre-images, and a ledger the past: neither is to be had again."""
    path = tmp_path / "file"
    for kind in OTHERS:
        path.write_bytes(json_line({"schema": 1, "type": kind, "plan": "x" * 20_000}))
        with pytest.raises(UsageError, match=f"^{option} {path} exists and is .*; name another file$"):
            REQUIRES[option](str(path))
    path.unlink()
    with open_ledger(path):
        pass
    with pytest.raises(UsageError, match=f"^{option} {path} exists and is .*; name another file$"):
        REQUIRES[option](str(path))


def test_a_report_replaces_its_like_and_an_empty_file(tmp_path: Path) -> None:
    """What was written the night before, and what somebody touched."""
    path = tmp_path / "file"
    for option, text in {
        "--json": json.dumps({"schema": 1, "verdict": "consistent"}, indent=2),
        "--html": '\n<!DOCTYPE html>\n<html lang="en">',
        "--metrics": render(RunEnd(1.0, 1.0, 0, None)),
        "--log-file": '{"seq": 1, "event": "run.started"}\n',
    }.items():
        for content in ("", text):
            path.write_text(content)
            REQUIRES[option](str(path))
    for option in ("--json", "--html", "--metrics"):
        path.write_text("[connection]\n")
        with pytest.raises(UsageError, match="is not replaced"):
            REQUIRES[option](str(path))


def test_what_is_written_may_be_written_again(tmp_path: Path) -> None:
    """The words by which a file is known are those that it begins with."""
    write_json("--json", str(tmp_path / "json"), {"schema": 1})
    REQUIRES["--json"](str(tmp_path / "json"))
    write_public("--metrics", str(tmp_path / "prom"), render(RunEnd(1.0, 1.0, 0, None)))
    REQUIRES["--metrics"](str(tmp_path / "prom"))


def test_every_format_is_known_by_name_to_what_reads_another() -> None:
    """Whoever is given the wrong file says what it is."""
    assert {each.type for each in FORMATS} < OTHERS.keys()
