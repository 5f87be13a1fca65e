"""A running cluster as the tests use it: write everywhere, or to one replica alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.connection import DefaultEndPoint
from cassandra.policies import RoundRobinPolicy
from cassandra.query import SimpleStatement, dict_factory

from consistency.checking.observer import Observer
from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import ConnectionSettings
from consistency.model.reading import Depth, Locality, Route
from consistency.results.findings import Finding, read_findings
from consistency.results.report import Report
from sandbox import Sandbox, SandboxOptions
from tests.support import warm
from tests.support.addresses import address
from tests.support.figures import LONG

NODE_LOCAL = 11
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:-UseG1GC", "-XX:+UseSerialGC")
"""For a node that lives for minutes: Java's second compiler and concurrent collector cost it half of its start."""
_SCHEMA_IN_MEMORY = "-Dcassandra.test.flush_local_schema_changes=false"
"""Files that are written after each change of the schema take two fifths of it; here a node that stops writes them."""
_USER = "cassandra"
"""The first user of a new cluster; its password is the same word."""


@dataclass
class RunningCluster:
    """Hosts in node order (the first is node 1), a driver session, and the sandbox behind it, if it is ours."""

    hosts: list[str]
    port: int
    sandbox: Sandbox | None = None
    node_local: bool = True
    auth: bool = False
    ports: tuple[int, ...] = ()
    """The nodes' CQL ports where they differ."""
    protocol: int | None = None
    """The native protocol that the tool is made to speak."""
    reach: ConnectionSettings | None = None
    """How the tool reaches it, where that is not by its nodes' addresses."""
    _cluster: Any = field(default=None, repr=False)
    _session: Any = field(default=None, repr=False)

    @property
    def points(self) -> tuple[tuple[str, int], ...]:
        """Address and port of every node, in node order."""
        return tuple(zip(self.hosts, self.ports or [self.port] * len(self.hosts), strict=True))

    @property
    def settings(self) -> ConnectionSettings:
        """How the tool reaches it."""
        if self.reach is not None:
            return self.reach
        user = _USER if self.auth else None
        return ConnectionSettings(self.points, username=user, password=user, protocol=self.protocol)

    @property
    def session(self) -> Any:
        """A driver session, opened when first used."""
        if self._session is None:
            profile = ExecutionProfile(
                load_balancing_policy=RoundRobinPolicy(), row_factory=dict_factory, request_timeout=60
            )
            self._cluster = Cluster(
                [DefaultEndPoint(*point) for point in self.points],
                port=self.port,
                auth_provider=PlainTextAuthProvider(_USER, _USER) if self.auth else None,
                execution_profiles={EXEC_PROFILE_DEFAULT: profile},
                schema_metadata_enabled=False,
                token_metadata_enabled=False,
                # It waits a second where the nodes agree within a tenth: `_await_agreement` looks oftener.
                max_schema_agreement_wait=0,
            )
            self._session = self._cluster.connect()
            # A guardrail on pages binds the first user too, until a node knows that it is a superuser.
            self._session.default_fetch_size = 1000
        return self._session

    @property
    def version(self) -> tuple[int, ...]:
        """Major and minor version of the first node that answers."""
        release = self.session.execute("SELECT release_version FROM system.local").one()["release_version"]
        return tuple(int(part) for part in release.split(".")[:2])

    def close(self) -> None:
        """Close the driver session."""
        if self._cluster is not None:
            self._cluster.shutdown()
            self._cluster = self._session = None

    def name(self, n: int) -> str:
        """`address:port` of node n, as reports write it."""
        host, port = self.points[n - 1]
        return f"{host}:{port}"

    def ddl(self, *statements: str) -> None:
        """Change the schema, always through the first node that is up, and wait until every node has it.

        A node pushes a change only to those it has exchanged messages with, and the others pull it later: after a
        minute by default, after a second in a sandbox (MigrationCoordinator). All have met the first node, the seed.
        """
        for statement in statements:
            self._alter(statement)
            self._await_agreement()

    def tables(self, statements: Iterable[str]) -> None:
        """Make many tables, all through the first node, and wait once until every node has them."""
        for statement in statements:
            self._alter(statement)
        self._await_agreement()

    def _alter(self, statement: str) -> None:
        self.session.execute(statement, host=self._seed(), timeout=120)

    def _await_agreement(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            versions = {self._schema_of(host) for host in self._cluster.metadata.all_hosts() if host.is_up}
            if len(versions) == 1 and None not in versions:
                return
            time.sleep(0.02)
        raise AssertionError("the schema did not settle within 120 s")

    def agreed(self) -> bool:
        """Whether the first node has heard of one schema from all, whoever of them the driver reaches."""
        of_table = "SELECT schema_version FROM system.{}"
        rows = [
            row
            for table in ("local", "peers")
            for row in self.session.execute(of_table.format(table), host=self._seed())
        ]
        return len(rows) == len(self.hosts) and len({row["schema_version"] for row in rows}) == 1

    def _schema_of(self, host: Any) -> Any:
        """Return a node's version of the schema, if the driver reaches it now: it calls some up that it lost."""
        try:
            return self.session.execute("SELECT schema_version FROM system.local", host=host).one()["schema_version"]
        except NoHostAvailable:
            return None

    def everywhere(self, cql: str, values: Sequence[Any] | None = None) -> Any:
        """Run a statement at ALL."""
        return self.session.execute(SimpleStatement(cql, consistency_level=ConsistencyLevel.ALL), values)

    def quorum(self, cql: str, values: Sequence[Any] | None = None) -> Any:
        """Run a statement at QUORUM."""
        return self.session.execute(SimpleStatement(cql, consistency_level=ConsistencyLevel.QUORUM), values)

    def on(self, n: int, cql: str, values: Sequence[Any] | None = None) -> Any:
        """Run a statement on node n's own storage alone."""
        statement = SimpleStatement(cql, consistency_level=NODE_LOCAL)
        return self.session.execute(statement, values, host=self._host(n))

    def _host(self, n: int) -> Any:
        for _ in range(600):
            host = self._reachable().get(self.points[n - 1])
            if host is not None:
                return host
            time.sleep(0.1)
        msg = f"node {n} is not up"
        raise AssertionError(msg)

    def _seed(self) -> Any:
        """Return the first node that is up."""
        reachable = self._reachable()
        return next((reachable[point] for point in self.points if point in reachable), None)

    def _reachable(self) -> dict[tuple[str, int], Any]:
        """Return the hosts, by address and port, that the driver is connected to: it calls some up that it lost."""
        pools = self.session.get_pool_state()
        return {
            (host.endpoint.address, host.endpoint.port): host
            for host, pool in pools.items()
            if host.is_up and not pool["shutdown"]
        }

    def alive(self, n: int) -> int:
        """Count the nodes that node n takes for alive; one that was killed is among them for a while."""
        states = self.on(n, "SELECT status FROM system_views.gossip_info")
        return sum("shutdown" not in (row["status"] or "") for row in states)

    def await_alive(self, *up: int) -> None:
        """Connect anew, and wait until each of the nodes that are up knows which are: the others were stopped in order.

        (nodetool says the same, and takes two seconds of a core each time.)
        """
        self.close()
        eventually(
            lambda: all(self.alive(n) == len(up) for n in up), 60, f"{len(up)} nodes being alive for all of them"
        )

    def load(self, cql: str, rows: Iterable[Sequence[Any]], consistency: int = ConsistencyLevel.ALL) -> None:
        """Insert many rows."""
        prepared = self.session.prepare(cql)
        prepared.consistency_level = consistency
        self._write(prepared, rows, 128)

    def load_prepared(self, prepared: Any, rows: Iterable[Sequence[Any]]) -> None:
        """Run a prepared statement at ALL for each row of values."""
        prepared.consistency_level = ConsistencyLevel.ALL
        self._write(prepared, rows, 16)

    def _write(self, prepared: Any, rows: Iterable[Sequence[Any]], at_once: int) -> None:
        """Write rows; those that a busy machine gave up on are written again."""
        left = list(rows)
        for attempt in range(4):
            results = execute_concurrent_with_args(
                self.session, prepared, left, concurrency=at_once, raise_on_first_error=attempt == 3
            )
            left = [row for row, result in zip(left, results, strict=True) if not result.success]
            if not left:
                return
            at_once = max(4, at_once // 4)

    def keyspace(self, name: str, rf: int = 3, dc: str = "dc1", **factors: int) -> str:
        """Make an empty keyspace, dropping one of that name; `factors` name the replicas of several DCs."""
        per_dc = ", ".join(f"'{where}': {count}" for where, count in (factors or {dc: rf}).items())
        self.ddl(
            f"DROP KEYSPACE IF EXISTS {name}",
            f"CREATE KEYSPACE {name} WITH replication = {{'class': 'NetworkTopologyStrategy', {per_dc}}}",
        )
        return name

    def drop_keyspaces(self) -> None:
        """Drop all that tests made: what earlier ones left may have fewer replicas, or tables that nobody checks."""
        rows = self.session.execute("SELECT keyspace_name FROM system_schema.keyspaces")
        self.ddl(
            *(f'DROP KEYSPACE "{name}"' for row in rows if not (name := row["keyspace_name"]).startswith("system"))
        )

    def check(
        self,
        *names: str,
        findings: Path | None = None,
        observer: Observer | None = None,
        depth: Depth | None = None,
        route: Route | None = None,
        locality: Locality | None = None,
        limits: ReadLimits | None = None,
        **options: Any,
    ) -> Report:
        """Run a check as the library does, with a settle window short enough for a test without traffic."""
        options.setdefault("settle_window_s", 0.3)

        async def run() -> Report:
            async with open_cluster(self.settings, limits, locality=locality) as (reader, clock):
                chosen = CheckOptions(names=names, depth=depth, route=route, findings=findings, **options)
                return await run_check(reader, clock, chosen, observer)

        return asyncio.run(run())

    def findings(self, path: Path, *names: str, **options: Any) -> tuple[Report, list[Finding]]:
        """Run a check and return its report with its findings."""
        report = self.check(*names, findings=path, **options)
        return report, list(read_findings(path))

    def command(
        self, *arguments: str, timeout: float = 300, user: str | None = _USER, password: str = _USER
    ) -> subprocess.CompletedProcess[str]:
        """Run `consistency ...` on this cluster as a user does, the login in the environment.

        A check that is not told how long to let rows settle is told a time that is enough where nobody writes.
        """
        settle = ("--settle", "0.3") if arguments[0] == "check" and "--settle" not in arguments else ()
        return warm.run([*arguments, *settle], self.environ(user, password), timeout)

    def environ(self, user: str | None = _USER, password: str = _USER) -> dict[str, str]:
        """Return an environment in which the tool reaches this cluster."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CONSISTENCY_")}
        environ["CONSISTENCY_HOSTS"] = ",".join(f"{host}:{port}" for host, port in self.settings.contact_points)
        environ["CONSISTENCY_PORT"] = str(self.port)
        if self.auth and user is not None:
            environ["CONSISTENCY_USERNAME"], environ["CONSISTENCY_PASSWORD"] = user, password
        return environ

    @property
    def host_options(self) -> list[str]:
        """`--hosts` and `--port` for this cluster."""
        return ["--hosts", ",".join(self.hosts), "--port", str(self.port)]


def from_hosts(text: str, sandbox: str | None = None) -> Iterator[RunningCluster]:
    """Use a cluster that is up already; `sandbox` is its directory where it is one of ours."""
    running = RunningCluster(text.split(","), 9042, sandbox=Sandbox.attach(sandbox) if sandbox else None)
    yield running
    running.close()


def sandbox_cluster(directory: Path, network: str, *, killed: bool = False, **options: Any) -> Iterator[RunningCluster]:
    """Start a cluster in one of the networks of `addresses`; it dies with this process, whatever happens to it.

    A node that is `killed`, and started again, must have its schema in files.
    """
    options["settings"] = {"hinted_handoff_enabled": "false", "auto_snapshot": "false", **options.get("settings", {})}
    if not LONG:
        options.setdefault("jvm_opts", SHORT_LIVED if killed else (*SHORT_LIVED, _SCHEMA_IN_MEMORY))
    chosen = SandboxOptions(dir=directory, address_base=address(network), **options)
    with Sandbox(chosen) as sandbox:
        running = RunningCluster(
            [node.address for node in sandbox.nodes],
            sandbox.nodes[0].port,
            sandbox=sandbox,
            node_local=chosen.node_local,
            auth=chosen.auth,
            ports=tuple(node.port for node in sandbox.nodes),
        )
        try:
            yield running
        finally:
            running.close()


def eventually(condition: Callable[[], bool], seconds: float = 30.0, what: str = "it") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            msg = f"{what} did not happen within {seconds:.0f} s"
            raise AssertionError(msg)
        time.sleep(0.1)


def summary(report: Report) -> str:
    """Return what an assertion should show."""
    return json.dumps(report.as_json(), indent=1)[:4000]
