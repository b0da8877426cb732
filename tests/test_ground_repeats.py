"""repeats.py: the first lines are written, the rest counted, once a minute; what lasts is told at its begin and end."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edged.repeats import BUDGET, FIRST, MOST, Lasting, Repeats


class Book:
    """What was written: (what, times, others)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, bool]] = []
        self.repeats: Repeats[str] = Repeats(self.write)

    def write(self, what: str, times: int, *, others: bool) -> None:
        self.lines.append((what, times, others))


def test_the_first_are_written_and_the_rest_counted() -> None:
    """In the next minute whoever goes on is only counted; whoever was quiet is news again."""
    book = Book()
    for second in range(55):
        book.repeats.note("a", float(second), "a")
    assert book.lines == [("a", 1, False)] * FIRST
    book.repeats.note("a", 60.0, "a")
    assert book.lines[FIRST:] == [("a", 50, False)]
    book.repeats.note("b", 61.0, "b")
    assert book.lines[-1] == ("b", 1, False)
    book.repeats.flush(120.0)
    assert book.lines[-1] == ("a", 1, False)
    book.repeats.flush(180.0)
    book.repeats.note("a", 181.0, "a")
    assert book.lines[-1] == ("a", 1, False)
    assert len(book.lines) == FIRST + 4


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 5)), max_size=600))
def test_nothing_is_lost_and_a_minute_has_so_many_lines(notes: list[tuple[int, float]]) -> None:
    """Whoever comes, how often, and when."""
    book, now, total = Book(), 0.0, 0
    began, lines = 0.0, 0
    for key, pause in notes:
        now += pause
        if now - began >= 60:
            began, lines = now, len(book.lines)
        book.repeats.note(key, now, str(key))
        total += 1
        assert len(book.lines) - lines <= BUDGET + MOST + 1
    book.repeats.flush(now + 60)
    assert sum(times for _, times, _ in book.lines) == total


def test_beyond_a_hundred_keys_they_are_counted_together() -> None:
    """Whoever has many addresses writes no more than others."""
    book = Book()
    for number in range(1000):
        book.repeats.note(number, 1.0, str(number))
    book.repeats.flush(61.0)
    assert len(book.lines) == BUDGET + 1
    assert book.lines[-1] == ("999", 1000 - BUDGET, True)


async def test_what_was_counted_is_written_within_a_minute_and_at_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also if nothing more comes; while there is nothing it sleeps for good."""
    book = Book()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(book.repeats.run)
        await trio.sleep(3600)
        for _ in range(FIRST + 3):
            book.repeats.note("a", trio.current_time(), "a")
        await trio.sleep(61)
        assert book.lines[-1] == ("a", 3, False)
        book.repeats.note("a", trio.current_time(), "a")
        nursery.cancel_scope.cancel()
    assert book.lines[-1] == ("a", 1, False)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "full", "read-only"]))))
def test_what_lasts_is_told_where_it_changes_and_nowhere_else(tries: list[tuple[str, str]]) -> None:
    """`tries`: what was tried, and why it failed, "" if it did not."""
    lasting, before = Lasting(), {"a": "", "b": ""}
    for what, problem in tries:
        told = lasting.begins(what, problem) if problem else lasting.ends(what)
        assert told is (problem != before[what])
        before[what] = problem
