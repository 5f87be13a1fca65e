"""The findings of a page as compact JSON: each name occurs once and is referred to by its index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from consistency.cli.show.page.collect import Numbered
from consistency.cli.show.terminal.problems import key_text
from consistency.model.cqltext import visible
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.recency import newest_of, newest_time, recencies

_EXACT = 2**53
"""A larger number is not exact in a browser, so it is sent as text."""
_STATES = tuple(State)
_KINDS = tuple(Kind)


class _Names:
    """Gives every name an index, and keeps it in displayable form."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, name: str) -> int:
        return self._places.setdefault(name, len(self._places))

    def shown(self) -> list[str]:
        return [visible(name) for name in self._places]


def payload(rows: Iterable[Numbered], *, keys: bool) -> dict[str, Any]:
    """Return what the page's script reads; without `keys` no part of a key is in it."""
    tables, replicas, columns = _Names(), _Names(), _Names()
    packed = [
        {
            "n": row.number,
            "k": _KINDS.index(row.finding.kind),
            "f": [_KINDS.index(fact) for fact in row.finding.facts if fact is not row.finding.kind],
            "t": tables.place(f"{row.finding.keyspace}.{row.finding.table}"),
            "o": str(row.finding.token),
            **({"y": key_text(row.finding.key)} if keys else {}),
            "w": _number(newest_of(row.finding)),
            "c": [columns.place(name) for name in row.finding.columns],
            "r": [_replica(row.finding, name, view, replicas, columns) for name, view in row.finding.replicas.items()],
        }
        for row in rows
    ]
    return {
        "kinds": [{"word": k.value, "label": k.value.replace("_", " "), "sentence": k.sentence} for k in _KINDS],
        "states": [state.value for state in _STATES],
        "tables": tables.shown(),
        "replicas": replicas.shown(),
        "columns": columns.shown(),
        "rows": packed,
    }


def _replica(finding: Finding, name: str, view: ReplicaView, replicas: _Names, columns: _Names) -> list[Any]:
    """Return `[replica, state, [[column, newest, cells, mark], ...]]`."""
    cells = [
        [
            columns.place(column),
            _number(newest_time(times)),
            len(times) if isinstance(times, list) else 1,
            recency.value,
        ]
        for column, times, recency in recencies(finding, view)
    ]
    return [replicas.place(name), _STATES.index(view.state), cells]


def _number(value: int | None) -> int | str | None:
    return value if value is None or abs(value) < _EXACT else str(value)


def script_safe(data: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside a script element: nothing in it ends the element or a line."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
