"""API keys: list, show, change, suspend, resume and revoke them (contract 5.1, 10.1)."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edged.clock import iso, iso_or_none
from edged.credentials.api_keys import KeyRecord, key_caller
from edged.credentials.callers import Caller
from edged.credentials.identities import Identity, format_all
from edged.credentials.roles import canonical_role
from edged.errors import InvalidParams
from edged.operations.camera_names import resolve_rights
from edged.operations.catalogue import OperationCall, operation
from edged.operations.effects import list_effective, list_without_effect
from edged.operations.makers import Ids, deny_made
from edged.operations.pages import FIRST, NextCursor, PageParams, Place, Rows, make_page, sort_rows
from edged.operations.params import read_time
from edged.operations.rest import delete, get, patch, post
from edged.operations.rights import Grantor, Role, StreamAccess, read_names, read_streams, show_streams
from edged.operations.services import Services
from edged.store.usage import Tally

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
#: A hundred years; this also refuses nan and infinity.
MOST_DAYS: Final = 36500
Days = Annotated[float, msgspec.Meta(gt=0, le=MOST_DAYS)]
Status = Literal["active", "expired", "suspended", "revoked"]
_DAY: Final = 86400.0


class ListKeysParams(PageParams, frozen=True, kw_only=True):
    """Only keys of this role, this status, this owner, or that were not used for so many days."""

    role: Role | None = None
    status: Status | None = None
    unused_days: Annotated[float, msgspec.Meta(ge=0, le=MOST_DAYS, description="a number of days")] | None = None
    owner: str | None = None


class KeyItem(msgspec.Struct, frozen=True):
    """An API key without its secret; times ISO 8601.

    `permissions`, `camera_access` and `streams` are as given; `effective_permissions` is what the key may do now, also
    limited by its `owner`; `without_effect` are permissions, cameras and streams without effect. `usage_count` counts
    authentications, `last_used` is the last one or the last moment of an active session, up to a minute late, None if
    there was none. A key is suspended while its owner is disabled, deleted or revoked. `made_by`: identities of the
    credential that created it (`key:<id>`, `token:<SHA-256>`, …).
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
    keys: Rows[KeyItem]
    next_cursor: NextCursor = UNSET


@operation("keys:admin", rest=get("/api/keys", root_may=True), counted_as="api_keys")
async def list_keys(call: OperationCall, params: ListKeysParams) -> KeyList:
    """All keys, newest last."""
    services, now = call.services, call.services.clock.now()
    role = canonical_role(params.role) if params.role else None

    uses: dict[str, Tally] = {}

    def find_use(record: KeyRecord) -> Tally | None:
        return uses.get(record.key_id) or services.usage.find(record.key_id)

    def is_wanted(record: KeyRecord) -> bool:
        return (
            role in (None, record.role)
            and params.status in (None, services.ledger.key_status(record, now))
            and params.owner in (None, record.owner)
            and (params.unused_days is None or _last_use(record, find_use(record)) <= now - params.unused_days * _DAY)
        )

    async def load(after: Place | None, count: int) -> list[KeyRecord]:
        nonlocal uses
        revoked = await services.api_keys.load_revoked(after or FIRST, count, role, params.owner)
        uses = await services.usage.find_all([record.key_id for record in revoked])
        return revoked

    place = attrgetter("created_at", "key_id")
    records = sort_rows(services.ledger.keys.values(), "created_at", place)
    rows, cursor = await make_page(
        call, records, place, lambda record: _show(record, find_use(record), services), limit=params.limit,
        cursor=params.cursor, is_wanted=is_wanted, load=load if params.status in (None, "revoked") else None,
    )  # fmt: skip
    return KeyList(rows, cursor)


class KeyParams(msgspec.Struct, frozen=True):
    key_id: str


@operation("self", rest=get("/api/keys/{key_id}", root_may=True), counted_as="api_keys")
async def get_key(call: OperationCall, params: KeyParams) -> KeyItem:
    """One key: any with keys:admin, otherwise only the key that calls."""
    authorize_own(call, params.key_id)
    record = await call.services.api_keys.get(params.key_id)
    uses = await call.services.usage.find_all([params.key_id])
    return _show(record, uses.get(params.key_id), call.services)


class UpdateKeyParams(msgspec.Struct, frozen=True):
    """Members that are given change, the others stay. null removes a restriction: no end, all of the role, every
    camera, no owner."""

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
    """Change the name, rights, owner or end of a key; in force for the next call of every session of that key.

    Whoever has keys:admin may narrow any key; a change that widens a key needs the right to create such a key.
    """
    params = resolve_rights(params, call.services.cameras)
    changes = _read_changes(params, call.services.clock.now())
    if not changes:
        raise InvalidParams("nothing to change", hint="give one of its rights, its name, owner or end")

    authority, grantor = call.authority("keys:admin"), Grantor(call)

    def check(before: KeyRecord, after: KeyRecord) -> None:
        # Checked right before the commit: the rights of the caller or the key may have changed meanwhile.
        authority.check()
        if not _is_narrower(before, after):
            grantor.refuse_widening(after.role, after.permissions, after.camera_access, after.streams)

    record = await call.services.api_keys.update(authority, params.key_id, changes, check)
    return _show(record, call.services.usage.find(record.key_id), call.services)


@operation("keys:admin", rest=post("/api/keys/{key_id}/suspend", root_may=True), counted_as="api_keys")
async def suspend_key(call: OperationCall, params: KeyParams) -> KeyItem:
    """Refuse a key and end its sessions until it is resumed; in force at once, durable before this answers.
    Idempotent."""
    record = await call.services.api_keys.suspend(params.key_id, by=call.session.id)
    return _show(record, call.services.usage.find(record.key_id), call.services)


@operation("keys:admin", rest=post("/api/keys/{key_id}/resume", root_may=True), counted_as="api_keys")
async def resume_key(call: OperationCall, params: KeyParams) -> KeyItem:
    """Accept a suspended key again. Idempotent."""
    authority = call.authority("keys:admin", partial(Grantor(call).refuse_key, params.key_id))
    authority.check()
    record = await call.services.api_keys.resume(authority, params.key_id)
    return _show(record, call.services.usage.find(record.key_id), call.services)


class RevokeKeyParams(msgspec.Struct, frozen=True):
    """`include_made`: also the keys and service tokens that were created with it, and with those."""

    key_id: str
    include_made: bool = False


class RevokedKey(msgspec.Struct, frozen=True):
    """`also_revoked`: ids of what it had created, if that was requested."""

    message: str
    key_id: str
    also_revoked: Ids = UNSET


@operation("keys:admin", rest=delete("/api/keys/{key_id}", root_may=True), counted_as="api_keys")
async def revoke_key(call: OperationCall, params: RevokeKeyParams) -> RevokedKey:
    """Revoke a key, its sessions, and the tokens that it issued; in force at once, durable before this answers.
    Idempotent."""
    services = call.services
    pending = services.api_keys.revoke(params.key_id, by=call.session.id)
    also, due = deny_made(call, {Identity.of_key(params.key_id)}, params.include_made)
    record = await pending
    await services.registrar.settle(due)
    return RevokedKey("API key revoked successfully", record.key_id, also)


def authorize_own(call: OperationCall, key_id: str) -> None:
    """Raises Refused unless this is the key that calls or the caller has keys:admin."""
    if not is_own(call, key_id):
        call.services.gate.authorize(call.session.caller, "keys:admin", call.session.transport)


def is_own(call: OperationCall, key_id: str) -> bool:
    """Whether the caller authenticated by this API key."""
    caller = call.session.caller
    return caller is not None and caller.method == "api_key" and caller.credential_id == key_id


def _is_narrower(before: KeyRecord, after: KeyRecord) -> bool:
    """Whether a change gives a key no right, and no time, that it did not have. Another owner may widen it."""
    if before.owner not in (None, after.owner):
        return False
    earlier = before.expires_at is None or (after.expires_at is not None and after.expires_at <= before.expires_at)
    return earlier and _rights(before).covers(_rights(after))


def _rights(record: KeyRecord) -> Caller:
    return key_caller(record, record.digest, record.expires_at)


def _show(record: KeyRecord, used: Tally | None, services: Services) -> KeyItem:
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
        made_by=format_all(record.made_by),
        effective_permissions=effective_of(record, services),
        without_effect=list_without_effect(record.permissions, record.camera_access, services.cameras, record.streams),
    )


def effective_of(record: KeyRecord, services: Services) -> list[str]:
    """What the key may do now, sorted."""
    # Its owner taken into account.
    return list_effective(services.ledger.caller_of(record, record.digest, None))


def _last_use(record: KeyRecord, used: Tally | None) -> float:
    return used.last_used if used else record.created_at


def _read_changes(params: UpdateKeyParams, now: float) -> dict[str, Any]:
    """The changes as fields of KeyRecord. Raises InvalidParams."""
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
        changes["expires_at"] = read_expiry(text, days, now)
    if params.permissions is not UNSET:
        changes["permissions"] = read_names("permissions", params.permissions)
    if params.camera_access is not UNSET:
        changes["camera_access"] = read_names("camera_access", params.camera_access)
    if params.streams is not UNSET:
        changes["streams"] = read_streams(params.streams)
    if params.owner is not UNSET:
        changes["owner"] = params.owner
    return changes


def read_expiry(text: str | None, days: float | None, now: float) -> float | None:
    """The end of a key in Unix seconds, None for none. Raises InvalidParams for two ends, or one that is past or
    unreadable."""
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
