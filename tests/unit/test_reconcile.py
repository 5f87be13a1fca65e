"""Cassandra's rule for cells, and what a difference seen twice may be taken for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consistency.model.reading import Cell, RowState
from consistency.rows.reconcile import EMPTY, DecidedBy, Persistence, contest, persistence

CELLS = st.just(EMPTY) | st.builds(
    Cell, st.binary(min_size=1, max_size=2), st.integers(1, 4), st.none() | st.integers(100, 101)
)


def row(*cells: Cell) -> RowState:
    """Make a row of cells."""
    return RowState(cells)


OLD, NEW = Cell(b"old", 1), Cell(b"new", 2)


@given(st.lists(CELLS, min_size=1, max_size=5))
def test_the_winner_does_not_depend_on_who_holds_it(cells: list[Cell]) -> None:
    """Reconciling is commutative and idempotent, and never picks an older write time."""
    forwards = contest(dict(enumerate(cells)))
    backwards = contest(dict(enumerate(reversed(cells))))
    assert forwards.winner == backwards.winner
    assert contest({0: forwards.winner, **{i + 1: c for i, c in enumerate(cells)}}).winner == forwards.winner
    assert all((c.writetimes or 0) <= (forwards.winner.writetimes or 0) for c in cells)  # type: ignore[operator]
    assert (forwards.decided_by is DecidedBy.SAME) == (len(set(cells)) == 1)


def test_each_rule_decides_what_it_should() -> None:
    """Newer write time, then expiry, then the greater value."""
    assert contest({1: OLD, 2: NEW}) == contest({2: NEW, 1: OLD})
    assert contest({1: OLD, 2: NEW}).decided_by is DecidedBy.NEWER
    assert contest({1: Cell(b"a", 1), 2: Cell(b"b", 1)}).winner.value == b"b"
    assert contest({1: Cell(b"a", 1), 2: Cell(b"b", 1)}).decided_by is DecidedBy.TIE
    assert contest({1: Cell(b"a", 1, 50), 2: Cell(b"a", 1)}).winner.expires == 50
    assert contest({1: Cell(b"a", 1, 50), 2: Cell(b"a", 1, 60)}).decided_by is DecidedBy.EXPIRY


def test_an_older_cell_that_stays_behind_is_a_difference() -> None:
    """The newer version was kept, and the other replica still holds the older one: it did not arrive."""
    before = after = {1: row(NEW), 2: row(OLD), 3: row(NEW)}
    assert persistence(before, after) is Persistence.PRESENT


def test_a_write_that_arrives_meanwhile_is_none() -> None:
    """What was in flight at the first look has arrived at the second."""
    assert persistence({1: row(NEW), 2: row(OLD)}, {1: row(NEW), 2: row(NEW)}) is Persistence.NONE
    assert persistence({1: row(NEW), 2: None}, {1: row(NEW), 2: row(NEW)}) is Persistence.NONE


def test_what_is_absent_twice_may_be_a_delete_in_flight() -> None:
    """A row or cell that is simply not there asks for one more look."""
    assert persistence({1: row(NEW), 2: None}, {1: row(NEW), 2: None}) is Persistence.ABSENT
    assert persistence({1: row(NEW), 2: row(EMPTY)}, {1: row(NEW), 2: row(EMPTY)}) is Persistence.ABSENT


def test_a_row_written_again_and_again_is_judged_by_what_it_kept() -> None:
    """A hot cell beside a stale one does not hide the stale one, and alone is never taken for a difference."""
    hot = [Cell(b"h", 10 + i) for i in range(4)]
    stale = {1: row(hot[1], NEW), 2: row(hot[0], OLD)}, {1: row(hot[3], NEW), 2: row(hot[2], OLD)}
    assert persistence(*stale) is Persistence.PRESENT
    moving = {1: row(hot[1]), 2: row(hot[0])}, {1: row(hot[3]), 2: row(hot[2])}
    assert persistence(*moving) is Persistence.NONE


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8, unique=True), st.data())
def test_writes_that_all_arrive_within_the_window_never_persist(times: list[int], data: st.DataObject) -> None:
    """Any order of deliveries: what one replica kept from the first look has reached the others by the second."""
    writes = sorted(times)
    first = {r: data.draw(st.integers(0, len(writes))) for r in range(3)}
    # By the second look everything that any replica had at the first has arrived everywhere.
    floor = max(first.values())
    second = {r: data.draw(st.integers(floor, len(writes))) for r in range(3)}

    def state(count: int) -> RowState | None:
        return row(Cell(b"v", writes[count - 1])) if count else None

    before = {r: state(n) for r, n in first.items()}
    after = {r: state(n) for r, n in second.items()}
    assert persistence(before, after) is Persistence.NONE
