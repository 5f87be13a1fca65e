"""Which rows of a leaf differ, found by a hash of each: keys and hashes leave the nodes, and no other row does.

For rows of 2 kB that is a fiftieth of the bytes. A row whose hashes differ is read by its key, on all replicas
at one instant, and is a difference only where these copies differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from consistency.errors import ReplicaError
from consistency.join import Difference, JoinTally, RowName, named_key
from consistency.plan import Leaf
from consistency.reader import Clock, ReplicaReader
from consistency.reading import RawRow, Reading, Route
from consistency.ring import Node
from consistency.rowread import read_states

HASHED_ROWS = 10_000
"""Rows whose hashes are held at once, of each replica: about 3 MB."""
_BATCH = 2_000


def can_hash_rows(reading: Reading, route: Route) -> bool:
    """Say whether rows can be told apart by hashes: not with statics, which every row of a partition repeats."""
    return route is Route.SERVER and reading.capabilities.hashes and not reading.statics


async def odd_rows(
    reader: ReplicaReader, reading: Reading, leaf: Leaf, nodes: Sequence[Node], clock: Clock, tally: JoinTally
) -> AsyncGenerator[Difference, None]:
    """Yield every row of a leaf on which the replicas differ, in ring order; raises a ReplicaError as `rows` does."""
    now_s = clock.now_us() // 1_000_000
    hashed = await asyncio.gather(*(_hashes(reader, reading, leaf, node, now_s) for node in nodes))
    every = hashed[0].union(*hashed)
    odd = every - hashed[0].intersection(*hashed)
    keys = reading.key_slice
    tally.rows += len({row[keys] for row in every}) if odd else len(every)
    del hashed, every
    places = {row[keys]: int.from_bytes(row[0] or b"", "big", signed=True) for row in odd}
    names = sorted((RowName(token, named_key(key)) for key, token in places.items()), key=lambda n: (n.token, n.key))
    for at in range(0, len(names), _BATCH):
        batch = names[at : at + _BATCH]
        seen = await read_states(reader, reading, batch, nodes, clock.now_us() // 1_000_000)
        for name, (states, unread) in zip(batch, seen, strict=True):
            for reason in unread.values():
                raise ReplicaError(reason)
            if len(set(states.values())) > 1:
                yield Difference(name, states)


async def _hashes(reader: ReplicaReader, reading: Reading, leaf: Leaf, node: Node, now_s: int) -> set[RawRow]:
    found: set[RawRow] = set()
    pages = reader.row_hashes(node, reading, leaf.token_range, now_s)
    try:
        async for page in pages:
            found.update(page)
    finally:
        close = getattr(pages, "aclose", None)
        if close is not None:
            await close()
    return found
