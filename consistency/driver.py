"""The one module that imports cassandra-driver: connect, pin a statement to one node, get raw pages back.

Three things the driver does not offer are added here, each at a seam it does offer:

* Rows are not decoded. A page keeps the server's bytes (a protocol handler whose RESULT message stops
  after the metadata), so hashing costs nothing per row and no odd value can fail to decode.
* `now_in_seconds` of native protocol v5: all replicas judge TTLs at the same instant, so that a cell which
  expires during the scan expires for all of them, and remaining TTLs can be hashed. The driver has no name
  for it; it travels as a private key of the custom payload and is put into the frame by the encoder.
* Values are bound as the bytes they already are.

A Cluster of the caller's gets an execution profile and two sessions of ours, and is left as it was.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cassandra
from cassandra import protocol
from cassandra.auth import AuthProvider, PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, ResponseFuture
from cassandra.connection import ConnectionException, DefaultEndPoint
from cassandra.metadata import Murmur3Token
from cassandra.policies import ConstantReconnectionPolicy, FallthroughRetryPolicy, RoundRobinPolicy
from cassandra.query import BoundStatement, PreparedStatement, SimpleStatement, dict_factory

from consistency.errors import (
    ConnectError,
    PageTooLarge,
    ReplicaError,
    ReplicaForbidden,
    ReplicaOverloaded,
    ReplicaTimeout,
    ReplicaUnavailable,
    SettingsError,
    TooFewReplicas,
)
from consistency.refusals import codes_in, connect_error, first_line, read_failure, refusal
from consistency.ring import Node
from consistency.settings import ConnectionSettings
from consistency.waiting import answer, at_most, until_pooled
from consistency.wire import INT, ONE, Page, Statement, Timed

_NOW_PAYLOAD = "consistency.now_in_seconds"
_CLOSE_S = 2.0


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


class _RawHandler(protocol.ProtocolHandler):  # type: ignore[misc]
    """Raw rows in, timed requests out."""

    message_types_by_opcode = {  # noqa: RUF012 - the driver's own attribute
        **protocol.ProtocolHandler.message_types_by_opcode,
        _RawRows.opcode: _RawRows,
    }

    @classmethod
    def encode_message(
        cls,
        msg: Any,
        stream_id: int,
        protocol_version: int,
        compressor: Any,
        allow_beta_protocol_version: bool,  # noqa: FBT001
    ) -> bytes:
        now = (msg.custom_payload or {}).get(_NOW_PAYLOAD)
        wire = msg if now is None else Timed(msg, now, prepared=not isinstance(msg, protocol.QueryMessage))
        encoded: bytes = super().encode_message(
            wire, stream_id, protocol_version, compressor, allow_beta_protocol_version
        )
        return encoded


class Connection:
    """An open cluster connection with a raw session, and a decoding one for system tables."""

    def __init__(self, settings: ConnectionSettings, cluster: Any, raw: Any, decoded: Any, profile: Any) -> None:
        self._settings = settings
        self._cluster = cluster
        self._raw = raw
        self._decoded = decoded
        self._profile = profile
        self.sent, self.answered = Counter[tuple[str, int]](), Counter[tuple[str, int]]()  # by address and port
        self._prepared: dict[str, Any] = {}
        self._silent: set[tuple[str, int]] = set()
        self._most_rows = 2**31 - 1

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> Connection:
        """Connect, or raise ConnectError with one line that says which host refused and why."""
        return await asyncio.to_thread(cls._open, settings)

    @classmethod
    def _open(cls, settings: ConnectionSettings) -> Connection:
        # The driver logs the server's warnings, which can quote a query with its key.
        logging.getLogger("cassandra").addHandler(logging.NullHandler())
        logging.getLogger("cassandra.protocol").setLevel(logging.ERROR)
        cluster, profile = _cluster(settings)
        sessions: list[Any] = []
        try:
            sessions += [cluster.connect(), cluster.connect()]
        except Exception as error:
            _leave(settings, cluster, sessions, profile)
            raise _connect_error(settings, error) from error
        decoded, raw = sessions
        raw.client_protocol_handler = _RawHandler
        for session in sessions:
            until_pooled(cluster, session)
        return cls(settings, cluster, raw, decoded, profile)

    async def close(self) -> None:
        """Close every connection of ours; what waits for a silent node is left behind."""
        await at_most(
            _CLOSE_S, lambda: _leave(self._settings, self._cluster, (self._raw, self._decoded), self._profile)
        )

    @property
    def protocol_version(self) -> int:
        """The native protocol spoken; `now_in_seconds` needs 5."""
        return int(self._cluster.protocol_version)

    @property
    def username(self) -> str | None:
        """The role that was logged in with, None without a login, empty where a provider does not say."""
        provider = self._cluster.auth_provider
        return None if provider is None else self._settings.username or str(getattr(provider, "username", None) or "")

    async def execute(self, node: Node, statement: Statement) -> Page:
        """Run one statement with `node` as its coordinator and return its page undecoded."""
        page_rows = min(statement.page_size, self._most_rows)
        bound = await self._bound(node, replace(statement, page_size=page_rows))
        future = self._submit(self._raw, node, bound, statement)
        try:
            result = await self._answer(node, future, statement.timeout_s)
        except PageTooLarge as error:
            self._learn(error, page_rows)
            return await self.execute(node, statement)
        rows = result.current_rows
        count, width, body = rows[0] if rows else (0, 0, b"")
        traces = future.get_query_trace_ids() if statement.trace else []
        return Page(count, width, body, result.paging_state, traces[-1].bytes if traces else None)

    async def select(
        self, node: Node, cql: str, *, consistency: int = ONE, timeout_s: float = 30.0
    ) -> list[Mapping[str, Any]]:
        """Run a query on a system table through `node` and return decoded rows, all pages of them."""
        page_rows = min(2000, self._most_rows)
        statement = SimpleStatement(cql, consistency_level=consistency, fetch_size=page_rows)
        rows: list[Mapping[str, Any]] = []
        state: bytes | None = None
        while True:
            plain = Statement(cql, paging_state=state, timeout_s=timeout_s)
            try:
                result = await self._answer(node, self._submit(self._decoded, node, statement, plain), timeout_s)
            except PageTooLarge as error:
                self._learn(error, page_rows)
                return await self.select(node, cql, consistency=consistency, timeout_s=timeout_s)
            rows.extend(result.current_rows)
            state = result.paging_state
            if state is None:
                return rows

    def _learn(self, error: PageTooLarge, asked: int) -> None:
        """Ask for no more rows a page than a guardrail allows, of any node; what is not allowed even so is refused."""
        if error.most >= asked:
            raise error
        self._most_rows = min(self._most_rows, error.most)

    async def _answer(self, node: Node, future: Any, timeout_s: float) -> Any:
        place = node.address, node.port
        try:
            result = await _result(node, future, timeout_s)
        except ReplicaTimeout:
            self._silent.add(place)
            raise
        else:
            self._silent.discard(place)
            return result
        finally:
            self.answered[place] += 1

    def known_hosts(self) -> tuple[tuple[str, int], ...]:
        """Return `(address, port)` of every host the driver knows: connected ones first, silent and lost ones last."""
        hosts = self._cluster.metadata.all_hosts()
        places = {(host.endpoint.address, host.endpoint.port): not host.is_up for host in hosts}
        return tuple(sorted(places, key=lambda place: (places[place], place in self._silent)))

    async def _bound(self, node: Node, statement: Statement) -> Any:
        if not statement.values:
            return SimpleStatement(
                statement.cql, consistency_level=statement.consistency, fetch_size=statement.page_size
            )
        prepared = await self._prepare(node, statement.cql, statement.timeout_s)
        bound = BoundStatement(prepared)
        bound.values = list(statement.values)
        bound.consistency_level = statement.consistency
        bound.fetch_size = statement.page_size
        return bound

    async def _prepare(self, node: Node, cql: str, timeout_s: float) -> Any:
        """Prepare a statement on the node that it is for: another one may be silent."""
        if cql not in self._prepared:
            message = protocol.PrepareMessage(query=cql)
            future = ResponseFuture(self._raw, message, query=None, timeout=timeout_s, host=self._host(node))
            future.send_request()
            answered = (await _result(node, future, timeout_s)).one()
            prepared = PreparedStatement.from_message(
                answered.query_id, answered.bind_metadata, answered.pk_indexes, self._cluster.metadata, cql, None,
                self.protocol_version, answered.column_metadata, answered.result_metadata_id,
            )  # fmt: skip
            # From there the driver prepares it on the other nodes, each when it is first used.
            self._cluster.add_prepared(answered.query_id, prepared)
            self._prepared[cql] = prepared
        return self._prepared[cql]

    def _submit(self, session: Any, node: Node, bound: Any, statement: Statement) -> Any:
        payload = None if statement.now_s is None else {_NOW_PAYLOAD: INT.pack(statement.now_s)}
        self.sent[node.address, node.port] += 1
        return session.execute_async(
            bound,
            trace=statement.trace,
            custom_payload=payload,
            timeout=statement.timeout_s,
            paging_state=statement.paging_state,
            host=self._host(node),
            execution_profile=self._profile,
        )

    def _host(self, node: Node) -> Any:
        host = self._cluster.metadata.get_host(DefaultEndPoint(node.address, node.port))
        if host is None:
            msg = f"{node}: the driver does not know this node; is its native transport running?"
            raise ReplicaUnavailable(msg)
        return host


async def _result(node: Node, future: Any, timeout_s: float) -> Any:
    try:
        return await answer(future, timeout_s)
    except Exception as error:
        raise translate(node, error) from error


def _cluster(settings: ConnectionSettings) -> tuple[Any, Any]:
    """Return a cluster to open sessions of, and the name of the execution profile that is ours."""
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(),
        retry_policy=FallthroughRetryPolicy(),
        row_factory=_rows_as_they_are,
        request_timeout=30.0,
    )
    if settings.cluster is not None:
        return settings.cluster, _add_profile(settings.cluster, profile)
    cluster = Cluster(
        contact_points=[DefaultEndPoint(host, port) for host, port in settings.contact_points],
        port=settings.port,
        auth_provider=_auth(settings),
        ssl_context=settings.ssl_context(),
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        **({} if settings.protocol is None else {"protocol_version": settings.protocol}),
        reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
        schema_metadata_enabled=False,
        token_metadata_enabled=False,
        connect_timeout=settings.connect_timeout_s,
        control_connection_timeout=settings.connect_timeout_s,
        monitor_reporting_enabled=False,
        prepare_on_all_hosts=False,
        reprepare_on_up=False,
    )
    return cluster, EXEC_PROFILE_DEFAULT


def _add_profile(cluster: Any, profile: ExecutionProfile) -> object:
    """Add our profile to a Cluster of the caller's, under a name that is nobody else's."""
    if not isinstance(cluster, Cluster):
        msg = f"cluster must be a cassandra.cluster.Cluster, not {type(cluster).__name__}"
        raise SettingsError(msg)
    if cluster.is_shutdown:
        raise SettingsError("the Cluster given was shut down: give one that is open, or not connected yet")
    name = object()
    try:
        cluster.add_execution_profile(name, profile)
    except ValueError:
        raise SettingsError(
            "the Cluster given has policies of its own without execution profiles: make it with execution_profiles="
        ) from None
    return name


def _leave(settings: ConnectionSettings, cluster: Any, sessions: Sequence[Any], profile: Any) -> None:
    """Close what is ours: of a Cluster of the caller's, our sessions and profile alone."""
    if settings.cluster is None:
        cluster.shutdown()
        return
    for session in sessions:
        session.shutdown()
        cluster.sessions.discard(session)
    cluster.profile_manager.profiles.pop(profile, None)


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


def _rows_as_they_are(names: Sequence[str], rows: Sequence[Any]) -> Sequence[Any]:
    """Leave raw pages alone; the decoding session gets dictionaries."""
    if rows and isinstance(rows[0], tuple) and len(rows[0]) == 3 and isinstance(rows[0][2], bytes):
        return rows
    return dict_factory(names, rows)  # type: ignore[no-any-return]


def _connect_error(settings: ConnectionSettings, error: Exception) -> ConnectError:
    reasons = list(getattr(error, "errors", {}).values()) or [error]
    return connect_error(
        settings,
        reasons[0],
        login=any(isinstance(r, cassandra.AuthenticationFailed) for r in reasons),
        unknown_host=isinstance(error, cassandra.UnresolvableContactPoints),
    )


def murmur3(raw: bytes) -> int:
    """Return the token of a partition key as the server serializes it."""
    return int(Murmur3Token.hash_fn(raw))


_TRANSLATIONS: tuple[tuple[Any, type[ReplicaError], str], ...] = (
    ((cassandra.OperationTimedOut, TimeoutError, asyncio.TimeoutError), ReplicaTimeout, "no answer in time"),
    (cassandra.ReadTimeout, ReplicaTimeout, "the server gave up the read (its read or range timeout)"),
    (cassandra.WriteTimeout, ReplicaTimeout, "the server gave up the write (its write timeout)"),
    (
        (protocol.OverloadedErrorMessage, protocol.IsBootstrappingErrorMessage),
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
        return translate(node, inner) if inner is not None else ReplicaUnavailable(f"{node}: not reachable")
    if isinstance(error, cassandra.Unavailable):
        return TooFewReplicas(f"{node}: the server says the replica is not available", error.alive_replicas or 0)
    for theirs, ours, text in _TRANSLATIONS:
        if isinstance(error, theirs):
            return ours(f"{node}: {text}")
    return _refused_or_lost(node, error)


def _refused_or_lost(node: Node, error: BaseException) -> ReplicaError:
    if isinstance(error, cassandra.ReadFailure):
        return read_failure(node, set((error.error_code_map or {}).values()))
    if isinstance(error, protocol.ServerError):
        # A read from the node's own storage (NODE_LOCAL) fails with the bare exception, whose text quotes the key.
        return read_failure(node, codes_in(str(error)))
    if isinstance(error, cassandra.Unauthorized):
        return ReplicaForbidden(f"{node}: {first_line(error.args[0] if error.args else error)}")
    if isinstance(error, cassandra.InvalidRequest | protocol.SyntaxException | cassandra.ConfigurationException):
        return refusal(node, error)
    if isinstance(error, ConnectionException | cassandra.DriverException | OSError):
        return ReplicaUnavailable(f"{node}: {type(error).__name__}: connection lost or refused")
    return ReplicaError(f"{node}: {type(error).__name__}")
