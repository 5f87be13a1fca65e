"""Options that the commands which plan and do writes share."""

from __future__ import annotations

import click

from consistency.cli.options import CommandT, with_options
from consistency.cli.values import PER_SECOND, SECONDS
from consistency.rows.classify import DEFAULT_MAX_SKEW_S
from repair.applying.pace import DEFAULT_RATE

_yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation; needed in scripts.")
_rate_option = click.option(
    "--rate", type=PER_SECOND, default=DEFAULT_RATE, show_default=True, metavar="N",
    help="Start at most N rows a second.",
)  # fmt: skip
max_clock_skew_option = click.option(
    "--max-clock-skew", type=SECONDS, default=DEFAULT_MAX_SKEW_S, show_default=True, metavar="SECONDS",
    help="Treat a write time further ahead of the servers' clocks than this as in the future.",
)  # fmt: skip
_full_speed_option = click.option("--full-speed", is_flag=True, help="Do not limit the rate, for idle clusters.")
show_keys_option = click.option("--show-keys", is_flag=True, help="List the rows with their keys, deleted ones first.")
journal_option = click.option(
    "--journal", required=True, metavar="FILE", help="A new file for the journal; mode 0600, holds values.",
)  # fmt: skip
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say how many rows would be written, deleted or left, and write nothing."
)


def writing_options(command: CommandT) -> CommandT:
    """Add the options of a command that writes: how fast, and whether it asks first."""
    return with_options(command, (_rate_option, _full_speed_option, _yes_option))
