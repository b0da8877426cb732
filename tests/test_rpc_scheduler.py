"""The order of the messages of one connection: they run side by side, but for barriers (contract 10.3, 10.4)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edged.rpc.scheduler import Scheduler
from edged.wire.jsonrpc import Batch, Call

PLAIN = Call("2.0", "take_snapshot")
BARRIER = Call("2.0", "authenticate")


def is_barrier(message: Call | Batch) -> bool:
    return message is BARRIER


def make_scheduler(most: int = 32) -> Scheduler:
    return Scheduler(most, is_barrier)


def test_messages_run_side_by_side() -> None:
    """One that waits does not hold up the next."""
    scheduler = make_scheduler()
    for _ in range(3):
        assert scheduler.place(PLAIN) == "now"
        scheduler.launch(PLAIN)
    assert scheduler.in_flight == 3


def test_a_barrier_waits_for_what_is_before_it_and_holds_up_what_is_behind_it() -> None:
    """Both are held, and start in their order."""
    scheduler = make_scheduler()
    scheduler.launch(PLAIN)
    assert scheduler.place(BARRIER) == "later"
    assert scheduler.place(PLAIN) == "later"
    assert scheduler.take() is None
    scheduler.finish()
    assert scheduler.take() is BARRIER
    scheduler.launch(BARRIER)
    assert scheduler.take() is None
    scheduler.finish()
    assert scheduler.take() is PLAIN
    assert scheduler.take() is None
    assert scheduler.in_flight == 0


def test_held_messages_count_as_in_flight() -> None:
    """Whoever sends barriers only is refused like everybody else."""
    scheduler = make_scheduler(most=2)
    scheduler.launch(PLAIN)
    assert scheduler.place(BARRIER) == "later"
    assert scheduler.place(BARRIER) == "refused"
    assert scheduler.in_flight == 2


@given(st.lists(st.sampled_from(["plain", "barrier", "end"])))
def test_every_message_starts_once_and_no_barrier_starts_beside_another_message(steps: list[str]) -> None:
    """Whatever arrives and ends in which order."""
    scheduler, arrived, started, running = make_scheduler(most=8), 0, 0, list[Any]()

    def start(message: Call | Batch) -> None:
        nonlocal started
        assert message is not BARRIER or not running
        assert BARRIER not in running
        started += 1
        running.append(message)
        scheduler.launch(message)

    def end() -> None:
        running.pop()
        scheduler.finish()
        while (message := scheduler.take()) is not None:
            start(message)

    for step in steps:
        if step != "end":
            message = BARRIER if step == "barrier" else PLAIN
            place = scheduler.place(message)
            arrived += place != "refused"
            if place == "now":
                start(message)
        elif running:
            end()
    while running:
        end()
    assert (started, scheduler.in_flight) == (arrived, 0)
