"""However many connections a client has, they take one share of each turn of the event loop together."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st
from net_helpers import LIMITS

from edged.credentials.callers import Peer
from edged.net.pools import Member, Pools
from edged.net.shares import Share, Turns, counting
from edged.wire.ports import TURN_SECONDS


def make_member(address: str) -> Member:
    """A connection from there."""
    return Member(Peer("main", address, 1), address)


async def test_connections_of_one_client_take_turns_and_others_are_served_in_between() -> None:
    """Twelve connections of which each would use the whole share, and a client who asks something small each turn: it
    never waits for more than one of the twelve."""
    turns, log = Turns(), []
    busy, small = Share(turns), Share(turns)

    async def flood() -> None:
        for _ in range(20):
            if busy.is_used_up:
                await busy.wait()
            busy.spend(TURN_SECONDS)
            log.append("flood")
            await trio.lowlevel.checkpoint()

    async def ask() -> None:
        for _ in range(100):
            assert not small.is_used_up
            small.spend(0.0001)
            log.append("small")
            await trio.lowlevel.checkpoint()

    with counting(turns):
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(flood)
            nursery.start_soon(ask)
    runs = [len(list(group)) for name, group in itertools.groupby(log[: log.index("small") + 180]) if name == "flood"]
    # The order within a turn is trio's: two turns may meet, so that at most two of them stand side by side.
    assert max(runs) <= 2
    assert log.count("flood") == 240


async def test_of_the_connections_of_a_client_that_wait_one_looks_each_turn() -> None:
    """100 connections of a client whose share is used up anew in each turn: waiting costs a turn one run of a task."""
    turns = Turns()
    share, runs = Share(turns), Counter[int]()

    class Runs(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name == "wait":
                runs[turns.number] += 1

    async def wait() -> None:
        await share.wait()

    trio.lowlevel.add_instrument(each_step := Runs())
    try:
        with counting(turns):
            async with trio.open_nursery() as nursery:
                share.spend(TURN_SECONDS)
                for _ in range(100):
                    nursery.start_soon(wait, name="wait")
                for _ in range(20):
                    share.spend(TURN_SECONDS)
                    await trio.lowlevel.checkpoint()
                began = turns.number - 15
                nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(each_step)
    assert {runs[number] for number in range(began, began + 12)} <= {0, 1, 2}


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_a_connection_that_ends_while_it_waits_keeps_no_other_waiting(cancelled: int) -> None:
    turns = Turns()
    share, done = Share(turns), list[int]()
    scopes = [trio.CancelScope() for _ in range(3)]

    async def wait(number: int) -> None:
        with scopes[number]:
            await share.wait()
            done.append(number)

    with counting(turns), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(wait, number)
            for _ in range(5):
                share.spend(TURN_SECONDS)
                await trio.lowlevel.checkpoint()
            scopes[cancelled].cancel()
    assert set(done) >= {0, 1, 2} - {cancelled}


async def test_a_client_alone_is_not_held_up() -> None:
    """What waits goes on in the next turn, without a pause."""
    turns = Turns()
    share = Share(turns)
    with counting(turns):
        for _ in range(50):
            share.spend(2 * TURN_SECONDS)
            assert share.is_used_up
            before = turns.number
            await share.wait()
            assert turns.number - before <= 2


async def test_the_turns_are_counted_while_connections_are_served_and_no_longer() -> None:
    """The instrument goes with the block."""
    turns = Turns()
    with counting(turns):
        await trio.lowlevel.checkpoint()
    count = turns.number
    await trio.lowlevel.checkpoint()
    assert turns.number == count > 0


def test_who_pays_is_the_place_before_authentication_and_the_credential_after_it() -> None:
    """One key from two places is one client; two keys behind one address are two."""
    pools = Pools(LIMITS)
    first, second, third = make_member("192.0.2.1"), make_member("192.0.2.1"), make_member("192.0.2.2")
    for member in (first, second, third):
        pools.add(member)
    assert first.share is second.share
    assert first.share is not third.share
    pools.identify(first, "key_a")
    pools.identify(third, "key_a")
    assert first.share is third.share
    assert first.share is not second.share
    pools.move(second, "198.51.100.7")
    assert second.share is not first.share


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["add", "remove", "a", "b", ""]))))
def test_shares_are_kept_for_as_long_as_somebody_pays_by_them(steps: list[tuple[int, str]]) -> None:
    """Whoever comes, authenticates and goes in any order: none is left at the end, and nobody's is lost."""
    pools, members, inside = Pools(LIMITS), [make_member(f"192.0.2.{n % 2}") for n in range(4)], set()
    for number, what in steps:
        member = members[number]
        if what == "add" and number not in inside:
            pools.add(member)
            inside.add(number)
        elif what == "remove" and number in inside:
            pools.remove(member)
            member.account = ""
            inside.discard(number)
        elif what in ("a", "b", "") and number in inside:
            pools.identify(member, what)
        by_payer: dict[Any, Any] = {}
        for each in inside:
            key = members[each].account or members[each].place
            assert by_payer.setdefault(key, members[each].share) is members[each].share
        assert len(pools._shares) == len(by_payer)


@pytest.mark.parametrize("spent", [0.0, TURN_SECONDS / 2])
def test_who_has_used_little_does_not_wait(spent: float) -> None:
    """As nearly everybody always has."""
    share = Share(Turns())
    share.spend(spent)
    assert not share.is_used_up
