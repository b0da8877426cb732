"""Revocations of tokens are deleted once nobody can use the token any more; a clock that lies brings none back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from gate_helpers import LOCAL, make_gate, verify
from identity_helpers import all_named, named
from key_pool import make_here
from patience import IS_FULL, times
from trust_helpers import BrokenCommits, Counted, busy_writer, change_nothing, open_trust, rows, running_trust, until

from edged.access.admissions import Admissions
from edged.access.authority import EDGED
from edged.access.ledger import Ledger
from edged.accounts.refreshes import Refreshes
from edged.accounts.registrar import Registrar
from edged.accounts.revocations import PRUNE_SECONDS, Revocations
from edged.clock import Boot, Clock
from edged.credentials.callers import Caller, Token
from edged.credentials.claims import LEEWAY, Trust
from edged.credentials.identities import ALL
from edged.credentials.tokens import SharedSecret, TokenRefused, sign
from edged.errors import Overloaded, Refused, StoreFailed
from edged.reactions import clock_upkeep
from edged.signing.keyring import Keyring
from edged.store import meta, revocations
from edged.store.database import Database
from edged.store.migrations import TRUST

NOW = 1_800_000_000.0
DAY = 86400.0
YEAR_2099 = 4_070_908_800.0
SECRET = SharedSecret(
    "test", "a secret of the tests, long enough for HS256", Trust(frozenset({"edged", "elsewhere"}), own="edged")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


def denied_on_disk(path: Path) -> set[str]:
    return {str(row[0]) for row in rows(path, "SELECT identity FROM revocations")}


async def test_only_what_ended_long_ago_is_deleted_and_only_of_tokens(path: Path) -> None:
    """By the known end with a day to spare; never a token whose end nobody knows, nor a key, subject, issuer."""
    at = [NOW]
    async with running_trust(path, now=lambda: at[0]) as trust:
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        for names, until_ in [
            (all_named("jti:over", f"token:{'0' * 64}"), NOW + 60), ({named("jti:later")}, NOW + 61),
            ({named("jti:unknown")}, None),
            ({named("user:ada")}, NOW), ({named("issuer:x")}, NOW), ({named("signing_key:key-1")}, NOW),
        ]:  # fmt: skip
            await trust.registrar.revoke_token(frozenset(names), until_)
        await trust.api_keys.revoke(record.key_id)
        everything = denied_on_disk(path)
        at[0] = NOW + 60 + PRUNE_SECONDS
        assert await trust.revocations.prune(at[0]) == 0
        assert denied_on_disk(path) == everything
        at[0] += 1
        assert await trust.revocations.prune(at[0]) == 2
        left = everything - {"jti:over", f"token:{'0' * 64}"}
        assert denied_on_disk(path) == left
        assert set(map(str, trust.ledger.denials.identities)) == left - {f"key:{record.key_id}"}
        assert trust.ledger.is_named(named(f"key:{record.key_id}"))
        assert rows(path, "SELECT value FROM meta WHERE name IN ('pruned', 'high_water')") == [(at[0],)] * 2


async def test_what_is_denied_again_while_it_is_being_deleted_stays_denied(path: Path) -> None:
    """Another word for good, said in the middle: in memory and on the disk."""
    async with running_trust(path, now=lambda: NOW) as trust:
        await trust.registrar.revoke_token(frozenset({named("jti:one")}), NOW - 9 * DAY)
        await trust.registrar.revoke_token(frozenset({named("jti:two")}), NOW - 9 * DAY)
        async with trio.open_nursery() as nursery:
            async with busy_writer(trust.db):
                nursery.start_soon(trust.revocations.prune, NOW)
                await until(lambda: trust.registrar.said is not None)
                await trio.testing.wait_all_tasks_blocked()
                pending = trust.registrar.revoke_token(frozenset({named("jti:one")}), None)
            await pending
        await trust.registrar.grant(EDGED, change_nothing).outcome()
        assert trust.ledger.denials.identities == {named("jti:one")}
        await until(lambda: denied_on_disk(path) == {"jti:one"})
        assert await trust.revocations.prune(NOW + 99 * DAY) == 0


async def test_a_disk_that_fails_deletes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and disk say what they said; what was denied again meanwhile is written when it is mended."""
    async with running_trust(path, now=lambda: NOW) as trust:
        await trust.registrar.revoke_token(frozenset({named("jti:one")}), NOW - 9 * DAY)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.revocations.prune(NOW)
        begun, release, prune = threading.Event(), threading.Event(), revocations.prune

        def prune_slowly(*args: Any, **named: Any) -> Any:
            begun.set()
            assert release.wait(30)
            return prune(*args, **named)

        async def fail() -> None:
            with pytest.raises(StoreFailed):
                await trust.revocations.prune(NOW)

        monkeypatch.setattr(revocations, "prune", prune_slowly)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.to_thread.run_sync(begun.wait, 30)
            trust.registrar.revoke_token(frozenset({named("jti:one")}), None).close()
            release.set()
        assert trust.ledger.denials.identities == {named("jti:one")}
        await broken.mend()
        await trust.registrar.settle(trust.registrar.add_pending([]))
        assert rows(path, "SELECT identity, until FROM revocations") == [("jti:one", None)]


async def test_families_go_with_their_last_token(path: Path) -> None:
    """Their claims, their names and their denial; the names of one that lives stay, on disk and in memory."""
    async with open_trust(path, now=lambda: NOW) as trust:
        ledger = trust.ledger
        ledger.deny({named("jti_of::named")})
        ledger.denials.join(
            named("family:old"),
            NOW - 30 * DAY,
            NOW - 9 * DAY,
            all_named("jti_of::a", "jti_of::shared", "jti_of::named"),
        )
        ledger.denials.join(
            named("family:new"), NOW, NOW + 60, all_named("jti_of::b", "jti_of::shared", "signing_key:key-1")
        )
        assert ledger.denials.families_of({named("jti_of::shared")}) == all_named("family:old", "family:new")
        assert all_named("family:old", "jti_of::a", "jti_of::shared") <= ledger.denials.identities
        ledger.denials.forget({named("family:old")}, [named("family:old")])
        assert ledger.denials.identities == {named("jti_of::named")}
        assert ledger.denials.families == {named("family:new")}
        assert ledger.denials.families_of(all_named("jti_of::a", "jti_of::shared", "signing_key:key-1")) == {
            named("family:new")
        }
        ledger.denials.forget((), [named("family:old")])
        ledger.deny({named("signing_key:key-1")})
        assert all_named("family:new", "jti_of::b", "jti_of::shared") <= ledger.denials.identities


class Turned:
    """A clock whose trust the test turns."""

    def __init__(self) -> None:
        self.is_trusted = False

    def now(self) -> float:
        return NOW + trio.current_time()


async def test_pruning_waits_for_a_clock_that_is_trusted_and_then_comes_daily(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not before, and not with a clock that has lost it; a disk that fails is asked again the next day."""
    clock, asked, answers = Turned(), [], [StoreFailed("no"), Overloaded("no"), 3]

    async def delete(now: float) -> int:
        asked.append(now - NOW)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    answers.append(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock_upkeep.prune, cast(Any, clock), delete)
        await trio.sleep(1.5 * DAY)
        assert asked == []
        clock.is_trusted = True
        await trio.sleep(2.5 * DAY)
        assert len(asked) == 3
        clock.is_trusted = False
        await trio.sleep(1.5 * DAY)
        assert len(asked) == 3
        clock.is_trusted = True
        await trio.sleep(61)
        assert len(asked) == 4
        nursery.cancel_scope.cancel()


# --- a clock that lies ----------------------------------------------------------------------------------------------


@dataclass
class World:
    """A box whose clock the test turns; its only ways to know the `true` time are those of the daemon."""

    path: Path
    chance: random.Random
    system: float = NOW
    true: float = NOW
    passed: float = 0.0
    synchronized: bool = True
    good: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    number: int = 0

    def start(self, db: Database) -> None:
        """Everything anew from the disk; the monotonic clock starts somewhere else."""
        self.passed = self.chance.uniform(0, 1e5)
        self.clock = Clock(
            lambda: db.read_now(meta.load_high_water),
            system=lambda: self.system, monotonic=lambda: self.passed, synchronized=lambda: self.synchronized,
        )  # fmt: skip
        counts: Any = Counted()
        self.db, self.ledger = db, Ledger()
        admissions = Admissions(lambda: self.passed)
        boot = Boot(str(self.passed), lambda: self.passed)
        self.registrar = Registrar(self.ledger, admissions, db, self.clock, counts)
        self.revocations = Revocations(self.registrar, self.ledger, db, self.clock, counts, boot=boot)
        self.registrar.load()
        self.revocations.load()
        self.gate = make_gate(self.ledger, admissions, self.clock, counts, shared_secrets=[SECRET])
        keyring = Keyring(
            db, self.clock, is_denied=self.ledger.denials.__contains__, make=make_here, was_restored=False
        )
        self.refreshes = Refreshes(
            self.registrar, self.ledger, self.gate, keyring, db, self.clock, counts,
            shared_secrets=[SECRET],
        )  # fmt: skip
        self.refreshes.load()
        self.mark = clock_upkeep.Mark(self.clock, self.save, self.replace, self.revocations.follow_reset)

    def read(self, text: str) -> Caller:
        """Its caller, though it may come from a future that the clock has left."""
        return verify(text, [SECRET], now=0.0, leeway=1e12)

    async def save(self, mark: float) -> None:
        await self.db.write(lambda connection: meta.save_high_water(connection, mark))

    async def replace(self, mark: float) -> None:
        await self.db.write(lambda connection: meta.replace_high_water(connection, mark))

    async def turn(self) -> None:
        turns: dict[str, tuple[int, Callable[[], Any]]] = {
            "jump": (14, self.jump), "wait": (16, self.wait), "issue": (24, self.issue), "revoke": (16, self.revoke),
            "refresh": (14, self.refresh), "prune": (10, self.prune), "root": (3, self.root),
        }  # fmt: skip
        what = self.chance.choices(list(turns), [weight for weight, _ in turns.values()])[0]
        self.counts[what] = self.counts.get(what, 0) + 1
        await turns[what][1]()

    async def jump(self) -> None:
        self.synchronized = self.chance.random() < 0.6
        near = self.true + self.chance.uniform(-20, 20) * DAY
        far = self.chance.uniform(0, YEAR_2099)
        self.system = self.chance.choices([self.true, near, far], [5, 2, 2])[0]

    async def wait(self) -> None:
        seconds = self.chance.choice([60.0, 3600.0, DAY])
        self.passed, self.system, self.true = self.passed + seconds, self.system + seconds, self.true + seconds

    async def issue(self) -> None:
        """By edged at the time that it goes by, or by somebody else, who knows the time."""
        self.number += 1
        is_own = self.chance.random() < 0.5
        now = int(self.clock.now() if is_own else self.true)
        claims = {"sub": "ada", "role": "viewer", "iat": now, "exp": now + self.chance.choice([60, 3600, DAY, 9 * DAY])}
        whose = {"iss": "edged", "epoch": await self.registrar.epoch()} if is_own else {"iss": "elsewhere"}
        text = sign({**claims, **whose, "jti": str(self.number)}, SECRET)
        with suppress(TokenRefused):
            self.gate.read_token(text)
            self.good.append(text)

    async def revoke(self) -> None:
        if self.good:
            text = self.good.pop(self.chance.randrange(len(self.good)))
            caller = self.read(text)
            family = self.ledger.denials.with_members(caller.identities)
            ends = (caller.expires or 0) + LEEWAY if self.chance.random() < 0.8 else None
            await self.registrar.revoke_token(caller.identities, ends)
            kin = [each for each in self.good if not self.read(each).identities.isdisjoint(family)]
            self.good = [each for each in self.good if each not in kin]
            self.revoked += [text, *kin]

    async def refresh(self) -> None:
        if self.good:
            try:
                self.good.append((await self.refreshes.refresh(self.chance.choice(self.good), "ws")).text)
            except Refused:
                self.counts["refused"] = self.counts.get("refused", 0) + 1

    async def prune(self) -> None:
        if self.clock.is_trusted:
            deleted = await self.revocations.prune(self.clock.now())
            self.counts["deleted"] = self.counts.get("deleted", 0) + deleted

    async def root(self) -> None:
        before = self.ledger.cut_offs.find(ALL).epoch
        self.system = self.true
        await self.mark.reset()
        self.counts["ended"] = self.counts.get("ended", 0) + (self.ledger.cut_offs.find(ALL).epoch - before)

    async def check(self) -> None:
        """What was revoked opens nothing and is not refreshed."""
        for text in self.revoked:
            with pytest.raises(Refused):
                self.gate.authenticate(Token(text), LOCAL, "ws")
        if self.revoked:
            with pytest.raises(Refused):
                await self.refreshes.refresh(self.chance.choice(self.revoked), "ws")


async def test_no_lying_clock_brings_a_revoked_token_back(tmp_path: Path) -> None:
    """Jumps, time servers that lie, pruning, restarts in the middle of anything, root's word: 0 accepted."""
    counts: dict[str, int] = {}
    for seed in range(times(8, least=2)):
        world = World(tmp_path / f"{seed}.db", random.Random(seed))
        for _ in range(6):
            async with Database.open(world.path, TRUST, name="trust") as db, trio.open_nursery() as nursery:
                world.start(db)
                await nursery.start(world.registrar.run)
                await world.check()
                for _ in range(60):
                    await world.turn()
                    await world.check()
                nursery.cancel_scope.cancel()
        for name, number in world.counts.items():
            counts[name] = counts.get(name, 0) + number
    assert min(counts[name] for name in ("deleted", "ended", "refresh", "root", "revoke")) > (5 if IS_FULL else 0), (
        counts
    )


async def test_a_reset_behind_a_pruning_ends_every_token_and_no_other_one_does(path: Path) -> None:
    """A time server said 2099, and revocations went; root says what time it is: tokens from before are worth nothing,
    also after a crash between the two; a second reset ends nothing more."""
    chance = random.Random(0)

    async def box(story: Callable[[World], Any]) -> None:
        async with Database.open(path, TRUST, name="trust") as db, trio.open_nursery() as nursery:
            world.start(db)
            await nursery.start(world.registrar.run)
            await story(world)
            nursery.cancel_scope.cancel()

    world = World(path, chance)

    async def lie(world: World) -> None:
        for _ in range(4):
            await world.issue()
        await world.revoke()
        revoked = world.read(world.revoked[0])
        await world.registrar.revoke_token(revoked.identities, NOW + DAY)
        world.system = YEAR_2099
        world.clock.look()
        assert await world.revocations.prune(world.clock.now()) > 0
        # Root's word is on the disk; then the power goes.
        await world.replace(NOW)

    async def mend(world: World) -> None:
        world.system = NOW
        await world.check()
        assert all(world.ledger.is_denied(world.read(text)) for text in world.good)
        world.good.clear()
        # Foreign tokens tell the second in which they were made.
        world.passed, world.system, world.true = world.passed + 2, world.system + 2, world.true + 2
        for _ in range(3):
            await world.issue()
        await world.registrar.grant(EDGED, change_nothing).outcome()
        await world.mark.reset()
        assert not any(world.ledger.is_denied(world.read(text)) for text in world.good)

    await box(lie)
    world.system = NOW
    await box(mend)

    async def again(world: World) -> None:
        await world.check()
        assert not any(world.ledger.is_denied(world.read(text)) for text in world.good)

    await box(again)
    assert rows(path, "SELECT 1 FROM meta WHERE name = 'pruned'") == []
