"""The options that say by what a check judges; every command that checks takes them."""

from __future__ import annotations

import click

from consistency.cli.options import CommandT, with_options
from consistency.cli.values import SECONDS
from consistency.settle import DEFAULT_WINDOW_S

_OPTIONS = (
    click.option(
        "--settle",
        type=SECONDS,
        default=DEFAULT_WINDOW_S,
        show_default=True,
        metavar="SECONDS",
        help="A difference must outlive this to be reported; longer than the servers' write timeout.",
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
