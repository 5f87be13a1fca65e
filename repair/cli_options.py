"""Options that the commands which plan and do writes share."""

from __future__ import annotations

import click

from consistency.cli.values import PER_SECOND, SECONDS
from consistency.rows.classify import DEFAULT_MAX_SKEW_S
from repair.pace import DEFAULT_RATE

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation; needed in scripts.")
rate_option = click.option(
    "--rate", type=PER_SECOND, default=DEFAULT_RATE, show_default=True, metavar="N",
    help="Start at most N rows a second.",
)  # fmt: skip
max_clock_skew_option = click.option(
    "--max-clock-skew", type=SECONDS, default=DEFAULT_MAX_SKEW_S, show_default=True, metavar="SECONDS",
    help="Treat a write time further ahead of the servers' clocks than this as in the future.",
)  # fmt: skip
full_speed_option = click.option("--full-speed", is_flag=True, help="Do not limit the rate, for idle clusters.")
show_keys_option = click.option("--show-keys", is_flag=True, help="List the rows with their keys, deleted ones first.")
