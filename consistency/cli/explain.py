"""`consistency explain`: one finding, read again now on every replica."""

from __future__ import annotations

import asyncio
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.show.terminal.advice import Typed, can_repair, plan_command
from consistency.cli.show.terminal.console import make_console

if TYPE_CHECKING:
    from consistency.rows.explain import Chosen, Explanation


@click.command()
@click.argument("findings", type=click.Path(path_type=Path))
@click.option(
    "--row",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Which finding of the file, counted from 1.",
)
@click.option(
    "--show-values",
    is_flag=True,
    help="Print values. Default: their length and four digits, equal for equal values within this output.",
)
@click.option("--no-traces", is_flag=True, help="Do not trace reads to look for deletes on replicas that lack the row.")
@connection_options
def explain(findings: Path, row: int, show_values: bool, no_traces: bool, **given: Any) -> int:
    """Show what each replica holds of one row, cell by cell, and which version wins.

    Takes a finding from the file that 'check --findings' wrote, reads its row again on every replica that owns
    it, and says for each column which version wins and by which of Cassandra's rules. The row's key is
    printed. Nothing is written. Where a replica lacks the row, a trace of its partition there may rule out that
    it was deleted (needs SELECT on system_traces, where the trace stays for a day; it holds no key).

    \b
    Examples:
      consistency explain findings.jsonl
      consistency explain findings.jsonl --row 12 --show-values --hosts 10.0.0.1

    \b
    Exit codes:
      0 the row is the same everywhere now · 1 it differs
      2 the file, the row or an option cannot be used
      3 not every replica could be read · 4 could not run
    """  # noqa: D301 - click wants the control character
    from consistency.cli.show.terminal.rowview import print_row, stand_in, value_text  # noqa: PLC0415
    from consistency.rows.explain import choose_finding  # noqa: PLC0415 - loads what reads a cluster

    target = take_connection(given)
    chosen = choose_finding(findings, row)
    found = asyncio.run(_explain(target, chosen, traces=not no_traces))
    show = value_text if show_values else partial(stand_in, secrets.randbits(64))
    plan = plan_command(str(findings), Typed(target.words)) if can_repair() else []
    print_row(make_console(sys.stdout), chosen, found, plan, show=show)
    return int(found.exit_code)


async def _explain(target: Target, chosen: Chosen, *, traces: bool) -> Explanation:
    from consistency.cluster.session import open_cluster  # noqa: PLC0415 - loads the driver
    from consistency.rows.explain import explain as explain_row  # noqa: PLC0415

    async with open_cluster(target.settings) as (reader, clock):
        return await explain_row(reader, clock, chosen, traces=traces)
