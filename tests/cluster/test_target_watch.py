"""A watch of two real clusters: what is planted is told, a target that is silent makes it unknown, and it goes on.

And what a comparison finds beside clients that race, each cluster stamping their writes by itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import final

import pytest

from consistency import Compare, CompareOptions, PairFinding, Side, compare, read_compared
from consistency.results.pair_findings import Compared
from tests.cluster.test_watch import watching
from tests.support.cluster import RunningCluster, eventually
from tests.support.figures import Figures
from tests.support.pairs import Both

pytestmark = pytest.mark.cluster

EQUAL = ("consistency_target_last_equal_timestamp_seconds", "watched", "flat")


def differing(metrics: dict[tuple[str, ...], float], kind: str) -> float | None:
    """Return how many rows differ in that way; None where it is not known."""
    return metrics.get(("consistency_target_rows_differing", "watched", kind, "flat"))


def test_a_watch_tells_when_two_clusters_were_equal_and_goes_on_while_one_is_silent(
    cluster: RunningCluster, target: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """Damage reaches metrics, hook and findings; a frozen target is unknown; it ends on SIGTERM and remembers.

    And what its ledger knows to be equal need not be compared again before a switch.
    """
    both = Both(cluster, target)
    both.make("watched")
    for i in range(200):
        both.everywhere(f"INSERT INTO watched.flat (id, v, w) VALUES ({i}, 'v{i}', {i}) USING TIMESTAMP @")
    told = tmp_path / "told"
    config = tmp_path / "both.toml"
    config.write_text(
        f'[connection]\nconnect_timeout = 2\n[target]\nhosts = ["{target.hosts[0]}"]\nport = {target.port}\n'
        "connect_timeout = 2\n"
    )
    config.chmod(0o600)
    hook = f"{sys.executable} -c \"import sys; open('{told}', 'ab').write(sys.stdin.buffer.read() + b'\\n')\""
    words = ["watched.flat", "--target", "--config", str(config), "--period", "2", "--settle", "0.3"]
    words += ["--findings-dir", str(tmp_path), "--hook", hook]
    with watching(cluster, tmp_path, *words) as watch:
        eventually(lambda: watch.metrics.get(EQUAL, 0) > 0, 60, "the first comparison")
        assert differing(watch.metrics, "only_source") == 0
        both.write(Side.SOURCE, "INSERT INTO watched.flat (id, v) VALUES (900, 'lost') USING TIMESTAMP @")
        eventually(lambda: differing(watch.metrics, "only_source") == 1, 30, "a finding")
        eventually(told.exists, 10, "the hook's message")
        message = json.loads(told.read_text().splitlines()[0])
        assert (message["event"], message["tables"][0]["kinds"]) == ("target_diverged", {"only_source": 1})
        (found,) = read_compared(tmp_path / "watched.flat.jsonl")
        assert isinstance(found, PairFinding)
        assert dict(found.key) == {"id": 900}
        before = watch.metrics[EQUAL]
        assert target.sandbox is not None
        target.sandbox.stop(1, "freeze")
        try:
            away = ("consistency_target_comparisons_total", "unknown")
            eventually(lambda: watch.metrics[away] >= 1, 90, "a comparison that could not be made")
            assert watch.metrics["consistency_verdict", "unknown"] == 1
            assert watch.metrics[EQUAL] == before
            assert differing(watch.metrics, "only_source") is None
        finally:
            target.sandbox.start(1)
        both.write(Side.TARGET, "INSERT INTO watched.flat (id, v) VALUES (900, 'lost') USING TIMESTAMP @")
        eventually(lambda: watch.metrics[EQUAL] > before, 90, "its being equal again")
        equal = watch.metrics[EQUAL]
        figures.add("a watch of two clusters: seconds from SIGTERM to its end", f"{watch.end():.1f}")
    both.write(Side.SOURCE, "INSERT INTO watched.flat (id, v) VALUES (901, 'lost') USING TIMESTAMP @")
    with watching(cluster, tmp_path, *words) as watch:
        eventually(lambda: differing(watch.metrics, "only_source") == 1, 60, "a finding of the watch that began again")
        assert watch.metrics[EQUAL] >= equal
        watch.end()
    both.write(Side.TARGET, "INSERT INTO watched.flat (id, v) VALUES (901, 'lost') USING TIMESTAMP @")
    ledger = ["--config", str(config), "--ledger", str(tmp_path / "ledger"), "--settle", "0.3", "--quiet"]
    asked = ["cutover-check", "watched.flat", *ledger, "--max-age", "1h"]
    found_now = cluster.command(*asked)  # the watch has seen it differ, so it is compared
    assert found_now.stdout.startswith("YES  the target holds exactly what the source holds: 202 rows in 1 table\n")
    assert cluster.command("compare", "watched.flat", *ledger).returncode == 0
    page = tmp_path / "page.html"
    assert cluster.command("compare", "watched.flat", *ledger[:2], "--quiet", "--html", str(page)).returncode == 0
    assert "The target holds exactly what the source holds: 202 rows" in page.read_text()
    by_ledger = cluster.command(*asked)
    assert "1 table by the ledger" in by_ledger.stdout, by_ledger.stdout + by_ledger.stderr
    assert by_ledger.returncode == 0


@final
class Racing:
    """Two clients that write to the same rows of both clusters at the same moment, each cluster stamping by itself."""

    def __init__(self, both: Both, table: str) -> None:
        self.left_alone: set[int] = set()
        self._together = threading.Barrier(2)
        self._sides = []
        for cluster in (both.source, both.target):
            statement = cluster.session.prepare(f"INSERT INTO {table} (id, v, w) VALUES (?, ?, ?)")
            self._sides.append((cluster.session, statement))
        self._clients = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(2)]

    def _run(self, client: int) -> None:
        for write in range(1_000_000):
            try:
                self._together.wait(10)
            except threading.BrokenBarrierError:
                return
            row = write * 7_919 % 2_000
            if row not in self.left_alone:
                for session, statement in self._sides:
                    session.execute(statement, (row, f"{client} {write}", write))

    def __enter__(self) -> Racing:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._together.abort()
        for client in self._clients:
            client.join()


def test_a_difference_that_racing_clients_leave_is_one_for_good(
    cluster: RunningCluster, target: RunningCluster, figures: Figures
) -> None:
    """Without a common write time each cluster keeps another winner: every row found differs when it is read later.

    Unless somebody has written to it since, on both sides.
    """
    both = Both(cluster, target)
    both.make("race")
    taken: list[PairFinding] = []
    for side in (cluster, target):
        side.session.use_client_timestamp = False
    try:
        with Racing(both, "race.flat") as racing:

            def take(found: Compared) -> None:
                assert isinstance(found, PairFinding)
                racing.left_alone.add(found.key["id"])
                taken.append(found)

            time.sleep(3.0)
            options = CompareOptions(compare=Compare.VALUES, settle_window_s=1.0)
            reach = {"settings": cluster.settings, "target_settings": target.settings}
            compare("race.flat", options=options, take=take, **reach)
    finally:
        for side in (cluster, target):
            side.session.use_client_timestamp = True
    became = Counter(_what_became_of(both, found) for found in taken)
    assert taken, "two clients that write at the same moment reach two clusters in either order now and then"
    assert not became["the same"], became
    figures.add("rows of racing clients found to differ, all of them for good", f"{len(taken):,}")


def _what_became_of(both: Both, found: PairFinding) -> str:
    """Say whether a row differs still, was written anew on both sides, or is the same without that."""
    cql = f"SELECT v, writetime(v) AS at FROM race.flat WHERE id = {found.key['id']}"
    rows = {Side.SOURCE: both.source.quorum(cql).one(), Side.TARGET: both.target.quorum(cql).one()}
    if rows[Side.SOURCE]["v"] != rows[Side.TARGET]["v"]:
        return "different"
    if all(rows[side]["at"] > found.sides[side].writetimes["v"] for side in Side):
        return "written since"
    return "the same"
