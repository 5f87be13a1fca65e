"""A check by several processes: the same findings, figures and verdict as by one, and never more than was read."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consistency.checking.observer import Progress, ProgressTeller
from consistency.checking.run import run_check
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli import main
from consistency.cluster.clock import SystemClock
from consistency.cluster.request_counts import RequestCounts, SharedCounts
from consistency.cluster.settings import GivenOptions
from consistency.cluster.throttle import Politeness
from consistency.cluster.waits import within
from consistency.errors import ConnectError, ConsistencyError, UsageError
from consistency.model.reading import Depth, Locality, Route
from consistency.model.tokens import TokenRange, assert_tiles
from consistency.results.report import Report, TableReport
from consistency.results.verdict import ExitCode, Verdict
from consistency.spreading import planning
from consistency.spreading.assembling import voided
from consistency.spreading.checked import check_options, check_options_json, run_spread
from consistency.spreading.frames import frame, hear
from consistency.spreading.handing import MOST_ATTEMPTS
from consistency.spreading.local import LocalWorkers
from consistency.spreading.messages import Order, Terms, Unit, Work
from consistency.spreading.planning import CutTable
from consistency.spreading.port import UnitFailed
from tests.simulation.cases import run_case
from tests.simulation.memory import Trouble
from tests.simulation.scenario import Scenario, row
from tests.simulation.spreading import SimWorkers, checked_by, spread
from tests.simulation.values import int_bytes
from tests.support.figures import LONG
from tests.support.stand_in_worker import cluster as stand_in
from tests.unit.fake_cluster import FakeCluster, port

FIGURES = ("full_name", "rows", "divergent_rows", "unsettled_rows", "verdict", "depth", "route", "locality", "strip",
           "tracks", "held", "alone", "scheme", "coverage", "ranges", "ranges_read", "note", "blind", "unread",
           "counted")  # fmt: skip
RUN = ("verdict", "exit_code", "findings_by_kind", "violations", "likely_causes", "replicas", "notes", "not_checked")


def whole(seed: int) -> bool:
    """Whether a seed's check reads whole tables."""
    options = run_case(seed).case.options
    return options.sample is None and options.run_time_s is None


def unlike(one: Report, other: Report, *, all_listed: bool = True) -> list[Any]:
    """Return what two reports do not say alike; times aside, and which rows are listed if not all are."""
    left_out = () if all_listed else ("counted", "rows", "tracks")
    out: list[Any] = [name for name in RUN if getattr(one, name) != getattr(other, name)]
    for a, b in zip(one.tables, other.tables, strict=True):
        values = [(name, getattr(a, name), getattr(b, name)) for name in FIGURES if name not in left_out]
        out += [each for each in values if each[1] != each[2]]
        out += ["trees"] if _leaves(a) != _leaves(b) else []
    return out


def _leaves(table: TableReport) -> dict[Any, Any]:
    return {tree.replicas: [leaf for leaf, _ in tree.hashes] for tree in table.trees}


@pytest.mark.parametrize("seed", range(60 if LONG else 24))
def test_workers_find_what_one_process_finds(seed: int) -> None:
    """With 1, 2 and 4 of them, down to the leaves of the trees, on every kind of cluster."""
    alone = run_case(seed)
    if alone.case.options.sample is not None or alone.case.options.run_time_s is not None:
        pytest.skip("workers read whole tables")
    for size in (1, 2, 4):
        shared = run_case(seed, spread(size))
        assert shared.broken == []
        if alone.case.exact and alone.traffic is None:
            all_listed = alone.case.options.scan.max_findings is None
            assert unlike(alone.report, shared.report, all_listed=all_listed) == []


@pytest.mark.parametrize("seed", range(60 if LONG else 24))
def test_workers_that_are_lost_cost_time_and_no_truth(seed: int) -> None:
    """A third of the units is lost with its worker: what it had is read again or unknown, never consistent."""
    if not whole(seed):
        pytest.skip("workers read whole tables")
    outcome = run_case(seed, spread(3, lost=0.35, seed=seed))
    assert outcome.broken == []


def simulated(
    scenario: Scenario,
    size: int = 2,
    lost: float = 0.0,
    stop_at_s: float | None = None,
    workers: Callable[[Scenario], Any] | None = None,
    **options: Any,
) -> Report:
    """Check a scenario by workers."""

    async def main() -> Report:
        stop = asyncio.Event()
        if stop_at_s is not None:
            scenario.loop.call_later(stop_at_s, stop.set)
        crew = workers(scenario) if workers else SimWorkers(checked_by(scenario.cluster, scenario.clock), size, lost, 1)
        chosen = CheckOptions(("ks",), **options)
        return await run_spread(scenario.cluster, scenario.clock, chosen, crew, Terms(), scenario.watching, stop)

    report: Report = scenario.run(main)
    return report


SMALL = ScanOptions(leaf_rows=2)


def filled(**given: Any) -> Scenario:
    """Return a scenario of 200 rows."""
    scenario = Scenario(**given)
    scenario.fill(200, 1)
    return scenario


def test_a_unit_with_which_every_worker_is_lost_is_unknown() -> None:
    """It is tried a few times, and named with its ranges on every replica."""
    report = simulated(filled(), lost=1.0, scan=SMALL)
    assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)
    (table,) = report.tables
    assert table.coverage.completed == 0 < table.coverage.failed
    assert {f"{MOST_ATTEMPTS} workers were lost" in unread.reason for unread in table.unread} == {True}
    assert {unread.replica for unread in table.unread} == {"10.0.0.1:9042", "10.0.0.2:9042", "10.0.0.3:9042"}


class Refusing(SimWorkers):
    """Workers that read no unit but the first, and say why."""

    async def read(self, unit: str) -> str:
        if Unit.from_text(unit).first:
            raise UnitFailed("the scheduler does not answer any more")
        return await super().read(unit)


def test_units_that_no_worker_can_read_are_unknown_with_the_reason() -> None:
    """What was read before stays: exit code 3, and the next run goes on from it."""
    scenario = filled()
    scenario.apply(row(3, 50, v0=int_bytes(1)), on=[1])
    report = simulated(scenario, workers=lambda s: Refusing(checked_by(s.cluster, s.clock), 2, 0.0, 1), scan=SMALL)
    (table,) = report.tables
    assert table.coverage.completed
    assert table.coverage.failed
    assert {unread.reason for unread in table.unread} == {"the scheduler does not answer any more"}
    assert report.verdict in (Verdict.UNKNOWN, Verdict.DIVERGENT)


def test_an_interrupt_ends_with_what_the_workers_have_read() -> None:
    """True and partial; what was not handed out was not reached."""
    report = simulated(filled(), stop_at_s=0.05, scan=SMALL)
    assert (report.verdict, report.exit_code, report.interrupted) == (Verdict.UNKNOWN, ExitCode.INTERRUPTED, True)
    coverage = report.coverage
    assert coverage.completed < coverage.planned == coverage.completed + coverage.failed


def test_a_worker_that_places_a_table_elsewhere_has_other_prints() -> None:
    """The ring may be the same, while nodes disagree or one is down: leaves are cut where the replicas change."""
    task = _task(filled())
    (name,), (arc, *others) = planning.prints([task]), task.arcs
    half = replace(arc, ranges=arc.ranges[:-1])
    fewer = replace(arc, replicas=arc.replicas[:-1])
    seen = {planning.prints([replace(task, arcs=(each, *others))])[name] for each in (arc, half, fewer)}
    assert len(seen) == 3


def test_a_node_that_is_down_is_told_of_as_by_one_process() -> None:
    """With the same words, ranges and figures."""
    reports = [
        filled(faults=((Trouble.DOWN, 2, 0.0, 1e9),)).check(scan=SMALL),
        simulated(filled(faults=((Trouble.DOWN, 2, 0.0, 1e9),)), scan=SMALL),
    ]
    assert unlike(*reports) == []


def test_ring_and_schema_are_looked_at_once_more_at_the_end() -> None:
    """A unit that was read before a change of hands is taken back, as in a check by one process."""
    for seed in range(200):
        case = run_case(seed).case
        if case.ring_changes_at_s is not None and whole(seed) and run_case(seed, spread(2)).report.coverage.failed:
            return
    pytest.fail("no seed has a ring that changed under the run")


def test_what_is_taken_back_is_failed_digest_by_digest() -> None:
    """Coverage adds up, trees lose their roots, and the ranges are named; other leaves stay."""
    (table,) = filled().check(scan=SMALL).tables
    half = TokenRange(-(2**63), 0)
    taken = voided(table, [half], "moved")
    lost = [leaf for tree in table.trees for leaf, _ in tree.hashes if leaf.overlaps(half)]
    assert taken.coverage.failed == 3 * len(lost) > 0
    assert taken.coverage.completed == table.coverage.completed - taken.coverage.failed > 0
    assert {unread.reason for unread in taken.unread} == {"moved"}
    assert [tree.root for tree in taken.trees] == [None] * len(taken.trees)
    assert voided(taken, [half], "moved again").coverage == taken.coverage


def test_each_unit_lists_as_many_rows_as_are_left_to_list() -> None:
    """Few differences are all listed wherever they lie; many are counted, and the counts are exact."""
    few, many = filled(), filled()
    for number in range(20):
        few.apply(row(number, 50, v0=int_bytes(1)), on=[1])
    for number in range(150):
        many.apply(row(number, 50, v0=int_bytes(1)), on=[1])
    bounded = ScanOptions(leaf_rows=2, max_findings=20)
    assert simulated(few, scan=bounded).tables[0].counted.rows == 0
    assert len(few.findings) == 20
    report = simulated(many, scan=bounded)
    assert sum(report.findings_by_kind.values()) == 150
    assert 20 <= len(many.findings) < 150
    assert report.tables[0].counted.rows == 150 - len(many.findings)


def test_units_hold_every_leaf_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the plan; where all rows are listed they are small, as what came of one is held in memory."""
    cut = CutTable(_task(filled(dcs=("dc1",) * 5)), 2_000, 10)
    for workers, most in ((1, None), (4, 10), (100, 10)):
        units = list(cut.units(workers, 7, most))
        assert [unit.number for unit in units] == list(range(7, 7 + len(units)))
        leaves = [leaf for unit in units for arc in cut.leaves_of(unit) for leaf in arc]
        assert leaves == list(cut.plan.leaves)
        assert_tiles([leaf.token_range for leaf in leaves], [TokenRange.full_ring()])
        sizes = [unit.last - unit.first for unit in units]
        assert max(sizes) <= (planning.MOST_LEAVES if most else 2)
        assert sizes == sorted(sizes, reverse=True), "small ones at the end: no worker is left with much"
        assert sizes[-1] == 1 if workers < 100 else sizes[0] == 4, "what is too little for all makes few units"
    assert len(list(cut.units(4, 0, 10))) >= 4


def _task(scenario: Scenario) -> Any:
    async def main() -> Any:
        from consistency.checking.preparing import prepare  # noqa: PLC0415

        return (await prepare(scenario.cluster, scenario.clock, CheckOptions(("ks",)))).tasks[0]

    return scenario.run(main)


def test_workers_do_not_take_parts_of_tables() -> None:
    """Samples, slices of time and parts are for one process."""
    from consistency.checking.sampling import Sample  # noqa: PLC0415
    from consistency.model.part import Part  # noqa: PLC0415

    for options in ({"sample": Sample(0.5)}, {"run_time_s": 5.0}, {"part": Part(1, 2)}):
        with pytest.raises(UsageError, match="whole tables"):
            simulated(filled(), **options)


# What goes between them.


def test_nothing_that_is_sent_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither passwords of environment and files, nor values of rows: what went both ways is searched."""
    monkeypatch.setenv("CONSISTENCY_PASSWORD", "a-password-of-the-environment")
    scenario = filled()
    scenario.apply(row(3, 50, v0=int_bytes(1), v1=b"a-value-of-a-row"), on=[1])
    crews: list[SimWorkers] = []

    def gathered(scenario: Scenario) -> SimWorkers:
        crews.append(SimWorkers(checked_by(scenario.cluster, scenario.clock), 2, 0.0, 1))
        return crews[0]

    assert simulated(scenario, workers=gathered, scan=SMALL).verdict is Verdict.DIVERGENT
    sent = "\n".join(crews[0].said)
    assert "v1" in sent
    hidden = ("a-password-of-the-environment", "a-value-of-a-row", b"a-value-of-a-row".hex(), "password")
    assert [text for text in hidden if text in sent] == []


def test_an_order_arrives_as_it_was_given() -> None:
    """With the limits on the load divided, and each worker in lanes of its own."""
    options = CheckOptions(
        ("shop",), Depth.VERSIONS, Route.CLIENT, dc="dc1", settle_window_s=1.0, scan=ScanOptions(max_findings=5)
    )
    given, target = GivenOptions(hosts="a"), GivenOptions(hosts="b", port=9043)
    terms = Terms(Politeness(rate=900, pause_file=Path("pause")), Locality.TRACED, given, target).divided(3)
    order = Order(Work.CHECK, "r", check_options_json(options), terms, 3, "ring", {"shop.t": "print"})
    again = Order.from_text(order.as_text())
    assert again == order
    assert check_options(again.options) == options
    assert (again.limits(2).politeness.rate, again.limits(2).reader, again.limits(2).readers) == (300, 2, 3)


def test_requests_are_counted_for_all_that_read_together(tmp_path: Path) -> None:
    """In a file that they share; without one each takes the others to do as much as itself."""
    path = tmp_path / "counts"
    path.touch()
    one, other = (SharedCounts(path, ("b", "a"), reader, 2) for reader in range(2))
    for _ in range(3):
        one.count_sent("a")
    other.count_sent("a")
    other.count_answered("a")
    one.count_sent("unknown")
    assert [(c.sent("a"), c.answered("a"), c.sent("b"), c.sent("unknown")) for c in (one, other)] == [(4, 1, 0, 0)] * 2
    alone = RequestCounts(3)
    alone.count_sent("a")
    assert (alone.sent("a"), alone.answered("a")) == (3, 0)


def test_frames_are_heard_whole_or_not_at_all() -> None:
    """One that is cut off, too long or no JSON ends the hearing."""

    async def heard(data: bytes) -> list[Any]:
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        out = []
        while (said := await hear(stream)) is not None:
            out.append(said)
        return out

    whole = frame({"a": 1}) + frame({"b": [2, None]})
    assert asyncio.run(heard(whole)) == [{"a": 1}, {"b": [2, None]}]
    assert asyncio.run(heard(whole[:-1])) == [{"a": 1}]
    assert asyncio.run(heard(b"\xff\xff\xff\xff")) == []
    assert asyncio.run(heard(b"\x00\x00\x00\x04abcd")) == []


# Processes.

ROWS = 300


def stand_ins(delay_s: float, *damaged: int, rows: int = ROWS) -> tuple[str, ...]:
    """Return the words that start a worker with a cluster of its own."""
    return (sys.executable, "-m", "tests.support.stand_in_worker", *map(str, (rows, delay_s, *damaged)))


class Reading(ProgressTeller):
    """Tells when some leaves were read, so that a test need not guess how fast the machine is."""

    def __init__(self) -> None:
        super().__init__(self._hear)
        self.some = asyncio.Event()

    def _hear(self, progress: Progress) -> None:
        if progress.leaves_done > 3:
            self.some.set()


def by_processes(
    size: int,
    words: tuple[str, ...],
    *damaged: int,
    beside: Callable[[LocalWorkers, asyncio.Event], Awaitable[None]] | None = None,
    observer: Any = None,
) -> Report:
    """Check the stand-in's table by processes, with something going on beside it."""

    async def run() -> Report:
        cluster = stand_in(ROWS, 0.0, [*damaged])
        crew = LocalWorkers(size, cluster._ring.host_ids, words)
        stop = asyncio.Event()
        aside = asyncio.create_task(beside(crew, stop)) if beside else None
        options = CheckOptions(settle_window_s=0.0, scan=ScanOptions(leaf_rows=3))
        try:
            return await run_spread(port(cluster), SystemClock(), options, crew, Terms(), observer, stop)
        finally:
            if aside is not None:
                aside.cancel()
                await asyncio.gather(aside, return_exceptions=True)

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 2])
def test_processes_find_what_one_finds(size: int) -> None:
    """And tell how far they are meanwhile."""
    alone = asyncio.run(
        run_check(
            port(stand_in(ROWS, 0.0, [5, 250])),
            SystemClock(),
            CheckOptions(settle_window_s=0.0, scan=ScanOptions(leaf_rows=3)),
        )
    )
    progress: list[Any] = []
    report = by_processes(size, stand_ins(0.0, 5, 250), 5, 250, observer=ProgressTeller(progress.append))
    assert unlike(alone, report) == []
    assert report.findings_by_kind == {"stale": 2}
    assert progress[-1].leaves_done == progress[-1].leaves == report.tables[0].ranges


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_five_times_changes_nothing() -> None:
    """Kill -9 in the middle: another one takes its place, and what it had is read again."""
    killed: list[int] = []
    reading = Reading()

    async def kill(crew: LocalWorkers, stop: asyncio.Event) -> None:
        while len(killed) < 5:
            await reading.some.wait()
            await asyncio.sleep(0.3)
            if fresh := [pid for pid in crew.pids if pid not in killed]:
                os.kill(fresh[0], signal.SIGKILL)
                killed.append(fresh[0])

    report = by_processes(2, stand_ins(0.5, 7, 133), 7, 133, beside=kill, observer=reading)
    assert len(killed) == 5
    assert (report.verdict, report.findings_by_kind) == (Verdict.DIVERGENT, {"stale": 2})
    assert report.coverage.complete


@pytest.mark.timeout(120)
def test_the_only_worker_is_replaced_too() -> None:
    """While none is there, another one is on its way: its units are not given up."""
    reading = Reading()

    async def kill(crew: LocalWorkers, stop: asyncio.Event) -> None:
        await reading.some.wait()
        os.kill(crew.pids[0], signal.SIGKILL)

    report = by_processes(1, stand_ins(0.1, 7), 7, beside=kill, observer=reading)
    assert (report.verdict, report.findings_by_kind) == (Verdict.DIVERGENT, {"stale": 1})
    assert report.coverage.complete


@pytest.mark.timeout(120)
def test_an_interrupt_ends_the_processes_soon() -> None:
    """Each tells what it has read, and none is left behind."""
    pids: list[int] = []
    reading = Reading()

    async def interrupt(crew: LocalWorkers, stop: asyncio.Event) -> None:
        await reading.some.wait()
        pids.extend(crew.pids)
        stop.set()

    report = by_processes(2, stand_ins(0.3), beside=interrupt, observer=reading)
    assert (report.verdict, report.interrupted) == (Verdict.UNKNOWN, True)
    assert 0 < report.coverage.completed < report.coverage.planned
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_workers_that_cannot_begin_end_the_check_with_the_reason() -> None:
    """In one line: their own, or that they ended."""
    code = "from tests.support.stand_in_worker import *; from consistency.errors import ConnectError;"
    code += "session.open_cluster = lambda *a, **k: (_ for _ in ()).throw({}('no node answers')); main()"
    for error in ("ConnectError", "RuntimeError"):
        with pytest.raises(ConnectError, match="no node answers"):
            by_processes(2, (sys.executable, "-c", code.format(error)))
    with pytest.raises(ConnectError, match="ended before"):
        by_processes(1, (sys.executable, "-c", "pass"))
    with pytest.raises(UsageError, match="--workers"):
        LocalWorkers(0, ())


@pytest.mark.timeout(120)
def test_if_no_worker_is_left_the_rest_is_unknown() -> None:
    """Workers that end again and again are not replaced for ever."""
    reading = Reading()

    async def kill(crew: LocalWorkers, stop: asyncio.Event) -> None:
        crew._replaced = 10_000
        await reading.some.wait()
        for pid in crew.pids:
            os.kill(pid, signal.SIGKILL)

    report = by_processes(2, stand_ins(0.3), beside=kill, observer=reading)
    assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)
    assert any("no worker is left" in unread.reason for unread in report.tables[0].unread)


def test_who_waits_for_a_worker_hears_that_none_is_on_its_way() -> None:
    """The last one that was to be replaced is not: nobody waits for it."""

    async def run() -> None:
        crew = LocalWorkers(1, ())
        crew._stopping = True  # no other is started
        waiting = asyncio.create_task(crew._one_that_is_free())
        replacing = asyncio.create_task(crew._replace(0))
        crew._replacing.add(replacing)
        replacing.add_done_callback(crew._replacing.discard)
        with pytest.raises(UnitFailed, match="no worker is left"):
            async with within(5.0):
                await waiting
        await crew.close()

    asyncio.run(run())


def test_a_worker_that_sees_another_cluster_reads_nothing() -> None:
    """Another ring, or another table: units of it would be about something else."""
    words = (*stand_ins(0.0)[:2], "tests.support.stand_in_worker", str(ROWS), "0")

    async def run(change: Callable[[FakeCluster], None]) -> Report:
        cluster = stand_in(ROWS, 0.0, [])
        change(cluster)
        crew = LocalWorkers(1, cluster._ring.host_ids, words)
        return await run_spread(port(cluster), SystemClock(), CheckOptions(), crew, Terms())

    def other_ring(cluster: FakeCluster) -> None:
        cluster._ring = replace(cluster._ring, cluster="another")

    def other_table(cluster: FakeCluster) -> None:
        cluster.shop = replace(cluster.shop, table_id="another")

    for change in (other_ring, other_table):
        with pytest.raises(ConsistencyError, match=r"than the driver|as the driver"):
            asyncio.run(run(change))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "2", "--engine", "dask:tcp://s:1"], "give one of the two"),
        (["--workers", "0"], "0 is not in the range"),
        (["--engine", "ray:tcp://s:1"], "is not dask:tcp://"),
        (["--engine", "dask:s:1"], "is not dask:tcp://"),
        (["--workers", "2", "--sample", "5%"], "leave out --sample"),
        (["--engine", "dask:tcp://s:1", "--run-time", "5", "--ledger", "l"], "leave out --run-time"),
        (["--workers", "2", "--part", "1/2", "--ledger", "l"], "leave out --part"),
    ],
)
def test_what_workers_cannot_do_is_refused(words: list[str], said: str) -> None:
    """In one line, with exit code 2."""
    result = CliRunner().invoke(main, ["check", *words])
    assert result.exit_code == 2
    assert said in result.output


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read of a table."""
    from consistency.cli.spreading import Crew  # noqa: PLC0415

    for name in ("distributed", "distributed.scheduler", "consistency.spreading.dask_workers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "consistency.spreading.dask_workers")
    with pytest.raises(ConsistencyError, match=r"pip install 'cassandra-consistency\[dask\]'"):
        asyncio.run(Crew(address="tcp://127.0.0.1:1").gather((), lambda _: None))
