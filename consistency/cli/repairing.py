"""The options that let a command repair what it found; they load the repairer only when given."""

from __future__ import annotations

import importlib
from typing import Any

import click

from consistency.cli import REPAIRER
from consistency.cli.options import CommandT, with_options
from consistency.cli.values import SECONDS
from consistency.errors import UsageError

_OPTIONS = (
    click.option(
        "--repair",
        is_flag=True,
        help="Then repair what was found within the limits of the [repair] table of the configuration file, which must "
        "exist, and check the written partitions again.",
    ),
    click.option(
        "--max-rows",
        type=click.IntRange(min=0),
        metavar="N",
        help="With --repair: repair at most this many rows each time. Default: [repair] max_rows, else 1000.",
    ),
    click.option(
        "--repair-time",
        type=SECONDS,
        metavar="SECONDS",
        help="With --repair: start no more rows after this long. Default: [repair] max_seconds, else 3600.",
    ),
)


def repair_options(command: CommandT) -> CommandT:
    """Add them; they arrive as `repair`, `max_rows` and `repair_time`."""
    return with_options(command, _OPTIONS)


def take_repair_policy(given: dict[str, Any], config: str | None) -> Any:
    """Return what may be repaired, or None; refuse limits of a repair without --repair."""
    if not given["repair"]:
        for option in ("max_rows", "repair_time"):
            if given[option] is not None:
                msg = f"--{option.replace('_', '-')} limits a repair: it needs --repair"
                raise UsageError(msg)
        return None
    if given.get("non_owners"):
        raise UsageError("--non-owners finds what a repair cannot fix (nodetool cleanup does): run it without --repair")
    if given["dc"] is not None:
        raise UsageError("--repair judges all replicas of a row: it cannot be limited by --dc")
    repairer = importlib.import_module(REPAIRER)
    return repairer.nightly(config, max_rows=given["max_rows"], max_seconds=given["repair_time"])
