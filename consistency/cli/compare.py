"""`consistency compare`: whether a target cluster holds what a source cluster holds, row by row on every replica."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency.checking.listing import DEFAULT_MAX_FINDINGS
from consistency.checking.plan import leaf_rows_at
from consistency.checking.scan import ScanOptions
from consistency.cli.connection import Target, connection_options, take_both, target_options
from consistency.cli.ledger import ledger_option, take_ledger, warn
from consistency.cli.outputs import (
    STDOUT,
    NotWritten,
    require_different,
    require_json,
    require_page,
    require_writable,
    write_json,
    write_private,
    written_paths,
)
from consistency.cli.politeness import give_way, politeness_options, take_politeness
from consistency.cli.progress import listening, make_progress, ticking
from consistency.cli.sampling import take_sample
from consistency.cli.show.page.token_line import PairCollector
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.show.terminal.comparison import print_comparison
from consistency.cli.show.terminal.console import CalmConsole, make_console, name_file
from consistency.cli.show.terminal.progress import Progress
from consistency.cli.spreading import Crew, spreading_options, take_crew
from consistency.cli.values import COUNT_OR_ALL, DURATION, PERCENT, SECONDS
from consistency.cluster.throttle import Politeness
from consistency.comparing.terms import Compare
from consistency.errors import UsageError
from consistency.model.cqltext import visible
from consistency.model.reading import ONE_REPLICA, Locality, Route
from consistency.results.findings import require_replaceable
from consistency.results.pair_findings import Compared
from consistency.results.verdict import ExitCode

if TYPE_CHECKING:
    from consistency.comparing.opening import Pair
    from consistency.comparing.preparing import CompareOptions
    from consistency.results.comparison import Comparison

_USUAL = {"compare": Compare.WRITETIMES.value, "read": "replicas", "tolerate_writetime": 0.0}
_REPEATED = (*_USUAL, "route", "locality", "dc", "target_dc", "ledger", "workers", "engine")


@click.command(short_help="Say whether a second cluster holds exactly the same.")
@click.argument("names", nargs=-1, metavar="[KS | KS.TABLE | KS.T=KS2.T2]...")
@connection_options
@target_options
@click.option(
    "--compare",
    type=click.Choice([c.value for c in Compare]),
    default=Compare.WRITETIMES.value,
    show_default=True,
    help="What must be the same: values; their write times too; or when they expire too. Copies that were made without "
    "write times, and dual writes that each cluster stamps by itself, are compared by values. Counters always are.",
)
@click.option(
    "--tolerate-writetime",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="Take the same value for the same if it was written no further apart than this. Each such row is read.",
)
@click.option(
    "--read",
    type=click.Choice(["replicas", "quorum"]),
    default="replicas",
    show_default=True,
    help="Read every replica of both sides by itself, which never writes; or each side at LOCAL_QUORUM, as "
    "applications do. The latter is said of no single replica, and where replicas disagree it makes the servers repair "
    "them.",
)
@click.option(
    "--route",
    type=click.Choice([r.value for r in Route]),
    help="Where rows are digested: inside the servers, or here. Default: the servers where those of both sides can in "
    "one way.",
)
@click.option(
    "--locality",
    type=click.Choice([x.value for x in ONE_REPLICA]),
    help="How an answer is proven to come from one replica: see 'check --locality'.",
)
@click.option("--dc", metavar="DC", help="Compare the replicas of this data centre of the source only.")
@click.option("--target-dc", metavar="DC", help="Compare the replicas of this data centre of the target only.")
@click.option(
    "--findings", metavar="FILE", help="Write every row that differs to this file: JSON Lines, mode 0600, no values."
)
@click.option(
    "--json", "json_path", metavar="FILE", help="Write the result as JSON; '-' is stdout, the text then goes to stderr."
)
@ledger_option(
    "Record in FILE when each pair of tables was compared and last equal, as 'watch --target' does. Default: "
    "CONSISTENCY_LEDGER, [ledger] path in the TOML file, else none. A sample is not recorded."
)
@click.option(
    "--html",
    "html_path",
    metavar="FILE",
    help="Write the result as one self-contained HTML page, mode 0600, without keys and values.",
)
@click.option(
    "--settle",
    type=SECONDS,
    metavar="SECONDS",
    help="Report a difference only if it lasts this long. Default: the write timeouts of both clusters together and a "
    "second more, as a client may write to one after the other.",
)
@click.option(
    "--max-findings",
    type=COUNT_OR_ALL,
    default=str(DEFAULT_MAX_FINDINGS),
    show_default=True,
    metavar="N|all",
    help="List so many rows of a table that differ. If more do, the rest are counted exactly, by token range and kind. "
    "0: list none.",
)
@click.option(
    "--sample",
    type=PERCENT,
    metavar="P%",
    help="Read so much of every table, drawn at random, and say what that proves of the rest.",
)
@click.option("--within", type=DURATION, metavar="TIME", help="Read a sample as large as this time allows.")
@click.option("--seed", type=int, metavar="N", help="Draw the same sample again.")
@spreading_options
@politeness_options
@click.option("--quiet", is_flag=True, help="Print no progress, and no report if all is well (for cron).")
@click.option(
    "--show-keys/--hide-keys",
    default=None,
    help="Print keys of differing rows. Default: on a terminal only, because others read logs and mails.",
)
def compare(names: tuple[str, ...], **given: Any) -> int:
    """Compare two clusters: whether the target holds exactly what the source holds.

    Compares the keyspaces and tables named, or all that are not Cassandra's own; KS.T=KS2.T2 compares a table with
    one of another name. The clusters may differ in nodes, racks, vnodes, replication and version (4.0 and newer).
    Every replica of both sides is read alone. A row is one of: only_source, only_target, value, writetime, expiry.
    Rows on which the replicas of one cluster disagree are told apart, by side. A difference is reported only if a
    later reading of both sides shows it again, so dual writes in flight are not reported. Nothing is written to
    either cluster, unless --read quorum makes the servers do so.

    The options of 'check' name the source, those that begin with --target the target: each with its own login and
    TLS, from [connection] and [target] of the TOML file, and from the variables CONSISTENCY_... and
    CONSISTENCY_TARGET_...

    \b
    Examples:
      consistency compare --hosts 10.0.0.1 --target-hosts 10.1.0.1
      consistency compare shop --config both.toml --findings differing.jsonl
      consistency compare shop --config both.toml --html page.html
      consistency compare shop.orders=shop2.orders_v2 --compare values
      consistency compare shop --tolerate-writetime 5 --json - | jq .verdict
      consistency compare shop --route client --workers 4
      consistency compare --sample 1% --quiet

    \b
    Exit codes:
      0 the target holds exactly what the source holds, or a sample
        without a difference
      1 they differ, or a cluster disagrees with itself · 2 usage
      3 incomplete, or a table has no counterpart · 4 could not run
      5 another run holds the lock of a cluster beside the ledger
      130 interrupted (the report shows what was read until then)
    """  # noqa: D301 - click wants the control character
    require_different(written_paths(given))
    order = _order(names, given)
    console = make_console(sys.stderr if order.json_path == STDOUT else sys.stdout)
    progress, page = make_progress(quiet=order.quiet), PairCollector() if order.html_path else None
    try:
        result, recorded = asyncio.run(_compare(order, progress, _nobody if page is None else page.take))
    finally:
        progress.close()
    lost = _show(order, result, console, page)
    keeps_code = result.exit_code in (ExitCode.DIVERGENT, ExitCode.INTERRUPTED)
    unkept = not recorded and result.exit_code is ExitCode.CONSISTENT
    return int(ExitCode.COULD_NOT_RUN if unkept or (lost and not keeps_code) else result.exit_code)


@dataclass(frozen=True, slots=True)
class Order:
    """The arguments of one invocation."""

    source: Target
    target: Target
    typed: Typed
    options: CompareOptions
    locality: Locality | None
    politeness: Politeness
    json_path: str | None
    html_path: str | None
    quiet: bool
    show_keys: bool | None
    ledger: Path | None
    crew: Crew | None
    """Who reads; None: this process."""


def _order(names: tuple[str, ...], given: dict[str, Any]) -> Order:
    """Turn the arguments into frozen options; refuse what cannot work before anything is read."""
    from consistency.comparing.preparing import CompareOptions, Read  # noqa: PLC0415 - loads the driver

    words, crew, sample = _repeated(given), take_crew(given), take_sample(given)
    if sample is not None and given["ledger"] is not None:
        raise UsageError("--ledger keeps what whole tables were found to be, a sample is not entered: leave out one")
    ledger = take_ledger(given, written=True)
    if sample is not None:
        ledger = None  # named by the environment or the configuration file, for whole comparisons
    source, target = take_both(given)
    require_writable("--findings", given["findings"])
    require_replaceable("--findings", given["findings"])
    require_json("--json", given["json_path"])
    require_page("--html", given["html_path"])
    politeness = take_politeness(given)
    give_way(politeness)
    read = Read(given["read"])
    locality = given["locality"] and Locality(given["locality"])
    if read is Read.QUORUM:
        if locality is not None:
            raise UsageError("--locality proves that one replica answered, and --read quorum asks many: leave out one")
        locality = Locality.QUORUM
    options = CompareOptions(
        names=names,
        compare=Compare(given["compare"]),
        tolerate_writetime_s=given["tolerate_writetime"],
        read=read,
        route=given["route"] and Route(given["route"]),
        dc=given["dc"],
        target_dc=given["target_dc"],
        findings=Path(given["findings"]) if given["findings"] else None,
        settle_window_s=given["settle"],
        sample=sample,
        scan=ScanOptions(leaf_rows=leaf_rows_at(politeness.rate), max_findings=given["max_findings"]),
    )
    return Order(
        source=source,
        target=target,
        typed=Typed((*source.words, *target.words), words, names),
        options=options,
        locality=locality,
        politeness=politeness,
        json_path=given["json_path"],
        html_path=given["html_path"],
        quiet=given["quiet"],
        show_keys=given["show_keys"],
        ledger=ledger,
        crew=crew,
    )


def _repeated(given: dict[str, Any]) -> tuple[str, ...]:
    """Return the options that a second run must repeat to compare the same."""
    words: list[str] = []
    for name in _REPEATED:
        if given[name] not in (None, _USUAL.get(name)):
            value = given[name]
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return tuple(words)


async def _compare(order: Order, progress: Progress, take: Callable[[Compared], None]) -> tuple[Comparison, bool]:
    """Return the result, and whether it is in the ledger if there is one."""
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415 - loads the driver
    from consistency.comparing.opening import open_pair  # noqa: PLC0415
    from consistency.watching.target_ledger import recorded  # noqa: PLC0415

    interrupt = listening(progress)
    limits = ReadLimits(politeness=order.politeness)
    opened = open_pair(order.source.settings, order.target.settings, limits, locality=order.locality)
    async with ticking(progress, order.politeness), opened as pair:
        interrupt.begun()
        if order.ledger is None:
            return await _read(order, pair, progress, take, interrupt.stop), True
        work = partial(_read, order, pair, progress, take, interrupt.stop)
        return await recorded(pair, order.options, order.ledger, work, warn)


async def _read(
    order: Order, pair: Pair, progress: Progress, take: Callable[[Compared], None], stop: asyncio.Event
) -> Comparison:
    """Compare in this process, or have workers read."""
    from consistency.comparing.run import run_compare  # noqa: PLC0415 - loads the driver
    from consistency.spreading.compared import compare_spread  # noqa: PLC0415
    from consistency.spreading.messages import Terms  # noqa: PLC0415

    if order.crew is None:
        return await run_compare(pair, order.options, progress.observer, stop, take=take)
    crew = await order.crew.gather(await pair.host_ids(), pair.count_with)
    terms = Terms(order.politeness, order.locality, order.source.given, order.target.given)
    return await compare_spread(pair, order.options, crew, terms, progress.observer, stop, take=take)


def _nobody(_: Compared) -> None:
    """Keep nothing of what is found."""


def _show(order: Order, result: Comparison, console: CalmConsole, page: PairCollector | None) -> list[str]:
    """Write and print the result in every requested form; name what could not be written, and return it."""
    lost = [f"--findings {order.options.findings}: {result.findings_error}"] if result.findings_error else []
    try:
        write_json("--json", order.json_path, result.as_json())
    except NotWritten as error:
        lost.append(error.file)
    if page is not None:
        from consistency.cli.show.page.comparison import render_comparison  # noqa: PLC0415 - the templates' engine

        try:
            write_private("--html", order.html_path, render_comparison(result, page, order.typed))
        except NotWritten as error:
            lost.append(error.file)
    if lost:
        click.echo(f"error: {visible('; '.join(lost))}: not written; make room and compare again", err=True)
    if not (order.quiet and result.exit_code is ExitCode.CONSISTENT):
        keys = console.is_terminal if order.show_keys is None else order.show_keys
        print_comparison(console, result, order.typed, keys=keys)
        if order.html_path and not lost:
            name_file(console, "the page for a browser:", order.html_path)
    return lost
