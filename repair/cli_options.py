"""Options that the commands which write to a cluster share."""

from __future__ import annotations

import click

from consistency.cli.values import PER_SECOND
from repair.pace import DEFAULT_RATE

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation; needed in scripts.")
rate_option = click.option(
    "--rate", type=PER_SECOND, default=DEFAULT_RATE, show_default=True, metavar="N",
    help="Start at most N rows a second.",
)  # fmt: skip
full_speed_option = click.option("--full-speed", is_flag=True, help="Do not limit the rate, for idle clusters.")
show_keys_option = click.option("--show-keys", is_flag=True, help="List the rows with their keys, deleted ones first.")
