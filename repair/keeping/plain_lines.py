"""Plain rows in a line of a journal: the bytes that the servers sent, by column, packed as one piece.

A piece holds, one after another: the token of each row (8 bytes); by which replica's copy each replica's is told (a
signed byte: its own place, that of an earlier replica with the same copy, or -1 if it has no such row); the length
of each cell (4 bytes, -1 for a null); the cells, first the key of each row, then each copy that is kept, by replica.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import eq
from typing import Any

import numpy as np

from consistency.cluster.wire import INT
from consistency.model.layout import RowLayout
from consistency.model.reading import Cell, RawRow, RowState
from consistency.model.row_arrays import NO_TIME
from repair.deciding.copies import Copies
from repair.deciding.plain_rows import PlainRows

_LEVEL = 1
_ABSENT = -1


def packed(plain: PlainRows, layout: RowLayout, hosts: Sequence[str], now_s: int) -> dict[str, Any]:
    """Return plain rows as JSON; `now_s` is the instant that their TTLs count from."""
    replicas = list(zip(*plain.copies, strict=True)) if plain.copies else [()] * len(hosts)
    told = np.full((len(hosts), len(plain)), _ABSENT, np.int8)
    cells: list[RawRow] = list(plain.keys)
    for place, held in enumerate(replicas):
        told[place] = [_ABSENT if raw is None else place for raw in held]
        for earlier in reversed(range(place)):
            same = np.fromiter(map(eq, held, replicas[earlier]), np.bool_, len(held))
            told[place, same] = told[earlier, same]
        kept = (told[place] == place).tolist()
        cells += [raw[layout.regulars] for raw, keep in zip(held, kept, strict=True) if raw is not None and keep]
    flat = list(chain.from_iterable(cells))
    lengths = np.array([-1 if cell is None else len(cell) for cell in flat], ">i4")
    parts = (plain.tokens.astype(">i8"), told, lengths)
    raw = b"".join([*(part.tobytes() for part in parts), *filter(None, flat)])
    return {
        "count": len(plain),
        "hosts": list(hosts),
        "now": now_s,
        "key": layout.key.stop - layout.key.start,
        "cells": layout.regulars.stop - layout.regulars.start,
        "rows": base64.b64encode(zlib.compress(raw, _LEVEL)).decode(),
    }


def unpacked(data: Mapping[str, Any]) -> Iterator[tuple[int, list[str], Copies]]:
    """Yield the token, key in hex and copies of each row; KeyError, ValueError or zlib.error if it is damaged."""
    raw = zlib.decompress(base64.b64decode(data["rows"], validate=True))
    count, hosts, now_s = int(data["count"]), [str(host) for host in data["hosts"]], int(data["now"])
    tokens = np.frombuffer(raw, ">i8", count)
    at = 8 * count
    told = np.frombuffer(raw, np.int8, count * len(hosts), at).reshape(len(hosts), count)
    if told.min(initial=_ABSENT) < _ABSENT or told.max(initial=_ABSENT) >= len(hosts):
        raise ValueError(hosts)
    at += told.size
    kept = [(told[place] == place) for place in range(len(hosts))]
    width, cells = int(data["key"]), int(data["cells"])
    lengths = np.frombuffer(raw, ">i4", count * width + cells * int(sum(each.sum() for each in kept)), at).tolist()
    reader = _Cells(raw, at + 4 * len(lengths), lengths)
    keys = [[(cell or b"").hex() for cell in reader.next(width)] for _ in range(count)]
    states: list[dict[int, RowState]] = []
    for place in range(len(hosts)):
        numbers = np.flatnonzero(kept[place]).tolist()
        states.append({number: _state(reader.next(cells), now_s) for number in numbers})
    for number, (token, key) in enumerate(zip(tokens.tolist(), keys, strict=True)):
        by = told[:, number].tolist()
        yield token, key, {h: None if p == _ABSENT else states[p][number] for h, p in zip(hosts, by, strict=True)}


class _Cells:
    """Takes cells one after another from where they begin in a piece."""

    def __init__(self, raw: bytes, at: int, lengths: Sequence[int]) -> None:
        self._raw = raw
        self._at = at
        self._lengths = iter(lengths)

    def next(self, count: int) -> list[bytes | None]:
        """Return the next cells; ValueError if there are no more."""
        found: list[bytes | None] = []
        for _ in range(count):
            length = next(self._lengths)
            found.append(None if length < 0 else self._raw[self._at : self._at + length])
            self._at += max(length, 0)
        if self._at > len(self._raw):
            raise ValueError(self._at)
        return found


def _state(cells: Sequence[bytes | None], now_s: int) -> RowState:
    triples = zip(*[iter(cells)] * 3, strict=True)
    return RowState(tuple(Cell(value, _number(time), _expiry(ttl, now_s)) for value, time, ttl in triples))


def _number(raw: bytes | None) -> int | None:
    return None if raw is None else int.from_bytes(raw, "big", signed=True)


def _expiry(ttl: bytes | None, now_s: int) -> int | None:
    return None if ttl is None else now_s + int(INT.unpack(ttl)[0])


def as_merged(before: Copies) -> Copies:
    """Return what every replica holds of a plain row that was merged as foreseen: each column's newest cell."""
    columns = zip(*(state.cells for state in before.values() if state is not None), strict=True)
    after = RowState(tuple(max(cells, key=_age) for cells in columns))
    return dict.fromkeys(before, after)


def _age(cell: Cell) -> int:
    return cell.writetimes if isinstance(cell.writetimes, int) else NO_TIME
