"""`consistency watch`: check tables continuously, serve metrics, and notify hooks of a divergence."""

from __future__ import annotations

import importlib
import sys
import uuid
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from consistency.checking.plan import leaf_rows_at
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli import REPAIRER
from consistency.cli.connection import Target, connection_options, take_connection, target_options
from consistency.cli.judging import judging_options
from consistency.cli.ledger import ledger_option, take_ledger
from consistency.cli.politeness import give_way, politeness_options, take_politeness
from consistency.cli.repairing import repair_options, take_repair_policy
from consistency.cli.serving import serving_options, take_token
from consistency.cli.telemetry import log_options, metrics_label_option, open_log
from consistency.cli.values import SECONDS
from consistency.cli.watch_process import Pulse, live_page, require_folder, take_hooks, watch_until_stopped
from consistency.cli.watch_target import target_watch_options, wants_target, watch_target
from consistency.cluster.throttle import Politeness
from consistency.errors import UsageError
from consistency.model.reading import CHECKED_DEPTHS, Depth
from consistency.watching.board import Board
from consistency.watching.event_log import LogFormat
from consistency.watching.loop import DEFAULT_PERIOD_S, DEFAULT_RUN_TIME_S, Watch, WatchOptions
from consistency.watching.metrics import parse_labels
from consistency.watching.visit_ledger import Keeper

_SHARE = 0.25
"""The share of a node's time that a visit takes, leaf by leaf; the period decides how long nodes rest."""


@click.command()
@click.argument("names", nargs=-1, metavar="[KS | KS.TABLE | KS.T=KS2.T2]...")
@connection_options
@target_options
@target_watch_options
@click.option(
    "--period",
    type=SECONDS,
    default=DEFAULT_PERIOD_S,
    show_default=True,
    metavar="SECONDS",
    help="Visit every table once within this time, evenly spread.",
)
@ledger_option(
    "Record each visit in FILE: a restarted watch then continues with the least recently read ranges, and the age of "
    "each range's last clean pass is known. Default: CONSISTENCY_LEDGER, [ledger] path in the TOML file, else none."
)
@click.option(
    "--run-time",
    type=SECONDS,
    metavar="SECONDS",
    help="Start no further range of a table after this long, but read one in any case; the next visit continues with "
    "the least recently read. "
    f"Needs a ledger, not with --dc. Default with a ledger: {DEFAULT_RUN_TIME_S:.0f}.",
)
@serving_options
@click.option("--hook", metavar="COMMAND", help="Run this on a divergence, without a shell, with JSON on its stdin.")
@click.option(
    "--hook-env",
    multiple=True,
    metavar="NAME",
    help="Pass this variable of our environment on to the hook, which gets little more than PATH, HOME, LANG and TZ "
    "otherwise. Repeatable.",
)
@click.option(
    "--webhook",
    metavar="URL",
    help="Post JSON here on a divergence, signed with the secret in CONSISTENCY_WEBHOOK_SECRET or _SECRET_FILE. "
    "Default: CONSISTENCY_WEBHOOK, which keeps the address out of the process list.",
)
@click.option(
    "--findings-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep each table's latest findings in this directory, as KEYSPACE.TABLE.jsonl, mode 0600, no values.",
)
@click.option(
    "--depth", type=click.Choice([d.value for d in CHECKED_DEPTHS]), help="What is compared: see 'check --depth'."
)
@click.option(
    "--dc", metavar="DC", help="Compare the replicas of this data centre only; with --target, of the source only."
)
@click.option("--views", is_flag=True, help="Check materialized views too.")
@judging_options
@politeness_options
@repair_options
@metrics_label_option
@log_options
def watch(names: tuple[str, ...], **given: Any) -> int:
    """Check tables continuously, with little load on the nodes.

    Sends one query at a time to each node, visits every table once a period, and starts over. A table that was
    not visited yet, or could not be read, is unknown, never consistent. SIGTERM ends the watch within seconds.
    With --ledger a restarted watch continues where it stopped, and large tables are read in slices. A visit holds
    the cluster's lock, which lies beside the ledger; while another run holds it, the watch waits. Nothing is
    written to the cluster unless --repair is given.

    With --target two clusters are compared instead, for as long as a migration takes: it is known of each table when
    it was last equal in both, and every difference is told. KS.T=KS2.T2 names a table that the target calls otherwise.
    A side that is away makes a table unknown, and the watch goes on. --settle is then as that of 'compare'.

    \b
    Examples:
      consistency watch --hosts 10.0.0.1
      consistency watch shop --period 3600 --webhook https://alerts.example/c
      consistency watch --listen 0.0.0.0:9477 --metrics-label cluster=prod
      consistency watch --listen 0.0.0.0:9477 --listen-token-file token
      consistency watch --ledger /var/lib/c/ledger --repair --max-rows 100
      consistency watch shop --target --config both.toml --ledger ledger

    \b
    Exit codes:
      0 ended by a signal · 2 usage · 4 could not run
    """  # noqa: D301 - click wants the control character
    if wants_target(given):
        return watch_target(names, given, _SHARE)
    ledger = take_ledger(given, written=True)
    run_time_s = _run_time(given, ledger)
    target = take_connection(given)
    token = take_token(given)
    policy = take_repair_policy(given, target.config)
    repairer = None
    if policy is not None:
        repairer = importlib.import_module(REPAIRER).watch_repairer(policy, ledger)
    keeper = Keeper(ledger, names)
    require_folder(given["findings_dir"])
    politeness = replace(take_politeness(given), share=_SHARE, in_pieces=False)
    give_way(politeness)
    hooks = take_hooks(given["hook"], given["hook_env"], given["webhook"])
    board = Board(parse_labels(given["metrics_label"]), keeper.clean_passes)
    default = LogFormat.CONSOLE if sys.stderr.isatty() else LogFormat.JSON
    log, on_stderr = open_log(given, str(uuid.uuid4()), default)
    options = WatchOptions(
        check=CheckOptions(
            names=names,
            depth=given["depth"] and Depth(given["depth"]),
            dc=given["dc"],
            views=given["views"],
            settle_window_s=given["settle"],
            rf_minimum=given["rf_min"],
            run_time_s=run_time_s,
            scan=ScanOptions(
                leaves_at_once=1,
                descents_at_once=1,
                leaf_rows=leaf_rows_at(politeness.rate),
                max_findings=given["max_findings"],
            ),
        ),
        period_s=given["period"],
        findings_dir=given["findings_dir"],
    )
    pulse = Pulse()
    live, serve = live_page(board.now, given["html_dir"], pulse)
    opened = partial(_opened, target, politeness)
    going = Watch(opened, options, board, log, hooks, keeper=keeper, repairer=repairer, audience=live)
    try:
        watch_until_stopped(going, partial(serve, given["listen"], token), pulse, log)
    finally:
        if log is not None and not on_stderr:
            log.sink.close()
    return 0


def _run_time(given: dict[str, Any], ledger: Path | None) -> float | None:
    """Return how long a visit may take; only a ledger knows which ranges are left."""
    asked: float | None = given["run_time"]
    if asked is not None and ledger is None:
        raise UsageError("--run-time needs --ledger FILE: without it each visit would begin with the same ranges")
    if asked is not None and given["dc"] is not None:
        raise UsageError("--run-time needs all replicas of a range: leave out --run-time or --dc")
    if asked is not None and asked <= 0:
        raise UsageError("--run-time must be above 0: otherwise no visit reads anything")
    if ledger is None or given["dc"] is not None:
        return None
    return DEFAULT_RUN_TIME_S if asked is None else asked


def _opened(target: Target, politeness: Politeness) -> AbstractAsyncContextManager[Any]:
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415 - loads the driver
    from consistency.cluster.session import open_cluster  # noqa: PLC0415

    return open_cluster(target.settings, ReadLimits(lanes=1, streams=1, politeness=politeness))
