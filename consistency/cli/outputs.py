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
from consistency.results.json_lines import KNOWN_FILES

STDOUT = "-"
_WRITTEN = {
    "--findings": "findings",
    "--metrics": "metrics",
    "--log-file": "log_file",
    "--json": "json_path",
    "--html": "html_path",
}


class NotWritten(ConsistencyError):
    """A file that was asked for could not be written; `file` names it, its option and the reason."""

    def __init__(self, option: str, path: str, error: OSError) -> None:
        self.file = f"{option} {path}: {error.strerror}"
        super().__init__(f"{self.file}; it was not written")


def require_writable(option: str, path: str | None, *, special: bool = False) -> None:
    """Raise UsageError if a file cannot be written later; `special` also takes pipes and devices, and stdout."""
    if path is None or (path == STDOUT and special):
        return
    if path == STDOUT:  # as `--json -` it would be expected on stdout, and a file of keys would be called "-"
        msg = f"{option} -: name a file; this is never printed"
        raise UsageError(msg)
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
        handle, probe = tempfile.mkstemp(dir=Path(os.path.realpath(target)).parent, prefix=".consistency-")
        os.close(handle)
        Path(probe).unlink()
    except OSError as error:
        msg = f"{option} {path}: {error.strerror}; name a file in a directory that can be written"
        raise UsageError(msg) from None


def require_output(option: str, path: str | None, *, special: bool = False) -> None:
    """Raise UsageError if what is only printed or shown cannot be written later, or would cost what a command reads.

    It takes the place of whatever is there, as everywhere; but a journal's pre-images, or a ledger, are not to be had
    again, and who names one has mistyped.
    """
    require_writable(option, path, special=special)
    if path is None or not Path(path).is_file():
        return
    with suppress(OSError), Path(path).open("rb") as file:
        first = file.readline(10_000)
        if first.startswith(b"SQLite format 3") or any(f'"type":"{kind}"'.encode() in first for kind in KNOWN_FILES):
            msg = f"{option} {path} exists and is read by other commands: it is left as it is; name another file"
            raise UsageError(msg)


def require_page(option: str, path: str | None) -> None:
    """Raise UsageError if a page cannot be written later; a page is no output for a pipe."""
    if path == STDOUT:
        msg = f"{option} -: name a file; the page is opened in a browser"
        raise UsageError(msg)
    require_output(option, path)


def require_json(option: str, path: str | None) -> None:
    """Raise UsageError if JSON cannot be written later: to a file, a pipe or a device."""
    require_output(option, path, special=True)


def written_paths(given: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the files that a command's arguments name to be written, but for the ledger, by their options."""
    return {option: given.get(name) for option, name in _WRITTEN.items()}


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


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
