"""`consistency cutover-check`: whether traffic may be switched from the source to the target now."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target, connection_options, take_both, target_options
from consistency.cli.outputs import STDOUT, require_json, write_json
from consistency.cli.politeness import give_way, politeness_options, take_politeness
from consistency.cli.progress import listening, make_progress, ticking
from consistency.cli.show.terminal.console import make_console
from consistency.cli.show.terminal.progress import Progress
from consistency.cli.values import DURATION, SECONDS
from consistency.cluster.throttle import Politeness
from consistency.comparing.terms import Compare
from consistency.errors import UsageError

if TYPE_CHECKING:
    from consistency.comparing.cutover import Cutover
    from consistency.comparing.preparing import CompareOptions
    from consistency.comparing.recording import Records


@click.command("cutover-check", short_help="Say whether traffic may be switched to the target now.")
@click.argument("names", nargs=-1, metavar="[KS | KS.TABLE | KS.T=KS2.T2]...")
@connection_options
@target_options
@click.option(
    "--compare",
    type=click.Choice([c.value for c in Compare]),
    default=Compare.WRITETIMES.value,
    show_default=True,
    help="What must be the same: see 'compare --compare'.",
)
@click.option(
    "--tolerate-writetime", type=SECONDS, default=0.0, metavar="SECONDS", help="See 'compare --tolerate-writetime'."
)
@click.option("--settle", type=SECONDS, metavar="SECONDS", help="See 'compare --settle'.")
@click.option(
    "--max-age",
    type=DURATION,
    metavar="TIME",
    help="Answer 'unknown' if what was read first is older than this, such as 10m, when the comparison has ended.",
)
@click.option(
    "--ledger",
    metavar="FILE",
    help="Do not compare again what this ledger, of 'watch --target' or 'compare --ledger', knows to be equal since "
    "--max-age. Read only. It is never taken from the environment or the TOML file.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    help="Write the answer and the comparison as JSON; '-' is stdout, the text then goes to stderr.",
)
@politeness_options
@click.option("--quiet", is_flag=True, help="Print no progress.")
def cutover_check(names: tuple[str, ...], **given: Any) -> int:
    """Say whether traffic may be switched to the target now: 'yes', 'no' or 'unknown', and why.

    Compares the two clusters whole, as 'compare' does, and looks at their nodes. The answer is no if rows differ, if
    a cluster disagrees with itself, if a table has no counterpart or other columns, if a node of either cluster
    does not answer, joins, leaves or moves, or if a sync or a repair is under way on this machine. It is unknown if
    not all could be read, if rows kept changing, or if the comparison took longer than --max-age. Options that are
    declared otherwise, such as indexes or the default TTL, are told. Nothing is written.

    With --ledger a table is not compared if its last comparison, by the same terms and on the nodes of now, found it
    equal and began no longer ago than --max-age. All else is looked at now: tables, nodes, syncs under way.

    \b
    Examples:
      consistency cutover-check shop --hosts 10.0.0.1 --target-hosts 10.1.0.1
      consistency cutover-check --config both.toml --max-age 10m && ./switch
      consistency cutover-check shop --config both.toml --ledger FILE --max-age 1h

    \b
    Exit codes:
      0 yes · 1 no · 2 usage · 3 unknown · 4 could not run
      130 interrupted
    """  # noqa: D301 - click wants the control character
    from consistency.cli.show.terminal.cutover import print_cutover  # noqa: PLC0415 - loads the driver
    from consistency.comparing.preparing import CompareOptions  # noqa: PLC0415

    ledger = given.pop("ledger")
    if ledger is not None and given["max_age"] is None:
        raise UsageError("--ledger: say with --max-age how long ago a table may have been equal")
    source, target = take_both(given)
    require_json("--json", given["json_path"])
    politeness = take_politeness(given)
    give_way(politeness)
    options = CompareOptions(
        names=names,
        compare=Compare(given["compare"]),
        tolerate_writetime_s=given["tolerate_writetime"],
        settle_window_s=given["settle"],
    )
    progress = make_progress(quiet=given["quiet"])
    try:
        with _records(ledger, given["max_age"]) as records:
            found = asyncio.run(_ask(source, target, options, politeness, progress, given["max_age"], records))
    finally:
        progress.close()
    write_json("--json", given["json_path"], found.as_json())
    print_cutover(make_console(sys.stderr if given["json_path"] == STDOUT else sys.stdout), found)
    return int(found.exit_code)


@contextmanager
def _records(path: str | None, max_age_s: float | None) -> Iterator[Records | None]:
    """Open the ledger that may prove tables to be equal."""
    from consistency.comparing.recording import Records  # noqa: PLC0415 - loads the driver
    from consistency.ledger import open_ledger  # noqa: PLC0415

    if path is None or max_age_s is None:
        yield None
        return
    with open_ledger(Path(path).expanduser(), create=False) as ledger:
        yield Records(ledger, max_age_s)


async def _ask(
    source: Target,
    target: Target,
    options: CompareOptions,
    politeness: Politeness,
    progress: Progress,
    max_age_s: float | None,
    records: Records | None,
) -> Cutover:
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415 - loads the driver
    from consistency.comparing.cutover import check_cutover  # noqa: PLC0415
    from consistency.comparing.opening import open_pair  # noqa: PLC0415

    interrupt = listening(progress)
    opened = open_pair(source.settings, target.settings, ReadLimits(politeness=politeness))
    async with ticking(progress, politeness), opened as pair:
        interrupt.begun()
        return await check_cutover(
            pair, options, progress.observer, max_age_s=max_age_s, stop=interrupt.stop, records=records
        )
