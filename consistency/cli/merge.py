"""`consistency ledger`: what can be done with ledgers beside writing and reading them; `merge` puts parts together."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from consistency.checking.merging import Whole, choose, merge
from consistency.checking.observer import Several
from consistency.cli.ledger import WRITTEN, ledger_option, recording_merged, take_ledger
from consistency.cli.outputs import require_different, require_writable, written_paths
from consistency.cli.plugin import PluginCommand
from consistency.cli.reported import (
    Outputs,
    html_option,
    json_option,
    left_with,
    nagios_option,
    show_keys_option,
    show_report,
)
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.telemetry import Telemetry, telemetry_options
from consistency.cli.values import DURATION
from consistency.cluster.setting_values import ENV_PREFIX
from consistency.errors import UsageError
from consistency.ledger import PartAccount, open_ledger
from consistency.results.findings import require_replaceable
from consistency.results.report import Report

_LOOK_EVERY_S = 2.0


@click.group()
def ledger() -> None:
    """Put ledgers together.

    \b
    Example:
      consistency ledger merge part-*.ledger --findings findings.jsonl
    """  # noqa: D301 - click wants the control character


@ledger.command(name="merge", cls=PluginCommand, short_help="Put the parts of a run together to one.")
@click.argument("parts", nargs=-1, metavar="PART_LEDGER...")
@ledger_option(WRITTEN)
@click.option("--config", metavar="FILE", help="TOML file with [ledger] path.")
@click.option(
    "--run",
    metavar="NAME",
    help="Merge the parts that were checked with this --run. Default: CONSISTENCY_RUN, else the newest run.",
)
@click.option(
    "--wait",
    type=DURATION,
    metavar="TIME",
    help="Wait so long for parts that are missing, such as 30m; ledgers may come to be meanwhile.",
)
@click.option(
    "--findings",
    metavar="FILE",
    help="Write the rows that differ of all parts to this file, for 'explain' and 'repair'.",
)
@json_option
@html_option
@click.option("--quiet", is_flag=True, help="Print no report if all is well (for cron).")
@show_keys_option
@telemetry_options
@nagios_option
def merge_parts(parts: tuple[str, ...], **given: Any) -> int:
    """Put the parts of a run together, as if one check had read all of it.

    PART_LEDGER are the ledgers that 'check --part I/N --ledger' wrote, or a directory with them (*.ledger). Each has
    its findings file beside it, or where it was written. No cluster is read. The verdict is 'consistent' only if all
    N parts are there and each was consistent in itself; a part that is missing or was interrupted, or of another run,
    ring, schema or other options, leaves its piece of the ring unknown. With --ledger the run is recorded there like
    any other.

    \b
    Examples:
      consistency ledger merge part-1.ledger part-2.ledger
      consistency ledger merge part-*.ledger --ledger shop.ledger
      consistency ledger merge parts/ --wait 2h --json report.json
      consistency ledger merge parts/ --findings findings.jsonl

    \b
    Exit codes:
      0 consistent and complete · 1 divergence or violation
      2 usage, or a findings file of a part is missing
      3 incomplete: a part is missing, or did not read all of its own
      4 could not run · 5 locked
      With --nagios: 0 OK · 1 WARNING · 2 CRITICAL · 3 UNKNOWN
    """  # noqa: D301 - click wants the control character
    require_different(written_paths(given))
    telemetry = Telemetry("ledger merge", given)
    with telemetry.recorded():
        into = take_ledger(given, written=True)
        require_writable("--findings", given["findings"])
        require_replaceable("--findings", given["findings"])
        outputs = Outputs.of(given, Typed())
        page = Collector() if outputs.html_path else None
        report, recorded = _merged([Path(part) for part in parts], into, given, page, telemetry)
        return left_with(report, show_report(report, outputs, page), recorded=recorded, outputs=outputs, to=telemetry)


def _merged(
    paths: Sequence[Path], into: Path | None, given: dict[str, Any], page: Collector | None, telemetry: Telemetry
) -> tuple[Report, bool]:
    """Merge what is there once the wait is over; return the report, and whether the ledger has it."""
    run = given["run"] or os.environ.get(ENV_PREFIX + "RUN") or None
    findings = Path(given["findings"]) if given["findings"] else None
    deadline = time.monotonic() + (given["wait"] or 0.0)
    while True:
        late = time.monotonic() >= deadline
        try:
            whole = _whole(paths, run, into)
        except UsageError:
            if late:
                raise
        else:
            if late or not whole.missing:
                break
        time.sleep(min(_LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))
    observer = Several(telemetry.observer, *([] if page is None else [page]))
    with recording_merged(whole, into) as recorder:
        report = merge(whole, findings, recorder, observer)
    return report, recorder is None or not recorder.problem


def _ledgers(path: Path) -> list[Path]:
    return sorted(path.glob("*.ledger")) if path.is_dir() else [path]


def _whole(paths: Sequence[Path], run: str | None, into: Path | None) -> Whole:
    if not paths:
        raise UsageError("name the ledgers of the parts: consistency ledger merge part-1.ledger part-2.ledger")
    found: list[tuple[PartAccount, Path]] = []
    named_here = list(dict.fromkeys(each for named in paths for each in _ledgers(named)))
    if not any(path.exists() for path in named_here):
        msg = f"there is no ledger {named_here[0]}" if named_here else f"there is no *.ledger in {paths[0]}"
        msg += ": name one that 'consistency check --part I/N --ledger FILE' wrote"
        raise UsageError(msg)
    for path in named_here:
        if path.exists():  # one that is missing is a part that is missing, and named as such
            with open_ledger(path, create=False) as opened:
                found += [(account, path) for account in opened.parts()]
    used: dict[str, str] = {}
    if into is not None and into.exists():
        with open_ledger(into) as opened:
            used = opened.merged_whole()
    return choose(found, run, used)
