"""What commands write for others to read: it takes the place of anything but what commands read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consistency.cli.outputs import require_json, require_output, require_page
from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.results.json_lines import KNOWN_FILES
from repair.keeping.files import FORMATS, json_line

REQUIRES: dict[str, Callable[[str], Any]] = {
    "--json": lambda path: require_json("--json", path),
    "--html": lambda path: require_page("--html", path),
    "--metrics": lambda path: require_output("--metrics", path),
    "--log-file": lambda path: require_output("--log-file", path, special=True),
}


@pytest.mark.parametrize("option", REQUIRES)
def test_no_report_takes_the_place_of_a_file_that_a_command_reads(tmp_path: Path, option: str) -> None:
    """A journal holds pre-images, and a ledger the past: neither is to be had again."""
    path = tmp_path / "file"
    for kind in KNOWN_FILES:
        path.write_bytes(json_line({"schema": 1, "type": kind, "plan": "x" * 20_000}))
        with pytest.raises(UsageError, match=f"^{option} {path} exists and is .*; name another file$"):
            REQUIRES[option](str(path))
    path.unlink()
    with open_ledger(path):
        pass
    with pytest.raises(UsageError, match=f"^{option} {path} exists and is .*; name another file$"):
        REQUIRES[option](str(path))


@pytest.mark.parametrize("option", REQUIRES)
@pytest.mark.parametrize("text", ["", "old", '{"schema": 1, "verdict": "consistent"}', "# HELP consistency_runs"])
def test_a_report_takes_the_place_of_anything_else(tmp_path: Path, option: str, text: str) -> None:
    """What was written the night before, by whatever program, and what somebody touched."""
    path = tmp_path / "file"
    path.write_text(text)
    REQUIRES[option](str(path))


def test_every_format_is_known_by_name_to_what_reads_another() -> None:
    """Whoever is given the wrong file says what it is."""
    assert {each.type for each in FORMATS} < KNOWN_FILES.keys()
