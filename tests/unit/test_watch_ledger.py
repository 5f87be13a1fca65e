"""A watch that remembers: it goes on where it was, takes its turn with other runs, slices, repairs and notes it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli.show.live.reports import KeptReports
from consistency.cli.show.live.ring_map import text_of
from consistency.cli.show.live.state import LiveState
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.port import ClusterReader
from consistency.errors import ConsistencyError, UsageError
from consistency.ledger import PastRun, TableAge, open_ledger
from consistency.ledger import recorder as recording
from consistency.ledger.lock import one_run
from consistency.model.ring import MURMUR3, Ring
from consistency.model.schema import Keyspace
from consistency.results.findings import read_findings
from consistency.results.report import RepairSummary, Report
from consistency.results.verdict import Verdict
from consistency.watching.board import Board
from consistency.watching.event_log import EventLog, LogSink
from consistency.watching.loop import Repairer, Watch, WatchOptions
from consistency.watching.schedule import Pacing
from consistency.watching.visit_ledger import Keeper
from repair.nightly.config import NightlyPolicy
from repair.nightly.night import VisitRepairer
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual
from tests.unit.fake_cluster import FakeCluster, nodes, port, table
from tests.unit.test_eventlog import logged
from tests.unit.test_metrics import figures
from tests.unit.test_watching import RF3, Ear

RING = Ring("test", MURMUR3, nodes())


class Mender:
    """A repairer that mends the cluster, or fails, or takes its time."""

    def __init__(self, directory: Path, mend: Callable[[], None], pause_s: float = 0.0) -> None:
        self.directory = directory
        self.asked: list[tuple[str, dict[str, int]]] = []
        self.error: ConsistencyError | None = None
        self._mend = mend
        self._pause_s = pause_s

    async def repair(self, _: ClusterReader, found: Report, checked: CheckOptions, stop: asyncio.Event) -> Report:
        """Mend all of it."""
        assert checked.findings is not None
        assert len(list(read_findings(checked.findings))) == sum(found.findings_by_kind.values())
        self.asked.append((found.run_id, dict(found.findings_by_kind)))
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self._pause_s)
        self._mend()
        rows = sum(found.findings_by_kind.values())
        done = RepairSummary(rows=rows, acted_on=rows, results={"verified": rows}, checked_again=Verdict.CONSISTENT)
        return replace(found, repair=done)


class Bench:
    """One cluster and one ledger, watched again and again; `visit_s` is how long a digest takes."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("items", "orders", "users"), rows: int = 5) -> None:
        self.folder = folder
        self.path = folder / "ledger"
        self.cluster = FakeCluster().fill(rows)
        self.cluster.extra = {"shop": Keyspace("shop", RF3, {name: table(name=name) for name in names})}
        self.names: tuple[str, ...] = ()
        self.board = Board()
        self.ear = Ear()
        self.events: list[tuple[float, Callable[[], Any]]] = []
        self.repairer: Repairer | None = None
        self.live: LiveState | None = None
        self.digest_s = 0.0
        self.leaf_rows = 40_000
        self.clock_s = 0.0
        self.stream = io.StringIO()

    def at(self, second: float, action: Callable[[], Any]) -> None:
        """Do something in the next watch, at a second of it."""
        self.events.append((second, action))

    def run(self, seconds: float, period_s: float = 30.0, run_time_s: float | None = 300.0, **changes: Any) -> Watch:
        """Watch for so long, then end as by SIGTERM; the next run begins when this one ended."""
        loop = VirtualLoop()
        loop.now = self.clock_s
        self.stream = io.StringIO()
        keeper = Keeper(self.path, self.names)
        self.board = Board(clean_passes=keeper.clean_passes)
        # The fake cluster's clock counts microseconds of this loop.
        self.live = LiveState(self.board.now, KeptReports(None), clock=lambda: SimClock(loop).now_us() / 1e6)

        async def digesting() -> None:
            await asyncio.sleep(self.digest_s)

        self.cluster.on_digest = digesting

        @asynccontextmanager
        async def opened() -> AsyncIterator[tuple[Any, Any]]:
            yield port(self.cluster), SimClock(loop)

        scan = ScanOptions(leaves_at_once=1, descents_at_once=1, leaf_rows=self.leaf_rows)
        check = CheckOptions(names=self.names, settle_window_s=0.0, run_time_s=run_time_s, scan=scan)
        log = EventLog(LogSink(self.stream), "watch")
        watch = Watch(
            opened,
            WatchOptions(check, period_s, **changes),
            self.board,
            log,
            [self.ear],
            keeper=keeper,
            repairer=self.repairer,
            audience=self.live,
        )

        async def main() -> float:
            stop = asyncio.Event()
            for second, action in self.events:
                loop.call_later(second, action)
            self.events.clear()
            loop.call_later(seconds, stop.set)
            await watch.run(stop)
            return loop.time()

        self.clock_s = run_virtual(loop, main())
        return watch

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one kind that the last watch logged."""
        return [e for e in logged(self.stream.getvalue()) if e["event"] == event]

    @property
    def visited(self) -> list[str]:
        """The tables that the last watch visited, in order."""
        return [e["table"] for e in self.logged("table.done")]

    @property
    def told(self) -> dict[tuple[str, ...], float]:
        """The metrics of now."""
        outcome = self.board.now()
        assert outcome is not None
        return figures(outcome)

    @property
    def runs(self) -> list[PastRun]:
        """The runs in the ledger, oldest first."""
        with open_ledger(self.path, create=False) as ledger:
            past = ledger.past()
            return [run for number, _ in past.clusters() for run in past.runs(number)][::-1]

    @property
    def ages(self) -> dict[str, TableAge]:
        """The tables in the ledger by name."""
        with open_ledger(self.path, create=False) as ledger:
            past = ledger.past()
            return {age.table: age for number, _ in past.clusters() for age in past.tables(number)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Three tables and a ledger that is not there yet."""
    return Bench(tmp_path)


@contextmanager
def damaged(bench: Bench, row: int = 3) -> Iterator[None]:
    """Take a row from one replica for a while."""
    held = bench.cluster.rows["10.0.0.2:9042"]
    version = held.pop(row)
    yield
    held[row] = version


def test_every_visit_is_a_run_in_the_ledger(bench: Bench) -> None:
    """With its table, its verdict and its ranges, so that history and the oldest age speak of a watch too."""
    bench.run(25)
    assert [(run.scope, run.verdict, run.ended) for run in bench.runs] == [
        (f"shop.{name}", "consistent", True) for name in ("items", "orders", "users")
    ]
    assert {age.never for age in bench.ages.values()} == {0.0}
    assert bench.told["consistency_oldest_clean_pass_age_seconds", "shop", "users"] < float("inf")
    assert len(bench.logged("ledger.recorded")) == 3


def test_ages_are_told_of_the_tables_that_are_watched(bench: Bench) -> None:
    """Of those that it never visits the age is endless, and their alert would never end; history knows them all."""
    bench.names = ("shop.users",)
    bench.run(25)
    assert [key[-1] for key in bench.told if key[0] == "consistency_oldest_clean_pass_age_seconds"] == ["users"]
    assert set(bench.ages) == {"items", "orders", "users"}


def test_a_watch_that_is_started_again_goes_on_with_what_was_read_longest_ago(bench: Bench) -> None:
    """After one of three tables the next watch begins with the second."""
    bench.run(5)
    assert bench.visited == ["items"]
    bench.run(5)
    assert bench.visited == ["orders"]
    bench.run(15)
    assert bench.visited == ["users", "items"]


def test_what_was_not_visited_since_the_start_is_unknown_whatever_the_ledger_says(bench: Bench) -> None:
    """A restart claims nothing that it did not see."""
    bench.run(25)
    bench.run(5)
    assert bench.told["consistency_verdict", "unknown"] == 1
    assert ("consistency_divergent_rows", "shop", "users") not in bench.told


def test_rows_are_new_then_still_there_then_gone_then_back(bench: Bench) -> None:
    """Over restarts; hooks are told which."""
    bench = Bench(bench.folder, ("orders",))
    seen = []
    for broken in (True, True, False, True):
        if broken:
            with damaged(bench):
                bench.run(5)
        else:
            bench.run(5)
        (event,) = bench.logged("ledger.recorded")
        seen.append({name: event[name] for name in ("new", "still_there", "came_back", "gone") if event[name]})
    assert seen == [{"new": 1}, {"still_there": 1}, {"gone": 1}, {"came_back": 1}]
    assert [m["states"]["new"] for m in bench.ear.messages] == [1, 0, 0]


def test_a_damaged_ledger_means_unchecked(bench: Bench) -> None:
    """In the middle of a watch: said in the log, every table unknown and visited anew, no age but endless."""
    bench.at(25, lambda: bench.path.write_bytes(b"no ledger at all" * 1000))
    bench.run(35)
    assert bench.visited == ["items", "orders", "users", "items"]
    assert len(bench.logged("ledger.damaged")) == 1
    assert bench.told["consistency_verdict", "unknown"] == 1
    assert bench.told["consistency_oldest_clean_pass_age_seconds", "shop", "users"] == float("inf")
    assert bench.ages["users"].oldest_us is None
    assert len(list(bench.folder.glob("ledger.damaged-*"))) == 1


def test_a_ledger_that_cannot_be_written_does_not_pass_for_one_that_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last run's exit code is 4, and the other tables have their turn all the same."""

    def full(*_: object) -> None:
        raise recording.sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("consistency.ledger.recorder._prune", full)
    bench.run(25)
    assert bench.visited == ["items", "orders", "users"]
    assert len(bench.logged("ledger.unwritten")) == 3
    assert bench.told["consistency_last_run_exit_code",] == 4


def test_while_another_run_holds_the_lock_the_watch_waits_and_says_so_once(bench: Bench) -> None:
    """Nothing that was known is lost meanwhile; then it goes on with the table whose turn it was."""
    lock = one_run(RING, bench.path)
    codes: list[float] = []
    bench.at(5, lock.__enter__)
    bench.at(130, lambda: codes.append(bench.told["consistency_last_run_exit_code",]))
    bench.at(131, lambda: codes.append(bench.told["consistency_divergent_rows", "shop", "items"]))
    bench.at(150, lambda: lock.__exit__(None, None, None))
    bench.run(220, period_s=300)
    assert codes == [5, 0]
    (waiting,) = bench.logged("watch.waiting")
    assert "another run on cluster test is under way" in waiting["reason"]
    assert bench.visited == ["items", "orders"]


def test_between_two_visits_the_lock_is_free(bench: Bench) -> None:
    """So that a check every night has its turn."""

    def check() -> None:
        with one_run(RING, bench.path):
            free.append(True)

    free: list[bool] = []
    bench.at(5, check)
    bench.run(25)
    assert free == [True]
    assert bench.visited == ["items", "orders", "users"]


def test_a_large_table_is_read_in_slices_and_each_range_once_a_period(tmp_path: Path) -> None:
    """Ten ranges and time for two of them a visit; small tables are not kept waiting."""
    bench = Bench(tmp_path, ("large", "small"), rows=0)
    bench.cluster.fill(9)
    bench.leaf_rows, bench.digest_s = 1, 4.0
    watch = bench.run(400, period_s=400, run_time_s=7.0)
    assert watch.rounds == 0 or bench.visited.count("large") > 3
    assert bench.visited.count("large") > 3
    assert bench.visited.count("small") > 3
    assert {age.never for age in bench.ages.values()} == {0.0}
    assert bench.told["consistency_verdict", "consistent"] == 1
    assert bench.told["consistency_divergent_rows", "shop", "large"] == 0


def test_a_restart_within_a_large_table_goes_on_with_its_ranges(tmp_path: Path) -> None:
    """Watches too short to read it whole read all of it together."""
    bench = Bench(tmp_path, ("large",), rows=9)
    bench.leaf_rows, bench.digest_s = 1, 4.0
    never = []
    for _ in range(12):
        bench.run(10, period_s=60, run_time_s=7.0)
        never.append(bench.ages["large"].never)
    assert never == sorted(never, reverse=True)
    assert never[0] > 0.0
    assert never[-1] == 0.0


def test_a_row_in_one_slice_stays_on_the_board_and_in_the_file_until_its_range_is_read_again(tmp_path: Path) -> None:
    """The slices after it, which find nothing, take nothing back."""
    folder = tmp_path / "findings"
    folder.mkdir()
    bench = Bench(tmp_path, ("large",), rows=9)
    bench.leaf_rows, bench.digest_s = 1, 4.0
    with damaged(bench, 0), damaged(bench, 8):
        bench.run(300, period_s=150, run_time_s=7.0, findings_dir=folder)
        assert bench.told["consistency_divergent_rows", "shop", "large"] == 2
        assert bench.told["consistency_findings", "missing"] == 2
        assert [f.key["id"] for f in read_findings(folder / "shop.large.jsonl")] in ([0, 8], [8, 0])
    bench.run(300, period_s=150, run_time_s=7.0, findings_dir=folder)
    assert list(read_findings(folder / "shop.large.jsonl")) == []
    assert bench.told["consistency_verdict", "consistent"] == 1
    assert [path.name for path in folder.iterdir()] == ["shop.large.jsonl"]


def test_the_live_page_knows_a_table_that_is_read_in_slices(tmp_path: Path) -> None:
    """Its ring is whole after a round, rows are counted by replica over all slices, and a restart keeps the ages."""
    bench = Bench(tmp_path, ("large",), rows=9)
    bench.leaf_rows, bench.digest_s = 1, 4.0
    with damaged(bench, 0), damaged(bench, 8):
        bench.run(300, period_s=150, run_time_s=7.0)
        assert bench.live is not None
        view = bench.live.view()
        assert view.behind == {"10.0.0.2:9042": 2}
        assert "x" in text_of(view.tracks["10.0.0.2:9042"])
        assert set(text_of(view.tracks["10.0.0.1:9042"])) == {"="}
        assert {run.table for run in view.runs} == {"shop.large"}
    bench.run(300, period_s=150, run_time_s=7.0)
    assert {text_of(codes) for codes in bench.live.view().tracks.values()} == {"=" * 64}
    age_s = bench.live.view().ages_s["shop.large"]
    assert age_s is not None
    assert age_s < 300
    bench.run(10, period_s=150, run_time_s=7.0)
    view = bench.live.view()
    assert view.strips["shop.large"] == "=" * 64
    assert {text_of(codes) for codes in view.tracks.values()} == {"=" * 64}


def test_what_was_found_is_repaired_where_that_is_asked_for(tmp_path: Path) -> None:
    """Told to log, metrics and hooks; the next visit finds nothing, and nothing is repaired twice."""
    bench = Bench(tmp_path, ("orders",))
    (tmp_path / "repairs").mkdir()
    mender = Mender(tmp_path / "repairs", lambda: bench.cluster.fill(5) and None)
    bench.repairer = mender
    bench.cluster.rows["10.0.0.2:9042"].pop(3)
    bench.run(25, period_s=10)
    assert [kinds for _, kinds in mender.asked] == [{"missing": 1}]
    (ended,) = bench.logged("repair.ended")
    assert (ended["rows"], ended["verified"], ended["remaining"]) == (1, 1, 0)
    assert bench.told["consistency_divergent_rows", "shop", "orders"] == 0
    (message,) = bench.ear.messages
    assert message["repair"]["results"] == {"verified": 1}
    assert message["verdict"] == "consistent"
    assert [path.name for path in (tmp_path / "repairs").iterdir()] == [f"{mender.asked[0][0]}.findings.jsonl"]


def test_a_repair_that_fails_hides_nothing(tmp_path: Path) -> None:
    """The rows stay divergent, the log says it, the watch goes on."""
    bench = Bench(tmp_path, ("orders",))
    mender = Mender(tmp_path, lambda: None)
    mender.error = ConsistencyError("another repair is under way")
    bench.repairer = mender
    with damaged(bench):
        bench.run(15, period_s=10)
    assert [e["error"] for e in bench.logged("repair.failed")] == ["ConsistencyError"] * 2
    assert bench.told["consistency_divergent_rows", "shop", "orders"] == 1


def test_a_folder_of_findings_that_is_gone_ends_no_watch(tmp_path: Path) -> None:
    """What was found is on the board and in the ledger all the same."""
    folder = tmp_path / "findings"
    folder.mkdir()
    bench = Bench(tmp_path, ("orders",))
    bench.digest_s = 1.0
    bench.at(0.5, (folder / "shop.orders.jsonl.visit.partial").unlink)
    with damaged(bench):
        bench.run(15, period_s=10, findings_dir=folder)
    assert bench.visited == ["orders", "orders"]
    assert bench.ages["orders"].differing == 1
    assert bench.told["consistency_divergent_rows", "shop", "orders"] == 1


@pytest.mark.parametrize("where", ["a digest", "a repair"])
def test_a_stop_in_the_middle_ends_within_five_seconds(tmp_path: Path, where: str) -> None:
    """Whatever it waits for."""
    bench = Bench(tmp_path, ("orders",))
    if where == "a digest":
        bench.digest_s = 3_600.0
    else:
        bench.repairer = Mender(tmp_path, lambda: None, pause_s=3_600.0)
    with damaged(bench):
        bench.run(10, period_s=10)
    assert bench.clock_s < 15
    if where == "a repair":
        assert [e["error"] for e in bench.logged("repair.failed")] == ["CancelledError"]
        assert bench.ages["orders"].differing == 1


def test_what_does_not_end_even_when_it_is_cancelled_is_left_behind(tmp_path: Path) -> None:
    """Such as a connection that is being closed to a node that is silent."""

    class Stubborn(Mender):
        async def repair(self, _: ClusterReader, found: Report, checked: CheckOptions, stop: asyncio.Event) -> Report:
            """Wait for a minute, whoever cancels."""
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(60)
            return found

    bench = Bench(tmp_path, ("orders",))
    bench.repairer = Stubborn(tmp_path, lambda: None)
    with damaged(bench):
        bench.run(5)
    assert bench.clock_s < 10


def test_a_stop_during_a_visit_keeps_what_was_read(tmp_path: Path) -> None:
    """The ranges that came back before the signal count."""
    bench = Bench(tmp_path, ("large",), rows=9)
    bench.leaf_rows, bench.digest_s = 1, 4.0
    bench.run(10, run_time_s=300.0)
    (run,) = bench.runs
    assert (run.ended, run.interrupted) == (True, True)
    assert 0.0 < bench.ages["large"].never < 1.0


def test_a_repairer_notes_what_was_proven_also_when_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the journal, however the repair ended; what the ledger cannot take is a warning."""
    noted: list[Path] = []
    warned: list[str] = []

    async def cancelled(*_: object) -> Report:
        (tmp_path / "r.journal.jsonl").touch()
        raise asyncio.CancelledError

    def remember(_: Path, journal: Path) -> int:
        noted.append(journal)
        raise ConsistencyError("no room; make some")

    monkeypatch.setattr("repair.nightly.night.repair_found", cancelled)
    monkeypatch.setattr("repair.nightly.night.remember", remember)
    repairer = VisitRepairer(NightlyPolicy(directory=tmp_path), tmp_path / "l", warned.append)  # type: ignore[arg-type]
    reader = object.__new__(CqlReader)
    found = Report("r", "test", "", 0.0, (), (), {"missing": 1})
    checked = CheckOptions(findings=tmp_path / "r.findings.jsonl")
    work: Awaitable[Report] = repairer.repair(reader, found, checked, asyncio.Event())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work)  # type: ignore[arg-type]
    assert noted == [tmp_path / "r.journal.jsonl"]
    assert warned == ["no room; make some"]
    with pytest.raises(UsageError, match="needs the findings"):
        asyncio.run(repairer.repair(reader, found, CheckOptions(), asyncio.Event()))


def test_a_ledger_of_a_watch_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest runs go; what is known of ranges and rows stays."""
    monkeypatch.setattr(recording, "KEPT_RUNS", 10)
    bench = Bench(tmp_path, ("orders",))
    with damaged(bench):
        bench.run(100, period_s=1)
    assert len(bench.runs) == 11
    assert bench.ages["orders"].differing == 1
    with open_ledger(bench.path) as ledger:
        held = ledger._store.db.execute("SELECT count(*) FROM run_findings").fetchone()[0]
    assert held == 11


def test_visits_left_are_spread_over_what_is_left_of_the_period() -> None:
    """A table that needs more visits makes the pauses shorter, not the round longer."""
    pacing, tables = Pacing(100.0), (table(name="a"), table(name="b"))
    pacing.begin(0.0)
    assert pacing.choose(tables, {}) is tables[0]
    pacing.sliced("shop.a", slices=10, left=9)
    assert pacing.pause(0.0, 4.0, known=True) == pytest.approx(100 / 11 - 4)
    pacing.sliced("shop.a", slices=10, left=0)
    assert pacing.pause(90.0, 90.0, known=True) == 5.0
    assert pacing.visited("shop.b", 95.0)
    assert (pacing.rounds, pacing.pause(95.0, 95.0, known=True)) == (1, 5.0)
    pacing.begin(100.0)
    assert pacing.pause(100.0, 100.0, known=True) == pytest.approx(100 / 12)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--run-time", "5"), "--run-time needs --ledger"),
        (("--run-time", "5", "--ledger", "LEDGER", "--dc", "dc1"), "leave out --run-time or --dc"),
        (("--run-time", "0", "--ledger", "LEDGER"), "must be above 0"),
        (("--ledger", "no/such/place"), "--ledger no/such/place"),
        (("--repair",), "[repair] is not there"),
        (("--max-rows", "5"), "it needs --repair"),
        (("--repair", "--dc", "dc1"), "cannot be limited by --dc"),
    ],
)
def test_what_cannot_be_used_is_refused(shell: Any, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Exit 2, before anything is watched for ever."""
    result = shell.run("watch", "--listen", "127.0.0.1:0", *(w.replace("LEDGER", str(tmp_path / "l")) for w in words))
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
