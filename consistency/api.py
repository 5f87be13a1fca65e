"""The library: what the commands do, without a terminal. Synchronous; an async program calls the `run_` functions.

from consistency import check
report = check("shop.orders", hosts="10.0.0.1,10.0.0.2")
print(report.verdict, report.as_json()["coverage"])
"""

from __future__ import annotations

import asyncio
import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consistency.access import ReadLimits
from consistency.auditing import judge_replication
from consistency.checking import CheckOptions, run_check
from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.lock import one_run
from consistency.observer import Observer
from consistency.reader import ClusterReader
from consistency.reading import Locality
from consistency.report import Report, Severity, Violation
from consistency.ring import Ring
from consistency.schema import Keyspace
from consistency.scope import parse_name
from consistency.session import open_cluster
from consistency.settings import ConnectionSettings, GivenOptions, load_settings
from consistency.takedown import Preflight
from consistency.takedown_facts import PreflightOptions, open_look, run_preflight
from consistency.verdict import ExitCode

AUDIT_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found: the keyspaces that were judged and every rule of replication that is broken."""

    cluster: str
    nodes: int
    keyspaces: tuple[str, ...]
    violations: tuple[Violation, ...]

    @property
    def errors(self) -> int:
        """How many violations change the exit code."""
        return sum(v.severity is Severity.ERROR for v in self.violations)

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns; an audit that judged no keyspace proves nothing."""
        if self.errors:
            return ExitCode.DIVERGENT
        return ExitCode.CONSISTENT if self.keyspaces else ExitCode.INCOMPLETE

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": AUDIT_SCHEMA_VERSION,
            "cluster": self.cluster,
            "exit_code": int(self.exit_code),
            "keyspaces": list(self.keyspaces),
            "violations": [v.as_json() for v in self.violations],
        }


def check(
    *names: str,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: CheckOptions | None = None,
    limits: ReadLimits | None = None,
    locality: Locality | None = None,
    observer: Observer | None = None,
    ledger: Path | None = None,
) -> Report:
    """Check keyspaces and tables (all of the users' when none is named) and return the report.

    How to connect comes from `settings`, else from `hosts` and the same environment and files that the
    command reads. Raises a ConsistencyError where the check could not run; what could not be read of a
    table is in the report. With a `ledger` the run is remembered there, and no other may go on meanwhile
    (LockedError); what is wrong with the file is a warning.
    """

    async def run() -> Report:
        chosen = options or CheckOptions()
        if names:
            chosen = replace(chosen, names=names)
        async with open_cluster(_settings(settings, hosts), limits, locality=locality) as (reader, clock):
            ring = await reader.ring()
            require_dc(ring, chosen.dc)
            if ledger is None:
                return await run_check(reader, clock, chosen, observer)
            with one_run(ring, ledger), open_ledger(ledger) as opened:
                recorder = opened.recorder()
                report = await run_check(reader, clock, chosen, observer, recorder=recorder)
                for problem in filter(None, (opened.note, recorder.problem)):
                    warnings.warn(problem, stacklevel=2)
                return report

    return asyncio.run(run())


def audit(
    *keyspaces: str, hosts: str | None = None, settings: ConnectionSettings | None = None, rf_minimum: int = 3
) -> AuditReport:
    """Judge replication and topology of these keyspaces (all, the system's too, when none is named)."""

    async def run() -> AuditReport:
        async with open_cluster(_settings(settings, hosts)) as (reader, _):
            return await run_audit(reader, keyspaces, rf_minimum=rf_minimum)

    return asyncio.run(run())


def preflight(
    node: str,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: PreflightOptions | None = None,
) -> Preflight:
    """Say whether a node (`address:port`, address or host id) may go down now; `answer` and `line` tell."""

    async def run() -> Preflight:
        async with open_look(_settings(settings, hosts)) as look:
            return await run_preflight(look, node, options or PreflightOptions())

    return asyncio.run(run())


async def run_audit(reader: ClusterReader, names: Sequence[str], *, rf_minimum: int = 3) -> AuditReport:
    """Judge the keyspaces named, or all; nothing is read but the ring and the schema."""
    ring = await reader.ring()
    schema = await reader.schema()
    scope = _keyspaces(schema, names) if names else tuple(sorted(schema))
    violations = judge_replication(ring, schema, scope=scope, rf_minimum=rf_minimum, with_nodes=True)
    judged = tuple(name for name in scope if schema[name].replication.replicated)
    return AuditReport(ring.cluster, len(ring.nodes), judged, violations)


def require_dc(ring: Ring, dc: str | None) -> None:
    """Raise UsageError where `dc` is none of the cluster's data centres: it would limit the check to nothing."""
    if dc is not None and dc not in ring.datacenters:
        msg = f"--dc {dc}: the cluster has no such data centre; it has {', '.join(ring.datacenters)}"
        raise UsageError(msg)


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


def _settings(settings: ConnectionSettings | None, hosts: str | None) -> ConnectionSettings:
    if settings is not None and hosts is not None:
        raise UsageError("give either hosts or settings: the settings name the hosts already")
    return settings or load_settings(GivenOptions(hosts=hosts))
