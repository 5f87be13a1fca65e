"""The HTML report of each visit in a folder of the operator's, for the live page; only reports without keys count."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from consistency.cli.outputs import NotWritten, write_private
from consistency.errors import UsageError

MOST_REPORTS = 200
_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WITHOUT_KEYS = '<meta name="consistency-keys" content="hidden">'
_HEAD_CHARACTERS = 4_096
"""The mark is in the head of the page, before any text of a cluster."""
_OPTION = "--html-dir"


class KeptReports:
    """A folder with the newest reports, each named after its run, mode 0600."""

    def __init__(self, folder: Path | None, most: int = MOST_REPORTS) -> None:
        if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
            msg = f"{_OPTION} {folder}: is not a directory that can be written; create it first"
            raise UsageError(msg)
        self._folder = folder
        self._most = most

    def __bool__(self) -> bool:
        return self._folder is not None

    def keep(self, run_id: str, html: str) -> bool:
        """Write the report of a run and drop the oldest; return whether it could be written."""
        if self._folder is None or not _NAME.fullmatch(run_id):
            return False
        try:
            write_private(_OPTION, str(self._folder / f"{run_id}.html"), html)
            self._drop_the_oldest(self._folder)
        except (NotWritten, OSError):
            return False
        return True

    def read(self, run_id: str) -> str | None:
        """Return the report of a run, or None if there is none, or if keys may be in it."""
        if self._folder is None or not _NAME.fullmatch(run_id):
            return None
        try:
            # Not a link, which could name any file; not a pipe, which could make us wait.
            handle = os.open(self._folder / f"{run_id}.html", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, encoding="utf-8") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                html = file.read()
        except (OSError, UnicodeDecodeError):
            return None
        return html if _WITHOUT_KEYS in html[:_HEAD_CHARACTERS] else None

    def _drop_the_oldest(self, folder: Path) -> None:
        ours = [path for path in folder.glob("*.html") if _NAME.fullmatch(path.stem)]
        ours.sort(key=lambda path: path.lstat().st_mtime, reverse=True)
        for path in ours[self._most :]:
            with suppress(FileNotFoundError):
                path.unlink()
