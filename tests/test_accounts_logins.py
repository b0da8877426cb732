"""accounts/logins.py: a password is looked at once, after the limiter; whoever fails cannot tell why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import planted
import pytest
import trio
import trio.testing
from trust_helpers import BrokenCommits, TrustStack, running_trust, until

from edged.access.authority import EDGED
from edged.access.limiter import Limiter
from edged.accounts.logins import Logins
from edged.accounts.passwords import Passwords, Verified
from edged.credentials.identities import Identity
from edged.credentials.passwords import MINIMUM_COST, Cost
from edged.errors import RateLimited, Refused, StoreFailed

PASSWORD = planted.plant("a passphrase of the tests", "the users' password")
REMOTE = "192.0.2.7"


@dataclass
class Hasher:
    """Counts hashes, and waits for leave to end one."""

    asked: list[str] = field(default_factory=list)

    def hash(self, secret: bytes, cost: Cost) -> str:
        return f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p=1$c2FsdHNhbHQ$" + secret.hex().ljust(22, "0")[:86]

    def verify(self, phc: str, secret: bytes) -> bool:
        self.asked.append(phc)
        return phc.rpartition("$")[2] == secret.hex().ljust(22, "0")[:86]


@dataclass
class Endpoint:
    trust: TrustStack
    logins: Logins
    hasher: Hasher
    passwords: Passwords

    async def enter(
        self, name: str = "ann", password: str = PASSWORD, address: str = REMOTE, is_near: bool = False
    ) -> str:
        """The outcome in a word: "in", or the exact reason why not."""
        try:
            user, epoch = await self.logins.enter(name, password, address, "http", is_near=is_near)
        except Refused as problem:
            return problem.reason if problem.sentence == "Invalid credentials" else problem.sentence
        assert (user.name, epoch) == (name, self.trust.ledger.epoch)
        return "in"


@asynccontextmanager
async def opened(path: Path, *, is_demo: bool = False) -> AsyncIterator[Endpoint]:
    async with running_trust(path / "trust.db") as trust:
        hasher = Hasher()
        passwords = Passwords(cost=MINIMUM_COST, make_hasher=lambda: hasher)
        logins = Logins(trust.users, passwords, Limiter(), trust.gate, trust.registrar, is_demo=is_demo)
        await trust.users.create(EDGED, name="ann", role="viewer", password=await passwords.hash(PASSWORD))
        yield Endpoint(trust, logins, hasher, passwords)


async def test_whoever_shows_name_and_password_is_in(tmp_path: Path) -> None:
    """And counted, once."""
    async with opened(tmp_path) as endpoint:
        assert await endpoint.enter() == "in"
        assert endpoint.trust.counted.used[-1] == ("password", "http", "viewer")
        assert len(endpoint.hasher.asked) == 1


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", "another passphrase"), ("nobody", PASSWORD), ("ANN", PASSWORD), ("mute", ""), ("", "")],
)
async def test_whoever_does_not_costs_one_hash_all_the_same(tmp_path: Path, name: str, password: str) -> None:
    """Wrong, unknown, misspelt, without a password: one comparison each, one reason, one count."""
    async with opened(tmp_path) as endpoint:
        await endpoint.trust.users.create(EDGED, name="mute", role="viewer")
        assert await endpoint.enter(name, password) == "unknown_key"
        assert len(endpoint.hasher.asked) == 1
        assert endpoint.trust.counted.failed == [("unknown_key", "password", "http")]
        assert not any(method == "password" for method, _, _ in endpoint.trust.counted.used)


async def test_a_disabled_user_is_told_what_a_wrong_password_is_told(tmp_path: Path) -> None:
    """The log knows better; and it was no guess, so that nobody is slowed down for it."""
    async with opened(tmp_path) as endpoint:
        await endpoint.trust.users.disable("ann")
        for _ in range(12):
            assert await endpoint.enter() == "suspended"
        assert await endpoint.enter(password="wrong") == "unknown_key"


async def test_a_subject_that_was_revoked_gets_no_token_that_nobody_would_take(tmp_path: Path) -> None:
    """For good, whoever issues: so the login says so, in the words of every other failure."""
    async with opened(tmp_path) as endpoint:
        await endpoint.trust.registrar.revoke_token(frozenset({Identity.of_user("ann")}), None, kind="subject")
        assert await endpoint.enter() == "revoked"


async def test_a_guesser_waits_before_any_hash_is_made(tmp_path: Path) -> None:
    """Ten different wrong ones; from elsewhere too, for the user is guessed at; and no hash is spent on it."""
    async with opened(tmp_path) as endpoint:
        for number in range(10):
            assert await endpoint.enter(password=f"guess {number}") == "unknown_key"
        hashes = len(endpoint.hasher.asked)
        for address in (REMOTE, "198.51.100.1"):
            with pytest.raises(RateLimited):
                await endpoint.enter(address=address)
        assert len(endpoint.hasher.asked) == hashes
        # Whoever may open the unix socket is an administrator, and not counted.
        assert await endpoint.enter(address="") == "in"


@pytest.mark.parametrize("is_demo", [False, True])
@pytest.mark.parametrize("is_near", [False, True])
@pytest.mark.parametrize("address", [REMOTE, "127.0.0.1", "::1", ""])
async def test_a_sample_password_is_taken_by_a_demo_on_this_machine_only(
    tmp_path: Path, address: str, is_near: bool, is_demo: bool
) -> None:
    """demo with demo, and whatever else nobody may choose (contract C-48); where somebody is, their session says."""
    outcome = "in" if is_near and is_demo else "unknown_key"
    async with opened(tmp_path, is_demo=is_demo) as endpoint:
        await endpoint.trust.users.create(
            EDGED, name="demo", role="viewer", password=await endpoint.passwords.hash("demo")
        )
        assert await endpoint.enter("demo", "demo", address, is_near) == outcome
        assert await endpoint.enter("ann", PASSWORD, address, is_near) == "in"


@pytest.mark.parametrize("change", ["password", "demote", "delete", "disable"])
async def test_what_changes_while_a_password_is_looked_at_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """No token is made of rights, or for a password, that the user has no more."""
    async with opened(tmp_path) as endpoint:
        users, looked_at, go_on = endpoint.trust.users, trio.Event(), trio.Event()
        verify = endpoint.passwords.verify

        async def slowly(phc: str | None, text: str, **options: Any) -> Verified:
            verified = await verify(phc, text, **options)
            looked_at.set()
            await go_on.wait()
            return verified

        monkeypatch.setattr(endpoint.passwords, "verify", slowly)
        outcomes: list[str] = []

        async def enter() -> None:
            outcomes.append(await endpoint.enter())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter)
            await looked_at.wait()
            await {
                "password": lambda: users.set_password("ann", "other"),
                "demote": lambda: users.update(EDGED, "ann", {"role": "monitor"}),
                "delete": lambda: users.delete("ann"),
                "disable": lambda: users.disable("ann"),
            }[change]()
            go_on.set()
        assert outcomes == ["suspended" if change == "disable" else "unknown_key"]


async def test_what_is_given_while_a_password_is_looked_at_is_in_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user as they are when the token is made."""
    async with opened(tmp_path) as endpoint:
        verify = endpoint.passwords.verify

        async def widening(phc: str | None, text: str, **options: Any) -> Verified:
            await endpoint.trust.users.update(EDGED, "ann", {"role": "operator"})
            return await verify(phc, text, **options)

        monkeypatch.setattr(endpoint.passwords, "verify", widening)
        user, _ = await endpoint.logins.enter("ann", PASSWORD, REMOTE, "ws", is_near=False)
        assert user.role == "operator"


async def test_an_old_hash_is_made_anew_by_the_way(tmp_path: Path) -> None:
    """At today's cost, without waiting for the disk; nothing that the user has ends."""
    async with opened(tmp_path) as endpoint:
        cheap = endpoint.hasher.hash(PASSWORD.encode(), Cost(MINIMUM_COST.memory_kib, 1))
        await endpoint.trust.users.create(EDGED, name="old", role="viewer", password=cheap)
        token = endpoint.trust.token("old")
        assert await endpoint.enter("old") == "in"
        await until(lambda: endpoint.trust.users.get("old").password != cheap)
        assert endpoint.trust.standing(token) == "good"
        assert await endpoint.enter("old") == "in"


async def test_stored_hashes_say_what_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start on whoever does not exist takes as long as whoever does."""
    async with opened(tmp_path) as endpoint:
        costly = endpoint.hasher.hash(PASSWORD.encode(), Cost(MINIMUM_COST.memory_kib, 5))
        await endpoint.trust.users.create(EDGED, name="costly", role="viewer", password=costly)
        await endpoint.trust.users.create(EDGED, name="mute", role="viewer")
        heard: list[str] = []
        monkeypatch.setattr(endpoint.passwords, "heed", heard.append)
        endpoint.logins.load()
        assert costly in heard
        assert len(heard) == 2


async def test_no_login_while_no_token_can_be_made(tmp_path: Path) -> None:
    """store_error, as long as what ended the tokens before is not on disk."""
    async with opened(tmp_path) as endpoint:
        broken = await BrokenCommits(endpoint.trust.db).begin()
        with pytest.raises(StoreFailed):
            await endpoint.trust.users.update(EDGED, "ann", {"role": "monitor"})
        with pytest.raises(StoreFailed):
            await endpoint.enter()
        await broken.mend()
        assert await endpoint.enter() == "in"
