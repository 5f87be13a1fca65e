"""Which rows of a leaf differ, found by a hash of each: keys and hashes leave the nodes, and no other row does.

For rows of 2 kB that is a fiftieth of the bytes. Where partitions hold many rows each has a digest of its own first,
and only the rows of those that differ are hashed. A row whose hashes differ is read by its key, on all replicas
at one instant, and is a difference only where these copies differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from consistency.errors import ReplicaError, ReplicaRefused
from consistency.join import Difference, JoinTally, RowName, named_key
from consistency.order import UnorderableTypeError, key_function
from consistency.plan import Leaf
from consistency.reader import Clock, Key, ReplicaReader
from consistency.reading import Locality, RawRow, Reading, Route
from consistency.ring import Node
from consistency.rowread import read_states

HASHED_ROWS = 10_000
"""Rows whose hashes are held at once, of each replica: about 3 MB."""
_LEAST_PER_PARTITION, _MOST_DIFFERING = 4, 0.5
"""Digests of partitions with fewer rows than this, or of which more rows than this share are hashed all the same, cost
more than they save."""
_BATCH = 2_000


def can_hash_rows(reading: Reading, route: Route) -> bool:
    """Say whether rows can be told apart by hashes: not with statics, which every row of a partition repeats."""
    return route is Route.SERVER and reading.capabilities.hashes and not reading.statics


@dataclass(slots=True)
class Partitions:
    """What the partitions of a table were like so far: how many, their rows, and those of them in differing ones."""

    groups: int = 0
    rows: int = 0
    differing: int = 0
    refused: bool = False

    def worth_it(self, reading: Reading) -> bool:
        """Whether to narrow a leaf down to its differing partitions before any row is hashed."""
        large = self.rows >= _LEAST_PER_PARTITION * self.groups
        wanted = bool(reading.table.clustering) and not self.refused
        return wanted and large and self.differing <= _MOST_DIFFERING * self.rows


async def odd_rows(
    reader: ReplicaReader,
    reading: Reading,
    leaf: Leaf,
    nodes: Sequence[Node],
    clock: Clock,
    tally: JoinTally,
    partitions: Partitions,
) -> AsyncGenerator[Difference, None]:
    """Yield every row of a leaf on which the replicas differ, in ring order; raises a ReplicaError as `rows` does."""
    now_s = clock.now_us() // 1_000_000
    names = await _odd_names(reader, reading, leaf, nodes, now_s, tally, partitions)
    names.sort(key=lambda name: (name.token, name.key))
    for at in range(0, len(names), _BATCH):
        batch = names[at : at + _BATCH]
        seen = await read_states(reader, reading, batch, nodes, clock.now_us() // 1_000_000)
        for name, (states, unread) in zip(batch, seen, strict=True):
            for reason in unread.values():
                raise ReplicaError(reason)
            if len(set(states.values())) > 1:
                yield Difference(name, states)


async def _odd_names(
    reader: ReplicaReader,
    reading: Reading,
    leaf: Leaf,
    nodes: Sequence[Node],
    now_s: int,
    tally: JoinTally,
    partitions: Partitions,
) -> list[RowName]:
    """Return the rows whose hashes differ, and count all rows."""
    # A trace proves nothing of an answer about several partitions: each may be another replica's.
    provable = all(reader.locality(node) is Locality.NODE_LOCAL for node in nodes)
    if provable and partitions.worth_it(reading):
        try:
            narrowed = await _narrowed(reader, reading, leaf, nodes, now_s, partitions)
        except ReplicaRefused:
            # Guardrails can forbid GROUP BY, and long lists after IN.
            partitions.refused = True
            narrowed = None
        if narrowed is not None:
            names, rows = narrowed
            tally.rows += rows
            return names
    return _told_apart(
        reading, await _all([reader.row_hashes(n, reading, leaf.token_range, now_s) for n in nodes]), tally
    )


async def _narrowed(
    reader: ReplicaReader,
    reading: Reading,
    leaf: Leaf,
    nodes: Sequence[Node],
    now_s: int,
    partitions: Partitions,
) -> tuple[list[RowName], int] | None:
    """Return the rows of differing partitions whose hashes differ, and how many rows the leaf has.

    None where most rows would be hashed all the same.
    """
    odd, agreed, differing = await _odd_partitions(reader, reading, leaf, nodes, now_s, partitions)
    if differing > _MOST_DIFFERING * (agreed + differing):
        return None
    names: list[RowName] = []
    tally = JoinTally(agreed)
    for batch in odd:
        hashed = await _all([reader.row_hashes_of(node, reading, batch, now_s) for node in nodes])
        names += _told_apart(reading, hashed, tally)
    return names, tally.rows


async def _odd_partitions(
    reader: ReplicaReader,
    reading: Reading,
    leaf: Leaf,
    nodes: Sequence[Node],
    now_s: int,
    partitions: Partitions,
) -> tuple[list[list[Key]], int, int]:
    """Return the partitions that differ, in batches to be hashed at once, and how many rows agree and do not."""
    digests = await _all([reader.partition_digests(node, reading, leaf.token_range, now_s) for node in nodes])
    counted = 1 + len(reading.table.partition_key)
    every = set[RawRow]().union(*digests)
    rows: dict[Key, int] = {}
    for row in every:
        key = named_key(row[1:counted])
        rows[key] = max(rows.get(key, 0), int.from_bytes(row[counted] or b"", "big"))
    odd = {named_key(row[1:counted]) for row in _not_in_all(digests)}
    differing = sum(rows[key] for key in odd)
    partitions.groups += len(rows)
    partitions.rows += sum(rows.values())
    partitions.differing += differing
    batches: list[list[Key]] = []
    room = 0
    for key in odd:
        if room <= 0:
            batches.append([])
            room = HASHED_ROWS
        batches[-1].append(key)
        room -= rows[key]
    return batches, sum(rows.values()) - differing, differing


def _not_in_all(sets: Sequence[set[RawRow]]) -> set[RawRow]:
    """Return what some of the sets lack; of a million rows that agree none is looked at twice."""
    first, *others = sets
    return set[RawRow]().union(*(first ^ other for other in others))


def _told_apart(reading: Reading, hashed: Sequence[set[RawRow]], tally: JoinTally) -> list[RowName]:
    first, odd = hashed[0], _not_in_all(hashed)
    keys = reading.key_slice
    tally.rows += len(first) + len({row[keys] for row in odd} - {row[keys] for row in odd & first})
    places = {row[keys]: int.from_bytes(row[0] or b"", "big", signed=True) for row in odd}
    names = [RowName(token, named_key(key)) for key, token in places.items()]
    return _one_name_each(reading, names) if reading.table.respelled else names


def _one_name_each(reading: Reading, names: Sequence[RowName]) -> list[RowName]:
    """Keep one of the names that Cassandra takes for one row."""
    width = len(reading.table.partition_key)
    try:
        order = key_function([(c.type, c.reversed) for c in reading.table.clustering])
    except UnorderableTypeError:
        return list(names)  # a custom type: the row may be told of twice
    kept: dict[object, RowName] = {}
    for name in sorted(names, key=lambda name: name.key):
        kept.setdefault((name.key[:width], order(name.key[width:])), name)
    return list(kept.values())


async def _all(streams: Sequence[AsyncIterator[list[RawRow]]]) -> list[set[RawRow]]:
    """Read what every replica has to say, all at once."""
    return list(await asyncio.gather(*map(_whole, streams)))


async def _whole(pages: AsyncIterator[list[RawRow]]) -> set[RawRow]:
    found: set[RawRow] = set()
    try:
        async for page in pages:
            found.update(page)
    finally:
        close = getattr(pages, "aclose", None)
        if close is not None:
            await close()
    return found
