"""API keys: create one, and replace its secret (contract 5.1, 10.1).

Only the reply that creates a secret contains it.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from edged.clock import iso, iso_or_none
from edged.credentials.identities import Identity, Kind
from edged.credentials.roles import ROLES, SELF, canonical_role
from edged.operations.api_keys import Days, Name, authorize_own, effective_of, is_own, read_expiry
from edged.operations.camera_names import resolve_rights
from edged.operations.catalogue import OperationCall, operation
from edged.operations.effects import list_without_effect
from edged.operations.rest import create, post
from edged.operations.rights import Grantor, Role, StreamAccess, read_names, read_streams

_DAY: Final = 86400.0


class CreateKeyParams(msgspec.Struct, frozen=True):
    """`expires_at` ISO 8601 or `expires_in_days`; neither means no end. `permissions` narrow the role.

    `streams` names the streams; without it they are those of the cameras that the key may see. `owner` is a user whose
    rights limit the key; absent: the user by whose login or key it is created, if any; null: nobody.
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
    """The only reply with this secret. `effective_permissions` is what the key may do now, absent where that is all
    that its role may; `without_effect` are permissions, cameras and streams that have no effect."""

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
    """Create an API key. It is durable before this answers."""
    params = resolve_rights(params, call.services.cameras)
    streams = read_streams(params.streams)
    refuse = partial(Grantor(call).refuse_widening, params.role, params.permissions, params.camera_access, streams)
    refuse()
    record, secret = await call.services.api_keys.create(
        call.authority("keys:admin", refuse),
        name=params.name,
        role=canonical_role(params.role),
        expires_at=read_expiry(params.expires_at, params.expires_in_days, call.services.clock.now()),
        permissions=read_names("permissions", params.permissions),
        camera_access=read_names("camera_access", params.camera_access),
        streams=streams,
        owner=_find_owner(call) if params.owner is UNSET else params.owner,
    )
    allowed = effective_of(record, call.services)
    return NewKey(
        key_id=record.key_id,
        api_key=secret,
        name=record.name,
        role=record.role,
        created_at=iso(record.created_at),
        expires_at=iso_or_none(record.expires_at),
        owner=record.owner,
        effective_permissions=None if allowed == sorted(ROLES[record.role]) else allowed,
        without_effect=list_without_effect(
            record.permissions, record.camera_access, call.services.cameras, record.streams
        ),
    )


def _find_owner(call: OperationCall) -> str | None:
    """The owner of a new key whose params name none: the user by whose login or key it is created (contract 10.18), or
    who issued the token by which it is created."""
    caller, ledger = call.session.caller, call.services.ledger
    assert caller is not None, "the gate lets nobody ask this without a caller"
    makers = {Identity.of_key(caller.credential_id)} if caller.method == "api_key" else caller.issued_by
    if caller.epoch is not None and caller.subject in ledger.users:
        return caller.subject
    users = {each.value for each in makers if each.kind is Kind.USER} & ledger.users.keys()
    keys = filter(None, (ledger.keys.get(each.value) for each in makers if each.kind is Kind.KEY))
    return min(users | {key.owner for key in keys if key.owner is not None}, default=None)


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
    """Replace the secret of a key: any key with keys:admin, otherwise only the key that calls, by its newest secret.

    A replaced secret, which may have leaked, cannot take the key over.
    """
    authorize_own(call, params.key_id)
    api_keys = call.services.api_keys
    # Whoever rotates a key holds it from then on; it holds itself already, though its owner may let it do less.
    if is_own(call, params.key_id):
        authority, shown = call.authority(SELF), _shown_secret(call)
    else:
        authority, shown = call.authority("keys:admin", partial(Grantor(call).refuse_key, params.key_id)), None
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


def _shown_secret(call: OperationCall) -> Identity:
    """The identity of the secret by which an API key authenticated."""
    assert call.session.caller is not None, "only a key has a secret to show"
    return next(each for each in call.session.caller.identities if each.kind is Kind.SECRET)
