"""A load balancer in a few lines: connections to one address go on to nodes of a test's choice, and can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import final

Target = tuple[str, int]


@final
class Forwarder:
    """Listens at a place; `choose(n)` says where the n-th connection goes, from 0."""

    def __init__(self, address: str, choose: Callable[[int], Target]) -> None:
        self.choose = choose
        self.made: list[Target] = []
        self._open: list[socket.socket] = []
        self._server = socket.create_server((address, 0))
        self.place: Target = self._server.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection that goes through here."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            target = self.choose(len(self.made))
            self.made.append(target)
            try:
                node = socket.create_connection(target, timeout=5)
            except OSError:
                client.close()
                continue
            node.settimeout(None)
            self._open += [client, node]
            for source, sink in ((client, node), (node, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
