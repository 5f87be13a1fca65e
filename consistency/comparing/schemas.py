"""How two tables are declared: what keeps them from being compared, and what is worth knowing before a switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from consistency.comparing.matching import TablePair
from consistency.model.schema import Column, Keyspace, Table
from consistency.results.comparison import SchemaDifference

_OPTIONS: Mapping[str, Callable[[Table], str]] = {
    "gc_grace_seconds": lambda table: str(table.gc_grace_seconds),
    "default_time_to_live": lambda table: str(table.default_ttl),
    "compaction": lambda table: table.compaction,
    "read_repair": lambda table: table.read_repair,
    "indexes": lambda table: ", ".join(table.indexes) or "none",
}


def declared_otherwise(
    pair: TablePair, source: Mapping[str, Keyspace], target: Mapping[str, Keyspace]
) -> tuple[SchemaDifference, ...]:
    """Return how a table is declared otherwise on the two sides, what keeps its rows from being compared first."""
    options = [
        SchemaDifference(name, told(pair.source), told(pair.target))
        for name, told in _OPTIONS.items()
        if told(pair.source) != told(pair.target)
    ]
    mine, theirs = _views(pair.source, source), _views(pair.target, target)
    views = [SchemaDifference("materialized views", mine, theirs)] if mine != theirs else []
    return (*columns_apart(pair), *options, *views)


def columns_apart(pair: TablePair) -> tuple[SchemaDifference, ...]:
    """Return what keeps rows of two tables from being compared, and cells from being written to the other."""
    return tuple(sorted(_columns(pair), key=lambda found: found.what))


def why_not_compared(found: tuple[SchemaDifference, ...]) -> str:
    """Say which differences keep the rows of two tables from being compared; empty if none does."""
    told = [f"{each.what}: {each.source} in the source, {each.target} in the target" for each in found if each.blocks]
    return f"its columns are not the same ({'; '.join(told)})" if told else ""


def _columns(pair: TablePair) -> Iterator[SchemaDifference]:
    mine, theirs = (
        {column.name: _declared(column) for column in table.columns} for table in (pair.source, pair.target)
    )
    for name in {**mine, **theirs}:
        if mine.get(name) != theirs.get(name):
            yield SchemaDifference(f"column {name}", mine.get(name, "none"), theirs.get(name, "none"), blocks=True)
    counters = [table.is_counter for table in (pair.source, pair.target)]
    if counters[0] is not counters[1]:
        mine_are, theirs_are = ("counters" if each else "no counters" for each in counters)
        yield SchemaDifference("counters", mine_are, theirs_are, blocks=True)


def _declared(column: Column) -> str:
    """Return what must be the same of a column for its cells to be compared, as CQL has it."""
    place = f" {column.kind.replace('_', ' ')}" if column.kind != "regular" else ""
    at = f" {column.position + 1}" if column.position >= 0 else ""
    fields = "".join(f" {{{each}}}" for each in column.type.fields_of_user_types)
    return f"{column.type.cql}{fields}{place}{at}{' descending' if column.reversed else ''}"


def _views(table: Table, schema: Mapping[str, Keyspace]) -> str:
    tables = schema[table.keyspace].tables.values()
    return ", ".join(sorted(each.name for each in tables if each.view_of == table.name)) or "none"
