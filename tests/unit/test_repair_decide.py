"""The decision: every rule, their order, and the laws that hold whatever the evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState
from consistency.model.ring import Node, Replication
from consistency.model.schema import Column, Keyspace, Table
from consistency.model.servertime import ServerTime
from consistency.rows import forecast as row_forecasts
from consistency.rows import zombies as zombie_rule
from consistency.rows.cells import Atom, atoms, winners
from consistency.rows.names import RowName
from repair.deciding import decide as decide_rules
from repair.deciding import forecast as forecasts
from repair.deciding.case import Case, Reach, reach
from repair.deciding.copies import copies as copies_of
from repair.deciding.decide import Action, Decision, Rule, can_write_back, decide, zombie_suspects
from repair.deciding.forecast import change, forecast, may_vanish
from repair.deciding.policy import Policy, Require, Zombies
from tests.support.figures import LONG

NOW_US = 1_800_000_000_000_000
GRACE_S = 864_000
YOUNG_US = NOW_US - 3_600_000_000
OLD_US = NOW_US - (GRACE_S + 60) * 1_000_000

NODES = tuple(Node(f"host{i}", f"10.0.0.{i}", 9042, "dc1", "r", (i,), "5.0.8") for i in range(5))


def table(regulars: str = "text", **options: object) -> Table:
    """Return a table with one regular column of a type, or none."""
    columns = [Column("id", "partition_key", 0, parse_type("int", {}))]
    if regulars:
        columns.append(Column("v", "regular", -1, parse_type(regulars, {})))
    return replace(Table("ks", "t", "1", tuple(columns)), **options)  # type: ignore[arg-type]


def cell(value: str | None = "v", at: int | None = YOUNG_US, expires: int | None = None) -> RowState:
    """Return a row of one simple cell."""
    return RowState((Cell(value.encode() if value is not None else None, at if value is not None else None, expires),))


BARE = RowState(())


def evidence(*states: RowState | str | None, of: Table | None = None, capabilities: Capabilities | None = None) -> Case:
    """Return evidence with a copy a replica; a string is why it could not be read."""
    reading = Reading(of or table(), Depth.CONTENT, capabilities or Capabilities())
    owners = NODES[: len(states)]
    pairs = list(zip(owners, states, strict=True))
    return Case(
        reading,
        RowName(7, (b"\0\0\0\1",)),
        owners,
        {node: s for node, s in pairs if not isinstance(s, str)},
        {node: s for node, s in pairs if isinstance(s, str)},
        ServerTime.exactly(NOW_US),
    )


DEFAULT = Policy()
OLD = cell(at=OLD_US)
CASES = [
    ("view", evidence(cell(), None, None, of=table(view_of="base")), DEFAULT, Rule.VIEW, Action.NONE),
    ("one of three", evidence(cell(), "down", "down"), DEFAULT, Rule.TOO_FEW, Action.NONE),
    ("all asked for", evidence(cell(), None, "down"), Policy(require=Require.ALL), Rule.TOO_FEW, Action.NONE),
    ("agreed", evidence(cell(), cell(), cell()), DEFAULT, Rule.AGREED, Action.NONE),
    ("agreed in the future", evidence(*[cell(at=NOW_US * 2)] * 3), DEFAULT, Rule.FUTURE, Action.NONE),
    ("gone", evidence(None, None, None), DEFAULT, Rule.GONE, Action.NONE),
    ("waits", evidence(cell(), cell(), "down"), DEFAULT, Rule.WAITS, Action.NONE),
    ("future", evidence(cell(), cell(at=NOW_US + 10**9), cell()), DEFAULT, Rule.FUTURE, Action.NONE),
    ("settling", evidence(cell(), cell(at=NOW_US - 10**6), cell()), DEFAULT, Rule.SETTLING, Action.NONE),
    ("zombie", evidence(OLD, None, None), DEFAULT, Rule.ZOMBIE, Action.NONE),
    ("zombie purged", evidence(OLD, None, None), Policy(Zombies.PURGE), Rule.ZOMBIE, Action.PURGE),
    ("zombie restored", evidence(OLD, None, None), Policy(Zombies.RESTORE), Rule.ZOMBIE, Action.RECONCILE),
    ("zombie restored, one down", evidence(OLD, None, "down"), Policy(Zombies.RESTORE), Rule.WAITS, Action.NONE),
    ("zombie of two", evidence(OLD, None), DEFAULT, Rule.ZOMBIE, Action.NONE),
    ("zombie, one down", evidence(OLD, None, "down"), DEFAULT, Rule.ZOMBIE, Action.NONE),
    ("zombie cell", evidence(OLD, cell(None), cell(None)), DEFAULT, Rule.ZOMBIE, Action.NONE),
    ("old majority", evidence(OLD, OLD, None), DEFAULT, Rule.LAST_WRITE, Action.RECONCILE),
    ("young minority", evidence(cell(), None, None), DEFAULT, Rule.LAST_WRITE, Action.RECONCILE),
    ("old loser", evidence(OLD, cell(), cell()), DEFAULT, Rule.LAST_WRITE, Action.RECONCILE),
    ("keys only", evidence(BARE, None, None, of=table("")), DEFAULT, Rule.ZOMBIE, Action.NONE),
    ("keys purged", evidence(BARE, None, None, of=table("")), Policy(Zombies.PURGE), Rule.ZOMBIE, Action.NONE),
    ("keys, majority", evidence(BARE, BARE, None, of=table("")), DEFAULT, Rule.LAST_WRITE, Action.RECONCILE),
    ("counter", evidence(cell(), cell("w"), cell(), of=table(is_counter=True)), DEFAULT, Rule.COUNTER,
     Action.RECONCILE),
    ("newer", evidence(cell(), cell("w", YOUNG_US + 1), cell()), DEFAULT, Rule.LAST_WRITE, Action.RECONCILE),
    ("tie", evidence(cell(), cell("w"), cell()), DEFAULT, Rule.TIE, Action.RECONCILE),
    ("expiry", evidence(cell(), cell(expires=2 * 10**9), cell()), DEFAULT, Rule.EXPIRY, Action.RECONCILE),
    ("no read repair", evidence(cell(), None, cell(), of=table(read_repair="NONE")), DEFAULT, Rule.LAST_WRITE,
     Action.WRITE_BACK),
    ("quorum up", evidence(cell(), None, "down"), DEFAULT, Rule.LAST_WRITE, Action.WRITE_BACK),
    ("four of five", evidence(cell(), None, cell(), cell(), "down"), DEFAULT, Rule.LAST_WRITE, Action.WRITE_BACK),
    ("counter out of reach", evidence(cell(), None, cell(), of=table(is_counter=True, read_repair="NONE")), DEFAULT,
     Rule.OUT_OF_REACH, Action.NONE),
    ("another spelling", evidence(cell(), cell(), replace(cell(), spelling=(b"1.00",))), DEFAULT, Rule.SPELLING,
     Action.NONE),
    ("keys out of reach", evidence(BARE, None, BARE, of=table("", read_repair="NONE")), DEFAULT, Rule.OUT_OF_REACH,
     Action.NONE),
    ("expiry unknown", evidence(cell(), None, cell(), of=table(read_repair="NONE"),
     capabilities=Capabilities(timed=False)), DEFAULT, Rule.OUT_OF_REACH, Action.NONE),
]  # fmt: skip


@pytest.mark.parametrize(("held", "policy", "rule", "action"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_situation_has_its_rule_and_action(held: Case, policy: Policy, rule: Rule, action: Action) -> None:
    """Each situation has its rule and its action."""
    decision = decide(held, policy)
    assert (decision.rule, decision.action) == (rule, action)
    assert decision.sentence


def test_a_quorum_is_read_where_a_node_is_down() -> None:
    """With exactly a quorum up, the servers' merge reads that quorum; else all."""
    assert not decide(evidence(cell(), None, "down"), DEFAULT).at_all
    assert decide(evidence(cell(), None, cell()), DEFAULT).at_all


def test_every_rule_but_one_is_reached_by_a_case() -> None:
    """The table above covers the rules; `not-owned` is the planner's, which knows the finding's kind."""
    assert {decide(held, policy).rule for _, held, policy, *_ in CASES} == set(Rule) - {Rule.NOT_OWNED}


def test_masked_and_list_columns_are_never_written_back() -> None:
    """A mask is not the value, and a list's elements cannot be addressed."""
    masked = table(read_repair="NONE")
    masked = replace(masked, columns=(masked.columns[0], replace(masked.columns[1], masked=True)))
    assert decide(evidence(cell(), None, cell(), of=masked), DEFAULT).rule is Rule.OUT_OF_REACH
    one = RowState((Cell(b"\0\0\0\1\0\0\0\1x", (YOUNG_US,)),))
    lists = table("list<text>", read_repair="NONE")
    assert decide(evidence(one, None, one, of=lists), DEFAULT).rule is Rule.OUT_OF_REACH


def test_one_old_element_of_a_map_is_suspect() -> None:
    """A map's elements are judged one by one; the element is what would be purged."""

    def held(*pairs: tuple[bytes, int]) -> RowState:
        parts = b"".join(b"\0\0\0\1" + key + b"\0\0\0\1v" for key, _ in pairs)
        return RowState((Cell(len(pairs).to_bytes(4, "big") + parts, tuple(at for _, at in pairs)),))

    maps = table("map<text, text>")
    found = evidence(held((b"a", OLD_US), (b"b", YOUNG_US)), held((b"b", YOUNG_US)), held((b"b", YOUNG_US)), of=maps)
    assert zombie_suspects(found) == {(0, b"a")}
    assert decide(found, Policy(Zombies.PURGE)).suspects == {(0, b"a")}


times = st.one_of(
    st.integers(OLD_US - 5, OLD_US + 5), st.integers(YOUNG_US - 3, YOUNG_US + 3), st.just(NOW_US), st.just(NOW_US * 2)
)
copies = st.one_of(
    st.none(),
    st.just("down"),
    st.builds(cell, st.one_of(st.none(), st.sampled_from(["a", "b"])), times, st.sampled_from([None, 2 * 10**9])),
)
cases = st.builds(
    lambda states, repair, counter: evidence(*states, of=table(read_repair=repair, is_counter=counter)),
    st.lists(copies, min_size=1, max_size=5),
    st.sampled_from(["BLOCKING", "NONE"]),
    st.booleans(),
)
policies = st.builds(Policy, st.sampled_from(list(Zombies)), st.sampled_from(list(Require)))


@settings(max_examples=2000 if LONG else 400, deadline=None)
@given(cases, policies)
def test_no_decision_breaks_a_law(held: Case, policy: Policy) -> None:
    """Nothing is done without a quorum, on agreement, or in doubt of age; purge only where it was asked for."""
    decision = decide(held, policy)
    acts = decision.action is not Action.NONE
    if len(held.states) < held.quorum or (policy.require is Require.ALL and held.unread):
        assert not acts
    if held.agreed:
        assert not acts
    newest = held.newest_us
    if newest is not None and newest > NOW_US - policy.window_s * 1e6:
        assert not acts
    if zombie_suspects(held) is not None and policy.zombies is Zombies.QUARANTINE:
        assert not acts, "a covered cell could have come back"
    if decision.action is Action.PURGE:
        assert policy.zombies is Zombies.PURGE
        assert decision.suspects <= (zombie_suspects(held) or frozenset())
    if decision.action is Action.WRITE_BACK:
        assert can_write_back(held)
    if decision.action is Action.RECONCILE:
        assert held.table.read_repair == "BLOCKING"
    assert acts or decision.sentence


def wide(value: tuple[str, int] | None, elements: list[tuple[bytes, int]]) -> RowState:
    """Return a row of a simple cell and a map."""
    simple = Cell(None) if value is None else Cell(value[0].encode(), value[1])
    parts = b"".join(b"\0\0\0\1" + key + b"\0\0\0\1v" for key, _ in elements)
    raw = len(elements).to_bytes(4, "big") + parts
    return RowState((simple, Cell(raw, tuple(at for _, at in elements)) if elements else Cell(None)))


WIDE = replace(
    table("map<text, text>"), columns=(*table().columns, Column("m", "regular", -1, parse_type("map<text, text>", {})))
)
wide_copies = st.one_of(
    st.none(),
    st.builds(
        wide,
        st.one_of(st.none(), st.tuples(st.sampled_from(["a", "b"]), times)),
        st.lists(st.tuples(st.sampled_from([b"x", b"y"]), times), max_size=2, unique_by=lambda pair: pair[0]),
    ),
)
wide_cases = st.lists(wide_copies, min_size=2, max_size=4).map(lambda states: evidence(*states, of=WIDE))


@settings(max_examples=4000 if LONG else 600, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(st.tuples(cases, copies.filter(lambda state: state != "down")), st.tuples(wide_cases, wide_copies)),
    policies,
)
def test_what_a_row_shows_at_once_is_what_all_of_its_cells_show(
    story: tuple[Case, RowState | None], policy: Policy
) -> None:
    """Most rows are decided without taking their copies apart: the decision and all that is told are the same."""
    held, after = story
    before = copies_of(held)

    def told() -> object:
        decision = decide(held, policy)
        became = change(held.columns, before, dict.fromkeys(before, after))
        return decision, forecast(held, decision), may_vanish(held, decision), became

    at_once = told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zombie_rule, "_all_young", lambda *_: False)
        patch.setattr(decide_rules, "_has_newer", lambda *_: False)
        patch.setattr(row_forecasts, "_shows_everywhere", lambda *_: False)
        patch.setattr(forecasts, "_are_simple", lambda *_: False)
        assert told() == at_once


@settings(max_examples=1000 if LONG else 200, deadline=None)
@given(cases)
def test_winners_never_lower_a_write_time(held: Case) -> None:
    """The winner of a cell is at least as new as every copy of it, and is one of them."""
    taken = {node: atoms(held.columns, state) for node, state in held.states.items()}
    won = winners(dict(taken.items()))
    for cells in taken.values():
        for name, atom in cells.items():
            assert won[name].rank >= atom.rank
    everything: set[Atom] = {atom for cells in taken.values() for atom in cells.values()}
    assert set(won.values()) <= everything


def test_a_decision_that_acts_is_not_done() -> None:
    """`done` is for agreement alone."""
    assert Decision(Rule.AGREED).done
    assert not Decision(Rule.ZOMBIE).done
    assert Decision(Rule.WAITS).unknown


def test_a_minority_in_one_data_centre_is_a_suspect() -> None:
    """A delete at LOCAL_QUORUM may have reached one data centre alone, and be purged: four of six do not outvote it."""
    nodes = tuple(
        replace(n, host_id=f"h{i}", address=f"10.1.0.{i}", dc=f"dc{1 + i // 3}")
        for i, n in enumerate(NODES + NODES[:1])
    )
    states: dict[Node, RowState | None] = dict(zip(nodes, [OLD, None, None, OLD, OLD, OLD], strict=True))
    held = replace(evidence(OLD, None, None), owners=nodes, states=states)
    assert decide(held, DEFAULT).rule is Rule.ZOMBIE
    purged = decide(held, Policy(Zombies.PURGE))
    assert (purged.rule, purged.action) == (Rule.ZOMBIE, Action.NONE), "most replicas hold it: not ours to delete"


def test_nothing_is_purged_while_a_replica_is_unread() -> None:
    """The one that cannot be read may hold it too: a minority is not known to be one."""
    decided = decide(evidence(OLD, None, "down"), Policy(Zombies.PURGE))
    assert (decided.rule, decided.action) == (Rule.ZOMBIE, Action.NONE)


ONE, ONE_HUNDREDTHS = b"\0\0\0\1\x0a", b"\0\0\0\2\x64"
"""The decimals 1.0 and 1.00."""


@pytest.mark.parametrize("zombies", list(Zombies))
@pytest.mark.parametrize("at", [OLD_US, YOUNG_US])
def test_what_cassandra_takes_for_one_is_left_alone(zombies: Zombies, at: int) -> None:
    """A map's key or a set's element in other bytes looks lost and is not: neither merged, written nor purged."""

    def holding(*elements: bytes, pairs: bool) -> RowState:
        parts = [part for element in elements for part in ((element, b"\0\0\0\1") if pairs else (element,))]
        raw = len(elements).to_bytes(4, "big") + b"".join(len(p).to_bytes(4, "big") + p for p in parts)
        return RowState((Cell(raw, (at,) * len(elements)),))

    for regulars in ("map<decimal, int>", "set<decimal>"):
        for read_repair in ("BLOCKING", "NONE"):
            of, pairs = table(regulars, read_repair=read_repair), regulars.startswith("map")
            one, other = holding(ONE, pairs=pairs), holding(ONE_HUNDREDTHS, pairs=pairs)
            decision = decide(evidence(one, one, other, of=of), Policy(zombies))
            assert (decision.rule, decision.action) == (Rule.SPELLING, Action.NONE)
            more = holding(ONE, b"\0\0\0\0\2", pairs=pairs)
            assert decide(evidence(more, more, one, of=of), Policy(zombies)).rule is not Rule.SPELLING


@pytest.mark.parametrize("zombies", list(Zombies))
def test_a_row_whose_key_is_spelled_otherwise_is_left_alone(zombies: Zombies) -> None:
    """Also where a minority holds it and it is old: it is no zombie, for the others hold it too."""
    held = cell(at=OLD_US)
    decision = decide(evidence(held, held, replace(held, spelling=(b"\0\0\0\1", b"1.00"))), Policy(zombies))
    assert (decision.rule, decision.action) == (Rule.SPELLING, Action.NONE)


FIVE = Reach("keyspace ks needs 5 replicas of each row")


@pytest.mark.parametrize(
    ("found", "policy", "rule", "action"),
    [
        (evidence(cell("w"), None, None), DEFAULT, Rule.LAST_WRITE, Action.WRITE_BACK),
        (evidence(None, cell(None), cell(None)), DEFAULT, Rule.OUT_OF_REACH, Action.NONE),
        (evidence(OLD, None, None), Policy(Zombies.RESTORE), Rule.ZOMBIE, Action.NONE),
        (evidence(OLD, None, None), Policy(Zombies.PURGE), Rule.ZOMBIE, Action.PURGE),
    ],
)
def test_what_the_servers_cannot_merge_is_written_to_each_replica(
    found: Case, policy: Policy, rule: Rule, action: Action
) -> None:
    """More replicas asked for than exist: cells are written back node by node, nothing is asked of all at once."""
    assert decide(found, policy).action is not Action.WRITE_BACK
    made = decide(replace(found, reach=FIVE), policy)
    assert (made.rule, made.action) == (rule, action)
    assert action is not Action.NONE or FIVE.not_at_all in made.sentence
    assert not made.at_all or action is Action.NONE
    traced = decide(replace(found, reach=FIVE, alone=False), policy)
    assert traced.action is Action.NONE
    assert FIVE.not_at_all in traced.sentence


@pytest.mark.parametrize(
    ("factors", "exist", "said"),
    [
        ((("dc1", 3),), 3, ""),
        ((("dc1", 3), ("dc2", 3)), 6, ""),
        ((("dc1", 5),), 3, "needs 5 replicas of each row (dc1 5), 3 nodes exist"),
        ((("dc1", 3), ("gone", 2)), 3, "needs 5 replicas of each row (dc1 3, gone 2), 3 nodes exist"),
        ((("", 4),), 3, "needs 4 replicas of each row, 3 nodes exist"),
    ],
)
def test_replicas_that_do_not_exist_are_counted(factors: tuple[tuple[str, int], ...], exist: int, said: str) -> None:
    """A coordinator counts what the options ask for, also in a data center without a node; the way out is named."""
    found = reach(Keyspace("ks", Replication("NetworkTopologyStrategy", factors), {}), exist).not_at_all
    assert said in found
    assert bool(said) == ("lower its replication factor" in found)
