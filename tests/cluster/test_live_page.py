"""The live page of a real watch: a node goes down and comes back, twenty pages are open, an application goes on.

CONSISTENCY_SOAK_SECONDS is how long the pages stay open (600 in `make soak`).
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_watch import SECONDS, SOAK_S, Watching, watching
from tests.support.cluster import RunningCluster, eventually
from tests.support.figures import Figures

pytestmark = pytest.mark.cluster

PAGES = 20
TABLES = ("one", "two", "three", "four")
ROWS = 300
ALONE_S = 2.0 if SECONDS < SOAK_S else 60.0
"""How long an application is measured without the pages: for the figures, nothing is judged by it."""
TURNS = 8
"""How often an application is measured beside a watch whose page is open, and as often with it closed."""


@pytest.fixture
def shop(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """Four small tables; of the second a row is missing on node 3."""
    cluster.keyspace("page")
    cluster.tables(f"CREATE TABLE page.{name} (id int PRIMARY KEY, v text)" for name in TABLES)
    for name in TABLES:
        cluster.load(f"INSERT INTO page.{name} (id, v) VALUES (?, 'v')", ((i,) for i in range(ROWS)))
    cluster.on(3, "DELETE FROM page.two WHERE id = 7")
    yield cluster
    cluster.ddl("DROP KEYSPACE page")


class OpenPage(threading.Thread):
    """An open page: its sections as they are now, and how much it was sent."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._answer = urllib.request.urlopen(f"http://{address}/events", timeout=60)
        self.sections: dict[str, str] = {}
        self.events = self.bytes = 0
        self._closed = False
        self.start()

    def run(self) -> None:
        """Take what comes until the watch ends."""
        try:
            for line in self._answer:
                if self._closed:
                    self._answer.close()
                    return
                self.bytes += len(line)
                if line.startswith(b"data: "):
                    self.events += 1
                    self.sections |= json.loads(line[6:])
        except (OSError, ValueError):
            return

    def close(self) -> None:
        """Close it; it is gone when its next line has come."""
        self._closed = True
        self.join(60)


def asked(address: str, path: str) -> float:
    """Return how long a request took, in seconds."""
    began = time.monotonic()
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        answer.read()
    return time.monotonic() - began


def latencies(cluster: RunningCluster, seconds: float) -> list[float]:
    """Return how long reads of an application took, in seconds, at a moderate pace."""
    prepared = cluster.session.prepare("SELECT v FROM page.one WHERE id = ?")
    until, out = time.monotonic() + seconds, []
    while time.monotonic() < until:
        began = time.monotonic()
        cluster.session.execute(prepared, (len(out) % ROWS,))
        out.append(time.monotonic() - began)
        time.sleep(0.004)
    return out


def p99_ms(times: list[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return 1_000 * statistics.quantiles(times, n=100)[98]


def test_a_node_that_goes_down_and_comes_back_is_seen(shop: RunningCluster, tmp_path: Path) -> None:
    """Its circle turns unread and it is said not to answer; back, its ranges agree again."""
    if shop.sandbox is None:
        pytest.skip("the nodes are not ours to stop")
    words = ("page", "--period", "4", "--settle", "0.3", "--html-dir", str(tmp_path))
    with watching(shop, tmp_path, *words) as watch:
        page = OpenPage(watch.address)
        eventually(lambda: len(watch.events("table.done")) >= len(TABLES), 90, "the first round")
        eventually(lambda: "1 row in 1 table differ" in page.sections["head"], 30, "the divergence")
        run_id = page.sections["runs"].split('href="runs/')[1].split('"')[0]
        assert asked(watch.address, f"/runs/{run_id}") < 5
        shop.close()
        shop.sandbox.stop(3)
        eventually(lambda: shop.name(3) in _silent(page), 120, "the silent node")
        eventually(lambda: '<path class="unread"' in _ring(page), 120, "its unread ranges")
        shop.sandbox.start(3)
        eventually(lambda: not _silent(page) and '<path class="unread"' not in _ring(page), 180, "it back")
        watch.end()


def _ring(page: OpenPage) -> str:
    return page.sections.get("ring", "")


def _silent(page: OpenPage) -> list[str]:
    """Return the lines of the ring that say of a node that it does not answer."""
    lines = [line for line in _ring(page).split("<li>") if "does not answer" in line or "is down" in line]
    return [word for line in lines for word in line.replace("<", ">").split(">") if ":" in word]


def test_twenty_open_pages_cost_little(shop: RunningCluster, tmp_path: Path, figures: Figures) -> None:
    """Memory stays flat, no request takes a second, an application beside it does not notice."""
    alone = latencies(shop, ALONE_S)
    words = ("page", "--period", "8", "--settle", "0.3", "--html-dir", str(tmp_path))
    with watching(shop, tmp_path, *words) as watch:
        eventually(lambda: len(watch.events("table.done")) >= len(TABLES), 90, "the first round")
        unwatched = latencies(shop, ALONE_S)
        pages = [OpenPage(watch.address) for _ in range(PAGES)]
        eventually(lambda: all(page.events for page in pages), 30, "the first event of each")
        memory: list[float] = []
        slowest: dict[str, float] = {}
        beside: list[float] = []
        application = threading.Thread(target=lambda: beside.extend(latencies(shop, SECONDS)))
        application.start()
        began_cpu, began = _processor_s(watch), time.monotonic()
        while application.is_alive():
            for path in ("/", "/metrics", "/healthz"):
                slowest[path] = max(slowest.get(path, 0.0), asked(watch.address, path))
            memory.append(watch.memory_mb)
            time.sleep(1.0)
        share = (_processor_s(watch) - began_cpu) / (time.monotonic() - began)
        third = max(1, len(memory) // 3)
        before, after = statistics.mean(memory[:third]), statistics.mean(memory[-third:])
        sent = sum(page.bytes for page in pages) / PAGES / SECONDS
        figures.add(
            f"a watch with {PAGES} open pages for {SECONDS:.0f} s",
            f"memory {before:.0f} MB in the first third, {after:.0f} MB in the last; slowest "
            + ", ".join(f"{path} {took:.2f} s" for path, took in slowest.items())
            + f"; {sent:,.0f} bytes a second to each page; {100 * share:.0f}% of a core; p99 of an application "
            f"{p99_ms(alone):.1f} ms alone, {p99_ms(unwatched):.1f} ms beside the watch, {p99_ms(beside):.1f} ms "
            "beside the open pages",
        )
        assert all(page.is_alive() for page in pages)
        assert max(slowest.values()) < (1.0 if SECONDS >= SOAK_S else 5.0)  # other tests may need the processors
        assert after <= before * 1.1 + 15
        watch.end()


@pytest.mark.skipif(SECONDS < SOAK_S, reason="long: CONSISTENCY_SOAK_SECONDS=600, as in make soak")
def test_an_application_does_not_notice_that_somebody_looks(
    shop: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """Its p99 beside a watch, by turns with an open page and without: the machine's own moods meet both alike."""
    turn_s = min(20.0, SECONDS / TURNS / 2)
    p99: dict[bool, list[float]] = {False: [], True: []}
    with watching(shop, tmp_path, "page", "--period", "8", "--settle", "0.3") as watch:
        eventually(lambda: len(watch.events("table.done")) >= len(TABLES), 90, "the first round")
        latencies(shop, turn_s)  # the servers are warm for both
        for turn in range(2 * TURNS):
            looked_at = turn % 4 in {1, 2}  # without, with, with, without
            page = OpenPage(watch.address) if looked_at else None
            p99[looked_at].append(p99_ms(latencies(shop, turn_s)))
            if page is not None:
                assert page.events > 0
                page.close()
        watch.end()
    without, beside = (statistics.median(p99[looked_at]) for looked_at in (False, True))
    figures.add(
        f"p99 of an application beside a watch, {TURNS} turns of {turn_s:.0f} s each way",
        f"{without:.1f} ms with its page closed, {beside:.1f} ms with it open (medians; "
        f"{min(p99[False]):.1f} to {max(p99[False]):.1f}, {min(p99[True]):.1f} to {max(p99[True]):.1f})",
    )
    assert beside <= 1.25 * without + 1.0


def _processor_s(watch: Watching) -> float:
    """Return the processor time of the watch's process, in seconds."""
    fields = Path(f"/proc/{watch.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
