"""The breaker by itself: who may begin, who waits, and when it opens."""

from __future__ import annotations

import asyncio

import pytest

from repair.applying.breaker import Breaker


def test_no_more_begin_than_may_vanish() -> None:
    """Three may vanish: three begin, the fourth has to wait for one of them."""
    breaker = Breaker(3)
    assert [breaker.may_begin(1) for _ in range(4)] == [True, True, True, False]


def test_rows_that_stay_earn_others_their_leave_until_one_vanishes() -> None:
    """After three rows that stayed six may be under way; after one that vanished, what is left of the three."""

    async def play() -> None:
        breaker = Breaker(3)
        assert breaker.may_begin(3)
        await breaker.ended(3, 0, 3)
        assert [breaker.may_begin(1) for _ in range(7)] == [True] * 6 + [False]
        await breaker.ended(6, 1, 5)
        assert [breaker.may_begin(1) for _ in range(3)] == [True, True, False]

    asyncio.run(play())


def test_rows_of_which_nothing_is_proven_earn_nothing() -> None:
    """What a server refused has neither vanished nor stayed: no more may begin at once after it than before."""

    async def play() -> None:
        breaker = Breaker(3)
        assert breaker.may_begin(3)
        await breaker.ended(3, 0, 1)
        assert [breaker.may_begin(1) for _ in range(5)] == [True] * 4 + [False]

    asyncio.run(play())


def test_a_partition_larger_than_what_may_vanish_begins_alone() -> None:
    """One delete takes all of its rows, so all of them are begun, and nothing beside them."""
    breaker = Breaker(3)
    assert breaker.may_begin(50)
    assert not breaker.may_begin(1)
    other = Breaker(3)
    assert other.may_begin(1)
    assert not other.may_begin(50)


def test_it_opens_when_as_many_have_vanished_and_another_row_asks() -> None:
    """Not before: a repair that deletes exactly what was allowed is not stopped."""

    async def play() -> None:
        breaker = Breaker(2)
        assert breaker.may_begin(2)
        asking = asyncio.create_task(breaker.wait())
        await asyncio.sleep(0)
        assert not asking.done()
        await breaker.ended(2, 2, 0)
        assert await asking
        assert not breaker.open
        assert not breaker.may_begin(1)
        assert not await breaker.wait()
        assert breaker.open
        assert not breaker.may_begin(1)

    asyncio.run(play())


@pytest.mark.parametrize("vanished", [0, 5])
def test_nothing_begins_where_nothing_more_may_vanish(vanished: int) -> None:
    """With what earlier runs of the journal have taken counted in."""

    async def play() -> None:
        breaker = Breaker(vanished, vanished)
        assert not breaker.may_begin(1)
        assert not await breaker.wait()
        assert breaker.open

    asyncio.run(play())


def test_one_who_asks_while_the_others_end_is_not_taken_for_the_last() -> None:
    """Between the refusal and the wait all that were under way have ended, and stayed: there is room again."""

    async def play() -> None:
        breaker = Breaker(1)
        assert breaker.may_begin(1)
        assert not breaker.may_begin(1)
        await breaker.ended(1, 0, 1)
        assert await breaker.wait()
        assert breaker.may_begin(1)

    asyncio.run(play())
