"""`consistency preflight`: whether a node may go down now."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.ledger import READ, ledger_option, take_ledger
from consistency.cli.outputs import STDOUT, require_json, write_json
from consistency.cli.show.terminal.console import make_console, safe
from consistency.cli.values import SECONDS

if TYPE_CHECKING:
    from consistency.auditing.preflight import Preflight


@click.command(short_help="Say whether a node may go down now, and why.")
@click.argument("node", metavar="NODE")
@connection_options
@click.option(
    "--keyspace",
    "keyspaces",
    multiple=True,
    metavar="KS",
    help="Judge only this keyspace; may be repeated. Default: all user keyspaces, and system_auth if logins are on.",
)
@ledger_option(READ)
@click.option(
    "--wait",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="Ask again until the answer is yes, for up to this long.",
)
@click.option(
    "--assume-settled",
    is_flag=True,
    help="Assume that no node joins, leaves or moves if the servers do not show it (before 5.0).",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    help="Write the answer as JSON; '-' is stdout, the text then goes to stderr.",
)
def preflight(node: str, **given: Any) -> int:
    """Say whether a node may go down now: 'yes', 'no' or 'unknown', and why.

    NODE is 'address:port', an address or a host id. The answer is no if one of its ranges would lose its quorum
    (of all replicas, or of its data centre's), while a node joins, leaves or moves, while the nodes disagree on
    the schema, and if the ledger (--ledger) knows rows that are current on this node but not on enough of the
    others. Nothing is written.

    \b
    Examples:
      consistency preflight 10.0.0.2 --hosts 10.0.0.1
      consistency preflight 10.0.0.2 --wait 600 && ssh 10.0.0.2 nodetool drain

    \b
    Exit codes:
      0 yes · 1 no · 2 usage · 3 unknown · 4 could not run
    """  # noqa: D301 - click wants the control character
    from consistency.auditing.preflight_facts import PreflightOptions  # noqa: PLC0415 - loads the driver
    from consistency.cli.show.terminal.preflight import print_preflight  # noqa: PLC0415

    ledger = take_ledger(given)
    target = take_connection(given)
    require_json("--json", given["json_path"])
    options = PreflightOptions(
        keyspaces=tuple(given["keyspaces"]),
        ledger=ledger,
        assume_settled=given["assume_settled"],
        wait_s=given["wait"],
    )
    answer = asyncio.run(_ask(target, node, options))
    write_json("--json", given["json_path"], answer.as_json())
    print_preflight(make_console(sys.stderr if given["json_path"] == STDOUT else sys.stdout), answer)
    return int(answer.exit_code)


async def _ask(target: Target, node: str, options: Any) -> Preflight:
    from consistency.auditing import preflight_facts  # noqa: PLC0415 - loads the driver

    said: list[str] = []

    def waiting(answer: Preflight) -> None:
        if said[-1:] != [answer.line]:
            said.append(answer.line)
            click.echo(f"waiting: {safe(answer.line)}", err=True)

    async with preflight_facts.open_look(target.settings) as look:
        return await preflight_facts.run_preflight(look, node, options, waiting)
