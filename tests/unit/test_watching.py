"""The watch: every table in turn, nothing clean that was not visited, hooks told, metrics and health served."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.tasks import CheckOptions
from consistency.errors import ConnectError, ReplicaTimeout, UsageError
from consistency.model.ring import Replication
from consistency.model.schema import Keyspace
from consistency.watching.board import Board
from consistency.watching.event_log import EventLog, LogSink
from consistency.watching.hooks import HookFailed
from consistency.watching.http import Server
from consistency.watching.loop import Watch, WatchOptions, least_recently_visited
from consistency.watching.metrics import CleanPass, render
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual
from tests.unit.fake_cluster import US, FakeCluster, Version, port, table
from tests.unit.test_eventlog import logged
from tests.unit.test_metrics import figures

RF3 = Replication.parse({"class": "NetworkTopologyStrategy", "dc1": "3"})


class Ear:
    """A hook that remembers what it was told."""

    name = "ear"

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.deaf = False

    async def tell(self, message: bytes) -> None:
        if self.deaf:
            raise HookFailed("deaf")
        self.messages.append(json.loads(message))


class Bench:
    """A watch of a fake cluster in virtual time; `at` runs something at a second of it."""

    def __init__(self, names: tuple[str, ...] = ("items", "orders", "users")) -> None:
        self.loop = VirtualLoop()
        self.cluster = FakeCluster().fill(5)
        tables = {name: table(name=name) for name in names}
        self.cluster.extra = {"shop": Keyspace("shop", RF3, tables)}
        self.board = Board()
        self.stream = io.StringIO()
        self.ear = Ear()
        self.opened: list[float] = []
        self.refuse = False
        self.audience: Any = None
        self.events: list[tuple[float, Any]] = []

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Any, Any]]:
        self.opened.append(self.loop.time())
        if self.refuse:
            raise ConnectError("no node answers")
        yield port(self.cluster), SimClock(self.loop)

    def at(self, second: float, action: Any) -> None:
        """Do something then."""
        self.events.append((second, action))

    def run(self, seconds: float, period_s: float = 30.0, **changes: Any) -> Watch:
        """Watch for so long."""
        options = WatchOptions(CheckOptions(settle_window_s=0.0), period_s, **changes)
        log = EventLog(LogSink(self.stream), "watch")
        watch = Watch(self._open, options, self.board, log, [self.ear], audience=self.audience)

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

    @property
    def names(self) -> list[str]:
        """The events logged."""
        return [event["event"] for event in logged(self.stream.getvalue())]


def test_every_table_is_visited_once_a_period_evenly_spread() -> None:
    """Three tables in 30 seconds: one every ten."""
    bench = Bench()
    watch = bench.run(95)
    assert [round(at) for at in bench.opened] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert watch.rounds == 3
    assert bench.told["consistency_watch_rounds_total",] == 3
    assert bench.names.count("watch.round") == 3
    visited = [e["table"] for e in logged(bench.stream.getvalue()) if e["event"] == "table.done"]
    assert visited[:4] == ["items", "orders", "users", "items"]


def test_what_was_not_visited_yet_is_unknown() -> None:
    """After one of three tables nothing is consistent but that one; after all three everything is."""
    bench = Bench()
    bench.run(5)
    told = bench.told
    assert told["consistency_verdict", "unknown"] == 1
    assert told["consistency_divergent_rows", "shop", "items"] == 0
    assert ("consistency_divergent_rows", "shop", "users") not in told
    assert ("consistency_findings", "missing") not in told
    bench = Bench()
    bench.run(25)
    assert bench.told["consistency_verdict", "consistent"] == 1
    assert bench.told["consistency_findings", "missing"] == 0


def test_a_divergence_is_told_to_metrics_log_and_hooks_and_ends_when_it_is_repaired() -> None:
    """Damage at second 12 is found by the next visit of each table; the repair by those after it."""
    bench = Bench(("orders",))
    held = bench.cluster.rows["10.0.0.2:9042"]
    bench.at(12, lambda: held.update({3: Version("newer", US + 60_000_000)}))
    bench.at(35, lambda: bench.cluster.fill(5))
    seen: list[float] = []
    bench.at(25, lambda: seen.append(bench.told["consistency_divergent_rows", "shop", "orders"]))
    bench.run(55, period_s=10)
    assert seen == [1]
    assert [m["tables"][0]["divergent_rows"] for m in bench.ear.messages] == [1, 1]
    assert bench.names.count("hook.delivered") == 2
    assert bench.told["consistency_divergent_rows", "shop", "orders"] == 0
    assert bench.told["consistency_verdict", "consistent"] == 1


def test_a_hook_that_cannot_be_told_is_counted() -> None:
    """And the watch goes on."""
    bench = Bench(("orders",))
    bench.ear.deaf = True
    bench.cluster.rows["10.0.0.2:9042"].pop(3)
    bench.run(25, period_s=10)
    assert bench.told["consistency_hook_failures_total",] == 3
    assert bench.names.count("hook.failed") == 3


def test_a_cluster_that_does_not_answer_is_tried_again_within_a_minute_and_nothing_stays_clean() -> None:
    """However long the period; what was clean an hour ago is not known any more once its visit failed."""
    bench = Bench(("orders",))
    bench.at(5, lambda: setattr(bench, "refuse", True))
    bench.at(3_700, lambda: setattr(bench, "refuse", False))
    codes: list[float] = []
    for name in (("consistency_last_run_exit_code",), ("consistency_verdict", "unknown")):
        bench.at(3_650, lambda name=name: codes.append(bench.told[name]))
    bench.run(3_750, period_s=3_600)
    assert codes == [4, 1]
    assert [round(at) for at in bench.opened] == [0, 3600, 3660, 3720]
    assert bench.told["consistency_last_run_exit_code",] == 0
    assert bench.told["consistency_verdict", "consistent"] == 1


def test_a_table_that_cannot_be_read_is_unknown_and_does_not_keep_the_others_waiting() -> None:
    """Each visit of it fails, and the next one is another table's."""
    bench = Bench()
    bench.cluster.broken["10.0.0.1:9042"] = ReplicaTimeout("no answer", "10.0.0.1:9042")
    watch = bench.run(29)
    assert watch.rounds == 1
    assert bench.told["consistency_verdict", "unknown"] == 1
    assert bench.told["consistency_digests", "failed"] > 0


def test_a_table_that_was_dropped_is_forgotten_and_a_new_one_is_visited_first() -> None:
    """The scope is read anew at every visit."""
    bench = Bench(("items", "orders"))
    tables = {name: table(name=name) for name in ("orders", "zebras")}
    bench.at(19, lambda: setattr(bench.cluster, "extra", {"shop": Keyspace("shop", RF3, tables)}))
    bench.run(25, period_s=20)
    told = {key[2] for key in bench.told if key[0] == "consistency_divergent_rows"}
    assert told == {"orders", "zebras"}


def test_what_was_found_of_a_table_says_nothing_of_the_one_that_was_made_anew() -> None:
    """Between its DROP and CREATE, or its ALTER, and its next visit a table is unknown, not clean."""
    bench = Bench(("items", "orders"))
    tables = {"items": table(name="items"), "orders": replace(table(name="orders"), table_id="made anew")}
    bench.at(19, lambda: setattr(bench.cluster, "extra", {"shop": Keyspace("shop", RF3, tables)}))
    told: list[set[tuple[str, ...]]] = []
    for second in (18, 25, 35):
        bench.at(second, lambda: told.append({key[1:] for key in bench.told if key[0] == "consistency_divergent_rows"}))
    bench.at(26, lambda: told.append({key for key, on in bench.told.items() if key[0] == "consistency_verdict" and on}))
    bench.run(38, period_s=20)
    items, orders = ("shop", "items"), ("shop", "orders")
    assert told == [{items, orders}, {items}, {("consistency_verdict", "unknown")}, {items, orders}]


def test_names_that_do_not_exist_end_the_watch_at_once() -> None:
    """A mistake of the operator is told now, not logged for ever."""
    bench = Bench()
    options = WatchOptions(CheckOptions(names=("nosuch",)))
    watch = Watch(bench._open, options, bench.board)
    with pytest.raises(UsageError, match="no keyspace 'nosuch'"):
        run_virtual(bench.loop, watch.run(asyncio.Event()))


def test_findings_are_kept_for_each_table(tmp_path: Path) -> None:
    """So that explain and repair have their file when the alert comes."""
    bench = Bench(("items", "orders"))
    bench.cluster.rows["10.0.0.2:9042"].pop(3)
    bench.run(25, findings_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.items.jsonl", "shop.orders.jsonl"]
    assert len((tmp_path / "shop.orders.jsonl").read_text().splitlines()) == 2


def test_the_board_keeps_no_rows() -> None:
    """A watch of months must not grow, and a dump of it holds no key."""
    bench = Bench(("orders",))
    bench.cluster.rows["10.0.0.2:9042"].pop(3)
    bench.run(15, period_s=10)
    assert bench.board.run_end is not None
    assert bench.board.run_end.report is not None
    assert bench.board.run_end.report.top == ()


def test_ages_of_clean_passes_are_told_where_somebody_keeps_them() -> None:
    """Asked anew at every visit, also at one that failed."""
    bench, ages = Bench(("orders",)), [10.0]
    bench.board = Board(clean_passes=lambda: (CleanPass("shop", "orders", ages[0], 864_000),))
    bench.at(12, lambda: (ages.append(ages.pop() + 100), setattr(bench, "refuse", True)))
    name, seen = ("consistency_oldest_clean_pass_age_seconds", "shop", "orders"), []
    bench.at(5, lambda: seen.append(bench.told[name]))
    bench.run(25, period_s=10)
    assert [*seen, bench.told[name]] == [10, 110]
    assert bench.told["consistency_last_run_exit_code",] == 4


def test_the_next_table_is_the_one_that_waits_longest() -> None:
    """One that never had a visit comes before all others, by name."""
    a, b, c = (table(name=name) for name in "abc")
    visited: Mapping[str, float] = {"shop.a": 5.0, "shop.b": 3.0}
    assert least_recently_visited((a, b), visited) is b
    assert least_recently_visited((a, b, c), visited) is c
    assert least_recently_visited((c, b), {}) is b


# HTTP.


def get(url: str, accept: str = "") -> tuple[int, str, str]:
    """Return status, content type and body."""
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_metrics_and_health_are_served() -> None:
    """The text of the file, OpenMetrics where it is asked for, and 503 where the loop does not turn."""
    bench, healthy = Bench(), [True]
    bench.run(25)
    outcome = bench.board.run_end
    assert outcome is not None
    server = Server("127.0.0.1:0", lambda: outcome, lambda: healthy[0])
    try:
        base = f"http://{server.address}"
        status, kind, body = get(base + "/metrics")
        assert (status, body) == (200, render(outcome))
        assert kind.startswith("text/plain")
        status, kind, body = get(base + "/metrics?x=1", "application/openmetrics-text; version=1.0.0")
        assert (status, kind.split(";")[0], body.endswith("# EOF\n")) == (200, "application/openmetrics-text", True)
        assert get(base + "/healthz")[::2] == (200, "ok\n")
        healthy[0] = False
        assert get(base + "/healthz")[0] == 503
        assert get(base + "/")[0] == 404
    finally:
        server.close()


def test_before_the_first_visit_there_is_no_figure() -> None:
    """No data, no zero."""
    server = Server("127.0.0.1:0", lambda: None, lambda: True)
    try:
        assert get(f"http://{server.address}/metrics")[::2] == (200, "")
    finally:
        server.close()


@pytest.mark.parametrize("listen", ["", "9477", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    """With an example."""
    with pytest.raises(UsageError, match=r"HOST:PORT, such as 127\.0\.0\.1:9477"):
        Server(listen, lambda: None, lambda: True)


def test_an_address_that_is_taken_is_refused() -> None:
    """In one line."""
    server = Server("127.0.0.1:0", lambda: None, lambda: True)
    try:
        with pytest.raises(UsageError, match="in use; choose another"):
            Server(server.address, lambda: None, lambda: True)
    finally:
        server.close()


# The command.


def test_the_command_watches_until_sigterm_and_leaves_with_0(tmp_path: Path) -> None:
    """In a process of its own, where no node answers: it serves, says what it knows, and ends within seconds."""
    code = "import sys; from consistency.cli import main; sys.argv[0] = 'consistency'; main()"
    words = [sys.executable, "-c", code, "watch", "--hosts", "127.0.0.1:1", "--listen", "127.0.0.1:0"]
    environ = {n: v for n, v in os.environ.items() if not n.startswith("CONSISTENCY_")}
    environ["HOME"] = str(tmp_path)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stderr is not None
            started = json.loads(process.stderr.readline())
            failed = json.loads(process.stderr.readline())
            assert (started["event"], failed["event"], failed["error"]) == (
                "watch.started",
                "run.failed",
                "ConnectError",
            )
            base = f"http://{started['address']}"
            assert get(base + "/healthz")[0] == 200
            told = figures(get(base + "/metrics")[2])
            assert (told["consistency_last_run_exit_code",], told["consistency_verdict", "unknown"]) == (4, 1)
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(timeout=20) == 0
            assert time.monotonic() - asked < 10
            assert json.loads(rest.splitlines()[-1])["event"] == "watch.stopped"
            assert not re.search("Traceback|Error", rest)
        finally:
            process.kill()  # or leaving the block waits for ever


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--webhook", "https://alerts.example"), "needs a secret"),
        (("--hook", " "), "--hook names no command"),
        (("--listen", "x"), "--listen 'x' is not HOST:PORT"),
        (("--metrics-label", "table=x"), "is taken"),
        (("--findings-dir", "no/such/dir"), "is not a directory"),
        (("--period", "x"), "not a number of seconds"),
        (("nosuch",), "there is no keyspace 'nosuch'"),
    ],
)
def test_what_cannot_be_used_is_refused(shell: Any, words: tuple[str, ...], said: str) -> None:
    """Exit 2, before anything is watched for ever."""
    result = shell.run("watch", "--listen", "127.0.0.1:0", *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
