"""Users: make, change, re-password, disable and delete them, each durable and in force as the registrar says.

What takes something away is a denial: the ledger holds the new row when the call returns, everything that the user's
password and keys opened and that they may no more is ended, and the row is pending until it is on disk. What gives
something is a grant: commit, then ledger. A change that does both is both, one after the other. Rows are written whole:
of a grant that a denial overtook nothing is left, on disk either, and whoever asked for it is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

import structlog
from msgspec.structs import replace

from edged.access.admissions import Admissions
from edged.access.asking import asked_by
from edged.access.authority import EDGED, Authority
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit, Due
from edged.accounts.registrar import Kind, Registrar
from edged.clock import Clock
from edged.credentials.callers import Streams
from edged.credentials.identities import Identity
from edged.credentials.roles import ROLES, canonical_role
from edged.credentials.users import NAME_RULE, UserRecord, common, gains, is_user_name, login_identities, loses
from edged.errors import InvalidParams, InvalidState, NotFound, Overloaded, StoreFailed
from edged.store import users
from edged.store.database import Reads
from edged.store.revocations import UserChange, user_key

_LONGEST_DISPLAY_NAME: Final = 100
#: Fields of UserRecord that `update` changes.
_CHANGED: Final = ("role", "permissions", "camera_access", "streams", "display_name", "disabled_at")
_log = structlog.get_logger("users")

#: `(before, after)`: whether this may be done, asked when it is; may raise.
Check: TypeAlias = Callable[[UserRecord, UserRecord], None]


class Users:
    """What may become of a user."""

    def __init__(
        self, registrar: Registrar, ledger: Ledger, admissions: Admissions, db: Reads, clock: Clock, *, issuer: str
    ) -> None:
        """`issuer`: what the tokens that logins get say as `iss`."""
        self._registrar = registrar
        self._ledger = ledger
        self._admissions = admissions
        self._db = db
        self._clock = clock
        self._issuer = Identity.of_issuer(issuer)

    def load(self) -> None:
        """Tell the ledger every user, before anybody asks and before their keys. Raises StoreFailed."""
        records = self._db.read_now(users.load)
        for record in records:
            self._ledger.put_user(record)
        _log.info("loaded", users=len(records))

    def is_empty(self) -> bool:
        """Whether there is no user: then nobody can log in."""
        return not self.all()

    def all(self) -> list[UserRecord]:
        """Every user who was not deleted, by name."""
        living = [record for record in self._ledger.users.values() if record.deleted_at is None]
        return sorted(living, key=lambda record: record.name)

    def find(self, name: str) -> UserRecord | None:
        """The user of this name, disabled or not; None if there is none, or none any more."""
        record = self._ledger.users.get(name)
        return None if record is None or record.deleted_at is not None else record

    def is_revoked(self, name: str) -> bool:
        """Whether every token that this user gets by their password is denied, for good: one of tomorrow, too."""
        return self._ledger.is_shut_out(name) or self._issuer in self._ledger.denials

    @property
    def awaits_confirmation(self) -> bool:
        """Whether nobody logs in, because the trust database is an older one (accounts.restores)."""
        return self._ledger.unconfirmed_epoch is not None

    def check_subject(self, subject: str) -> None:
        """Raises InvalidState if no token that edged makes for this subject would be good, now or ever."""
        if self._ledger.denials.has_any((Identity.of_user(subject), Identity.of_subject("", subject))):
            raise InvalidState(
                f"the subject {subject!r} is revoked for good: a token would not be good",
                hint="name another subject; why: edged revocation list",
                resource="user",
                id=subject,
            )
        if self._issuer in self._ledger.denials:
            raise InvalidState(
                "our own issuer is revoked for good: a token would not be good",
                hint="give auth.issuer another name and restart edged",
            )

    def check_name(self, name: str) -> None:
        """Raises InvalidState for a name that nobody can be given: it is somebody's, or was and something is left."""
        namesake = next((each for each in self.all() if each.name.casefold() == name.casefold()), None)
        if namesake is not None:
            raise InvalidState(
                f"there is a user {namesake.name!r}", hint="choose another name", resource="user", id=namesake.name
            )
        if self._ledger.is_shut_out(name):
            raise InvalidState(
                f"the subject {name!r} is revoked for good: a user of this name could never log in",
                hint="choose another name; why: edged revocation list",
                resource="user",
                id=name,
            )
        living = [key for key in self._ledger.keys_of(name) if self._ledger.keys[key].revoked_at is None]
        if living:
            raise InvalidState(
                f"{len(living)} keys of the deleted user {name!r} are left",
                hint=f"revoke them or give them to somebody else: edged key list --owner {name}",
                resource="user",
                id=name,
            )

    def get(self, name: str) -> UserRecord:
        """Raises NotFound."""
        record = self.find(name)
        if record is None:
            raise NotFound(f"no user {name[:64]!r}", hint="list_users names them", resource="user", id=name[:64])
        return record

    async def create(
        self,
        authority: Authority,
        *,
        name: str,
        role: str,
        password: str | None = None,
        display_name: str = "",
        permissions: Sequence[str] | None = None,
        camera_access: Sequence[str] | None = None,
        streams: Streams | None = None,
    ) -> UserRecord:
        """A new user; `password` is its argon2id hash. Tokens that were issued to this name before are worth nothing.

        Raises what the authority raises, InvalidParams, InvalidState (as `check_name`),
        StoreFailed or Overloaded; then there is none.
        """
        now = self._clock.now()
        record = UserRecord(
            name=name,
            role=canonical_role(role),
            created_at=now,
            epoch=0,
            display_name=display_name,
            permissions=None if permissions is None else tuple(permissions),
            camera_access=None if camera_access is None else tuple(camera_access),
            streams=streams,
            password=password,
            password_changed_at=None if password is None else now,
        )
        _check(record)
        return await self._registrar.grant(authority, partial(self._create, record)).outcome()

    def update(
        self,
        authority: Authority,
        name: str,
        changes: Mapping[str, Any],
        check: Check = lambda _before, _after: None,
        by: str = "",
    ) -> Coroutine[Any, Any, UserRecord]:
        """Change what a user is called and may do: fields of UserRecord by name. What is taken away is gone when this
        *call* returns; await the result for the commits, and for what is given.

        Who loses a right loses every token that edged issued to them; their keys can do no more than they can. `by`
        is the session that asks: if it ends itself, its reply goes out first. Raises NotFound, InvalidParams,
        InvalidState (nobody would be left who can administer users), or what the authority or `check` raises: then
        nothing changed.
        StoreFailed and Overloaded if what was taken away is not yet on disk; then what was to be given is not.
        """
        authority.check()
        before, after = self._prepare(name, changes, check)
        held, due, lost, given = before, None, loses(before, after), changes
        # Also for one who is disabled already: a grant that takes that back may be on its way to the disk.
        if lost or (after.disabled_at is not None and "disabled_at" in changes):
            held = common(before, after) if gains(before, after) else after
            # To be enabled again is a grant.
            disabled_at = before.disabled_at if after.disabled_at is None else after.disabled_at
            held = replace(held, disabled_at=disabled_at, epoch=self._ledger.next_epoch() if lost else held.epoch)
            due = self._deny(held, by)
            given = {name: getattr(after, name) for name in _CHANGED if getattr(after, name) != getattr(held, name)}

        async def settle() -> UserRecord:
            await self._registrar.settle(due)
            if not given:
                return held
            try:
                granted = await self._registrar.grant(authority, partial(self._grant, name, given, check)).outcome()
            except (StoreFailed, Overloaded) as problem:
                if due is None:
                    raise
                raise type(problem)(
                    f"what is taken away is so, and saved; of what is given {problem.sentence}",
                    hint=problem.hint,
                    in_force=True,
                ) from problem
            # They were given something since this was asked: now there is something to take away.
            return await self.update(authority, name, given, check, by) if granted is None else granted

        return settle()

    def disable(self, name: str, by: str = "") -> Coroutine[Any, Any, UserRecord]:
        """Refuse a user, their tokens and their keys until they are enabled: in force when this *call* returns."""
        record = self.get(name)
        at = self._clock.now() if record.disabled_at is None else record.disabled_at
        # A denial, and nothing else.
        return self.update(EDGED, name, {"disabled_at": at}, by=by)

    def enable(self, authority: Authority, name: str) -> Coroutine[Any, Any, UserRecord]:
        """Let a disabled user in again, once that is on disk."""
        return self.update(authority, name, {"disabled_at": None})

    def set_password(self, name: str, password: str, by: str = "") -> Coroutine[Any, Any, UserRecord]:
        """Another password, by its argon2id hash: when this *call* returns the old one, and every token that edged
        issued to them, is worth nothing; their keys are what they were (contract 10.18). Await it for the commit."""
        record = replace(
            self.get(name),
            password=password,
            password_changed_at=self._clock.now(),
            epoch=self._ledger.next_epoch(),
        )
        return self._settled(record, self._deny(record, by))

    def rehash(self, name: str, old: str, new: str) -> None:
        """The same password at today's cost, unless it is another one by now. Nobody waits for it: if it cannot be
        written, the next login makes it again."""
        with suppress(Overloaded, StoreFailed):
            self._registrar.grant(EDGED, partial(self._rehash, name, old, new))

    def delete(self, name: str, by: str = "") -> Coroutine[Any, Any, UserRecord]:
        """No such user any more: their tokens are worth nothing and their keys rest, when this *call* returns.

        The name may be given again, to somebody who has none of this. Raises as `update`.
        """
        before = self.get(name)
        record = replace(before, deleted_at=self._clock.now(), password=None, epoch=self._ledger.epoch)
        self._refuse_lockout(before, record)
        record = replace(record, epoch=self._ledger.next_epoch())
        return self._settled(record, self._deny(record, by))

    def revoke(self, identity: Identity, kind: Kind, by: str = "", reason: str = "") -> Coroutine[Any, Any, None]:
        """End every token of a subject or an issuer, for good: in force when this *call*
        returns. Await the result for the commit; else as Registrar.revoke_token.

        The keys of a user who can never log in again rest with them, as if they were deleted. Raises InvalidState if
        nobody who can administer users could ever log in again: then nothing changed.
        """
        self._refuse_shut_out(identity)
        settled = self._registrar.revoke_token(frozenset({identity}), None, by, kind=kind, reason=reason)
        owners = [name for name in self._ledger.users if identity in login_identities(name)]
        keys = {Identity.of_key(key) for name in owners for key in self._ledger.keys_of(name)}
        if keys:
            inside = {each for key in keys for each in self._admissions.of(key)}
            ended = self._registrar.terminate(inside, "suspended", by, keys)
            _log.info("keys_suspended", users=owners, keys=len(keys), ended=ended, **asked_by())
        return settled

    async def _settled(self, record: UserRecord, due: Due) -> UserRecord:
        await self._registrar.settle(due)
        return record

    def _prepare(self, name: str, changes: Mapping[str, Any], check: Check) -> tuple[UserRecord, UserRecord]:
        """The user as they are and as they shall be. Raises whatever stands against it."""
        before = self.get(name)
        after = replace(before, **changes)
        _check(after)
        check(before, after)
        self._refuse_lockout(before, after)
        return before, after

    def _refuse_lockout(self, before: UserRecord, after: UserRecord) -> None:
        """Whoever administers users last stays. No checkpoint lies between this and what it allows."""
        if not self._is_able(before) or self._is_able(after):
            return
        if not any(self._is_able(other) for other in self._ledger.users.values() if other.name != before.name):
            raise InvalidState(
                f"{before.name!r} is the last user who can administer users",
                hint="make another one first: edged user add NAME --role admin",
                resource="user",
                id=before.name,
            )

    def _refuse_shut_out(self, identity: Identity) -> None:
        """The same for what is denied by whose token it is, which is for good; what is denied already, again."""
        if identity in self._ledger.denials:
            return
        if identity == self._issuer:
            raise InvalidState(
                "this is our own issuer: nobody could ever log in again",
                hint="give before=now as well: that ends the tokens of so far only",
            )
        able = [each.name for each in self.all() if self._is_able(each)]
        if able and all(identity in login_identities(name) for name in able):
            raise InvalidState(
                f"nobody but {' and '.join(map(repr, able))} can administer users: nobody could ever do so again",
                hint="make another administrator first: edged user add NAME --role admin; "
                "or give before=now as well: that ends the tokens of so far only",
                resource="user",
                id=able[0],
            )

    def _is_able(self, record: UserRecord) -> bool:
        """Whether they can log in now and administer users, and are let in by what they get: one there must be."""
        return record.can_administer and not self.is_revoked(record.name)

    def _deny(self, record: UserRecord, by: str) -> Due:
        """This row is in force, and pending until it is on disk. Never waits."""
        self._enforce(record, by)
        return self._registrar.add_pending([UserChange(record)])

    def _enforce(self, record: UserRecord, by: str = "") -> None:
        """The ledger holds this row; everything that it ends is ended."""
        ledger, before = self._ledger, self._ledger.users.get(record.name)
        ledger.put_user(record)
        theirs = [each for each in self._admissions if each.caller.epoch is not None]
        identity = Identity.of_user(record.name)
        theirs = [each for each in theirs if each.caller.subject == record.name or identity in each.caller.issued_by]
        revoked = [each for each in theirs if ledger.is_denied(each.caller)]
        resting = [each for each in theirs if not ledger.is_denied(each.caller) and ledger.is_suspended(each.caller)]
        keys = [each for key in ledger.keys_of(record.name) for each in self._admissions.of(Identity.of_key(key))]
        if record.status == "active":
            self._registrar.review(keys)
        else:
            resting += keys
        ended = self._registrar.terminate(resting, "suspended", by) if resting else 0
        if revoked or before is None or record.epoch != before.epoch:
            ended += self._registrar.terminate(revoked, "revoked", by, {Identity.of_user(record.name)})
        _log.info("user_in_force", user=record.name, status=record.status, role=record.role, ended=ended,
                  **asked_by())  # fmt: skip

    async def _create(self, record: UserRecord, commit: Commit) -> UserRecord:
        before = self._ledger.users.get(record.name)
        self.check_name(record.name)
        record = replace(record, epoch=self._ledger.next_epoch())
        return await self._commit(before, record, commit)

    async def _grant(self, name: str, changes: Mapping[str, Any], check: Check, commit: Commit) -> UserRecord | None:
        """None, and nothing done, if it would take something away: that is a denial's business."""
        before, after = self._prepare(name, changes, check)
        if after == before:
            return before
        return None if loses(before, after) else await self._commit(before, after, commit)

    async def _rehash(self, name: str, old: str, new: str, commit: Commit) -> None:
        record = self.find(name)
        if record is not None and record.password == old:
            await self._commit(record, replace(record, password=new), commit)

    async def _commit(self, before: UserRecord | None, record: UserRecord, commit: Commit) -> UserRecord:
        """Write a row and have it in force. Raises InvalidState if a denial came meanwhile: then that stands."""
        pending = self._registrar.withdraw(user_key(record.name))
        try:
            await commit(
                partial(users.put, record=record),
                undo=partial(users.delete, name=record.name) if before is None else partial(users.put, record=before),
            )
        except BaseException:
            if pending is not None:
                self._registrar.keep_pending(pending)
            raise
        if self._ledger.users.get(record.name) is not before:
            # It is pending as a whole row, and written over this one.
            raise InvalidState(
                f"user {record.name!r} was changed meanwhile", hint="ask again", resource="user", id=record.name
            )
        self._enforce(record)
        return record


def _check(record: UserRecord) -> None:
    """Raises InvalidParams for a user that makes no sense."""
    if not is_user_name(record.name):
        raise InvalidParams("this is no name for a user", hint=NAME_RULE)
    if record.role not in ROLES:
        raise InvalidParams(f"no role {record.role[:64]!r}", hint=f"one of {', '.join(ROLES)}")
    if len(record.display_name) > _LONGEST_DISPLAY_NAME or not record.display_name.isprintable():
        raise InvalidParams(f"display_name is longer than {_LONGEST_DISPLAY_NAME} characters or not printable")
