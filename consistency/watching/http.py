"""HTTP for a watch: /metrics for Prometheus, /healthz for a supervisor, and the live page for people."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from uvicorn.protocols.http.h11_impl import H11Protocol

from consistency.errors import UsageError
from consistency.watching.live_stream import LivePage, Streams
from consistency.watching.metrics import RunEnd, RunEndCollector
from consistency.watching.page_access import DEFAULT_LISTEN, PageAccess

REQUEST_S = 10
"""How long a client may take to send a request, and may then stay without sending another."""
_LAST_S = 1
"""How long an answer may take when the watch ends."""
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_GUARDED = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Beside the report's own policy, by which it loads nothing: its script is kept apart from the live page."""

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Server:
    """Serves in its own thread until it is closed; `address` is where it really listens, as `host:port`.

    Without a `page` only /metrics and /healthz are there. `token` guards the page, and nothing else.
    """

    def __init__(
        self,
        listen: str,
        run_end: Callable[[], RunEnd | None],
        healthy: Callable[[], bool],
        page: LivePage | None = None,
        token: str = "",
    ) -> None:
        self._socket = _listening(listen)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.access = PageAccess(host, token)
        except UsageError:
            self._socket.close()
            raise
        self._streams = Streams(page) if page is not None else None
        config = uvicorn.Config(
            _App(run_end, healthy, page, self._streams, self.access),
            http=_Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a scrape is not an event, and a client that went away is no error
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("server", "consistency")],
            timeout_keep_alive=REQUEST_S,
            timeout_graceful_shutdown=_LAST_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def close(self) -> None:
        """Stop serving."""
        if self._streams is not None:
            self._streams.close()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()  # uvicorn does not if it is told to end before it began


class _Impatient(H11Protocol):
    """A connection that is closed if a request is not complete in time: uvicorn itself would wait forever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(REQUEST_S, self._look_again, None)

    def _look_again(self, answered: object) -> None:
        """Close the connection if it is still where it was: `answered` is its latest request, None before any."""
        if self.transport.is_closing():
            return
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is answered:
            self.transport.abort()
        else:
            self.loop.call_later(REQUEST_S, self._look_again, self.cycle if waits else self)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _App:
    """Answers a handful of paths, all of them read-only."""

    run_end: Callable[[], RunEnd | None]
    healthy: Callable[[], bool]
    page: LivePage | None
    streams: Streams | None
    access: PageAccess

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            answer = _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", headers={"allow": "GET, HEAD"})
        elif path == "/metrics":
            answer = self._metrics(headers)
        elif path == "/healthz":
            well = self.healthy()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            answer = _Answer(status, b"ok\n" if well else b"the watch does not answer\n")
        elif self.page is None or not (path in ("/", "/events") or path.startswith("/runs/")):
            paths = "/metrics or /healthz" if self.page is None else "/, /metrics or /healthz"
            answer = _Answer(HTTPStatus.NOT_FOUND, f"{paths}\n".encode())
        elif (refused := self.access.refusal(headers)) is not None:
            answer = _Answer(refused.status, refused.reason.encode(), headers={**_GUARDED, **refused.headers})
        elif path == "/events" and scope["method"] == "GET":
            await self._events(scope, headers, receive, send)
            return
        else:
            answer = self._shown(self.page, path)
        await _send(send, answer)

    def _metrics(self, headers: Mapping[str, str]) -> _Answer:
        encode, content_type = choose_encoder(headers.get("accept", ""))
        registry = CollectorRegistry(auto_describe=False)
        run_end = self.run_end()
        if run_end is not None:
            registry.register(RunEndCollector(lambda: run_end))
        return _Answer(HTTPStatus.OK, encode(registry), content_type)

    def _shown(self, page: LivePage, path: str) -> _Answer:
        if path == "/":
            guarded = {**_GUARDED, "content-security-policy": page.policy}
            return _Answer(HTTPStatus.OK, page.document().encode(), _HTML, guarded)
        report = page.run(path.removeprefix("/runs/")) if path.startswith("/runs/") else None
        if report is None:
            return _Answer(HTTPStatus.NOT_FOUND, b"there is no report of this run without keys\n", headers=_GUARDED)
        guarded = {**_GUARDED, "content-security-policy": _REPORT_POLICY}
        return _Answer(HTTPStatus.OK, report.encode(), _HTML, guarded)

    async def _events(self, scope: Mapping[str, Any], headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        """Stream changes; a browser that comes back says in a header what it has."""
        if self.streams is None or self.streams.full:
            await _send(send, _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"too many open pages\n", headers=_GUARDED))
            return
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("since", [""])[-1]
        since = headers.get("last-event-id", asked)
        await send(_start(HTTPStatus.OK, {"content-type": "text/event-stream; charset=utf-8", **_GUARDED}))
        gone = asyncio.ensure_future(_gone(receive))

        async def send_part(part: bytes) -> None:
            await send({"type": "http.response.body", "body": part, "more_body": True})

        try:
            await self.streams.follow(since, send_part, gone.done)
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, answer: _Answer) -> None:
    headers = {"content-type": answer.content_type, "content-length": str(len(answer.body)), **answer.headers}
    await send(_start(answer.status, headers))
    await send({"type": "http.response.body", "body": answer.body})


def _start(status: HTTPStatus, headers: Mapping[str, str]) -> Mapping[str, Any]:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": int(status), "headers": encoded}


def _listening(listen: str) -> socket.socket:
    """Return a socket that listens already, so that a mistake is told before the watch begins."""
    host, port = _address(listen)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        # socket.create_server puts the address into its message, which has it already.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        msg = f"--listen {listen}: {reason}; choose another address or port"
        raise UsageError(msg) from None


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        msg = f"--listen {listen!r} is not HOST:PORT, such as {DEFAULT_LISTEN}"
        raise UsageError(msg)
    return host.strip("[]"), int(port)
