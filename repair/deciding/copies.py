"""The copies of a row by host id: as a journal keeps them, and as a plan tells changed ones from unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from consistency.model.reading import Cell, RowState, Times
from consistency.rows.evidence import Evidence

_in_short = json.JSONEncoder(separators=(",", ":")).encode
Copies = Mapping[str, RowState | None]
"""Each replica's copy by host id."""


def copies(evidence: Evidence) -> Copies:
    """Return each replica's copy by host id."""
    return {node.host_id: state for node, state in evidence.states.items()}


def left_by_time(before: Copies, now: Copies, now_s: int) -> Copies:
    """Return earlier copies without what has expired by now; one that had nothing else, and is gone, is none."""
    return {host: _unexpired(state, now_s, gone=now.get(host) is None) for host, state in before.items()}


def _unexpired(state: RowState | None, now_s: int, *, gone: bool) -> RowState | None:
    if state is None or not any(_has_expired(cell, now_s) for cell in state.cells):
        return state
    cells = tuple(Cell(None) if _has_expired(cell, now_s) else cell for cell in state.cells)
    return None if gone and all(cell.value is None for cell in cells) else replace(state, cells=cells)


def _has_expired(cell: Cell, now_s: int) -> bool:
    """Whether all there was of a cell, or of a collection, has expired."""
    ends = cell.expires if isinstance(cell.expires, tuple) else (cell.expires,)
    return cell.value is not None and bool(ends) and all(end is not None and end <= now_s for end in ends)


def digests(held: Copies, salt: str) -> dict[str, str]:
    """Return a keyed digest of each copy: tells changed from unchanged, holds no value."""
    return {host_id: state_digest(state, salt) for host_id, state in held.items()}


def state_digest(state: RowState | None, salt: str) -> str:
    """Digest one copy."""
    text = _in_short(state_json(state))
    return hashlib.blake2b(text.encode(), key=salt.encode(), digest_size=16).hexdigest()


def state_json(state: RowState | None) -> list[Any] | None:
    """Return one copy as JSON: values in hex, write times, expiries."""
    if state is None:
        return None
    return [[None if c.value is None else c.value.hex(), _list(c.writetimes), _list(c.expires)] for c in state.cells]


def state_from_json(data: list[Any] | None) -> RowState | None:
    """Read what `state_json` wrote."""
    if data is None:
        return None
    return RowState(tuple(Cell(None if v is None else bytes.fromhex(v), _times(w), _times(e)) for v, w, e in data))


def copies_json(held: Copies) -> dict[str, Any]:
    """Return copies as JSON; one that an earlier replica holds as well is named by that replica's host id."""
    first: dict[RowState, str] = {}
    out: dict[str, Any] = {}
    for host, state in held.items():
        same = None if state is None else first.setdefault(state, host)
        out[host] = state_json(state) if same in (None, host) else same
    return out


def copies_from_json(data: Mapping[str, Any]) -> Copies:
    """Read what `copies_json` wrote."""
    found: dict[str, RowState | None] = {}
    for host, state in data.items():
        found[str(host)] = found[state] if isinstance(state, str) else state_from_json(state)
    return found


def _list(times: Times) -> Any:
    return list(times) if isinstance(times, tuple) else times


def _times(data: Any) -> Times:
    return tuple(data) if isinstance(data, list) else data
