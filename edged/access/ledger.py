"""What the gate knows, in memory: credentials by digest, who may do what, and what is denied.

Written by the accounts package in the registrar's task (denials at once, everything else once it is on disk), read by
the gate without waiting and by operations. A key's Caller is built when it is first asked for and kept, so that a
question costs one hash and one look-up. Of a key or a service token that is revoked on disk only 24 bytes are kept.
Its parts: access.denials, access.cut_offs, access.child_secrets, access.revoked, access.makers, access.key_counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from edged.access.child_secrets import ChildSecrets
from edged.access.cut_offs import CutOffs
from edged.access.denials import Denials
from edged.access.key_counts import KeyCounts
from edged.access.makers import Makers
from edged.access.revoked import Revoked
from edged.credentials.api_keys import KeyRecord, key_caller
from edged.credentials.callers import NOTHING, Caller, Method, Resource
from edged.credentials.decision import Decision, decide
from edged.credentials.identities import SUBJECTS, Identity, Kind, widen
from edged.credentials.service_tokens import ServiceTokenRecord, service_caller
from edged.credentials.users import UserRecord, login_identities, narrow

#: Callers of keys that are kept at a time.
_MOST_CALLERS: Final = 8192


class Ledger:
    """Facts that decide; no SQL, no clock, no waiting."""

    def __init__(self) -> None:
        self.denials = Denials()
        self.cut_offs = CutOffs()
        self.child_secrets = ChildSecrets()
        self._denied = self.denials.identities
        self._keys: dict[str, KeyRecord] = {}
        self._users: dict[str, UserRecord] = {}
        self._service_tokens: dict[str, ServiceTokenRecord] = {}
        #: Keys by id, users by name, service tokens by id; deleted users too, but no key or service token that is
        #: revoked on disk. To be read only.
        self.keys: Mapping[str, KeyRecord] = MappingProxyType(self._keys)
        self.users: Mapping[str, UserRecord] = MappingProxyType(self._users)
        self.service_tokens: Mapping[str, ServiceTokenRecord] = MappingProxyType(self._service_tokens)
        #: What is left in memory of keys and service tokens that are revoked on disk.
        self.revoked_keys = Revoked("key_")
        self.revoked_tokens = Revoked("svc_")
        self.makers = Makers()
        self._counts = KeyCounts()
        self._owned: dict[str, set[str]] = {}  # the ids of a user's keys
        self._secrets: dict[bytes, str] = {}  # the ids of API keys by the digest of each secret
        self._callers: dict[bytes, Caller] = {}  # those that were asked for, by digest
        self._services: dict[bytes, Caller] = {}  # of service tokens, by digest
        # The keys (by id) that were changed since they were made known.
        self._changed: set[str] = set()
        # The keys that are refused until they are resumed.
        self._suspended: set[Identity] = set()
        # What ends at a time, Unix seconds: replaced secrets.
        self._ends: dict[Identity, float] = {}
        #: Whether any secret was replaced, so that a credential may end sooner than it says.
        self.has_ends = False
        #: Rises with each cut-off "up to now" and each change of a user that ends tokens; edged's own tokens say at
        #: which they were made. It goes to the disk with what raised it (accounts.registrar).
        self.epoch = 0
        #: Set while the trust database is an older copy that nobody has confirmed (accounts.restores): only tokens that
        #: edged made at this epoch or later are accepted.
        self.unconfirmed_epoch: int | None = None

    def put_key(self, record: KeyRecord) -> None:
        """Make a key known, or known anew after a change."""
        before = self._keys.get(record.key_id)
        if before is not None and before.owner is not None:
            self._owned[before.owner].discard(record.key_id)
        if record.owner is not None:
            self._owned.setdefault(record.owner, set()).add(record.key_id)
        identity = Identity.of_key(record.key_id)
        if before is not None:
            self._counts.add(before, -1, rests=identity in self._suspended)
        for old in before.digests if before else ():
            self._callers.pop(old, None)
            if old not in record.digests:
                del self._secrets[old]
                # Whoever is still inside by it is inside no longer.
                self._end(Identity.of_secret(old), 0.0)
        self._keys[record.key_id] = record
        if before is None:
            self.makers.add(record.made_by)
        else:
            self._changed.add(record.key_id)
        self._secrets[record.digest] = record.key_id
        for each in record.replaced:
            self._secrets[each.digest] = record.key_id
            self._end(Identity.of_secret(each.digest), min(each.until, record.expires_at or math.inf))
        rests = record.suspended_at is not None or self._is_orphaned(record)
        (self._suspended.add if rests else self._suspended.discard)(identity)
        self._counts.add(record, 1, rests=rests)
        if record.revoked_at is not None:
            self.denials.add([identity])

    def mark_revoked(self, identities: Iterable[Identity], at: float) -> None:
        """The records of the API keys and service tokens among these say that they are revoked, since then, Unix
        seconds; their denial is what ends them (`deny`)."""
        for identity in identities:
            if identity.kind is Kind.KEY and (key := self._keys.get(identity.value)) is not None:
                self.put_key(replace(key, revoked_at=at))
            elif identity.kind is Kind.SERVICE_TOKEN and (token := self._service_tokens.get(identity.value)):
                self.put_service_token(replace(token, revoked_at=at))

    def retire(self, identities: Iterable[Identity]) -> None:
        """These are revoked on disk: of the API keys and service tokens among them nothing is kept but what tells their
        secrets from unknown ones. They stay denied, and so does whatever they issued or made."""
        for identity in identities:
            if identity.kind is Kind.KEY and (key := self._keys.get(identity.value)) is not None:
                self.revoked_keys.add(key.key_id, key.digests)
                self.drop_key(key)
            elif identity.kind is Kind.SERVICE_TOKEN:
                token = self._service_tokens.get(identity.value)
                if token is not None:
                    self.revoked_tokens.add(token.token_id, token.digests)
                    self._drop_service_token(token)

    def drop_key(self, record: KeyRecord) -> None:
        """A key is not known any more."""
        identity = Identity.of_key(record.key_id)
        for each in record.digests:
            del self._secrets[each]
            self._callers.pop(each, None)
            self._ends.pop(Identity.of_secret(each), None)
        if record.owner is not None:
            self._owned[record.owner].discard(record.key_id)
        self._changed.discard(record.key_id)
        self._counts.add(self._keys[record.key_id], -1, rests=identity in self._suspended)
        self._suspended.discard(identity)
        self.denials.forget([identity])
        self.makers.retire(identity, record.made_by)
        del self._keys[record.key_id]

    def _drop_service_token(self, record: ServiceTokenRecord) -> None:
        identity = Identity.of_service_token(record.token_id)
        for each in record.digests:
            self._services.pop(each, None)
            self._ends.pop(Identity.of_service_secret(each), None)
        self.denials.forget([identity])
        self.makers.retire(identity, record.made_by)
        del self._service_tokens[record.token_id]

    def forget_revoked(self, key_ids: Sequence[str], token_ids: Sequence[str]) -> None:
        """These API keys and service tokens were revoked and are deleted: their secrets are unknown from now on."""
        if key_ids:
            self.revoked_keys.forget(key_ids)
        if token_ids:
            self.revoked_tokens.forget(token_ids)

    def is_known(self, credential_id: str) -> bool:
        """Whether an API key or a service token of this id is in memory."""
        return credential_id in self._keys or credential_id in self._service_tokens

    def is_retired(self, identity: Identity) -> bool:
        """Whether this names an API key or a service token that is revoked on disk."""
        kind = identity.kind
        if kind is Kind.KEY:
            return identity.value in self.revoked_keys
        return kind is Kind.SERVICE_TOKEN and identity.value in self.revoked_tokens

    def is_named(self, identity: Identity) -> bool:
        """Whether this very identity is denied, not only as a member of its family."""
        return self.denials.is_named(identity) or self.is_retired(identity)

    def caller_of(self, record: KeyRecord, key_digest: bytes, expires: float | None) -> Caller:
        """The caller that a secret of such a key speaks for: it may do no more than its owner may now."""
        caller = key_caller(record, key_digest, expires)
        owner = None if record.owner is None else self._users.get(record.owner)
        return caller if owner is None else narrow(caller, owner.rights)

    def _is_orphaned(self, record: KeyRecord) -> bool:
        """Whether a key's owner is disabled, deleted or unknown, or can never log in again."""
        if record.owner is None:
            return False
        owner = self._users.get(record.owner)
        return owner is None or owner.status != "active" or self.is_shut_out(record.owner)

    def is_shut_out(self, name: str) -> bool:
        """Whether the subject of this user is denied: with it every login of theirs, for good."""
        return self.denials.has_any(login_identities(name))

    def key_status(self, record: KeyRecord, now: float) -> str:
        """active, expired, suspended (also with its owner) or revoked: what the gate would say first."""
        status = record.status(now)
        waits = self.unconfirmed_epoch is not None or self._is_orphaned(record)
        return "suspended" if status != "revoked" and waits else status

    def count_keys(self, now: float) -> Counter[str]:
        """How many API keys have each status, those that are revoked on disk among them."""
        counts = self._counts.count(now, all_rest=self.unconfirmed_epoch is not None)
        return counts + Counter(revoked=len(self.revoked_keys))

    def put_user(self, record: UserRecord) -> None:
        """Make a user known, or known anew after a change; the keys that they own with them."""
        self._users[record.name] = record
        for key_id in self.keys_of(record.name):
            self.put_key(self._keys[key_id])

    def keys_of(self, name: str) -> frozenset[str]:
        """The ids of the keys that a user owns."""
        return frozenset(self._owned.get(name, ()))

    def put_service_token(self, record: ServiceTokenRecord) -> None:
        """Make a service token known, or known anew after a rotation."""
        before = self._service_tokens.get(record.token_id)
        for old in before.digests if before else ():
            if old not in record.digests:
                self._services.pop(old, None)
                self._end(Identity.of_service_secret(old), 0.0)
        self._service_tokens[record.token_id] = record
        if before is None:
            self.makers.add(record.made_by)
        self._services[record.digest] = service_caller(record, record.digest, None)
        for each in record.replaced:
            self._services[each.digest] = service_caller(record, each.digest, each.until)
            self._end(Identity.of_service_secret(each.digest), each.until)

    def find_service_token(self, token_digest: bytes) -> Caller | None:
        """The caller that a service token speaks for, good or not; None if none has this digest."""
        caller = self._services.get(token_digest)
        if caller is None and (token_id := self.revoked_tokens.find(token_digest)) is not None:
            return _retired_caller("service_token", Identity.of_service_token(token_id))
        return caller

    def deny(self, identities: Iterable[Identity]) -> None:
        """From here on nothing that answers to one of these gets in; the keys of a user among them are suspended."""
        fresh = set(identities)
        self.denials.add(fresh)
        if any(each.kind in SUBJECTS for each in fresh):
            for owner in filter(self.is_shut_out, self._owned):
                for key_id in self._owned[owner]:
                    if (identity := Identity.of_key(key_id)) not in self._suspended:
                        self._suspended.add(identity)
                        self._counts.rest(self._keys[key_id])

    def made_by(self, identities: Iterable[Identity]) -> frozenset[Identity]:
        """The names of the keys and service tokens that credentials of these names have made, and of those that these
        have made; what came of the same token by refreshing counts as one."""
        makers, found = set(self.denials.with_members(identities)), set[Identity]()
        made = [(Identity.of_key(each.key_id), each.made_by | widen(each.made_by)) for each in self._keys.values()]
        made += [(Identity.of_service_token(each.token_id), each.made_by) for each in self._service_tokens.values()]
        made += [(name, by | widen(by)) for name, by in self.makers.retired.items()]
        while fresh := {name for name, by in made if name not in found and not makers.isdisjoint(by)}:
            found |= fresh
            makers |= fresh
        return frozenset(found - self.makers.retired.keys())

    def _end(self, identity: Identity, at: float) -> None:
        self._ends[identity] = at
        self.has_ends = True

    def is_resting(self, key_id: str) -> bool:
        """Whether a key is refused until it is resumed, or its owner is active again."""
        return Identity.of_key(key_id) in self._suspended

    def next_epoch(self) -> int:
        """Raise the counter: what edged issues from here on is told from what it issued before. The new value."""
        self.epoch += 1
        return self.epoch

    def find_key(self, key_digest: bytes) -> Caller | None:
        """The caller that a key speaks for, good or not; None if no key has this digest."""
        caller = self._callers.get(key_digest)
        if caller is not None:
            return caller
        key_id = self._secrets.get(key_digest)
        if key_id is None:
            key_id = self.revoked_keys.find(key_digest)
            return None if key_id is None else _retired_caller("api_key", Identity.of_key(key_id))
        record = self._keys[key_id]
        ends = [each.until for each in record.replaced if each.digest == key_digest]
        expires = min([*ends, record.expires_at or math.inf]) if ends else record.expires_at
        if len(self._callers) >= _MOST_CALLERS:
            self._callers.clear()
        return self._callers.setdefault(key_digest, self.caller_of(record, key_digest, expires))

    def current(self, caller: Caller) -> Caller:
        """The caller as its credential makes it now: a key may have been given other rights since it was looked at."""
        if caller.parent is not None:
            if (parent := self.current(caller.parent)) is caller.parent:
                return caller
            return dataclasses.replace(caller, parent=parent, expires=parent.expires)
        if caller.credential_id in self._changed and caller.method == "api_key":
            for each in self._keys[caller.credential_id].digests:
                if Identity.of_secret(each) in caller.identities:
                    return self.find_key(each) or caller
        return caller

    def decide(self, caller: Caller | None, capability: str, resource: Resource = NOTHING, *, now: float) -> Decision:
        """credentials.decision.decide for the caller as it is now: a token that a key issued can do at most what that
        key may now. `now`: Unix seconds."""
        if caller is None:
            return decide(caller, capability, resource, now=now)
        decision = decide(self.current(caller), capability, resource, now=now)
        token = caller.token
        if token is None or not token.issued_by or not decision.allowed:
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
        named = (self._keys.get(each.value) for each in caller.issued_by if each.kind is Kind.KEY)
        for record in filter(None, named):
            yield self.caller_of(record, record.digest, None)

    def is_denied(self, caller: Caller) -> bool:
        """Whether a revocation hits this caller."""
        if caller.is_named_in(self._denied) or self._is_of_retired(caller):
            return True
        token = caller.token
        if token is None:
            return False
        if token.epoch is not None and self._is_left_behind(caller, token.epoch):
            return True
        if self.cut_offs.is_empty and not self.denials.is_scoped:
            return False
        return not self._denied.isdisjoint(token.scopes) or self.cut_offs.hits(token)

    def _is_of_retired(self, caller: Caller) -> bool:
        """Whether a key or a service token that is revoked on disk is, made or issued this caller's credential."""
        if not self.revoked_keys and not self.revoked_tokens:
            return False
        return any(map(self.is_retired, caller.identities)) or any(map(self.is_retired, caller.issued_by))

    def is_suspended(self, caller: Caller) -> bool:
        """Whether this caller's credential is to wait."""
        if self.unconfirmed_epoch is not None and self._awaits_confirmation(caller, self.unconfirmed_epoch):
            return True
        token = caller.token
        if token is not None and token.epoch is not None:
            users = self._users_behind(caller)
            if users and any(user.disabled_at is not None for user in users):
                return True
        return caller.is_named_in(self._suspended)

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
        user = self._users.get(caller.subject)
        found = () if user is None else (user,)
        if not caller.issued_by:
            return found
        issuers = (self._users.get(each.value) for each in caller.issued_by if each.kind is Kind.USER)
        return (*found, *filter(None, issuers))

    def has_ended(self, caller: Caller, now: float) -> bool:
        """Whether the secret that this caller showed was replaced and its grace is over. `now`: Unix seconds."""
        return bool(self._ends) and any(self._ends.get(name, now + 1) <= now for name in caller.identities)

    def end_of(self, caller: Caller) -> float | None:
        """When this caller's credential ends, Unix seconds, the grace of a rotated secret included; None: never."""
        ends = [self._ends[name] for name in caller.identities if name in self._ends] if self._ends else []
        return min(ends, default=None) if caller.expires is None else min([caller.expires, *ends])


def _retired_caller(method: Method, identity: Identity) -> Caller:
    """Whom a secret that is revoked on disk speaks for: nobody who may do anything."""
    return Caller(
        method=method,
        subject=str(identity),
        roles=frozenset(),
        capabilities=frozenset(),
        cameras=frozenset(),
        identities=frozenset({identity}),
        credential_id=identity.value,
    )
