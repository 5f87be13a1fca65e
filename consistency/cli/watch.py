"""`consistency watch`: go round the tables for ever, serve metrics, and tell hooks of a divergence."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click

from consistency import __version__
from consistency.board import Board
from consistency.checking import CheckOptions
from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.interrupt import Interrupt
from consistency.cli.judging import judging_options
from consistency.cli.politeness import politeness_options, take_politeness
from consistency.cli.telemetry import log_options, metrics_label_option, open_log
from consistency.cli.values import SECONDS
from consistency.errors import SettingsError, UsageError
from consistency.eventlog import EventLog, LogFormat
from consistency.hooks import CommandHook, Hook, WebHook
from consistency.metrics import parse_labels
from consistency.plan import leaf_rows_at
from consistency.reading import Depth
from consistency.scan import ScanOptions
from consistency.serving import DEFAULT_LISTEN, Server
from consistency.settings import ENV_PREFIX
from consistency.throttle import Politeness
from consistency.watching import DEFAULT_PERIOD_S, Open, Watch, WatchOptions

_HEARTBEAT_S = 1.0
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
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Serve /metrics and /healthz here, without a login: choose an address that only your monitoring reaches.",
)
@click.option("--hook", metavar="COMMAND", help="Run this on a divergence, without a shell, with JSON on its stdin.")
@click.option(
    "--webhook",
    metavar="URL",
    help="Post JSON here on a divergence, signed with the secret in CONSISTENCY_WEBHOOK_SECRET or _SECRET_FILE.",
)
@click.option(
    "--findings-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep each table's latest findings here, as KEYSPACE.TABLE.jsonl, mode 0600, no values.",
)
@click.option("--depth", type=click.Choice([d.value for d in Depth]), help="What is compared: see 'check --depth'.")
@click.option("--dc", metavar="DC", help="Compare the replicas of this data centre only.")
@click.option("--views", is_flag=True, help="Check materialized views too.")
@judging_options
@politeness_options
@metrics_label_option
@log_options
def watch(names: tuple[str, ...], **given: Any) -> int:
    """Check one table after another, for ever, at a polite pace.

    Asks one query at a time of a node, visits every table once a period, and begins anew. A table that was not
    visited yet, or could not be read, is unknown, never consistent. SIGTERM ends it within seconds. Nothing is
    written to the cluster.

    \b
    Examples:
      consistency watch --hosts 10.0.0.1
      consistency watch shop --period 3600 --findings-dir /var/lib/consistency --webhook https://alerts.example/c
      consistency watch --listen 0.0.0.0:9477 --metrics-label cluster=prod

    \b
    Exit codes:
      0 ended by a signal · 2 usage · 4 could not run
    """  # noqa: D301 - click wants the control character
    target = take_connection(given)
    _require_folder(given["findings_dir"])
    politeness = take_politeness(given)
    hooks = _hooks(given["hook"], given["webhook"])
    board = Board(parse_labels(given["metrics_label"]))
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
            scan=ScanOptions(leaves_at_once=1, descents_at_once=1, leaf_rows=leaf_rows_at(politeness.rate)),
        ),
        period_s=given["period"],
        findings_dir=given["findings_dir"],
    )
    try:
        asyncio.run(_watch(lambda: _opened(target, politeness), options, board, log, hooks, given["listen"]))
    finally:
        if log is not None and not on_stderr:
            log.sink.close()
    return 0


def _require_folder(folder: Path | None) -> None:
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        msg = f"--findings-dir {folder}: is no directory that can be written; make it first"
        raise UsageError(msg)


def _hooks(command: str | None, url: str | None) -> list[Hook]:
    hooks: list[Hook] = []
    if command is not None:
        hooks.append(CommandHook.parse(command))
    if url is not None:
        hooks.append(WebHook.parse(url, _secret()))
    return hooks


def _secret() -> str | None:
    """Return the webhook's secret from the environment or a file: a command line is visible to everyone."""
    path = os.environ.get(ENV_PREFIX + "WEBHOOK_SECRET_FILE")
    if not path:
        return os.environ.get(ENV_PREFIX + "WEBHOOK_SECRET")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        msg = f"{ENV_PREFIX}WEBHOOK_SECRET_FILE {path}: {reason}"
        raise SettingsError(msg) from None


async def _watch(
    opened: Open, options: WatchOptions, board: Board, log: EventLog | None, hooks: list[Hook], listen: str
) -> None:
    pulse = _Pulse()
    server = Server(listen, lambda: board.outcome, pulse.beating)
    interrupt = Interrupt(lambda: None, lambda: click.echo("interrupted", err=True))
    interrupt.listen()
    interrupt.begun()
    if log is not None:
        log.emit("watch.started", version=__version__, address=server.address)
    going = Watch(opened, options, board, log, hooks)
    beating = asyncio.create_task(pulse.beat())
    try:
        await going.run(interrupt.stop)
        if log is not None:
            log.emit("watch.stopped", rounds=going.rounds)
    finally:
        beating.cancel()
        server.close()


def _opened(target: Target, politeness: Politeness) -> AbstractAsyncContextManager[Any]:
    from consistency.access import ReadLimits  # noqa: PLC0415 - loads the driver
    from consistency.session import open_cluster  # noqa: PLC0415

    return open_cluster(target.settings, ReadLimits(lanes=1, streams=1, politeness=politeness))


class _Pulse:
    """Tells the HTTP thread whether the loop still turns."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beating(self) -> bool:
        """Whether the loop turned within the last half minute."""
        return time.monotonic() - self._last < _DEAD_AFTER_S

    async def beat(self) -> None:
        """Note the time, for ever."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_HEARTBEAT_S)
