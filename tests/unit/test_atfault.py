"""A partition that a server refuses to have read: it alone is unread, by its token, and all else is compared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from consistency.checking.at_fault import MOST_AT_FAULT
from consistency.errors import ReplicaError, ReplicaUnavailable, TooMuchToScan
from consistency.model.reading import Route
from consistency.model.tokens import RING_SIZE, TokenRange, around_tokens
from consistency.results.report import Report
from consistency.results.verdict import ExitCode
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.storage import token_of
from tests.simulation.values import int_bytes

FAULTY = (3, 11)
Refuse = Callable[[Any, Callable[[int], bool]], None]
TOKENS = {token_of((int_bytes(p),)) for p in FAULTY}


def refusing(
    scenario: Scenario,
    tokens: Collection[int],
    *,
    digests: bool,
    on: Sequence[int] = (1,),
    error: type[ReplicaError] = TooMuchToScan,
) -> None:
    """Have some nodes refuse what reads these partitions' rows, and their digests too where `digests` says so."""
    cluster: Any = scenario.cluster
    guarded = {scenario.nodes[n - 1] for n in on}

    def refuse(node: Any, held: Callable[[int], bool]) -> None:
        if node in guarded and any(map(held, tokens)):
            msg = f"{node}: it is too large"
            raise error(msg)

    def keyed(name: str) -> None:
        honest = getattr(cluster, name)

        async def rows(node: Any, reading: Any, keys: Any, now_s: int) -> Any:
            several = keys if name == "rows_by_key" else [keys]
            refuse(node, lambda token: token in {token_of(key[:1]) for key in several})
            return await honest(node, reading, keys, now_s)

        setattr(cluster, name, rows)

    for name in ("rows", "row_hashes", "row_hashes_of", "partition_digests"):
        refuse_pages(cluster, name, refuse)
    for name in ("row", "rows_by_key", "static_row"):
        keyed(name)
    if digests:
        refuse_digests(cluster, refuse)


def refuse_pages(cluster: Any, name: str, refuse: Refuse) -> None:
    """Have a stream of rows refused from such a partition on, one row a page."""
    honest = getattr(cluster, name)

    async def pages(node: Any, reading: Any, place: Any, *rest: Any, **more: Any) -> AsyncGenerator[Any, None]:
        if not isinstance(place, TokenRange):
            refuse(node, {token_of(key) for key in place}.__contains__)
        async with aclosing(honest(node, reading, place, *rest, **more)) as found:
            async for page in found:
                for one in page:  # what comes before the partition is read
                    refuse(node, int.from_bytes(one[0], "big", signed=True).__eq__)
                    yield [one]

    setattr(cluster, name, pages)


def refuse_digests(cluster: Any, refuse: Refuse) -> None:
    """Have the digests refused as well of ranges that hold such a partition."""
    whole = cluster.digest

    async def digest(node: Any, reading: Any, route: Any, token_range: TokenRange, *rest: Any, **more: Any) -> Any:
        refuse(node, token_range.__contains__)
        return await whole(node, reading, route, token_range, *rest, **more)

    cluster.digest = digest


def damaged() -> Scenario:
    """Return a cluster of 20 partitions, six of which are damaged, the faulty ones among them."""
    scenario = Scenario()
    scenario.fill(20, 5)
    for p in (1, 5, 9, 17, *FAULTY):
        scenario.apply(row(p, 2, LONG_AGO_US + 5, v0=int_bytes(77)), on=[2])
    return scenario


def unread(report: Report) -> set[TokenRange]:
    """Return the ranges that were not read, on any replica."""
    return {token_range for table in report.tables for one in table.unread for token_range in one.ranges}


@pytest.mark.parametrize("digests", [True, False])
def test_a_partition_that_cannot_be_read_is_isolated(*, digests: bool) -> None:
    """Whether its digest is refused or its rows alone: every other difference is found once, the account adds up."""
    scenario = damaged()
    refusing(scenario, TOKENS, digests=digests)
    report = scenario.check()
    told = {int(str(finding.key["p0"])) for finding in scenario.findings}
    # Where one replica refuses the digest, the others are compared all the same.
    assert told == ({1, 5, 9, 17, *FAULTY} if digests else {1, 5, 9, 17})
    assert len(scenario.findings) == len(told)
    assert unread(report) == {TokenRange(token - 1, token) for token in TOKENS}
    coverage = report.coverage
    assert coverage.planned == coverage.completed + coverage.failed + coverage.skipped
    assert 0 < coverage.failed <= 6
    assert report.exit_code is ExitCode.DIVERGENT
    assert "it is too large" in report.tables[0].unread[0].reason


@pytest.mark.parametrize(("route", "found"), [(Route.SERVER, 59), (Route.CLIENT, 60)])
def test_a_row_is_told_once_however_often_its_range_is_read(route: Route, found: int) -> None:
    """Every partition differs, and the last one is refused after all others were told of: their parts are read anew.

    By the client's route its digest is refused as well, and the two other replicas are compared.
    """
    scenario = Scenario()
    scenario.fill(60, 2)
    for p in range(60):
        scenario.apply(row(p, 1, LONG_AGO_US + 5, v0=int_bytes(77)), on=[2])
    last = max(token_of((int_bytes(p),)) for p in range(60))
    refusing(scenario, [last], digests=False)
    report = scenario.check(route=route)
    assert len(scenario.findings) == len({str(finding.key) for finding in scenario.findings}) == found
    assert unread(report) == {TokenRange(last - 1, last)}


def test_a_replica_that_comes_back_while_a_partition_is_isolated_was_not_compared() -> None:
    """Its rows were never looked at: all of the leaf stays unread on it, though it can be digested by then."""
    scenario = damaged()
    refusing(scenario, TOKENS, digests=False)
    cluster: Any = scenario.cluster
    whole, gone, back = cluster.digest, scenario.nodes[2], []

    async def digest(node: Any, *rest: Any, **more: Any) -> Any:
        if node == gone and not back:
            msg = f"{node}: it is gone"
            raise ReplicaUnavailable(msg)
        return await whole(node, *rest, **more)

    def looked_at(rows: Any) -> Any:
        def begun(*rest: Any, **more: Any) -> Any:
            back.append(True)
            return rows(*rest, **more)

        return begun

    cluster.digest = digest
    for name in ("rows", "row_hashes", "row_hashes_of", "partition_digests"):
        setattr(cluster, name, looked_at(getattr(cluster, name)))
    report = scenario.check()
    assert back
    (lost,) = [u for u in report.tables[0].unread if u.reason.endswith("it is gone")]
    assert lost.replica == gone.name
    assert sum(part.width for part in lost.ranges) == RING_SIZE


def test_a_partition_too_large_hides_nothing_where_nothing_differs() -> None:
    """What was not read is unknown, never consistent."""
    scenario = Scenario()
    scenario.fill(20, 5)
    refusing(scenario, TOKENS, digests=True, on=(1, 3))
    report = scenario.check()
    assert not scenario.findings
    assert report.exit_code is ExitCode.INCOMPLETE
    assert unread(report) == {TokenRange(token - 1, token) for token in TOKENS}


def test_more_partitions_at_fault_than_are_looked_for_stay_in_their_ranges() -> None:
    """The search is bounded: what is left of a field of large partitions is unread as it was."""
    scenario = Scenario()
    scenario.fill(120, 1)
    tokens = {token_of((int_bytes(p),)) for p in range(120)}
    refusing(scenario, tokens, digests=True)
    report = scenario.check()
    assert report.exit_code is ExitCode.INCOMPLETE
    assert all(any(token in place for place in unread(report)) for token in tokens)
    assert MOST_AT_FAULT * 3 <= report.coverage.planned < 120 * 3


def test_a_node_that_is_gone_is_not_looked_into() -> None:
    """A smaller range helps where a guardrail refuses, not where nobody answers."""
    scenario = damaged()
    refusing(scenario, TOKENS, digests=False, error=ReplicaUnavailable)
    report = scenario.check()
    assert all(place.width > 1 for place in unread(report))


def test_tokens_are_cut_out_of_a_range() -> None:
    """At its start, its end, side by side: the parts tile it."""
    whole = TokenRange(0, 10)
    assert around_tokens(whole, [1, 5, 6, 10]) == (
        TokenRange(0, 1), TokenRange(1, 4), TokenRange(4, 5), TokenRange(5, 6), TokenRange(6, 9), TokenRange(9, 10),
    )  # fmt: skip
    assert around_tokens(whole, []) == (whole,)
