"""Files that commands write: checked before the work starts, and written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from consistency.errors import ConsistencyError, UsageError
from consistency.results.json_lines import OTHERS

STDOUT = "-"


class NotWritten(ConsistencyError):
    """A file that was asked for could not be written; `file` names it, its option and the reason."""

    def __init__(self, option: str, path: str, error: OSError) -> None:
        self.file = f"{option} {path}: {error.strerror}"
        super().__init__(f"{self.file}; it was not written")


def require_writable(option: str, path: str | None, *, special: bool = False, begins: bytes = b"") -> None:
    """Raise UsageError if a file cannot be written later; `special` also takes pipes and devices.

    A file that is there is replaced only if it begins like what is written: a report must not take the place of a
    journal, of which no second one is to be had.
    """
    if path is None or path == STDOUT:
        return
    target = Path(path)
    if target.is_dir():
        msg = f"{option} {path}: is a directory; name a file"
        raise UsageError(msg)
    if _is_special(target):
        if special:
            return
        msg = f"{option} {path}: is not a regular file; name one"
        raise UsageError(msg)
    try:
        _require_replaceable(option, target, begins)
        handle, probe = tempfile.mkstemp(dir=Path(os.path.realpath(target)).parent, prefix=".consistency-")
        os.close(handle)
        Path(probe).unlink()
    except OSError as error:
        msg = f"{option} {path}: {error.strerror}; name a file in a directory that can be written"
        raise UsageError(msg) from None


def require_page(option: str, path: str | None) -> None:
    """Raise UsageError if a page cannot be written later; a page is no output for a pipe."""
    if path == STDOUT:
        msg = f"{option} -: name a file; the page is opened in a browser"
        raise UsageError(msg)
    require_writable(option, path, begins=b"<!doctype html>")


def require_json(option: str, path: str | None) -> None:
    """Raise UsageError if JSON cannot be written later: to a file, a pipe or a device."""
    require_writable(option, path, special=True, begins=b"{\n")


def require_different(paths: Mapping[str, str | None]) -> None:
    """Raise UsageError if two options name the same file."""
    seen: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None or path == STDOUT or _is_special(Path(path)):
            continue
        first = seen.setdefault(Path(path).resolve(), option)
        if first != option:
            msg = f"{first} and {option} name the same file; give each its own"
            raise UsageError(msg)


def write_public(option: str, path: str, text: str) -> None:
    """Write a file that others read (mode 0644), whole or not at all."""
    try:
        _write(Path(path), text, mode=0o644)
    except OSError as error:
        raise NotWritten(option, path, error) from None


def write_json(option: str, path: str | None, data: Mapping[str, Any]) -> None:
    """Write JSON to a file, whole or not at all, or to stdout for `-`; write nothing without a path."""
    if path is None:
        return
    text = json.dumps(data, indent=2) + "\n"
    if path == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        _write(Path(path), text)
    except OSError as error:
        raise NotWritten(option, path, error) from None


def write_private(option: str, path: str | None, text: str) -> None:
    """Write text to a file of mode 0600, whole or not at all; write nothing without a path."""
    if path is None:
        return
    try:
        _write(Path(path), text, mode=0o600)
    except OSError as error:
        raise NotWritten(option, path, error) from None


def _write(path: Path, text: str, *, mode: int | None = None) -> None:
    if _is_special(path):  # renaming a file over a pipe or device would replace it
        path.write_text(text, encoding="utf-8")
        return
    target = path.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with suppress(FileNotFoundError):
            beside.unlink()
        # O_EXCL: never write to a file that somebody else put there to read our output.
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)  # whatever the umask says
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise


def require_log(option: str, path: str) -> None:
    """Raise UsageError if no log can be appended to a file: also if it is one that a command reads."""
    require_writable(option, path, special=True)
    if not Path(path).is_file():
        return
    with suppress(OSError), Path(path).open("rb") as file:
        first = file.readline(10_000)
        if first.startswith(b"SQLite format 3") or any(f'"type":"{kind}"'.encode() in first for kind in OTHERS):
            msg = f"{option} {path} exists and is no log: nothing is added to it; name another file"
            raise UsageError(msg)


def _require_replaceable(option: str, path: Path, begins: bytes) -> None:
    if not begins or not path.exists():
        return
    with path.open("rb") as file:
        first = file.read(200).lstrip().lower()
    if first and not first.startswith(begins.lower()):
        msg = f"{option} {path} exists and is something else: it is not replaced; name another file"
        raise UsageError(msg)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
