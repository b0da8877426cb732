"""Cut-offs: edged's own tokens by the epoch, foreign ones by their time, whatever the clock says (contract 10.8)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gate_helpers import make_gate
from patience import times
from trust_helpers import BrokenCommits, TrustStack, rows, running_trust

from edged.clock import Boot
from edged.credentials.callers import Caller
from edged.credentials.claims import Trust, read_caller
from edged.credentials.identities import ALL, Identity
from edged.credentials.tokens import SharedSecret, sign
from edged.errors import Refused, StoreFailed

NOW = 1_800_000_000.0
SECRET = SharedSecret(
    "test", "a secret of the tests, long enough for HS256", Trust(frozenset({"edged", "elsewhere"}), own="edged")
)
SCOPES = (
    ALL,
    Identity.of_user("ada"),
    Identity.of_user("eve"),
    Identity.of_issuer("edged"),
    Identity.of_issuer("elsewhere"),
)


@dataclass
class Issued:
    """A token, and the lines that were drawn since or at a time that it is compared with."""

    caller: Caller
    scopes: frozenset[Identity]
    denied: bool = False


@dataclass
class History:
    """What somebody with a lying clock does to a box, and what must come of it."""

    chance: random.Random
    time: list[float]
    tokens: list[Issued] = field(default_factory=list)
    #: Scope → the latest time that a line says to foreign tokens, and to our own.
    foreign: dict[Identity, float] = field(default_factory=dict)
    named: dict[Identity, float] = field(default_factory=dict)
    #: Scopes with a line up to now that no trusted clock has seen; no second passes in this history.
    provisional: set[Identity] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    async def turn(self, trust: TrustStack) -> None:
        what = self.chance.choices(["jump", "own", "foreign", "now", "past"], [30, 25, 20, 8, 4])[0]
        self.counts[what] = self.counts.get(what, 0) + 1
        subject = self.chance.choice(["ada", "eve"])
        if what == "jump":
            self.time[0] = NOW + self.chance.uniform(-1e8, 1e8) * self.chance.random() ** 8
            self.look(trust)
        elif what == "own":
            self.issue(subject, "edged", await trust.registrar.epoch())
        elif what == "foreign":
            self.issue(subject, "elsewhere", None)
        elif what == "now":
            scope = self.chance.choice(SCOPES)
            line = trust.clock.now()
            await trust.revocations.cut_off(scope, None)
            if trust.clock.is_trusted:
                self.foreign[scope] = max(line, self.foreign.get(scope, line))
            else:
                self.provisional.add(scope)
            for each in self.tokens:
                each.denied = each.denied or (each.caller.epoch is not None and scope in each.scopes)
        else:
            scope, line = self.chance.choice(SCOPES), trust.clock.now() - self.chance.uniform(1, 1e6)
            await trust.revocations.cut_off(scope, line)
            for lines in (self.foreign, self.named):
                lines[scope] = max(line, lines.get(scope, line))

    def look(self, trust: TrustStack) -> None:
        """At each look at the clock provisional lines become firm if it is trusted by now."""
        trust.revocations.mind_clock()
        line = trust.clock.now()
        if trust.clock.is_trusted:
            for scope in self.provisional:
                self.foreign[scope] = max(line, self.foreign.get(scope, line))
            self.provisional.clear()

    def issue(self, subject: str, issuer: str, epoch: int | None) -> None:
        issued = int(self.time[0])
        claims = {"sub": subject, "iss": issuer, "role": "viewer", "iat": issued, "exp": 2**40}
        caller = read_caller(claims, f"{len(self.tokens)}", issuer="", now=issued, epoch=epoch)
        scopes = frozenset({ALL, Identity.of_user(subject), Identity.of_issuer(issuer)})
        self.tokens.append(Issued(caller, scopes))

    def expected(self, each: Issued, now: float) -> bool:
        """Whether it is denied."""
        lines = self.foreign if each.caller.epoch is None else self.named
        times = [lines[scope] for scope in each.scopes if scope in lines]
        if each.caller.epoch is None and not self.provisional.isdisjoint(each.scopes):
            times.append(now)
        issued = each.caller.claims["iat"]
        assert isinstance(issued, int)
        return each.denied or any(issued <= line for line in times)


@pytest.mark.parametrize("seed", range(times(6, least=2)))
async def test_own_tokens_know_what_came_first_and_foreign_ones_their_time(tmp_path: Path, seed: int) -> None:
    """All orders of lines and tokens, any clock, with restarts: an own token from before a line "now" is never good
    again, one from after it always is, unless somebody names a time that it was issued by; foreign ones compare that.
    """
    chance = random.Random(seed)
    history, told = History(chance, [NOW]), set()
    for _ in range(6):
        boot = Boot("boot", lambda: 0.0)
        async with running_trust(tmp_path / "trust.db", now=lambda: history.time[0], boot=boot) as trust:
            history.look(trust)
            for _ in range(50):
                await history.turn(trust)
                now = trust.clock.now()
                expected = [history.expected(each, now) for each in history.tokens]
                assert [trust.ledger.is_denied(each.caller) for each in history.tokens] == expected
                told |= {
                    (each.caller.epoch is None, denied) for each, denied in zip(history.tokens, expected, strict=True)
                }
    assert {"jump", "own", "foreign", "now", "past"} <= history.counts.keys()
    assert len(told) == 4


async def test_no_token_is_made_at_an_epoch_that_is_not_on_the_disk(tmp_path: Path) -> None:
    """A line that the disk does not take is in force; a token that is made after it waits for the disk, so that no
    restart can put it before a line."""
    path = tmp_path / "trust.db"
    async with running_trust(path) as trust:
        before = await trust.registrar.epoch()
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.revocations.cut_off(ALL, None)
        with pytest.raises(StoreFailed):
            await trust.registrar.epoch()
        assert trust.ledger.epoch == before + 1
        await broken.mend()
        assert await trust.registrar.epoch() == before + 1
    assert rows(path, "SELECT scope, epoch, own_before FROM cut_offs") == [(str(ALL), before + 1, None)]
    assert rows(path, "SELECT value FROM meta WHERE name = 'epoch'") == [(before + 1,)]


async def test_the_clock_does_not_help_an_own_token_over_a_line(tmp_path: Path) -> None:
    """Issued while the clock was an hour ahead, or in the very second of the line: ended; made after it: good."""
    at = [NOW]
    async with running_trust(tmp_path / "trust.db", now=lambda: at[0]) as trust:
        gate = make_gate(trust.ledger, trust.admissions, trust.clock, trust.counted, shared_secrets=[SECRET])

        async def issue() -> Caller:
            issued = int(at[0])
            claims = {"sub": "ada", "iss": "edged", "role": "viewer", "iat": issued, "exp": issued + 9e6}
            return gate.verify_token(sign({**claims, "epoch": await trust.registrar.epoch()}, SECRET))

        at[0] = NOW + 3600
        ahead = await issue()
        at[0] = NOW
        same = await issue()
        await trust.revocations.cut_off(ALL, None)
        after = await issue()
        assert [trust.ledger.is_denied(each) for each in (ahead, same, after)] == [True, True, False]
        # Somebody names a time: then that is what counts, for our own, too.
        await trust.revocations.cut_off(ALL, NOW - 1)
        assert not trust.ledger.is_denied(after)
        await trust.revocations.cut_off(Identity.of_user("ada"), NOW + 1)
        assert trust.ledger.is_denied(after)


async def test_a_line_that_lies_a_little_ahead_is_one_up_to_now_too(tmp_path: Path) -> None:
    """Whoever's clock is fast means everything so far."""
    async with running_trust(tmp_path / "trust.db", now=lambda: NOW) as trust:
        claims = {"sub": "ada", "iss": "edged", "role": "viewer", "iat": int(NOW) + 3600, "exp": 2**40}
        caller = read_caller(claims, "text", issuer="", now=NOW + 3600, epoch=await trust.registrar.epoch())
        await trust.revocations.cut_off(ALL, NOW + 30)
        assert trust.ledger.is_denied(caller)
        gate = make_gate(trust.ledger, trust.admissions, trust.clock, trust.counted)
        with pytest.raises(Refused):
            gate.authorize(caller, "camera:read", "ws")
