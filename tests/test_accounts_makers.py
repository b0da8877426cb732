"""What is made by a credential, and whom a credential can name: random histories of keys, tokens and refreshes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from gate_helpers import LOCAL
from identity_helpers import all_named, named
from patience import times
from trust_helpers import SECRET, TrustStack, rows, running_trust

from edged.access.authority import EDGED, Asker
from edged.accounts.revocations import PRUNE_SECONDS
from edged.credentials.api_keys import KeyRecord
from edged.credentials.callers import ApiKey, Caller
from edged.credentials.claims import makers_of, read_caller, write_issued_by
from edged.credentials.identities import TOKENS, Identity, Kind
from edged.credentials.tokens import issue_claims, sign

HISTORIES = times(1000)
PARTNERS = ("https://a.example", "https://b.example", "https://a.example:8443")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


@dataclass(eq=False)
class Made:
    """A token or a key of a history: what made it, and what it came of by refreshing."""

    caller: Caller
    maker: Made | None = None
    before: Made | None = None
    key_id: str = ""
    made: list[Made] = field(default_factory=list)


def token(trust: TrustStack, issuer: str, **claims: object) -> Caller:
    """A token as the gate reads it once its signature is found good: edged's own, or a partner's."""
    extra = {"iss": "edged", "epoch": trust.ledger.epoch} if not issuer else {"iss": issuer}
    told = issue_claims("ann", role="admin", now=trust.clock.now(), expires_in=3600) | extra | claims
    epoch = trust.ledger.epoch if not issuer else None
    return read_caller(told, sign(told, SECRET), now=trust.clock.now(), epoch=epoch, issuer=issuer)


def is_ended(trust: TrustStack, item: Made) -> bool:
    if item.key_id:
        record = trust.ledger.keys[item.key_id]
        return record.revoked_at is not None
    return trust.ledger.is_denied(item.caller)


class History:
    """Tokens issue tokens and keys, keys issue tokens, tokens are refreshed; then one of them is revoked."""

    def __init__(self, trust: TrustStack, dice: random.Random) -> None:
        self.trust = trust
        self.dice = dice
        self.items: list[Made] = []

    async def play(self, steps: int) -> None:
        self._begin()
        for _ in range(steps):
            item = self.dice.choice(self.items)
            act = self.dice.choice(["begin", "issue", "issue", "key", "refresh"])
            if act == "begin":
                self._begin()
            elif act == "issue":
                self._issue(item)
            elif act == "key":
                await self._make_key(item)
            elif not item.key_id and not item.caller.issuer:
                self._refresh(item)

    def _begin(self) -> None:
        issuer = self.dice.choice(("", "", *PARTNERS))
        # Partners give whatever jti they like; edged never gives one twice.
        given = [str(each.caller.claims["jti"]) for each in self.items if not each.key_id]
        jti = {"jti": self.dice.choice([*given, "j"])} if issuer else {}
        self.items.append(Made(token(self.trust, issuer, **jti)))

    def _issue(self, maker: Made) -> None:
        if len(makers_of(maker.caller)) > 24:
            return
        caller = token(self.trust, "", issued_by=write_issued_by(maker.caller), sub="bob", user_id="bob")
        self._add(Made(caller, maker))

    async def _make_key(self, maker: Made) -> None:
        asker = Asker(self.trust.gate, maker.caller, "keys:admin", "http", ())
        record, secret = await self.trust.api_keys.create(asker, name="k", role="admin")
        self._add(Made(self.trust.gate.authenticate(ApiKey(secret), LOCAL, "http"), maker, key_id=record.key_id))

    def _refresh(self, before: Made) -> None:
        kept = before.caller.claims.keys() & {"issued_by", "sub", "user_id"}
        claims = {name: before.caller.claims[name] for name in kept}
        caller = token(self.trust, "", **claims)
        names = {name for each in (before.caller, caller) for name in each.identities if name.kind in TOKENS}
        families = self.trust.ledger.denials.families_of_caller(before.caller)
        family = next(iter(families), named(f"family:{len(self.items)}"))
        self.trust.ledger.denials.join(family, 0.0, self.trust.clock.now() + 3600, names)
        self.items.append(Made(caller, before.maker, before))

    def _add(self, item: Made) -> None:
        assert item.maker is not None
        item.maker.made.append(item)
        self.items.append(item)

    def family_of(self, item: Made) -> set[Made]:
        """All that came of one token by refreshing."""
        root = item
        while root.before is not None:
            root = root.before
        found, grown = {root}, True
        while grown:
            more = {each for each in self.items if each.before in found} - found
            found, grown = found | more, bool(more)
        return found

    def expect(self, items: set[Made], include_made: bool) -> set[Made]:
        """What is to end with these: their families, the tokens that were made with it, and keys if that is asked."""
        ended: set[Made] = set()
        waiting = list(items)
        while waiting:
            item = waiting.pop()
            for each in {item} if item.key_id else self.family_of(item):
                if each in ended:
                    continue
                ended.add(each)
                waiting += [made for made in each.made if include_made or not made.key_id]
        return ended

    def revoke(self, item: Made, include_made: bool) -> set[Made]:
        """In one of the ways that there are; what is to be ended by then."""
        names, hit = self._name(item)
        ledger, registrar = self.trust.ledger, self.trust.registrar
        registrar.revoke_token(names, None).close()
        if include_made and (made := ledger.made_by(names)):
            registrar.deny(made, None, "", "key", "")
        return hit

    def _name(self, item: Made) -> tuple[frozenset[Identity], set[Made]]:
        caller = item.caller
        if item.key_id:
            return frozenset({named(f"key:{item.key_id}")}), {item}
        by_text = next(name for name in caller.identities if name.kind is Kind.TOKEN)
        jti, way = str(caller.claims["jti"]), self.dice.choice(["token", "hash", "jti", "any jti"])
        if way == "hash":
            # A partner may say the very same twice.
            return frozenset({by_text}), {each for each in self.items if by_text in each.caller.identities}
        same = {each for each in self.items if not each.key_id and each.caller.claims["jti"] == jti}
        if way == "any jti":
            return frozenset({Identity.of_any_jti(jti)}), same
        own = {each for each in same if each.caller.issuer == caller.issuer}
        if way == "jti":
            return frozenset({Identity.of_jti(caller.issuer, jti)}), own
        return frozenset({by_text, Identity.of_jti(caller.issuer, jti)}), own


async def play(path: Path, number: int, trust: TrustStack) -> None:
    dice = random.Random(number)
    history = History(trust, dice)
    await history.play(dice.randrange(3, 14))
    item, include_made = dice.choice(history.items), dice.random() < 0.5
    hit = history.revoke(item, include_made)
    expected = history.expect(hit, include_made)
    ended = {each for each in history.items if is_ended(trust, each)}
    assert ended == expected, (number, len(ended - expected), len(expected - ended))


@asynccontextmanager
async def fresh(trust: TrustStack) -> AsyncIterator[TrustStack]:
    """The same trust, with nothing in its memory."""
    ledger = trust.ledger
    for table in (
        ledger._keys,
        ledger._callers,
        ledger.denials._denied,
        ledger.denials._families,
        ledger.denials._families_of,
        ledger.denials._derived,
    ):
        table.clear()
    yield trust


async def test_what_a_revoked_credential_made_ends_with_it_and_nothing_else(path: Path) -> None:
    """Random histories: tokens always end with what made them, through every hand and refresh; keys where it is asked
    for; and whoever else has the same jti from another issuer, or the same subject, goes on."""
    async with running_trust(path) as trust:
        for number in range(HISTORIES):
            async with fresh(trust):
                await play(path, number, trust)


async def test_a_token_names_nothing_of_another_issuer(path: Path) -> None:
    """Random tokens of four issuers with few jtis and subjects: all that one can name as its own ends its own issuer's
    at most, and its names are never another's."""
    async with running_trust(path) as trust:
        for number in range(HISTORIES):
            dice = random.Random(number)
            callers = []
            for _ in range(8):
                subject = f"s{dice.randrange(2)}"
                claims = {"jti": f"j{dice.randrange(3)}", "sub": subject, "user_id": subject}
                callers.append(token(trust, dice.choice(("", *PARTNERS)), **claims))
            one = dice.choice(callers)
            cast(set[Identity], trust.ledger.denials.identities).clear()
            scope = Identity.of_subject(one.issuer, one.subject)
            trust.ledger.deny(one.identities | ({scope} if dice.random() < 0.5 else set()))
            for other in callers:
                if other.issuer != one.issuer:
                    assert not trust.ledger.is_denied(other)
                    assert one.identities.isdisjoint(other.identities)
                    assert one.account != other.account
            assert trust.ledger.is_denied(one)


async def test_a_key_tells_who_made_it_also_after_a_restart(path: Path) -> None:
    """Whoever makes one by a key, or by a token that a key issued; root makes it as nobody."""
    async with running_trust(path) as trust:
        by_root, secret = await trust.api_keys.create(EDGED, name="root's", role="admin")
        caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "http")
        asker = Asker(trust.gate, caller, "keys:admin", "http", ())
        by_key, _ = await trust.api_keys.create(asker, name="key's", role="viewer")
        issued = token(trust, "", jti="j", issued_by=write_issued_by(caller))
        asker = Asker(trust.gate, issued, "keys:admin", "http", ())
        by_token, _ = await trust.api_keys.create(asker, name="token's", role="viewer")
        assert by_root.made_by == frozenset()
        assert by_key.made_by == {named(f"key:{by_root.key_id}")}
        assert by_token.made_by == makers_of(issued) >= all_named(f"key:{by_root.key_id}", "jti_of::j", "user:ann")
        await trust.api_keys.rotate(EDGED, by_key.key_id)
    async with running_trust(path) as trust:
        found: dict[str, KeyRecord] = {record.name: record for record in trust.ledger.keys.values()}
        assert found["token's"].made_by == by_token.made_by
        assert found["key's"].made_by == by_key.made_by
        assert trust.ledger.made_by({named(f"key:{by_root.key_id}")}) == all_named(
            f"key:{by_key.key_id}", f"key:{by_token.key_id}"
        )


async def test_what_a_revoked_token_made_stays_ended_when_its_revocation_is_forgotten(path: Path) -> None:
    """A revocation is kept until no token can be good any more that was made with it, a family's as well."""
    async with running_trust(path) as trust:
        first = token(trust, "", jti="first")
        trust.ledger.denials.join(
            named("family:f"), 0.0, trust.clock.now() + 60, all_named("jti_of::first", "jti_of::second")
        )
        await trust.db.write(lambda c: c.execute("INSERT INTO families VALUES ('family:f', 0.0, 60.0)"))
        lasting = {"iss": "edged", "epoch": 0, "issued_by": write_issued_by(first)}
        claims = issue_claims("bob", role="viewer", now=trust.clock.now(), expires_in=30 * 86400, extra=lasting)
        issued = read_caller(claims, sign(claims, SECRET), issuer="", now=trust.clock.now(), epoch=0)
        await trust.registrar.revoke_token(frozenset({named("jti_of::second")}), trust.clock.now() + 60)
        assert trust.ledger.is_denied(issued)
        await trust.revocations.prune(trust.clock.now() + 29 * 86400 + PRUNE_SECONDS)
        assert trust.ledger.is_denied(issued)
        assert rows(path, "SELECT family_id FROM families") == [("family:f",)]
        await trust.revocations.prune(trust.clock.now() + 31 * 86400 + PRUNE_SECONDS)
        assert rows(path, "SELECT family_id FROM families") == []
