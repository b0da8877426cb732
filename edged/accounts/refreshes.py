"""Refresh: a token for a token (contract 10.5). Who shows a good one, or one that ended a few minutes ago, gets its one
successor, signed as it was itself; who asks again gets that successor again. A family gets a new one now and then only,
and until then its newest token is the answer. Neither costs a write.

All that come of one token are a family, which the ledger knows: to revoke any member, whenever it is, ends all of them.
What a refresh promises is on disk before it is told; that a token belongs to a family is known before it is on disk, so
that a revocation which comes in between ends the successor too.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, TypeVar, cast

import msgspec
import structlog
import trio

from edged.access.asking import asked_by
from edged.access.authority import Proof
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit, keep
from edged.accounts.registrar import Registrar
from edged.clock import Clock
from edged.credentials.callers import Caller, Signer, Transport
from edged.credentials.claims import LONGEST_LIFE
from edged.credentials.decision import Reason
from edged.credentials.identities import TOKENS, Identity, Kind
from edged.credentials.refreshes import name_of, renew, signer_of, started_at
from edged.credentials.signing_keys import Algorithm
from edged.credentials.tokens import SharedSecret, longest_over, sign
from edged.errors import InvalidState, Overloaded, Refused
from edged.signing.keyring import Keyring
from edged.store import refreshes
from edged.store.database import Reads
from edged.store.refreshes import FamilyRecord
from edged.structs import Discreet

if TYPE_CHECKING:
    from edged.metrics import Metrics

K = TypeVar("K")
T = TypeVar("T")

#: How long after its end a token may still be refreshed, seconds (S0-16).
GRACE_SECONDS: Final = 300.0
#: Names of one family's tokens, two for each: more than a token of a minute needs in 30 days.
MOST_NAMES: Final = 200_000
#: A family gets at most one new successor in so many seconds, or in this part of its newest token's life if that is
#: less.
INTERVAL_SECONDS: Final = 10.0
INTERVAL_PART: Final = 0.1
#: Answers, and families, that are remembered; the disk knows the others.
REMEMBERED: Final = 256
#: A successor, the same once more, or none.
Result: TypeAlias = Literal["ok", "replayed", "denied"]
_log = structlog.get_logger("refreshes")


class Refreshed(Discreet, msgspec.Struct, frozen=True):
    """A token's successor: its text, and the caller that it makes. If it is told again it may have ended by now."""

    hidden: ClassVar = frozenset({"text"})

    text: str
    caller: Caller


class Newest(msgspec.Struct, frozen=True):
    """The newest token of a family: by what it is known (credentials.refreshes.name_of), the answer that it is, and
    between which times there is to be no other one, Unix seconds."""

    name: str
    answer: Refreshed
    made: float
    until: float

    def is_young(self, now: float) -> bool:
        """Whether no other one is to be made yet. A clock that is set back does not make it last."""
        return self.made <= now < self.until


class Refreshes:
    """Gives successors to tokens."""

    def __init__(
        self,
        registrar: Registrar,
        ledger: Ledger,
        gate: Gate,
        keyring: Keyring,
        db: Reads,
        clock: Clock,
        counts: Metrics,
        *,
        shared_secrets: Sequence[SharedSecret] = (),
        grace: float = GRACE_SECONDS,
    ) -> None:
        """`grace`: for how many seconds after its end a token may still be refreshed."""
        self._registrar = registrar
        self._ledger = ledger
        self._gate = gate
        self._keyring = keyring
        self._db = db
        self._clock = clock
        self._counts = counts
        self._secrets = {secret.name: secret for secret in shared_secrets}
        self.grace = grace
        # The families of which a token is being refreshed, or is to be: one at a time.
        self._running: dict[Identity, trio.Event] = {}
        # What was told of late, by the name of what was shown; the newest token of a family; and when another text of
        # a successor was noted for a family. Of each the last used last.
        self._told: OrderedDict[str, Refreshed] = OrderedDict()
        self._newest: OrderedDict[Identity, Newest] = OrderedDict()
        self._noted: OrderedDict[Identity, float] = OrderedDict()

    def load(self) -> None:
        """Tell the ledger every family, before anybody asks. Raises StoreFailed."""
        families = self._db.read_now(refreshes.load)
        for family in families:
            self._ledger.denials.join(family.identity, family.started, family.until, family.members)
        _log.info("loaded", families=len(families))

    async def refresh(self, shown: str | Caller, transport: Transport) -> Refreshed:
        """The successor of a token: of its text, or of the caller that it made. It is on disk when this returns.

        Raises Refused with the exact reason, counted; InvalidState for whoever shows no token that edged could sign, or
        one whose successor would be too long to be taken; StoreFailed or Overloaded: then there may be a successor,
        which nobody knows.
        """
        try:
            caller = self._gate.enter_refresh(shown, transport, self.grace)
            name = name_of(caller, _check_kind(caller))
            family, _ = self._family_of(caller, name)
            while (known := self._recall(family, name)) is None:
                if (before := self._running.get(family)) is None:
                    break
                await before.wait()
            if known is not None:
                # It may have waited: what was denied meanwhile counts. What is told again may have ended.
                for each in (caller, known.caller):
                    self._gate.enter_refresh(each, transport, self.grace)
                self._counts.token_refreshed("replayed")
                return known
            shows = Proof(partial(self._gate.enter_refresh, caller, transport, self.grace))
            job = self._registrar.grant(shows, partial(self._take_turn, family, caller, transport))
            # Whoever asks in a loop, and hangs up each time, has one place in the queue: revocations wait there, too.
            self._running[family] = trio.Event()
            return await job.outcome()
        except (Refused, InvalidState):
            self._counts.token_refreshed("denied")
            raise

    async def _take_turn(self, family: Identity, caller: Caller, transport: Transport, commit: Commit) -> Refreshed:
        try:
            return await self._refresh(caller, transport, commit)
        finally:
            self._running.pop(family).set()

    async def _refresh(self, caller: Caller, transport: Transport, commit: Commit) -> Refreshed:
        # It may have waited: what was denied meanwhile counts.
        caller = self._gate.enter_refresh(caller, transport, self.grace)
        signer = _check_kind(caller)
        name = name_of(caller, signer)
        family, _ = self._family_of(caller, name)
        found = await self._db.read(partial(refreshes.find, name=name))
        young = None if found is not None else await self._find_young(family)
        if found is not None:
            text = await self._repeat(caller, signer, *found, commit)
        elif young is not None:
            text = await self._sign(signer, young)
        else:
            text = await self._make(caller, signer, name, longest_over(transport), commit)
        # What was denied while this was on its way to the disk is told to nobody: the successor, or the token itself,
        # which a line in time may hit though its successor is younger. What is told again may have ended.
        self._gate.enter_refresh(caller, transport, self.grace)
        answer = Refreshed(text, self._gate.enter_refresh(text, transport, self.grace))
        if young is None:
            _put(self._told, name, answer)
        if found is None and young is None:
            self._note_newest(family, name_of(answer.caller, signer), answer)
        again = found is not None or young is not None
        self._counts.token_refreshed("replayed" if again else "ok")
        _log.info("refreshed", credential=caller.credential_id, successor=answer.caller.credential_id, again=again,
                  **asked_by())  # fmt: skip
        return answer

    def _recall(self, family: Identity, name: str) -> Refreshed | None:
        """What a token that is known by this name is answered from memory: its successor; or the newest token of its
        family, if it is that itself and young."""
        if (told := self._told.get(name)) is not None:
            self._told.move_to_end(name)
            return told
        newest = self._newest.get(family)
        if newest is not None and newest.name == name and newest.is_young(self._clock.now()):
            return newest.answer
        return None

    async def _find_young(self, family: Identity) -> dict[str, object] | None:
        """The claims of the newest token of a family if there is to be no other one yet. Raises StoreFailed."""
        if (newest := self._newest.get(family)) is not None:
            return newest.answer.caller.claims if newest.is_young(self._clock.now()) else None
        claims = await self._db.read(partial(refreshes.find_newest, family=family))
        if claims is None:
            return None
        # Made by an earlier run, in the second that it says.
        made = float(cast("int", claims["iat"]))
        return claims if made <= self._clock.now() < made + 1.0 + _interval_of(claims) else None

    def _note_newest(self, family: Identity, name: str, answer: Refreshed) -> None:
        now = self._clock.now()
        _put(self._newest, family, Newest(name, answer, now, now + _interval_of(answer.caller.claims)))

    async def _make(self, caller: Caller, signer: Signer, name: str, longest: int, commit: Commit) -> str:
        family, started = self._family_of(caller, name)
        epoch = self._ledger.epoch
        claims = renew(caller, signer, now=self._clock.now(), started=started, epoch=epoch)
        if claims is None:
            raise Refused(
                Reason.EXPIRED,
                "what this token came of was issued 30 days ago: it is not refreshed any more",
                hint="log in, or have a new token issued",
            )
        text = await self._sign(signer, claims)
        if len(text) > longest:
            raise InvalidState(
                f"the token that comes of this one would be too long: {len(text)} characters of {longest}",
                hint="have one issued that says less, fewer streams perhaps",
            )
        names = {Identity.of_jti(caller.issuer, str(claims["jti"])), Identity.of_token(text), *_names_of(caller)}
        # A token that others made for longer than a day outlives its successor, and what is said of its family.
        until = max(float(cast("int", claims["exp"])), caller.expires or 0.0)
        if "tokens:issue" in caller.capabilities:
            # So may what was made with it, which ends with any of the family.
            until += LONGEST_LIFE
        record = FamilyRecord(family, started, until, frozenset(names))
        self._join(record)
        # What denies the token denies its family, and so whatever was written of it: nothing to take back.
        await commit(partial(refreshes.insert, name=name, claims=claims, family=record), undo=keep)
        return text

    async def _repeat(
        self, caller: Caller, signer: Signer, family: Identity, claims: dict[str, object], commit: Commit
    ) -> str:
        text = await self._sign(signer, claims)
        names = {Identity.of_token(text), *_names_of(caller)}
        new = frozenset(name for name in names if family not in self._ledger.denials.families_of([name]))
        now = self._clock.now()
        if new and not 0 <= now - self._noted.get(family, -math.inf) < INTERVAL_SECONDS:
            # Another key signs by now, or one that signs differently each time; by its jti it is of the family anyway.
            _put(self._noted, family, now)
            known = self._ledger.denials.find_family(family)
            assert known is not None, "it was found by one of its tokens"
            record = FamilyRecord(family, known.started, known.until, new)
            self._join(record)
            await commit(partial(refreshes.add, family=record), undo=keep)
        return text

    def _join(self, family: FamilyRecord) -> None:
        known = self._ledger.denials.find_family(family.identity)
        if known is not None and len(known.members) >= MOST_NAMES:
            raise Overloaded(f"{MOST_NAMES // 2} tokens came of one already", hint="log in, or have a new token issued")
        self._ledger.denials.join(family.identity, family.started, family.until, family.members)

    def _family_of(self, caller: Caller, name: str) -> tuple[Identity, float]:
        """The family that this token is of, or the one that it begins; and when that began."""
        if (family := self._find_family(caller)) is not None:
            known = self._ledger.denials.find_family(family)
            assert known is not None, "it was found by one of its tokens"
            return family, known.started
        return Identity.of_family(name), started_at(caller, self._clock.now())

    def _find_family(self, caller: Caller) -> Identity | None:
        return next(iter(self._ledger.denials.families_of_caller(caller)), None)

    async def _sign(self, signer: Signer, claims: dict[str, object]) -> str:
        if signer.name in self._secrets and signer.algorithm == SharedSecret.algorithm:
            return sign(claims, self._secrets[signer.name])
        return await self._keyring.sign(claims, cast("Algorithm", signer.algorithm))


def _interval_of(claims: Mapping[str, object]) -> float:
    """For how many seconds a token of these claims is to be the newest of its family."""
    life = float(cast("float", claims["exp"])) - float(cast("float", claims["iat"]))
    return min(INTERVAL_SECONDS, INTERVAL_PART * life)


def _put(table: OrderedDict[K, T], name: K, item: T) -> None:
    table[name] = item
    table.move_to_end(name)
    if len(table) > REMEMBERED:
        table.popitem(last=False)


def _check_kind(caller: Caller) -> Signer:
    """Raises InvalidState for whoever came by something else than a token that edged can sign the like of."""
    if (signer := signer_of(caller)) is not None:
        return signer
    hints = {
        "api_key": "rotate_key gives a key a new secret",
        "ticket": "create_ticket makes a new ticket",
        "jwt_federated": "its issuer has a new one",
    }
    raise InvalidState(
        "there is no token of edged's to refresh here", hint=hints.get(caller.method, "send the token as `token`")
    )


def _names_of(caller: Caller) -> list[Identity]:
    """By which a revocation of this token, or of the key that signed it, is one of its family."""
    return [each for each in caller.identities if each.kind in (*TOKENS, Kind.SIGNING_KEY)]
