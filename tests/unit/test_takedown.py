"""Preflight: whether a node may go down, by live replicas, moves, schema and what the ledger knows."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consistency.auditing.preflight import Answer, Facts, Known, Preflight, find_node, judge
from consistency.auditing.preflight_facts import PreflightOptions, known_differences, run_preflight
from consistency.cli import main
from consistency.errors import UsageError
from consistency.ledger import Behind, open_ledger
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace
from consistency.results.verdict import ExitCode
from tests.simulation.scenario import Scenario, make_nodes, row
from tests.simulation.values import int_bytes

ONE_DC = make_nodes(("dc1",) * 3)
TWO_DCS = make_nodes(("dc1", "dc2") * 3)
NOTHING = Known(note="")
"""A ledger that knows of no row that differs."""


def space(name: str = "ks", strategy: str = "NetworkTopologyStrategy", **factors: int) -> Keyspace:
    """Return a keyspace, RF 3 in dc1 where nothing else is said."""
    return Keyspace(name, Replication(strategy, tuple(sorted((factors or {"dc1": 3}).items()))), {})


def facts(
    *keyspaces: Keyspace,
    nodes: tuple[Node, ...] = ONE_DC,
    down: tuple[int, ...] = (),
    silent: tuple[int, ...] = (),
    alive: bool | None = None,
    **changes: Any,
) -> Facts:
    """Return a cluster where all is well, but for the nodes of these numbers; `silent` ones do not answer us."""
    every = tuple(
        replace(n, up=i not in {*down, *silent}, alive=alive if i in silent else False, broadcast=f"{n.address}:7000")
        for i, n in enumerate(nodes, 1)
    )
    live = [n for n in every if n.up]
    well = Facts(
        ring=Ring("test", MURMUR3, every),
        schema={k.name: k for k in keyspaces or (space(),)},
        versions=dict.fromkeys(live, "v"),
        gossip={n.broadcast: "NORMAL" for n in every},
        hints=dict.fromkeys(live, True),
        logins=False,
    )
    return replace(well, **changes)


def ask(given: Facts, number: int = 1, known: Known = NOTHING, **options: Any) -> Preflight:
    """Ask for the node of this number."""
    return judge(given, given.ring.nodes[number - 1], known, **options)


def test_three_replicas_all_up_may_lose_one() -> None:
    """Two of three are a quorum: yes, without a note."""
    for number in (1, 2, 3):
        answer = ask(facts(), number)
        assert (answer.answer, answer.exit_code, answer.reasons) == (Answer.YES, ExitCode.CONSISTENT, ())
        assert answer.line == "every range keeps a quorum without it, in 1 keyspace"


def test_with_one_down_already_no_other_may_go() -> None:
    """One of three is none; the line says where, how many and who is down."""
    answer = ask(facts(down=(3,)), 1)
    assert (answer.answer, answer.exit_code) == (Answer.NO, ExitCode.DIVERGENT)
    assert answer.line == (
        "ks: QUORUM would be lost for 100.0% of the ring: 1 of 3 replicas live, 2 needed; down already: 10.0.0.3:9042"
    )


def test_a_node_that_the_others_count_on_is_a_live_one() -> None:
    """Our port to it is closed: a note, and no obstacle; nor is it down already itself."""
    given = facts(silent=(3,), alive=True)
    for number in (1, 3):
        answer = ask(given, number)
        assert answer.answer is Answer.YES
        assert [(r.kind, r.detail) for r in answer.reasons] == [
            ("unreachable", "10.0.0.3:9042 does not answer us; the other nodes take it for alive")
        ]


def test_where_it_is_not_known_whether_a_node_lives_nor_is_the_answer() -> None:
    """Neither no (it may be alive) nor yes (it may be down); where quorums hold without it, yes with a note."""
    answer = ask(facts(silent=(3,)), 1)
    assert (answer.answer, answer.exit_code) == (Answer.UNKNOWN, ExitCode.INCOMPLETE)
    assert answer.line == (
        "ks: whether QUORUM would be kept for 100.0% of the ring is not known: 1 of 3 replicas live, 2 needed;"
        " whether alive is not known: 10.0.0.3:9042"
    )
    assert {r.kind for r in ask(facts(silent=(3,)), 3).reasons} == {"unreachable"}
    five = facts(space(dc1=5), nodes=make_nodes(("dc1",) * 5), silent=(3,))
    assert ask(five, 1).answer is Answer.YES
    both = ask(facts(space(dc1=5), nodes=make_nodes(("dc1",) * 5), down=(2, 4), silent=(3,)), 1)
    assert (both.answer, "down already: 10.0.0.2:9042, 10.0.0.4:9042" in both.line) == (Answer.NO, True)


def test_the_node_that_is_down_already_may_stay_down() -> None:
    """Nothing is lost by it; a note says so."""
    answer = ask(facts(down=(3,)), 3)
    assert answer.answer is Answer.YES
    assert [r.kind for r in answer.reasons] == ["down_already"]


@pytest.mark.parametrize(
    ("rf", "nodes", "allowed"), [(1, 3, False), (2, 3, False), (3, 2, False), (3, 4, True), (5, 5, True)]
)
def test_how_many_replicas_it_takes(rf: int, nodes: int, allowed: bool) -> None:
    """RF 1 and 2 allow none to go, nor does RF 3 on two nodes."""
    answer = ask(facts(space(dc1=rf), nodes=make_nodes(("dc1",) * nodes)))
    assert (answer.answer is Answer.YES) == allowed


def test_simple_strategy_is_judged_over_the_whole_cluster() -> None:
    """It knows no data centres."""
    simple = Keyspace("s", Replication("SimpleStrategy", (("", 3),)), {})
    assert ask(facts(simple, nodes=TWO_DCS)).answer is Answer.YES
    assert ask(facts(simple, nodes=TWO_DCS, down=(2,)), 1).answer is Answer.NO


def test_ranges_of_others_do_not_matter() -> None:
    """RF 3 of six: two nodes that share no range may both be down."""
    nodes = make_nodes(("dc1",) * 6)
    one_rack = tuple(replace(n, rack="r") for n in nodes)
    far = facts(nodes=one_rack, down=(4,))
    held = {
        n
        for arc in far.ring.arcs(far.schema["ks"].replication)
        if far.ring.nodes[3] in arc.replicas
        for n in arc.replicas
    }
    for number, node in enumerate(far.ring.nodes, 1):
        if number != 4:
            assert (ask(far, number).answer is Answer.NO) == (node in held)


def test_a_quorum_of_the_own_dc_is_asked_for_too() -> None:
    """dc1 keeps four of six, and LOCAL_QUORUM in dc2 is lost all the same."""
    both = space(dc1=3, dc2=3)
    assert ask(facts(both, nodes=TWO_DCS), 2).answer is Answer.YES
    answer = ask(facts(both, nodes=TWO_DCS, down=(4,)), 2)
    assert answer.answer is Answer.NO
    assert "LOCAL_QUORUM would be lost" in answer.line
    assert "1 of 3 replicas live, 2 needed; down already: 10.0.0.4:9042" in answer.line
    assert ask(facts(both, nodes=TWO_DCS, down=(4,)), 1).answer is Answer.YES


def test_a_quorum_over_all_dcs_is_asked_for_too() -> None:
    """Three of six are up in dc1: LOCAL_QUORUM holds there without one, QUORUM does not."""
    answer = ask(facts(space(dc1=3, dc2=3), nodes=TWO_DCS, down=(2, 4, 6)), 1)
    assert answer.answer is Answer.NO
    assert [r.detail.split()[1] for r in answer.against] == ["QUORUM"]


def test_it_agrees_with_counting_replicas_token_by_token() -> None:
    """Any one or two of five nodes down, RF 1 to 5: no exactly where some range of the node falls below a quorum."""
    for rf in range(1, 6):
        for down in [(), *combinations(range(1, 6), 1), *combinations(range(1, 6), 2)]:
            given = facts(space(dc1=rf), nodes=make_nodes(("dc1",) * 5), down=down)
            for number, node in enumerate(given.ring.nodes, 1):
                lost = any(
                    sum(n.up and n != node for n in arc.replicas) < rf // 2 + 1
                    for arc in given.ring.arcs(given.schema["ks"].replication)
                    if node in arc.replicas
                )
                assert (ask(given, number).answer is Answer.NO) == lost


@pytest.mark.parametrize("state", ["BOOT", "JOINING", "LEAVING", "MOVING", "REMOVING", "BOOT_REPLACE"])
def test_while_ranges_change_hands_nobody_goes_down(state: str) -> None:
    """Also where gossip alone knows of the node: one that joins is in no table of peers yet."""
    answer = ask(facts(gossip={"10.0.0.1:7000": "NORMAL", "10.0.0.9:7000": state}))
    assert answer.answer is Answer.NO
    assert answer.line.startswith("10.0.0.9:7000 is ")
    given = facts()
    nodes = (given.ring.nodes[0], replace(given.ring.nodes[1], state=state), given.ring.nodes[2])
    inside = replace(given, ring=replace(given.ring, nodes=nodes), gossip={"10.0.0.2:7000": state})
    assert ask(inside).line.startswith("10.0.0.2:9042 is ")


def test_a_node_that_has_left_is_nobodys_trouble() -> None:
    """Gossip remembers it for days."""
    assert ask(facts(gossip={"10.0.0.9:7000": "LEFT", "10.0.0.8:7000": "removed"})).answer is Answer.YES


def test_what_the_servers_do_not_show_is_unknown_until_somebody_vouches_for_it() -> None:
    """Before 5.0 nobody sees over CQL who joins; --assume-settled says that it was looked up."""
    answer = ask(facts(gossip=None))
    assert (answer.answer, answer.exit_code) == (Answer.UNKNOWN, ExitCode.INCOMPLETE)
    assert "--assume-settled" in answer.line
    assert ask(facts(gossip=None), settled=True).answer is Answer.YES
    assert ask(facts(gossip={"10.0.0.9:7000": "UNKNOWN"})).answer is Answer.UNKNOWN


def test_a_schema_that_is_not_agreed_on_is_a_no_and_one_unread_is_unknown() -> None:
    """No beats unknown."""
    given = facts()
    one, two, three = given.ring.nodes
    assert ask(replace(given, versions={one: "a", two: "b", three: "a"})).answer is Answer.NO
    assert ask(replace(given, versions={one: "a", two: None, three: "a"})).answer is Answer.UNKNOWN
    assert ask(replace(given, versions={one: "a", two: None, three: "b"})).answer is Answer.NO


def test_hints_that_are_off_are_a_note() -> None:
    """The node may go down, and lacks what is written meanwhile; its own hints do not matter."""
    given = facts()
    one, two, three = given.ring.nodes
    answer = ask(replace(given, hints={one: None, two: False, three: None}))
    assert answer.answer is Answer.YES
    assert [(r.kind, two.name in r.detail) for r in answer.reasons] == [("hints_off", True), ("hints_not_known", False)]


def test_which_keyspaces_are_judged() -> None:
    """Users' own; system_auth where there are logins; those named where some are; never local ones."""
    auth, traces = space("system_auth", dc1=1), space("system_traces", dc1=2)
    local = Keyspace("loc", Replication("LocalStrategy", ()), {})
    given = facts(space(), auth, traces, local)
    assert ask(given).answer is Answer.YES
    assert ask(replace(given, logins=True)).line.startswith("system_auth: QUORUM would be lost")
    assert ask(replace(given, logins=True), keyspaces=["ks"]).keyspaces == ("ks",)
    assert ask(given, keyspaces=["system_traces"]).answer is Answer.NO
    with pytest.raises(UsageError, match="no keyspace 'nosuch'"):
        ask(given, keyspaces=["nosuch"])


def test_a_placement_that_is_not_known_here_is_unknown() -> None:
    """A strategy of somebody's own, and transient replicas."""
    odd = Keyspace("odd", Replication("EverywhereStrategy", ()), {})
    transient = Keyspace("tr", Replication("NetworkTopologyStrategy", (("dc1", 3),), ("dc1",)), {})
    assert ask(facts(odd)).answer is Answer.UNKNOWN
    assert ask(facts(transient)).answer is Answer.UNKNOWN


def behind(*numbers: int, keyspace: str = "ks") -> Behind:
    """Return a row on which these nodes are behind."""
    return Behind(keyspace, "t", 5, frozenset(ONE_DC[n - 1].host_id for n in numbers))


def test_a_row_whose_current_copy_is_here_alone_keeps_the_node_up() -> None:
    """The other two would answer a quorum read without it; where one of them has it, they do not."""
    assert ask(facts(), 1, Known([behind(2, 3)], "")).answer is Answer.NO
    assert "1 row is current here but not on enough" in ask(facts(), 1, Known([behind(2, 3)], "")).line
    for number in (2, 3):
        assert ask(facts(), number, Known([behind(2, 3)], "")).answer is Answer.YES
    answer = ask(facts(), 1, Known([behind(3), behind(3)], ""))
    assert (answer.answer, [r.kind for r in answer.reasons]) == (Answer.YES, ["divergence_known"])
    assert "2 rows are not current on some other replica" in answer.reasons[0].detail
    assert ask(facts(), 1, Known([behind(2, 3, keyspace="dropped")], "")).answer is Answer.YES
    assert ask(facts(), 1, Known([behind(1, 2, 3)], "")).answer is Answer.YES, "nothing is lost that is not here"


def test_what_the_ledger_cannot_tell_is_a_note() -> None:
    """No ledger is no obstacle."""
    answer = ask(facts(), 1, Known())
    assert (answer.answer, [r.kind for r in answer.reasons]) == (Answer.YES, ["divergence_not_known"])


def test_a_ledger_of_a_real_check_keeps_the_node_up_until_the_row_is_whole(tmp_path: Path) -> None:
    """From the check that found it to the check that no longer does."""
    ring = Ring("simulated", MURMUR3, ONE_DC)

    def check(damaged: bool) -> Known:
        scenario = Scenario()
        if damaged:
            scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
        with open_ledger(tmp_path / "l") as ledger:
            scenario.check(recorder=ledger.recorder())
        return known_differences(tmp_path / "l", ring)

    assert ask(facts(), 1, check(True)).answer is Answer.NO
    assert ask(facts(), 1, check(False)).answer is Answer.YES
    assert known_differences(tmp_path / "missing", ring).note.startswith("there is no ledger")
    stranger = replace(ring, nodes=tuple(replace(n, host_id=f"x{n.host_id}") for n in ring.nodes))
    assert "nothing of this cluster" in known_differences(tmp_path / "l", stranger).note


def test_a_node_is_found_by_any_of_its_names() -> None:
    """Name, address, host id in any case, the address between nodes; never by half a name."""
    ring = facts().ring
    for text in ("10.0.0.2:9042", "10.0.0.2", "host-2", "HOST-2", "10.0.0.2:7000"):
        assert find_node(ring, text) == ring.nodes[1]
    for text in ("10.0.0", "", "host-22"):
        with pytest.raises(UsageError, match="no node of test"):
            find_node(ring, text)
    shared = replace(ring, nodes=tuple(replace(n, address="h", port=n.port + i) for i, n in enumerate(ring.nodes)))
    with pytest.raises(UsageError, match="h names 3 nodes; name one by its port"):
        find_node(shared, "h")
    assert find_node(shared, "h:9043") == shared.nodes[1]


# Waiting, and the command.


def scripted(*answers: Facts) -> Callable[[], Any]:
    """Return what looks at a cluster that changes; the last state stays."""
    left = list(answers)

    async def look() -> Facts:
        return left.pop(0) if len(left) > 1 else left[0]

    return look


def test_it_waits_until_the_answer_is_yes() -> None:
    """A node comes back: one no, then yes; where it does not come back the last no is returned in time."""
    told: list[Preflight] = []
    patient = PreflightOptions(wait_s=30, every_s=0.01)
    look = scripted(facts(down=(3,)), facts(down=(3,)), facts())
    answer = asyncio.run(run_preflight(look, "10.0.0.1", patient, told.append))
    assert (answer.answer, [t.answer for t in told]) == (Answer.YES, [Answer.NO] * 2)
    hasty = PreflightOptions(wait_s=0.05, every_s=0.01)
    assert asyncio.run(run_preflight(scripted(facts(down=(3,))), "10.0.0.1", hasty)).answer is Answer.NO


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return what types the command against a cluster."""
    for name in [n for n in os.environ if n.startswith("CONSISTENCY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(given: Facts, *words: str) -> Result:
        @asynccontextmanager
        async def opened(*_: Any) -> AsyncIterator[Any]:
            yield scripted(given)

        monkeypatch.setattr("consistency.auditing.preflight_facts.open_look", opened)
        return CliRunner().invoke(main, ["preflight", *words])

    return run


@pytest.mark.parametrize(
    ("given", "code", "begins"),
    [
        (facts(), 0, "YES  10.0.0.1:9042: every range keeps a quorum without it"),
        (facts(down=(2,)), 1, "NO  10.0.0.1:9042: ks: QUORUM would be lost for 100.0% of the ring"),
        (facts(gossip=None), 3, "UNKNOWN  10.0.0.1:9042: whether a node joins"),
    ],
)
def test_the_command_answers_in_its_first_line(
    typed: Callable[..., Result], tmp_path: Path, given: Facts, code: int, begins: str
) -> None:
    """Exit code, text and JSON say the same; details come after."""
    result = typed(given, "10.0.0.1", "--json", str(tmp_path / "p.json"))
    assert result.exit_code == code, result.output
    assert result.stdout.splitlines()[0].startswith(begins)
    assert "give --ledger" in result.stdout
    data = json.loads((tmp_path / "p.json").read_text())
    assert (data["schema"], data["exit_code"], data["node"]) == (1, code, "10.0.0.1:9042")
    assert data["answer"] == result.stdout.split()[0].lower()
    assert data["reasons"]


def test_options_reach_the_judgement(typed: Callable[..., Result], tmp_path: Path) -> None:
    """A keyspace, what is taken as given, a ledger that is not there, a name that is none."""
    assert typed(facts(gossip=None), "host-1", "--assume-settled").exit_code == 0
    assert typed(facts(space(), space("one", dc1=1)), "host-1").exit_code == 1
    assert typed(facts(space(), space("one", dc1=1)), "host-1", "--keyspace", "ks").exit_code == 0
    assert "there is no ledger" in typed(facts(), "host-1", "--ledger", str(tmp_path / "no")).stdout
    missing = typed(facts(), "nosuch")
    assert (missing.exit_code, len(missing.stderr.splitlines())) == (2, 1)
    waited = typed(facts(down=(2,)), "host-1", "--wait", "0.01")
    assert (waited.exit_code, waited.stderr.count("waiting: ks: QUORUM")) == (1, 1)


def test_the_library_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from consistency import preflight`."""
    from consistency import preflight  # noqa: PLC0415

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Any]:
        yield scripted(facts(down=(2,)))

    monkeypatch.setattr("consistency.api.open_look", opened)
    answer = preflight("10.0.0.1", hosts="10.0.0.1")
    assert (answer.answer, answer.exit_code) == (Answer.NO, 1)
