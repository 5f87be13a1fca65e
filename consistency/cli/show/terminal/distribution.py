"""How the data lies on the nodes, on a terminal: a bar for each node, and the tables with the largest partitions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.cli.show.terminal.console import heading, indented, safe
from consistency.results.distribution import Distribution, PartitionSizes
from consistency.results.figures import counted, short

MOST_NODES, MOST_TABLES = 40, 10
_BAR = 24
WHICH_PARTITIONS = (
    "Which partitions these are, and which are written most, no table of the servers tells: nodetool toppartitions"
    " KEYSPACE TABLE 10000 does, on each node."
)


def print_distribution(console: Console, found: Distribution) -> None:
    """Print what each node holds beside what its ranges say, then the tables with the largest partitions."""
    console.print()
    console.print(heading("data by node") + Text("  MiB of data files; | is what its token ranges say", style="dim"))
    console.print(_nodes(found))
    if len(found.nodes) > MOST_NODES:
        more = counted(len(found.nodes) - MOST_NODES, "more node")
        indented(console, f"{more}, in the result as JSON (--json)", style="dim")
    tables = found.tables[:MOST_TABLES]
    if tables:
        console.print()
        console.print(heading("tables by their largest partition"))
        console.print(_tables(tables))
    indented(console, WHICH_PARTITIONS, style="dim")


def _grid(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    for column in columns:
        left = column in ("node", "rack", "table", "")
        grid.add_column(column, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    return grid


def _nodes(found: Distribution) -> Table:
    grid = _grid("node", "rack", "MiB", "")
    shares = found.shares
    most = max((max(share.held, share.fair) for share in shares), default=0.0) or 1.0
    for share in shares[:MOST_NODES]:
        place = f"{safe(share.dc)}/{safe(share.rack)}"
        if share.unread:
            grid.add_row(safe(share.name), place, "?", Text(safe(share.unread), style="yellow"))
            continue
        bar = Text(_bar(share.held / most, share.fair / most), style="yellow" if share.hot else "green")
        grid.add_row(safe(share.name), place, f"{share.held:,}", bar)
    return grid


def _bar(held: float, fair: float) -> str:
    """Draw what is held, from 0 to 1, with a mark at what should be."""
    cells = ["#" if i < round(held * _BAR) else " " for i in range(_BAR)]
    cells[min(_BAR - 1, round(fair * _BAR))] = "|"
    return "".join(cells).rstrip()


def _tables(tables: Sequence[PartitionSizes]) -> Table:
    grid = _grid("table", "largest", "mean", "partitions", "tombstones a read, p99", "most")
    for sizes in tables:
        grid.add_row(
            safe(sizes.name),
            f"{sizes.largest_mebibytes:,} MiB" if sizes.largest_mebibytes else "-",
            f"{short(sizes.mean_bytes)}B" if sizes.partitions else "-",
            f"about {sizes.partitions:,}" if sizes.partitions else "-",
            f"{sizes.tombstones_p99:,}",
            f"{sizes.tombstones_max:,}",
        )
    return grid
