"""`consistency watch --target`: its options, and the watch of two clusters that they ask for."""

from __future__ import annotations

import sys
import uuid
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from consistency.checking.plan import leaf_rows_at
from consistency.checking.scan import ScanOptions
from consistency.cli.connection import Target, take_both
from consistency.cli.ledger import take_ledger
from consistency.cli.options import CommandT, with_options
from consistency.cli.politeness import give_way, take_politeness
from consistency.cli.serving import take_token
from consistency.cli.telemetry import open_log
from consistency.cli.values import SECONDS
from consistency.cli.watch_process import Pulse, live_page, require_folder, take_hooks, watch_until_stopped
from consistency.cluster.throttle import Politeness
from consistency.comparing.terms import Compare
from consistency.errors import UsageError
from consistency.watching.event_log import LogFormat
from consistency.watching.metrics import parse_labels

if TYPE_CHECKING:
    from consistency.comparing.preparing import CompareOptions

_OPTIONS = (
    click.option(
        "--target",
        "with_target",
        is_flag=True,
        help="Compare the cluster with a second one, the target, for ever: see 'compare'. --target-hosts says so too; "
        "else [target] of the TOML file names its hosts. Each table is compared as a whole.",
    ),
    click.option(
        "--compare",
        type=click.Choice([c.value for c in Compare]),
        help=f"With --target: what must be the same, see 'compare --compare'. Default: {Compare.WRITETIMES.value}.",
    ),
    click.option(
        "--tolerate-writetime",
        type=SECONDS,
        metavar="SECONDS",
        help="With --target: see 'compare --tolerate-writetime'.",
    ),
    click.option("--target-dc", metavar="DC", help="With --target: compare the replicas of this DC of it only."),
)
_FOR_TWO = ("compare", "tolerate_writetime", "target_dc")
_NAMES_A_TARGET = ("target_hosts", "target_port", "target_cqlshrc", "target_username", "target_tls")
_FOR_ONE = {
    "repair": "it compares, and writes nothing: use 'sync plan' and 'sync apply'",
    "run_time": "a table is compared as a whole, so that it is known when it was last equal",
    "depth": "use --compare",
    "views": "views are not compared: compare their tables",
    "html_dir": "it keeps the reports of checks: use --findings-dir",
}


def target_watch_options(command: CommandT) -> CommandT:
    """Add them; they arrive as `with_target`, `compare`, `tolerate_writetime` and `target_dc`."""
    return with_options(command, _OPTIONS)


def wants_target(given: dict[str, Any]) -> bool:
    """Whether two clusters are to be compared; UsageError for an option that only one, or only two can have."""
    wanted = given["with_target"] or given["target_hosts"] is not None
    if not wanted:
        for name in (*_FOR_TWO, *_NAMES_A_TARGET):
            if given[name] is not None:
                msg = f"--{name.replace('_', '-')} is about a second cluster: add --target"
                raise UsageError(msg)
        return False
    for name, why in _FOR_ONE.items():
        if given[name]:
            msg = f"--{name.replace('_', '-')} is not for a watch with --target: {why}"
            raise UsageError(msg)
    return True


def watch_target(names: tuple[str, ...], given: dict[str, Any], share: float) -> int:
    """Compare until a signal comes; a visit takes `share` of a node's time."""
    from consistency.watching.target_board import TargetBoard  # noqa: PLC0415 - loads the driver
    from consistency.watching.target_ledger import PairsKeeper  # noqa: PLC0415
    from consistency.watching.target_loop import TargetWatch, TargetWatchOptions  # noqa: PLC0415

    keeper = PairsKeeper(take_ledger(given, written=True))
    source, target = take_both(given)
    token = take_token(given)
    require_folder(given["findings_dir"])
    politeness = replace(take_politeness(given), share=share, in_pieces=False)
    give_way(politeness)
    hooks = take_hooks(given["hook"], given["hook_env"], given["webhook"])
    board = TargetBoard(parse_labels(given["metrics_label"]))
    default = LogFormat.CONSOLE if sys.stderr.isatty() else LogFormat.JSON
    log, on_stderr = open_log(given, str(uuid.uuid4()), default)
    options = TargetWatchOptions(_compared(names, given, politeness), given["period"], given["findings_dir"])
    pulse = Pulse()
    live, serve = live_page(board.now, None, pulse)
    opened = partial(_opened, source, target, politeness)
    going = TargetWatch(opened, options, board, log, hooks, keeper=keeper, audience=live)
    try:
        watch_until_stopped(going, partial(serve, given["listen"], token), pulse, log)
    finally:
        if log is not None and not on_stderr:
            log.sink.close()
    return 0


def _compared(names: tuple[str, ...], given: dict[str, Any], politeness: Politeness) -> CompareOptions:
    from consistency.comparing.preparing import CompareOptions  # noqa: PLC0415 - loads the driver

    return CompareOptions(
        names=names,
        compare=Compare(given["compare"] or Compare.WRITETIMES.value),
        tolerate_writetime_s=given["tolerate_writetime"] or 0.0,
        dc=given["dc"],
        target_dc=given["target_dc"],
        settle_window_s=given["settle"],
        scan=ScanOptions(
            leaves_at_once=1,
            descents_at_once=1,
            leaf_rows=leaf_rows_at(politeness.rate),
            max_findings=given["max_findings"],
        ),
    )


def _opened(source: Target, target: Target, politeness: Politeness) -> AbstractAsyncContextManager[Any]:
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415 - loads the driver
    from consistency.comparing.opening import open_pair  # noqa: PLC0415

    limits = ReadLimits(lanes=1, streams=1, politeness=politeness)
    return open_pair(source.settings, target.settings, limits)
