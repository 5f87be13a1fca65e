"""Token ranges with what is known of each: who owned it, when it was last read, when it was last clean.

A table's spans are sorted and never overlap; tokens without a span were never read. Times are those of the
start of a read, in microseconds, 0 for never. Every run cuts its own leaves: a new span replaces what it covers
and, if it is not clean itself, keeps the oldest clean time of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from consistency.model.ring import Arc, Node
from consistency.model.tokens import RING_SIZE, TokenRange


@dataclass(frozen=True, slots=True)
class Span:
    """What is known of the tokens in `(start, end]`; `owners` names the replicas that were compared."""

    start: int
    end: int
    owners: int
    tried_us: int = 0
    clean_us: int = 0


@dataclass(frozen=True, slots=True)
class Age:
    """The oldest clean pass of a table's ranges (None if no range was ever clean), and the part never clean.

    `tried_us` is when the least recently read range was read, clean or not; 0 if a part was never read.
    """

    oldest_us: int | None
    never: float
    ranges: int
    tried_us: int


def owners_id(replicas: Iterable[Node]) -> int:
    """Return a number for exactly these nodes, in any order."""
    names = ",".join(sorted(node.host_id for node in replicas))
    return int.from_bytes(hashlib.blake2b(names.encode(), digest_size=8).digest(), "big", signed=True)


def owned_spans(arcs: Iterable[Arc]) -> list[Span]:
    """Return the current owners of the ring, in ring order."""
    found = [Span(r.start, r.end, owner) for arc in arcs for owner in [owners_id(arc.replicas)] for r in arc.ranges]
    return sorted(found, key=lambda span: span.start)


def overlay(old: Sequence[Span], new: Sequence[Span]) -> list[Span]:
    """Lay new spans over old ones; both are sorted and free of overlaps, and so is the result."""
    out: list[Span] = []
    waiting = iter(old)
    current = next(waiting, None)
    for span in new:
        while current is not None and current.end <= span.start:
            out.append(current)
            current = next(waiting, None)
        reached, inherited = span.start, span.clean_us
        worst: int | None = None
        while current is not None and current.start < span.end:
            if current.start < span.start:
                out.append(replace(current, end=span.start))
            whole = current.start <= reached and current.owners == span.owners
            known = current.clean_us if whole else 0
            worst = known if worst is None else min(worst, known)
            reached = current.end
            if current.end > span.end:
                current = replace(current, start=span.end)
                break
            current = next(waiting, None)
        if worst is not None and reached >= span.end:
            inherited = max(span.clean_us, worst)
        out.append(replace(span, clean_us=inherited))
    if current is not None:
        out.append(current)
    out.extend(waiting)
    return out


def still_owned(known: Sequence[Span], ring: Sequence[Span]) -> list[Span]:
    """Return what is known of ranges that the same nodes own in `ring`; nothing is known of the others any more."""
    pieces = _crossed(known, ring)
    return [replace(mine, start=start, end=end) for start, end, (mine, now) in pieces if mine.owners == now.owners]


def last_tried(known: Sequence[Span], ranges: Sequence[TokenRange]) -> list[int]:
    """Return for each range, in ring order, when its least recently read part was read; 0 if a part never was."""
    wanted = [Span(r.start, r.end, 0) for r in ranges]
    pieces: dict[int, list[tuple[int, int]]] = {r.start: [] for r in ranges}
    for start, end, (mine, want) in _crossed(known, wanted):
        pieces[want.start].append((end - start, mine.tried_us))
    found = [(pieces[r.start], r.width) for r in ranges]
    return [min(t for _, t in parts) if parts and sum(w for w, _ in parts) == width else 0 for parts, width in found]


def age(layers: Sequence[Sequence[Span]]) -> Age:
    """Judge a table by several layers of spans: a range is as young as its youngest pass in any of them."""
    oldest: int | None = None
    tried: int | None = None
    clean = read = ranges = 0
    for start, end, clean_us, tried_us in _youngest(layers):
        read += end - start
        tried = tried_us if tried is None else min(tried, tried_us)
        if clean_us:
            clean += end - start
            ranges += 1
            oldest = clean_us if oldest is None else min(oldest, clean_us)
    # In whole tokens, then in parts: a range that was never clean is never rounded to nothing.
    missing = RING_SIZE - clean
    never = max(missing / RING_SIZE, 1e-9) if missing > 0 else 0.0
    return Age(oldest, never, ranges, (tried or 0) if read == RING_SIZE else 0)


def together(layers: Sequence[Sequence[Span]]) -> list[Span]:
    """Return several layers as one, each piece with the youngest times of any layer and no owners."""
    return [Span(start, end, 0, tried, clean) for start, end, clean, tried in _youngest(layers)]


def _youngest(layers: Sequence[Sequence[Span]]) -> Iterator[tuple[int, int, int, int]]:
    """Yield `(start, end, clean_us, tried_us)` between all boundaries, with the youngest times of any layer."""
    events = sorted(
        event
        for layer, spans in enumerate(layers)
        for s in spans
        for event in ((s.start, 1, layer, s.clean_us, s.tried_us), (s.end, 0, layer, 0, 0))
    )
    held = [(0, 0)] * len(layers)
    before = 0
    for place, _, layer, clean_us, tried_us in events:
        if place > before and any(tried for _, tried in held):
            yield before, place, max(clean for clean, _ in held), max(tried for _, tried in held)
        held[layer] = clean_us, tried_us
        before = place


def _crossed(a: Sequence[Span], b: Sequence[Span]) -> Iterator[tuple[int, int, tuple[Span, Span]]]:
    """Yield the pieces that both sorted sequences cover, with the two spans that cover each."""
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i].start, b[j].start), min(a[i].end, b[j].end)
        if start < end:
            yield start, end, (a[i], b[j])
        if a[i].end <= b[j].end:
            i += 1
        else:
            j += 1
