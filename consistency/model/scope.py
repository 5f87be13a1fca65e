"""Which tables a command is about: `KS`, `KS.TABLE`, or everything that is not Cassandra's own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from consistency.errors import UsageError
from consistency.model.schema import SYSTEM_KEYSPACES, Keyspace, Table

_NAME = r'("(?:[^"]|"")+"|[^."]+)'
_SCOPE = re.compile(rf"{_NAME}(?:\.{_NAME})?")


@dataclass(frozen=True, slots=True)
class Scope:
    """The tables to check, the keyspaces to judge, and what was left out or cannot be read, with the reason."""

    tables: tuple[Table, ...]
    keyspaces: tuple[str, ...]
    not_checked: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


def choose_tables(schema: Mapping[str, Keyspace], names: Sequence[str], *, views: bool = False) -> Scope:
    """Resolve the given names; UsageError names what does not exist and suggests a similar name."""
    wanted: dict[str, list[str] | None] = {}
    for text in names:
        keyspace, table = parse_name(text)
        wanted[keyspace] = _more(wanted, keyspace, table)
    if not names:
        wanted = {name: None for name in schema if name not in SYSTEM_KEYSPACES}
    return _resolve(schema, wanted, named=bool(names), views=views)


def parse_name(text: str) -> tuple[str, str | None]:
    """Read `ks`, `ks.table` or `"Ks"."Table"`; names are case-sensitive as stored, quotes are optional."""
    match = _SCOPE.fullmatch(text)
    if match is None:
        msg = f"{text!r} is neither KEYSPACE nor KEYSPACE.TABLE; quote a name that holds a dot: '\"my.ks\".t'"
        raise UsageError(msg)
    keyspace, table = match.groups()
    return _bare(keyspace), None if table is None else _bare(table)


def is_named(names: Sequence[str], keyspace: str, table: str) -> bool:
    """Whether the names that a command was given mean a table; without a name it is about all."""
    meant = [parse_name(text) for text in names]
    return not meant or any(part == keyspace and only in (None, table) for part, only in meant)


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _more(wanted: Mapping[str, list[str] | None], keyspace: str, table: str | None) -> list[str] | None:
    if table is None or (keyspace in wanted and wanted[keyspace] is None):
        return None
    return [*(wanted.get(keyspace) or []), table]


def _resolve(
    schema: Mapping[str, Keyspace], wanted: Mapping[str, list[str] | None], *, named: bool, views: bool
) -> Scope:
    tables: list[Table] = []
    not_checked: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for name, only in sorted(wanted.items()):
        keyspace = _keyspace(schema, name)
        if not keyspace.replication.replicated:
            if named:
                not_checked[name] = f"{keyspace.replication.strategy} keeps one copy on each node: nothing to compare"
            continue
        for table_name in only if only is not None else sorted({*keyspace.tables, *keyspace.unreadable}):
            if table_name in keyspace.unreadable:
                unreadable[f"{name}.{table_name}"] = keyspace.unreadable[table_name]
                continue
            table = _table(keyspace, table_name)
            if table.view_of and only is None and not views:
                not_checked[table.full_name] = (
                    f"materialized view of {table.view_of}: check its table, name the view, or give --views"
                )
            else:
                tables.append(table)
    return Scope(tuple(dict.fromkeys(tables)), tuple(sorted(wanted)), not_checked, unreadable)


def _keyspace(schema: Mapping[str, Keyspace], name: str) -> Keyspace:
    if name not in schema:
        msg = f"there is no keyspace {name!r}{_close(name, schema)}"
        raise UsageError(msg)
    return schema[name]


def _table(keyspace: Keyspace, name: str) -> Table:
    if name not in keyspace.tables:
        msg = f"there is no table {name!r} in keyspace {keyspace.name!r}{_close(name, keyspace.tables)}"
        raise UsageError(msg)
    return keyspace.tables[name]


def _close(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:
        close = [n for n in names if n.lower() == name.lower()]
    return f"; did you mean {close[0]!r}?" if close else ""
