"""The state of a table by the latest read of each range, because a sliced table is never read at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from consistency.ledger.known import load_spans
from consistency.ledger.recorder import DEPTH_RANKS, OPEN_LIST
from consistency.ledger.spans import Span, age
from consistency.model.reading import Depth
from consistency.model.tokens import RING_SIZE


@dataclass(frozen=True, slots=True)
class LatestReads:
    """A table by the latest read of each of its ranges, as parts of the ring from 0 to 1.

    `late`: read too long ago, or never. `unproven`: read since, but neither clean nor with a differing row.
    `rows_by_kind` counts the rows that differed when last read.
    """

    late: float
    unproven: float
    rows_by_kind: Mapping[str, int] = field(default_factory=dict)


def latest_reads(db: sqlite3.Connection, tbl: int, depth: Depth, since_us: int) -> LatestReads:
    """Add up a table's ranges; those read before `since_us` count as late."""
    spans = load_spans(db, tbl, DEPTH_RANKS[depth], "")
    fresh = [span for span in spans if span.tried_us >= since_us]
    unclean = (span for span in fresh if span.clean_us < span.tried_us)
    unproven = sum(span.end - span.start for span in unclean if not _differs(db, tbl, span))
    kinds = db.execute(
        f"SELECT kind, count(*) FROM findings WHERE tbl = ? AND state IN ({OPEN_LIST}) GROUP BY kind", (tbl,)
    )
    return LatestReads(_part(RING_SIZE - _width(fresh)), _part(unproven), dict(kinds))


def read_until(db: sqlite3.Connection, tbl: int, depth: Depth | None, dc: str) -> int:
    """Return when the least recently read range was read, in microseconds; 0 if a part was never read.

    Without a depth, reads of every depth count.
    """
    ranks = DEPTH_RANKS.values() if depth is None else (DEPTH_RANKS[depth],)
    return age([load_spans(db, tbl, rank, dc) for rank in ranks]).tried_us


def _differs(db: sqlite3.Connection, tbl: int, span: Span) -> bool:
    found = db.execute(
        f"SELECT 1 FROM findings WHERE tbl = ? AND token > ? AND token <= ? AND state IN ({OPEN_LIST}) LIMIT 1",
        (tbl, span.start, span.end),
    )
    return found.fetchone() is not None


def _width(spans: Iterable[Span]) -> int:
    return sum(span.end - span.start for span in spans)


def _part(width: int) -> float:
    """Return a part of the ring; a non-empty part is never rounded to 0."""
    return max(width / RING_SIZE, 1e-9) if width > 0 else 0.0
