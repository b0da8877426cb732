"""accounts/passwords.py: argon2id, one at a time, in a thread, behind a short queue."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from edged.accounts.passwords import Argon2, Passwords, Verified
from edged.config.model import AuthSettings
from edged.credentials.passwords import MINIMUM_COST, MOST_PASSES, Cost, read_cost
from edged.errors import InvalidParams, RateLimited

CHEAP = Cost(8, 1)
PASSWORD = "a horse that is correct"
OTHER = "a horse that is wrong"


@dataclass
class Watched:
    """A real argon2 that counts who is inside, and can be held in the middle of a call."""

    real: Argon2 = field(default_factory=Argon2)
    free: threading.Event = field(default_factory=threading.Event)
    inside: int = 0
    most: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.free.set()

    def hash(self, secret: bytes, cost: Cost) -> str:
        self._enter("hash", cost.passes)
        made = self.real.hash(secret, Cost(8, cost.passes))
        self.inside -= 1
        return made.replace("m=8", f"m={cost.memory_kib}")

    def verify(self, phc: str, secret: bytes) -> bool:
        cost = read_cost(phc)
        assert cost is not None
        self._enter("verify", cost.passes)
        good = self.real.verify(phc.replace(f"m={cost.memory_kib}", "m=8"), secret)
        self.inside -= 1
        return good

    def _enter(self, what: str, passes: int) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.threads.add(threading.get_ident())
        self.calls.append((what, passes))
        assert self.free.wait(60)

    @property
    def passes(self) -> int:
        """Paid since the last look."""
        paid = sum(passes for _, passes in self.calls)
        self.calls.clear()
        return paid


def make(hasher: Watched, cost: Cost = CHEAP, **options: object) -> Passwords:
    return Passwords(cost=cost, make_hasher=lambda: hasher, **options)  # type: ignore[arg-type]


async def until_inside(hasher: Watched) -> None:
    while not hasher.inside:
        await trio.sleep(0.001)


async def test_a_password_is_known_by_its_hash_and_no_other_is() -> None:
    """The hash is a PHC string of the cost asked for, with a salt of its own."""
    passwords = Passwords(cost=CHEAP)
    phc = await passwords.hash(PASSWORD)
    assert read_cost(phc) == CHEAP
    assert await passwords.verify(phc, PASSWORD, shares=()) == Verified(good=True)
    assert await passwords.verify(phc, OTHER, shares=()) == Verified(good=False)
    assert await passwords.hash(PASSWORD) != phc


async def test_accents_may_be_typed_either_way() -> None:
    """A keyboard that composes and one that does not."""
    passwords = Passwords(cost=CHEAP)
    phc = await passwords.hash("caf\N{LATIN SMALL LETTER E WITH ACUTE} noir")
    assert (await passwords.verify(phc, "cafe\N{COMBINING ACUTE ACCENT} noir", shares=())).good


@pytest.mark.parametrize("text", ["", "x" * 1025, "\ud800\ud800\ud800\ud800"])
async def test_what_cannot_be_a_password_is_neither_hashed_nor_good(text: str) -> None:
    """It is refused when it is set, and costs as much as any wrong one when it is guessed."""
    hasher = Watched()
    passwords = make(hasher)
    with pytest.raises(InvalidParams, match="cannot be a password"):
        await passwords.hash(text)
    phc = await passwords.hash(PASSWORD)
    assert hasher.passes
    assert await passwords.verify(phc, text, shares=()) == Verified(good=False)
    assert hasher.passes == CHEAP.passes


ABSURD = "$argon2id$v=19$m=9999999,t=2,p=1$c2FsdHNhbHQ$" + "A" * 43


@pytest.mark.parametrize("phc", [None, "", "$2b$12$something", ABSURD])
async def test_a_user_that_is_not_there_costs_as_much_as_one_that_is(phc: str | None) -> None:
    """A dummy is compared, at today's cost, and nothing is ever its password."""
    hasher = Watched()
    passwords = make(hasher, Cost(8, 3))
    known = await passwords.hash(PASSWORD)
    assert hasher.passes
    await passwords.verify(known, OTHER, shares=())
    wrong = hasher.passes
    assert await passwords.verify(phc, PASSWORD, shares=()) == Verified(good=False)
    assert hasher.passes == wrong == 3


async def test_a_right_password_with_a_cheaper_hash_gets_a_more_expensive_one() -> None:
    """Who logs in is rehashed; the old hash was good this once."""
    old = await Passwords(cost=CHEAP).hash(PASSWORD)
    passwords = Passwords(cost=Cost(16, 2))
    verified = await passwords.verify(old, PASSWORD, shares=())
    assert verified.good
    assert verified.rehashed is not None
    assert read_cost(verified.rehashed) == Cost(16, 2)
    assert await passwords.verify(verified.rehashed, PASSWORD, shares=()) == Verified(good=True)


async def test_a_wrong_password_at_a_cheaper_hash_costs_as_much_as_at_nobodys() -> None:
    """Else the time would tell which users are there; and nothing is rehashed."""
    old = await Passwords(cost=Cost(8, 2)).hash(PASSWORD)
    hasher = Watched()
    passwords = make(hasher, Cost(8, 5))
    await passwords.verify(None, OTHER, shares=())
    assert hasher.passes
    assert await passwords.verify(old, OTHER, shares=()) == Verified(good=False)
    assert hasher.passes == 5


async def test_a_wrong_password_at_a_hash_of_less_memory_is_only_wrong() -> None:
    """As many passes as today's need no more."""
    old = await Passwords(cost=CHEAP).hash(PASSWORD)
    assert await Passwords(cost=Cost(16, 1)).verify(old, OTHER, shares=()) == Verified(good=False)


async def test_hashes_at_rest_keep_their_cost_on_a_box_that_measures_less() -> None:
    """Their passes are the least for new ones too, up to the limit, whenever they become known."""
    hasher = Watched()
    passwords = make(hasher)
    costly = await Passwords(cost=Cost(8, 4)).hash(PASSWORD)
    passwords.heed(costly)
    passwords.heed(await Passwords(cost=Cost(8, 2)).hash(PASSWORD))
    passwords.heed("no hash")
    assert read_cost(await passwords.hash(PASSWORD)) == Cost(8, 4)
    passwords.heed(costly.replace("t=4", "t=12"))
    assert read_cost(await passwords.hash(PASSWORD)) == Cost(8, MOST_PASSES)
    assert hasher.passes
    await passwords.verify(None, PASSWORD, shares=())
    assert hasher.passes == MOST_PASSES


@pytest.mark.parametrize(
    ("a_pass", "passes"), [(0.5, 2), (0.05, 2), (0.03, 4), (0.0101, 10), (0.001, MOST_PASSES), (0.0, MOST_PASSES)]
)
async def test_passes_are_added_until_a_hash_takes_a_tenth_of_a_second(a_pass: float, passes: int) -> None:
    """A slow box keeps the minimum, a fast one stops at ten; measured once, in time of a core, at the first use."""
    hasher = Watched()
    passwords = Passwords(make_hasher=lambda: hasher, measure=lambda: a_pass * sum(n for _, n in hasher.calls))
    assert hasher.calls == []
    phc = await passwords.hash(PASSWORD)
    assert read_cost(phc) == Cost(MINIMUM_COST.memory_kib, passes)
    assert ("hash", 2) in hasher.calls
    assert len(hasher.calls) == 4
    await passwords.verify(phc, PASSWORD, shares=())
    assert len(hasher.calls) == 5


@pytest.mark.parametrize(
    ("a_pass", "at_least", "passes"),
    [(0.5, 6, 6), (0.03, 3, 4), (0.03, 5, 5), (0.0, 2, MOST_PASSES), (0.5, 0, 2), (0.5, 99, MOST_PASSES)],
)
async def test_measuring_only_raises_what_was_asked_for(a_pass: float, at_least: int, passes: int) -> None:
    """Neither below the minimum nor beyond the limit; what is stored at less is made anew."""
    hasher = Watched()
    passwords = Passwords(
        at_least=at_least, make_hasher=lambda: hasher, measure=lambda: a_pass * sum(n for _, n in hasher.calls)
    )
    verified = await passwords.verify(await make(hasher, MINIMUM_COST).hash(PASSWORD), PASSWORD, shares=())
    assert verified.good
    assert (verified.rehashed is None) == (passes == MINIMUM_COST.passes)
    assert read_cost(await passwords.hash(PASSWORD)) == Cost(MINIMUM_COST.memory_kib, passes)


def test_the_setting_is_within_what_hashes_may_cost() -> None:
    """Its least is the minimum, and its most the limit, which hashes at rest keep, too."""
    assert AuthSettings().password_cost == MINIMUM_COST.passes
    for passes in range(-1, 2 * MOST_PASSES):
        if MINIMUM_COST.passes <= passes <= MOST_PASSES:
            assert msgspec.convert({"password_cost": passes}, AuthSettings).password_cost == passes
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({"password_cost": passes}, AuthSettings)


async def test_hashes_never_cost_less_than_the_minimum() -> None:
    """19 MiB, two passes, one lane at least, by the real thing."""
    cost = read_cost(await Passwords().hash(PASSWORD))
    assert cost is not None
    assert cost.covers(MINIMUM_COST)
    assert cost.passes <= MOST_PASSES


async def test_nothing_waits_for_a_hash_but_hashes() -> None:
    """While one is held in the middle of its work the loop turns; another hash waits its turn."""
    hasher = Watched()
    passwords = make(hasher)
    await passwords.hash(PASSWORD)
    hasher.free.clear()
    done: list[str] = []

    async def check(name: str) -> None:
        await passwords.verify(None, PASSWORD, shares=())
        done.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check, "first")
        await until_inside(hasher)
        nursery.start_soon(check, "second")
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
        assert done == []
        assert hasher.inside == 1
        hasher.free.set()
    assert sorted(done) == ["first", "second"]


async def test_one_hash_at_a_time_whoever_asks_and_the_queue_is_first_come_first_served() -> None:
    """Twenty askers, eight at a time: never two inside."""
    hasher = Watched()
    passwords = make(hasher, queue=20)
    order: list[int] = []

    async def check(number: int) -> None:
        await passwords.verify(None, PASSWORD, shares=())
        order.append(number)

    hasher.free.clear()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(check, number)
            await trio.testing.wait_all_tasks_blocked()
        hasher.free.set()
    assert order == list(range(20))
    assert hasher.most == 1


async def test_the_ninth_that_would_wait_is_refused_at_once_and_told_when_to_come_back() -> None:
    """One is served, eight wait; when they are through more may wait."""
    hasher = Watched()
    passwords = make(hasher)
    hasher.free.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(partial(passwords.verify, None, PASSWORD, shares=()))
        await until_inside(hasher)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RateLimited, match="8 passwords wait") as caught:
            await passwords.verify(None, PASSWORD, shares=())
        assert caught.value.retry_after_ms > 0
        hasher.free.set()
    assert (await passwords.verify(None, PASSWORD, shares=())) == Verified(good=False)


async def test_whoever_hangs_up_leaves_the_queue() -> None:
    """Their place is free at once, and their password is never looked at."""
    hasher = Watched()
    passwords = make(hasher, queue=1)
    await passwords.hash(PASSWORD)
    hasher.calls.clear()
    hasher.free.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(passwords.verify, None, PASSWORD, shares=()))
        await until_inside(hasher)
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await passwords.verify(None, OTHER, shares=())
        assert scope.cancelled_caught
        nursery.start_soon(partial(passwords.verify, None, PASSWORD, shares=()))
        await trio.testing.wait_all_tasks_blocked()
        hasher.free.set()
    assert hasher.calls == [("verify", 1)] * 2


async def test_whoever_hangs_up_at_the_very_moment_of_their_turn_gives_it_on() -> None:
    """Called and cancelled at once: their password is not looked at, and the next one is."""
    hasher = Watched()
    passwords = make(hasher)
    await passwords.hash(PASSWORD)
    hasher.calls.clear()
    with trio.CancelScope() as scope:
        scope.cancel()
        await passwords.verify(None, OTHER, shares=())
    assert scope.cancelled_caught
    assert hasher.calls == []
    assert await passwords.verify(None, PASSWORD, shares=()) == Verified(good=False)


async def test_who_is_known_goes_before_strangers_also_when_their_queue_is_full() -> None:
    """Behind the one that is being looked at, and first come first served among each other."""
    hasher = Watched()
    passwords = make(hasher, queue=2)
    await passwords.hash(PASSWORD)
    order: list[str] = []

    async def check(name: str, is_known: bool) -> None:
        await passwords.verify(None, PASSWORD, is_known=is_known, shares=())
        order.append(name)

    hasher.free.clear()
    async with trio.open_nursery() as nursery:
        for name in ("now", "stranger 1", "stranger 2", "known 1", "known 2"):
            nursery.start_soon(check, name, name.startswith("known"))
            await trio.testing.wait_all_tasks_blocked()
        for is_known in (False, True):
            with pytest.raises(RateLimited):
                await passwords.verify(None, PASSWORD, is_known=is_known, shares=())
        hasher.free.set()
    assert order == ["now", "known 1", "known 2", "stranger 1", "stranger 2"]
    assert hasher.most == 1


async def test_a_password_to_store_is_hashed_before_strangers_also_when_their_queue_is_full() -> None:
    """Whoever sets one was allowed to: guesses from elsewhere keep no administrator from that."""
    hasher = Watched()
    passwords = make(hasher, queue=2)
    await passwords.hash(PASSWORD)
    hasher.calls.clear()
    hasher.free.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(partial(passwords.verify, None, PASSWORD, shares=()))
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(passwords.hash, PASSWORD)
        await trio.testing.wait_all_tasks_blocked()
        hasher.free.set()
    assert [what for what, _ in hasher.calls] == ["verify", "hash", "verify", "verify"]


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_hash_that_fails_gives_its_turn_on() -> None:
    """A library that breaks once does not end the task that hashes passwords."""

    class Broken(Watched):
        def hash(self, secret: bytes, cost: Cost) -> str:
            if secret == b"break it, please":
                raise MemoryError
            return super().hash(secret, cost)

    passwords = make(Broken())
    with pytest.raises(MemoryError):
        await passwords.hash("break it, please")
    assert await passwords.hash(PASSWORD)


async def test_memory_of_hashes_is_given_back_whichever_thread_made_them() -> None:
    """Hashes in six threads that all live on leave less than one hash's memory behind."""
    code = """
import threading
from edged.accounts.passwords import Argon2
from edged.config.model import AuthSettings
from edged.credentials.passwords import MINIMUM_COST
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
argon2, stay, sizes = Argon2(), threading.Event(), []
for _ in range(7):
    made = threading.Event()
    def work():
        for _ in range(3):
            argon2.hash(b"x" * 10, MINIMUM_COST)
        made.set()
        stay.wait()
    threading.Thread(target=work).start()
    made.wait()
    sizes.append(rss())
stay.set()
print(sizes[-1] - sizes[0])
"""
    grown = await trio.to_thread.run_sync(
        lambda: int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    )
    assert grown < MINIMUM_COST.memory_kib * 1024 // 2


def test_the_library_is_loaded_with_the_first_password_only(tmp_path: Path) -> None:
    """A box that has no users does not hold it in memory."""
    code = (
        "import sys, edged.app, edged.accounts.passwords as p; p.Passwords();"
        " print([name for name in sys.modules if name.startswith('argon2') or name.startswith('_argon2')])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.strip() == "[]"
