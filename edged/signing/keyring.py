"""The key pairs that edged signs tokens with, in memory: which one signs now, which verify, what the JWKS says.

Verifiers elsewhere keep our JWKS for an hour, so a key is published two hours before it signs (`next`), signs
(`current`), and stays published until the last token that it signed is out (`retired`). A change is committed before
it is in force. Nothing is deleted, and the clock takes nothing away for good: what is published is judged each time.

Private halves are wrapped on the disk where the operator hands over a key for that (edged.credentials.wrapping).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, cast

import msgspec
import structlog
import trio

from edged.access.asking import asked_by
from edged.access.grants import Commit, Grant, Upkeep
from edged.clock import Clock, iso
from edged.credentials.claims import LEEWAY, Trust
from edged.credentials.identities import Identity
from edged.credentials.signing_keys import (
    ALGORITHMS,
    PUBLISHED_SECONDS,
    Algorithm,
    Jwk,
    PrivateKey,
    SigningKeyRecord,
    State,
    VerifyingKey,
    read_key,
)
from edged.credentials.tokens import sign
from edged.credentials.wrapping import CREDENTIAL, CannotUnwrap, WrappingKey
from edged.errors import InvalidState, NotFound, Overloaded, StartFailed, StoreFailed
from edged.store import signing_keys
from edged.store.backups import BackupFailed
from edged.store.database import Database

#: How far ahead the end of the tokens of a key is written: so a key costs one write a day, however many it signs.
_AHEAD_SECONDS: Final = 86400.0
_log = structlog.get_logger("keyring")


class Keyring:
    """All key pairs by kid. Reading never waits; whatever changes one is done one at a time."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        is_denied: Callable[[Identity], bool],
        issuer: str = "edged",
        make: Callable[[Sequence[Algorithm]], Awaitable[Sequence[Jwk]]],
        was_restored: bool,
        wrapping: WrappingKey | None = None,
    ) -> None:
        """`issuer` is the `iss` of our tokens; `is_denied(identity)` says what is revoked (the ledger in the daemon);
        `make` makes a key pair for each of these algorithms; `was_restored`: the database goes on from one
        of an earlier time, so that its keys may have signed more than it knows; `wrapping` is what private halves are
        wrapped by on the disk, None: not at all.
        """
        self._db = db
        # How edged commits by itself; `_denial` what distrust brings with it, for which the disk keeps space.
        self._upkeep, self._denial = Upkeep(db), Upkeep(db, may_stand=True)
        self._clock = clock
        self.issuer = issuer
        self._is_denied = is_denied
        self._make = make
        self._was_restored = was_restored
        self._wrapping = wrapping
        self._trust = Trust(frozenset({issuer}), needs_issuer=True, own=issuer)
        self._records: dict[str, SigningKeyRecord] = {}
        self._verifying: dict[str, VerifyingKey] = {}
        self._signing: dict[str, PrivateKey] = {}
        # Since when this process publishes a key, monotonic, and which of them it made itself.
        self._seen_at: dict[str, float] = {}
        self._made_here: set[str] = set()
        self._changing, self._creating = trio.Lock(), trio.Lock()

    def load(self) -> None:
        """Take up the stored keys, before anybody asks. Raises StoreFailed; StartFailed if they cannot be unwrapped."""
        try:
            records = self._db.read_now(partial(signing_keys.load, wrapping=self._wrapping))
        except CannotUnwrap as problem:
            missing = self._wrapping is None
            raise StartFailed(
                f"the signing keys in {self._db.path} are wrapped, and the credential {CREDENTIAL} "
                + ("was not given" if missing else f"is not the one that they were wrapped by ({problem})"),
                hint=f"put the one that they were wrapped by into /etc/credstore/{CREDENTIAL}, or encrypted by "
                "systemd-creds into /etc/credstore.encrypted; if it is lost: sudo -u edged edged signing-key abandon",
            ) from None
        for record in records:
            self._put(record, may_have_signed=self._was_restored)

    async def ensure(self) -> None:
        """See that every algorithm has a key that signs, and that what can be wrapped is: before the listeners open
        (contract 10.21). A key that is distrusted signs no more, should a crash have come between. Raises StoreFailed.
        """
        if self._wrapping is not None:
            await self._wrap_plain(self._wrapping)
        for state in ("next", "current"):
            for record in self.all():
                if record.state == state and self.is_distrusted(record):
                    await self.give_up(record.kid)
        missing = [algorithm for algorithm in ALGORITHMS if self._find_state(algorithm, "current") is None]
        if missing:
            made = await self._make(missing)
            async with self._changing:
                for algorithm, private in zip(missing, made, strict=True):
                    await self._insert(self._upkeep.commit, algorithm, "current", private)

    def find(self, kid: str) -> VerifyingKey | None:
        """The public half of this key, whatever its state; None if no key of ours has this name."""
        return self._verifying.get(kid)

    def all(self) -> tuple[SigningKeyRecord, ...]:
        """Every key, oldest first."""
        return tuple(self._records.values())

    def get(self, kid: str) -> SigningKeyRecord:
        """Raises NotFound."""
        record = self._records.get(kid)
        if record is None:
            raise NotFound(
                f"no signing key {kid[:64]!r}", hint="list_signing_keys names them", resource="signing_key", id=kid[:64]
            )
        return record

    def current(self, algorithm: Algorithm) -> SigningKeyRecord:
        """The key that signs for this algorithm."""
        record = self._find_state(algorithm, "current")
        assert record is not None, "ensure() was not awaited"
        return record

    def waiting(self, algorithm: Algorithm) -> SigningKeyRecord | None:
        """The key that signs next, if there is one."""
        return self._find_state(algorithm, "next")

    def sealing_key(self) -> tuple[PrivateKey, Jwk] | None:
        """What signs statements about recordings: the current ES256 key, with its public half; None where that is
        distrusted and no other has taken over yet."""
        record = self._find_state("ES256", "current")
        if record is None or self.is_distrusted(record) or record.kid not in self._signing:
            return None
        return self._signing[record.kid], record.public

    def is_distrusted(self, record: SigningKeyRecord) -> bool:
        """Whether everything that this key signed is refused."""
        return self._is_denied(Identity.of_signing_key(record.kid))

    def is_published(self, record: SigningKeyRecord) -> bool:
        """Whether the JWKS shows this key now."""
        if self.is_distrusted(record):
            return False
        if record.state != "retired":
            return True
        # By a time that somebody has confirmed: verifiers lose no key by a visit to 2099, and none comes back after it.
        return record.signs_until > 0.0 and self._clock.certain() < record.signs_until + LEEWAY

    def published_since(self, record: SigningKeyRecord) -> float:
        """For how many seconds verifiers could have fetched this key: no step of the clock makes one that was made in
        this run older or younger, nor an earlier one younger than this run."""
        seen = self._clock.monotonic() - self._seen_at[record.kid]
        return seen if record.kid in self._made_here else max(seen, self._clock.now() - record.created_at)

    def jwks(self) -> bytes:
        """The public halves that may be relied on, as a JWK set (RFC 7517); an empty one if there is none."""
        keys = [record.published() for record in self._records.values() if self.is_published(record)]
        return msgspec.json.encode({"keys": keys})

    async def sign(self, claims: Mapping[str, object], algorithm: Algorithm) -> str:
        """A token by the current key of this algorithm; `iss` is ours. `claims` must hold `exp`, Unix seconds.

        Until when the key must be published is on disk before the token is told. Raises StoreFailed, Overloaded.
        """
        ends = float(cast("float", claims["exp"]))
        while True:
            record = self.current(algorithm)
            key = self._signing[record.kid]
            if not key.is_read:
                # With it comes the library, which takes a tenth of a second.
                await trio.to_thread.run_sync(key.read)
                continue
            if ends <= record.signs_until:
                return sign({**claims, "iss": self.issuer}, key)
            async with self._changing:
                # Another caller may have done it, or another key may sign by now.
                if ends > self._records[record.kid].signs_until:
                    until = ends + _AHEAD_SECONDS
                    await self._change(
                        self._upkeep.commit, partial(signing_keys.extend, number=record.number, until=until)
                    )

    async def create(self, grant: Grant, algorithm: Algorithm) -> SigningKeyRecord:
        """A key that is published from now on and signs once it is promoted. Raises what the grant raises,
        InvalidState."""
        # One at a time: whoever asks meanwhile costs no pair, and is told that there is one.
        async with self._creating:
            self._check_none_waits(algorithm)
            private = await self._make_pair(algorithm)
            with trio.CancelScope(shield=True):
                made = await grant(partial(self._create, algorithm, private))
        return made

    async def _create(self, algorithm: Algorithm, private: Jwk, commit: Commit) -> SigningKeyRecord:
        async with self._changing:
            self._check_none_waits(algorithm)
            return await self._insert(commit, algorithm, "next", private)

    def _check_none_waits(self, algorithm: Algorithm) -> None:
        if waiting := self._find_state(algorithm, "next"):
            raise InvalidState(
                f"{waiting.kid} is already the next {algorithm} key", hint=f"promote or retire {waiting.kid} first"
            )

    async def promote(self, grant: Grant, kid: str, *, force: bool = False) -> SigningKeyRecord:
        """The next key signs from now on, the one before is retired. Raises NotFound, InvalidState, and as `create`.

        A key that is younger than two hours needs `force`: verifiers that keep our JWKS do not know it yet.
        """
        return await grant(partial(self._promote, kid, force))

    async def _promote(self, kid: str, force: bool, commit: Commit) -> SigningKeyRecord:
        async with self._changing:
            record = self.get(kid)
            if record.state != "next":
                raise InvalidState(f"{kid} is {record.state}, not next", hint="create a new key and promote that")
            left = PUBLISHED_SECONDS - self.published_since(record)
            if left > 0 and not force:
                raise InvalidState(
                    f"{kid} was published less than {PUBLISHED_SECONDS / 3600:.0f} hours ago",
                    hint=f"verifiers may not know it before {iso(self._clock.now() + left + 1)}; wait, or use force "
                    "when each of them has fetched the JWKS again",
                )
            now = self._clock.now()
            await self._change(commit, partial(signing_keys.promote, number=record.number, now=now))
            _log.info("promoted", key=kid, algorithm=record.algorithm, forced=left > 0, **asked_by())
            return self.get(kid)

    async def retire(self, grant: Grant, kid: str) -> SigningKeyRecord:
        """A next key is not wanted any more. Raises NotFound, InvalidState, and as `create`.

        A current one retires only when another is promoted, or when it is distrusted (`give_up`).
        """
        return await grant(partial(self._retire, kid))

    async def _retire(self, kid: str, commit: Commit) -> SigningKeyRecord:
        async with self._changing:
            record = self.get(kid)
            if record.state == "current":
                raise InvalidState(
                    f"{kid} is the key that signs {record.algorithm}",
                    hint="create another and promote it: that retires this one; or distrust it if it leaked",
                )
            if record.state == "next":
                now = self._clock.now()
                await self._change(commit, partial(signing_keys.retire, number=record.number, now=now))
                _log.info("retired", key=kid, algorithm=record.algorithm, at_once=False, **asked_by())
            return self.get(kid)

    async def give_up(self, kid: str) -> SigningKeyRecord:
        """A key that is distrusted signs no more; should it sign now, the next key of its algorithm takes over however
        young it is, or a new one. Part of a denial in force: it needs no grant, and space that is kept for denials.

        Raises NotFound, StoreFailed, Overloaded, InvalidState for a key that is not distrusted.
        """
        record = self.get(kid)
        if not self.is_distrusted(record):
            raise InvalidState(f"{kid} is not distrusted", hint="retire it, or distrust it if it leaked")
        private = await self._make_pair(record.algorithm) if record.state == "current" else None
        with trio.CancelScope(shield=True):
            async with self._changing:
                record, now = self.get(kid), self._clock.now()
                state, after = record.state, self._find_state(record.algorithm, "next")
                if state == "next":
                    await self._change(self._denial.commit, partial(signing_keys.retire, number=record.number, now=now))
                elif state == "current":
                    if after is None:
                        private = private or await self._make_pair(record.algorithm)
                        after = await self._insert(self._denial.commit, record.algorithm, "next", private)
                    await self._change(self._denial.commit, partial(signing_keys.promote, number=after.number, now=now))
                if state != "retired":
                    _log.info("retired", key=kid, algorithm=record.algorithm, at_once=state == "current",
                              **asked_by())  # fmt: skip
        return self.get(kid)

    async def _wrap_plain(self, wrapping: WrappingKey) -> None:
        """Nothing plain is left: neither in rows, nor in freed pages and the log of the file, nor in its copies."""
        if wrapped := await self._db.write(partial(signing_keys.wrap_plain, wrapping=wrapping)):
            _log.info("wrapped", keys=wrapped, credential=CREDENTIAL)
        if not await self._db.read(signing_keys.leaves_traces):
            return
        try:
            await self._db.scrub()
            copies = await trio.to_thread.run_sync(signing_keys.clean_backups, self._db.path)
            await self._db.write(signing_keys.note_clean)
        except (StoreFailed, Overloaded, BackupFailed) as problem:
            _log.warning("plain_keys_left", problem=str(problem), remedy="free the disk; the next start tries again")
        else:
            _log.info(
                "plain_keys_removed", copies_cleaned=copies,
                remedy="a copy made elsewhere, or the medium itself, may hold them: if that matters, rotate the keys",
            )  # fmt: skip

    def _find_state(self, algorithm: str, state: State) -> SigningKeyRecord | None:
        found = (each for each in self._records.values() if each.algorithm == algorithm and each.state == state)
        return next(found, None)

    async def _make_pair(self, algorithm: Algorithm) -> Jwk:
        """Before its change begins: an RSA pair takes a slow box seconds."""
        (made,) = await self._make([algorithm])
        return made

    async def _insert(self, commit: Commit, algorithm: Algorithm, state: State, private: Jwk) -> SigningKeyRecord:
        insert = partial(
            signing_keys.insert, algorithm=algorithm, state=state, private=private, now=self._clock.now(),
            wrapping=self._wrapping,
        )  # fmt: skip
        # What is committed must come to be known here, whoever hangs up meanwhile.
        with trio.CancelScope(shield=True):
            record = await commit(insert, undo=partial(signing_keys.forget_next, private=private))
        self._put(record)
        self._made_here.add(record.kid)
        _log.info("created", key=record.kid, algorithm=algorithm, state=state, **asked_by())
        return record

    async def _change(self, commit: Commit, transaction: Callable[..., list[SigningKeyRecord]]) -> None:
        """Commit, then take over what all keys look like now."""
        write, undo = signing_keys.make_reversible(partial(transaction, wrapping=self._wrapping))
        with trio.CancelScope(shield=True):
            records = await commit(write, undo=undo)
        for record in records:
            # One that is not known here was committed by a right that has ended, and is being undone.
            if record.kid in self._records and record != self._records[record.kid]:
                self._put(record)

    def _put(self, record: SigningKeyRecord, *, may_have_signed: bool = False) -> None:
        kid = record.kid
        self._records[kid] = record
        self._seen_at.setdefault(kid, self._clock.monotonic())
        known = self._verifying.get(kid)
        if known is None or known.key is None:
            may_have_signed = may_have_signed or record.signs_until > 0.0
            key = read_key(record.public) if may_have_signed else None
            self._verifying[kid] = VerifyingKey(kid, record.algorithm, key, self._trust)
        if record.private is None:
            self._signing.pop(kid, None)
        elif kid not in self._signing:
            self._signing[kid] = PrivateKey(kid, record.algorithm, record.private)
