"""The options that limit the load on the nodes."""

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
"""The nice value of the units in deploy/systemd."""

_OPTIONS = (
    click.option(
        "--rate", type=click.IntRange(min=1), metavar="ROWS", help="Read at most this many rows a second of each node."
    ),
    click.option(
        "--latency-guard",
        type=FACTOR,
        default=None,
        metavar="FACTOR",
        help="While applications use the cluster, slow down on a node whose small reads take more than this many "
        f"times their usual time. Default: {DEFAULT_GUARD}.",
    ),
    click.option(
        "--pause-file",
        metavar="FILE",
        help="Send no new query while this file exists; running queries finish.",
    ),
    click.option(
        "--full-speed",
        is_flag=True,
        help="Do not throttle, even while applications use the cluster (for maintenance windows). An idle cluster is "
        "always read at full speed.",
    ),
)


def politeness_options(command: CommandT) -> CommandT:
    """Add the options to a command."""
    return with_options(command, _OPTIONS)


def take_politeness(given: dict[str, Any]) -> Politeness:
    """Turn the arguments into a Politeness."""
    guard = given["latency_guard"]
    if given["full_speed"] and guard is not None:
        raise UsageError("--full-speed turns off what --latency-guard sets; give one of them")
    return Politeness(
        rate=given["rate"],
        guard=None if given["full_speed"] else guard or DEFAULT_GUARD,
        pause_file=Path(given["pause_file"]) if given["pause_file"] else None,
    )


def give_way(politeness: Politeness) -> None:
    """Lower the priority of our own process, so that a node on this machine goes first; not at full speed."""
    ours = click.get_current_context().find_root().obj is True
    if politeness.guard is None or not ours or not hasattr(os, "setpriority"):
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
