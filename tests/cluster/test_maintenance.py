"""Maintenance on a real cluster: preflight against nodes really taken down, and the how-to pages as scripts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cassandra import OperationTimedOut, Unavailable, WriteTimeout
from cassandra.cluster import NoHostAvailable

from consistency.auditing.preflight import Facts
from consistency.auditing.preflight_facts import open_look
from tests.support.cluster import RunningCluster, eventually, sandbox_cluster
from tests.support.how_to import blocks
from tests.support.stand_ins import StandIns

pytestmark = pytest.mark.cluster
KEYS = range(60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three nodes that may be stopped, with a keyspace of each replication factor."""
    for running in sandbox_cluster(tmp_path_factory.mktemp("maintenance"), "maintenance"):
        for rf in (1, 2, 3):
            running.keyspace(f"rf{rf}", rf)
            running.ddl(f"CREATE TABLE rf{rf}.t (id int PRIMARY KEY, v text)")
            running.load(f"INSERT INTO rf{rf}.t (id, v) VALUES (?, ?)", ((i, "v") for i in KEYS))
        yield running


def answer(cluster: RunningCluster, n: int, keyspace: str, *words: str) -> str:
    """Ask whether node n may go down."""
    done = cluster.command("preflight", cluster.name(n), "--keyspace", keyspace, "--json", "-", *words)
    data = json.loads(done.stdout)
    assert done.returncode == data["exit_code"] == {"yes": 0, "no": 1, "unknown": 3}[data["answer"]], done.stderr
    return str(data["answer"])


def written_at_quorum(cluster: RunningCluster, keyspace: str) -> bool:
    """Whether every key can be written at QUORUM through a node that is up."""
    for key in KEYS:
        try:
            cluster.quorum(f"UPDATE {keyspace}.t SET v = 'w' WHERE id = {key}")
        except (Unavailable, WriteTimeout):
            return False
        except NoHostAvailable as error:
            # The driver asks the next host when one says that replicas are lacking.
            if not any(isinstance(reason, Unavailable) for reason in error.errors.values()):
                raise
            return False
    return True


def settled(cluster: RunningCluster, live: int) -> None:
    """Wait until the nodes that are up see each other up and the others down, and our session is open to them."""
    cluster.close()
    sandbox = cluster.sandbox
    assert sandbox is not None
    up = next(n for n in (1, 2, 3) if sandbox.status().nodes[n - 1].state == "up")
    eventually(
        lambda: sandbox.nodetool(up, "status").stdout.count("UN  ") == live, 60, f"{live} nodes being up for node {up}"
    )


def test_the_facts_are_what_the_servers_say(cluster: RunningCluster) -> None:
    """States, schema versions, hints and logins of a quiet cluster without hints and without logins."""

    async def look() -> Facts:
        async with open_look(cluster.settings) as looking:
            return await looking()

    facts = asyncio.run(look())
    assert len(facts.ring.nodes) == len(facts.versions) == 3
    assert len(set(facts.versions.values()) - {None}) == 1
    assert facts.gossip is not None
    assert sorted(facts.gossip) == sorted(node.broadcast for node in facts.ring.nodes)
    assert set(facts.gossip.values()) == {"NORMAL"}
    assert list(facts.hints.values()) == [False] * 3
    assert not facts.logins


def test_a_node_whose_client_port_is_closed_is_not_down(cluster: RunningCluster) -> None:
    """Writes at ALL go on through the others: not down, not to be replaced, and no obstacle to another's restart."""
    sandbox = cluster.sandbox
    assert sandbox is not None
    settled(cluster, 3)
    sandbox.nodetool(2, "disablebinary")
    try:
        audited = cluster.command("audit", "rf3", "--json", "-")
        nodes = [v for v in json.loads(audited.stdout)["violations"] if not v["keyspace"]]
        ours = [v["kind"] for v in json.loads(audited.stdout)["violations"] if v["keyspace"]]
        assert [(v["kind"], v["severity"]) for v in nodes] == [("node_unreachable", "warning")], audited.stdout
        assert cluster.name(2) in nodes[0]["detail"]
        assert nodes[0]["detail"].endswith("the other nodes take it for alive")
        assert "nodetool enablebinary" in nodes[0]["remedy"]
        assert "replace" not in nodes[0]["remedy"]
        assert (ours, audited.returncode) == ([], 0)
        assert [answer(cluster, n, "rf3") for n in (1, 2)] == ["yes", "yes"]
        assert [answer(cluster, n, "rf2") for n in (1, 2)] == ["no", "no"]
        checked = cluster.command("check", "rf3", "--json", "-")
        report = json.loads(checked.stdout)
        assert (checked.returncode, report["verdict"], report["violations"]) == (3, "unknown", [])
        assert " down" not in json.dumps(report["tables"])
    finally:
        sandbox.nodetool(2, "enablebinary")
        settled(cluster, 3)


def test_preflight_says_no_exactly_when_taking_the_node_down_loses_quorum(cluster: RunningCluster) -> None:
    """For RF 1, 2 and 3, with no node down and with one: the node is then really stopped and every key written."""
    sandbox = cluster.sandbox
    assert sandbox is not None
    for down in ((3,), (3, 2)):
        said = {f"rf{rf}": answer(cluster, down[-1], f"rf{rf}") for rf in (1, 2, 3)}
        sandbox.stop(down[-1])
        settled(cluster, 3 - len(down))
        kept = {name: "yes" if written_at_quorum(cluster, name) else "no" for name in said}
        assert said == kept, down
    sandbox.start(2)
    settled(cluster, 2)
    assert answer(cluster, 3, "rf3") == "yes"  # it is down already, and a quorum holds


def test_preflight_waits_for_a_node_that_comes_back(cluster: RunningCluster) -> None:
    """No at first; yes once the node that was down serves again."""
    sandbox = cluster.sandbox
    assert sandbox is not None
    assert answer(cluster, 1, "rf3") == "no"
    waker = threading.Thread(target=sandbox.start, args=(3,))
    waker.start()
    started = time.monotonic()
    assert answer(cluster, 1, "rf3", "--wait", "120") == "yes"
    assert time.monotonic() - started < 115
    waker.join()
    settled(cluster, 3)
    assert written_at_quorum(cluster, "rf3")


def test_preflight_knows_from_the_ledger_who_holds_the_only_current_copy(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    """A row on node 1 alone keeps node 1 up, and no other; once it is everywhere, node 1 may go."""
    cluster.keyspace("whole", 3)
    cluster.ddl("CREATE TABLE whole.t (id int PRIMARY KEY, v text)")
    cluster.load("INSERT INTO whole.t (id, v) VALUES (?, ?)", ((i, "v") for i in KEYS))
    ledger = str(tmp_path / "ledger")
    cluster.on(1, "INSERT INTO whole.t (id, v) VALUES (9999, 'only here')")
    check = ("check", "whole", "--ledger", ledger, "--settle", "0.5", "--quiet")
    assert cluster.command(*check).returncode == 1
    assert [answer(cluster, n, "whole", "--ledger", ledger) for n in (1, 2, 3)] == ["no", "yes", "yes"]
    cluster.everywhere("SELECT * FROM whole.t WHERE id = 9999")  # read repair
    assert cluster.command(*check).returncode == 0
    assert answer(cluster, 1, "whole", "--ledger", ledger) == "yes"
    history = cluster.command("history", "whole", "--ledger", ledger, "--json", "-")
    (table,) = json.loads(history.stdout)["tables"]
    assert (table["never_clean"], history.returncode) == (0.0, 0)


class Writer(threading.Thread):
    """Writes at QUORUM until it is told to stop, and counts what could not be written at the third attempt."""

    def __init__(self, cluster: RunningCluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._ended = threading.Event()
        self.written = 0
        self.failed: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            self._write(self.written % len(KEYS))
            time.sleep(0.02)

    def _write(self, key: int) -> None:
        for attempt in (1, 2, 3):
            try:
                self._cluster.quorum(f"UPDATE rf3.t SET v = 'busy' WHERE id = {key}")
            except (Unavailable, WriteTimeout, OperationTimedOut, NoHostAvailable) as error:
                if attempt == 3:
                    self.failed.append(f"{type(error).__name__}: {error}")
                time.sleep(1.0)  # a node that stops takes its requests with it; the next goes elsewhere
            else:
                self.written += 1
                return

    def end(self) -> None:
        """Stop writing."""
        self._ended.set()
        self.join()


@pytest.fixture
def stand_ins(cluster: RunningCluster, tmp_path: Path) -> Iterator[StandIns]:
    """Return what runs the pages' scripts on the cluster."""
    found = StandIns(cluster, tmp_path)
    yield found
    found.close()


def test_the_restart_script_restarts_every_node_while_clients_write_at_quorum(
    cluster: RunningCluster, stand_ins: StandIns
) -> None:
    """The page's script as it stands; keyspaces that cannot lose a node are out of the way."""
    cluster.ddl("DROP KEYSPACE rf1", "DROP KEYSPACE rf2")
    writer = Writer(cluster)
    writer.start()
    done = stand_ins.run(blocks("rolling-restart.md")[0], *cluster.hosts)
    writer.end()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [words[1] for words in stand_ins.said if "restart" in words[2]] == cluster.hosts
    assert writer.failed == []
    assert writer.written > 100
    settled(cluster, 3)


def test_raising_a_replication_factor_as_the_page_says_ends_clean(cluster: RunningCluster, stand_ins: StandIns) -> None:
    """From one replica to three: audit complains, each step is repaired and checked, in the end a node may go down."""
    cluster.keyspace("shop", 1)
    cluster.ddl("CREATE TABLE shop.t (id int PRIMARY KEY, v text)")
    cluster.load("INSERT INTO shop.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(500)))
    first, *steps = blocks("raise-replication.md")
    assert stand_ins.run(first).returncode == 1
    for number, step in enumerate(steps):
        done = stand_ins.run(f"set -e\n{step}")
        assert done.returncode == 0, f"step {number}: {done.stdout}{done.stderr}"
    assert len([words for words in stand_ins.said if "repair" in words[2]]) == 6
    for n in (1, 2, 3):
        held = sum(1 for i in range(500) if cluster.on(n, f"SELECT id FROM shop.t WHERE id = {i}").one())
        assert held == 500
