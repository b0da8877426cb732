"""access/limiter.py: guessing costs time, one typo costs nothing, and nobody is locked out for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trust_helpers import SECRET, BrokenCommits, open_trust, rows, until

from edged.access import limiter as module
from edged.access.authority import EDGED
from edged.access.limiter import KNOWN_SECONDS, MOST, Limiter
from edged.credentials.callers import ApiKey, LocalUser, NoCredential, Peer, Ticket, Token
from edged.credentials.places import place_of
from edged.credentials.tokens import issue_claims, sign
from edged.errors import RateLimited, Refused
from edged.store.database import Database
from edged.store.migrations import USAGE

HOME, CAFE = "192.0.2.1", "198.51.100.7"


@dataclass
class Endpoint:
    """A limiter with a clock of its own, and who was told to wait."""

    now: float = 1000.0
    told: list[str] = field(default_factory=list)
    limiter: Limiter = field(init=False)

    def __post_init__(self) -> None:
        self.limiter = Limiter(lambda: self.now, self.told.append)

    def wait_of(self, address: str, subject: str | None = None) -> float:
        """Seconds that this one has to wait now, 0 if they may try."""
        try:
            self.limiter.check(address, subject)
        except RateLimited as problem:
            return problem.retry_after_ms / 1000
        return 0.0

    def guess(self, count: int, address: str = HOME, subject: str | None = None, word: str = "wrong") -> None:
        for number in range(count):
            self.limiter.failed(address, subject, f"{word} {number}")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_ten_different_wrong_ones_in_a_minute_begin_a_wait_and_nine_do_not(endpoint: Endpoint) -> None:
    """The tenth costs a second; another address is not concerned."""
    endpoint.guess(9)
    assert endpoint.wait_of(HOME) == 0
    endpoint.limiter.failed(HOME, None, "the tenth")
    assert endpoint.wait_of(HOME) == 1.0
    assert endpoint.wait_of(CAFE) == 0
    assert endpoint.told == ["address"]


def test_one_bad_credential_shown_a_thousand_times_holds_nobody_up(endpoint: Endpoint) -> None:
    """Clients retry; one typo must not be a ban (contract C-43)."""
    for _ in range(1000):
        endpoint.limiter.failed(HOME, "alice", "the old password")
        endpoint.now += 0.01
    assert endpoint.wait_of(HOME, "alice") == 0


def test_wrong_ones_far_apart_hold_nobody_up(endpoint: Endpoint) -> None:
    """Ten in ten minutes are no attack."""
    for number in range(100):
        endpoint.limiter.failed(HOME, None, f"wrong {number}")
        endpoint.now += 7.0
    assert endpoint.wait_of(HOME) == 0


def test_each_further_wrong_one_doubles_the_wait_up_to_a_minute(endpoint: Endpoint) -> None:
    """1, 2, 4 … 60, 60: and after each wait one may try again."""
    endpoint.guess(10)
    waits = []
    for number in range(9):
        waits.append(endpoint.wait_of(HOME))
        endpoint.now += waits[-1]
        assert endpoint.wait_of(HOME) == 0
        endpoint.limiter.failed(HOME, None, f"later {number}")
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_same_wrong_one_after_a_wait_prolongs_nothing(endpoint: Endpoint) -> None:
    """A client that retries what it has shown before is no guesser, not even beside one."""
    endpoint.guess(10)
    endpoint.now += 1.0
    endpoint.limiter.failed(HOME, None, "wrong 5")
    assert endpoint.wait_of(HOME) == 0


def test_a_quiet_minute_after_the_wait_forgets_all(endpoint: Endpoint) -> None:
    """Nobody stays marked."""
    endpoint.guess(12)
    endpoint.now += endpoint.wait_of(HOME) + 60.0
    endpoint.guess(9, word="new")
    assert endpoint.wait_of(HOME) == 0
    endpoint.limiter.failed(HOME, None, "the tenth")
    assert endpoint.wait_of(HOME) == 1.0


def test_a_subject_waits_whatever_the_address(endpoint: Endpoint) -> None:
    """Ten addresses with one guess each at one user are an attack on that user; the addresses may ask for others."""
    for number in range(10):
        endpoint.limiter.failed(f"203.0.113.{number}", "alice", f"wrong {number}")
    assert endpoint.wait_of(CAFE, "alice") == 1.0
    assert endpoint.wait_of(CAFE, "bob") == 0
    assert endpoint.wait_of("203.0.113.1", "bob") == 0
    assert endpoint.told == ["subject"]


def test_one_password_tried_on_ten_users_is_ten_guesses_of_an_address(endpoint: Endpoint) -> None:
    """Spraying is guessing."""
    for number in range(10):
        endpoint.limiter.failed(HOME, f"user{number}", "winter2026")
    assert endpoint.wait_of(HOME, "somebody else") == 1.0


def test_one_password_tried_on_one_user_from_ten_addresses_is_one_guess(endpoint: Endpoint) -> None:
    """A user's own devices, all with the old password."""
    for number in range(10):
        endpoint.limiter.failed(f"203.0.113.{number}", "alice", "the old password")
    assert endpoint.wait_of(CAFE, "alice") == 0


def test_whoever_came_in_from_there_before_keeps_access_under_attack(endpoint: Endpoint) -> None:
    """A known place waits neither for its user nor its neighbours, only for what was wrong of that user from there."""
    endpoint.limiter.succeeded(HOME, "alice")
    endpoint.guess(20, CAFE, "alice")
    assert endpoint.wait_of(HOME, "alice") == 0
    assert endpoint.wait_of("203.0.113.5", "alice") > 0
    endpoint.guess(10, HOME, "bob")
    assert endpoint.wait_of(HOME, "bob") == 1.0
    assert endpoint.wait_of(HOME, "alice") == 0
    endpoint.guess(10, HOME, "alice")
    assert endpoint.wait_of(HOME, "alice") == 1.0


def test_a_known_place_is_forgotten_after_thirty_days(endpoint: Endpoint) -> None:
    """And each time somebody comes in makes it known anew."""
    endpoint.limiter.succeeded(HOME, "alice")
    endpoint.now += KNOWN_SECONDS - 1
    endpoint.guess(10, CAFE, "alice")
    assert endpoint.wait_of(HOME, "alice") == 0
    endpoint.now += 1
    endpoint.guess(1, CAFE, "alice", "last")
    assert endpoint.wait_of(HOME, "alice") > 0
    assert not endpoint.limiter.knows(HOME, "alice")
    endpoint.limiter.succeeded(HOME, "alice")
    assert endpoint.wait_of(HOME, "alice") == 0
    assert endpoint.limiter.knows(HOME, "alice")
    assert not endpoint.limiter.knows(CAFE, "alice")
    assert not endpoint.limiter.knows(HOME, "bob")
    assert endpoint.limiter.knows("", "bob")


def test_a_success_does_not_wipe_out_what_an_address_guessed(endpoint: Endpoint) -> None:
    """Else an attacker with an account of their own would start afresh with each."""
    endpoint.guess(9, HOME, "alice")
    endpoint.limiter.succeeded(HOME, "mallory")
    endpoint.limiter.failed(HOME, "alice", "the tenth")
    assert endpoint.wait_of(HOME) == 1.0


def test_the_unix_socket_is_never_held_up(endpoint: Endpoint) -> None:
    """Whoever may open it is an administrator, and hurts no user's standing either."""
    endpoint.guess(100, "", "alice")
    endpoint.limiter.succeeded("", "alice")
    assert endpoint.wait_of("", "alice") == 0
    assert endpoint.wait_of(HOME, "alice") == 0


def test_loopback_is_not_exempt_from_password_limits(endpoint: Endpoint) -> None:
    """A proxy may sit there (contract 10.13)."""
    endpoint.guess(10, "127.0.0.1", "alice")
    assert endpoint.wait_of("127.0.0.1", "bob") == 1.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("not:an:address", "not:an:address", True),
        ("not:an:address", "nor:this:one", False),
    ],
)
def test_an_ipv6_neighbour_is_a_64_and_an_ipv4_one_an_address(one: str, other: str, same: bool) -> None:
    """Everybody at home has 2^64 addresses to guess from."""
    assert (place_of(one) == place_of(other)) is same


def test_memory_is_bounded_and_keeps_the_worst(endpoint: Endpoint) -> None:
    """A flood of addresses and users leaves who waits longest in mind."""
    endpoint.guess(15, CAFE, "alice")
    for number in range(3 * MOST):
        endpoint.limiter.failed(f"10.0.{number >> 8}.{number & 255}", f"user{number}", "x")
        endpoint.limiter.succeeded(f"10.0.{number >> 8}.{number & 255}", f"user{number}")
    assert all(len(table) <= MOST for table in endpoint.limiter._guessers.values())
    assert len(endpoint.limiter._places) == MOST
    assert endpoint.wait_of(CAFE) > 0
    assert endpoint.wait_of(HOME, "alice") > 0


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 30), st.floats(0, 100)),
        max_size=80,
    )
)
def test_nobody_ever_waits_longer_than_a_minute(story: list[tuple[int, int, float]]) -> None:
    """Whatever was tried, a right answer gets through within 60 s; fewer than ten different ones never wait."""
    endpoint = Endpoint()
    shown: set[tuple[str, int]] = set()
    for place, word, pause in story:
        address = f"192.0.2.{place}"
        endpoint.limiter.failed(address, "alice", str(word))
        shown.add((address, word))
        for asked in range(3):
            assert endpoint.wait_of(f"192.0.2.{asked}", "alice") <= 60.0
        if len(shown) < 10:
            assert endpoint.wait_of(address, "alice") == 0
        endpoint.now += pause
    endpoint.now += 60.0
    assert endpoint.wait_of("192.0.2.0", "alice") == 0


# --- keys and tokens at the endpoints ------------------------------------------------------------------------------


def stranger(address: str = CAFE) -> Peer:
    return Peer("main", address, 40000)


async def test_ten_unknown_keys_or_tokens_hold_an_address_up_but_not_a_right_one(tmp_path: Path) -> None:
    """The next wrong one is not even counted or logged until the wait is over; a right one is let in."""
    endpoint = Endpoint()
    async with open_trust(tmp_path / "trust.db") as trust:
        trust.gate.limiter = endpoint.limiter
        for number in range(5):
            with pytest.raises(Refused):
                trust.gate.authenticate(ApiKey(f"wrong {number}"), stranger(), "ws")
            with pytest.raises(Refused):
                trust.gate.authenticate(Token(f"a.b.c{number}"), stranger(), "http")
        counted = len(trust.counted.failed)
        with pytest.raises(RateLimited):
            trust.gate.authenticate(ApiKey("another"), stranger(), "ws")
        assert len(trust.counted.failed) == counted == 10
        async with trio.open_nursery() as nursery:
            await nursery.start(trust.registrar.run)
            _, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
            nursery.cancel_scope.cancel()
        assert trust.gate.authenticate(ApiKey(secret), stranger(), "ws").role == "viewer"
        endpoint.now += 1.0
        with pytest.raises(Refused):
            trust.gate.authenticate(ApiKey("another"), stranger(), "ws")


@pytest.mark.parametrize("peer", [Peer("unix", uid=1), stranger("127.0.0.1"), stranger("::1")])
async def test_keys_are_not_counted_on_this_very_machine(tmp_path: Path, peer: Peer) -> None:
    """Its clients are ours, or a proxy's many."""
    endpoint = Endpoint()
    async with open_trust(tmp_path / "trust.db") as trust:
        trust.gate.limiter = endpoint.limiter
        for number in range(50):
            with pytest.raises(Refused):
                trust.gate.authenticate(ApiKey(f"wrong {number}"), peer, "ws")


async def test_tickets_nothing_and_root_are_no_guesses(tmp_path: Path) -> None:
    """A page with twenty pictures shows twenty tickets after a restart; root was named by the kernel."""
    endpoint = Endpoint()
    async with open_trust(tmp_path / "trust.db") as trust:
        trust.gate.limiter = endpoint.limiter
        for number in range(50):
            with pytest.raises(Refused):
                trust.gate.authenticate(Ticket(f"old {number}"), stranger(), "http")
            with pytest.raises(Refused):
                trust.gate.authenticate(NoCredential(), stranger(), "http")
        endpoint.guess(10, CAFE)
        assert trust.gate.authenticate(LocalUser(0), stranger(), "http").role == "admin"


async def test_a_credential_that_has_ended_is_no_guess(tmp_path: Path) -> None:
    """Whoever holds it was given it once."""
    endpoint = Endpoint()

    async with open_trust(tmp_path / "trust.db") as trust:
        trust.gate.limiter = endpoint.limiter
        for number in range(30):
            text = sign(issue_claims(f"user{number}", role="viewer", now=1000.0, expires_in=60), SECRET)
            with pytest.raises(Refused, match="exp is past"):
                trust.gate.authenticate(Token(text), stranger(), "ws")
        assert endpoint.wait_of(CAFE) == 0


# --- over a restart ------------------------------------------------------------------------------------------------


async def test_a_restart_neither_frees_who_guesses_nor_forgets_known_places(tmp_path: Path) -> None:
    """The wait goes on where it was, a further wrong one makes it longer, and no name or credential is on disk."""
    path, endpoint = tmp_path / "usage.db", Endpoint()
    async with Database.open(path, USAGE, name="usage") as db:
        endpoint.guess(13, CAFE, "alice-and-her-password")
        endpoint.limiter.succeeded(HOME, "alice-and-her-password")
        waited = endpoint.wait_of(CAFE)
        assert waited == 8.0
        await endpoint.limiter.flush(db)
    later = Endpoint(now=5.0)
    async with Database.open(path, USAGE, name="usage") as db:
        later.limiter.load(db)
        assert later.wait_of(CAFE) == waited
        assert later.wait_of("203.0.113.9", "alice-and-her-password") == waited
        assert later.wait_of(HOME, "alice-and-her-password") == 0
        later.now += waited
        assert later.wait_of(CAFE) == 0
        later.limiter.failed(CAFE, None, "one more")
        assert later.wait_of(CAFE) == 16.0
    assert b"alice-and" not in path.read_bytes()
    assert b"wrong" not in path.read_bytes()


async def test_what_is_over_is_not_written_and_goes_from_the_file(tmp_path: Path) -> None:
    """Only those who wait, or did within a minute, and places that are still known."""
    path, endpoint = tmp_path / "usage.db", Endpoint()
    async with Database.open(path, USAGE, name="usage") as db:
        endpoint.guess(10, CAFE)
        endpoint.guess(3, HOME)
        endpoint.limiter.succeeded(HOME, "alice")
        await endpoint.limiter.flush(db)
        assert rows(path, "SELECT axis, name, level, wait FROM offenders") == [("address", CAFE, 1, 1.0)]
        endpoint.now += KNOWN_SECONDS
        endpoint.limiter.succeeded(CAFE, "bob")
        await endpoint.limiter.flush(db)
        assert rows(path, "SELECT count(*) FROM offenders") == [(0,)]
        assert rows(path, "SELECT address, age FROM known_places") == [(CAFE, 0.0)]


async def test_an_attack_costs_one_write_a_minute_and_quiet_ones_none(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """SD cards wear out; stopping writes the rest."""
    commits: list[str] = []
    limiter = Limiter()
    async with (
        Database.open(
            tmp_path / "usage.db", USAGE, name="usage", observe_commit=lambda name, _: commits.append(name)
        ) as db,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(limiter.run, db)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1000):
            limiter.failed(CAFE, "alice", str(number))
        limiter.succeeded(HOME, "alice")
        mock_clock.jump(59)
        await trio.testing.wait_all_tasks_blocked()
        assert commits == []
        mock_clock.jump(1)
        await until(lambda: commits == ["usage"])
        for _ in range(3):
            mock_clock.jump(60)
            await trio.testing.wait_all_tasks_blocked()
            limiter.succeeded(HOME, "alice")
        assert commits == ["usage"]
        limiter.succeeded(CAFE, "bob")
        nursery.cancel_scope.cancel()
    assert commits == ["usage", "usage"]


async def test_what_cannot_be_written_is_written_the_next_time(tmp_path: Path) -> None:
    """A failing disk stops nobody from being slowed down; nor is a cancelled write forgotten."""
    path, endpoint = tmp_path / "usage.db", Endpoint()
    async with Database.open(path, USAGE, name="usage") as db:
        broken = await BrokenCommits(db).begin()
        endpoint.guess(10, CAFE)
        await endpoint.limiter.flush(db)
        assert broken.tries == 1
        await broken.mend()
        with trio.CancelScope() as scope:
            scope.cancel()
            await endpoint.limiter.flush(db)
        assert scope.cancelled_caught
        await endpoint.limiter.flush(db)
        assert rows(path, "SELECT name FROM offenders") == [(CAFE,)]


def test_an_address_without_failures_costs_one_look_up(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    """No hash is made and no clock is read for it, though others are being slowed down."""
    endpoint.guess(20, CAFE)
    endpoint.limiter.check(HOME)

    def never(*_: object, **__: object) -> Callable[[], float]:
        raise AssertionError("not for this one")

    monkeypatch.setattr(module, "blake2b", never)
    monkeypatch.setattr(endpoint.limiter, "_now", never)
    endpoint.limiter.check(HOME)
