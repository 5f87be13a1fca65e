"""How the data lies on the nodes, on a terminal: a bar for each node, and the tables with the largest partitions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.auditing.distribution import HOT_RATIO
from consistency.cli.show.terminal.console import heading, indented, safe
from consistency.cli.show.terminal.figures import short
from consistency.model.holdings import HeldTable
from consistency.results.distribution import Distribution

MOST_NODES, MOST_TABLES = 40, 10
_BAR = 24


def print_distribution(console: Console, found: Distribution) -> None:
    """Print what each node holds beside what its ranges say, then the tables with the largest partitions."""
    console.print()
    console.print(heading("data by node") + Text("  MiB of data files; | is what its token ranges say", style="dim"))
    console.print(_nodes(found))
    if len(found.nodes) > MOST_NODES:
        indented(console, f"{len(found.nodes) - MOST_NODES} more nodes, in the result as JSON (--json)", style="dim")
    tables = _largest(found)
    if tables:
        console.print()
        console.print(heading("tables by their largest partition"))
        console.print(_tables(tables))
    indented(
        console,
        "Which partitions these are, and which are written most, no table of the servers tells: nodetool"
        " toppartitions KEYSPACE TABLE 10000 does, on each node.",
        style="dim",
    )


def _grid(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    for column in columns:
        left = column in ("node", "rack", "table", "")
        grid.add_column(column, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    return grid


def _nodes(found: Distribution) -> Table:
    grid = _grid("node", "rack", "MiB", "")
    most = max((max(data.mebibytes, found.fair.get(data.node, 0.0)) for data in found.nodes), default=0.0) or 1.0
    ranked = sorted(found.nodes, key=lambda data: (not data.unread, data.node.dc, -data.mebibytes, data.node.name))
    for data in ranked[:MOST_NODES]:
        place = f"{safe(data.node.dc)}/{safe(data.node.rack)}"
        if data.unread:
            grid.add_row(safe(data.node.name), place, "?", Text(safe(data.unread), style="yellow"))
            continue
        fair = found.fair.get(data.node, 0.0)
        style = "yellow" if data.mebibytes > HOT_RATIO * fair else "green"
        bar = _bar(data.mebibytes / most, fair / most)
        grid.add_row(safe(data.node.name), place, f"{data.mebibytes:,}", Text(bar, style=style))
    return grid


def _bar(held: float, fair: float) -> str:
    """Draw what is held, from 0 to 1, with a mark at what should be."""
    cells = ["#" if i < round(held * _BAR) else " " for i in range(_BAR)]
    cells[min(_BAR - 1, round(fair * _BAR))] = "|"
    return "".join(cells).rstrip()


def _largest(found: Distribution) -> Sequence[tuple[str, list[HeldTable]]]:
    """Return the tables with the largest partitions, each with what the nodes tell of it."""
    by_name: dict[str, list[HeldTable]] = defaultdict(list)
    for data in found.nodes:
        for table in data.tables:
            by_name[table.full_name].append(table)
    ranked = sorted(by_name.items(), key=lambda item: (-_most(t.largest_mebibytes for t in item[1]), item[0]))
    return [(name, told) for name, told in ranked if _most(t.mebibytes for t in told)][:MOST_TABLES]


def _tables(tables: Sequence[tuple[str, list[HeldTable]]]) -> Table:
    grid = _grid("table", "largest", "mean", "partitions", "tombstones a read, p99", "most")
    for name, told in tables:
        partitions = sum(t.partitions or 0 for t in told)
        size = sum((t.partitions or 0) * (t.mean_bytes or 0) for t in told)
        largest = _most(t.largest_mebibytes for t in told)
        grid.add_row(
            safe(name),
            f"{largest:,} MiB" if largest else "-",
            f"{short(size / partitions)}B" if partitions else "-",
            f"about {partitions:,}" if partitions else "-",
            f"{_most(t.tombstones_p99 for t in told):,}",
            f"{_most(t.tombstones_max for t in told):,}",
        )
    return grid


def _most(figures: Iterable[int | None]) -> int:
    return max((figure or 0 for figure in figures), default=0)
