"""The library: what the commands do, without a terminal. Synchronous; an async program calls the `run_` functions.

from consistency import begin_check, check
report = check("shop.orders", hosts="10.0.0.1,10.0.0.2")
with begin_check("shop", hosts="10.0.0.1") as running:
    for finding in running:
        print(finding.kind.value, finding.table, finding.key)
"""

from __future__ import annotations

import asyncio
import difflib
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from consistency.auditing.distribution import distribute, judge_distribution
from consistency.auditing.preflight import Preflight
from consistency.auditing.preflight_facts import PreflightOptions, open_look, run_preflight
from consistency.auditing.rules import gravest_first, judge_replication
from consistency.background import RunningCheck, run, run_until, stopping
from consistency.checking.observer import Observer, PairObserver, Progress, ProgressTeller, Several
from consistency.checking.preparing import require_dc
from consistency.checking.run import plenty, run_check
from consistency.checking.tasks import CheckOptions, recorder_of
from consistency.cluster.connection import Connection
from consistency.cluster.holdings import read_holdings
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import TARGET, ConnectionSettings, GivenOptions, load_settings
from consistency.comparing.opening import open_pair
from consistency.comparing.preparing import CompareOptions, Read
from consistency.comparing.run import run_compare
from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.ledger.lock import one_run
from consistency.model.reading import Locality
from consistency.model.schema import Keyspace
from consistency.model.scope import parse_name
from consistency.results.comparison import Comparison
from consistency.results.distribution import Distribution
from consistency.results.pair_findings import Compared
from consistency.results.report import Report, Severity, Violation
from consistency.results.verdict import ExitCode
from consistency.watching.target_ledger import recorded

AUDIT_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found: the keyspaces that were judged and every rule of replication that is broken."""

    cluster: str
    nodes: int
    keyspaces: tuple[str, ...]
    violations: tuple[Violation, ...]
    distribution: Distribution | None = None
    """How the data lies on the nodes, if that was asked for."""

    @property
    def errors(self) -> int:
        """The number of violations; they change the exit code."""
        return sum(v.severity is Severity.ERROR for v in self.violations)

    @property
    def unknown(self) -> int:
        """The number of rules that could not be judged."""
        return sum(v.severity is Severity.UNKNOWN for v in self.violations)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command; an audit that judged no keyspace, or not every rule, proves nothing."""
        return ExitCode.of(wrong=bool(self.errors), unknown=self.unknown > 0 or not self.keyspaces)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": AUDIT_SCHEMA_VERSION,
            "cluster": self.cluster,
            "exit_code": int(self.exit_code),
            "keyspaces": list(self.keyspaces),
            "violations": [v.as_json() for v in self.violations],
            **({"distribution": self.distribution.as_json()} if self.distribution else {}),
        }


def check(
    *names: str,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: CheckOptions | None = None,
    limits: ReadLimits | None = None,
    locality: Locality | None = None,
    observer: Observer | None = None,
    progress: Callable[[Progress], object] | None = None,
    cancel: threading.Event | None = None,
    ledger: Path | None = None,
) -> Report:
    """Check keyspaces and tables (all of the users' when none is named) and return the report.

    `names` are `keyspace` or `keyspace.table`, as cqlsh writes them. How to connect comes from `settings`, else
    from `hosts` (`"10.0.0.1,10.0.0.2:9043"`) and the same environment and files that the command reads. `limits`
    bound the load on the cluster, `locality` forces how replicas are read.

    `progress` is called with a `Progress` each time something was read or found; `observer` learns more. Both are
    called on this thread; an exception in them ends the check and is raised. Setting `cancel` from another thread
    ends the check within seconds with a correct partial report (`interrupted`).

    With a `ledger` the run is recorded in that file, and no other run may check the cluster meanwhile (LockedError);
    a problem with the file is a warning. The report has the counts of findings and the first 20. `options.findings`
    names a file for all of them, `begin_check` hands them over one by one.

    Raises a ConsistencyError when the check cannot run: UsageError for a name or an option, ConnectError,
    TopologyError, LockedError. What could not be read of a table is in the report, not raised.
    """
    call = _call(names, hosts, settings, options, limits, locality, observer, progress, ledger)
    return run(lambda: _checked(call, cancel), "use begin_check, or await asyncio.to_thread(check, ...)")


def begin_check(
    *names: str,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: CheckOptions | None = None,
    limits: ReadLimits | None = None,
    locality: Locality | None = None,
    observer: Observer | None = None,
    progress: Callable[[Progress], object] | None = None,
    ledger: Path | None = None,
) -> RunningCheck:
    """Run a check in its own thread, and hand over findings while it runs.

    It takes the arguments of `check` and raises the same errors, in the thread that iterates. `observer` and
    `progress` are called on the check's own thread.
    """
    call = _call(names, hosts, settings, options, limits, locality, observer, progress, ledger)

    async def work(cancel: threading.Event, taker: Observer, room: Callable[[], Awaitable[None]]) -> Report:
        return await _checked(replace(call, observer=Several(taker, call.observer)), cancel, room)

    return RunningCheck(work)


@dataclass(frozen=True, slots=True)
class _Call:
    """One check with its arguments."""

    settings: ConnectionSettings
    options: CheckOptions
    limits: ReadLimits | None
    locality: Locality | None
    observer: Observer
    ledger: Path | None


def _call(
    names: tuple[str, ...],
    hosts: str | None,
    settings: ConnectionSettings | None,
    options: CheckOptions | None,
    limits: ReadLimits | None,
    locality: Locality | None,
    observer: Observer | None,
    progress: Callable[[Progress], object] | None,
    ledger: Path | None,
) -> _Call:
    chosen = options or CheckOptions()
    told = [observer] if observer else []
    told += [ProgressTeller(progress)] if progress else []
    return _Call(
        connection_settings(settings, hosts),
        replace(chosen, names=names) if names else chosen,
        limits,
        locality,
        Several(*told),
        ledger,
    )


async def _checked(call: _Call, cancel: threading.Event | None, room: Callable[[], Awaitable[None]] = plenty) -> Report:
    opened = open_cluster(call.settings, call.limits, locality=call.locality)
    async with opened as (reader, clock), stopping(cancel) as stop:
        ring = await reader.ring()
        require_dc(ring, call.options.dc)
        if call.ledger is None and call.options.part is not None:
            raise UsageError("a part of a run is of use only in a ledger, where it waits for the others: name one")
        if call.ledger is None:
            return await run_check(reader, clock, call.options, call.observer, stop, room=room)
        shared = call.options.part is not None
        with one_run(ring, call.ledger), open_ledger(call.ledger, shared=shared) as ledger:
            recorder = recorder_of(ledger, call.options)
            report = await run_check(reader, clock, call.options, call.observer, stop, recorder, room)
            for problem in filter(None, (ledger.note, recorder.problem)):
                warnings.warn(problem, stacklevel=2)
            return report


def compare(
    *names: str,
    hosts: str | None = None,
    target_hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    target_settings: ConnectionSettings | None = None,
    options: CompareOptions | None = None,
    limits: ReadLimits | None = None,
    locality: Locality | None = None,
    observer: PairObserver | None = None,
    take: Callable[[Compared], None] | None = None,
    cancel: threading.Event | None = None,
    ledger: Path | None = None,
) -> Comparison:
    """Compare two clusters and return whether the target holds exactly what the source holds.

    `names` are `keyspace` or `keyspace.table`, or with another name in the target `keyspace.table=keyspace2.table2`;
    all of the users' tables when none is named. `hosts` or `settings` say how to reach the source, as for `check`,
    `target_hosts` or `target_settings` how to reach the target; without them it is [target] of the TOML file or
    CONSISTENCY_TARGET_HOSTS. The limits hold for each side.

    `take` is given each finding as it is claimed, on this thread; the result has the counts and the first 20. Setting
    `cancel` from another thread ends the comparison within seconds with a correct partial result.

    With a `ledger` that file remembers by table when the clusters were last compared and last equal, as `--ledger` of
    the command has it, and no other run may use it of these clusters meanwhile; a problem with the file is a warning.

    Raises a ConsistencyError when it cannot run, with the side in its message: UsageError for a name or an option,
    ConnectError, TopologyError, LockedError. What of a table could not be read, or has no counterpart, is in the
    result.
    """
    chosen = options or CompareOptions()
    chosen = replace(chosen, names=names) if names else chosen
    if chosen.read is Read.QUORUM:
        locality = Locality.QUORUM
    source, target = connection_settings(settings, hosts), target_connection_settings(target_settings, target_hosts)

    async def compared(stop: asyncio.Event) -> Comparison:
        async with open_pair(source, target, limits, locality=locality) as pair:
            work = partial(run_compare, pair, chosen, observer, stop, take=take or _nobody)
            if ledger is None:
                return await work()
            result, _ = await recorded(pair, chosen, ledger, work, partial(warnings.warn, stacklevel=2))
            return result

    return run_until(cancel, compared, "await asyncio.to_thread(compare, ...)")


def _nobody(_: Compared) -> None:
    """Tell nobody."""


def audit(
    *keyspaces: str,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    rf_minimum: int = 3,
    distribution: bool = False,
) -> AuditReport:
    """Judge replication and topology of these keyspaces (all, the system's too, when none is named).

    Reads the ring and the schema, no row. Fewer than `rf_minimum` replicas in a data centre are a violation. With
    `distribution` each node is asked how much it holds, how large its partitions are, and how many tombstones its reads
    meet. Raises a ConsistencyError when the cluster cannot be reached or a keyspace does not exist.
    """

    async def judged() -> AuditReport:
        async with open_cluster(connection_settings(settings, hosts)) as (reader, clock):
            connection = reader.access.connection if distribution else None
            return await run_audit(reader, keyspaces, rf_minimum=rf_minimum, clock=clock, connection=connection)

    return run(judged, "await asyncio.to_thread(audit, ...)")


def preflight(
    node: str,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: PreflightOptions | None = None,
) -> Preflight:
    """Return as `answer` and `line` whether a node (`address:port`, address or host id) may go down now.

    With `options.wait_s` it asks again until the answer is yes or the time is over. Raises a ConsistencyError when
    the cluster cannot be reached or the node does not belong to it.
    """

    async def judged() -> Preflight:
        async with open_look(connection_settings(settings, hosts)) as look:
            return await run_preflight(look, node, options or PreflightOptions())

    return run(judged, "await asyncio.to_thread(preflight, ...)")


def connection_settings(settings: ConnectionSettings | None = None, hosts: str | None = None) -> ConnectionSettings:
    """Return the settings given, else those made from `hosts`, the environment and the files.

    Without arguments they are the settings of the command: start from them to change one (`dataclasses.replace`).
    """
    if settings is not None and hosts is not None:
        raise UsageError("give either hosts or settings: the settings name the hosts already")
    return settings or load_settings(GivenOptions(hosts=hosts))


def target_connection_settings(
    settings: ConnectionSettings | None = None, hosts: str | None = None
) -> ConnectionSettings:
    """Return the settings of the second cluster: those given, else from `hosts`, the environment and [target]."""
    if settings is not None and hosts is not None:
        raise UsageError("give either target_hosts or target_settings: the settings name the hosts already")
    return settings or load_settings(GivenOptions(hosts=hosts), section=TARGET)


async def run_audit(
    reader: ClusterReader,
    names: Sequence[str],
    *,
    rf_minimum: int = 3,
    clock: Clock | None = None,
    connection: Connection | None = None,
) -> AuditReport:
    """Judge the keyspaces named, or all; with a `clock`, the servers' clocks too. No row is read.

    With a `connection` the nodes are asked what they hold.
    """
    ring = await reader.ring()
    schema = await reader.schema()
    scope = _keyspaces(schema, names) if names else tuple(sorted(schema))
    clocks = clock.readings if clock else ()
    violations = judge_replication(ring, schema, scope=scope, rf_minimum=rf_minimum, with_nodes=True, clocks=clocks)
    judged = tuple(name for name in scope if schema[name].replication.replicated)
    if connection is None:
        return AuditReport(ring.cluster, len(ring.nodes), judged, violations)
    found = distribute(ring, schema, await read_holdings(connection, ring.nodes, judged))
    every = sorted((*violations, *judge_distribution(found)), key=gravest_first)
    return AuditReport(ring.cluster, len(ring.nodes), judged, tuple(every), found)


def _keyspaces(schema: Mapping[str, Keyspace], names: Sequence[str]) -> tuple[str, ...]:
    chosen = []
    for text in names:
        keyspace, table = parse_name(text)
        if table is not None:
            msg = f"{text!r} names a table; an audit judges keyspaces: consistency audit {keyspace}"
            raise UsageError(msg)
        if keyspace not in schema:
            msg = f"there is no keyspace {keyspace!r}{_close(keyspace, schema)}"
            raise UsageError(msg)
        chosen.append(keyspace)
    return tuple(sorted(set(chosen)))


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
