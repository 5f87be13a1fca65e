"""A node that is overloaded, slow or silent is asked again within bounds, then left alone for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from consistency.cluster.connection import Connection
from consistency.cluster.pinned import PinnedAccess, ReadLimits
from consistency.cluster.throttle import Turn
from consistency.cluster.wire import Page, Statement
from consistency.errors import (
    ReplicaError,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
    TooMuchToScan,
)
from consistency.model.reading import Locality
from consistency.model.ring import Node

NODE = Node("host", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8")
EMPTY = Page(0, 1, b"")
READ = Statement("SELECT v FROM k.t")


class Moody:
    """Fails a read with each of some errors in turn, the last one for ever if it is told so; probes have a mood too."""

    def __init__(
        self, errors: Sequence[ReplicaError], *, for_ever: bool = False, probe: ReplicaError | None = None
    ) -> None:
        self._errors = list(errors)
        self._for_ever = for_ever
        self._probe = probe
        self.reads = 0
        self.probes = 0

    async def execute(self, node: Node, statement: Statement) -> Page:
        """Answer or fail."""
        if "system.local" in statement.cql:
            self.probes += 1
            if self._probe:
                raise self._probe
            return EMPTY
        self.reads += 1
        if self._errors:
            raise self._errors[0] if self._for_ever and len(self._errors) == 1 else self._errors.pop(0)
        return EMPTY


def access(connection: Moody, **limits: float) -> PinnedAccess:
    """Return the access to a node in some mood."""
    return PinnedAccess(cast("Connection", connection), {NODE: Locality.NODE_LOCAL}, ReadLimits(**limits))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waits take no time, and keep how long they would have been."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    return waits


@pytest.mark.parametrize("error", [ReplicaOverloaded, ReplicaUnavailable, ReplicaError])
def test_what_may_pass_is_asked_again_after_a_while(
    error: Callable[[str], ReplicaError], no_waiting: list[float]
) -> None:
    """Overload, a lost connection, an error inside the server: twice, then the answer; every wait has a bound."""
    moody = Moody([error("x"), error("x")])
    assert asyncio.run(access(moody).ask(NODE, READ)) is EMPTY
    assert moody.reads == 3
    assert all(0 <= wait <= 3 for wait in no_waiting)


def test_a_node_that_stays_overloaded_is_given_up() -> None:
    """After the last attempt the error stands; the node is not called down for it."""
    moody = Moody([ReplicaOverloaded("x")], for_ever=True)
    asking = access(moody)
    with pytest.raises(ReplicaOverloaded):
        asyncio.run(asking.ask(NODE, READ))
    assert moody.reads == ReadLimits().attempts
    assert asking.answers(NODE)


@pytest.mark.parametrize("error", [ReplicaRefused("x"), TooMuchToScan("x")])
def test_what_will_not_pass_is_not_asked_again(error: ReplicaError) -> None:
    """A refusal, or a read that is too much: at once to whoever can do something about it."""
    moody = Moody([error], for_ever=True)
    with pytest.raises(type(error)):
        asyncio.run(access(moody).ask(NODE, READ))
    assert moody.reads == 1


def test_a_node_that_counts_too_few_others_is_not_called_down() -> None:
    """Unavailable is an answer: of a keyspace that asks for more replicas than nodes exist, of other nodes' death."""
    asking = access(Moody([TooFewReplicas("x", 3, 5)], for_ever=True))
    for _ in range(2):
        with pytest.raises(TooFewReplicas):
            asyncio.run(asking.ask(NODE, READ))
        assert asking.answers(NODE)


def test_a_slow_node_is_told_from_a_silent_one() -> None:
    """After a timeout something easy is asked: who answers that is slow, who does not is left alone for a while."""
    slow = access(Moody([ReplicaTimeout("x")], for_ever=True))
    with pytest.raises(ReplicaTimeout):
        asyncio.run(slow.ask(NODE, READ))
    assert slow.answers(NODE)
    moody = Moody([ReplicaTimeout("x")], for_ever=True, probe=ReplicaTimeout("x"))
    silent = access(moody)
    with pytest.raises(ReplicaUnavailable, match="silent"):
        asyncio.run(silent.ask(NODE, READ))
    assert not silent.answers(NODE)
    with pytest.raises(ReplicaUnavailable, match="a moment ago"):
        asyncio.run(silent.ask(NODE, READ))
    assert (moody.reads, moody.probes) == (1, 1)


def test_a_node_that_was_away_is_asked_again_when_its_time_is_over() -> None:
    """Left alone for as long as the limits say, no longer; an answer clears its name."""
    moody = Moody([ReplicaUnavailable("x")] * 4)
    asking = access(moody, down_for_s=0.05)
    with pytest.raises(ReplicaUnavailable):
        asyncio.run(asking.ask(NODE, READ))
    assert not asking.answers(NODE)
    time.sleep(0.06)
    assert asyncio.run(asking.ask(NODE, READ)) is EMPTY
    assert asking.answers(NODE)


def test_waiting_for_a_proof_is_not_taken_for_work_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node rests for as long as it worked; how long its trace was waited for is told to the turn apart."""

    async def trace(*_: object) -> list[object]:
        time.sleep(0.03)  # noqa: ASYNC251 - the time that passes, and nothing else
        return []

    monkeypatch.setattr(PinnedAccess, "_trace", trace)
    monkeypatch.setattr("consistency.cluster.pinned.proves_local", lambda *_: True)
    traced = PinnedAccess(cast("Connection", Moody([])), {NODE: Locality.TRACED}, ReadLimits())
    turn = Turn()
    assert asyncio.run(traced.ask(NODE, READ, turn)) is EMPTY
    assert 0.03 <= turn.idle_s < 1
