"""HTTP for a watch: /metrics for Prometheus, /healthz for a supervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from consistency.errors import UsageError
from consistency.watching.metrics import RunEnd, RunEndCollector

DEFAULT_LISTEN = "127.0.0.1:9477"


class Server:
    """Serves in its own thread until it is closed; `address` is where it really listens."""

    def __init__(self, listen: str, run_end: Callable[[], RunEnd | None], healthy: Callable[[], bool]) -> None:
        host, port = _address(listen)
        try:
            self._server = _HttpServer((host, port), _Handler)
        except OSError as error:
            msg = f"--listen {listen}: {error.strerror or error}; choose another address or port"
            raise UsageError(msg) from None
        self._server.run_end, self._server.healthy = run_end, healthy
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`host:port`."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    run_end: Callable[[], RunEnd | None]
    healthy: Callable[[], bool]

    def server_bind(self) -> None:
        """Bind without asking DNS for a name of the address, which may take long and is not used."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def handle_error(self, *_: Any) -> None:
        """Print nothing about a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    """Answers two paths; never logs, because a scrape is not an event."""

    server_version = "consistency"
    sys_version = ""
    timeout = 10

    @property
    def _watch(self) -> _HttpServer:
        return cast("_HttpServer", self.server)

    def do_GET(self) -> None:
        """Answer a request."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/healthz":
            well = self._watch.healthy()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            self._send(status, "text/plain; charset=utf-8", b"ok\n" if well else b"the watch does not answer\n")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics or /healthz\n")

    def _metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        registry = CollectorRegistry(auto_describe=False)
        run_end = self._watch.run_end()
        if run_end is not None:
            registry.register(RunEndCollector(lambda: run_end))
        self._send(HTTPStatus.OK, content_type, encode(registry))

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        msg = f"--listen {listen!r} is not HOST:PORT, such as {DEFAULT_LISTEN}"
        raise UsageError(msg)
    return host.strip("[]"), int(port)
