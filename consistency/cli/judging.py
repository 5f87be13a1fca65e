"""The options for how a check judges; every command that checks takes them."""

from __future__ import annotations

import click

from consistency.checking.listing import DEFAULT_MAX_FINDINGS
from consistency.checking.settle_window import DEFAULT_WINDOW_S
from consistency.cli.options import CommandT, with_options
from consistency.cli.values import COUNT_OR_ALL, SECONDS

_OPTIONS = (
    click.option(
        "--settle",
        type=SECONDS,
        metavar="SECONDS",
        help="Report a difference only if it lasts this long. Default: half a second more than the servers' write "
        f"timeout, or {DEFAULT_WINDOW_S:g} if they do not tell it.",
    ),
    click.option(
        "--max-findings",
        type=COUNT_OR_ALL,
        default=str(DEFAULT_MAX_FINDINGS),
        show_default=True,
        metavar="N|all",
        help="List so many rows of a table that differ. If more do, the rest are counted exactly, by token range, kind "
        "and replica, at a fraction of the cost; a repair plan takes these ranges too. 0: list none.",
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
    """Add them; they arrive as `settle`, `max_findings` and `rf_min`."""
    return with_options(command, _OPTIONS)
