"""One run at a time for each cluster: an flock, which ends with the process in any case.

A lock file holds the host ids of its holder's cluster. Each cluster of one name that a run is checking now has its
own file. A run that shares a node with a file's holder is on the same cluster, even if other nodes were replaced
or addresses changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from consistency.errors import LockedError, UsageError
from consistency.ledger.store import require_ours
from consistency.model.cqltext import visible
from consistency.model.ring import Ring

_PATIENCE_S = 2.0
_MOST_BYTES = 1_000_000


@contextmanager
def one_run(ring: Ring, ledger: Path | None = None, *, kind: str = "run") -> Iterator[None]:
    """Hold the lock of a cluster for one kind of run; LockedError names the holder.

    It lies beside the ledger, else in the state directory. If no file can be made there, a run without a ledger
    continues without a lock.
    """
    path = lock_path(ring, ledger, kind)
    if ledger is not None:
        require_ours(ledger)  # a lock lies beside it from now on
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = _taken(ring, ledger, kind)
    except OSError as error:
        if ledger is None:
            yield
            return
        msg = f"the lock {path} cannot be made: {error.strerror}; put the ledger where files can be written"
        raise UsageError(msg) from None
    try:
        yield
    finally:
        os.close(handle)


def under_way(ring: Ring, *, kind: str) -> str:
    """Say which run of a kind holds the lock of a cluster on this machine; empty if none does."""
    try:
        with one_run(ring, kind=kind):
            return ""
    except LockedError as error:
        return str(error)


def lock_path(ring: Ring, ledger: Path | None, kind: str = "run", slot: int = 0) -> Path:
    """Return a lock's file; `slot` counts the clusters of one name with a run at the same time."""
    key = hashlib.sha256(ring.cluster.encode()).hexdigest()[:12] + (f"-{slot}" if slot else "")
    if ledger is not None:
        return ledger.resolve().with_name(f"{ledger.name}.{key}.lock")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = f"{key}.lock" if kind == "run" else f"{key}.{kind}.lock"
    return Path(state).expanduser() / "consistency" / name


def _taken(ring: Ring, ledger: Path | None, kind: str) -> int:
    """Take the first free file after every other file's holder was seen to be on another cluster."""
    first = lock_path(ring, ledger, kind)
    guard = _opened(first.with_suffix(".guard"))  # no run takes a file while another run reads the holders
    try:
        _wait_for(guard, ring, kind)
        free: Path | None = None
        for path in (lock_path(ring, ledger, kind, slot) for slot in count()):
            if free is not None and not path.exists():
                break
            if not _held_elsewhere(path, ring, kind):
                free = free or path
        return _signed(free or first, ring)
    finally:
        os.close(guard)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_free(handle: int) -> bool:
    """Take a lock if nobody holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(guard: int, ring: Ring, kind: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _is_free(guard):
        if time.monotonic() > deadline:
            raise LockedError(_refusal(ring, kind, {}))
        time.sleep(0.01)


def _held_elsewhere(path: Path, ring: Ring, kind: str) -> bool:
    """Whether a file is held for another cluster; LockedError if it is for this one, or does not say for which."""
    handle = _opened(path)
    try:
        if _is_free(handle):
            return False
        held = _signature(handle)
        hosts = held.get("hosts")
        if not isinstance(hosts, list) or ring.host_ids.intersection(map(str, hosts)):
            raise LockedError(_refusal(ring, kind, held))
        return True
    finally:
        os.close(handle)


def _signed(path: Path, ring: Ring) -> int:
    """Hold a free file, and write down for which cluster."""
    handle = _opened(path)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    text = json.dumps({"pid": os.getpid(), "since": since, "hosts": sorted(ring.host_ids)})
    with suppress(OSError):  # on a full disk the lock is held but does not name its holder
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    return handle


def _signature(handle: int) -> dict[str, Any]:
    """Return what the holder of a lock wrote down; empty if it could not."""
    try:
        held = json.loads(os.pread(handle, _MOST_BYTES, 0))
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _refusal(ring: Ring, kind: str, held: dict[str, Any]) -> str:
    try:
        holder = f"pid {int(held['pid'])} since {visible(str(held['since']))}"
    except (ValueError, KeyError, TypeError):
        holder = "it has just started"
    return f"another {kind} on cluster {visible(ring.cluster)} is under way: {holder}; wait, or stop it"
