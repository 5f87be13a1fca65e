"""The one module that imports cassandra-driver: open a connection to one place, learn which node answers, ask it.

The driver's own sessions and pools are not used: they choose a host by its address, and an address proves
nothing (a load balancer, a service name, one broadcast address for all). A `Channel` is one connection whose
node said its host id on that very connection before anything else was asked. Two things are added that the
driver does not offer, each at a seam that it does offer:

* Rows are not decoded. A page keeps the server's bytes (a protocol handler whose RESULT message stops
  after the metadata), so hashing costs nothing per row and no odd value or type can fail to decode.
* `now_in_seconds` of native protocol v5: all replicas judge TTLs at the same instant, so that a cell which
  expires during the scan expires for all of them, and remaining TTLs can be hashed.

Of a Cluster of the caller's, what it says of logins, TLS and sockets is used; it is not connected by us, and
left as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
from collections.abc import Sequence
from typing import Any

import cassandra
from cassandra import protocol
from cassandra.auth import AuthProvider, PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.connection import (
    ConnectionBusy,
    ConnectionException,
    DefaultEndPoint,
    ProtocolVersionUnsupported,
)
from cassandra.metadata import Murmur3Token

from consistency.cluster.driver_errors import codes_in, connect_error, forbidden, read_failure, refusal
from consistency.cluster.levels import Levels
from consistency.cluster.settings import ConnectionSettings, Place
from consistency.cluster.waits import in_thread, within
from consistency.cluster.wire import INT, OWN, Page, Statement, Timed, past_type
from consistency.errors import (
    ConnectError,
    ReplicaError,
    ReplicaOverloaded,
    ReplicaTimeout,
    ReplicaUnavailable,
    SettingsError,
    TooFewReplicas,
)
from consistency.model.ring import Node

_WHO = "SELECT host_id FROM system.local"
_NEWEST, _OLDEST = 5, 4
"""Versions of the native protocol, of which 5 came with Cassandra 4.0."""
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value)
      for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)) if hasattr(socket, name)),
)  # fmt: skip
"""Notice within a minute that a firewall dropped a connection that was idle while a check was paused."""


class _RawRows(protocol.ResultMessage):  # type: ignore[misc]
    """A RESULT message whose rows stay bytes."""

    def recv_results_rows(
        self,
        f: io.BytesIO,
        protocol_version: int,  # noqa: ARG002 - the driver's signature
        user_type_map: Any,
        result_metadata: Any,
        column_encryption_policy: Any,  # noqa: ARG002
    ) -> None:
        self.recv_results_metadata(f, user_type_map)
        columns = self.column_metadata or result_metadata
        self.column_names = [c[2] for c in columns]
        self.column_types = [c[3] for c in columns]
        count = INT.unpack(f.read(4))[0]
        self.parsed_rows = [(count, len(columns), f.read())]

    @classmethod
    def read_type(cls, f: io.BytesIO, user_type_map: Any) -> None:  # noqa: ARG003 - the driver's signature
        """Leave the types of columns be: the driver cannot read that of some, and then drops the connection."""
        past_type(f)


class _RawHandler(protocol.ProtocolHandler):  # type: ignore[misc]
    """Decodes answers up to their rows."""

    message_types_by_opcode = {  # noqa: RUF012 - the driver's own attribute
        **protocol.ProtocolHandler.message_types_by_opcode,
        _RawRows.opcode: _RawRows,
    }


class Channel:
    """One open connection to one node.

    `host_id` is what the node answered on this connection when asked who it is, before anything else was asked;
    `place` is where it was reached. Every method raises a driver's exception; `translate` names it.
    """

    def __init__(self, place: Place, connection: Any, host_id: str) -> None:
        self.place = place
        self.host_id = host_id
        self._connection = connection
        self._prepared: dict[str, Any] = {}

    @property
    def usable(self) -> bool:
        """Whether the connection is still there, as far as is known."""
        return not (self._connection.is_defunct or self._connection.is_closed)

    @property
    def logged_in(self) -> bool:
        """Whether the server asked for a login: one that does not takes no notice of user and password."""
        return getattr(self._connection.authenticator, "server_authenticator_class", None) is not None

    @property
    def protocol_version(self) -> int:
        """The native protocol spoken."""
        return int(self._connection.protocol_version)

    def close(self) -> None:
        """End the connection; whoever waits for an answer on it gets an error."""
        self._connection.close()
        self._connection.error_all_requests(ConnectionException("closed by us", self._connection.endpoint))

    async def page(self, statement: Statement, page_rows: int) -> Page:
        """Run a statement and return its page undecoded."""
        message = await self._message(statement, page_rows)
        message.tracing = statement.trace
        if statement.now_s is not None:
            prepared = isinstance(message, protocol.ExecuteMessage)
            message = Timed(message, INT.pack(statement.now_s), prepared=prepared)
        try:
            result = await self._ask(message, statement.timeout_s, _RawHandler)
        except protocol.PreparedQueryNotFound:
            # The server drops prepared statements when the schema changes, or for want of memory.
            del self._prepared[statement.cql]
            return await self.page(statement, page_rows)
        count, width, body = result.parsed_rows[0] if getattr(result, "parsed_rows", None) else (0, 0, b"")
        trace_id = result.trace_id if statement.trace else None
        return Page(count, width, body, result.paging_state, None if trace_id is None else trace_id.bytes)

    async def decoded(
        self, cql: str, consistency: int, page_rows: int, state: bytes | None, timeout_s: float
    ) -> tuple[list[dict[str, Any]], bytes | None]:
        """Run a query on a system table; return one page of decoded rows and where to go on, None at the end."""
        message = protocol.QueryMessage(cql, consistency, fetch_size=page_rows, paging_state=state)
        result = await self._ask(message, timeout_s, protocol.ProtocolHandler)
        names = result.column_names or ()
        return [dict(zip(names, row, strict=True)) for row in result.parsed_rows or ()], result.paging_state

    async def _message(self, statement: Statement, page_rows: int) -> Any:
        level, state = statement.consistency, statement.paging_state
        if not statement.values or statement.once:
            message = protocol.QueryMessage(statement.cql, level, fetch_size=page_rows, paging_state=state)
            message.query_params = list(statement.values) or None
            return message
        prepared = await self._prepare(statement.cql, statement.timeout_s)
        return protocol.ExecuteMessage(
            prepared.query_id,
            list(statement.values),
            level,
            fetch_size=page_rows,
            paging_state=state,
            result_metadata_id=prepared.result_metadata_id,
        )

    async def _prepare(self, cql: str, timeout_s: float) -> Any:
        if cql not in self._prepared:
            message = protocol.PrepareMessage(query=cql)
            self._prepared[cql] = await self._ask(message, timeout_s, _RawHandler)
        return self._prepared[cql]

    async def _ask(self, message: Any, timeout_s: float, handler: Any) -> Any:
        """Send one message and await its answer; an error of the server's is raised."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()
        connection = self._connection

        def arrived(response: Any) -> None:  # on the driver's thread
            with connection.lock:
                connection.in_flight -= 1
            with contextlib.suppress(RuntimeError):  # the loop is gone: the run was interrupted
                loop.call_soon_threadsafe(_settle, answered, response)

        with connection.lock:
            connection.in_flight += 1
            request_id = connection.get_request_id()
        try:
            connection.send_msg(message, request_id, arrived, decoder=handler.decode_message)
        except BaseException:
            with connection.lock:
                connection.in_flight -= 1
            raise
        try:
            async with within(timeout_s):
                response = await answered
        finally:
            if not answered.done() or answered.cancelled():
                self._leave(request_id)
        if isinstance(response, Exception | protocol.ErrorMessage):
            raise response.to_exception() if hasattr(response, "to_exception") else response
        return response

    def _leave(self, request_id: int) -> None:
        """Wait for an answer no longer: its stream is free again once the server has answered all the same."""
        connection = self._connection
        with connection.lock:
            if connection._requests.pop(request_id, None) is not None:  # noqa: SLF001 - as the driver's ResponseFuture
                connection.orphaned_request_ids.add(request_id)


def _settle(future: asyncio.Future[Any], response: Any) -> None:
    if not future.done():
        future.set_result(response)


class Dialer:
    """Opens channels with the login, TLS and protocol of some settings."""

    def __init__(self, settings: ConnectionSettings) -> None:
        # The driver logs the server's warnings, which can quote a query with its key.
        logging.getLogger("cassandra").addHandler(logging.NullHandler())
        logging.getLogger("cassandra.protocol").setLevel(logging.ERROR)
        self.settings = settings
        self._cluster = _cluster(settings)
        self._cluster.connection_class.initialize_reactor()
        theirs = settings.protocol or self._cluster.protocol_version
        self._fixed = settings.protocol is not None
        self.levels = Levels()
        self._version = int(theirs) if theirs <= _NEWEST else _NEWEST

    @property
    def contact_points(self) -> tuple[Place, ...]:
        """Where to begin: the settings' hosts, or those that a Cluster of the caller's knows."""
        if self.settings.cluster is None:
            return self.settings.contact_points
        known = [host.endpoint for host in self._cluster.metadata.all_hosts()] or self._cluster.endpoints_resolved
        return tuple((endpoint.address, endpoint.port) for endpoint in known)

    @property
    def username(self) -> str:
        """The role logged in with, empty if a provider does not say."""
        provider = self._cluster.auth_provider
        return self.settings.username or str(getattr(provider, "username", None) or "")

    @property
    def translate_address(self) -> Any:
        """What turns an address that a node tells of itself into one that can be reached from here."""
        translator = self.settings.address_translator or self._cluster.address_translator
        return translator.translate

    async def dial(self, place: Place) -> Channel:
        """Open a connection to a place and ask who answers there; raises the driver's exceptions."""
        return await in_thread(lambda: self._dial(place), Channel.close)

    def _dial(self, place: Place) -> Channel:
        version = self._version
        try:
            connection = self._connect(place, version)
        except ProtocolVersionUnsupported:
            if self._fixed or version <= _OLDEST:
                raise
            connection = self._connect(place, _OLDEST)
            self._version = _OLDEST
        try:
            ((host_id,),) = self._asked(connection, _WHO)
        except BaseException:
            connection.close()
            raise
        return Channel(place, connection, str(host_id))

    def _asked(self, connection: Any, cql: str) -> Any:
        """Return the rows of a query on what the node itself holds."""
        message = protocol.QueryMessage(cql, self.levels.of(OWN))
        try:
            return connection.wait_for_response(message, timeout=self._cluster.connect_timeout).parsed_rows
        except cassandra.InvalidRequest as error:
            if not self.levels.learn(OWN, str(error)):
                raise
        return self._asked(connection, cql)

    def _connect(self, place: Place, version: int) -> Any:
        return self._cluster.connection_factory(DefaultEndPoint(*place), protocol_version=version)

    def close(self) -> None:
        """Let go of what is ours; a Cluster of the caller's stays open."""
        if self.settings.cluster is None:
            self._cluster.shutdown()


def _cluster(settings: ConnectionSettings) -> Any:
    """Return the Cluster that knows how connections are made; it is never connected itself."""
    if settings.cluster is not None:
        if not isinstance(settings.cluster, Cluster):
            msg = f"cluster must be a cassandra.cluster.Cluster, not {type(settings.cluster).__name__}"
            raise SettingsError(msg)
        if settings.cluster.is_shutdown:
            raise SettingsError("the Cluster given was shut down: give one that is open, or not connected yet")
        return settings.cluster
    return Cluster(
        auth_provider=_auth(settings),
        ssl_context=settings.ssl_context(),
        connect_timeout=settings.connect_timeout_s,
        sockopts=list(_KEEPALIVE),
        monitor_reporting_enabled=False,
    )


def _auth(settings: ConnectionSettings) -> Any:
    if settings.auth_provider is not None:
        if not isinstance(settings.auth_provider, AuthProvider):
            kind = type(settings.auth_provider).__name__
            msg = f"auth_provider must be a cassandra.auth.AuthProvider, not {kind}"
            raise SettingsError(msg)
        return settings.auth_provider
    if settings.username is None:
        return None
    return PlainTextAuthProvider(settings.username, settings.password)


def no_contact(settings: ConnectionSettings, errors: Sequence[BaseException]) -> ConnectError:
    """Return one line for the errors of all contact points."""
    return connect_error(
        settings,
        errors[0],
        login=any(isinstance(error, cassandra.AuthenticationFailed) for error in errors),
        unknown_host=all(isinstance(error, socket.gaierror) for error in errors),
    )


def murmur3(raw: bytes) -> int:
    """Return the token of a partition key as the server serializes it."""
    return int(Murmur3Token.hash_fn(raw))


_TRANSLATIONS: tuple[tuple[Any, type[ReplicaError], str], ...] = (
    ((cassandra.OperationTimedOut, TimeoutError, asyncio.TimeoutError), ReplicaTimeout, "no answer in time"),
    (cassandra.ReadTimeout, ReplicaTimeout, "the server gave up the read (its read or range timeout)"),
    (cassandra.WriteTimeout, ReplicaTimeout, "the server gave up the write (its write timeout)"),
    (
        (protocol.OverloadedErrorMessage, protocol.IsBootstrappingErrorMessage, ConnectionBusy),
        ReplicaOverloaded,
        "the server is overloaded or still starting",
    ),
)


def translate(node: Node, error: BaseException) -> ReplicaError:
    """Return our error for one of the driver's; the message names the node and never quotes a query."""
    if isinstance(error, ReplicaError):
        return error
    if isinstance(error, NoHostAvailable):
        inner = next(iter(error.errors.values()), None)
        return translate(node, inner) if inner is not None else ReplicaUnavailable("not reachable", node)
    if isinstance(error, cassandra.Unavailable):
        alive, needed = error.alive_replicas or 0, error.required_replicas or 0
        said = f"replicas that it takes for alive: {alive}, where the request needs {needed}"
        return TooFewReplicas(said, alive, needed, node)
    for theirs, ours, text in _TRANSLATIONS:
        if isinstance(error, theirs):
            return ours(text, node)
    return _refused_or_lost(node, error)


def _refused_or_lost(node: Node, error: BaseException) -> ReplicaError:
    if isinstance(error, cassandra.ReadFailure):
        return read_failure(node, set((error.error_code_map or {}).values()))
    if isinstance(error, protocol.ServerError):
        # A read from the node's own storage (NODE_LOCAL) fails with the bare exception, whose text quotes the key.
        return read_failure(node, codes_in(str(error)))
    if isinstance(error, cassandra.Unauthorized):
        return forbidden(node, error.args[0] if error.args else error)
    if isinstance(error, cassandra.InvalidRequest | protocol.SyntaxException | cassandra.ConfigurationException):
        return refusal(node, error)
    if isinstance(error, ConnectionException | cassandra.DriverException | OSError):
        return ReplicaUnavailable(f"{type(error).__name__}: connection lost or refused", node)
    return ReplicaError(type(error).__name__, node)
