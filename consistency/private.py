"""Files that hold keys or values: readable by their owner alone, refused when others may read them."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from consistency.errors import UsageError

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
