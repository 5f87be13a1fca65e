"""What goes to a node and what comes back: a statement with serialized values, a page of undecoded rows."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ONE = 1
NODE_LOCAL = 11
LOCAL_ONE = 10
ALL = 5
QUORUM = 4
"""Consistency level: answer from this node's own storage only (4.0+, a JVM property allows it)."""

INT = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class Statement:
    """One request to one node.

    `values` are serialized cells bound in order. `now_s` is the instant (seconds since the epoch) at which
    TTLs are judged. `timeout_s` bounds the wait for the answer.
    """

    cql: str
    values: tuple[bytes | None, ...] = ()
    consistency: int = ONE
    page_size: int = 5000
    paging_state: bytes | None = None
    now_s: int | None = None
    trace: bool = False
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Page:
    """One page as the server sent it: `body` is its rows, each cell a signed 32-bit length and the bytes."""

    row_count: int
    column_count: int
    body: bytes
    paging_state: bytes | None = None
    trace_id: bytes | None = None

    def rows(self) -> list[tuple[bytes | None, ...]]:
        """Return the rows as tuples of cells; a null is None."""
        body, width = self.body, self.column_count
        cells: list[bytes | None] = []
        add = cells.append
        at = 0
        read_length = INT.unpack_from
        for _ in range(self.row_count * width):
            length = read_length(body, at)[0]
            at += 4
            if length < 0:
                add(None)
            else:
                add(body[at : at + length])
                at += length
        return list(zip(*[iter(cells)] * width, strict=True))
