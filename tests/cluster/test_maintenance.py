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
from tests.support.cluster import RunningCluster
from tests.support.figures import SOAK
from tests.support.how_to import blocks
from tests.support.stand_ins import StandIns

pytestmark = pytest.mark.cluster
KEYS = range(60)


@pytest.fixture(scope="module")
def three(stoppable_cluster: RunningCluster) -> RunningCluster:
    """Three nodes that may be stopped, with a keyspace of each replication factor and no other."""
    running = stoppable_cluster
    running.drop_keyspaces()
    for rf in (1, 2, 3):
        running.keyspace(f"rf{rf}", rf)
        running.ddl(f"CREATE TABLE rf{rf}.t (id int PRIMARY KEY, v text)")
        running.load(f"INSERT INTO rf{rf}.t (id, v) VALUES (?, ?)", ((i, "v") for i in KEYS))
    return running


def answer(three: RunningCluster, n: int, keyspace: str, *words: str) -> str:
    """Ask whether node n may go down."""
    done = three.command("preflight", three.name(n), "--keyspace", keyspace, "--json", "-", *words)
    data = json.loads(done.stdout)
    assert done.returncode == data["exit_code"] == {"yes": 0, "no": 1, "unknown": 3}[data["answer"]], done.stderr
    return str(data["answer"])


def written_at_quorum(three: RunningCluster, keyspace: str) -> bool:
    """Whether every key can be written at QUORUM through a node that is up."""
    for key in KEYS:
        try:
            three.quorum(f"UPDATE {keyspace}.t SET v = 'w' WHERE id = {key}")
        except (Unavailable, WriteTimeout):
            return False
        except NoHostAvailable as error:
            # The driver asks the next host when one says that replicas are lacking.
            if not any(isinstance(reason, Unavailable) for reason in error.errors.values()):
                raise
            return False
    return True


def test_the_facts_are_what_the_servers_say(three: RunningCluster) -> None:
    """States, schema versions, hints and logins of a quiet cluster without hints and without logins."""

    async def look() -> Facts:
        async with open_look(three.settings) as looking:
            return await looking()

    facts = asyncio.run(look())
    assert len(facts.ring.nodes) == len(facts.versions) == 3
    assert len(set(facts.versions.values()) - {None}) == 1
    assert facts.gossip is not None
    assert sorted(facts.gossip) == sorted(node.broadcast for node in facts.ring.nodes)
    assert set(facts.gossip.values()) == {"NORMAL"}
    assert list(facts.hints.values()) == [False] * 3
    assert not facts.logins


def test_a_node_whose_client_port_is_closed_is_not_down(three: RunningCluster) -> None:
    """Writes at ALL go on through the others: not down, not to be replaced, and no obstacle to another's restart."""
    sandbox = three.sandbox
    assert sandbox is not None
    three.await_alive(1, 2, 3)
    sandbox.nodetool(2, "disablebinary")
    try:
        audited = three.command("audit", "rf3", "--json", "-")
        nodes = [v for v in json.loads(audited.stdout)["violations"] if not v["keyspace"]]
        ours = [v["kind"] for v in json.loads(audited.stdout)["violations"] if v["keyspace"]]
        assert [(v["kind"], v["severity"]) for v in nodes] == [("node_unreachable", "warning")], audited.stdout
        assert three.name(2) in nodes[0]["detail"]
        assert nodes[0]["detail"].endswith("the other nodes take it for alive")
        assert "nodetool enablebinary" in nodes[0]["remedy"]
        assert "replace" not in nodes[0]["remedy"]
        assert (ours, audited.returncode) == ([], 0)
        assert [answer(three, n, "rf3") for n in (1, 2)] == ["yes", "yes"]
        assert [answer(three, n, "rf2") for n in (1, 2)] == ["no", "no"]
        checked = three.command("check", "rf3", "--json", "-")
        report = json.loads(checked.stdout)
        assert (checked.returncode, report["verdict"], report["violations"]) == (3, "unknown", [])
        assert " down" not in json.dumps(report["tables"])
    finally:
        sandbox.nodetool(2, "enablebinary")
        three.await_alive(1, 2, 3)


def test_preflight_says_no_exactly_when_taking_the_node_down_loses_quorum(three: RunningCluster) -> None:
    """For RF 1, 2 and 3, with no node down and with one: the node is then really stopped and every key written."""
    sandbox = three.sandbox
    assert sandbox is not None
    for down in ((3,), (3, 2)):
        said = {f"rf{rf}": answer(three, down[-1], f"rf{rf}") for rf in (1, 2, 3)}
        sandbox.stop(down[-1])
        three.await_alive(*{1, 2, 3} - {*down})
        kept = {name: "yes" if written_at_quorum(three, name) else "no" for name in said}
        assert said == kept, down
    sandbox.start(2)
    three.await_alive(1, 2)
    assert answer(three, 3, "rf3") == "yes"  # it is down already, and a quorum holds


def test_preflight_waits_for_a_node_that_comes_back(three: RunningCluster) -> None:
    """No at first; yes once the node that was down serves again."""
    sandbox = three.sandbox
    assert sandbox is not None
    assert answer(three, 1, "rf3") == "no"
    waker = threading.Thread(target=sandbox.start, args=(3,))
    waker.start()
    started = time.monotonic()
    assert answer(three, 1, "rf3", "--wait", "120") == "yes"
    assert time.monotonic() - started < 115
    waker.join()
    three.await_alive(1, 2, 3)
    assert written_at_quorum(three, "rf3")


def test_preflight_knows_from_the_ledger_who_holds_the_only_current_copy(three: RunningCluster, tmp_path: Path) -> None:
    """A row on node 1 alone keeps node 1 up, and no other; once it is everywhere, node 1 may go."""
    three.keyspace("whole", 3)
    three.ddl("CREATE TABLE whole.t (id int PRIMARY KEY, v text)")
    three.load("INSERT INTO whole.t (id, v) VALUES (?, ?)", ((i, "v") for i in KEYS))
    ledger = str(tmp_path / "ledger")
    three.on(1, "INSERT INTO whole.t (id, v) VALUES (9999, 'only here')")
    check = ("check", "whole", "--ledger", ledger, "--settle", "0.5", "--quiet")
    assert three.command(*check).returncode == 1
    assert [answer(three, n, "whole", "--ledger", ledger) for n in (1, 2, 3)] == ["no", "yes", "yes"]
    three.everywhere("SELECT * FROM whole.t WHERE id = 9999")  # read repair
    assert three.command(*check).returncode == 0
    assert answer(three, 1, "whole", "--ledger", ledger) == "yes"
    history = three.command("history", "whole", "--ledger", ledger, "--json", "-")
    (table,) = json.loads(history.stdout)["tables"]
    assert (table["never_clean"], history.returncode) == (0.0, 0)


class Writer(threading.Thread):
    """Writes at QUORUM until it is told to stop, and counts what could not be written at the third attempt."""

    def __init__(self, three: RunningCluster) -> None:
        super().__init__(daemon=True)
        self._cluster = three
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
def stand_ins(three: RunningCluster, tmp_path: Path) -> Iterator[StandIns]:
    """Return what runs the pages' scripts on the cluster."""
    found = StandIns(three, tmp_path)
    yield found
    found.close()


@SOAK
def test_the_restart_script_restarts_every_node_while_clients_write_at_quorum(
    three: RunningCluster, stand_ins: StandIns
) -> None:
    """The page's script as it stands; keyspaces that cannot lose a node are out of the way."""
    three.ddl("DROP KEYSPACE rf1", "DROP KEYSPACE rf2")
    writer = Writer(three)
    writer.start()
    done = stand_ins.run(blocks("rolling-restart.md")[0], *three.hosts)
    writer.end()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [words[1] for words in stand_ins.said if "restart" in words[2]] == three.hosts
    assert writer.failed == []
    assert writer.written > 100
    three.await_alive(1, 2, 3)


def test_raising_a_replication_factor_as_the_page_says_ends_clean(three: RunningCluster, stand_ins: StandIns) -> None:
    """From one replica to three: audit complains, each step is repaired and checked, in the end a node may go down."""
    three.keyspace("shop", 1)
    three.ddl("CREATE TABLE shop.t (id int PRIMARY KEY, v text)")
    three.load("INSERT INTO shop.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(500)))
    first, *steps = blocks("raise-replication.md")
    assert stand_ins.run(first).returncode == 1
    for number, step in enumerate(steps):
        done = stand_ins.run(f"set -e\n{step}")
        assert done.returncode == 0, f"step {number}: {done.stdout}{done.stderr}"
    assert len([words for words in stand_ins.said if "repair" in words[2]]) == 6
    for n in (1, 2, 3):
        assert {row["id"] for row in three.on(n, "SELECT id FROM shop.t")} == set(range(500))
