"""The options for how a check judges; every command that checks takes them."""

from __future__ import annotations

import click

from consistency.checking.settle_window import DEFAULT_WINDOW_S
from consistency.cli.options import CommandT, with_options
from consistency.cli.values import SECONDS

_OPTIONS = (
    click.option(
        "--settle",
        type=SECONDS,
        metavar="SECONDS",
        help="Report a difference only if it lasts this long. Default: half a second more than the servers' write "
        f"timeout, or {DEFAULT_WINDOW_S:g} if they do not tell it.",
    ),
    click.option(
        "--rf-min",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        metavar="N",
        help="Replicas per data centre below which a keyspace breaks the rules.",
    ),
)


def judging_options(command: CommandT) -> CommandT:
    """Add them; they arrive as `settle` and `rf_min`."""
    return with_options(command, _OPTIONS)
