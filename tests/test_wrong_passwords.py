"""A password that was wrong a moment ago costs no hash, and nobody's guesses take the whole queue."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from test_accounts_logins import PASSWORD, Endpoint, Hasher
from trust_helpers import running_trust

from edged.access.authority import EDGED
from edged.access.limiter import Limiter
from edged.accounts.logins import Logins
from edged.accounts.passwords import QUEUE, SHARE, Passwords
from edged.accounts.wrong_passwords import MOST, SECONDS, WrongPasswords
from edged.credentials.passwords import MINIMUM_COST
from edged.errors import RateLimited, Refused

HOME, CAFE = "192.0.2.1", "198.51.100.7"


@asynccontextmanager
async def opened(path: Path, hasher: Hasher | None = None) -> AsyncIterator[Endpoint]:
    """Ann and her password, with a limiter that tests can look at."""
    async with running_trust(path / "trust.db") as trust:
        hasher = hasher or Hasher()
        passwords = Passwords(cost=MINIMUM_COST, make_hasher=lambda: hasher)
        logins = Logins(trust.users, passwords, Limiter(), trust.gate, trust.registrar, is_demo=False)
        await trust.users.create(EDGED, name="ann", role="viewer", password=await passwords.hash(PASSWORD))
        hasher.asked.clear()
        yield Endpoint(trust, logins, hasher, passwords)


@pytest.mark.parametrize("name", ["ann", "nobody"])
async def test_the_same_wrong_password_again_is_no_hash_again(tmp_path: Path, name: str) -> None:
    """Whether there is such a user or not, from wherever; it takes as long, counts as wrong and is never right."""
    with fail_after(60):
        async with opened(tmp_path) as endpoint:
            for number in range(12):
                began = trio.current_time()
                assert await endpoint.enter(name, "the old password", f"192.0.2.{number}") == "unknown_key"
                if number:
                    assert trio.current_time() - began >= endpoint.passwords.usual_seconds
            assert len(endpoint.hasher.asked) == 1
            assert endpoint.trust.counted.failed == [("unknown_key", "password", "http")] * 12
            assert await endpoint.enter() == "in"


async def test_many_at_once_are_one_hash(tmp_path: Path) -> None:
    """Those who show the same while it is looked at wait for that."""
    with fail_after(60):
        async with opened(tmp_path) as endpoint:
            outcomes: list[str] = []

            async def enter() -> None:
                outcomes.append(await endpoint.enter("ann", "the old password"))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(enter)
            assert outcomes == ["unknown_key"] * 20
            assert len(endpoint.hasher.asked) == 1


async def test_many_who_show_it_again_wait_side_by_side(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """All are answered after the time of one hash: one after the other the last would wait for minutes."""
    async with opened(tmp_path) as endpoint:
        assert await endpoint.enter("ann", "the old password") == "unknown_key"
        endpoint.passwords._last_seconds = 10
        outcomes: list[str] = []

        async def enter() -> None:
            outcomes.append(await endpoint.enter("ann", "the old password"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(enter)
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == []
            mock_clock.jump(10)
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == ["unknown_key"] * 20
            nursery.cancel_scope.cancel()


async def test_a_password_that_was_wrong_and_is_right_now_is_right(tmp_path: Path) -> None:
    """The user was given it, or made, meanwhile."""
    with fail_after(60):
        async with opened(tmp_path) as endpoint:
            new = "quite another passphrase"
            assert await endpoint.enter("ann", new) == "unknown_key"
            await endpoint.trust.users.set_password("ann", await endpoint.passwords.hash(new))
            assert await endpoint.enter("ann", new) == "in"
            assert await endpoint.enter("bob", new) == "unknown_key"
            await endpoint.trust.users.create(
                EDGED, name="bob", role="viewer", password=await endpoint.passwords.hash(new)
            )
            assert await endpoint.enter("bob", new) == "in"


async def test_a_wrong_password_is_forgotten_after_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    """And what was wrong most recently is kept, so many at most; none of it can be read."""
    wrong = WrongPasswords(trio.current_time)
    mark = wrong.mark("ann", "hunter2hunter2", 3)
    wrong.note(mark)
    await trio.sleep(SECONDS - 1)
    assert wrong.knows(mark)
    await trio.sleep(1)
    assert not wrong.knows(mark)
    for number in range(MOST + 10):
        wrong.note(wrong.mark("ann", f"hunter{number}", 3))
    assert len(wrong._wrong) == MOST
    assert wrong.knows(wrong.mark("ann", f"hunter{MOST}", 3))
    assert b"hunter" not in b"".join(wrong._wrong)


@given(st.lists(st.tuples(st.text(), st.text(), st.integers(-1, 2**63)), min_size=2, max_size=2, unique=True))
def test_no_two_are_taken_for_each_other(shown: list[tuple[str, str, int]]) -> None:
    """Wherever the name ends and the password begins; another process has other marks."""
    wrong = WrongPasswords(lambda: 0.0)
    assert wrong.mark(*shown[0]) != wrong.mark(*shown[1])
    assert wrong.mark(*shown[0]) != WrongPasswords(lambda: 0.0).mark(*shown[0])


class Held(Hasher):
    """One that hashes only once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def verify(self, phc: str, secret: bytes) -> bool:
        assert self.free.wait(60)
        return super().verify(phc, secret)


async def test_one_place_takes_half_of_the_queue(tmp_path: Path) -> None:
    """And so does one name from many places: whoever comes from elsewhere with another name still has a turn."""
    hasher = Held()
    with fail_after(60):
        async with opened(tmp_path, hasher) as endpoint:
            refused: list[str] = []
            came_in: list[str] = []

            async def enter(name: str, password: str, address: str) -> None:
                try:
                    if await endpoint.enter(name, password, address) == "in":
                        came_in.append(address)
                except RateLimited as problem:
                    refused.append(str(problem))

            async with trio.open_nursery() as nursery:
                for number in range(1 + 2 * QUEUE):
                    nursery.start_soon(enter, f"user{number}", f"a guess {number}", CAFE)
                    await trio.testing.wait_all_tasks_blocked(0.001)
                assert len(refused) == 2 * QUEUE - SHARE
                for number in range(SHARE):
                    nursery.start_soon(enter, "ann", f"a guess {number}", f"203.0.113.{number}")
                await trio.testing.wait_all_tasks_blocked(0.001)
                assert len(refused) == 2 * QUEUE - SHARE
                # The queue is full now; who came in from home before goes before all of them.
                endpoint.logins._limiter.succeeded(HOME, "ann")
                nursery.start_soon(enter, "ann", PASSWORD, HOME)
                await trio.testing.wait_all_tasks_blocked(0.001)
                hasher.free.set()
            assert came_in == [HOME]
            assert len(refused) == 2 * QUEUE - SHARE


async def test_a_known_user_behind_a_router_is_not_held_up_by_its_guessers(tmp_path: Path) -> None:
    """They guess at others until their address has to wait; ann, who came in from there, does not."""
    with fail_after(60):
        async with opened(tmp_path) as endpoint:
            enter = partial(endpoint.logins.enter, transport="http", is_near=False)
            await enter("ann", PASSWORD, CAFE)
            for number in range(10):
                with pytest.raises(Refused):
                    await enter(f"user{number}", f"a guess {number}", CAFE)
            with pytest.raises(RateLimited, match="from this address"):
                await enter("bob", "a guess", CAFE)
            await enter("ann", PASSWORD, CAFE)
            # Whoever guesses at ann herself from there waits, and elsewhere she does not.
            await enter("ann", PASSWORD, HOME)
            for number in range(10):
                with pytest.raises(Refused):
                    await enter("ann", f"a guess {number}", CAFE)
            with pytest.raises(RateLimited, match="for this user from this address"):
                await enter("ann", PASSWORD, CAFE)
            await enter("ann", PASSWORD, HOME)
