"""The options that say how much the nodes may be burdened."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from consistency.cli.options import CommandT, with_options
from consistency.cli.values import FACTOR
from consistency.cluster.throttle import DEFAULT_GUARD, Politeness
from consistency.errors import UsageError

_NICE = 10
"""That of the units in deploy/systemd."""

_OPTIONS = (
    click.option(
        "--rate", type=click.IntRange(min=1), metavar="ROWS", help="Read at most so many rows a second of a node."
    ),
    click.option(
        "--latency-guard",
        type=FACTOR,
        default=None,
        metavar="FACTOR",
        help="While others work with the cluster, ask less of a node that takes more than this many times its "
        f"usual time for a small read. Default: {DEFAULT_GUARD}.",
    ),
    click.option(
        "--pause-file", metavar="FILE", help="Ask nothing new while this file exists; what was begun is finished."
    ),
    click.option(
        "--full-speed",
        is_flag=True,
        help="Let no node rest, whoever works with it: for maintenance windows. A cluster that nobody works with is "
        "read at full speed anyway.",
    ),
)


def politeness_options(command: CommandT) -> CommandT:
    """Add the options to a command."""
    return with_options(command, _OPTIONS)


def take_politeness(given: dict[str, Any]) -> Politeness:
    """Turn what was typed into its value."""
    guard = given["latency_guard"]
    if given["full_speed"] and guard is not None:
        raise UsageError("--full-speed lets no node rest, --latency-guard does; give one of them")
    return Politeness(
        rate=given["rate"],
        guard=None if given["full_speed"] else guard or DEFAULT_GUARD,
        pause_file=Path(given["pause_file"]) if given["pause_file"] else None,
    )


def give_way(politeness: Politeness) -> None:
    """Let a node, or whatever else runs on this machine, go first: in a process of our own, unless at full speed."""
    ours = click.get_current_context().find_root().obj is True
    if politeness.guard is None or not ours or not hasattr(os, "setpriority"):
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
