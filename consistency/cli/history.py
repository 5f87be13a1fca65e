"""`consistency history`: past runs, and how old the last clean pass of each table is."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from consistency.cli.ledger import READ, ledger_option, take_ledger
from consistency.cli.outputs import STDOUT, require_json, write_json
from consistency.cli.show.terminal.console import make_console
from consistency.cli.show.terminal.history import print_history
from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.ledger.history import WARN_AT, read_history


@click.command(short_help="Show past runs and the age of the last clean pass.")
@click.argument("names", nargs=-1, metavar="[KS | KS.TABLE]...")
@ledger_option(READ)
@click.option("--config", metavar="FILE", help="TOML file with [ledger] path.")
@click.option("--cluster", metavar="NAME", help="Which cluster, by name or id, if the ledger has several.")
@click.option(
    "--warn-at",
    type=click.IntRange(1, 100),
    default=round(WARN_AT * 100),
    show_default=True,
    metavar="PERCENT",
    help="A table is due when this percentage of gc_grace_seconds has passed since its oldest range was clean.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=14, show_default=True, metavar="N", help="How many runs to show."
)
@click.option(
    "--json", "json_path", metavar="FILE", help="Write it as JSON; '-' is stdout, and the text then goes to stderr."
)
def history(names: tuple[str, ...], **given: Any) -> int:
    """Show past runs and the age of the last clean pass of each table.

    Reads the ledger, not the cluster. A delete is safe if every replica learns of it within gc_grace_seconds, so
    the figure that matters is how long ago the oldest range of a table was clean on all its replicas. Ranges that
    were never clean count as unchecked. Rows that differ again are counted, without keys. If several clusters have
    one name, all are shown with id and nodes, and the worst one decides the exit code.

    \b
    Examples:
      consistency history --ledger /var/lib/consistency/ledger
      consistency history shop --warn-at 60 --json - | jq .tables

    \b
    Exit codes:
      0 every range was clean in time · 1 a table is due or overdue · 2 usage
      3 a range was never clean, or there is no ledger
    """  # noqa: D301 - click wants the control character
    path, json_path = take_ledger(given), given["json_path"]
    if path is None:
        raise UsageError(
            "no ledger is named: give --ledger FILE, CONSISTENCY_LEDGER, or [ledger] path in the TOML file"
        )
    require_json("--json", json_path)
    with open_ledger(path, create=False) as ledger:
        found = read_history(
            ledger,
            time.time_ns() // 1000,
            cluster=given["cluster"],
            names=names,
            warn_at=given["warn_at"] / 100,
            most_runs=given["runs"],
        )
    write_json("--json", json_path, found.as_json())
    print_history(make_console(sys.stderr if json_path == STDOUT else sys.stdout), found)
    return int(found.exit_code)
