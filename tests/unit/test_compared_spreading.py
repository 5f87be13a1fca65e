"""A comparison by several processes: the same findings, figures and verdict as by one, and never more than was read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consistency.checking.observer import SilentPair
from consistency.checking.run import plenty
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions
from consistency.cli import main
from consistency.cluster.clock import SystemClock
from consistency.cluster.settings import GivenOptions
from consistency.comparing.opening import Cluster, Pair
from consistency.comparing.preparing import CompareOptions, Read, plan_comparison
from consistency.comparing.run import nobody
from consistency.comparing.terms import Compare
from consistency.errors import UsageError
from consistency.model.reading import Route
from consistency.model.sides import Side
from consistency.results.comparison import Comparison
from consistency.results.pair_findings import PairRange
from consistency.results.verdict import ExitCode, Verdict
from consistency.spreading.compared import PairPieces, PairSpread, compare_options, compare_options_json, compare_spread
from consistency.spreading.local import LocalWorkers
from consistency.spreading.messages import Order, Terms
from consistency.spreading.port import UnitFailed, Workers
from tests.simulation.scenario import row
from tests.simulation.spreading import SimWorkers, spread_pair
from tests.simulation.two_clusters import PairOutcome, PairScenario, run_pair
from tests.simulation.values import int_bytes
from tests.support.figures import LONG
from tests.support.stand_in_worker import clusters, opener_of_two
from tests.unit.fake_cluster import port
from tests.unit.test_spreading import FIGURES, Reading, stand_ins

RUN = ("verdict", "exit_code", "findings_by_kind", "inner", "coverage", "compare", "read", "not_checked", "notes",
       "traces")  # fmt: skip


def unlike(one: Comparison, other: Comparison, *, all_listed: bool = True) -> list[Any]:
    """Return what two results do not say alike; times aside, and which rows are listed if not all are."""
    left_out = () if all_listed else ("rows", "tracks")
    out: list[Any] = [(name, getattr(one, name), getattr(other, name)) for name in RUN]
    out += [("replicas", [s.replicas for s in one.clusters.values()], [s.replicas for s in other.clusters.values()])]
    for a, b in zip(one.tables, other.tables, strict=True):
        out += [(name, getattr(a.report, name), getattr(b.report, name)) for name in FIGURES if name not in left_out]
        names = ("target", "compare", "kinds", "schema", *(("inner", "counted") if all_listed else ()))
        out += [(name, getattr(a, name), getattr(b, name)) for name in names]
        out += [("trees", _leaves(a.report), _leaves(b.report))]
    return [each for each in out if each[1] != each[2]]


def _leaves(report: Any) -> dict[Any, Any]:
    return {tuple(n.host_id for n in tree.replicas): [leaf for leaf, _ in tree.hashes] for tree in report.trees}


def lines(outcome: PairOutcome) -> Counter[str]:
    """Return what was found, with all evidence."""
    return Counter(repr(sorted(found.as_json().items())) for found in outcome.found)


def whole(seed: int) -> bool:
    """Whether a seed's comparison reads whole tables."""
    return run_pair(seed).case.options.sample is None


@pytest.mark.parametrize("seed", range(60 if LONG else 24))
def test_workers_find_what_one_process_finds(seed: int) -> None:
    """With 1, 2 and 4 of them, line by line and leaf by leaf, on every kind of pair."""
    alone = run_pair(seed)
    if alone.case.options.sample is not None:
        pytest.skip("workers read whole tables")
    for size in (1, 2, 4):
        shared = run_pair(seed, spread_pair(size))
        assert shared.broken == []
        if alone.case.exact and not alone.touched:
            all_listed = alone.case.options.scan.max_findings is None
            assert unlike(alone.result, shared.result, all_listed=all_listed) == []
            if all_listed:
                assert lines(alone) == lines(shared)


@pytest.mark.parametrize("seed", range(60 if LONG else 24))
def test_workers_that_are_lost_cost_time_and_no_truth(seed: int) -> None:
    """A third of the units is lost with its worker: what it had is read again or unknown, never consistent."""
    if not whole(seed):
        pytest.skip("workers read whole tables")
    assert run_pair(seed, spread_pair(3, lost=0.35, seed=seed)).broken == []


SMALL = ScanOptions(leaf_rows=2)


def filled() -> PairScenario:
    """Return two clusters with the same 60 rows."""
    scenario = PairScenario()
    for number in range(60):
        for side in Side:
            scenario.apply(side, row(number, 1, v0=int_bytes(1)))
    return scenario


def test_a_unit_with_which_every_worker_is_lost_is_unknown() -> None:
    """Its ranges are unread on every replica of both sides."""
    result = filled().compare(spread_pair(2, lost=1.0), scan=SMALL)
    assert (result.verdict, result.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)
    (table,) = result.tables
    assert table.report.coverage.completed == 0 < table.report.coverage.failed
    assert len({unread.replica for unread in table.report.unread}) == 4


def test_rows_are_listed_up_to_the_bound_and_the_others_counted() -> None:
    """Whoever reads them: a row that differs between the sides and within one is counted once."""
    alone, shared = filled(), filled()
    for scenario in (alone, shared):
        for number in range(0, 60, 2):
            scenario.apply(Side.SOURCE, row(number, 50, v0=int_bytes(2)), on=[1] if number % 4 else None)
    options = {"scan": ScanOptions(leaf_rows=2, max_findings=5), "compare": Compare.VALUES}
    one, two = alone.compare(**options), shared.compare(spread_pair(2), **options)
    assert one.findings_by_kind == two.findings_by_kind
    assert [sum(kinds.values()) for kinds in one.inner.values()] == [
        sum(kinds.values()) for kinds in two.inner.values()
    ]
    (table,) = two.tables
    assert 0 < table.counted < 30
    listed = [found for found in shared.found if not isinstance(found, PairRange)]
    assert len(listed) >= 5


def test_nothing_that_is_sent_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither passwords of either side nor values of rows: what went both ways is searched."""
    for name in ("CONSISTENCY_PASSWORD", "CONSISTENCY_TARGET_PASSWORD"):
        monkeypatch.setenv(name, "a-password-of-the-environment")
    scenario, crews = filled(), list[SimWorkers]()
    scenario.apply(Side.SOURCE, row(3, 1, v1=b"a-value-of-a-row"))
    assert scenario.compare(spread_pair(2, crews=crews), scan=SMALL).findings_by_kind == {"value": 1}
    sent = "\n".join(crews[0].said)
    assert '"v1"' in sent.replace("\\", "")
    hidden = ("a-password-of-the-environment", "a-value-of-a-row", b"a-value-of-a-row".hex(), "password")
    assert [text for text in hidden if text in sent] == []


def test_options_arrive_as_they_were_given() -> None:
    """All that changes what is read."""
    options = CompareOptions(
        ("ks.t=ks2.u",), Compare.VALUES, 0.0, Read.QUORUM, Route.CLIENT, "dc1", "dc2", settle_window_s=1.0,
        scan=ScanOptions(max_findings=5),
    )  # fmt: skip
    assert compare_options(compare_options_json(options)) == options


def test_workers_do_not_take_samples() -> None:
    """Samples are for one process."""
    with pytest.raises(UsageError, match="whole tables"):
        filled().compare(spread_pair(2), sample=Sample(0.5))


@pytest.mark.parametrize("what", ["ring", "table", "nothing"])
@pytest.mark.parametrize("side", Side)
def test_a_worker_that_sees_another_side_reads_nothing(side: Side, what: str) -> None:
    """Another ring, or another table, on whichever side: units of it would be about something else."""
    made = clusters(10, 0.0, [])
    clock = SystemClock()

    def pair() -> Pair:
        source, target = (port(cluster) for cluster in made.values())
        return Pair(Cluster(Side.SOURCE, source, clock), Cluster(Side.TARGET, target, clock))

    async def run() -> None:
        planned = await plan_comparison(pair(), clock, CompareOptions())
        order = PairSpread(pair(), planned, Terms(), SilentPair(), plenty, nobody).order(1)
        seen = [*made.values()][[*Side].index(side)]
        if what == "ring":
            seen.rings(replace(seen._ring, cluster="another"))
        elif what == "table":
            seen.shop = replace(seen.shop, table_id="another")
        await PairPieces.prepared(pair(), Order.from_text(order.as_text()))

    if what == "nothing":
        asyncio.run(run())
    else:
        with pytest.raises(UnitFailed, match="driver"):
            asyncio.run(run())


# Processes.

ROWS, DAMAGED = 300, (7, 133)


async def compared(
    crew: Workers, observer: Any = None, beside: Callable[[], Awaitable[None]] | None = None
) -> Comparison:
    """Compare the stand-ins by workers, with something going on beside it."""
    made = clusters(ROWS, 0.0, [*DAMAGED])
    source, target = (port(cluster) for cluster in made.values())
    pair = Pair(Cluster(Side.SOURCE, source, SystemClock()), Cluster(Side.TARGET, target, SystemClock()))
    options = CompareOptions(settle_window_s=0.0, scan=ScanOptions(leaf_rows=3))
    aside = asyncio.ensure_future(beside() if beside else asyncio.sleep(0))
    try:
        return await compare_spread(pair, options, crew, Terms(target=GivenOptions(hosts="t")), observer)
    finally:
        aside.cancel()
        await asyncio.gather(aside, return_exceptions=True)


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_five_times_changes_nothing() -> None:
    """Kill -9 in the middle: another one takes its place, and what it had is read again on both sides."""
    killed: list[int] = []
    reading = Reading()

    async def run() -> Comparison:
        crew = LocalWorkers(2, (), stand_ins(0.4, *DAMAGED))

        async def kill() -> None:
            while len(killed) < 5:
                await reading.some.wait()
                await asyncio.sleep(0.3)
                if fresh := [pid for pid in crew.pids if pid not in killed]:
                    os.kill(fresh[0], signal.SIGKILL)
                    killed.append(fresh[0])

        return await compared(crew, reading, kill)

    result = asyncio.run(run())
    assert len(killed) == 5
    assert (result.verdict, result.findings_by_kind) == (Verdict.DIVERGENT, {"value": 2})
    assert result.coverage.complete


def test_the_command_compares_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same findings file as without, but for the order of its lines."""
    made = clusters(ROWS, 0.0, [*DAMAGED])
    monkeypatch.setattr("consistency.comparing.opening.open_cluster", opener_of_two(made))
    monkeypatch.setattr(LocalWorkers.__init__, "__defaults__", (stand_ins(0.0, *DAMAGED),))
    found = []
    for number, words in enumerate(([], ["--workers", "2"])):
        path = tmp_path / str(number)
        result = CliRunner().invoke(
            main, ["compare", "--target-hosts", "t", "--settle", "0", "--findings", str(path), *words]
        )
        assert result.exit_code == 1, result.output
        found.append(sorted(path.read_text().splitlines()[1:]))
    assert len(found[0]) == 2
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "2", "--engine", "dask:tcp://s:1"], "give one of the two"),
        (["--workers", "2", "--sample", "5%"], "leave out --sample"),
        (["--engine", "dask:tcp://s:1", "--within", "5s"], "leave out --within"),
    ],
)
def test_what_workers_cannot_do_is_refused(words: list[str], said: str) -> None:
    """In one line, with exit code 2."""
    result = CliRunner().invoke(main, ["compare", "--target-hosts", "t", *words])
    assert result.exit_code == 2
    assert said in result.output
