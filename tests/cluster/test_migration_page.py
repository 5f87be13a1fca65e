"""The how-to of a migration without downtime, line by line, on two clusters and beside the writes of its proxy."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.cluster.test_pages import free_port
from tests.support.cluster import RunningCluster, eventually
from tests.support.figures import LONG, Figures
from tests.support.how_to import PageShell

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PAGE = "migrate.md"
ROWS = 20_000 if LONG else 300
COMPARE = "consistency compare shop --config both.toml --findings differing.jsonl"
STOP = "consistency cutover-check shop --config both.toml --max-age 1h && echo target"
BACK = "echo both > writes\nconsistency"
WATCH, CANARY = "mkdir findings", "echo 10 > canary"


@pytest.fixture
def shell(
    cluster: RunningCluster, target: RunningCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageShell]:
    """The page's shell, with rows in the source; its proxy ends with the test."""
    base, there = cluster.hosts[0].rpartition(".")[0], target.hosts[0].rpartition(".")[0]
    replaced = {r"10\.1\.0(?=\.1\b)": there, r"127\.0\.0\.1:9478": f"127.0.0.1:{free_port()}"}
    if not LONG:  # a client that writes to both is done long before
        for command in ("compare shop", "cutover-check shop", "sync plan"):
            replaced[f"consistency {command}"] = f"consistency {command} --settle 1"
    shell = PageShell(tmp_path_factory.mktemp("migration"), base, **replaced)
    target.ddl("DROP KEYSPACE IF EXISTS shop")
    cluster.keyspace("shop")
    cluster.ddl("CREATE TABLE shop.orders (id int PRIMARY KEY, state text)")
    cluster.load("INSERT INTO shop.orders (id, state) VALUES (?, 'made long ago')", ((i,) for i in range(ROWS)))
    cluster.everywhere("INSERT INTO shop.orders (id, state) VALUES (7, 'for a day') USING TTL 86400")
    try:
        yield shell
    finally:
        shell.file("stop").touch()
        time.sleep(0.5)
        assert not shell.file("proxy.log").exists() or "Error" not in shell.file("proxy.log").read_text()
        for each in (cluster, target):
            each.ddl("DROP KEYSPACE IF EXISTS shop")


def orders(cluster: RunningCluster) -> dict[int, tuple[str, int]]:
    """Return every order with its state and write time."""
    rows = cluster.quorum("SELECT id, state, writetime(state) AS at FROM shop.orders")
    return {row["id"]: (row["state"], row["at"]) for row in rows}


def test_a_migration_without_downtime_comes_true(
    shell: PageShell, cluster: RunningCluster, target: RunningCluster, figures: Figures
) -> None:
    """Copied beside writes, what was lost is found and brought over, switched, and switched back without a loss."""
    began = time.monotonic()
    shell.page(PAGE, until=COMPARE)
    assert set(orders(target)) >= set(range(ROWS))
    assert max(orders(target)) >= 10_000, "the proxy writes to both"
    # A client that does not know of the proxy, and a dual write that failed.
    cluster.everywhere("INSERT INTO shop.orders (id, state) VALUES (9001, 'in the source alone')")
    cluster.everywhere("INSERT INTO shop.orders (id, state) VALUES (5, 'changed in the source alone')")
    (compare,) = shell.page(PAGE, since=COMPARE, until=WATCH)
    assert re.search(r"only_source\s+1\b|1 only_source", compare), compare
    assert orders(cluster)[9001] == orders(target)[9001]
    if LONG:  # what test_target_watch.py does too, and the question before the switch once more
        shell.page(PAGE, since=WATCH, until=CANARY)
    (answer,) = shell.page(PAGE, since=CANARY, until=STOP)
    assert answer.startswith("YES")
    if LONG:
        shell.page(PAGE, since=STOP, until=BACK)
    else:
        shell.run("echo target > writes")
    before = orders(target)
    eventually(lambda: orders(target) != before, 20, "writes to the target alone")
    shell.page(PAGE, since=BACK)
    back = orders(cluster)  # which the proxy may have written to once more than to the target
    lost = {order for order, (_, at_us) in orders(target).items() if order not in back or back[order][1] < at_us}
    assert lost == set(), "nothing that the target was given is lost to the source"
    figures.add("a migration by the how-to, and back: seconds", f"{time.monotonic() - began:.0f}")
