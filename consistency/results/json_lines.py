"""Files of JSON Lines: what they say they are in their first line, and their lines one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from consistency.errors import UsageError

KNOWN_FILES = {
    "repair-plan": "a repair plan, for 'repair apply'",
    "repair-journal": "a repair journal, for 'repair resume'",
    "sync-plan": "the plan of a sync, for 'sync apply'",
    "sync-journal": "the journal of a sync, for 'sync resume'",
    "findings": "a findings file, for 'explain' and 'repair plan'",
    "comparison": "a findings file of two clusters, for 'explain' and 'sync plan'",
}
"""The files that commands read, by the type in their first line: what each is, and what takes it."""


def lines_of(path: Path, written_by: str = "") -> Iterator[Any]:
    """Yield every line of a file as the JSON that it holds; UsageError names the first line that is none.

    `written_by` is what to do if there is no such file.
    """
    if path.exists() and not path.is_file():
        msg = f"{path} is not a regular file"
        raise UsageError(msg)
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError):
                    msg = f"{path} line {number} is cut short or not JSON; run the check again"
                    raise UsageError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        if isinstance(error, FileNotFoundError) and written_by:
            reason = f"{reason}; {written_by}"
        msg = f"cannot read {path}: {reason}"
        raise UsageError(msg) from None
