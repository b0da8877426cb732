"""What the gate knows, in memory: keys by digest, what is denied, and the secrets of edged's own children.

Written by the registrar only (and, for children's secrets, by the spawner through `new_secret`);
read by the gate without waiting. Every key's Caller is built when the key is put, so that a
question costs one hash and one look-up.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from edged.credentials.api_keys import KeyRecord, digest
from edged.credentials.callers import NOTHING, Caller, Resource
from edged.credentials.decision import Decision, decide
from edged.credentials.identities import ALL, SCOPES, SUBJECTS, TOKENS, Identity, Kind, widen
from edged.credentials.roles import canonical_role, compute, name_cameras
from edged.credentials.service_tokens import ServiceTokenRecord, service_caller
from edged.credentials.users import UserRecord, login_subject, narrow


@dataclass(slots=True)
class ChildSecret:
    """A password made for one child process: one path, one action, so many accepted uses (None: until dropped)."""

    path: str
    action: str
    uses: int | None


@dataclass(slots=True)
class Family:
    """All that came of one token by refreshing: since when, until when, and what its tokens are named by."""

    started: float
    until: float
    members: set[Identity]


class Ledger:
    """Facts that decide; no SQL, no clock, no waiting."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyRecord] = {}
        #: Users by name, deleted ones too.
        self.users: dict[str, UserRecord] = {}
        self._owned: dict[str, set[str]] = {}  # the ids of a user's keys
        self._callers: dict[bytes, Caller] = {}
        #: What is denied for good.
        self.denied: set[Identity] = set()
        #: The keys that are denied until they are resumed.
        self.suspended: set[Identity] = set()
        #: Scope (all, a subject, an issuer) → Unix seconds: tokens of it that were issued by then are denied. Those of
        #: edged's own are compared with times that somebody named, and with the epoch at which a line "up to now" was
        #: drawn.
        self.cut_offs: dict[Identity, float] = {}
        self.own_cut_offs: dict[Identity, float] = {}
        self.epochs: dict[Identity, int] = {}
        #: Scope → the second of this boot at which a line "up to now" was drawn for it, at the latest, while nobody
        #: vouched for the clock; and what such a second is in Unix seconds by the clock as it is now.
        self.provisional: dict[Identity, float] = {}
        self.place: Callable[[float], float] = lambda _second: math.inf
        #: What came of one token by refreshing, by its own identity; the families of a name; and of the names in
        #: `denied` those that nobody named but their family, with that family.
        self.families: dict[Identity, Family] = {}
        self._families_of: dict[Identity, set[Identity]] = {}
        self._derived: dict[Identity, Identity] = {}
        #: Rises with each cut-off "up to now" and each change of a user that ends tokens; edged's own tokens say at
        #: which they were made. It goes to the disk with what raised it (accounts.registrar).
        self.epoch = 0
        #: Set while the trust database is an older copy that nobody has confirmed (accounts.restores): only tokens that
        #: edged made at this epoch or later are accepted.
        self.unconfirmed_epoch: int | None = None
        self._is_scoped = False  # whether any token is denied by whom it is of
        # The callers of keys by the identity of a secret, and the keys (by id) whose callers were made anew since.
        self._by_secret: dict[Identity, Caller] = {}
        self._changed: set[str] = set()
        #: Identities that end at a time, Unix seconds: the old secret of a rotated key.
        self.ends: dict[Identity, float] = {}
        self._children: dict[bytes, ChildSecret] = {}
        self.service_tokens: dict[str, ServiceTokenRecord] = {}
        self._services: dict[bytes, Caller] = {}

    def put_key(self, record: KeyRecord) -> None:
        """Make a key known, or known anew after a change."""
        before = self.keys.get(record.key_id)
        if before is not None and before.owner is not None:
            self._owned[before.owner].discard(record.key_id)
        if record.owner is not None:
            self._owned.setdefault(record.owner, set()).add(record.key_id)
        for old in before.digests if before else ():
            self._callers.pop(old, None)
            self._by_secret.pop(Identity.of_secret(old), None)
            if old not in record.digests:
                # Whoever is still inside by it is inside no longer.
                self.ends[Identity.of_secret(old)] = 0.0
        self.keys[record.key_id] = record
        if before is not None:
            self._changed.add(record.key_id)
        self._put_secret(record, record.digest, record.expires_at)
        for each in record.replaced:
            until = min(each.until, record.expires_at or math.inf)
            self._put_secret(record, each.digest, until)
            self.ends[Identity.of_secret(each.digest)] = until
        if record.suspended_at is not None or self._is_orphaned(record):
            self.suspended.add(Identity.of_key(record.key_id))
        else:
            self.suspended.discard(Identity.of_key(record.key_id))
        if record.revoked_at is not None:
            self.denied.add(Identity.of_key(record.key_id))

    def _put_secret(self, record: KeyRecord, key_digest: bytes, until: float | None) -> None:
        caller = self.caller_of(record, key_digest, until)
        self._callers[key_digest] = self._by_secret[Identity.of_secret(key_digest)] = caller

    def caller_of(self, record: KeyRecord, key_digest: bytes, expires: float | None) -> Caller:
        """The caller that a secret of such a key speaks for: it may do no more than its owner may now."""
        caller = caller_of(record, key_digest, expires)
        owner = None if record.owner is None else self.users.get(record.owner)
        return caller if owner is None else narrow(caller, owner.rights)

    def _is_orphaned(self, record: KeyRecord) -> bool:
        """Whether a key's owner is disabled, deleted or unknown, or can never log in again."""
        if record.owner is None:
            return False
        owner = self.users.get(record.owner)
        return owner is None or owner.status != "active" or self.is_shut_out(record.owner)

    def is_shut_out(self, name: str) -> bool:
        """Whether the subject of this user is denied: with it every login of theirs, for good."""
        return not self.denied.isdisjoint(login_identities(name))

    def key_status(self, record: KeyRecord, now: float) -> str:
        """active, expired, suspended (also with its owner) or revoked: what the gate would say first."""
        status = record.status(now)
        waits = self.unconfirmed_epoch is not None or self._is_orphaned(record)
        return "suspended" if status != "revoked" and waits else status

    def put_user(self, record: UserRecord) -> None:
        """Make a user known, or known anew after a change; the keys that they own with them."""
        self.users[record.name] = record
        for key_id in self.keys_of(record.name):
            self.put_key(self.keys[key_id])

    def keys_of(self, name: str) -> frozenset[str]:
        """The ids of the keys that a user owns."""
        return frozenset(self._owned.get(name, ()))

    def put_service_token(self, record: ServiceTokenRecord) -> None:
        """Make a service token known, or known anew after a rotation."""
        before = self.service_tokens.get(record.token_id)
        for old in before.digests if before else ():
            if old not in record.digests:
                self._services.pop(old, None)
                self.ends[Identity.of_service_secret(old)] = 0.0
        self.service_tokens[record.token_id] = record
        self._services[record.digest] = service_caller(record, record.digest, None)
        for each in record.replaced:
            self._services[each.digest] = service_caller(record, each.digest, each.until)
            self.ends[Identity.of_service_secret(each.digest)] = each.until

    def find_service_token(self, token_digest: bytes) -> Caller | None:
        """The caller that a service token speaks for, good or not; None if none has this digest."""
        return self._services.get(token_digest)

    def deny(self, identities: Iterable[Identity]) -> None:
        """From here on nothing that answers to one of these gets in; the keys of a user among them rest."""
        names = set(identities)
        for name in names:
            self._derived.pop(name, None)
        self.denied |= names
        for family_id in self.families_of(names):
            self._deny_members(family_id)
        self._is_scoped = self._is_scoped or any(name.kind in SCOPES for name in names)
        if any(name.kind in SUBJECTS for name in names):
            for owner in filter(self.is_shut_out, self._owned):
                self.suspended.update(map(Identity.of_key, self._owned[owner]))

    def _deny_members(self, family_id: Identity) -> None:
        self.denied.add(family_id)
        for name in self.families[family_id].members - self.denied:
            self.denied.add(name)
            self._derived[name] = family_id

    def is_named(self, identity: Identity) -> bool:
        """Whether this very name is denied, not only as a member of its family."""
        return identity in self.denied and identity not in self._derived

    def join(self, family_id: Identity, started: float, until: float, identities: Iterable[Identity]) -> None:
        """Tokens with these names came of one by refreshing: a denial of one is one of all, from here on (contract
        10.5). A signing key among them denies the family and is not denied with it. Times: store.refreshes.Family.
        """
        names = set(identities)
        family = self.families.setdefault(family_id, Family(started, until, set()))
        family.until = max(family.until, until)
        family.members |= {name for name in names if name.kind in TOKENS}
        names |= widen(names)
        for name in names | {family_id}:
            self._families_of.setdefault(name, set()).add(family_id)
        # What is denied only as a member of another family says nothing of this one.
        if family_id in self.denied or any(map(self.is_named, names)):
            self._deny_members(family_id)

    def families_of_caller(self, caller: Caller) -> frozenset[Identity]:
        """The families of the token that made this caller: by its text; and by its jti where a key pair of ours signed
        it, as nobody else gives one. Other names somebody else may have given to another token."""
        names = [name for name in caller.identities if name.kind is Kind.TOKEN]
        if caller.epoch is not None and not caller.signed_by.startswith("HS256:"):
            names += [name for name in caller.identities if name.kind is Kind.JTI]
        return self.families_of(names)

    def made_by(self, identities: Iterable[Identity]) -> frozenset[Identity]:
        """The names of the keys and service tokens that credentials of these names have made, and of those that these
        have made; what came of the same token by refreshing counts as one."""
        makers, found = set(self.with_members(identities)), set[Identity]()
        made = [(Identity.of_key(each.key_id), each.made_by | widen(each.made_by)) for each in self.keys.values()]
        made += [(Identity.of_service_token(each.token_id), each.made_by) for each in self.service_tokens.values()]
        while fresh := {name for name, by in made if name not in found and not makers.isdisjoint(by)}:
            found |= fresh
            makers |= fresh
        return frozenset(found)

    def families_of(self, identities: Iterable[Identity]) -> frozenset[Identity]:
        """The families that a denial of these names is one of."""
        if not self.families:
            return frozenset()
        return frozenset(each for name in identities for each in self._families_of.get(name, ()))

    def with_members(self, identities: Iterable[Identity]) -> frozenset[Identity]:
        """These names, and those of everything that their families are made of."""
        names = frozenset(identities)
        return names.union(*(self.families[each].members for each in self.families_of(names)))

    def forget(self, identities: Iterable[Identity], families: Iterable[Identity] = ()) -> None:
        """Whatever answers to these ended long ago, and so did every token of these families."""
        for family_id in families:
            family = self.families.pop(family_id, None)
            for name in family.members if family else ():
                if self._derived.get(name) == family_id:
                    del self._derived[name]
                    self.denied.discard(name)
        gone = set(families)
        if gone:
            left = {name: found - gone for name, found in self._families_of.items()}
            self._families_of = {name: found for name, found in left.items() if found}
        self.denied.difference_update(identities)

    def cut_off(self, scope: Identity, before: float, own_before: float | None = None, epoch: int = 0) -> None:
        """From here on no token of this scope gets in that was issued at `before` (Unix seconds) or earlier; of edged's
        own none that is older than `epoch`, or was issued at `own_before` or earlier.

        Lines that are drawn for one scope, and those of several that a token is within, combine by maximum.
        """
        self.cut_offs[scope] = max(before, self.cut_offs.get(scope, before))
        self.epochs[scope] = max(epoch, self.epochs.get(scope, 0))
        if own_before is not None:
            self.own_cut_offs[scope] = max(own_before, self.own_cut_offs.get(scope, own_before))

    def cut_off_provisionally(self, scope: Identity, second: float, epoch: int) -> None:
        """The same up to a second of this boot: foreign tokens are compared with what the clock makes of it, each time,
        as their `exp` is compared with what it says."""
        self.provisional[scope] = max(second, self.provisional.get(scope, second))
        self.epochs[scope] = max(epoch, self.epochs.get(scope, 0))

    def lower(self, scope: Identity, now: float) -> None:
        """No line of this scope was drawn later than `now`, Unix seconds."""
        for lines in (self.cut_offs, self.own_cut_offs):
            if scope in lines:
                lines[scope] = min(now, lines[scope])

    def next_epoch(self) -> int:
        """Raise the counter: what edged issues from here on is told from what it issued before. The new value."""
        self.epoch += 1
        return self.epoch

    def find_key(self, key_digest: bytes) -> Caller | None:
        """The caller that a key speaks for, good or not; None if no key has this digest."""
        return self._callers.get(key_digest)

    def current(self, caller: Caller) -> Caller:
        """The caller as its credential makes it now: a key may have been given other rights since it was looked at."""
        if caller.parent is not None:
            parent = self.current(caller.parent)
            return caller if parent is caller.parent else replace(caller, parent=parent, expires=parent.expires)
        if caller.credential_id in self._changed and caller.method == "api_key":
            for name in caller.identities:
                if (fresh := self._by_secret.get(name)) is not None:
                    return fresh
        return caller

    def decide(self, caller: Caller | None, capability: str, resource: Resource = NOTHING, *, now: float) -> Decision:
        """credentials.decision.decide for the caller as it is now: a token that a key issued can do at most what that
        key may now. `now`: Unix seconds."""
        if caller is None:
            return decide(caller, capability, resource, now=now)
        decision = decide(self.current(caller), capability, resource, now=now)
        if not caller.issued_by or not decision.allowed:
            return decision
        for limit in self._issuers_of(caller):
            if not (of_key := decide(limit, capability, resource, now=now)).allowed:
                return of_key
        return decision

    def limit(self, caller: Caller) -> Caller:
        """The caller with no more than those who issued it may do now."""
        for issuer in self._issuers_of(caller):
            caller = narrow(caller, issuer)
        return caller

    def _issuers_of(self, caller: Caller) -> Iterator[Caller]:
        """The keys that issued this caller's token, as callers."""
        named = (self.keys.get(each.value) for each in caller.issued_by if each.kind is Kind.KEY)
        for record in filter(None, named):
            yield self.caller_of(record, record.digest, None)

    def is_denied(self, caller: Caller) -> bool:
        """Whether a revocation hits this caller."""
        if caller.is_named_in(self.denied):
            return True
        if caller.epoch is not None and self._is_left_behind(caller, caller.epoch):
            return True
        return (self._is_scoped or bool(self.cut_offs) or bool(self.provisional)) and self._is_cut_off(caller)

    def is_suspended(self, caller: Caller) -> bool:
        """Whether this caller's credential is to wait."""
        if self.unconfirmed_epoch is not None and self._awaits_confirmation(caller, self.unconfirmed_epoch):
            return True
        users = self._users_behind(caller) if caller.epoch is not None else ()
        if users and any(user.disabled_at is not None for user in users):
            return True
        return caller.is_named_in(self.suspended)

    def _awaits_confirmation(self, caller: Caller, epoch: int) -> bool:
        """Whether this credential may have been revoked in the time that the trust database has lost."""
        if caller.parent is not None:
            return self._awaits_confirmation(caller.parent, epoch)
        if caller.method in ("peercred", "internal"):
            return False
        return caller.method != "jwt_local" or caller.epoch is None or caller.epoch < epoch

    def _is_left_behind(self, caller: Caller, epoch: int) -> bool:
        """Whether one of our own tokens is of, or was issued by, a user who was deleted, or may do less since, or has a
        new password."""
        users = self._users_behind(caller)
        return bool(users) and any(user.deleted_at is not None or epoch < user.epoch for user in users)

    def _users_behind(self, caller: Caller) -> Sequence[UserRecord]:
        """The users whom one of our own tokens is bound to: whose it is, and who issued it."""
        user = self.users.get(caller.subject)
        found = () if user is None else (user,)
        if not caller.issued_by:
            return found
        issuers = (self.users.get(each.value) for each in caller.issued_by if each.kind is Kind.USER)
        return (*found, *filter(None, issuers))

    def _is_cut_off(self, caller: Caller) -> bool:
        scopes = scopes_of(caller)
        if not self.denied.isdisjoint(scopes):
            return True
        lines = self.cut_offs
        if caller.epoch is not None:
            if any(caller.epoch < self.epochs.get(scope, 0) for scope in scopes):
                return True
            lines = self.own_cut_offs
        drawn = [lines[scope] for scope in scopes if scope in lines]
        if self.provisional and caller.epoch is None:
            drawn += [self.place(self.provisional[scope]) for scope in scopes if scope in self.provisional]
        if not drawn:
            return False
        issued = caller.claims.get("iat")
        # Nobody knows when a token without `iat` was issued, so that no line can be shown to lie before it.
        return not isinstance(issued, (int, float)) or issued <= max(drawn)

    def has_ended(self, caller: Caller, now: float) -> bool:
        """Whether the secret that this caller showed was replaced and its grace is over. `now`: Unix seconds."""
        return bool(self.ends) and any(self.ends.get(name, now + 1) <= now for name in caller.identities)

    def end_of(self, caller: Caller) -> float | None:
        """When this caller's credential ends, Unix seconds, the grace of a rotated secret included; None: never."""
        ends = [self.ends[name] for name in caller.identities if name in self.ends] if self.ends else []
        return min(ends, default=None) if caller.expires is None else min([caller.expires, *ends])

    def new_secret(self, path: str, action: str, uses: int | None = 1) -> str:
        """A password for one child: `action` (publish, read, api) on `path`; gone after `uses` accepted questions."""
        secret = secrets.token_urlsafe(24)
        self._children[digest(secret)] = ChildSecret(path, action, uses)
        return secret

    def drop_secret(self, secret: str) -> None:
        """The child has ended: its password is worth nothing."""
        self._children.pop(digest(secret), None)

    def use_secret(self, secret: str, path: str, action: str) -> bool:
        """Whether this is a child's password for this; an accepted use may burn it."""
        key = digest(secret)
        child = self._children.get(key)
        if child is None or child.path != path or child.action != action:
            return False
        if child.uses is not None:
            child.uses -= 1
            if child.uses <= 0:
                del self._children[key]
        return True


def login_identities(name: str) -> tuple[Identity, ...]:
    """By which names a revocation of a subject hits every login of a user (`scopes_of`)."""
    written = login_subject(name)
    of_user, of_subject = Identity.of_user, Identity.of_subject
    return of_user(name), of_user(written), of_subject("", name), of_subject("", written)


def scopes_of(caller: Caller) -> tuple[Identity, ...]:
    """What a caller is within if a token made it, from what its claims say; nothing for every other caller."""
    if not caller.claims:
        return ()
    issuer, written = caller.claims.get("iss"), caller.claims.get("sub")
    named = [Identity.of_issuer(issuer)] if isinstance(issuer, str) else []
    if isinstance(written, str) and written != caller.subject:
        named += [Identity.of_user(written), Identity.of_subject(caller.issuer, written)]
    for maker in caller.issued_by:
        if maker.kind is Kind.USER:
            named += [maker, Identity.of_subject("", maker.value)]
        elif maker.kind in (Kind.MAKER, Kind.OLD_MAKER):
            named.append(Identity.of_user(maker.name))
            if maker.issuer is not None:
                named.append(Identity.of_subject(maker.issuer, maker.name))
                # What a revoked issuer's token has issued ends with it.
                named.append(Identity.of_issuer(maker.issuer))
    return (ALL, Identity.of_user(caller.subject), Identity.of_subject(caller.issuer, caller.subject), *named)


def caller_of(record: KeyRecord, key_digest: bytes, expires: float | None) -> Caller:
    """The caller that one secret of a key speaks for until `expires` (Unix seconds, None: no end)."""
    roles = frozenset({canonical_role(record.role)})
    whole, single = compute(roles, record.permissions, has_streams=record.streams is not None)
    identity = Identity.of_key(record.key_id)
    return Caller(
        method="api_key",
        subject=str(identity),
        name=record.name,
        roles=roles,
        capabilities=whole,
        grants=single,
        cameras=name_cameras(record.camera_access),
        streams=record.streams,
        expires=expires,
        identities=frozenset({identity, Identity.of_secret(key_digest)}),
        credential_id=record.key_id,
        permissions=record.permissions or (),
    )
