"""The clock: never behind what was known before, never ahead by a jump that nobody has confirmed (contract 10.9)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import Clock, iso, read_iso, wall_time


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


def test_an_unconfirmed_jump_is_not_followed_once_the_clock_was_synchronised() -> None:
    """Somebody sets a synchronised clock to 2099, or to 1970: nothing happens, until a time server is heard again."""
    box = Box(5000.0, synchronized=True)
    clock = box.clock()
    box.passed, box.system = 10.0, 5010.0
    for wrong in (4_070_000_000.0, 0.0):
        box.synchronized, box.system = False, wrong
        assert clock.now() == 5010.0
        assert clock.high_water() == 5010.0
        assert (clock.is_synchronized, clock.is_trusted, clock.is_behind) == (False, True, False)
    box.passed, box.system = 3610.0, 3600.0
    assert clock.now() == 8610.0
    assert clock.high_water() == 8610.0
    box.system, box.synchronized = 8700.0, True
    assert clock.now() == 8700.0
    assert clock.is_synchronized


def test_a_lost_time_server_is_no_reason_to_distrust() -> None:
    """The network goes, the clock goes on."""
    box = Box(5000.0, synchronized=True)
    clock = box.clock()
    box.synchronized = False
    clock.look()
    box.passed, box.system = 86400.0, 91400.0
    assert (clock.now(), clock.is_synchronized, clock.is_trusted) == (91400.0, False, True)
    assert clock.corrections == 0


def test_a_clock_that_was_never_synchronised_is_followed_and_not_trusted() -> None:
    """A box without network goes by the time that was set by hand; a wrong one is gone with the next."""
    box = Box(0.0)
    clock = box.clock(1000.0)
    assert (clock.now(), clock.is_trusted, clock.is_behind) == (1000.0, False, False)
    for by_hand in (4_070_000_000.0, 5000.0):
        box.system = by_hand
        assert clock.now() == by_hand
        assert not clock.is_trusted
    assert clock.high_water() == 1000.0
    assert clock.corrections == 0


def test_a_synchronised_visit_to_the_future_is_believed_until_root_says_otherwise() -> None:
    """What had expired by it stays expired, the clock is behind its mark and waits; a reset ends that."""
    box = Box(5000.0, synchronized=True)
    clock = box.clock()
    box.system = 4_070_000_000.0
    assert clock.now() == 4_070_000_000.0
    assert clock.is_trusted
    box.system, box.passed = 5100.0, 100.0
    assert clock.now() == 4_070_000_100.0
    assert (clock.is_synchronized, clock.is_trusted, clock.is_behind) == (True, False, True)
    box.system, box.passed = 5200.0, 200.0
    assert clock.now() == clock.high_water() == 4_070_000_100.0, "it waits for the clock"
    before = clock.corrections
    clock.reset()
    assert clock.now() == clock.high_water() == 5200.0
    assert (clock.is_trusted, clock.is_behind, clock.corrections) == (True, False, before + 1)


def test_a_clock_that_lost_its_server_behind_the_mark_is_still_behind() -> None:
    """The contradiction does not go away with the network."""
    box = Box(9000.0, synchronized=True)
    clock = box.clock()
    box.system = 5000.0
    clock.look()
    box.synchronized = False
    clock.look()
    assert (clock.is_synchronized, clock.is_trusted, clock.is_behind) == (False, False, True)
    assert clock.now() == 9000.0


def test_a_small_correction_backward_is_waited_out() -> None:
    """Time stands for thirty seconds and goes on with the system clock: it does not stay ahead for ever."""
    box = Box(5030.0, synchronized=True)
    clock = box.clock()
    box.system = 5000.0
    assert (clock.now(), clock.is_trusted) == (5030.0, True)
    box.system, box.passed = 5020.0, 20.0
    assert clock.now() == 5030.0
    box.system, box.passed = 5040.0, 40.0
    assert clock.now() == 5040.0


def test_root_may_confirm_a_clock_without_a_time_server() -> None:
    """date and reset on a box that sees no network: from there on the clock is trusted, and jumps are not followed."""
    box = Box(7000.0)
    clock = box.clock(9000.0)
    clock.reset()
    assert (clock.now(), clock.high_water(), clock.is_trusted) == (7000.0, 7000.0, True)
    box.system, box.passed = 0.0, 60.0
    assert (clock.now(), clock.is_trusted) == (7060.0, True)


@pytest.mark.parametrize(
    ("first", "then", "corrected"),
    [
        ((1000.0, False), (2000.0, False), 0),
        ((1000.0, False), (1000.0, True), 1),
        ((1000.0, False), (2000.0, True), 1),
        ((1000.0, True), (1000.4, True), 0),
        ((1000.0, True), (2000.0, True), 1),
        ((1000.0, True), (2000.0, False), 0),
        ((1000.0, True), (500.0, True), 0),
    ],
)
def test_only_a_confirmed_time_corrects_the_clock(
    first: tuple[float, bool], then: tuple[float, bool], corrected: int
) -> None:
    """(system clock, synchronised) before and after. Deadlines made by a guess are made anew once time is known;
    the last: time stands still at the mark, and nobody has more or less left."""
    box = Box(first[0], synchronized=first[1])
    clock = box.clock()
    box.system, box.synchronized = then
    clock.look()
    assert clock.corrections == corrected


def test_jumps_are_told_with_their_direction_and_once() -> None:
    """In seconds, also those that are not followed; the time that passes is none."""
    box, told = Box(1000.0, synchronized=True), list[Any]()
    clock = Clock(
        system=lambda: box.system, monotonic=lambda: box.passed, synchronized=lambda: box.synchronized,
        jumped=told.append,
    )  # fmt: skip
    box.passed, box.system = 60.0, 1060.0
    clock.look()
    assert told == []
    box.system, box.synchronized = 9000.0, False
    clock.now()
    clock.now()
    clock.look()
    assert told == [7940.0]
    box.system = 10.0
    clock.now()
    assert told == [7940.0, -8990.0]


TURNS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 4.1e9), st.booleans()), max_size=20)


@given(TURNS, st.booleans())
def test_one_unsynchronised_visit_to_2099_changes_nothing_afterwards(
    turns: list[tuple[float, float, bool]], visit_begins_synchronized: bool
) -> None:
    """Two boxes with one history, of which one makes the visit: afterwards both tell the same time."""
    stays, visits = Box(), Box()
    clocks = [stays.clock(), visits.clock()]

    def both(passed: float, system: float, synchronized: bool) -> None:
        for box, clock in zip((stays, visits), clocks, strict=True):
            box.passed, box.system, box.synchronized = box.passed + passed, system, synchronized
            clock.look()

    for turn in turns:
        both(*turn)
    home = stays.system
    both(0.0, home, visit_begins_synchronized)
    visits.system, visits.synchronized, stays.synchronized = 4_070_908_800.0, False, False
    clocks[1].now()
    clocks[0].look()
    visits.passed, stays.passed = visits.passed + 60.0, stays.passed + 60.0
    clocks[1].look()
    visits.system = stays.system = home + 60.0
    assert clocks[1].now() == pytest.approx(clocks[0].now(), abs=0.01)
    assert clocks[1].high_water() == pytest.approx(clocks[0].high_water(), abs=0.01)
    assert clocks[1].is_trusted == clocks[0].is_trusted


def test_the_daemon_s_own_clock_is_the_system_s() -> None:
    """Without arguments nothing is made up."""
    assert abs(wall_time() - time.time()) < 5


async def test_its_monotonic_time_is_trio_s() -> None:
    """Deadlines of live things are of one kind, and tests can turn them."""
    clock = Clock()
    assert abs(clock.monotonic() - trio.current_time()) < 1
    assert abs(clock.now() - time.time()) < 5
    assert abs(clock.high_water() - time.time()) < 5


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_time_can_be_told(seconds: float) -> None:
    """Whatever stands in a database, a list that holds it can be written, and is read again where it can be."""
    text = iso(seconds)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    if 0 <= seconds < 253402300800:
        assert read_iso(text) == int(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (float("nan"), "0001-01-01T00:00:00Z"),
        (float("-inf"), "0001-01-01T00:00:00Z"),
        (-62135646000.0, "0001-01-01T00:00:00Z"),
        (-1.0, "1969-12-31T23:59:59Z"),
        (0.0, "1970-01-01T00:00:00Z"),
        (float("inf"), "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_that_no_calendar_has_is_the_nearest_that_it_has(seconds: float, text: str) -> None:
    """Below the year 1 as behind the year 9999; what is no number is the first second."""
    assert iso(seconds) == text


@given(st.text() | st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat))
def test_a_time_that_is_read_can_be_told(text: str) -> None:
    """Any text is a time from 1970 to 9999, or refused: as no time, or as one outside of these."""
    try:
        seconds = read_iso(text)
    except OverflowError:
        when = datetime.fromisoformat(text)
        assert not 1970 <= when.year < 9999 or (when.year, when.month, when.day) in ((1970, 1, 1), (9999, 12, 31))
    except ValueError:
        with pytest.raises((ValueError, OverflowError)):
            datetime.fromisoformat(text)
    else:
        # A float of the year 9999 is good to some 30 us: its last moment is the first of the next year.
        assert iso(seconds) == f"{datetime.fromtimestamp(min(int(seconds), 253402300799), UTC):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1970-01-01", "1970-01-01T00:00:00Z"),
        ("1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z"),
        ("9999-12-31", "9999-12-31T00:00:00Z"),
    ],
)
def test_the_first_and_the_last_moment_are_taken(text: str, told: str) -> None:
    """The years 1970 and 9999 are whole."""
    assert iso(read_iso(text)) == told


@pytest.mark.parametrize(
    "text", ["1970-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+14:00"]
)
def test_a_moment_beyond_them_is_refused_wherever_its_clock_hangs(text: str) -> None:
    """What counts is the time in UTC."""
    with pytest.raises(OverflowError):
        read_iso(text)
