"""Digests of leaves and the account that is kept of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.checking.account import Account
from consistency.checking.leaves import LeafResult, digest_leaf, digest_leaves
from consistency.checking.plan import Leaf, TablePlan
from consistency.checking.trees import differing
from consistency.cluster.port import Clock, ReplicaReader
from consistency.cluster.table_reader import TableReader
from consistency.errors import (
    ReplicaError,
    ReplicaForbidden,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    TooMuchToScan,
)
from consistency.model.reading import Capabilities, Depth, Reading, Route
from consistency.model.ring import Node
from consistency.model.servertime import ServerTime
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.model.tree import Digest
from tests.simulation.scenario import ROWS, make_nodes
from tests.simulation.vclock import VirtualLoop, run_virtual

A, B, C = NODES = make_nodes(("dc1",) * 3)
READING = Reading(ROWS, Depth.CONTENT, Capabilities())
RANGES = TokenRange.full_ring().split(8)
LEAVES = tuple(Leaf(r, NODES) for r in RANGES)
PLAN = TablePlan(ROWS, (LEAVES[:3], LEAVES[3:]), 100)
SAME = Digest(5, b"same")


class Scripted:
    """Answers digests from a script: (node, route) to an error; counts how many are asked at once."""

    def __init__(self, script: dict[tuple[Node, Route], Exception] | None = None) -> None:
        self.script = script or {}
        self.asked: list[tuple[Node, Route, int]] = []
        self.running = self.most = 0

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Answer or raise."""
        self.asked.append((node, route, now_s))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(1.0)
        self.running -= 1
        if (node, route) in self.script:
            raise self.script[node, route]
        return SAME


def digested(reader: Scripted, route: Route = Route.SERVER) -> LeafResult:
    """Digest one leaf."""
    return run_virtual(VirtualLoop(), digest_leaf(table_reader(reader, route), LEAVES[0]))


def table_reader(reader: Scripted, route: Route = Route.SERVER) -> TableReader:
    """Have the table read by a script, at one instant."""
    clock = SimpleNamespace(server_time=lambda: ServerTime.exactly(7_000_000))
    return TableReader(cast("ReplicaReader", reader), READING, route, cast("Clock", clock))


@pytest.mark.parametrize("error", [ReplicaTimeout("t"), TooMuchToScan("m"), ReplicaRefused("r")])
def test_what_a_server_cannot_digest_is_hashed_on_the_client_on_all_replicas(error: ReplicaError) -> None:
    """One replica's trouble moves all of the leaf's replicas: digests of two routes are never compared."""
    reader = Scripted({(B, Route.SERVER): error})
    result = digested(reader)
    assert not result.errors
    assert result.fell_back == str(error)
    assert [(n, r) for n, r, _ in reader.asked[3:]] == [(n, Route.CLIENT) for n in NODES]
    assert {now_s for _, _, now_s in reader.asked} == {7}


@pytest.mark.parametrize("error", [ReplicaOverloaded("o"), ReplicaForbidden("f"), ReplicaError("e")])
def test_other_errors_are_entered_as_they_are(error: ReplicaError) -> None:
    """Asking for more would not help an overloaded node, nor a missing permission."""
    result = digested(Scripted({(B, Route.SERVER): error}))
    assert result.errors == {B: error}
    assert set(result.digests) == {A, C}
    assert differing([result]) == []


def test_an_error_of_our_own_is_not_swallowed() -> None:
    """Only what a replica did is accounted; a bug comes out."""
    with pytest.raises(ZeroDivisionError):
        digested(Scripted({(B, Route.SERVER): ZeroDivisionError()}))


@pytest.mark.parametrize("at_once", [1, 3, 20])
def test_leaves_are_digested_so_many_at_once(at_once: int) -> None:
    """No more under way than asked for, and every leaf comes back exactly once."""
    reader, loop = Scripted(), VirtualLoop()

    async def main() -> list[Leaf]:
        results = digest_leaves(partial(digest_leaf, table_reader(reader)), LEAVES, at_once=lambda: at_once)
        return [result.leaf async for result in results]

    assert sorted(run_virtual(loop, main()), key=LEAVES.index) == list(LEAVES)
    assert reader.most == min(at_once, len(LEAVES)) * len(NODES)


def result_of(leaf: Leaf, *failed: Node, rows: int = 5) -> LeafResult:
    """Make a result with errors on some nodes."""
    errors = {node: ReplicaTimeout("too slow", node) for node in failed}
    return LeafResult(leaf, 0, {n: Digest(rows, b"d") for n in NODES if n not in failed}, errors)


EVENTS = st.lists(st.tuples(st.sampled_from(LEAVES), st.sets(st.sampled_from(NODES)), st.booleans()), max_size=30)


@given(EVENTS)
def test_the_account_always_adds_up(events: list[tuple[Leaf, set[Node], bool]]) -> None:
    """Whatever is recorded, recorded again or failed afterwards: planned is the sum once the account is closed."""
    account = Account(PLAN)
    for leaf, failed, fails_later in events:
        account.record(result_of(leaf, *failed))
        if fails_later:
            account.fail(leaf, "its rows could not be compared")
    closed = account.coverage.closed()
    assert closed.planned == 24 == closed.completed + closed.skipped + closed.failed
    unread = {(u.replica, t) for u in account.unread() for t in u.ranges}
    assert sum(r.width for _, r in unread) == sum(
        leaf.token_range.width
        for leaf in LEAVES
        for node in NODES
        if leaf not in account.results or (leaf, node) in account.failures
    )
    assert closed.complete == (not unread)


def test_a_later_result_replaces_an_earlier_one() -> None:
    """A leaf that failed and was read at the second try is complete."""
    account = Account(PLAN)
    account.record(result_of(LEAVES[0], B))
    assert account.coverage.failed == 1
    account.record(result_of(LEAVES[0]))
    assert (account.coverage.failed, account.coverage.completed) == (0, 3)


def test_a_ring_change_is_why_a_leaf_failed_and_nothing_else_is() -> None:
    """What a node said of its own trouble stays, unless the range went to another one meanwhile."""
    account = Account(PLAN)
    account.record(result_of(LEAVES[0], B))
    account.fail(LEAVES[0], "the ring could not be read")
    assert account.failures[LEAVES[0], B] == f"{B.name}: too slow"
    assert account.failures[LEAVES[0], A] == "the ring could not be read"
    account.fail_within([LEAVES[0].token_range], "the ring changed")
    assert {account.failures[LEAVES[0], node] for node in NODES} == {"the ring changed"}


def test_what_is_said_of_a_leaf_that_was_cut_is_said_of_its_parts() -> None:
    """A row that differs in it keeps all of them from being clean; a look that ends later fails them all."""
    leaf = LEAVES[0]
    account = Account(PLAN)
    account.record(result_of(leaf))
    account.unlike.add(leaf)
    at = leaf.token_range.start + 1000
    parts = account.cut(leaf, [TokenRange(leaf.token_range.start, at), TokenRange(at, leaf.token_range.end)])
    for part in parts:
        account.record(result_of(part))
    assert [(read.complete, read.clean) for read in account.ranges_read(waiting=False)] == [(True, False)] * 2
    account.fail(leaf, "its future rows could not be read")
    assert {failed for failed, _ in account.failures} == set(parts)
    coverage = account.coverage.closed()
    assert coverage.planned == coverage.completed + coverage.failed + coverage.skipped == PLAN.digests + len(NODES)


def test_a_replica_has_a_root_where_all_of_its_leaves_were_read_and_are_believed() -> None:
    """What was never reached or failed leaves no root; a leaf that differs leaves none in common."""
    account = Account(TablePlan(ROWS, (LEAVES,), 0))
    for leaf in LEAVES[:-1]:
        account.record(result_of(leaf))
    (tree,) = account.trees()
    assert (tree.root, set(tree.roots.values()), tree.leaves, len(tree.agreed)) == (None, {None}, 8, 7)
    account.record(result_of(LEAVES[-1], B))
    (tree,) = account.trees()
    assert (tree.roots[A], tree.roots[B]) == (tree.roots[C], None)
    account.record(result_of(LEAVES[-1]))
    (tree,) = account.trees()
    assert tree.root == tree.roots[A] == tree.roots[B]
    assert (len(tree.agreed), tree.differing) == (8, 0)
    account.record(replace(result_of(LEAVES[2]), digests={A: Digest(1, b"x"), B: Digest(1, b"x"), C: Digest(2, b"y")}))
    (tree,) = account.trees()
    assert (tree.root, tree.roots[A] == tree.roots[B], len(tree.agreed), tree.differing) == (None, True, 7, 1)
    account.fail(LEAVES[3], "the table was altered")
    assert not any(account.trees()[0].roots.values())


def test_a_branch_is_compared_once_all_of_it_was_read() -> None:
    """Not before, and not while one of its leaves has to be asked again; the end compares whatever there is."""
    account = Account(TablePlan(ROWS, (LEAVES,), 0))
    unlike = replace(result_of(LEAVES[1]), digests={A: Digest(1, b"x"), B: Digest(1, b"x"), C: Digest(2, b"y")})
    account.record(unlike)
    assert account.compare_branch(LEAVES[1]) is None
    for leaf in (LEAVES[0], LEAVES[2]):
        account.record(result_of(leaf))
    account.record(result_of(LEAVES[3], B))
    assert account.compare_branch(LEAVES[3]) is None
    assert account.compare() == [unlike]
    account.record(result_of(LEAVES[3]))
    assert account.compare_branch(LEAVES[3]) == [unlike]
    assert account.told_apart == {LEAVES[1]}


def test_unread_ranges_that_touch_are_joined_by_reason() -> None:
    """A node that was down for the whole table is one line, not thousands."""
    account = Account(PLAN)
    for leaf in LEAVES:
        account.record(result_of(leaf, B))
    (unread,) = account.unread()
    assert (unread.replica, unread.ranges) == (B.name, (TokenRange.full_ring(),))
    assert unread.reason == f"{B.name}: too slow"


@pytest.mark.parametrize("unjudged", [False, True])
def test_a_range_whose_leaf_was_cut_meanwhile_is_in_all_of_its_parts(*, unjudged: bool) -> None:
    """In which part its rows are is not known, so no ledger calls any of them clean; a neighbour still is."""
    account = Account(PLAN)
    whole, neighbour = LEAVES[0], LEAVES[1]
    account.record(result_of(neighbour))
    for part in account.cut(whole, whole.token_range.split(4)):
        account.record(result_of(part))
    mark = account.leave_unjudged if unjudged else account.mark_unlike
    mark(TokenRange(whole.token_range.start + 1, whole.token_range.end))
    clean = [read.token_range for read in account.ranges_read(waiting=False) if read.clean]
    assert clean == [neighbour.token_range]


def test_the_strip_draws_the_ring() -> None:
    """64 cells: agreed, not read, divergent where a row differs, blank where nothing was planned."""
    account = Account(TablePlan(ROWS, (LEAVES[:4],), 0))
    for leaf in LEAVES[:4]:
        account.record(result_of(leaf, *([B] if leaf is LEAVES[1] else [])))
    account.mark_divergent(MIN_TOKEN + 1)
    assert account.strip() == "x" + "=" * 7 + "?" * 8 + "=" * 16 + " " * 32
    account.mark_divergent(MAX_TOKEN)
    assert account.strip()[-1] == "x"


def test_a_track_draws_each_replicas_own_part() -> None:
    """A replica is divergent where it is behind, not read where it did not answer, and its partner is neither."""
    account = Account(TablePlan(ROWS, (LEAVES[:4],), 0))
    for leaf in LEAVES[:4]:
        account.record(result_of(leaf, *([B] if leaf is LEAVES[1] else [])))
    account.mark_divergent(MIN_TOKEN + 1, [A.name])
    account.mark_divergent(MAX_TOKEN, ["stranger:1"])
    tracks = account.tracks()
    assert tracks[A.name] == "x" + "=" * 31 + " " * 32
    assert tracks[B.name] == "=" * 8 + "?" * 8 + "=" * 16 + " " * 32
    assert tracks["stranger:1"] == " " * 63 + "x"


def test_rows_are_those_of_the_replica_that_holds_most() -> None:
    """A replica that lost rows does not make the table smaller."""
    account = Account(PLAN)
    account.record(LeafResult(LEAVES[0], 0, {A: Digest(3, b""), B: Digest(9, b"x")}, {}))
    account.record(result_of(LEAVES[1], rows=4))
    assert account.rows == 13
