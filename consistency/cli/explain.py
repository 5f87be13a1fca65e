"""`consistency explain`: one finding, read again now on every replica."""

from __future__ import annotations

import asyncio
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target, connection_options, take_both, take_connection, target_options
from consistency.cli.show.terminal.advice import Typed, can_repair, plan_command
from consistency.cli.show.terminal.console import make_console
from consistency.results.pair_findings import is_comparison

if TYPE_CHECKING:
    from consistency.cli.show.terminal.rowview import ValueText
    from consistency.comparing.explaining import PairExplanation
    from consistency.rows.explain import Chosen, Explanation


@click.command(short_help="Show what each replica holds of a row, and what wins.")
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
@target_options
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
      consistency explain differing.jsonl --hosts 10.0.0.1 --target-hosts 10.1.0.1

    \b
    Exit codes:
      0 the row is the same everywhere now · 1 it differs
      2 the file, the row or an option cannot be used
      3 not every replica could be read · 4 could not run
    """  # noqa: D301 - click wants the control character
    from consistency.cli.show.terminal.rowview import print_row, stand_in, value_text  # noqa: PLC0415
    from consistency.rows.explain import choose_finding  # noqa: PLC0415 - loads what reads a cluster

    show = value_text if show_values else partial(stand_in, secrets.randbits(64))
    if is_comparison(findings):
        return _explain_pair(findings, row, given, show)
    target = take_connection({name: value for name, value in given.items() if not name.startswith("target_")})
    chosen = choose_finding(findings, row)
    found = asyncio.run(_explain(target, chosen, traces=not no_traces))
    plan = plan_command(str(findings), Typed(target.words)) if can_repair() else []
    print_row(make_console(sys.stdout), chosen, found, plan, show=show)
    return int(found.exit_code)


def _explain_pair(findings: Path, row: int, given: dict[str, Any], show: ValueText) -> int:
    from consistency.cli.show.terminal.pairview import print_pair  # noqa: PLC0415
    from consistency.comparing.explaining import choose_pair_finding, explain_pair  # noqa: PLC0415
    from consistency.comparing.opening import open_pair  # noqa: PLC0415 - loads the driver

    source, target = take_both(given)
    chosen = choose_pair_finding(findings, row)

    async def explained() -> PairExplanation:
        async with open_pair(source.settings, target.settings) as pair:
            return await explain_pair(pair, chosen)

    found = asyncio.run(explained())
    print_pair(make_console(sys.stdout), found, show=show)
    return int(found.exit_code)


async def _explain(target: Target, chosen: Chosen, *, traces: bool) -> Explanation:
    from consistency.cluster.session import open_cluster  # noqa: PLC0415 - loads the driver
    from consistency.rows.explain import explain as explain_row  # noqa: PLC0415

    async with open_cluster(target.settings) as (reader, clock):
        return await explain_row(reader, clock, chosen, traces=traces)
