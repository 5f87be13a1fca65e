"""Clocks that are wrong, and the one instant by which each decision is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from consistency.auditing.rules import KINDS, judge_replication
from consistency.checking import claiming
from consistency.checking.claiming import claim
from consistency.checking.settle import Settled, Unsettled
from consistency.checking.settle_window import DEFAULT_WINDOW_S, settle_window, settled_how
from consistency.cluster.clock import SystemClock
from consistency.cluster.server_clocks import longest_write_s, read_clocks, reading_of, seconds
from consistency.errors import ReplicaRefused
from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState
from consistency.model.ring import Node
from consistency.model.servertime import ClockReading, ServerTime, astray, skew_sentence
from consistency.results.findings import Finding
from consistency.results.kinds import Kind
from consistency.results.report import Severity
from consistency.results.verdict import Verdict
from consistency.rows.classify import judge_row
from consistency.rows.names import RowName
from repair.deciding.case import Case
from repair.deciding.decide import Rule, decide
from repair.deciding.policy import Policy
from tests.simulation.histories import EPOCH_US
from tests.simulation.scenario import ROWS, Scenario, make_nodes, row
from tests.simulation.storage import token_of
from tests.simulation.values import int_bytes
from tests.simulation.vclock import SimClock
from tests.unit.test_audit import ONE_DC, make_ring

S = 1_000_000
KEY = (int_bytes(1), int_bytes(1))
NAME = RowName(token_of(KEY[:1]), KEY)
NODES = make_nodes(("dc1", "dc1", "dc1"))
READING = Reading(ROWS, Depth.CONTENT, Capabilities())


def state(at_us: int, value: int = 1) -> RowState:
    """Return a row of one int and one text, both written then."""
    return RowState((Cell(int_bytes(value), at_us), Cell(b"text", at_us)))


# From the look to the finding.


@pytest.mark.parametrize("tenths", range(20))
def test_a_row_near_the_limit_is_judged_by_one_instant(tenths: int) -> None:
    """Rows whose write time stops being in the future in the middle of the check: a finding or nothing, no crash."""
    scenario = Scenario()
    scenario.fill()
    for p in range(8):
        for c in range(5):
            ahead_us = 60 * S + tenths * 2_000 + (p * 5 + c) * 500
            scenario.apply(row(p, c, EPOCH_US + ahead_us, v0=int_bytes(c), v1=b"text"))
    report = scenario.check()
    assert {found.kind for found in scenario.findings} <= {Kind.FUTURE_WRITE_TIME}
    assert report.verdict is (Verdict.DIVERGENT if scenario.findings else Verdict.CONSISTENT)


def test_what_was_looked_at_then_is_judged_by_then() -> None:
    """The instant travels with the outcome: no later one decides about it."""
    held = {node: state(EPOCH_US + 70 * S) for node in NODES}
    then, later = ServerTime.exactly(EPOCH_US), ServerTime.exactly(EPOCH_US + 20 * S)
    found = claim(Settled(READING, NAME, NODES, held, {}, then), 60.0)
    assert isinstance(found, Finding)
    assert found.kind is Kind.FUTURE_WRITE_TIME
    assert claim(Settled(READING, NAME, NODES, held, {}, later), 60.0) is None


def test_a_difference_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule applies to copies that differ: never a finding without a kind, never consistent."""
    monkeypatch.setattr(claiming, "judge_row", lambda *_, **__: type("J", (), {"facts": ()}))
    one, two, *_ = NODES
    held = {one: state(1), two: state(2)}
    outcome = claim(Settled(READING, NAME, (one, two), held, {}, ServerTime.exactly(EPOCH_US)), 60.0)
    assert isinstance(outcome, Unsettled)


# Which clock is safe for what.


def facts(held: Mapping[Node, RowState | None], when: ServerTime) -> tuple[Kind, ...]:
    """Judge a row that all its replicas were asked for."""
    return judge_row(Case(READING, NAME, tuple(held), held, {}, when)).facts


NOW_US = EPOCH_US
APART = ServerTime(NOW_US - 3_600 * S, NOW_US)
"""One server is right, one an hour behind."""


def test_no_write_is_in_the_future_of_which_a_server_says_that_it_is_past() -> None:
    """A server whose clock is ahead stamps what it stamps."""
    assert facts({n: state(NOW_US + 50 * S) for n in NODES}, APART) == ()
    ahead = ServerTime(NOW_US, NOW_US + 3_600 * S)
    assert facts({n: state(NOW_US + 3_600 * S) for n in NODES}, ahead) == ()
    far = {n: state(NOW_US + 3_661 * S) for n in NODES}
    assert facts(far, ahead) == (Kind.FUTURE_WRITE_TIME,)


@pytest.mark.parametrize(("age_s", "suspect"), [(864_000 - 7_201, False), (864_000 - 7_199, True), (864_001, True)])
def test_what_may_be_past_gc_grace_by_any_clock_is_a_zombie_suspect(age_s: int, *, suspect: bool) -> None:
    """The slowest clock may have stamped the delete, the fastest purges it: the hour between them counts twice."""
    when = ServerTime(NOW_US, NOW_US + 3_600 * S)
    one, two, three = NODES
    held = {one: state(NOW_US - age_s * S), two: None, three: None}
    assert (Kind.ZOMBIE_SUSPECT in facts(held, when)) is suspect
    decided = decide(Case(READING, NAME, (one, two, three), held, {}, when), Policy())
    assert (decided.rule is Rule.ZOMBIE) is suspect


def test_a_write_that_the_slowest_clock_may_have_stamped_is_young() -> None:
    """It may be on its way, so repair leaves it alone."""
    one, two, three = NODES
    held = {one: state(NOW_US - 1_800 * S), two: None, three: state(NOW_US - 1_800 * S)}
    for when, rule in ((APART, Rule.SETTLING), (ServerTime.exactly(NOW_US), Rule.LAST_WRITE)):
        assert decide(Case(READING, NAME, (one, two, three), held, {}, when), Policy()).rule is rule


# Reading the servers' clocks.


class Servers:
    """A connection on which each server answers what it is told to."""

    def __init__(self, ahead_s: Mapping[Any, float | None], settings: Mapping[Any, Mapping[str, str] | None]) -> None:
        self.ahead_s, self.settings = ahead_s, settings

    async def select(self, node: Any, cql: str, **_: object) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        told = self.settings.get(node) if "settings" in cql else self.ahead_s.get(node)
        if told is None:
            msg = f"{node}: unauthorized"
            raise ReplicaRefused(msg)
        if isinstance(told, Mapping):
            return [{"name": name, "value": value} for name, value in told.items()]
        return [{"ms": int((time.time() + told) * 1000)}]


def test_each_server_is_read_and_the_bounds_hold_all_of_them() -> None:
    """One that does not answer has no reading; the others' are within what their answers took."""
    one, two, three = make_ring(ONE_DC).nodes
    readings = asyncio.run(read_clocks(Servers({one: 0.0, two: 5.0}, {}), (one, two, three)))  # type: ignore[arg-type]
    assert [reading.node for reading in readings] == [one, two]
    now = SystemClock(readings).server_time()
    true_us = time.time_ns() // 1000
    assert true_us - 100_000 < now.earliest_us <= true_us
    assert true_us + 5 * S <= now.latest_us < true_us + 5 * S + 100_000
    assert "10.0.0.2:9042 is 5.0 s ahead" in skew_sentence(readings)


def test_this_machines_own_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong by hours when the servers are asked, set right in the middle: the time stays the servers'."""
    node = make_ring(ONE_DC).nodes[0]
    true = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true() - 5 * 3_600 * 10**9)
    (reading,) = asyncio.run(read_clocks(Servers({node: 0.0}, {}), (node,)))  # type: ignore[arg-type]
    clock = SystemClock([reading])
    assert abs(clock.now_us() - true() // 1000) < S
    monkeypatch.setattr(time, "time_ns", true)
    assert abs(clock.now_us() - true() // 1000) < S


def test_without_any_server_this_machine_is_believed() -> None:
    """There is nothing else to go by."""
    now = SystemClock().server_time()
    assert now.earliest_us == now.latest_us
    assert abs(now.latest_us - time.time_ns() // 1000) < S


def test_a_reading_is_as_sure_as_its_answer_was_quick() -> None:
    """The server's clock was read somewhere between question and answer, and tells whole milliseconds."""
    node = make_ring(ONE_DC).nodes[0]
    least, most = reading_of(node, 1_000, 5_000, 7_000).bounds
    assert least <= 1_000_000 - 7_000
    assert most >= 1_000_999 - 5_000


def readings(*offsets_s: float, unsure_s: float = 0.0) -> list[ClockReading]:
    """Return what servers 1, 2 and so on were read to show."""
    nodes = make_ring({"dc1": ["r1"] * len(offsets_s)}).nodes
    return [ClockReading(n, int(s * S), int(unsure_s * S)) for n, s in zip(nodes, offsets_s, strict=True)]


@pytest.mark.parametrize(
    ("offsets_s", "unsure_s", "named"),
    [
        ((0.0, 0.0, 2.9), 0.0, {}),
        ((0.0, 0.0, 3.1), 0.0, {"10.0.0.3:9042": 3.1}),
        ((0.0, 0.0, 3.1), 0.1, {}),
        ((0.0, 0.0, -7200.0), 0.0, {"10.0.0.3:9042": -7200.0}),
        ((-2.0, 0.0, 2.0), 0.0, {"10.0.0.1:9042": -2.0, "10.0.0.3:9042": 2.0}),
        ((0.0, 4.0), 0.0, {"10.0.0.2:9042": 4.0}),
        ((9.0,), 0.0, {}),
    ],
)
def test_skew_is_what_the_readings_prove(
    offsets_s: tuple[float, ...], unsure_s: float, named: Mapping[str, float]
) -> None:
    """Servers that are away from the middle by more than the readings can be wrong are named, and no others."""
    found = astray(readings(*offsets_s, unsure_s=unsure_s))
    assert {each.node.name: each.by_s for each in found} == dict(named)


def test_the_audit_names_the_clock_that_is_astray() -> None:
    """As a warning, with how far, and what sets it right; nothing where all are together."""
    ring = make_ring(ONE_DC)
    (found,) = judge_replication(ring, {}, scope=(), clocks=readings(0.0, 0.0, 400.0))
    assert (found.kind, found.severity, found.keyspace) == ("clock_skew", Severity.WARNING, "")
    assert found.kind in KINDS
    assert "10.0.0.3:9042 is 7 minutes ahead" in found.detail
    assert "chrony" in found.remedy
    assert "10.0.0.3" in found.remedy
    assert not judge_replication(ring, {}, scope=(), clocks=readings(0.0, 0.1, 0.2))


# The settle window.


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [("2s", "", 2.0), ("5000ms", "", 5.0), ("2000", "ms", 2.0), ("1m", "", 60.0), ("2000", "", None), ("x", "", None)],
)
def test_durations_of_every_release_are_read(text: str, unit: str, expected: float | None) -> None:
    """As 4.0, 4.1 and 5.0 tell them."""
    assert seconds(text, unit) == expected


def test_the_window_follows_the_most_patient_server() -> None:
    """In either version's words; a server that does not tell has the default; where none does, so do all."""
    one, two, three = make_ring(ONE_DC).nodes

    def longest(*told: Mapping[str, str] | None) -> float | None:
        servers = Servers({}, dict(zip((one, two, three), told, strict=True)))
        return asyncio.run(longest_write_s(servers, (one, two, three)))  # type: ignore[arg-type]

    assert longest({"write_request_timeout": "5s"}, {"write_request_timeout_in_ms": "2000"}, None) == 5.0
    assert longest({"write_request_timeout": "1s"}, {"write_request_timeout": "1s"}, None) == 2.0
    assert longest({"write_request_timeout": "1s"}, {}, {"write_request_timeout": "900ms"}) == 2.0
    assert longest({}, None, {}) is None


class Patient(Scenario):
    """A cluster whose servers let a write be under way for some seconds."""

    def lets(self, timeout_s: float | None) -> Patient:
        """Have the servers tell this write timeout."""

        async def told() -> float | None:
            return timeout_s

        self.cluster.write_timeout_s = told  # type: ignore[method-assign]
        return self


@pytest.mark.parametrize(
    ("timeout_s", "chosen_s", "window_s", "warned"),
    [(None, None, DEFAULT_WINDOW_S, False), (5.0, None, 5.5, False), (5.0, 2.5, 2.5, True), (5.0, 9.0, 9.0, False)],
)
def test_the_operators_window_wins_and_is_warned_about(
    timeout_s: float | None, chosen_s: float | None, window_s: float, *, warned: bool
) -> None:
    """None means as the servers' timeout asks; a shorter window is used as given, and said."""
    scenario = Patient().lets(timeout_s)
    found, note = asyncio.run(settle_window(scenario.cluster, chosen_s))
    assert (found, bool(note)) == (window_s, warned)
    scenario.apply(row(1, 1, v0=int_bytes(7)), on=[1, 2])
    report = scenario.check(settle_window_s=chosen_s)
    assert window_s <= scenario.loop.now < window_s + 1.0
    assert any("write timeout (5 s)" in text for text in report.notes) is warned
    assert report.as_json()["notes"] == list(report.notes)


def test_a_check_says_whose_clock_is_astray() -> None:
    """As a note, on the terminal and in the JSON; the verdict is not changed by it."""
    scenario = Scenario()
    scenario.fill()
    scenario.clock = SimClock(scenario.loop, clocks_s={scenario.nodes[2]: 90.0, scenario.nodes[0]: 0.0})
    report = scenario.check()
    assert report.verdict is Verdict.CONSISTENT
    (note,) = report.notes
    assert "10.0.0.3:9042 is 90.0 s ahead" in note


def test_where_ttls_run_by_the_servers_clocks_their_spread_is_waited_out() -> None:
    """Without native protocol v5 a cell is gone on one server seconds before it is on another."""
    scenario = Scenario(capabilities=Capabilities(timed=False))

    async def window_s(*clocks_s: float) -> float:
        clock = SimClock(scenario.loop, clocks_s=dict(zip(scenario.nodes, clocks_s, strict=False)))
        return (await settled_how(scenario.cluster, clock, None))[0]

    async def windows_s() -> list[float]:
        return [await window_s(-4.0, 6.0), await window_s(0.0, 7_200.0)]

    assert scenario.run(windows_s) == [DEFAULT_WINDOW_S + 10.0, DEFAULT_WINDOW_S + 60.0]
