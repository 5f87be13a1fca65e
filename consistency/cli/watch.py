"""`consistency watch`: check tables continuously, serve metrics, and notify hooks of a divergence."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency import __version__
from consistency.checking.plan import leaf_rows_at
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli import REPAIRER
from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.interrupt import Interrupt
from consistency.cli.judging import judging_options
from consistency.cli.ledger import ledger_option, take_ledger
from consistency.cli.politeness import give_way, politeness_options, take_politeness
from consistency.cli.repairing import repair_options, take_repair_policy
from consistency.cli.serving import secret_of, serving_options, take_token
from consistency.cli.telemetry import log_options, metrics_label_option, open_log
from consistency.cli.values import SECONDS
from consistency.cluster.settings import ENV_PREFIX
from consistency.cluster.throttle import Politeness
from consistency.cluster.waits import left_behind
from consistency.errors import UsageError
from consistency.model.reading import CHECKED_DEPTHS, Depth
from consistency.results.verdict import ExitCode
from consistency.watching.audience import Audience
from consistency.watching.board import Board
from consistency.watching.event_log import EventLog, LogFormat
from consistency.watching.hooks import CommandHook, Hook, WebHook
from consistency.watching.loop import DEFAULT_PERIOD_S, DEFAULT_RUN_TIME_S, Watch, WatchOptions
from consistency.watching.metrics import parse_labels
from consistency.watching.visit_ledger import Keeper

if TYPE_CHECKING:
    from consistency.watching.http import Server

_SHARE = 0.25
"""The share of a node's time that a visit takes, leaf by leaf; the period decides how long nodes rest."""
_HEARTBEAT_S = 1.0
_LAST_S = 0.3
"""How long what is still under way at the end may take once it is cancelled."""
_DEAD_AFTER_S = 30.0


@click.command()
@click.argument("names", nargs=-1, metavar="[KS | KS.TABLE]...")
@connection_options
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
    help="Start no further range of a table after this long; the next visit continues with the least recently read. "
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
@click.option("--dc", metavar="DC", help="Compare the replicas of this data centre only.")
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

    \b
    Examples:
      consistency watch --hosts 10.0.0.1
      consistency watch shop --period 3600 --webhook https://alerts.example/c
      consistency watch --listen 0.0.0.0:9477 --metrics-label cluster=prod
      consistency watch --listen 0.0.0.0:9477 --listen-token-file token
      consistency watch --ledger /var/lib/c/ledger --repair --max-rows 100

    \b
    Exit codes:
      0 ended by a signal · 2 usage · 4 could not run
    """  # noqa: D301 - click wants the control character
    ledger = take_ledger(given, written=True)
    run_time_s = _run_time(given, ledger)
    target = take_connection(given)
    token = take_token(given)
    policy = take_repair_policy(given, target.config)
    repairer = None
    if policy is not None:
        repairer = importlib.import_module(REPAIRER).watch_repairer(policy, ledger)
    keeper = Keeper(ledger)
    _require_folder(given["findings_dir"])
    politeness = replace(take_politeness(given), share=_SHARE, in_pieces=False)
    give_way(politeness)
    hooks = _hooks(given["hook"], given["hook_env"], given["webhook"])
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
    pulse = _Pulse()
    live, serve = _page(board, given["html_dir"], pulse)
    opened = partial(_opened, target, politeness)
    going = Watch(opened, options, board, log, hooks, keeper=keeper, repairer=repairer, audience=live)
    try:
        asyncio.run(_watch(going, partial(serve, given["listen"], token), pulse, log))
    finally:
        if log is not None and not on_stderr:
            log.sink.close()
    return 0


def _page(board: Board, html_dir: Path | None, pulse: _Pulse) -> tuple[Audience, Callable[[str, str], Server]]:
    """Return who is shown the visits, and what serves the page at an address with a token."""
    from consistency.cli.show.live.render import LiveRenderer  # noqa: PLC0415 - loads the templates' engine
    from consistency.cli.show.live.reports import KeptReports  # noqa: PLC0415
    from consistency.cli.show.live.state import LiveState  # noqa: PLC0415
    from consistency.watching.http import Server  # noqa: PLC0415 - loads the HTTP server

    live = LiveState(board.now, KeptReports(html_dir))
    page = LiveRenderer(live, pulse.beating)
    return live, lambda listen, token: Server(listen, board.now, pulse.beating, page, token)


def _require_folder(folder: Path | None) -> None:
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        msg = f"--findings-dir {folder}: is not a directory that can be written; create it first"
        raise UsageError(msg)


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


def _hooks(command: str | None, passed_on: tuple[str, ...], url: str | None) -> list[Hook]:
    hooks: list[Hook] = []
    if command is not None:
        hooks.append(CommandHook.parse(command, passed_on))
    elif passed_on:
        raise UsageError("--hook-env passes a variable on to the command of --hook; give one, or leave it out")
    url = os.environ.get(ENV_PREFIX + "WEBHOOK") or None if url is None else url
    if url is not None:
        hooks.append(WebHook.parse(url, secret_of("WEBHOOK_SECRET")))
    return hooks


async def _watch(going: Watch, serve: Callable[[], Server], pulse: _Pulse, log: EventLog | None) -> None:
    asyncio.get_running_loop().set_default_executor(_LeftBehind())
    server = serve()
    interrupt = Interrupt(lambda: None, lambda: click.echo("interrupted", err=True))
    interrupt.listen()
    interrupt.begun()
    if log is not None:
        log.emit("watch.started", version=__version__, address=server.address, page=server.access.mode.value)
    beating = asyncio.create_task(pulse.beat())
    try:
        await going.run(interrupt.stop)
        if log is not None:
            log.emit("watch.stopped", rounds=going.rounds)
    finally:
        beating.cancel()
        server.close()
    if await left_behind(_LAST_S):  # everything that matters is on disk; the lock ends with the process
        os._exit(ExitCode.CONSISTENT)


class _LeftBehind(ThreadPoolExecutor):
    """Threads that the exit does not wait for: one may be connecting to a silent node."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:  # noqa: ARG002
        """Start nothing more."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def _opened(target: Target, politeness: Politeness) -> AbstractAsyncContextManager[Any]:
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415 - loads the driver
    from consistency.cluster.session import open_cluster  # noqa: PLC0415

    return open_cluster(target.settings, ReadLimits(lanes=1, streams=1, politeness=politeness))


class _Pulse:
    """Tells the HTTP thread whether the loop still runs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beating(self) -> bool:
        """Whether the loop ran within the last half minute."""
        return time.monotonic() - self._last < _DEAD_AFTER_S

    async def beat(self) -> None:
        """Note the time until cancelled."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_HEARTBEAT_S)
