"""A watch of two clusters: what it knows of every table, over restarts too, and whom it tells."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consistency import read_compared
from consistency.checking.scan import ScanOptions
from consistency.cli import main
from consistency.cli.show.live.render import LiveRenderer
from consistency.cli.show.live.reports import KeptReports
from consistency.cli.show.live.state import LiveState
from consistency.comparing.opening import Cluster, Pair
from consistency.comparing.preparing import CompareOptions
from consistency.errors import ConnectError, LedgerError, ReplicaTimeout, UsageError
from consistency.ledger import ComparedPair, PairsLedger, open_ledger
from consistency.ledger.lock import one_run
from consistency.model.ring import MURMUR3, Ring
from consistency.model.schema import Keyspace
from consistency.model.sides import Side
from consistency.results.pair_findings import PairKind
from consistency.results.verdict import Verdict
from consistency.watching.event_log import EventLog, LogSink
from consistency.watching.target_board import TargetBoard
from consistency.watching.target_ledger import PairsKeeper
from consistency.watching.target_loop import TargetWatch, TargetWatchOptions
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual
from tests.unit.fake_cluster import FakeCluster, nodes, port, table
from tests.unit.test_eventlog import logged
from tests.unit.test_metrics import figures
from tests.unit.test_watching import RF3, Ear

EQUAL = "consistency_target_last_equal_timestamp_seconds"
DIFFER = "consistency_target_rows_differing"
NOW = (EPOCH_S + 3600) * 1_000_000


def both_rings() -> dict[Side, Ring]:
    """Return two clusters of three nodes."""
    other = tuple(replace(node, host_id=f"other-{node.host_id}") for node in nodes())
    return {Side.SOURCE: Ring("test", MURMUR3, nodes()), Side.TARGET: Ring("next", MURMUR3, other)}


class Bench:
    """A watch of two fake clusters in virtual time; `at` runs something at a second of it."""

    def __init__(self, *names: str, ledger: Path | None = None) -> None:
        self.loop = VirtualLoop()
        self.sides = {side: FakeCluster().fill(5) for side in Side}
        tables = {name: table(name=name) for name in names or ("items", "orders", "users")}
        for cluster in self.sides.values():
            cluster.extra = {"shop": Keyspace("shop", RF3, tables)}
        self.rings = both_rings()
        self.sides[Side.TARGET].rings(self.rings[Side.TARGET])
        self.board = TargetBoard()
        self.stream = io.StringIO()
        self.ear = Ear()
        self.opened: list[float] = []
        self.away: Side | None = None
        self.keeper = PairsKeeper(ledger)
        self.live = LiveState(self.board.now, KeptReports(None), clock=lambda: 0.0)
        self.events: list[tuple[float, Any]] = []
        self.before: dict[tuple[str, ...], float] = {}
        self.after: dict[tuple[str, ...], float] = {}

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Pair]:
        self.opened.append(self.loop.time())
        if self.away is not None:
            msg = f"{self.away}: no node answers"
            raise ConnectError(msg)
        source, target = (Cluster(side, port(c), SimClock(self.loop)) for side, c in self.sides.items())
        yield Pair(source, target)

    def at(self, second: float, action: Any) -> None:
        """Do something then."""
        self.events.append((second, action))

    def run(self, seconds: float, period_s: float = 30.0, **changes: Any) -> TargetWatch:
        """Watch for so long."""
        compare = CompareOptions(settle_window_s=0.0, scan=ScanOptions(leaves_at_once=1), **changes.pop("compare", {}))
        options = TargetWatchOptions(compare, period_s, **changes)
        log = EventLog(LogSink(self.stream), "watch")
        watch = TargetWatch(self._open, options, self.board, log, [self.ear], keeper=self.keeper, audience=self.live)

        async def main() -> None:
            stop, start = asyncio.Event(), self.loop.time()
            for second, action in self.events:
                self.loop.call_at(start + second, action)
            self.loop.call_at(start + seconds, stop.set)
            self.opened.clear()
            await watch.run(stop)
            self.opened = [at - start for at in self.opened]

        run_virtual(self.loop, main())
        return watch

    @property
    def told(self) -> dict[tuple[str, ...], float]:
        """The metrics of now."""
        assert self.board.run_end is not None
        return figures(self.board.run_end)

    def logged(self, name: str) -> list[dict[str, Any]]:
        """The events of one name."""
        return [event for event in logged(self.stream.getvalue()) if event["event"] == name]


def lose(cluster: FakeCluster, row: int = 3) -> None:
    """Have no replica hold a row."""
    for held in cluster.rows.values():
        held.pop(row)


def test_every_table_is_compared_once_a_period_and_what_is_equal_is_told() -> None:
    """With the time at which the comparison began, zeros for all kinds, and both clusters by name."""
    bench = Bench()
    watch = bench.run(35)
    assert [round(at) for at in bench.opened] == [0, 10, 20, 30]
    assert watch.rounds == 1
    told = bench.told
    assert told["consistency_verdict", "consistent"] == 1
    assert told[EQUAL, "shop", "orders"] == pytest.approx(EPOCH_S + 10, abs=2)
    assert {told[DIFFER, "shop", kind.value, "orders"] for kind in PairKind} == {0}
    assert {told["consistency_target_inner_rows", "shop", side.value, "orders"] for side in Side} == {0}
    assert told["consistency_target_comparisons_total", "consistent"] == 4
    assert {key[2] for key in told if key[0] == "consistency_target_info"} == {"next"}
    assert {key[2] for key in told if key[0] == "consistency_cluster_info"} == {"test"}
    assert [e["table"] for e in bench.logged("target.compared")] == ["items", "orders", "users", "items"]
    assert bench.logged("watch.round")[0]["tables"] == 3
    assert bench.ear.messages == []


def test_a_table_that_was_not_compared_yet_is_unknown() -> None:
    """It was never equal as far as is known, and no figure of it is a zero."""
    bench = Bench()
    bench.run(5)
    told = bench.told
    assert told["consistency_verdict", "unknown"] == 1
    assert told[EQUAL, "shop", "users"] == 0
    assert not any((key[0], key[-1]) == (DIFFER, "users") for key in told)


def test_a_difference_is_told_to_metrics_log_and_hooks_and_ends_when_it_is_mended() -> None:
    """A row that the target lost at second 12; meanwhile it is still known when the table was last equal."""
    bench = Bench("orders")
    bench.at(12, lambda: lose(bench.sides[Side.TARGET]))
    bench.at(35, lambda: bench.sides[Side.TARGET].fill(5))
    seen: list[float] = []
    for name in ((DIFFER, "shop", "only_source", "orders"), (EQUAL, "shop", "orders")):
        bench.at(25, lambda name=name: seen.append(bench.told[name]))
    bench.run(55, period_s=10)
    assert seen == [1, pytest.approx(EPOCH_S + 10, abs=2)]
    assert [(m["event"], m["tables"][0]["kinds"]) for m in bench.ear.messages] == [
        ("target_diverged", {"only_source": 1})
    ] * 2
    message = bench.ear.messages[0]
    assert (message["source"]["cluster"], message["target"]["cluster"], message["verdict"]) == (
        "test",
        "next",
        "divergent",
    )
    levels = [(event["level"], event["differing"]) for event in bench.logged("target.compared")]
    assert levels == [("info", 0), ("info", 0), ("warning", 1), ("warning", 1), ("info", 0), ("info", 0)]
    assert bench.told[DIFFER, "shop", "only_source", "orders"] == 0
    assert bench.told[EQUAL, "shop", "orders"] == pytest.approx(EPOCH_S + 50, abs=2)


def test_a_side_that_disagrees_with_itself_is_told_of() -> None:
    """Its rows are no difference between the clusters."""
    bench = Bench("orders")
    bench.sides[Side.SOURCE].rows["10.0.0.2:9042"].pop(3)
    bench.run(5, period_s=10)
    assert bench.told["consistency_target_inner_rows", "shop", "source", "orders"] == 1
    assert bench.told["consistency_verdict", "divergent"] == 1
    assert bench.ear.messages[0]["tables"][0]["inner"] == {"source": 1, "target": 0}
    assert bench.told[EQUAL, "shop", "orders"] == 0


@pytest.mark.parametrize("side", list(Side))
def test_a_side_that_is_away_makes_tables_unknown_and_the_watch_goes_on(side: Side) -> None:
    """Tried again within a minute; when a table was last equal stays known, all else is not."""
    bench = Bench("orders")
    bench.at(5, lambda: setattr(bench, "away", side))
    bench.at(3_700, lambda: setattr(bench, "away", None))
    seen: list[dict[tuple[str, ...], float]] = []
    bench.at(3_650, lambda: seen.append(bench.told))
    bench.run(3_750, period_s=3_600)
    (told,) = seen
    assert told["consistency_last_run_exit_code",] == 4
    assert told["consistency_verdict", "unknown"] == 1
    assert told["consistency_target_comparisons_total", "unknown"] == 1
    assert told[EQUAL, "shop", "orders"] == pytest.approx(EPOCH_S, abs=2)
    assert not any(key[0] == DIFFER for key in told)
    assert [round(at) for at in bench.opened] == [0, 3600, 3660, 3720]
    assert bench.logged("run.failed")[0]["reason"] == f"{side}: no node answers"
    assert bench.told["consistency_verdict", "consistent"] == 1


def test_a_node_that_cannot_be_read_makes_a_table_unknown_never_equal() -> None:
    """The watch goes on with the others."""
    bench = Bench()
    bench.sides[Side.TARGET].broken["10.0.0.1:9042"] = ReplicaTimeout("no answer", "10.0.0.1:9042")
    watch = bench.run(29)
    assert watch.rounds == 1
    assert bench.told["consistency_target_comparisons_total", "unknown"] == 3
    assert bench.told[EQUAL, "shop", "orders"] == 0
    assert not any(key[0] == DIFFER for key in bench.told)


def test_a_table_without_a_counterpart_is_unknown() -> None:
    """Whatever the others are; the next visit sees that it was made."""
    bench = Bench("orders", "users")
    tables = bench.sides[Side.TARGET].extra["shop"].tables
    bench.sides[Side.TARGET].extra = {"shop": Keyspace("shop", RF3, {"orders": tables["orders"]})}
    bench.at(15, lambda: setattr(bench.sides[Side.TARGET], "extra", {"shop": Keyspace("shop", RF3, tables)}))
    seen: list[Any] = []
    bench.at(14, lambda: seen.append((bench.board.known.verdict, bench.board.known.tables[1].reason)))
    bench.run(35, period_s=10)
    ((verdict, reason),) = seen
    assert verdict is Verdict.UNKNOWN
    assert "the target has no table 'users'" in reason
    assert bench.board.known.verdict is Verdict.CONSISTENT


def test_names_that_do_not_exist_end_the_watch_at_once_and_later_they_do_not() -> None:
    """A mistake of the operator is told now; a table that is dropped is unknown from then on."""
    bench = Bench("orders")
    with pytest.raises(UsageError, match="no keyspace 'nosuch'"):
        bench.run(5, compare={"names": ("nosuch",)})
    with pytest.raises(UsageError, match="--target-dc dc9: the target has no such data centre"):
        Bench("orders").run(5, compare={"target_dc": "dc9"})
    bench = Bench("orders")
    bench.at(5, lambda: setattr(bench.sides[Side.TARGET], "extra", {"shop": Keyspace("shop", RF3, {})}))
    bench.run(25, period_s=10, compare={"names": ("shop.orders",)})
    assert bench.told["consistency_last_run_exit_code",] == 2
    assert bench.told["consistency_verdict", "unknown"] == 1


def test_a_restarted_watch_knows_when_tables_were_last_equal_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """From the ledger: but how many rows differ is said by its own comparisons alone."""
    ledger = tmp_path / "ledger"
    bench = Bench(ledger=ledger)
    bench.run(15)
    again = Bench(ledger=ledger)
    again.loop.now = bench.loop.now
    again.at(1, lambda: setattr(again, "before", again.told))
    again.run(3)
    told = again.before
    assert [e["table"] for e in again.logged("target.compared")] == ["users"]
    assert told[EQUAL, "shop", "items"] == pytest.approx(EPOCH_S, abs=2)
    assert told[EQUAL, "shop", "orders"] == pytest.approx(EPOCH_S + 10, abs=2)
    assert not any((key[0], key[-1]) == (DIFFER, "orders") for key in told)


def test_what_was_equal_before_a_table_was_altered_or_by_other_terms_is_not_known_to_be_equal(tmp_path: Path) -> None:
    """A table that was made anew, other columns, values instead of write times, another cluster of the name."""
    bench = Bench("orders", ledger=tmp_path / "ledger")
    bench.run(5)
    source, target = (bench.rings[side] for side in Side)
    orders, terms = table(name="orders"), "writetimes replicas"
    with open_ledger(tmp_path / "ledger") as file:
        pairs = file.pairs(source, target)
        past = pairs.past(ComparedPair(orders, orders, terms), NOW)
        assert past is not None
        assert (past.verdict, past.equal_us) == (Verdict.CONSISTENT, past.compared_us)
        for other in (table(name="orders", value="w"), replace(orders, table_id="anew")):
            assert pairs.past(ComparedPair(other, orders, terms), NOW) is None
            assert pairs.past(ComparedPair(orders, other, terms), NOW) is None
        assert pairs.past(ComparedPair(orders, orders, "values replicas"), NOW) is None
        strangers = Ring("next", MURMUR3, tuple(replace(node, host_id=f"new-{node.host_id}") for node in nodes()))
        assert file.pairs(source, strangers).past(ComparedPair(orders, orders, terms), NOW) is None
        grown = Ring("next", MURMUR3, (*strangers.nodes[1:], target.nodes[0]))
        assert file.pairs(source, grown).past(ComparedPair(orders, orders, terms), NOW) == past


@pytest.mark.parametrize("differ", [False, True])
def test_what_was_found_before_a_table_was_made_anew_is_told_no_more(differ: bool) -> None:
    """Neither that it is equal nor that it differs, and not only once it is compared again."""
    bench = Bench()
    if differ:
        lose(bench.sides[Side.TARGET])

    def made_anew() -> None:
        bench.before = bench.told
        shop = bench.sides[Side.TARGET].extra["shop"]
        tables = {**shop.tables, "items": replace(shop.tables["items"], table_id="anew")}
        bench.sides[Side.TARGET].extra = {"shop": replace(shop, tables=tables)}

    bench.at(5, made_anew)
    bench.at(15, lambda: setattr(bench, "after", bench.told))
    bench.run(40)
    assert {key[3] for key in bench.before if key[0] == DIFFER} == {"items"}
    assert {key[3] for key in bench.after if key[0] == DIFFER} == {"orders"}
    assert bench.after["consistency_verdict", "consistent"] == 0
    assert bench.after[EQUAL, "shop", "items"] == 0
    assert {key[3] for key in bench.told if key[0] == DIFFER} == {"items", "orders", "users"}


def test_what_the_ledger_no_longer_knows_to_be_equal_is_unknown() -> None:
    """Such as after another cluster of the name has taken the place of the target."""
    bench = Bench()

    def replaced() -> None:
        bench.before = bench.told
        bench.keeper._memory.clear()

    bench.at(25, replaced)
    bench.at(35, lambda: setattr(bench, "after", bench.told))
    bench.run(36)
    assert bench.before["consistency_verdict", "consistent"] == 1
    assert bench.after["consistency_verdict", "unknown"] == 1
    assert {key[3] for key in bench.after if key[0] == DIFFER} == {"items"}


def test_a_difference_leaves_in_the_ledger_when_the_table_was_equal(tmp_path: Path) -> None:
    """And a comparison that did not read all of it too."""
    orders = table(name="orders")
    pair = ComparedPair(orders, orders, "writetimes")
    rings = both_rings()
    with open_ledger(tmp_path / "ledger") as file:
        pairs = file.pairs(rings[Side.SOURCE], rings[Side.TARGET])
        for at, verdict in (
            (1, Verdict.UNKNOWN),
            (2, Verdict.CONSISTENT),
            (3, Verdict.DIVERGENT),
            (4, Verdict.UNKNOWN),
        ):
            known = pairs.record(pair, at, verdict)
            assert (known.compared_us, known.verdict) == (at, verdict)
            assert known.equal_us == (None if at == 1 else 2)
            assert pairs.past(pair, at) == known


@pytest.mark.parametrize("side", list(Side))
def test_a_run_on_either_cluster_makes_the_watch_wait(side: Side, tmp_path: Path) -> None:
    """Their locks lie beside the ledger; it says so once."""
    bench = Bench("orders", ledger=tmp_path / "ledger")
    open_ledger(tmp_path / "ledger").close()
    with one_run(bench.rings[side], tmp_path / "ledger"):
        bench.run(130, period_s=10)
    assert len(bench.logged("watch.waiting")) == 1
    assert bench.told["consistency_last_run_exit_code",] == 5
    bench = Bench("orders", ledger=tmp_path / "ledger")
    bench.run(5, period_s=10)
    assert bench.told["consistency_verdict", "consistent"] == 1


def test_one_cluster_under_two_names_of_tables_is_locked_once(tmp_path: Path) -> None:
    """Or it would wait for itself."""
    bench = Bench("orders", ledger=tmp_path / "ledger")
    bench.sides[Side.TARGET].rings(bench.rings[Side.SOURCE])
    bench.run(5)
    assert bench.told["consistency_verdict", "consistent"] == 1


@pytest.mark.parametrize("name", ["test", "next"])
def test_a_cluster_made_from_the_disks_of_another_is_watched(name: str, tmp_path: Path) -> None:
    """Of one name they have one lock; of two it has its own."""

    def watched() -> Bench:
        bench = Bench("orders", ledger=tmp_path / "ledger")
        bench.sides[Side.TARGET].rings(copied)
        bench.run(5)
        return bench

    copied = Ring(name, MURMUR3, nodes())
    assert watched().told["consistency_verdict", "consistent"] == 1
    with one_run(copied, tmp_path / "ledger"):
        assert len(watched().logged("watch.waiting")) == 1


def test_a_ledger_that_was_damaged_is_begun_anew(tmp_path: Path) -> None:
    """Nothing is known to have been equal."""
    path = tmp_path / "ledger"
    bench = Bench("orders", "users", ledger=path)

    def damage() -> None:
        data = bytearray(path.read_bytes())
        data[100:4000] = bytes(3900)
        path.write_bytes(bytes(data))
        for more in (path.with_name("ledger-wal"), path.with_name("ledger-shm")):
            more.unlink(missing_ok=True)

    bench.at(15, damage)
    bench.at(21, lambda: setattr(bench, "after", bench.told))
    bench.run(22, period_s=20)
    assert len(bench.logged("ledger.damaged")) == 1
    equal = {name: bench.after[EQUAL, "shop", name] for name in ("orders", "users")}
    assert min(equal.values()) == 0


@pytest.mark.parametrize("ledger", [True, False])
def test_what_was_equal_in_the_future_by_a_wrong_clock_is_not_known(ledger: bool, tmp_path: Path) -> None:
    """Or its table would not be compared until then, and no alert would tell that it is not equal."""
    bench = Bench("items", "orders", ledger=tmp_path / "ledger" if ledger else None)
    orders, later = table(name="orders"), (EPOCH_S + 86_400) * 1_000_000
    pair = ComparedPair(orders, orders, "writetimes replicas")
    with bench.keeper.visit(bench.rings) as kept:
        kept.record(pair, later, Verdict.CONSISTENT)
    bench.sides[Side.SOURCE].fill(6)
    bench.run(45)
    assert [e["table"] for e in bench.logged("target.compared")] == ["items", "orders", "items"]
    assert bench.told[EQUAL, "shop", "orders"] == 0
    with bench.keeper.visit(bench.rings) as kept:
        known = kept.past(pair, NOW)
    assert known is not None
    assert (known.verdict, known.equal_us) == (Verdict.DIVERGENT, None)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE compared SET verdict = 'consispent'",
        "UPDATE compared SET equal_us = 'x'",
        "UPDATE pairs SET source_hosts = '[\"a'",
        "UPDATE pairs SET target_hosts = 7",
    ],
)
def test_what_nobody_can_have_written_to_the_ledger_is_one_line(damage: str, tmp_path: Path) -> None:
    """SQLite has no sums of what it holds, so a damaged row may be read as if it were whole."""
    path, orders = tmp_path / "ledger", table(name="orders")
    keeper, pair = PairsKeeper(path), ComparedPair(orders, orders, "writetimes")
    with keeper.visit(both_rings()) as kept:
        kept.record(pair, 1, Verdict.CONSISTENT)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(damage)
    words = r"cannot be read \(what it holds of two clusters is damaged\)"
    with pytest.raises(LedgerError, match=words), keeper.visit(both_rings()) as kept:
        kept.past(pair, NOW)


def test_a_comparison_that_cannot_be_recorded_does_not_pass_for_one_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: exit code 4, and the table was not equal as far as will be known."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    bench = Bench("orders", ledger=tmp_path / "ledger")
    monkeypatch.setattr(PairsLedger, "record", full)
    bench.run(5)
    assert bench.told["consistency_last_run_exit_code",] == 4
    assert bench.told[EQUAL, "shop", "orders"] == 0
    assert len(bench.logged("ledger.unwritten")) == 1


def test_findings_are_kept_for_each_table(tmp_path: Path) -> None:
    """As of the latest comparison, so that sync has its file when the alert comes; a broken folder ends nothing."""
    bench = Bench("items", "orders")
    lose(bench.sides[Side.TARGET])
    bench.run(25, findings_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.items.jsonl", "shop.orders.jsonl"]
    assert [found.kind for found in read_compared(tmp_path / "shop.orders.jsonl")] == [PairKind.ONLY_SOURCE]
    assert bench.ear.messages[0]["findings"] == str(tmp_path / "shop.items.jsonl")


def test_a_comparison_that_is_cut_off_counts_nowhere(tmp_path: Path) -> None:
    """What was known stays as it was, in the ledger too."""
    bench = Bench("orders", ledger=tmp_path / "ledger")
    bench.at(15, lambda: setattr(bench.sides[Side.SOURCE], "on_digest", lambda: asyncio.sleep(3_600)))
    bench.run(25, period_s=10, findings_dir=tmp_path)
    assert bench.told["consistency_target_comparisons_total", "consistent"] == 2
    assert bench.told["consistency_target_comparisons_total", "unknown"] == 0
    assert [event["interrupted"] for event in bench.logged("target.compared")] == [False, False, True]
    with open_ledger(tmp_path / "ledger") as file:
        orders = table(name="orders")
        past = file.pairs(*bench.rings.values()).past(ComparedPair(orders, orders, "writetimes replicas"), NOW)
        assert past is not None
        assert past.compared_us == past.equal_us
    assert bench.told[EQUAL, "shop", "orders"] == pytest.approx(EPOCH_S + 10, abs=2)
    assert not list(tmp_path.glob("*.visit"))


def test_the_live_page_shows_when_each_table_was_last_equal() -> None:
    """And how many rows differ, or that this is unknown."""
    bench = Bench("items", "orders", "users")
    lose(bench.sides[Side.TARGET])
    bench.run(5)
    page = LiveRenderer(bench.live, lambda: True).document()
    assert "target: last equal" in page
    assert "1 only source" in page
    assert "test → next" in page
    assert "1 row differ between the clusters" in page or "1 row differs between the clusters" in page
    assert page.count("not compared yet by this watch") == 2
    assert page.count("never, as far as is known") == 3


def test_the_live_page_says_why_nothing_is_known() -> None:
    """A side that is away is named."""
    bench = Bench("orders")
    bench.at(2, lambda: setattr(bench, "away", Side.TARGET))
    bench.run(15, period_s=10)
    page = LiveRenderer(bench.live, lambda: True).document()
    assert "target: no node answers" in page
    assert "1 table not proven equal yet" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--compare", "values"), "--compare is about a second cluster: add --target"),
        (("--target-dc", "dc1"), "--target-dc is about a second cluster: add --target"),
        (("--target-port", "9043"), "--target-port is about a second cluster: add --target"),
        (("--target", "--repair"), "--repair is not for a watch with --target"),
        (("--target", "--depth", "content"), "--depth is not for a watch with --target: use --compare"),
        (("--target-hosts", "127.0.0.9", "--views"), "--views is not for a watch with --target"),
        (("--target", "--run-time", "5"), "--run-time is not for a watch with --target"),
        (("--target", "--html-dir", "."), "--html-dir is not for a watch with --target"),
        (("--target",), "--target-hosts"),
        (
            ("--target-hosts", "127.0.0.9", "--compare", "values", "--tolerate-writetime", "1"),
            "leave out --tolerate-writetime",
        ),
    ],
)
@pytest.mark.usefixtures("no_settings_of_this_machine")
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...], said: str) -> None:
    """In one line with the way out."""
    result = CliRunner().invoke(main, ["watch", *options])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
