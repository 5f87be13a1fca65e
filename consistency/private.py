"""Files that hold keys or values: readable by their owner alone, refused when others may read them."""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from consistency.errors import LockedError, UsageError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create_private(path: Path, flags: int = 0) -> int:
    """Create a file of mode 0600, whatever the umask, and return its descriptor; OSError if it exists."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o600)
    try:
        os.fchmod(handle, 0o600)
    except OSError:
        os.close(handle)
        path.unlink()
        raise
    return handle


def partial_of(path: Path) -> Path:
    """Return where a file is written until it is whole and takes its place."""
    return path.with_name(path.name + ".partial")


def begin_partial(path: Path) -> int:
    """Begin the file that will take the place of `path`, in place of one that a killed run left; OSError if it cannot.

    It is locked until it is closed, so rename it before: two runs that shared it would make one file of both, and the
    first to end would call it whole. LockedError if another run writes it.
    """
    partial = partial_of(path)
    _clear(partial, path)
    handle = create_private(partial)
    if not _locked(handle) or not _lies_at(handle, partial):
        os.close(handle)
        raise _in_use(path)
    return handle


def _clear(partial: Path, path: Path) -> None:
    try:
        left = os.open(partial, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError:  # a link, or a file that may not be read: nobody that writes here holds it
        partial.unlink()
        return
    try:
        if not _locked(left):
            raise _in_use(path)
        if _lies_at(left, partial):
            partial.unlink()
    finally:
        os.close(left)


def _locked(handle: int) -> bool:
    """Take the lock of a file, unless another run has it; a file system without locks has none to take."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _lies_at(handle: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    return False


def _in_use(path: Path) -> LockedError:
    return LockedError(f"another run writes to {path}: wait for its end, or name another file")


def is_open_to_others(mode: int) -> bool:
    """Whether anybody but the owner may read or write a file of this mode."""
    return bool(mode & _OTHERS)


def close_to_others(path: Path) -> None:
    """Restore mode 0600 of a file that we wrote, if it exists and others may read it by now."""
    if path.is_file() and is_open_to_others(path.stat().st_mode):
        path.chmod(0o600)


def require_unshared(path: Path, mode: int) -> None:
    """Refuse a file of keys that others may read."""
    if is_open_to_others(mode):
        msg = f"{path} holds keys and others may read it (mode {mode & 0o777:04o}); run: {closing(path)}"
        raise UsageError(msg)


def closing(path: Path) -> str:
    """Return the command that closes a file to others."""
    return f"chmod 600 {shlex.quote(str(path))}"
