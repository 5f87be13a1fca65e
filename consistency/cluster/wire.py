"""What goes to a node and what comes back: a statement with serialized values, a page of undecoded rows."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

ONE = 1
TWO = 2
THREE = 3
LOCAL_ONE = 10
ALL = 5
LOCAL_QUORUM = 6
QUORUM = 4
EACH_QUORUM = 7
NODE_LOCAL = 11
"""Consistency level: answer from this node's own storage only (4.0+, a JVM property allows it)."""
OWN = -1
"""Of what a node holds itself (system.local, virtual tables), which any level reads alike: at one that is allowed."""

INT = struct.Struct(">i")
_NOW_FLAG = 0x0100
_UDT, _TUPLE = 0x30, 0x31
_TEXTS = {0x00: 1, _UDT: 2}
"""The texts that the description of a type begins with: a class of the server's own; keyspace and name of a UDT."""
_OF = {0x20: 1, 0x21: 2, 0x22: 1}
"""Of how many types a list, a map and a set are."""
_LAYOUTS = 8
"""In so many ways the last rows may be laid out that the next one is compared with."""
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


class _Layout(NamedTuple):
    """How a row is laid out: what unpacks lengths and cells by turns, and what picks the cells of these, then None."""

    size: int
    widths: tuple[int, ...]
    unpack: Callable[[bytes, int], tuple[Any, ...]]
    cells: Callable[[tuple[Any, ...]], tuple[bytes | None, ...]]

    @classmethod
    def of(cls, widths: Sequence[int]) -> _Layout:
        """Return the layout of rows whose cells have so many bytes, -1 for a null."""
        row = struct.Struct(">" + "".join(f"i{max(width, 0)}s" for width in widths))
        places = [-1 if width < 0 else 2 * number + 1 for number, width in enumerate(widths)]
        cells = itemgetter(*places) if len(places) > 1 else lambda parts: (parts[places[0]],)
        return cls(row.size, tuple(widths), row.unpack_from, cells)


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
        return list(uniform.iter_unpack(self.body)) if uniform else self._by_layouts()

    def _by_layouts(self) -> list[tuple[bytes | None, ...]]:
        """Take rows apart that are laid out in a few ways: C does that, once it is known which way is a row's.

        Where too many rows are laid out in ways of their own, the others are walked through.
        """
        body, end = self.body, len(self.body)
        layouts: list[_Layout] = []
        rows: list[tuple[bytes | None, ...]] = []
        at = misses = 0
        for done in range(self.row_count):
            for layout in layouts:
                if at + layout.size <= end:
                    parts = layout.unpack(body, at)
                    if parts[::2] == layout.widths:
                        rows.append(layout.cells((*parts, None)))
                        at += layout.size
                        break
            else:
                misses += 1
                if self.row_count < _WORTH_A_LOOK or misses > _LAYOUTS + done // 4:
                    return rows + self._walk(at, self.row_count - done)
                widths = self._widths_at(at)
                layouts = [_Layout.of(widths), *layouts[: _LAYOUTS - 1]]
                rows += self._walk(at, 1)
                at += layouts[0].size
        return rows

    def _walk(self, at: int, rows: int) -> list[tuple[bytes | None, ...]]:
        """Take so many rows apart cell by cell, from a place in the body."""
        body, width = self.body, self.column_count
        cells: list[bytes | None] = []
        add = cells.append
        read_length = INT.unpack_from
        for _ in range(rows * width):
            length = read_length(body, at)[0]
            at += 4
            if length < 0:
                add(None)
            else:
                add(body[at : at + length])
                at += length
        return list(zip(*[iter(cells)] * width, strict=True))

    def _widths_at(self, at: int) -> list[int]:
        """Return how many bytes each cell of the row at a place in the body has, -1 for a null."""
        widths: list[int] = []
        for _ in range(self.column_count):
            widths.append(INT.unpack_from(self.body, at)[0])
            at += 4 + max(widths[-1], 0)
        return widths

    def _uniform(self) -> struct.Struct | None:
        """Return the layout of a row where all rows have it: then C takes them apart, ten times as fast."""
        widths = self.widths()
        if widths is None or min(widths) < 0:
            return None
        return struct.Struct(">" + "".join(f"4x{width}s" for width in widths))

    def widths(self) -> list[int] | None:
        """Return how many bytes each cell of a row has, -1 for a null, if that is the same in all rows.

        Rows of hashes of a table with keys of fixed size are like that. Every length in front of a cell is looked at.
        """
        if self.row_count < _WORTH_A_LOOK:
            return None
        widths = self._widths_at(0)
        at = sum(4 + max(width, 0) for width in widths)
        if at * self.row_count != len(self.body):
            return None
        size, at = at, 0
        for width in widths:
            if (np.ndarray((self.row_count,), ">i4", self.body, at, (size,)) != width).any():
                return None
            at += 4 + max(width, 0)
        return widths


def past_type(f: io.BytesIO) -> None:
    """Read over the type of a column as a server describes it; of a class of the server's own there is a text."""
    kind = _short(f)
    for _ in range(_TEXTS.get(kind, 0)):
        f.seek(_short(f), io.SEEK_CUR)
    for _ in range(_short(f) if kind in (_UDT, _TUPLE) else _OF.get(kind, 0)):
        if kind == _UDT:
            f.seek(_short(f), io.SEEK_CUR)
        past_type(f)


def _short(f: io.BytesIO) -> int:
    return int.from_bytes(f.read(2), "big")


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
