"""`consistency audit`: judge replication and topology from the ring and the schema alone."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.outputs import STDOUT, require_different, require_json, require_page, write_json, write_private
from consistency.cli.show.terminal.console import make_console

if TYPE_CHECKING:
    from consistency.api import AuditReport


@click.command(short_help="Judge replication, and the state of the nodes.")
@click.argument("names", nargs=-1, metavar="[KS]...")
@connection_options
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    help="Write the result as JSON; '-' is stdout, and the text then goes to stderr.",
)
@click.option(
    "--html",
    "html_path",
    metavar="FILE",
    help="Write the result as one self-contained HTML page, mode 0600; with --distribution it draws how the data lies.",
)
@click.option(
    "--rf-min",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Replicas per data centre below which a keyspace breaks the rules.",
)
@click.option(
    "--distribution",
    is_flag=True,
    help="Show how the data lies on the nodes too: what each holds against its token ranges, the largest partitions, "
    "tombstones met by reads. Needs SELECT on system_views; no row is read.",
)
def audit(
    names: tuple[str, ...],
    json_path: str | None,
    html_path: str | None,
    rf_min: int,
    *,
    distribution: bool,
    **given: Any,
) -> int:
    """Judge the replication of keyspaces and the state of the nodes.

    Judges the keyspaces named, or all that are replicated, Cassandra's own among them: too few replicas,
    SimpleStrategy, data centres that do not exist, racks that skew the placement, ranges without a live
    quorum, nodes that are down, do not answer us, join or leave, nodes that disagree on the schema or the ring,
    clocks that differ. No row is read. Each violation comes with its figures and the command that fixes it;
    warnings do not change the exit code.

    \b
    Examples:
      consistency audit --hosts 10.0.0.1
      consistency audit shop --rf-min 3 --json audit.json
      consistency audit shop --distribution --html data.html

    \b
    Exit codes:
      0 no rule is broken · 1 violation · 2 usage
      3 nothing, or not everything, could be judged · 4 could not run
    """  # noqa: D301 - click wants the control character
    from consistency.cli.show.terminal.audit import print_audit  # noqa: PLC0415 - loads the driver

    require_different({"--json": json_path, "--html": html_path})
    target = take_connection(given)
    require_page("--html", html_path)
    require_json("--json", json_path)
    report = asyncio.run(_audit(target, names, rf_min, distribution=distribution))
    write_json("--json", json_path, report.as_json())
    if html_path is not None:
        from consistency.cli.show.page.audit import render_audit  # noqa: PLC0415 - loads the templates' engine

        write_private("--html", html_path, render_audit(report))
    print_audit(make_console(sys.stderr if json_path == STDOUT else sys.stdout), report)
    return int(report.exit_code)


async def _audit(target: Target, names: tuple[str, ...], rf_min: int, *, distribution: bool) -> AuditReport:
    from consistency.api import run_audit  # noqa: PLC0415 - loads the driver
    from consistency.cluster.session import open_cluster  # noqa: PLC0415

    async with open_cluster(target.settings) as (reader, clock):
        connection = reader.access.connection if distribution else None
        return await run_audit(reader, names, rf_minimum=rf_min, clock=clock, connection=connection)
