"""API keys: make, list, rotate, revoke (contract 5.1). The secret stands in the reply that made it and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec

from edged.clock import iso
from edged.credentials.api_keys import KeyRecord
from edged.credentials.callers import Caller
from edged.credentials.decision import Reason
from edged.credentials.roles import canonical_role, compute, is_permission
from edged.errors import InvalidParams, NotFound, Refused
from edged.operations.catalogue import Call, operation
from edged.operations.house import House

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Role = Literal["monitor", "viewer", "operator", "user", "admin"]
_DAY: Final = 86400.0
_MOST: Final = 64
_LONGEST: Final = 128


class CreateKeyParams(msgspec.Struct, frozen=True):
    """`expires_at` ISO 8601 or `expires_in_days`; neither means no end. `permissions` narrow the role."""

    name: Name
    role: Role
    expires_at: str | None = None
    expires_in_days: Annotated[float, msgspec.Meta(gt=0, le=36500)] | None = None
    permissions: list[str] | None = None
    camera_access: list[str] | None = None


class NewKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """The only reply that ever holds this secret."""

    key_id: str
    api_key: str
    name: str
    role: str
    created_at: str
    expires_at: str | None = None


@operation("keys:admin")
async def create_key(call: Call, params: CreateKeyParams) -> NewKey:
    """Make an API key. It is durable before this answers."""
    refuse_widening(call, params.role, params.permissions, params.camera_access)
    record, secret = await call.house.registrar.create_key(
        name=params.name,
        role=canonical_role(params.role),
        expires_at=_read_expiry(params, call.house.clock.now()),
        permissions=_read_names("permissions", params.permissions),
        camera_access=_read_names("camera_access", params.camera_access),
    )
    return NewKey(
        key_id=record.key_id,
        api_key=secret,
        name=record.name,
        role=record.role,
        created_at=iso(record.created_at),
        expires_at=_iso(record.expires_at),
    )


class ListKeysParams(msgspec.Struct, frozen=True):
    """Only keys of this role, this status, or unused for so many days."""

    role: Role | None = None
    status: Literal["active", "expired", "revoked"] | None = None
    unused_days: Annotated[float, msgspec.Meta(ge=0)] | None = None


class KeyItem(msgspec.Struct, frozen=True):
    """What may be told of a key; times ISO 8601, `last_used` None if it never was."""

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


class KeyList(msgspec.Struct, frozen=True):
    keys: list[KeyItem]


@operation("keys:admin")
def list_keys(call: Call, params: ListKeysParams) -> KeyList:
    """All keys, newest last."""
    house, now = call.house, call.house.clock.now()
    records = sorted(house.ledger.keys.values(), key=lambda record: record.created_at)
    role = canonical_role(params.role) if params.role else None
    items = [
        _show(record, house)
        for record in records
        if role in (None, record.role)
        and params.status in (None, record.status(now))
        and (params.unused_days is None or _last_use(record, house) <= now - params.unused_days * _DAY)
    ]
    return KeyList(keys=items)


class KeyParams(msgspec.Struct, frozen=True):
    key_id: str


@operation("self")
def get_key(call: Call, params: KeyParams) -> KeyItem:
    """One key: any for an administrator, otherwise only the key that asks."""
    _authorize_own(call, params.key_id)
    return _show(_find(call.house, params.key_id), call.house)


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


@operation("self")
async def rotate_key(call: Call, params: RotateKeyParams) -> RotatedKey:
    """Give a key a new secret: any key for an administrator, otherwise only the key that asks."""
    _authorize_own(call, params.key_id)
    held = _find(call.house, params.key_id)
    # Whoever rotates a key holds it from then on.
    refuse_widening(call, held.role, held.permissions, held.camera_access)
    record, secret = await call.house.registrar.rotate_key(params.key_id, params.grace_seconds)
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


class RevokedKey(msgspec.Struct, frozen=True):
    message: str
    key_id: str


@operation("keys:admin")
async def revoke_key(call: Call, params: KeyParams) -> RevokedKey:
    """End a key and everything that it opened; denied at once, durable before this answers. Again is fine."""
    record = await call.house.registrar.revoke_key(params.key_id, by=call.session.id)
    return RevokedKey(message="API key revoked successfully", key_id=record.key_id)


def _authorize_own(call: Call, key_id: str) -> None:
    """Raises Refused unless this is the caller's own key, or the caller is an administrator of keys."""
    caller = call.session.caller
    if caller is None or caller.method != "api_key" or caller.credential_id != key_id:
        call.house.gate.authorize(caller, "keys:admin", call.session.transport)


def refuse_widening(
    call: Call, role: str, permissions: Sequence[str] | None, camera_access: Sequence[str] | None
) -> None:
    """Nobody hands on more than they may do themselves (contract 10.1). Raises Refused."""
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"
    roles = frozenset({canonical_role(role)})
    whole, single = compute(roles, permissions, has_streams=False)
    cameras = None if camera_access is None or "*" in camera_access else frozenset(camera_access)
    asked = Caller("api_key", "", roles, whole, single, cameras)
    if not caller.covers(asked):
        raise Refused(Reason.MISSING_SCOPE, "nobody can hand on more than they may do themselves", required=role)


def _find(house: House, key_id: str) -> KeyRecord:
    record = house.ledger.keys.get(key_id)
    if record is None:
        raise NotFound(f"no API key {key_id[:64]!r}", hint="list_keys names them", resource="key", id=key_id[:64])
    return record


def _show(record: KeyRecord, house: House) -> KeyItem:
    used = house.usage.find(record.key_id)
    return KeyItem(
        key_id=record.key_id,
        name=record.name,
        role=record.role,
        created_at=iso(record.created_at),
        expires_at=_iso(record.expires_at),
        last_used=_iso(used.last_used if used else None),
        usage_count=used.count if used else 0,
        status=record.status(house.clock.now()),
        permissions=None if record.permissions is None else list(record.permissions),
        camera_access=None if record.camera_access is None else list(record.camera_access),
    )


def _last_use(record: KeyRecord, house: House) -> float:
    used = house.usage.find(record.key_id)
    return used.last_used if used else record.created_at


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)


def _read_expiry(params: CreateKeyParams, now: float) -> float | None:
    """Unix seconds of a new key's end. Raises InvalidParams for a time that is past or unreadable."""
    if params.expires_in_days is not None:
        return now + params.expires_in_days * _DAY
    if params.expires_at is None:
        return None
    try:
        when = datetime.fromisoformat(params.expires_at)
    except ValueError:
        raise InvalidParams("expires_at is no ISO 8601 time", hint="for example 2027-01-31T00:00:00Z") from None
    until = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if until <= now:
        raise InvalidParams("expires_at lies in the past", hint="leave it out for a key without an end")
    return until


def _read_names(member: str, names: list[str] | None) -> tuple[str, ...] | None:
    """Permissions or cameras as given, checked. Raises InvalidParams naming the first bad one."""
    if names is None:
        return None
    if len(names) > _MOST:
        raise InvalidParams(f"{member} has more than {_MOST} entries")
    for name in names:
        if not 0 < len(name) <= _LONGEST or (member == "permissions" and not is_permission(name)):
            raise InvalidParams(f"{member} entry {name[:_LONGEST]!r} is not a valid name")
    return tuple(names)
