"""When a child that has ended is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.restarts import FIRST_PAUSE, GOOD_SECONDS, LONGEST_PAUSE, Restarts


def test_starts_that_fail_pause_for_longer_and_longer_up_to_ten_seconds() -> None:
    ends = Restarts()
    assert [ends.note(0.0) for _ in range(8)] == [0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_after_good_work_there_is_no_pause_and_the_next_failure_pauses_shortly() -> None:
    ends = Restarts()
    for _ in range(20):
        ends.note(0.0)
    assert [ends.note(GOOD_SECONDS), ends.note(0.0), ends.note(0.0)] == [0.0, FIRST_PAUSE, 2 * FIRST_PAUSE]


def test_the_next_failure_is_the_first_once_the_others_are_forgotten() -> None:
    ends = Restarts()
    for _ in range(20):
        ends.note(0.0)
    ends.forget()
    assert (ends.failures, ends.note(0.0)) == (0, FIRST_PAUSE)


@given(st.lists(st.floats(0.0, 10.0), max_size=2000))
def test_only_who_worked_is_started_at_once_and_nobody_waits_longer_than_the_longest(runs: list[float]) -> None:
    ends = Restarts()
    for worked in runs:
        pause = ends.note(worked)
        assert (pause == 0.0) == (worked >= GOOD_SECONDS)
        assert 0.0 <= pause <= LONGEST_PAUSE
