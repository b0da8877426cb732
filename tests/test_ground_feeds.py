"""Feeds: the sender never waits, and a reader that was too slow is told so."""

from __future__ import annotations

import trio
import trio.testing
from patience import fail_after

from edged.feeds import LAGGED, Feed, Lagged, Reader


async def take(reader: Reader[int], count: int) -> list[object]:
    values: list[object] = []
    async for value in reader:
        values.append(value)
        if len(values) == count:
            break
    return values


async def test_every_reader_gets_every_value_in_order() -> None:
    """From its subscription on; what was before is not repeated."""
    feed: Feed[int] = Feed()
    feed.publish(0)
    with feed.subscribe() as one, feed.subscribe() as other:
        for number in (1, 2, 3):
            feed.publish(number)
        with fail_after(5):
            assert await take(one, 3) == [1, 2, 3] == await take(other, 3)


async def test_a_waiting_reader_wakes(autojump_clock: trio.testing.MockClock) -> None:
    """A value that comes later is received when it comes."""
    feed: Feed[str] = Feed()
    with feed.subscribe() as reader:
        async with trio.open_nursery() as nursery:

            async def speak() -> None:
                await trio.sleep(3)
                feed.publish("late")

            nursery.start_soon(speak)
            assert await reader.receive() == "late"
            assert trio.current_time() >= 3


async def test_a_slow_reader_loses_the_oldest_and_is_told_once() -> None:
    """It can look at the whole state again; the others have lost nothing."""
    feed: Feed[int] = Feed()
    with feed.subscribe(size=2) as slow, feed.subscribe(size=9) as quick:
        for number in range(5):
            feed.publish(number)
        with fail_after(5):
            assert await take(slow, 3) == [LAGGED, 3, 4]
            assert await take(quick, 5) == [0, 1, 2, 3, 4]
        feed.publish(5)
        assert await slow.receive() == 5
    assert isinstance(LAGGED, Lagged)
    assert repr(LAGGED) == "LAGGED"


async def test_a_reader_that_has_left_is_forgotten() -> None:
    """Publishing to nobody is fine."""
    feed: Feed[int] = Feed()
    with feed.subscribe() as reader:
        pass
    feed.publish(1)
    with trio.move_on_after(0) as scope:
        await reader.receive()
    assert scope.cancelled_caught
