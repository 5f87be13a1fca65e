"""The directory of downloaded files, shared by every sandbox of one user."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.errors import BusyError, SandboxError

Progress = Callable[[str], None]


def cache_dir() -> Path:
    """Return the cache directory; create it if it is missing."""
    chosen = os.environ.get("CONSISTENCY_CACHE")
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(xdg) if xdg else Path.home() / ".cache"
    path = Path(chosen) if chosen else base / "consistency"
    path = path.expanduser().absolute()
    if ":" in str(path):
        msg = f"cache directory {path}: a class path cannot contain a colon; set CONSISTENCY_CACHE"
        raise SandboxError(msg)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        msg = f"cache directory {path}: {reason}; set CONSISTENCY_CACHE to another one"
        raise SandboxError(msg) from error
    return path


@contextmanager
def exclusive(path: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file at `path`; wait for it when `waiting` says so to the user, else fail at once.

    The lock ends with the process in any case.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                msg = f"{path.parent}: another sandbox command is running there; try again"
                raise BusyError(msg) from None
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
