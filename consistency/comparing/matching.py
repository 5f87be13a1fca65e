"""Which table of the target each table of the source is compared with, by name, and what has no counterpart."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from consistency.comparing.opening import naming
from consistency.errors import UsageError
from consistency.model.cqltype import quote_identifier
from consistency.model.schema import SYSTEM_KEYSPACES, Keyspace, Table
from consistency.model.scope import Scope, choose_tables, parse_name
from consistency.model.sides import Side

_PART = r'(?:"(?:[^"]|"")+"|[^"=])+'
_PAIR = re.compile(rf"({_PART})(?:=({_PART}))?")

Schema = Mapping[str, Keyspace]


@dataclass(frozen=True)
class TablePair:
    """A table of the source and the one of the target that it is compared with."""

    source: Table
    target: Table


@dataclass(frozen=True)
class Matched:
    """The tables to compare.

    `lacking` maps a table, by its name in the source or else in the target, to the reason why it has no counterpart
    that can be read: that is unknown. `left_out` are left out on purpose. `keyspaces` maps the source's to the
    target's.
    """

    pairs: tuple[TablePair, ...]
    keyspaces: Mapping[str, str]
    lacking: Mapping[str, str]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Name:
    """One name as it was typed: `KS`, `KS.T`, `KS=KS2` or `KS.T=KS2.T2`."""

    source: tuple[str, str | None]
    target: tuple[str, str | None]

    @classmethod
    def parse(cls, text: str) -> _Name:
        match = _PAIR.fullmatch(text)
        if match is None:
            msg = f"{text!r} is none of KS, KS.TABLE, KS=KS2 and KS.TABLE=KS2.TABLE2"
            raise UsageError(msg)
        source = parse_name(match[1])
        target = parse_name(match[2]) if match[2] else source
        if (source[1] is None) != (target[1] is None):
            msg = f"{text!r}: a table is compared with a table, a keyspace with a keyspace"
            raise UsageError(msg)
        return cls(source, target)


def match_tables(source: Schema, target: Schema, names: Sequence[str]) -> Matched:
    """Match the tables named, or all that are not Cassandra's own; UsageError if a name does not exist on a side."""
    parsed = list(dict.fromkeys(_Name.parse(text) for text in names))
    _require_one_target_each(parsed)
    with naming(Side.SOURCE):
        scope = choose_tables(source, [_typed(name.source) for name in parsed])
    with naming(Side.TARGET):
        choose_tables(target, [_typed(name.target) for name in parsed])
    renamed = {name.source: name.target for name in parsed}
    whole = {name.source[0]: name.target[0] for name in parsed if name.source[1] is None}
    keyspaces = whole if names else {name: name for name in scope.keyspaces}
    pairs: list[TablePair] = []
    lacking: dict[str, str] = {}
    taken: dict[tuple[str, str], str] = {}
    for table in scope.tables:
        place = _in_target(table, renamed, keyspaces)
        found = _find(target, place)
        if isinstance(found, str):
            lacking[table.full_name] = found
            continue
        if place in taken:
            msg = f"{table.full_name} and {taken[place]} would both be compared with {found.full_name} of the target"
            raise UsageError(msg)
        taken[place] = table.full_name
        pairs.append(TablePair(table, found))
    for name, reason in scope.unreadable.items():
        lacking[name] = f"source: {reason}"
    elsewhere = {place for place, other in renamed.items() if other != (keyspaces.get(place[0]), place[1])}
    lacking |= dict(_only_in_target(source, target, keyspaces, taken, elsewhere))
    if not names:
        new = [keyspace for name, keyspace in _own(target).items() if name not in source]
        lacking |= {f"{ks.name}.{name}": "only the target has its keyspace" for ks in new for name in _names(ks)}
    of_pairs = {pair.source.keyspace: pair.target.keyspace for pair in pairs}
    return Matched(tuple(pairs), of_pairs, lacking, _left_out(scope))


def _require_one_target_each(names: Sequence[_Name]) -> None:
    seen: dict[tuple[str, str | None], _Name] = {}
    for name in names:
        other = seen.setdefault(name.source, name)
        if other != name:
            both = f"{_typed(other.target)} and with {_typed(name.target)}"
            msg = f"{_typed(name.source)} is to be compared with {both}: one at a time"
            raise UsageError(msg)


def _typed(name: tuple[str, str | None]) -> str:
    keyspace, table = name
    return quote_identifier(keyspace) + ("" if table is None else f".{quote_identifier(table)}")


def _in_target(
    table: Table, renamed: Mapping[tuple[str, str | None], tuple[str, str | None]], keyspaces: Mapping[str, str]
) -> tuple[str, str]:
    keyspace, name = renamed.get((table.keyspace, table.name), (keyspaces.get(table.keyspace, ""), table.name))
    return keyspace, name or table.name


def _find(target: Schema, place: tuple[str, str]) -> Table | str:
    """Return a table of the target, or why there is none that can be read."""
    keyspace = target.get(place[0])
    if keyspace is None:
        return f"the target has no keyspace {place[0]!r}"
    if place[1] in keyspace.unreadable:
        return f"target: {keyspace.unreadable[place[1]]}"
    if not keyspace.replication.replicated:
        return f"the target keeps keyspace {place[0]!r} on each node by itself ({keyspace.replication.strategy})"
    return keyspace.tables.get(place[1]) or f"the target has no table {place[1]!r} in keyspace {place[0]!r}"


def _only_in_target(
    source: Schema,
    target: Schema,
    keyspaces: Mapping[str, str],
    taken: Mapping[tuple[str, str], str],
    elsewhere: Collection[tuple[str, str | None]],
) -> Iterator[tuple[str, str]]:
    """Yield the tables of keyspaces that are compared as a whole that only the target has.

    `elsewhere` are those of the source that the target has under another name: one of the same name is not theirs.
    """
    for mine, theirs in keyspaces.items():
        if theirs not in target or not source[mine].replication.replicated:
            continue
        known = {n for n in (*source[mine].tables, *source[mine].unreadable) if (mine, n) not in elsewhere}
        for name in _names(target[theirs]):
            if (theirs, name) not in taken and name not in known:
                yield f"{theirs}.{name}", "only the target has this table"


def _own(schema: Schema) -> dict[str, Keyspace]:
    own = {name: keyspace for name, keyspace in schema.items() if name not in SYSTEM_KEYSPACES}
    return {name: keyspace for name, keyspace in own.items() if keyspace.replication.replicated}


def _names(keyspace: Keyspace) -> list[str]:
    """Return the names of its tables, also of those on which its nodes disagree."""
    return [*(table.name for table in keyspace.tables.values() if table.view_of is None), *keyspace.unreadable]


def _left_out(scope: Scope) -> dict[str, str]:
    return {
        name: "materialized view: compare its table" if reason.startswith("materialized view") else reason
        for name, reason in scope.not_checked.items()
    }
