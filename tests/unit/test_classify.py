"""Every kind of damage is named by its gravest fact, and what each replica holds is told without values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState
from consistency.model.ring import Node
from consistency.model.servertime import ServerTime
from consistency.results.findings import Finding, State
from consistency.results.forecast import Forecast
from consistency.results.kinds import Kind
from consistency.rows.classify import finding, judge_row
from consistency.rows.evidence import Evidence
from consistency.rows.names import RowName
from tests.simulation.scenario import make_nodes
from tests.simulation.values import int_bytes, make_table

NODES = make_nodes(("dc1",) * 5)
GRACE_S = 864_000
TABLE = make_table("t", ("int",), ("int",), ("int",), ("int", "map<text, int>"), gc_grace_seconds=GRACE_S)
READING = Reading(TABLE, Depth.CONTENT, Capabilities())
NOW_US = 1_700_000_000_000_000
FRESH, OLD = NOW_US - 60_000_000, NOW_US - (GRACE_S + 60) * 1_000_000
FUTURE = NOW_US + 61_000_000
NOTHING = Cell(None)


def state(ts: int = FRESH, value: bytes = b"SECRET", expires: int | None = None, other: Cell = NOTHING) -> RowState:
    """Make a row with v0 and, if given, v1."""
    return RowState((Cell(value, ts, expires), other))


def states(*held: RowState | None) -> dict[Node, RowState | None]:
    """Give the states to as many nodes."""
    return dict(zip(NODES, held, strict=False))


def facts(*held: RowState | None) -> tuple[Kind, ...]:
    """Judge a row."""
    return judge_row(seen(states(*held))).facts


def seen(
    held: dict[Node, RowState | None], unread: dict[Node, str] | None = None, name: RowName | None = None
) -> Evidence:
    """Return what the nodes hold of a row."""
    name = name or RowName(7, (int_bytes(1), int_bytes(-2)))
    return Evidence(READING, name, (*held, *(unread or {})), held, unread or {}, ServerTime.exactly(NOW_US))


X = state()
MAP = Cell(b"m", (5, 6), (None, 9))


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ((X, X, None), (Kind.MISSING,)),
        ((state(FRESH + 1), X, X), (Kind.STALE,)),
        ((state(value=b"a"), state(value=b"b"), X), (Kind.TIE,)),
        ((state(expires=100), state(expires=200), state(expires=100)), (Kind.EXPIRY,)),
        ((state(OLD), None, None), (Kind.ZOMBIE_SUSPECT, Kind.MISSING)),
        ((state(FUTURE), X, X), (Kind.FUTURE_WRITE_TIME, Kind.STALE)),
        ((state(FUTURE), None, None), (Kind.FUTURE_WRITE_TIME, Kind.MISSING)),
        ((state(FUTURE),) * 3, (Kind.FUTURE_WRITE_TIME,)),
        ((state(FRESH + 1, other=MAP), X, None), (Kind.MISSING, Kind.STALE)),
        ((state(other=Cell(b"m", (5, 6))), state(other=Cell(b"m", (5,))), X), (Kind.STALE,)),
    ],
)
def test_each_kind_is_told_the_gravest_first(held: tuple[RowState | None, ...], wanted: tuple[Kind, ...]) -> None:
    """Future, zombie, missing, stale, tie, expiry: all that apply, in this order."""
    assert facts(*held) == wanted


@pytest.mark.parametrize(
    ("held", "zombie"),
    [
        ((state(OLD), None, None), True),
        ((state(OLD), state(OLD), None), False),
        ((state(OLD), None), True),
        ((state(OLD), state(OLD), None, None, None), True),
        ((state(OLD), state(OLD), state(OLD), None, None), False),
        ((state(FRESH), None, None), False),
        ((state(OLD), state(FRESH), None, None, None), False),
        ((state(OLD, other=Cell(b"m", (FRESH,))), None, None), False),
        ((RowState((NOTHING, NOTHING)), None, None), False),
    ],
)
def test_a_zombie_needs_no_majority_and_age(held: tuple[RowState | None, ...], zombie: bool) -> None:
    """Held by half at most, every write older than gc_grace_seconds; an unknown age is no age."""
    assert (Kind.ZOMBIE_SUSPECT in facts(*held)) is zombie


CELLS = st.just(NOTHING) | st.builds(Cell, st.sampled_from([b"a", b"b"]), st.sampled_from([OLD, FRESH, FUTURE]))
ROWS = st.none() | st.builds(lambda one, two: RowState((one, two)), CELLS, CELLS)


@given(st.lists(ROWS, min_size=2, max_size=5).filter(any))
def test_a_row_that_differs_has_a_kind_and_one_that_does_not_is_not_called_different(
    held: list[RowState | None],
) -> None:
    """Whatever the replicas hold: at least one fact where they differ, whichever node holds which."""
    found = facts(*held)
    assert found == facts(*reversed(held))
    if len(set(held)) > 1:
        assert found
    else:
        assert set(found) <= {Kind.FUTURE_WRITE_TIME}


def reported(held: dict[Node, RowState | None], unread: dict[Node, str] | None = None) -> Finding:
    """Build the finding of a row."""
    evidence = seen(held, unread)
    return finding(evidence, judge_row(evidence))


def test_a_finding_names_the_row_and_what_each_replica_holds() -> None:
    """Key, differing columns, a state a replica, write times; the one that was not read is named too."""
    held = states(state(FRESH + 1, other=MAP), state(other=MAP), None)
    found = reported(held, {NODES[3]: "down"})
    assert (dict(found.key), found.token, found.columns) == ({"p0": 1, "c0": -2}, 7, ("v0", "v1"))
    assert found.key_hex == {"p0": "00000001", "c0": "fffffffe"}
    views = list(found.replicas.values())
    assert [v.state for v in views] == [State.CURRENT, State.STALE, State.MISSING, State.UNREADABLE]
    assert views[0].writetimes == {"v0": FRESH + 1, "v1": [5, 6]}


@pytest.mark.parametrize(
    ("held", "forecast"),
    [
        ((X, X, None), Forecast.UNKNOWN),
        ((state(FRESH + 1), X, X), Forecast.UPDATE),
        ((state(other=MAP), X, X), Forecast.UPDATE),
        ((RowState((NOTHING, MAP)), X, X), Forecast.UNKNOWN),
        ((state(FUTURE),) * 3, None),
    ],
)
def test_a_finding_says_whether_the_row_may_vanish(
    held: tuple[RowState | None, ...], forecast: Forecast | None
) -> None:
    """A row stays if every replica shows one of its cells; what no file said before is not known."""
    evidence = seen(states(*held))
    found = finding(evidence, judge_row(evidence))
    assert found.forecast is forecast
    assert Finding.from_json(json.loads(json.dumps(found.as_json()))).forecast is forecast
    earlier = {name: value for name, value in found.as_json().items() if name != "forecast"}
    assert Finding.from_json(earlier).forecast is None


def test_a_finding_never_holds_a_value() -> None:
    """The file may be mailed around: keys and times, nothing of what the cells say."""
    text = json.dumps(reported(states(X, state(FRESH + 1), None)).as_json())
    assert "SECRET" not in text
    assert b"SECRET".hex() not in text


def test_a_static_finding_names_the_partition_alone() -> None:
    """Its key has no clustering column, its columns are the static ones."""
    held = {NODES[0]: RowState((Cell(b"1", 5),)), NODES[1]: RowState((Cell(b"1", 6),))}
    evidence = seen(held, name=RowName(7, (int_bytes(1),), static=True))
    found = finding(evidence, judge_row(evidence))
    assert (dict(found.key), found.columns, found.kind) == ({"p0": 1}, ("s0",), Kind.STALE)
