"""A small process that runs one node and kills it when the process that asked for the node has ended.

It is a separate script that uses only the standard library. Its standard input is a pipe from the process that
started the node. It prints the node's pid, then waits:

- `release` on the pipe: the node is up and must outlive us; exit and leave it.
- the pipe closes, or our parent is another process than at the start: kill the node.
- the node ends: exit too.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

POLL_S = 0.5
RELEASE = b"release\n"
LOCKABLE = 65_536
"""How much memory a node may lock: as much as needs no right."""
PR_CAPBSET_DROP = 24
CAP_IPC_LOCK = 14


def main(argv: list[str]) -> int:
    """Run `argv[1:]` with its output in the file `argv[0]`."""
    parent = os.getppid()
    lock_no_memory()
    with Path(argv[0]).open("ab") as output:
        node = subprocess.Popen(argv[1:], stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603 - our parent made the command
    # Only now, because a child inherits ignored signals.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdout.write(f"{node.pid}\n")
    sys.stdout.flush()
    # The reader of our output must see its end; we keep only the pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    heard = b""
    while node.poll() is None:
        ready, _, _ = select.select([0], [], [], POLL_S)
        if ready:
            chunk = os.read(0, 64)
            heard += chunk
            if heard.endswith(RELEASE):
                return 0
            if not chunk:
                break
        # A forked child of our parent may hold the pipe open after the parent is gone.
        if os.getppid() != parent:
            break
    if node.poll() is None:
        node.kill()
        node.wait()
    return 0


def lock_no_memory() -> None:
    """Start no program that may lock its memory: root's node would fill all that Java reserves, 180 MB more."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    with suppress(ValueError, OSError):  # less than that is allowed
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (LOCKABLE, hard))
    with suppress(ImportError, AttributeError):  # a Python without it, a system that is not Linux
        from ctypes import CDLL  # noqa: PLC0415 - see above

        CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)  # fails without root, who alone is not limited


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
