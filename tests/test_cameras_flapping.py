"""A port that flaps: backed off, quarantined, released; never a camera that is there and quiet."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edged.cameras.flapping import DEBOUNCE, LONGEST_PAUSE, MOST_FLAPS, QUIET, WINDOW, Contact


def test_a_few_replugs_are_settled_as_usual() -> None:
    """Three within a minute; the fourth doubles the pause, and so on up to ten seconds."""
    contact = Contact()
    pauses = []
    for number in range(MOST_FLAPS - 1):
        assert not contact.flap(float(number))
        pauses.append(contact.pause(float(number)))
    assert pauses[:3] == [DEBOUNCE] * 3
    assert all(later == min(earlier * 2, LONGEST_PAUSE) for earlier, later in pairwise(pauses[2:]))


def test_the_tenth_within_a_minute_quarantines_the_port_until_it_is_released() -> None:
    """It is told once; whoever waits must see a minute of quiet."""
    contact = Contact()
    assert [contact.flap(number * 5.0) for number in range(MOST_FLAPS + 2)].count(True) == 1
    assert (contact.is_quarantined, contact.pause(55.0), contact.is_steady(1e9)) == (True, QUIET, False)
    contact.release()
    assert (contact.is_quarantined, contact.pause(55.0), contact.is_steady(55.0)) == (False, DEBOUNCE, True)


@given(st.lists(st.floats(WINDOW / (MOST_FLAPS - 2), 1000.0), max_size=50))
def test_a_camera_that_is_replugged_now_and_then_is_never_quarantined(pauses: list[float]) -> None:
    """Fewer than ten times within any minute."""
    contact, now = Contact(), 0.0
    for pause in pauses:
        now += pause
        assert not contact.flap(now)
    assert contact.is_steady(now + WINDOW + 1)
    assert contact.pause(now + WINDOW + 1) == DEBOUNCE
