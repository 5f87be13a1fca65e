"""`consistency demo`: the whole story on a real local cluster, with the commands that a user would type.

Every step is asserted. If a step fails, the demo ends with exit code 4 and names it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from consistency.cluster.connection import Connection
from consistency.cluster.settings import ConnectionSettings
from consistency.cluster.snapshot import read_ring
from consistency.cluster.wire import ALL, NODE_LOCAL, Statement
from consistency.errors import ConsistencyError, ReplicaError
from consistency.model.ring import Node, Ring
from sandbox.cluster import Sandbox
from sandbox.demo_story import KEYSPACE, ROWS, SCHEMA, UNSAFE, Damage, batches, damages
from sandbox.errors import SandboxError, StartError
from sandbox.options import SandboxOptions

_WRITERS = 8
_LEFT_TO_PEOPLE = ("zombie_suspect", "future_write_time")
"""Kinds of damage that a repair leaves alone by default."""


class StoryError(SandboxError):
    """A step of the demo failed."""


@click.command(short_help="Show the whole story on a real cluster of three nodes.")
@click.option("--address-base", default="127.0.0.1", show_default=True, help="Address of the first of the three nodes.")
@click.option("--cassandra", default="5.0", show_default=True, help="Version of Cassandra to run.")
@click.option("--keep", is_flag=True, help="Leave the cluster running, and say how to stop it.")
def demo(address_base: str, cassandra: str, keep: bool) -> None:  # noqa: FBT001 - click passes options
    """Show the whole story on a real three-node Cassandra on this machine.

    Starts the cluster, writes 100,000 rows, plants one of every kind of damage, lets 'check' and 'explain' find
    exactly that, repairs it, and audits replication. Nothing outside a temporary directory and loopback is touched.

    \b
    Example:
      consistency demo
      consistency demo --keep --address-base 127.0.5.1
    """  # noqa: D301 - click wants the control character
    try:
        _run(address_base, cassandra, keep=keep)
    except SandboxError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except ConsistencyError as error:
        # Any error of a replica ends the demo.
        click.echo(f"error: {error}; is the machine too busy for three nodes?", err=True)
        raise SystemExit(StoryError.exit_code) from None
    except KeyboardInterrupt:
        click.echo("interrupted; the cluster is stopped", err=True)
        raise SystemExit(130) from None


def _run(address_base: str, cassandra: str, *, keep: bool) -> None:
    started = time.monotonic()
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="consistency-demo-"))
        options = SandboxOptions(dir=directory, address_base=address_base, cassandra=cassandra, tied=not keep)
        sandbox = Sandbox(options)
        _say("Three Cassandra nodes", f"consistency sandbox up --dir {directory} --address-base {address_base}")
        stack.callback(_down, sandbox, directory, keep=keep)
        sandbox.up(lambda line: click.echo(f"    {line}"))
        _Story(sandbox, directory).tell()
        click.echo()
        click.secho(f"The story held, in {time.monotonic() - started:.0f} s.", bold=True)
        if keep:
            click.echo(
                f"The cluster is up: {' '.join(sandbox.hosts)}. Stop it: consistency sandbox down --dir {directory}"
            )


def _down(sandbox: Sandbox, directory: Path, *, keep: bool) -> None:
    if not keep:
        with suppress(SandboxError):  # nothing was started; the reason is printed elsewhere
            sandbox.down(delete=True)
        shutil.rmtree(directory, ignore_errors=True)
        click.echo("The nodes are stopped and their files removed. To try commands yourself: consistency demo --keep")


def _say(title: str, command: str = "") -> None:
    click.echo()
    click.secho(f"== {title}", bold=True)
    if command:
        click.echo(f"$ {command}")


@dataclass(frozen=True, slots=True)
class _Story:
    sandbox: Sandbox
    directory: Path

    def tell(self) -> None:
        """Run it step by step; StoryError if a step fails."""
        base_us = time.time_ns() // 1000 - 3_600_000_000
        _say(f"A table of {ROWS:,} rows, RF 3, written at ALL")
        asyncio.run(self._write(base_us))
        self._check_clean()
        planted = damages(base_us)
        _say("Damage, each on one replica alone")
        asyncio.run(self._damage(planted))
        for damage in planted:
            click.echo(f"    node {damage.node} {damage.says}: {damage.key}")
        findings = self._check_damaged(planted)
        self._explain(findings)
        self._repair(findings, planted)
        self._audit()

    def _check_clean(self) -> None:
        _say("Is everything where it should be?")
        report = self._command(0, "check", KEYSPACE)
        _must(report["verdict"] == "consistent", "the clean table was not found consistent")
        _must(report["tables"][0]["rows"] == ROWS, f"not all {ROWS:,} rows were read")
        _must(report["coverage"]["planned"] == report["coverage"]["completed"], "coverage is not complete")

    def _check_damaged(self, planted: Iterable[Damage]) -> Path:
        _say("And now? Exactly the planted rows, no other")
        findings = self.directory / "findings.jsonl"
        report = self._command(1, "check", KEYSPACE, "--findings", str(findings))
        lines = [json.loads(line) for line in findings.read_text(encoding="utf-8").splitlines()][1:]
        found = sorted(_name(line["kind"], line["key"]) for line in lines)
        wanted = sorted(_name(damage.kind, damage.key) for damage in planted)
        _must(found == wanted, f"found {found}, planted {wanted}")
        _must(report["verdict"] == "divergent", "the damaged table was not found divergent")
        return findings

    def _explain(self, findings: Path) -> None:
        lines = [json.loads(line) for line in findings.read_text(encoding="utf-8").splitlines()][1:]
        row = next(i for i, line in enumerate(lines, start=1) if line["kind"] == "tie")
        _say("Who holds what, who wins, by which rule?")
        self._command(1, "explain", str(findings), "--row", str(row), "--show-values", has_json=False)

    def _repair(self, findings: Path, planted: Iterable[Damage]) -> None:
        plan, journal = str(self.directory / "plan.jsonl"), str(self.directory / "journal.jsonl")
        _say("What would be repaired, and what is better left to a person?")
        self._command(1, "repair", "plan", str(findings), "-o", plan, has_json=False)
        _say("Repair, each row proven on every replica")
        self._command(1, "repair", "apply", plan, "--journal", journal, "--yes", has_json=False)
        _say("And now? Only what was left: a delete may be purged, a clock was wrong")
        after = self.directory / "after.jsonl"
        self._command(1, "check", KEYSPACE, "--findings", str(after))
        found = [json.loads(line)["kind"] for line in after.read_text(encoding="utf-8").splitlines()[1:]]
        left = [damage.kind for damage in planted if damage.kind in _LEFT_TO_PEOPLE]
        _must(sorted(found) == sorted(left), f"after the repair found {found}, expected {left}")

    def _audit(self) -> None:
        _say("Does replication keep the rules? (A new cluster's own system_auth does not)")
        asyncio.run(self._alter(UNSAFE))
        report = self._command(1, "audit")
        kinds = {(v["keyspace"], v["kind"]) for v in report["violations"]}
        _must(("demo_unsafe", "rf_below_minimum") in kinds, "the audit missed a keyspace of RF 1")
        _must(not [k for keyspace, k in kinds if keyspace == KEYSPACE], "the audit blames a sound keyspace")

    def _command(self, expected: int, *arguments: str, has_json: bool = True) -> dict[str, Any]:
        """Run a command as a user would, show its output, and check its exit code."""
        hosts = ["--hosts", ",".join(self.sandbox.hosts), "--port", str(self.sandbox.nodes[0].port)]
        json_path = self.directory / "report.json"
        more = ["--json", str(json_path)] if has_json else []
        click.echo(f"$ consistency {' '.join([*arguments, *hosts])}")
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "consistency", *arguments, *hosts, *more], check=False
        )
        _must(
            done.returncode == expected,
            f"'consistency {arguments[0]}' ended with exit code {done.returncode}, expected {expected}",
        )
        report: dict[str, Any] = json.loads(json_path.read_text(encoding="utf-8")) if has_json else {}
        return report

    async def _alter(self, statement: str) -> None:
        async with _Writer(self.sandbox) as writer:
            await writer.schema(statement)

    async def _write(self, base_us: int) -> None:
        async with _Writer(self.sandbox) as writer:
            for statement in SCHEMA:
                await writer.schema(statement)
            await writer.load(batches(base_us))

    async def _damage(self, planted: Iterable[Damage]) -> None:
        async with _Writer(self.sandbox) as writer:
            for damage in planted:
                await writer.on(damage.node, damage.cql)


class _Writer:
    """Writes to the demo's own cluster, as nothing else in the package does."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._connection: Connection
        self._ring: Ring

    async def __aenter__(self) -> _Writer:  # noqa: PYI034 - Self is 3.11
        points = tuple((node.address, node.port) for node in self._sandbox.nodes)
        self._connection = await Connection.open(ConnectionSettings(points))
        self._ring = await read_ring(self._connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    def _node(self, n: int) -> Node:
        node = self._sandbox.nodes[n - 1]
        return next(m for m in self._ring.nodes if (m.address, m.port) == (node.address, node.port))

    async def schema(self, statement: str) -> None:
        """Change the schema through node 1 and wait until all nodes agree on it."""
        await self._run(self._node(1), Statement(statement, timeout_s=60.0))
        for _ in range(200):
            versions = {
                str((await self._connection.select(node, "SELECT schema_version FROM system.local"))[0])
                for node in self._ring.nodes
            }
            if len(versions) == 1:
                return
            await asyncio.sleep(0.05)
        raise StartError("the nodes did not agree on the schema within 10 s")

    async def on(self, n: int, statement: str) -> None:
        """Write to one node's own storage only."""
        await self._run(self._node(n), Statement(statement, consistency=NODE_LOCAL))

    async def _run(self, node: Node, statement: Statement) -> None:
        """Run a statement, again if a busy machine was too slow; each has its own write time, or IF NOT EXISTS."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaError),
            stop=stop_after_attempt(8),
            wait=wait_random_exponential(multiplier=0.5, max=5.0),
            reraise=True,
        )
        await attempts(self._connection.execute, node, statement)

    async def load(self, statements: Iterable[str]) -> None:
        """Write at ALL, several statements at a time, alternating between the nodes."""
        pending = iter(enumerate(statements))

        async def writer() -> None:
            for i, statement in pending:
                node = self._ring.nodes[i % len(self._ring.nodes)]
                await self._run(node, Statement(statement, consistency=ALL))

        await asyncio.gather(*(writer() for _ in range(_WRITERS)))


def _name(kind: str, key: dict[str, Any]) -> str:
    return f"{kind} {json.dumps(key, sort_keys=True)}"


def _must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        msg = f"the story is not true: {otherwise}"
        raise StoryError(msg)
