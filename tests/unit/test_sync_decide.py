"""What a sync decides of one row: which cells are written, which stay, what is deleted, and what is left and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consistency.comparing.terms import Compare, Terms
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState
from consistency.model.ring import Node
from consistency.model.schema import Column
from consistency.model.servertime import ServerTime
from consistency.model.sides import Side
from consistency.rows.evidence import Evidence
from consistency.rows.names import RowName
from repair.deciding.case import Case
from repair.sync.cases import PairCase
from repair.sync.decide import Action, Decision, Rule, decide
from repair.sync.policy import Direction, Extra, Level, SyncPolicy
from tests.simulation.values import int_bytes, make_table, sized

PLAIN = make_table("t", ("int",), ("int",), (), ("int", "int"))
TABLE = replace(
    PLAIN,
    columns=(
        *PLAIN.columns,
        Column("m", "regular", -1, parse_type("map<int, int>", {})),
        Column("n", "regular", -1, parse_type("list<int>", {})),
    ),
)
NOW_S = 1_000_000
NONE = Cell(None)
OLD = 10_000_000
KEEP = SyncPolicy()
DELETE = SyncPolicy(extra=Extra.DELETE)
VALUES = SyncPolicy(terms=Terms(Compare.VALUES))
OLDER = Capabilities(hashes=False, collection_times=False)


def cell(value: int | None, time: int = OLD, expires: int | None = None) -> Cell:
    """Return a simple cell."""
    return NONE if value is None else Cell(int_bytes(value), time, expires)


def row(one: Cell = NONE, two: Cell = NONE, m: Cell = NONE, n: Cell = NONE) -> RowState:
    """Return a copy of a row."""
    return RowState((one, two, m, n))


def mapped(times: tuple[int, ...] | None, **entries: int) -> Cell:
    """Return a map's cell: by key `k1` the value; without write times where the servers tell none."""
    raw = b"".join(sized([int_bytes(int(k[1:])), int_bytes(v)])[4:] for k, v in entries.items())
    return Cell(int_bytes(len(entries)) + raw, times, None)


def nodes(count: int) -> list[Node]:
    """Return nodes."""
    return [Node(f"h{i}", f"10.0.0.{i}", 9042, "dc1", "r", (i,), "5.0.8") for i in range(count)]


def case(
    giver: Sequence[RowState | None],
    taker: Sequence[RowState | None],
    *,
    owners: int = 0,
    able: tuple[Capabilities, Capabilities] = (Capabilities(), Capabilities()),
    table: object = TABLE,
) -> PairCase:
    """Return the evidence of a row; of `owners` replicas of either side the others were not read."""
    name = RowName(1, (int_bytes(1), int_bytes(2)))
    when = ServerTime.exactly(NOW_S * 1_000_000)
    both = []
    for kind, states, can in ((Evidence, giver, able[0]), (Case, taker, able[1])):
        known = nodes(max(owners, len(states)))
        held = dict(zip(known, states, strict=False))
        unread = {node: "down" for node in known if node not in held}
        both.append(kind(Reading(table, Depth.CONTENT, can), name, tuple(known), held, unread, when))  # type: ignore[arg-type]
    return PairCase(both[0], both[1], Direction.TO_TARGET)  # type: ignore[arg-type]


def decided(
    giver: Sequence[RowState | None],
    taker: Sequence[RowState | None],
    policy: SyncPolicy = KEEP,
    **more: object,
) -> Decision:
    """Decide a row."""
    return decide(case(giver, taker, **more), policy)  # type: ignore[arg-type]


A, B = row(cell(1), cell(2)), row(cell(1, OLD + 5), cell(2))
LISTED = row(cell(1), n=Cell(sized([int_bytes(4)]), (OLD,)))


@pytest.mark.parametrize(
    ("giver", "taker", "policy", "rule", "action"),
    [
        ([A], [A], SyncPolicy(), Rule.SAME, Action.NONE),
        ([A], [None], SyncPolicy(), Rule.MISSING, Action.WRITE),
        ([A], [row(cell(1))], SyncPolicy(), Rule.OLDER, Action.WRITE),
        ([B], [A], SyncPolicy(), Rule.OLDER, Action.WRITE),
        ([B], [A], VALUES, Rule.SAME, Action.NONE),
        ([B], [A], SyncPolicy(terms=Terms(tolerated_us=9)), Rule.SAME, Action.NONE),
        ([A], [B], SyncPolicy(), Rule.NEWER, Action.NONE),
        ([A], [row(cell(9, OLD + 1), cell(2))], VALUES, Rule.NEWER, Action.NONE),
        ([A], [row(cell(9), cell(2))], VALUES, Rule.NEWER, Action.NONE),
        ([None], [A], SyncPolicy(), Rule.EXTRA_ROW, Action.NONE),
        ([None], [A], DELETE, Rule.EXTRA_ROW, Action.DELETE),
        ([row(cell(1))], [A], SyncPolicy(), Rule.EXTRA_CELLS, Action.NONE),
        ([row(cell(1))], [A], DELETE, Rule.EXTRA_CELLS, Action.DELETE),
        ([row(cell(3, OLD + 9))], [A], DELETE, Rule.OLDER, Action.BOTH),
        ([row()], [A], DELETE, Rule.BARE, Action.NONE),
        ([row()], [None], SyncPolicy(), Rule.BARE, Action.NONE),
        ([None], [row()], DELETE, Rule.EXTRA_ROW, Action.NONE),
        ([LISTED], [None], SyncPolicy(), Rule.WHOLE, Action.NONE),
        ([LISTED], [row(n=LISTED.cells[3])], SyncPolicy(), Rule.OLDER, Action.WRITE),
        ([None], [LISTED], DELETE, Rule.EXTRA_ROW, Action.DELETE),
        ([row(cell(1, NOW_S * 1_000_000 - 5))], [None], SyncPolicy(), Rule.SETTLING, Action.NONE),
        ([row(cell(1, (NOW_S + 900) * 1_000_000))], [None], SyncPolicy(), Rule.FUTURE, Action.NONE),
        ([row(cell(1, OLD, NOW_S + 1))], [None], SyncPolicy(), Rule.SETTLING, Action.NONE),
        ([A, B], [None], SyncPolicy(), Rule.MISSING, Action.WRITE),
        ([A, None], [None], SyncPolicy(), Rule.DISAGREES, Action.NONE),
        ([A, row(cell(1))], [None], SyncPolicy(), Rule.DISAGREES, Action.NONE),
        ([row(), None], [None], SyncPolicy(), Rule.DISAGREES, Action.NONE),
        ([A], [A, None], SyncPolicy(), Rule.DISAGREES, Action.NONE),
        ([B], [A, None], SyncPolicy(), Rule.OLDER, Action.WRITE),
        ([A], [B, None], SyncPolicy(), Rule.NEWER, Action.NONE),
    ],
)  # fmt: skip
def test_each_row_is_decided_by_one_rule(
    giver: list[RowState | None], taker: list[RowState | None], policy: SyncPolicy, rule: Rule, action: Action
) -> None:
    """What is the same needs nothing, what is newer stays, and nothing is written that CQL cannot write as it is."""
    found = decided(giver, taker, policy)
    assert (found.rule, found.action) == (rule, action), found.sentence


def test_cells_keep_their_write_times_and_newer_ones_stay() -> None:
    """Of two cells that differ one is written as the giver has it, the other is named and stays."""
    found = decided([row(cell(1, 50, NOW_S + 900), cell(2, 5))], [row(cell(7, 20), cell(8, 6))])
    assert [(a.value, a.writetime, a.expires) for a in found.write.values()] == [(int_bytes(1), 50, NOW_S + 900)]
    assert found.left == ("v1 of the target: newer, stays",)
    assert "newer, stays" in found.sentence


def test_deletes_carry_the_time_of_what_they_delete() -> None:
    """A row goes at its own newest write time, a cell at its own: what is written later stays."""
    assert decided([None], [row(cell(1, 7), cell(2, 9))], DELETE).delete_row_us == 9
    found = decided([row(cell(1))], [row(cell(1), cell(2, 9))], DELETE)
    assert [atom.writetime for atom in found.delete.values()] == [9]
    assert found.delete_row_us is None


@pytest.mark.parametrize(
    ("giver", "taker", "owners", "why"),
    [
        ([None, None], [A, A], 3, "not every replica of the source"),
        ([None, None, None], [A, A], 3, "not every replica of the target"),
    ],
)
def test_nothing_is_deleted_on_half_a_word(
    giver: list[RowState | None], taker: list[RowState | None], owners: int, why: str
) -> None:
    """A replica that is not read may hold the row."""
    found = decided(giver, taker, DELETE, owners=owners)
    assert found.action is Action.NONE
    assert why in found.sentence


def test_fewer_than_a_quorum_decide_nothing() -> None:
    """On either side; and what agrees waits for the replicas that are not read."""
    assert decided([A], [None, None, None], owners=3).rule is Rule.TOO_FEW
    assert decided([A, A, A], [None], owners=3).rule is Rule.TOO_FEW
    assert decided([A, A], [A, A], owners=3).rule is Rule.WAITS
    assert decided([A, A], [None, None], owners=3).rule is Rule.MISSING


def test_elements_go_by_themselves() -> None:
    """Of a map only the elements that differ are written, each with its own time."""
    mine, theirs = row(m=mapped((5, 6), k1=1, k2=2)), row(m=mapped((5, 4, 3), k1=1, k2=9, k3=3))
    found = decided([mine], [theirs])
    assert [(path, atom.writetime) for (_, path), atom in found.write.items()] == [(int_bytes(2), 6)]
    assert found.left == ("only the target holds m: --extra keep",)


def test_servers_that_tell_no_times_of_elements() -> None:
    """What the giver cannot tell is left; what the taker cannot tell is written: the servers know which is newer."""
    mine, theirs = row(m=mapped(None, k1=1)), row(m=mapped(None, k1=2))
    assert decided([mine], [theirs], able=(OLDER, OLDER)).rule is Rule.TIMELESS
    assert decided([mine], [mine], able=(OLDER, OLDER)).rule is Rule.SAME
    timed = row(m=mapped((5,), k1=1))
    assert decided([timed], [mine], able=(Capabilities(), OLDER)).rule is Rule.SAME
    assert decided([timed], [theirs], able=(Capabilities(), OLDER)).action is Action.WRITE
    assert decided([None], [theirs], DELETE, able=(OLDER, OLDER)).action is Action.NONE
    known = decided([theirs], [timed], able=(OLDER, Capabilities()))
    assert known.rule is Rule.TIMELESS, "nobody knows that what is there is newer"
    untimed = Capabilities(timed=False)
    assert decided([A], [None], able=(untimed, Capabilities())).rule is Rule.TIMELESS


def test_what_is_masked_or_spelled_otherwise_is_left() -> None:
    """Nobody knows the value behind a mask, and no write changes how a key is spelled."""
    masked = replace(case([A], [None]), masked=Side.TARGET)
    assert decide(masked, SyncPolicy()).rule is Rule.MASKED
    spelled = RowState(A.cells, (b"1", b"2"))
    assert decided([spelled], [row(cell(1))]).rule is Rule.SPELLING


def test_counters_are_reported_and_not_written() -> None:
    """Two clusters share none of their times."""
    table = replace(
        PLAIN, columns=(*PLAIN.primary_key, Column("n", "regular", -1, parse_type("counter", {}))), is_counter=True
    )
    one, two = RowState((Cell(int_bytes(1), 5),)), RowState((Cell(int_bytes(2), 9),))
    assert decided([one], [two], table=table).rule is Rule.COUNTER
    assert decided([one], [RowState((Cell(int_bytes(1), 77),))], table=table).rule is Rule.SAME


def test_each_level_has_its_number_and_each_rule_its_sentence() -> None:
    """They are those of the native protocol."""
    assert [level.code for level in Level] == [6, 4, 7, 5]
    assert all(rule.sentence for rule in Rule)
    assert all(action.sentence for action in Action)
    assert SyncPolicy.from_json(DELETE.as_json()) == DELETE
