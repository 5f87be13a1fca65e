"""Digest every leaf on all its replicas, and keep account of what was read and what was not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from consistency.checking.plan import Leaf
from consistency.cluster.port import Key
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaError, ReplicaForbidden, ReplicaRefused, ReplicaTimeout, TooMuchToScan
from consistency.model.reading import Route
from consistency.model.ring import Node
from consistency.model.tree import Digest
from consistency.rows.names import RowName

if TYPE_CHECKING:
    from consistency.checking.range_rows import FirstReadings


@dataclass(frozen=True, slots=True)
class DifferingPartitions:
    """The partitions of a range that differ, in batches to hash at once, and how many rows the others hold."""

    batches: tuple[tuple[Key, ...], ...]
    agreed_rows: int

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.batches)


@dataclass(frozen=True, slots=True)
class DifferingRows:
    """The rows of a range whose hashes differ, and how many distinct rows the replicas hold there."""

    names: tuple[RowName, ...]
    rows: int

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.names)


@dataclass(frozen=True, slots=True)
class LeafResult:
    """One leaf's digests by replica, the errors of those that have none, and the instant they were judged at."""

    leaf: Leaf
    now_s: int
    digests: Mapping[Node, Digest]
    errors: Mapping[Node, ReplicaError]
    scheme: str = ""
    """What the digests were made of, and where: `depth/route`."""
    fell_back: str = ""
    """Why the leaf was hashed on the client although the server was asked to, empty if it was not."""
    differing: DifferingPartitions | DifferingRows | FirstReadings | None = None
    """Its partitions, or rows, that differ, if that is known already; or its rows as they are counted."""
    full: bool = False
    """Whether it is known that most parts of it differ."""

    @property
    def rows(self) -> int:
        """The rows of the replica that holds most."""
        return max((d.rows for d in self.digests.values()), default=0)

    @property
    def newest_us(self) -> int | None:
        """The newest write time, as the replica tells that was asked for it."""
        return max((d.newest_us for d in self.digests.values() if d.newest_us is not None), default=None)


async def digest_leaf(table: TableReader, leaf: Leaf) -> LeafResult:
    """Digest one leaf on all its replicas at one instant.

    Where a server cannot finish the digest or does not accept it, all replicas of the leaf are hashed on the
    client instead: it reads in pages that shrink until the server manages, so a huge partition or a field of
    tombstones is slow and not unknown.
    """
    now_s = table.now_s()
    result = await _digest_all(table, leaf, now_s)
    if table.route is Route.SERVER and (reason := beyond_the_server(result.errors.values())):
        return replace(await _digest_all(table.by(Route.CLIENT), leaf, now_s), fell_back=reason)
    return result


def beyond_the_server(errors: Iterable[ReplicaError]) -> str:
    """Return why a server could not hash what was asked for, so that it is hashed here; empty for other errors."""
    for error in errors:
        refused = isinstance(error, ReplicaRefused) and not isinstance(error, ReplicaForbidden)
        if refused or isinstance(error, ReplicaTimeout | TooMuchToScan):
            return str(error)
    return ""


async def _digest_all(table: TableReader, leaf: Leaf, now_s: int) -> LeafResult:
    answers = await asyncio.gather(
        *(
            # Replicas that agree agree on write times too, so one of them tells the newest.
            table.digest(node, leaf.token_range, now_s, newest=node == leaf.replicas[0])
            for node in leaf.replicas
        ),
        return_exceptions=True,
    )
    digests: dict[Node, Digest] = {}
    errors: dict[Node, ReplicaError] = {}
    for node, answer in zip(leaf.replicas, answers, strict=True):
        if isinstance(answer, ReplicaError):
            errors[node] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            digests[node] = answer
    return LeafResult(leaf, now_s, digests, errors, table.scheme)


async def digest_leaves(
    digest: Callable[[Leaf], Awaitable[LeafResult]], leaves: Iterable[Leaf], *, at_once: Callable[[], int]
) -> AsyncGenerator[LeafResult, None]:
    """Yield the results of all leaves as they come, `at_once()` of them under way; a leaf is taken when it is begun."""
    waiting: Iterator[Leaf] = iter(leaves)
    running: set[asyncio.Future[LeafResult]] = set()
    try:
        while True:
            while len(running) < at_once() and (leaf := next(waiting, None)) is not None:
                running.add(asyncio.ensure_future(digest(leaf)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
