"""The clock: never behind what was known before, never ahead by a jump that nobody vouches for (contract 10.9)."""

from __future__ import annotations

import time
from itertools import accumulate

import trio
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import Clock, wall_time


class Box:
    """A box whose clocks the test turns."""

    def __init__(self, system: float = 1000.0, *, synchronized: bool = False) -> None:
        self.system, self.passed, self.synchronized = system, 0.0, synchronized

    def clock(self, mark: float = 0.0) -> Clock:
        return Clock(
            lambda: mark,
            system=lambda: self.system,
            monotonic=lambda: self.passed,
            synchronized=lambda: self.synchronized,
        )


def test_now_is_the_system_clock_where_that_is_later() -> None:
    """On a box with a good clock nothing is different."""
    assert Box(2000.0).clock(1500.0).now() == 2000.0


def test_a_box_that_woke_in_the_past_goes_on_from_its_mark() -> None:
    """A Pi without a clock chip starts in 1970 or at the last shutdown; tokens stay expired."""
    box = Box(0.0)
    clock = box.clock(1500.0)
    assert clock.now() == 1500.0
    box.passed = 60.0
    assert clock.now() == 1560.0


def test_the_mark_rises_by_time_that_passed_only() -> None:
    """Somebody sets the clock to 2099 by mistake: the box is not stuck there for ever."""
    box = Box(1000.0)
    clock = box.clock(1000.0)
    box.system, box.passed = 9_000_000.0, 10.0
    assert clock.high_water() == 1010.0
    assert clock.now() == 9_000_000.0
    box.system = 1011.0
    assert clock.now() == 1011.0


def test_the_mark_follows_a_synchronised_clock() -> None:
    """A time server's word is taken."""
    box = Box(5000.0, synchronized=True)
    clock = box.clock(1000.0)
    assert clock.high_water() == 5000.0
    box.system = 0.0
    assert clock.now() == 5000.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e9), st.booleans()), max_size=20), st.floats(0, 1e9))
def test_the_mark_never_falls(turns: list[tuple[float, float, bool]], mark: float) -> None:
    """Whatever the system clock does, the stored mark rises, and now is never before it."""
    box = Box()
    clock = box.clock(mark)
    marks = [mark]
    for passed, system, synchronized in turns:
        box.passed, box.system, box.synchronized = box.passed + passed, system, synchronized
        marks.append(clock.high_water())
        assert clock.now() >= marks[-1]
    assert list(accumulate(marks, max)) == marks


def test_the_daemon_s_own_clock_is_the_system_s() -> None:
    """Without arguments nothing is made up."""
    assert abs(wall_time() - time.time()) < 5


async def test_its_monotonic_time_is_trio_s() -> None:
    """Deadlines of live things are of one kind, and tests can turn them."""
    clock = Clock()
    assert abs(clock.monotonic() - trio.current_time()) < 1
    assert abs(clock.now() - time.time()) < 5
    assert clock.high_water() >= clock._floor
