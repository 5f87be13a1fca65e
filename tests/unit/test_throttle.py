"""How hard nodes are asked, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.plan import LEAF_ROWS, leaf_rows_at
from consistency.cluster.throttle import Politeness, Requests, Throttle
from consistency.errors import ReplicaError, ReplicaForbidden, ReplicaTimeout, ReplicaUnavailable
from consistency.model.ring import Node
from tests.simulation.scenario import make_nodes
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual

NODES = make_nodes(["dc1"] * 3)


class Watched:
    """Nodes that answer a small read in `seconds` and get `per_second` requests from others each."""

    def __init__(self, loop: VirtualLoop, per_second: float = 0.0, seconds: float = 0.001) -> None:
        self._loop = loop
        self.per_second = per_second
        self.seconds = seconds
        self.offset = 0
        self.ours = 0
        self.refusal: ReplicaError | None = None
        self.frozen: Node | None = None
        self.looks = 0

    async def small_read(self, node: Node) -> float:
        self.looks += 1
        await self._freeze(node)
        await asyncio.sleep(self.seconds)
        return self.seconds

    async def _freeze(self, node: Node) -> None:
        if node == self.frozen:
            await asyncio.sleep(5.0)
            msg = f"{node}: no answer in time"
            raise ReplicaTimeout(msg)

    async def requests(self, node: Node) -> Requests:
        await self._freeze(node)
        if self.refusal:
            raise self.refusal
        answered = self.offset + int(self._loop.now * self.per_second)
        return Requests(answered + self.ours, self.ours, self.ours)


Story = Callable[[Throttle, Watched], Awaitable[Any]]


def told(story: Story, politeness: Politeness | None = None, **nodes: float) -> Any:
    """Run a story beside the watch on virtual time."""
    loop = VirtualLoop()
    watched = Watched(loop, **nodes)
    throttle = Throttle(NODES, politeness or Politeness(), SimClock(loop), watched)

    async def main() -> Any:
        watching = asyncio.create_task(throttle.watch())
        await asyncio.sleep(2.0)
        try:
            return await story(throttle, watched)
        finally:
            watching.cancel()

    return run_virtual(loop, main())


async def work(throttle: Throttle, seconds: float, *, turns: int = 20, lanes: int = 4, rows: int = 0) -> float:
    """Take turns of so many seconds at the first node, in lanes, and return how long all of them took."""
    left = iter(range(turns))

    async def lane() -> None:
        for _ in left:
            async with throttle.turn(NODES[0]) as turn:
                await asyncio.sleep(seconds)
                turn.rows = rows

    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(lane() for _ in range(lanes)))
    return asyncio.get_running_loop().time() - started


def test_a_cluster_that_nobody_works_with_is_read_in_all_lanes_at_once() -> None:
    """20 turns of a second in four lanes take five seconds."""
    assert told(lambda throttle, _: work(throttle, 1.0)) == pytest.approx(5.0)


def test_a_node_rests_while_others_work_with_the_cluster() -> None:
    """One at a time, and for three hundredths of the time; what a small read takes as well is not its work."""
    seconds = told(lambda throttle, _: work(throttle, 0.02), per_second=50)
    assert seconds == pytest.approx(20 * 0.02 + 19 * 0.019 * 97 / 3)


def test_a_rest_ends_when_the_others_are_gone() -> None:
    """Whoever waits for his turn then gets it at once, and beside the others that wait."""

    async def story(throttle: Throttle, watched: Watched) -> float:
        await work(throttle, 10.0, turns=1)  # thirty seconds of rest
        watched.per_second = 0.0
        watched.offset = int(asyncio.get_running_loop().time() * 50)
        return await work(throttle, 1.0)

    assert told(story, per_second=50) == pytest.approx(5.0 + 1.5, abs=1.0)


def test_who_has_nothing_to_ask_does_not_look() -> None:
    """Else a watch's visit and the repair within it would each take the other's looks for an application's work."""

    async def story(throttle: Throttle, watched: Watched) -> tuple[int, float]:
        await work(throttle, 0.01, turns=1)
        await asyncio.sleep(3.0)
        before = watched.looks
        await asyncio.sleep(10.0)
        looks = watched.looks - before
        watched.per_second = 0.0
        await work(throttle, 0.01, turns=1)
        await asyncio.sleep(0.5)
        return looks, await work(throttle, 1.0)

    assert told(story, per_second=50) == (0, pytest.approx(5.0, abs=1.0))


def test_a_node_does_not_rest_long_after_one_answer_that_took_long() -> None:
    """Half a second of somebody's garbage collection is not half a minute of rest."""
    assert told(lambda throttle, _: work(throttle, 0.2, turns=11), per_second=50) == pytest.approx(11 * 0.2 + 10 * 1.0)
    assert told(lambda throttle, _: work(throttle, 1.001, turns=2), per_second=50) == pytest.approx(2.002 + 3.0)


def test_our_own_requests_are_not_taken_for_others() -> None:
    """Not even those that the node has answered and whose answer has not reached us yet."""
    before = Requests(answered=1_000, ours_sent=400, ours_answered=380)
    assert Requests(answered=1_120, ours_sent=500, ours_answered=440).of_others_since(before) == 0
    assert Requests(answered=1_200, ours_sent=500, ours_answered=480).of_others_since(before) == 80


def test_a_node_rests_for_what_it_did_for_us_alone() -> None:
    """What a small read takes too, for the way or other work, burdens nobody more: 80 ms of each turn of 0.1 s."""
    seconds = told(lambda throttle, _: work(throttle, 0.1), per_second=50, seconds=0.08)
    assert seconds == pytest.approx(20 * 0.1 + 19 * 0.02 * 97 / 3)


def test_a_node_does_not_rest_for_time_in_which_it_did_nothing() -> None:
    """Such as that which the proof of an answer took: 80 ms of each turn of 0.1 s."""

    async def story(throttle: Throttle, _: Watched) -> float:
        started = asyncio.get_running_loop().time()
        for _turn in range(20):
            async with throttle.turn(NODES[0]) as turn:
                await asyncio.sleep(0.1)
                turn.idle_s = 0.08
        return asyncio.get_running_loop().time() - started

    assert told(story, per_second=50) == pytest.approx(20 * 0.1 + 19 * 0.019 * 97 / 3)


def test_full_speed_never_rests() -> None:
    """Whoever works with the cluster."""
    seconds = told(lambda throttle, _: work(throttle, 1.0), Politeness(guard=None), per_second=500)
    assert seconds == pytest.approx(5.0)


def test_a_node_that_becomes_slower_is_asked_less() -> None:
    """And as much as before once it is as fast as before."""

    async def story(throttle: Throttle, watched: Watched) -> tuple[float, float, float]:
        before = await work(throttle, 0.01)
        watched.seconds = 0.003
        await asyncio.sleep(10.0)
        slow = await work(throttle, 0.01)
        watched.seconds = 0.001
        await asyncio.sleep(30.0)
        return before, slow, await work(throttle, 0.01)

    before, slow, after = told(story, per_second=50)
    assert slow > 2 * before
    assert after == pytest.approx(before, rel=0.2)


def test_a_guard_that_allows_a_rise_lets_it_be() -> None:
    """--latency-guard 20 does not mind a read that takes ten times as long."""

    async def story(throttle: Throttle, watched: Watched) -> tuple[float, float]:
        before = await work(throttle, 0.02)
        watched.seconds = 0.01
        await asyncio.sleep(10.0)
        return before, await work(throttle, 0.02)

    before, slow = told(story, Politeness(guard=20.0), per_second=50)
    assert slow <= before


def test_where_the_traffic_cannot_be_seen_somebody_is_taken_to_work() -> None:
    """A role that may not read the virtual tables gets a polite check, never a rude one."""

    async def story(throttle: Throttle, watched: Watched) -> float:
        watched.refusal = ReplicaForbidden("no")
        await asyncio.sleep(2.0)
        return await work(throttle, 0.02)

    assert told(story) == pytest.approx(20 * 0.02 + 19 * 0.019 * 97 / 3)


def test_a_frozen_node_is_not_taken_for_a_crowd() -> None:
    """Nobody is served by a node that answers nothing: the others are read at full speed beside it."""

    async def story(throttle: Throttle, watched: Watched) -> float:
        watched.frozen = NODES[2]
        await asyncio.sleep(8.0)
        return await work(throttle, 1.0)

    assert told(story) == pytest.approx(5.0)


def test_a_node_that_was_slow_to_count_is_taken_to_be_at_work() -> None:
    """One that answers a small read and does not say how much others ask of it may be asked much."""

    async def story(throttle: Throttle, watched: Watched) -> float:
        watched.refusal = ReplicaTimeout("n: no answer in time")
        await asyncio.sleep(2.0)
        return await work(throttle, 1.0, turns=2)

    assert told(story) > 4.0


def test_who_finds_a_node_gone_does_not_make_the_next_one_wait() -> None:
    """A request that found nobody after eight seconds did not burden the node; one that timed out may have."""

    async def story(throttle: Throttle, error: ReplicaError) -> float:
        started = asyncio.get_running_loop().time()
        for _ in range(2):
            with suppress(ReplicaError):
                async with throttle.turn(NODES[0]):
                    await asyncio.sleep(8.0)
                    raise error
        return asyncio.get_running_loop().time() - started

    assert told(lambda throttle, _: story(throttle, ReplicaUnavailable("n: gone")), per_second=50) == pytest.approx(
        16.0
    )
    assert told(lambda throttle, _: story(throttle, ReplicaTimeout("n: late")), per_second=50) > 30.0


@pytest.mark.parametrize("guard", [None, 1.3])
def test_a_rate_bounds_the_rows_a_second_of_a_node(guard: float | None) -> None:
    """20 turns of 1,000 rows at 2,000 rows a second take ten seconds, at full speed too."""
    seconds = told(lambda throttle, _: work(throttle, 0.01, rows=1_000), Politeness(rate=2_000, guard=guard))
    assert seconds == pytest.approx(9.5, abs=0.1)


def test_nothing_new_is_asked_while_the_pause_file_is_there(tmp_path: Path) -> None:
    """The work goes on within a second of its removal."""
    pause = tmp_path / "pause"

    async def story(throttle: Throttle, _: Watched) -> float:
        pause.touch()
        asyncio.get_running_loop().call_later(100.0, pause.unlink)
        return await work(throttle, 0.1)

    seconds = told(story, Politeness(guard=None, pause_file=pause))
    assert 100.0 < seconds < 101.5


def test_leaves_are_smaller_at_a_low_rate() -> None:
    """A leaf is at most a second's worth of rows, so that a slow check does not come in bursts."""
    assert [leaf_rows_at(rate) for rate in (None, 10.0, 5_000.0, 1e9)] == [LEAF_ROWS, 1_000, 5_000, LEAF_ROWS]
