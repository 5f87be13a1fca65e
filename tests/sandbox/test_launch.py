"""How long a node waits for the ring, and whom it must see."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from cassandra.metadata import Murmur3Token

from sandbox import Sandbox
from sandbox import cluster as of_sandbox
from sandbox.launch import made_user, ring_delay, unseen
from sandbox.layout import owner_of, plan_cluster
from sandbox.logs import LogWatch
from sandbox.options import SandboxOptions
from sandbox.process import ProcessId
from sandbox.state import NodeRecord, load_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox.process import KeptProcess

PLACES = plan_cluster(SandboxOptions())
FIRST = NodeRecord(PLACES[0], jmx_port=10_000)


@pytest.mark.parametrize(
    ("record", "delay"),
    [
        (FIRST, ["-Dcassandra.ring_delay_ms=1000"]),
        (replace(FIRST, joins=True, streams=True), []),
        (replace(FIRST, joins=True), ["-Dcassandra.ring_delay_ms=10000"]),
        (replace(FIRST, joins=True, streams=True, joined=True), ["-Dcassandra.ring_delay_ms=1000"]),
    ],
)
def test_only_a_node_that_streams_waits_as_long_as_cassandra_does(record: NodeRecord, delay: list[str]) -> None:
    """With a shorter wait it would own ranges that it never asked for."""
    assert ring_delay(record) == delay


def test_nodes_that_ran_before_need_not_see_each_other_anew(tmp_path: Path) -> None:
    """Only the pairs that a started node belongs to are waited for."""
    watches = {place.n: LogWatch(place, tmp_path / f"{place.n}.log") for place in PLACES}
    assert unseen(watches, [3]) == [(1, 3), (2, 3), (3, 1), (3, 2)]
    assert unseen(watches, []) == []


NORMAL = "DEBUG [GossipStage:1] StorageService.java:3317 - Node /{}:7000 state NORMAL, token [1]\n"
MADE = "INFO  [OptionalTasks:1] CassandraRoleManager.java:454 - Created default superuser role 'cassandra'\n"
STARTS = "INFO  [main] CassandraDaemon.java:655 - JVM vendor/version: a/b\n"


OWNER = next(n for n, place in enumerate(PLACES, 1) if place == owner_of(Murmur3Token.hash_fn("cassandra"), PLACES))
ONE, OTHER = (n for n in range(1, len(PLACES) + 1) if n != OWNER)


@pytest.mark.parametrize(
    ("logs", "made"),
    [
        ({}, False),
        ({ONE: [ONE, OTHER, OWNER, MADE]}, True),
        ({ONE: [ONE, OWNER, MADE, OTHER]}, True),
        ({OWNER: [OWNER, MADE, ONE, OTHER]}, True),
        ({ONE: [ONE, OTHER, MADE, OWNER], OTHER: [OTHER, MADE, ONE, OWNER], OWNER: [OWNER, ONE, OTHER]}, False),
        ({ONE: [ONE, OTHER, MADE, OWNER], OTHER: [OTHER, OWNER, ONE, MADE]}, True),
        ({ONE: [ONE, OTHER, OWNER, MADE, STARTS, ONE, OTHER, OWNER]}, False),
    ],
)
def test_the_first_user_counts_if_its_node_knew_its_owner(
    tmp_path: Path, logs: dict[int, list[int | str]], made: bool
) -> None:
    """One that was made too early lies on a node that nobody asks: no login works."""
    watches = {place.n: LogWatch(place, tmp_path / f"{place.n}.log") for place in PLACES}
    for n, log in logs.items():
        lines = [NORMAL.format(PLACES[what - 1].address) if isinstance(what, int) else what for what in log]
        watches[n].log.write_text("".join(lines))
        watches[n].read()
    assert made_user(watches) is made


@pytest.mark.parametrize(("made", "starts"), [(True, [1, 2, 3]), (False, [1, 2, 3, "end 3", 3])])
def test_a_node_starts_again_where_the_first_user_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool, starts: list[int | str]
) -> None:
    """At its next start a node that knows all others makes another; the state names the process that runs."""
    done: list[int | str] = []

    class Recorded:
        """A launch that starts nothing."""

        def __init__(self, *_: object) -> None:
            self.kept: dict[int, KeptProcess] = {}

        def start(self, record: NodeRecord, _: object) -> SimpleNamespace:
            done.append(record.n)
            return SimpleNamespace(id=ProcessId(len(done), 0.0))

        def end(self, n: int) -> None:
            done.append(f"end {n}")

        def wait(self, watches: Mapping[int, LogWatch], *, new_cluster: bool) -> None:
            assert new_cluster
            assert len(watches) == 3

        def release(self) -> None:
            pass

    monkeypatch.setattr(of_sandbox, "Launch", Recorded)
    monkeypatch.setattr(of_sandbox, "_runtime", lambda *_: None)
    monkeypatch.setattr(of_sandbox, "check_memory", lambda *_: None)
    monkeypatch.setattr(of_sandbox, "made_user", lambda _: made)
    Sandbox(SandboxOptions(dir=tmp_path / "box", auth=True, address_base="127.0.250.1")).up()
    assert done == starts
    state = load_state(tmp_path / "box")
    assert state is not None
    assert [record.process.pid for record in state.nodes.values() if record.process] == [1, 2, len(done)]
