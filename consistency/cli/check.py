"""`consistency check`: compare all replicas of every row; report what differs and how much was read."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from consistency.checking.observer import Several
from consistency.checking.plan import leaf_rows_at
from consistency.checking.preparing import require_dc
from consistency.checking.run import run_check
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli import REPAIRER
from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.interrupt import Interrupt
from consistency.cli.judging import judging_options
from consistency.cli.ledger import WRITTEN, clean_passes, ledger_option, recording, take_ledger
from consistency.cli.outputs import require_different, require_writable, written_paths
from consistency.cli.parting import findings_of_part, part_options, take_part
from consistency.cli.plugin import PluginCommand
from consistency.cli.politeness import give_way, politeness_options, take_politeness
from consistency.cli.progress import make_progress, ticking
from consistency.cli.repairing import repair_options, take_repair_policy
from consistency.cli.reported import (
    Outputs,
    html_option,
    json_option,
    left_with,
    nagios_option,
    show_keys_option,
    show_report,
)
from consistency.cli.sampling import take_sample
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.show.terminal.progress import Progress
from consistency.cli.spreading import Crew, spreading_options, take_crew
from consistency.cli.telemetry import Telemetry, telemetry_options
from consistency.cli.values import DURATION, PERCENT, SECONDS
from consistency.cluster.throttle import Politeness
from consistency.errors import UsageError
from consistency.model.part import Part
from consistency.model.reading import CHECKED_DEPTHS, ONE_REPLICA, Depth, Locality, Route
from consistency.results.findings import require_replaceable
from consistency.results.report import Report
from consistency.rows.classify import DEFAULT_MAX_SKEW_S


@click.command(cls=PluginCommand)
@click.argument("names", nargs=-1, metavar="[KS | KS.TABLE]...")
@connection_options
@click.option(
    "--depth",
    type=click.Choice([d.value for d in CHECKED_DEPTHS]),
    help="What is compared: keys and write times ('versions'), or values too ('content').  [default: content]",
)
@click.option(
    "--route",
    type=click.Choice([r.value for r in Route]),
    help="Where rows are digested: inside the servers, or here. Default: the servers where they can.",
)
@click.option(
    "--locality",
    type=click.Choice([x.value for x in ONE_REPLICA]),
    help="How an answer is proven to come from one replica: by consistency level NODE_LOCAL, or by a trace of each "
    "query. Servers keep traces for a day; they hold tokens, and clustering keys of rows in large partitions. "
    "Default: node-local on every node that allows it.",
)
@click.option("--dc", metavar="DC", help="Compare the replicas of this data centre only.")
@click.option("--views", is_flag=True, help="Check materialized views too; a view that you name is always checked.")
@click.option("--non-owners", is_flag=True, help="Also report rows on nodes that do not own them (needs NODE_LOCAL).")
@click.option(
    "--findings", metavar="FILE", help="Write every row that differs to this file: JSON Lines, mode 0600, no values."
)
@json_option
@ledger_option(WRITTEN)
@click.option(
    "--run-time",
    type=SECONDS,
    metavar="SECONDS",
    help="Start no further range after this long, but read one in any case. The least recently read ranges come first, "
    "and the next run with the same ledger continues from there.",
)
@click.option(
    "--sample",
    type=PERCENT,
    metavar="P%",
    help="Read so much of every table, drawn at random, and say what that proves of the rest. Nothing is entered in a "
    "ledger. The verdict is 'sampled', never 'consistent'.",
)
@click.option(
    "--within",
    type=DURATION,
    metavar="TIME",
    help="Read a sample as large as this time allows, such as 60s or 5m; what differs then needs a settle window more.",
)
@click.option(
    "--seed", type=int, metavar="N", help="Draw the same sample again. Default: a number that the report names."
)
@part_options
@spreading_options
@html_option
@judging_options
@click.option(
    "--max-clock-skew",
    type=SECONDS,
    default=DEFAULT_MAX_SKEW_S,
    show_default=True,
    metavar="SECONDS",
    help="Report a write time further ahead of the servers' clocks than this.",
)
@politeness_options
@repair_options
@click.option("--quiet", is_flag=True, help="Print no progress, and no report if all is well (for cron).")
@show_keys_option
@telemetry_options
@nagios_option
def check(names: tuple[str, ...], **given: Any) -> int:
    """Compare all replicas of every row.

    Checks the keyspaces and tables named, or all that are not Cassandra's own. Every replica is read alone.
    A difference is reported only if a second reading shows it again, so writes in flight are not reported.
    What could not be read makes the result 'unknown', never 'consistent'. Nothing is written to the cluster
    unless --repair is given; exit code 0 then means that all is consistent now.

    \b
    Examples:
      consistency check --hosts 10.0.0.1
      consistency check shop shop2.orders --findings findings.jsonl
      consistency check shop --depth versions --dc dc1 --quiet --json shop.json
      consistency check shop.orders --json - | jq .verdict
      consistency check shop --findings findings.jsonl --html report.html
      consistency check --ledger /var/lib/consistency/ledger --run-time 3600
      consistency check shop --within 60s
      consistency check shop --route client --workers 4
      consistency check --part 1/4 --ledger part-1.ledger
      consistency check shop --repair --max-rows 500 --quiet
      consistency check --quiet --metrics /var/lib/node_exporter/c.prom
      consistency check shop --nagios

    \b
    Exit codes:
      0 consistent and complete, or a sample or a part without a difference
      1 divergence or violation · 2 usage · 3 incomplete
      4 could not run · 5 locked
      130 interrupted (the report shows what was read until then)
      With --nagios: 0 OK · 1 WARNING · 2 CRITICAL · 3 UNKNOWN
    """  # noqa: D301 - click wants the control character
    require_different(written_paths(given))
    telemetry = Telemetry("check", given)
    with telemetry.recorded():
        order = _order(names, given, telemetry.run_id)
        page = Collector() if order.outputs.html_path else None
        report, recorded = _run(order, page, telemetry)
        if order.repair is not None and not report.interrupted:
            repairer = importlib.import_module(REPAIRER)
            quiet, settings = order.outputs.quiet, order.target.settings
            report = repairer.repair_found(
                settings, report, order.options, order.repair, quiet=quiet, ledger=order.ledger
            )
        lost = show_report(report, order.outputs, page, findings=str(order.options.findings))
        return left_with(report, lost, order.outputs, telemetry, recorded=recorded)


@dataclass(frozen=True, slots=True)
class Order:
    """The arguments of one invocation."""

    target: Target
    options: CheckOptions
    locality: Locality | None
    politeness: Politeness
    ledger: Path | None
    outputs: Outputs
    crew: Crew | None = None
    """Who reads; None: this process."""
    repair: Any = None
    """What may be repaired afterwards; None for nothing."""


def _order(names: tuple[str, ...], given: dict[str, Any], run_id: str) -> Order:
    """Turn the arguments into frozen options; refuse what cannot work before anything is read."""
    words, sample, part, crew = _repeated(given), _sample(given), take_part(given), take_crew(given)
    ledger = take_ledger(given, written=True)
    target = take_connection(given)
    findings = given["findings"]
    if part is not None:
        findings = findings_of_part(part, ledger, findings)
    if sample is not None:
        ledger = None  # named by the environment or the configuration file, for whole checks
    if given["run_time"] is not None and ledger is None:
        raise UsageError("--run-time needs --ledger FILE: without it each run would begin with the same ranges")
    require_writable("--findings", findings)
    require_replaceable("--findings", findings)
    outputs = Outputs.of(given, Typed(target.words, words, names))
    politeness = take_politeness(given).divided(part.of if part else 1)
    give_way(politeness)
    scan = ScanOptions(
        max_skew_s=given["max_clock_skew"],
        leaf_rows=leaf_rows_at(politeness.rate),
        max_findings=given["max_findings"],
    )
    options = CheckOptions(
        names=names,
        depth=given["depth"] and Depth(given["depth"]),
        route=given["route"] and Route(given["route"]),
        dc=given["dc"],
        views=given["views"],
        non_owners=given["non_owners"],
        findings=Path(findings) if findings else None,
        settle_window_s=given["settle"],
        rf_minimum=given["rf_min"],
        run_time_s=given["run_time"],
        sample=sample,
        part=part,
        run_name=given["run"] or "",
        run_id=run_id,
        scan=scan,
    )
    repair = take_repair_policy(given, target.config)
    if repair is not None and options.findings is None:
        options = replace(options, findings=repair.new_findings())
    return Order(
        repair=repair,
        target=target,
        options=options,
        locality=given["locality"] and Locality(given["locality"]),
        politeness=politeness,
        ledger=ledger,
        outputs=outputs,
        crew=crew,
    )


def _sample(given: dict[str, Any]) -> Sample | None:
    """Return the sample that is asked for; refuse what a sample cannot go with."""
    sample = take_sample(given)
    if sample is not None and given["ledger"] is not None:
        raise UsageError("--ledger keeps what whole ranges were found to be, a sample is not entered: leave out one")
    if sample is not None and given["repair"]:
        raise UsageError("--repair mends what a whole check finds, and a sample finds a part: leave out one")
    return sample


def _repeated(given: dict[str, Any]) -> tuple[str, ...]:
    """Return the options that a second run must repeat to check the same."""
    words: list[str] = []
    for name in ("depth", "route", "locality", "dc", "ledger", "workers", "engine"):
        if given[name] is not None:
            words += [f"--{name}", str(given[name])]
    words += [f"--{name.replace('_', '-')}" for name in ("views", "non_owners") if given[name]]
    return tuple(words)


def _run(order: Order, page: Collector | None, telemetry: Telemetry) -> tuple[Report, bool]:
    """Check with progress on stderr; return the report, and whether the ledger has it."""
    quiet = order.outputs.quiet or telemetry.log_on_stderr  # a log on stderr is the progress
    progress = make_progress(quiet=quiet)
    try:
        report, recorded = asyncio.run(_check(order, progress, page, telemetry))
    finally:
        progress.close()
    telemetry.report = report
    return report, recorded


async def _check(order: Order, progress: Progress, page: Collector | None, telemetry: Telemetry) -> tuple[Report, bool]:
    # These load the driver, so they come after the options are checked.
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415
    from consistency.cluster.session import open_cluster  # noqa: PLC0415
    from consistency.spreading.checked import run_spread  # noqa: PLC0415
    from consistency.spreading.messages import Terms  # noqa: PLC0415

    def stop() -> None:
        telemetry.stopping()
        progress.say("interrupted: ending with what was read so far")

    def abort() -> None:
        progress.close()
        click.echo("interrupted", err=True)
        telemetry.aborted()

    interrupt = Interrupt(stop, abort)
    interrupt.listen()
    observer = Several(progress.observer, telemetry.observer, *([] if page is None else [page]))
    part = order.options.part or Part(1, 1)
    limits = ReadLimits(politeness=order.politeness, reader=part.number - 1, readers=part.of)
    opened = open_cluster(order.target.settings, limits, locality=order.locality)
    async with ticking(progress, order.politeness), opened as (reader, clock):
        ring = await reader.ring()
        require_dc(ring, order.options.dc)
        with recording(ring, order.ledger, order.options) as recorder:
            telemetry.connected(len(ring.nodes))
            telemetry.clean_passes = lambda: clean_passes(order.ledger, ring, order.options.names)
            interrupt.begun()
            if order.crew is None:
                report = await run_check(reader, clock, order.options, observer, interrupt.stop, recorder)
            else:
                crew = await order.crew.gather(ring.host_ids, reader.count_with)
                terms = Terms(order.politeness, order.locality, order.target.given)
                report = await run_spread(reader, clock, order.options, crew, terms, observer, interrupt.stop, recorder)
        return report, recorder is None or not recorder.problem
