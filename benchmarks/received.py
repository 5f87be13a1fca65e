"""Run one of our commands, and write down how many bytes its sockets received.

python -m benchmarks.received FILE check bench.small --hosts 127.0.40.1
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consistency.cli import main


@contextmanager
def counting(path: Path) -> Iterator[None]:
    """Count what all sockets of this process receive meanwhile, and write the number to a file."""
    received, recv = 0, socket.socket.recv

    def counted(sock: socket.socket, *asked: int) -> bytes:
        nonlocal received
        found = recv(sock, *asked)
        received += len(found)
        return found

    socket.socket.recv = counted  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        socket.socket.recv = recv  # type: ignore[method-assign]
        path.write_text(json.dumps(received), encoding="utf-8")


if __name__ == "__main__":
    file, *words = sys.argv[1:]
    with counting(Path(file)):
        main(words)
