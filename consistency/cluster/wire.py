"""What goes to a node and what comes back: a statement with serialized values, a page of undecoded rows."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

ONE = 1
TWO = 2
THREE = 3
LOCAL_ONE = 10
ALL = 5
LOCAL_QUORUM = 6
QUORUM = 4
NODE_LOCAL = 11
"""Consistency level: answer from this node's own storage only (4.0+, a JVM property allows it)."""
OWN = -1
"""Of what a node holds itself (system.local, virtual tables), which any level reads alike: at one that is allowed."""

INT = struct.Struct(">i")
_NOW_FLAG = 0x0100
_WORTH_A_LOOK = 32
"""Rows of a page from which it is looked whether they are all laid out alike."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One request to one node.

    `values` are serialized cells bound in order. `now_s` is the instant (seconds since the epoch) at which
    TTLs are judged. `timeout_s` bounds the wait for the answer. `once` is a text that is hardly met again: it is sent
    with its values and not prepared, which would leave it in the servers' memory.
    """

    cql: str
    values: tuple[bytes | None, ...] = ()
    consistency: int = OWN
    page_size: int = 5000
    paging_state: bytes | None = None
    now_s: int | None = None
    trace: bool = False
    timeout_s: float = 30.0
    once: bool = False


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
        uniform = self._uniform()
        return list(uniform.iter_unpack(self.body)) if uniform else self._walk()

    def _walk(self) -> list[tuple[bytes | None, ...]]:
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

    def _uniform(self) -> struct.Struct | None:
        """Return the layout of a row where all rows have it: then C takes them apart, ten times as fast."""
        widths = self.widths()
        if widths is None or min(widths) < 0:
            return None
        return struct.Struct(">" + "".join(f"4x{width}s" for width in widths))

    def widths(self) -> list[int] | None:
        """Return how many bytes each cell of a row has, -1 for a null, where that is the same in all rows.

        Rows of hashes of a table with keys of fixed size are like that. Every length in front of a cell is looked at.
        """
        if self.row_count < _WORTH_A_LOOK:
            return None
        widths: list[int] = []
        at = 0
        for _ in range(self.column_count):
            widths.append(INT.unpack_from(self.body, at)[0])
            at += 4 + max(widths[-1], 0)
        if at * self.row_count != len(self.body):
            return None
        size, at = at, 0
        for width in widths:
            prefix = self.body[at : at + 4]
            if any(self.body[at + i :: size] != prefix[i : i + 1] * self.row_count for i in range(4)):
                return None
            at += 4 + max(width, 0)
        return widths


class Timed:
    """A QUERY or EXECUTE message with `now_in_seconds` appended, as native protocol v5 lays it out."""

    custom_payload = None

    def __init__(self, message: Any, now: bytes, *, prepared: bool) -> None:
        self._message = message
        self._now = now
        self._prepared = prepared
        self.opcode = message.opcode
        self.tracing = message.tracing

    def send_body(self, f: io.BytesIO, protocol_version: int) -> None:
        """Write the message's own body, with the flag set and the value at its end."""
        plain = io.BytesIO()
        self._message.send_body(plain, protocol_version)
        body = bytearray(plain.getvalue())
        at = self._flags_offset(body)
        flags = struct.unpack_from(">I", body, at)[0]
        struct.pack_into(">I", body, at, flags | _NOW_FLAG)
        f.write(body + self._now)

    def _flags_offset(self, body: bytearray) -> int:
        """Skip the query (or the two ids of a prepared one) and the consistency level."""
        if not self._prepared:
            return 4 + int(INT.unpack_from(body, 0)[0]) + 2
        at = 2 + struct.unpack_from(">H", body, 0)[0]
        at += 2 + struct.unpack_from(">H", body, at)[0]
        return int(at) + 2
