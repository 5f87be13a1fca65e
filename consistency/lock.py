"""One run at a time for each cluster: an flock that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from consistency.errors import LockedError, UsageError
from consistency.ledger.store import require_ours
from consistency.render import visible
from consistency.ring import Ring


@contextmanager
def one_run(ring: Ring, ledger: Path | None = None, *, kind: str = "run") -> Iterator[None]:
    """Hold the lock of a cluster for one kind of run; LockedError names who holds it.

    It lies beside the ledger, else in the state directory. Where no file can be made there, and no ledger is
    at stake, the run goes on without.
    """
    path = lock_path(ring, ledger, kind)
    if ledger is not None:
        require_ours(ledger)  # from now on a lock lies beside it
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if ledger is None:
            yield
            return
        msg = f"the lock {path} cannot be made: {error.strerror}; put the ledger where files can be written"
        raise UsageError(msg) from None
    try:
        _take(handle, ring, kind)
        yield
    finally:
        os.close(handle)


def lock_path(ring: Ring, ledger: Path | None, kind: str = "run") -> Path:
    """Return the lock's file: one a cluster, told apart by name and by one of its nodes."""
    first = min(node.host_id for node in ring.nodes)
    key = hashlib.sha256(f"{ring.cluster}\n{first}".encode()).hexdigest()[:12]
    if ledger is not None:
        return ledger.resolve().with_name(f"{ledger.name}.{key}.lock")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = f"{key}.lock" if kind == "run" else f"{key}.{kind}.lock"
    return Path(state).expanduser() / "consistency" / name


def _take(handle: int, ring: Ring, kind: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        msg = f"another {kind} on cluster {visible(ring.cluster)} is under way: {_holder(handle)}; wait, or stop it"
        raise LockedError(msg) from None
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    with suppress(OSError):  # on a full disk the lock is held all the same, and does not say by whom
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "since": since}).encode(), 0)


def _holder(handle: int) -> str:
    """Say who holds the lock, as it wrote down itself; it may be about to."""
    try:
        held = json.loads(os.pread(handle, 1000, 0))
        return f"pid {int(held['pid'])} since {visible(str(held['since']))}"
    except (ValueError, KeyError, TypeError):
        return "it has just begun"
