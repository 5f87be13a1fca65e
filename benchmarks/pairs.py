"""Two clusters on one machine: a clean comparison beside one check, and the memory of comparing and planning a sync."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import sides
from benchmarks.bed import Bed, Shape
from benchmarks.rounds import Figures, Side, Spread, alternate, command

CHECKED, COMPARED = "check of the source, depth content", "compare"
FEW = "compare of 1,000 rows"
LACKING, PLANNED = "compare, only_source", "sync plan"
AT_MOST, CPU_AT_MOST_S, FLAT_MB = 2.2, 0.5, 40
"""A comparison by a check; a million rows' processor time of the client; what ten times the rows add in memory."""
_WRITTEN_US = 1_750_000_000_000_000
_FEW_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row of the page says: its title, its number of rows, and the figures of its sides."""

    title: str
    rows: int
    figures: Figures
    clean: bool


def compare(source: Bed, target: Bed, shape: Shape, *options: str, accept: tuple[int, ...] = (0,)) -> Side:
    """Return `consistency compare` of one table, run as a command."""
    words = [sys.executable, "-m", "consistency", "compare", shape.full_name, *options, *_both(source, target)]
    return lambda: command(words, accept=accept)


def sync_plan(source: Bed, target: Bed, findings: Path, plan: Path) -> Side:
    """Return `consistency sync plan` of what a comparison found, run as a command."""
    words = [sys.executable, "-m", "consistency", "sync", "plan", str(findings), "-o", str(plan)]
    return lambda: command([*words, *_both(source, target)])


def measure(source: Bed, rows: int, rounds: int) -> Iterator[Measured]:
    """Have a second cluster beside the first, and measure both together."""
    target = Bed(source.sandbox.options.dir.parent / "target", _next(source.sandbox.options.address_base))
    with target.sandbox:
        yield _clean(source, target, rows, rounds)
        for count in (rows // 10, rows):
            yield _lacking(source, target, count)


def _clean(source: Bed, target: Bed, rows: int, rounds: int) -> Measured:
    shape, few = Shape(f"paired_{rows}", rows), Shape(f"paired_{_FEW_ROWS}", _FEW_ROWS)
    for bed in (source, target):
        bed.ensure(shape, few, written_us=_WRITTEN_US)
    runs = {
        CHECKED: sides.check(source, shape, "--depth", "content"),
        COMPARED: compare(source, target, shape),
        FEW: compare(source, target, few),
    }
    return Measured(f"{rows:,} rows that are the same in both", rows, alternate(runs, rounds), clean=True)


def _lacking(source: Bed, target: Bed, rows: int) -> Measured:
    """Compare and plan once, as this is about memory: neither grows with the rows that are not there."""
    shape = Shape(f"lacking_{rows}", rows)
    source.ensure(shape, written_us=_WRITTEN_US)
    target.ensure(replace(shape, rows=0), written_us=_WRITTEN_US)
    with tempfile.TemporaryDirectory() as directory:
        findings, plan = Path(directory) / "differing.jsonl", Path(directory) / "sync.jsonl"
        found = compare(source, target, shape, "--findings", str(findings), accept=(1,))()
        planned = sync_plan(source, target, findings, plan)()
        facts = {"written_MB": plan.stat().st_size / 1e6}
    figures = {LACKING: [found], PLANNED: [replace(planned, facts=facts)]}
    return Measured(f"{rows:,} rows that only the source holds", rows, figures, clean=False)


def cpu_of_a_million(figures: Figures, rows: int) -> Spread:
    """Return the client's processor seconds for each further million rows, without the start of a process."""
    pairs = zip(figures[COMPARED], figures[FEW], strict=True)
    return Spread.of([(ours.cpu_s - few.cpu_s) / (rows - _FEW_ROWS) * 1e6 for ours, few in pairs])


def summary(rows: Mapping[int, Figures], clean: Mapping[int, Figures]) -> Iterator[str]:
    """Yield what is to hold: the client's processor time, and how memory grows with rows that differ."""
    for count, figures in clean.items():
        cpu = cpu_of_a_million(figures, count)
        met = "reached" if cpu.median <= CPU_AT_MOST_S else "**missed**"
        yield f"- client CPU of each further million rows, {COMPARED}: **{cpu}** s, to be under {CPU_AT_MOST_S}: {met}"
    if len(rows) > 1:
        first, last = min(rows), max(rows)
        for name in (LACKING, PLANNED):
            before, after = (max(s.peak_mb for s in rows[count][name]) for count in (first, last))
            met = "reached" if after - before <= FLAT_MB else "**missed**"
            yield (
                f"- peak memory from {first:,} to {last:,} rows, {name}: {before:.0f} to {after:.0f} MB, to grow by"
                f" {FLAT_MB} MB at most: {met}"
            )
    yield ""


def _both(source: Bed, target: Bed) -> list[str]:
    return [*source.target, *(re.sub(r"^--", "--target-", word) for word in target.target)]


def _next(address: str) -> str:
    """Return an address in the next network of 256."""
    first, second, third, last = address.split(".")
    return f"{first}.{second}.{int(third) + 1}.{last}"
