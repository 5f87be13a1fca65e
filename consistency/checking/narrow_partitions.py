"""Which partitions differ, found by a digest of each: of the others no row is hashed by itself.

A leaf's digest is the sum of its partitions', so where leaf after leaf differs each is digested by partition at once,
and not a second time when it is looked at more closely. So are the first leaves of a table, where a small piece of it
shows that its partitions hold many rows: whether leaves differ is not known yet. Others are digested whole: one answer
says it all.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from consistency.checking.leaves import DifferingPartitions, LeafResult, digest_leaf
from consistency.checking.plan import Leaf
from consistency.checking.trees import BRANCH
from consistency.cluster.port import Key, Pages
from consistency.cluster.server_digest import ServerDigest, bigint
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaError, ReplicaRefused
from consistency.model.reading import RawRow, Reading
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from consistency.rows.names import named_key

HASHED_ROWS = 10_000
"""Rows whose hashes are held at once, of each replica, or partitions whose digests are: about 3 MB."""
MOST_HELD = 5 * HASHED_ROWS
"""Of these, if a piece of a leaf has more than was expected."""
_LEAST_PER_PARTITION, _MOST_DIFFERING = 4, 0.5
"""Digests of partitions with fewer rows than this, or of which more rows than this share are hashed all the same, cost
more than they save."""
_LEAST_AT_ONCE, _UNLIKE_LEAVES, _MOSTLY = 20, 2, 0.7
"""So many rows a partition holds, and so many leaves differ, before leaves are digested by partition at once; and so
large a share of them before their rows are hashed at once, which costs twice as much."""
_LEAST_AT_FIRST = 40
"""So many rows a partition holds before the first leaves are digested by partition, which may all be clean: each answer
costs the client 5 us, and seven leaves of a clean table tell it no more than seven answers would."""
_GLANCES = 16, 4
"""What part of a leaf is looked at to learn how large partitions are; the next one where that holds none."""


@dataclass(slots=True)
class Partitions:
    """What the partitions of a table were like so far: how many, their rows, and those of them in differing ones.

    `leaves` and `unlike`: how many leaves were digested, and how many of them differed. `largest`: the rows of the
    largest of them. `dense`: whether one held more than is hashed row by row at once, or is remembered. `huge`: whether
    a piece of one held more than is read as arrays at once.
    `seen_groups` and `seen_rows`: the partitions, and their rows, of which no more is known than how large they are.
    `at_first`: whether they are so large that leaves are digested by partition until the first of them were compared.
    """

    groups: int = 0
    rows: int = 0
    differing: int = 0
    leaves: int = 0
    unlike: int = 0
    largest: int = 0
    dense: bool = False
    huge: bool = False
    refused: bool = False
    seen_groups: int = 0
    seen_rows: int = 0
    at_first: bool = False

    def worth_it(self, reading: Reading) -> bool:
        """Whether to narrow a leaf down to its differing partitions before any row is hashed."""
        large = self.rows >= _LEAST_PER_PARTITION * self.groups
        wanted = bool(reading.table.clustering) and not self.refused
        return wanted and large and self.differing <= _MOST_DIFFERING * self.rows

    def worth_it_at_once(self, reading: Reading) -> bool:
        """Whether to digest the next leaf by partition: most leaves before it differed, in few of their partitions.

        Or none was compared yet, and partitions are known to be large. Of partitions that are not known yet a closer
        look would ask the same.
        """
        large = self.rows + self.seen_rows >= _LEAST_AT_ONCE * (self.groups + self.seen_groups)
        return large and (self.at_first or self._unlike(1 / 2)) and self.worth_it(reading)

    def rows_worth_it_at_once(self, reading: Reading) -> bool:
        """Whether to hash the rows of the next leaf one by one: leaves differ, and partitions tell nothing of where."""
        return self._unlike(_MOSTLY) and not self.dense and not self.worth_it(reading)

    def arrays_worth_it_at_once(self, reading: Reading) -> bool:
        """Whether to hash the rows of the next leaf for a count: most leaves before it differed.

        A hash of each row costs a third more than a digest of them all, and saves that digest where a leaf differs.
        """
        return self._unlike(1 / 2) and not self.huge and not reading.table.respelled

    def _unlike(self, share: float) -> bool:
        """Whether so large a share of the leaves differed, and not just one."""
        return self.unlike >= max(_UNLIKE_LEAVES, share * self.leaves)

    def digested(self, result: LeafResult) -> None:
        """Take note of how large a leaf is."""
        self.largest = max(self.largest, result.rows)

    def compared(self, leaves: int, differing: int, *, whole: bool) -> None:
        """Take note of leaves that were read; `whole`: whether the branch they are on was compared."""
        self.leaves += leaves
        self.unlike += differing
        self.at_first = self.at_first and self.leaves < (BRANCH if whole else 2 * BRANCH)

    def saw(self, reading: Reading, told: Collection[RawRow]) -> None:
        """Take note of the digests of some partitions of one replica, which were compared with no other's."""
        self.seen_groups += len(told)
        self.seen_rows += sum(bigint(row[reading.partition_layout.count]) for row in told)

    def pieces_by_row(self, leaf: Leaf, rows: int) -> Sequence[TokenRange]:
        """Cut a leaf of about so many rows, or of as many as the largest has, so that each part can be held at once."""
        return _pieces(leaf, max(rows, self.largest))

    def pieces_by_partition(self, leaf: Leaf, rows: int) -> Sequence[TokenRange]:
        """Cut it so that the digests of the partitions of each part can be held: of large ones there are few."""
        known, held = self.groups + self.seen_groups, self.rows + self.seen_rows
        most = max(rows, self.largest)
        return _pieces(leaf, most * known / held if held else most)


def _pieces(leaf: Leaf, answers: float) -> Sequence[TokenRange]:
    return leaf.token_range.split(max(1, math.ceil(answers / HASHED_ROWS)))


async def glance(table: TableReader, leaf: Leaf, partitions: Partitions) -> None:
    """Learn from a small piece of a leaf, on one replica, whether partitions are worth a digest each from the first.

    Where it does not answer nothing was learnt, and leaves are digested whole.
    """
    if not partitions.worth_it(table.reading):
        return
    with suppress(ReplicaError):
        for part in _GLANCES:
            piece = leaf.token_range.split(part)[0]
            (told,) = await gather_rows([table.partition_digests(leaf.replicas[0], piece, table.now_s())])
            partitions.saw(table.reading, told)
            if told:
                break
    seen = partitions.seen_groups
    partitions.at_first = seen > 0 and partitions.seen_rows >= _LEAST_AT_FIRST * seen


async def differing_partitions(
    table: TableReader, leaf: Leaf, now_s: int, partitions: Partitions
) -> DifferingPartitions | None:
    """Return the partitions of a leaf that differ; None if most of its rows would be hashed all the same.

    None as well if the server refuses; raises other ReplicaErrors.
    """
    try:
        told = await gather_rows([table.partition_digests(node, leaf.token_range, now_s) for node in leaf.replicas])
    except ReplicaRefused:
        partitions.refused = True  # guardrails can forbid GROUP BY
        return None
    return _compared(table.reading, told, partitions)


async def digest_by_partition(table: TableReader, leaf: Leaf, partitions: Partitions, *, leaf_rows: int) -> LeafResult:
    """Digest a leaf of about `leaf_rows` rows on all its replicas at one instant, piece by piece.

    Its partitions that differ are found on the way. One that has too many partitions to be held is digested whole.
    Raises a ReplicaError if a replica does not answer.
    """
    now_s, reading, layout = table.now_s(), table.reading, table.reading.partition_layout
    asked = ServerDigest(reading, newest=True)
    digests: dict[Node, Digest] = dict.fromkeys(leaf.replicas, asked.total([]))
    found: list[DifferingPartitions | None] = []
    for piece in partitions.pieces_by_partition(leaf, leaf_rows):
        told = await gather_rows([_told_by(table, leaf, node, piece, now_s) for node in leaf.replicas], most=MOST_HELD)
        if any(len(rows) > MOST_HELD for rows in told):
            partitions.saw(reading, told[0])
            return await digest_leaf(table, leaf)
        for node, rows in zip(leaf.replicas, told, strict=True):
            digests[node] = asked.add(digests[node], asked.total([row[layout.digest] for row in rows]))
        found.append(_compared(reading, [{row[layout.compared] for row in rows} for rows in told], partitions))
    return LeafResult(leaf, now_s, digests, {}, table.scheme, differing=_joined(found))


def _told_by(table: TableReader, leaf: Leaf, node: Node, piece: TokenRange, now_s: int) -> Pages:
    """Ask one replica; the first of the leaf tells the newest write times too, as where a leaf is digested whole."""
    return table.partition_digests(node, piece, now_s, newest=node == leaf.replicas[0])


def _compared(reading: Reading, told: Sequence[set[RawRow]], partitions: Partitions) -> DifferingPartitions | None:
    """Tell the partitions apart that not all replicas have with the same digest."""
    layout = reading.partition_layout
    rows: dict[Key, int] = {}
    for row in set[RawRow]().union(*told):
        key = named_key(row[layout.partition])
        rows[key] = max(rows.get(key, 0), int.from_bytes(row[layout.count] or b"", "big"))
    keys = {named_key(row[layout.partition]) for row in not_in_all(told)}
    held, differing = sum(rows.values()), sum(rows[key] for key in keys)
    partitions.groups += len(rows)
    partitions.rows += held
    partitions.differing += differing
    if differing > _MOST_DIFFERING * held:
        return None
    batches: list[list[Key]] = []
    room = 0
    for key in keys:
        if room <= 0:
            batches.append([])
            room = HASHED_ROWS
        batches[-1].append(key)
        room -= rows[key]
    return DifferingPartitions(tuple(map(tuple, batches)), held - differing)


def _joined(found: Sequence[DifferingPartitions | None]) -> DifferingPartitions | None:
    """Put what was found in the pieces of a leaf together; one in which most rows differ has all of them hashed."""
    known = [part for part in found if part is not None]
    if len(known) < len(found):
        return None
    batches = tuple(batch for part in known for batch in part.batches)
    return DifferingPartitions(batches, sum(part.agreed_rows for part in known))


def not_in_all(sets: Sequence[set[RawRow]]) -> set[RawRow]:
    """Return what some of the sets lack; of a million rows that agree none is looked at twice."""
    first, *others = sets
    return set[RawRow]().union(*(first ^ other for other in others))


async def gather_rows(streams: Sequence[Pages], *, most: float = math.inf) -> list[set[RawRow]]:
    """Read what every replica has to say, all at once; of one that says more than `most` rows a page more than that."""
    return list(await asyncio.gather(*(_whole(pages, most) for pages in streams)))


async def _whole(pages: Pages, most: float) -> set[RawRow]:
    found: set[RawRow] = set()
    async with aclosing(pages):
        async for page in pages:
            found.update(page)
            if len(found) > most:
                break
    return found
