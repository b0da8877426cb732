"""API keys: make, import, list, change, rotate, suspend, revoke (contract 5.1, 10.1).

The secret stands in the reply that made it and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edged.access.ledger import caller_of, key_identity
from edged.accounts.api_keys import ForeignKey
from edged.clock import iso, iso_or_none, read_iso
from edged.credentials import stream_names
from edged.credentials.api_keys import KeyRecord, digest
from edged.credentials.callers import Caller, Streams
from edged.credentials.decision import Reason
from edged.credentials.roles import ROLES, SELF, canonical_role, compute, is_permission, name_cameras
from edged.errors import Denied, InvalidParams
from edged.operations.camera_names import resolve_rights
from edged.operations.catalogue import OperationCall, operation
from edged.operations.effects import list_effective, list_without_effect
from edged.operations.makers import Ids, deny_made
from edged.operations.rest import create, delete, get, patch, post
from edged.operations.services import Services

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Role = Literal["monitor", "viewer", "operator", "user", "admin"]
#: A hundred years; so, too, no nan and nothing infinite.
MOST_DAYS: Final = 36500
Days = Annotated[float, msgspec.Meta(gt=0, le=MOST_DAYS)]
Status = Literal["active", "expired", "suspended", "revoked"]
_DAY: Final = 86400.0
_MOST: Final = 64
_LONGEST: Final = 128
#: Keys of another service that one call takes.
MOST_IMPORTED: Final = 100
#: What a guesser would need a lifetime for has at least so many characters; no issuer of keys makes longer ones.
_SHORTEST_SECRET: Final = 20
_LONGEST_SECRET: Final = 256


class StreamAccess(msgspec.Struct, frozen=True):
    """Names of MediaMTX paths that may be read and published to; `cam*` for all that begin so, `*` for all (contract
    7.5, C-32)."""

    read: list[str] = []
    publish: list[str] = []


class CreateKeyParams(msgspec.Struct, frozen=True):
    """`expires_at` ISO 8601 or `expires_in_days`; neither means no end. `permissions` narrow the role.

    `streams` names the streams; without it they are those of the cameras that the key may see. `owner` is a user, more
    than whom the key can never do; without it whoever makes it, if a user's login or key does; null: nobody.
    """

    name: Name
    role: Role
    expires_at: str | None = None
    expires_in_days: Days | None = None
    permissions: list[str] | None = None
    camera_access: list[str] | None = None
    streams: StreamAccess | None = None
    owner: str | UnsetType | None = UNSET


class NewKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """The only reply that ever holds this secret. `effective_permissions` is what the key may do now, where that is not
    all that its role may; `without_effect` words of its rights that give nothing."""

    key_id: str
    api_key: str
    name: str
    role: str
    created_at: str
    expires_at: str | None = None
    owner: str | None = None
    effective_permissions: list[str] | None = None
    without_effect: list[str] = []


@operation("keys:admin", rest=create("/api/keys", root_may=True), counted_as="api_keys")
async def create_key(call: OperationCall, params: CreateKeyParams) -> NewKey:
    """Make an API key. It is durable before this answers."""
    params = resolve_rights(params, call.services.cameras)
    streams = read_streams(params.streams)
    refuse = partial(Giver(call).refuse_widening, params.role, params.permissions, params.camera_access, streams)
    refuse()
    record, secret = await call.services.api_keys.create(
        call.authority("keys:admin", refuse),
        name=params.name,
        role=canonical_role(params.role),
        expires_at=_read_expiry(params.expires_at, params.expires_in_days, call.services.clock.now()),
        permissions=read_names("permissions", params.permissions),
        camera_access=read_names("camera_access", params.camera_access),
        streams=streams,
        owner=_find_owner(call) if params.owner is UNSET else params.owner,
    )
    return NewKey(
        key_id=record.key_id,
        api_key=secret,
        name=record.name,
        role=record.role,
        created_at=iso(record.created_at),
        expires_at=iso_or_none(record.expires_at),
        owner=record.owner,
        effective_permissions=None if (may := _effective(record, call.services)) == sorted(ROLES[record.role]) else may,
        without_effect=list_without_effect(record.permissions, record.camera_access, call.services.cameras),
    )


def _find_owner(call: OperationCall) -> str | None:
    """Whose a new key is unless they say otherwise: the user by whose login or key it is made (contract 10.18), or who
    issued the token by which it is made."""
    caller, ledger = call.session.caller, call.services.ledger
    assert caller is not None, "the gate lets nobody ask this without a caller"
    names = {f"key:{caller.credential_id}"} if caller.method == "api_key" else set(caller.issued_by)
    if caller.epoch is not None and caller.subject in ledger.users:
        return caller.subject
    users = {name.removeprefix("user:") for name in names if name.startswith("user:")} & ledger.users.keys()
    keys = filter(None, (ledger.keys.get(name.removeprefix("key:")) for name in names))
    return min(users | {key.owner for key in keys if key.owner is not None}, default=None)


class ListKeysParams(msgspec.Struct, frozen=True):
    """Only keys of this role, this status, this owner, or unused for so many days: neither shown nor inside by them."""

    role: Role | None = None
    status: Status | None = None
    unused_days: Annotated[float, msgspec.Meta(ge=0, le=MOST_DAYS, description="a number of days")] | None = None
    owner: str | None = None


class KeyItem(msgspec.Struct, frozen=True):
    """What may be told of a key; times ISO 8601. `effective_permissions` is what it may do now, `without_effect` words
    of its rights that give nothing. `usage_count` is how often it was shown, `last_used` when it was last,
    or when somebody was last inside by it, a minute behind at most; None if it never was. What is said of its rights is
    what it was given: it can do no more of that than its `owner`, and is suspended while they are disabled, deleted or
    revoked for good. `made_by`: the credential that made it, by its names (`key:<id>`, `token:<SHA-256>`, …).
    """

    key_id: str
    name: str
    role: str
    created_at: str
    expires_at: str | None
    last_used: str | None
    usage_count: int
    status: str
    permissions: list[str] | None = None
    camera_access: list[str] | None = None
    streams: StreamAccess | None = None
    owner: str | None = None
    made_by: list[str] = []
    effective_permissions: list[str] = []
    without_effect: list[str] = []


class KeyList(msgspec.Struct, frozen=True):
    keys: list[KeyItem]


@operation("keys:admin", rest=get("/api/keys", root_may=True), counted_as="api_keys")
def list_keys(call: OperationCall, params: ListKeysParams) -> KeyList:
    """All keys, newest last."""
    services, now = call.services, call.services.clock.now()
    records = sorted(services.ledger.keys.values(), key=lambda record: record.created_at)
    role = canonical_role(params.role) if params.role else None
    items = [
        _show(record, services)
        for record in records
        if role in (None, record.role)
        and params.status in (None, services.ledger.key_status(record, now))
        and params.owner in (None, record.owner)
        and (params.unused_days is None or _last_use(record, services) <= now - params.unused_days * _DAY)
    ]
    return KeyList(keys=items)


class KeyParams(msgspec.Struct, frozen=True):
    key_id: str


@operation("self", rest=get("/api/keys/{key_id}", root_may=True), counted_as="api_keys")
def get_key(call: OperationCall, params: KeyParams) -> KeyItem:
    """One key: any for an administrator, otherwise only the key that asks."""
    _authorize_own(call, params.key_id)
    return _show(call.services.api_keys.find(params.key_id), call.services)


class RotateKeyParams(msgspec.Struct, frozen=True):
    """For `grace_seconds` both secrets work; 0 ends the old one at once."""

    key_id: str
    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * _DAY)] = 3600.0


class RotatedKey(msgspec.Struct, frozen=True):
    """The same key with a new secret, under both names that clients read (contract C-25)."""

    key_id: str
    api_key: str
    new_api_key: str
    name: str
    role: str
    created_at: str
    rotated_at: str
    previous_valid_until: str


@operation("self", rest=post("/api/keys/{key_id}/rotate", root_may=True), counted_as="api_keys")
async def rotate_key(call: OperationCall, params: RotateKeyParams) -> RotatedKey:
    """Give a key a new secret: any key for an administrator, otherwise only the key that asks, by its newest secret.

    One that was replaced, perhaps because it leaked, does not take the key over.
    """
    _authorize_own(call, params.key_id)
    api_keys = call.services.api_keys
    # Whoever rotates a key holds it from then on; it holds itself already, though its owner may let it do less.
    if _is_own(call, params.key_id):
        authority, shown = call.authority(SELF), _shown_secret(call)
    else:
        authority, shown = call.authority("keys:admin", partial(Giver(call).refuse_key, params.key_id)), None
    authority.check()
    record, secret = await api_keys.rotate(authority, params.key_id, params.grace_seconds, shown=shown)
    assert record.rotated_at is not None
    assert record.previous_valid_until is not None
    return RotatedKey(
        key_id=record.key_id,
        api_key=secret,
        new_api_key=secret,
        name=record.name,
        role=record.role,
        created_at=iso(record.created_at),
        rotated_at=iso(record.rotated_at),
        previous_valid_until=iso(record.previous_valid_until),
    )


class UpdateKeyParams(msgspec.Struct, frozen=True):
    """What is to change; what is left out stays. null lifts a restriction: no end, all of the role, every camera, no
    owner."""

    key_id: str
    name: Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires_at: str | UnsetType | None = UNSET
    expires_in_days: Days | UnsetType = UNSET
    permissions: list[str] | UnsetType | None = UNSET
    camera_access: list[str] | UnsetType | None = UNSET
    streams: StreamAccess | UnsetType | None = UNSET
    owner: str | UnsetType | None = UNSET


@operation("keys:admin", rest=patch("/api/keys/{key_id}", root_may=True), counted_as="api_keys")
async def update_key(call: OperationCall, params: UpdateKeyParams) -> KeyItem:
    """Change what a key is called and may do; in force for the next call of every session of that key.

    Whoever may administer keys may narrow any; a key that comes out of it able to do more than before is one that
    the caller could have made.
    """
    params = resolve_rights(params, call.services.cameras)
    changes = _read_changes(params, call.services.clock.now())
    if not changes:
        raise InvalidParams("nothing to change", hint="give one of its rights, its name, owner or end")

    authority, giver = call.authority("keys:admin"), Giver(call)

    def check(before: KeyRecord, after: KeyRecord) -> None:
        # Judged right before the commit: the asker may have been narrowed meanwhile, or the key changed.
        authority.check()
        if not _is_narrower(before, after):
            giver.refuse_widening(after.role, after.permissions, after.camera_access, after.streams)

    return _show(await call.services.api_keys.update(authority, params.key_id, changes, check), call.services)


@operation("keys:admin", rest=post("/api/keys/{key_id}/suspend", root_may=True), counted_as="api_keys")
async def suspend_key(call: OperationCall, params: KeyParams) -> KeyItem:
    """Refuse a key, and end everything that it opened, until it is resumed; denied at once, durable before this
    answers. Again is fine."""
    record = await call.services.api_keys.suspend(params.key_id, by=call.session.id)
    return _show(record, call.services)


@operation("keys:admin", rest=post("/api/keys/{key_id}/resume", root_may=True), counted_as="api_keys")
async def resume_key(call: OperationCall, params: KeyParams) -> KeyItem:
    """A suspended key is good again. Again is fine."""
    authority = call.authority("keys:admin", partial(Giver(call).refuse_key, params.key_id))
    authority.check()
    return _show(await call.services.api_keys.resume(authority, params.key_id), call.services)


class ImportedKey(msgspec.Struct, frozen=True):
    """A key as another service has kept it; `source_id` is its id there, times ISO 8601."""

    source_id: Annotated[str, msgspec.Meta(max_length=_LONGEST)]
    key: str
    role: str
    name: str = ""
    created_at: str | None = None
    expires_at: str | None = None


class ImportKeysParams(msgspec.Struct, frozen=True):
    keys: Annotated[list[ImportedKey], msgspec.Meta(min_length=1, max_length=MOST_IMPORTED)]


class Imported(msgspec.Struct, frozen=True):
    """What became of one: `imported` under a new `key_id`, `known` already, or `refused`; the `reason` says why, or
    that what was imported has expired."""

    source_id: str
    status: Literal["imported", "known", "refused"]
    key_id: str | None = None
    reason: str = ""


class ImportReport(msgspec.Struct, frozen=True):
    keys: list[Imported]


@operation("keys:admin", rest=post("/api/keys/import", source="body"), counted_as="api_keys")
async def import_keys(call: OperationCall, params: ImportKeysParams) -> ImportReport:
    """Accept keys that another service has issued, whatever their form, by their SHA-256 (contract S1-33, C-24).

    All that can be taken are durable before this answers; their secrets are kept nowhere. One that has expired is taken
    as it is, so that its secret need be kept nowhere else either, whether the clock is right or not. Again is fine.
    """
    report: dict[int, Imported] = {}
    taken: dict[int, ForeignKey] = {}
    giver = Giver(call)
    for at, item in enumerate(params.keys):
        try:
            taken[at] = _read_foreign(item, call.services.clock.now())
            giver.refuse_widening(item.role, None, None)
        except InvalidParams as problem:
            report[at] = Imported(item.source_id, "refused", reason=problem.sentence)
            taken.pop(at, None)
    rules = [partial(giver.refuse_widening, role, None, None) for role in sorted({key.role for key in taken.values()})]
    outcomes = await call.services.api_keys.import_all(call.authority("keys:admin", *rules), list(taken.values()))
    for at, outcome in zip(taken, outcomes, strict=True):
        source_id = params.keys[at].source_id
        if isinstance(outcome, KeyRecord):
            has_ended = outcome.status(call.services.clock.now()) == "expired"
            report[at] = Imported(source_id, "imported", outcome.key_id, "it has expired" if has_ended else "")
        else:
            known = call.services.ledger.find_key(digest(taken[at].secret))
            report[at] = Imported(
                source_id, "known" if known else "refused", known.credential_id if known else None, outcome
            )
    return ImportReport([report[at] for at in range(len(params.keys))])


class RevokeKeyParams(msgspec.Struct, frozen=True):
    """`include_made`: also the keys and service tokens that were made with it, and with those."""

    key_id: str
    include_made: bool = False


class RevokedKey(msgspec.Struct, frozen=True):
    """`also_revoked`: ids of what it had made, if that was asked for."""

    message: str
    key_id: str
    also_revoked: Ids = UNSET


@operation("keys:admin", rest=delete("/api/keys/{key_id}", root_may=True), counted_as="api_keys")
async def revoke_key(call: OperationCall, params: RevokeKeyParams) -> RevokedKey:
    """End a key, everything that it opened, and the tokens that it issued; denied at once, durable before this answers.
    Again is fine."""
    services = call.services
    pending = services.api_keys.revoke(params.key_id, by=call.session.id)
    also, due = deny_made(call, {key_identity(params.key_id)}, params.include_made)
    record = await pending
    await services.registrar.settle(due)
    return RevokedKey("API key revoked successfully", record.key_id, also)


def _authorize_own(call: OperationCall, key_id: str) -> None:
    """Raises Refused unless this is the caller's own key, or the caller is an administrator of keys."""
    if not _is_own(call, key_id):
        call.services.gate.authorize(call.session.caller, "keys:admin", call.session.transport)


def _is_own(call: OperationCall, key_id: str) -> bool:
    caller = call.session.caller
    return caller is not None and caller.method == "api_key" and caller.credential_id == key_id


def _shown_secret(call: OperationCall) -> str:
    """The name of the very secret by which an API key came in (access.ledger.secret_identity)."""
    assert call.session.caller is not None, "only a key has a secret to show"
    return next(name for name in call.session.caller.identities if name.startswith("secret:"))


class Giver:
    """Whoever asks, as somebody who hands something on: the caller of now, whoever the session belongs to later."""

    def __init__(self, call: OperationCall) -> None:
        assert call.session.caller is not None, "the gate lets nobody ask this without a caller"
        self._caller = call.session.caller
        self._gate = call.services.gate
        self._api_keys = call.services.api_keys

    def refuse_widening(
        self,
        role: str,
        permissions: Sequence[str] | None,
        camera_access: Sequence[str] | None,
        streams: Streams | None = None,
        roles: Sequence[str] = (),
    ) -> None:
        """Nobody hands on more than they may do themselves (contract 10.1), when it is asked; `roles` are further
        ones. Raises Denied."""
        named = frozenset(map(canonical_role, (role, *roles)))
        whole, single = compute(named, permissions, has_streams=streams is not None)
        asked = Caller("api_key", "", named, whole, single, name_cameras(camera_access), streams)
        if not self._gate.current(self._caller).covers(asked):
            raise Denied(
                Reason.MISSING_SCOPE,
                "nobody can hand on more than they may do themselves",
                required=role or None,
                have=self._caller.role,
            )

    def refuse_key(self, key_id: str) -> None:
        """Whoever gets hold of a key, or brings it back, could make it as it is then. Raises Denied, NotFound."""
        held = self._api_keys.find(key_id)
        self.refuse_widening(held.role, held.permissions, held.camera_access, held.streams)


def _is_narrower(before: KeyRecord, after: KeyRecord) -> bool:
    """Whether a key can afterwards do nothing, and at no time, that it could not before. Another owner may come to be
    able to do more than the one before."""
    if before.owner not in (None, after.owner):
        return False
    earlier = before.expires_at is None or (after.expires_at is not None and after.expires_at <= before.expires_at)
    return earlier and _rights(before).covers(_rights(after))


def _rights(record: KeyRecord) -> Caller:
    return caller_of(record, record.digest, record.expires_at)


def _show(record: KeyRecord, services: Services) -> KeyItem:
    used = services.usage.find(record.key_id)
    return KeyItem(
        key_id=record.key_id,
        name=record.name,
        role=record.role,
        created_at=iso(record.created_at),
        expires_at=iso_or_none(record.expires_at),
        last_used=iso_or_none(used.last_used if used else None),
        usage_count=used.count if used else 0,
        status=services.ledger.key_status(record, services.clock.now()),
        permissions=None if record.permissions is None else list(record.permissions),
        camera_access=None if record.camera_access is None else list(record.camera_access),
        streams=show_streams(record.streams),
        owner=record.owner,
        made_by=sorted(record.made_by),
        effective_permissions=_effective(record, services),
        without_effect=list_without_effect(record.permissions, record.camera_access, services.cameras),
    )


def _effective(record: KeyRecord, services: Services) -> list[str]:
    # The ledger keeps the caller of each secret, its owner taken into account.
    known = services.ledger.find_key(record.digest)
    return list_effective(known or services.ledger.caller_of(record, record.digest, None))


def show_streams(streams: Streams | None) -> StreamAccess | None:
    """Stream rights as they were given."""
    return None if streams is None else StreamAccess(sorted(streams.read), sorted(streams.publish))


def _last_use(record: KeyRecord, services: Services) -> float:
    used = services.usage.find(record.key_id)
    return used.last_used if used else record.created_at


def read_time(member: str, text: str) -> float:
    """ISO 8601 → Unix seconds, as `read_iso`. Raises InvalidParams naming the member."""
    try:
        return read_iso(text)
    except ValueError:
        sentence = f"{member} is no ISO 8601 time"
    except OverflowError:
        sentence = f"{member} lies outside of the years 1970 to 9999"
    raise InvalidParams(sentence, hint="for example 2027-01-31T00:00:00Z")


def _read_changes(params: UpdateKeyParams, now: float) -> dict[str, Any]:
    """What is to change, as fields of KeyRecord. Raises InvalidParams."""
    changes: dict[str, Any] = {}
    if params.name is not UNSET:
        changes["name"] = params.name
    if params.role is not UNSET:
        changes["role"] = canonical_role(params.role)
    if params.expires_at is not UNSET or params.expires_in_days is not UNSET:
        if UNSET not in (params.expires_at, params.expires_in_days):
            raise _two_ends()
        text = None if params.expires_at is UNSET else params.expires_at
        days = None if params.expires_in_days is UNSET else params.expires_in_days
        changes["expires_at"] = _read_expiry(text, days, now)
    if params.permissions is not UNSET:
        changes["permissions"] = read_names("permissions", params.permissions)
    if params.camera_access is not UNSET:
        changes["camera_access"] = read_names("camera_access", params.camera_access)
    if params.streams is not UNSET:
        changes["streams"] = read_streams(params.streams)
    if params.owner is not UNSET:
        changes["owner"] = params.owner
    return changes


def _read_foreign(item: ImportedKey, now: float) -> ForeignKey:
    """Another service's key, checked. Raises InvalidParams saying what is wrong with it."""
    if not _SHORTEST_SECRET <= len(item.key) <= _LONGEST_SECRET or not item.key.isascii() or not item.key.isprintable():
        raise InvalidParams(f"its key is not {_SHORTEST_SECRET} to {_LONGEST_SECRET} printable characters")
    if canonical_role(item.role) not in ROLES:
        raise InvalidParams(f"there is no role {item.role[:_LONGEST]!r}")
    expires_at = None if item.expires_at is None else read_time("expires_at", item.expires_at)
    created_at = now if item.created_at is None else read_time("created_at", item.created_at)
    name = (item.name or item.source_id or "imported")[:100]
    return ForeignKey(item.key, name, canonical_role(item.role), min(created_at, now), expires_at)


def _read_expiry(text: str | None, days: float | None, now: float) -> float | None:
    """Unix seconds of a key's end. Raises InvalidParams for two ends, a time that is past or unreadable."""
    if days is not None and text is not None:
        raise _two_ends()
    if days is not None:
        return now + days * _DAY
    if text is None:
        return None
    until = read_time("expires_at", text)
    if until <= now:
        raise InvalidParams("expires_at lies in the past", hint="leave it out for a key without an end")
    return until


def _two_ends() -> InvalidParams:
    return InvalidParams("expires_at and expires_in_days both say when the key ends", hint="give one of them")


def read_names(member: str, names: list[str] | None) -> tuple[str, ...] | None:
    """Permissions or cameras as given, checked. Raises InvalidParams naming the first bad one."""
    if names is None:
        return None
    if len(names) > _MOST:
        raise InvalidParams(f"{member} has more than {_MOST} entries")
    for name in names:
        if not 0 < len(name) <= _LONGEST or (member == "permissions" and not is_permission(name)):
            raise InvalidParams(f"{member} entry {name[:_LONGEST]!r} is not a valid name")
    return tuple(names)


def read_streams(streams: StreamAccess | None) -> Streams | None:
    """Streams as given, checked. Raises InvalidParams naming the first bad one."""
    if streams is None:
        return None
    for name in (*streams.read, *streams.publish):
        if not 0 < len(name) <= _LONGEST or not stream_names.is_grant(name):
            raise InvalidParams(f"streams entry {name[:_LONGEST]!r} is no path's name, nor how it begins (cam*), nor *")
    if len(streams.read) + len(streams.publish) > _MOST:
        raise InvalidParams(f"streams has more than {_MOST} entries")
    return Streams(frozenset(streams.read), frozenset(streams.publish))
