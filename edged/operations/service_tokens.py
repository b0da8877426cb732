"""Service tokens: create, import, list, rotate, revoke; and acting for the user of a request (contract 10.1).

Only the reply that creates a secret contains it.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET

from edged.access.authority import Asker
from edged.clock import iso, iso_or_none
from edged.credentials.service_tokens import ServiceTokenRecord, is_user_id
from edged.errors import InvalidParams
from edged.operations.catalogue import OperationCall, operation
from edged.operations.pages import FIRST, NextCursor, PageParams, Place, Rows, make_page, sort_rows
from edged.operations.rest import create, delete, get, post
from edged.operations.services import Services
from edged.store.usage import Tally

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Networks = Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
_DAY: Final = 86400.0
#: A shorter secret could be guessed.
_SHORTEST_SECRET: Final = 20
_LONGEST_SECRET: Final = 256


class CreateServiceTokenParams(msgspec.Struct, frozen=True):
    """`networks` in CIDR (`192.0.2.0/24`, `2001:db8::/32`) or as addresses: the token is refused from elsewhere.

    Without them it is good from everywhere; behind a proxy every address is the proxy's.
    """

    name: Name
    networks: Networks | None = None


class NewServiceToken(msgspec.Struct, frozen=True):
    """The only reply with this secret."""

    token_id: str
    service_token: str
    name: str
    networks: list[str] | None
    created_at: str


@operation("keys:admin", rest=create("/api/service-tokens"), counted_as="service_tokens")
async def create_service_token(call: OperationCall, params: CreateServiceTokenParams) -> NewServiceToken:
    """Create a token with which another server may act for any user under /v1/files. Durable before this answers."""
    authority = _authorize_files(call)
    record, secret = await call.services.service_tokens.create(authority, params.name, params.networks)
    return NewServiceToken(
        token_id=record.token_id,
        service_token=secret,
        name=record.name,
        networks=_list(record.networks),
        created_at=iso(record.created_at),
    )


class ImportServiceTokenParams(msgspec.Struct, frozen=True):
    """A token that the other server has already, as text; `networks` as for a new one."""

    service_token: Annotated[str, msgspec.Meta(min_length=_SHORTEST_SECRET, max_length=_LONGEST_SECRET)]
    name: Name = "AUTH_SERVICE_TOKEN"
    networks: Networks | None = None


class ImportedServiceToken(msgspec.Struct, frozen=True):
    """`imported`, or `known` already under this id, or known and `revoked`."""

    token_id: str
    status: Literal["imported", "known", "revoked"]


@operation("keys:admin", rest=post("/api/service-tokens/import", source="body"), counted_as="service_tokens")
async def import_service_token(call: OperationCall, params: ImportServiceTokenParams) -> ImportedServiceToken:
    """Accept a token that is in use elsewhere, by its SHA-256 (contract S3-22). Idempotent."""
    authority = _authorize_files(call)
    secret = params.service_token
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise InvalidParams("service_token holds what no header can: give 20 to 256 printable characters, no spaces")
    tokens = call.services.service_tokens
    record, fresh = await tokens.import_one(authority, params.name, secret, params.networks)
    state: Literal["imported", "known", "revoked"] = "imported" if fresh else "known"
    return ImportedServiceToken(record.token_id, state if record.revoked_at is None else "revoked")


class ServiceTokenItem(msgspec.Struct, frozen=True):
    """A service token without its secret; times ISO 8601, None for what has not happened. `usage_count` and
    `last_used` as of an API key.

    `networks` None: from everywhere. `previous_valid_until`: the end of the secret before the last rotation.
    """

    token_id: str
    name: str
    status: Literal["active", "revoked"]
    networks: list[str] | None
    created_at: str
    rotated_at: str | None
    previous_valid_until: str | None
    last_used: str | None
    usage_count: int


class ServiceTokenList(msgspec.Struct, frozen=True):
    service_tokens: Rows[ServiceTokenItem]
    next_cursor: NextCursor = UNSET


@operation("keys:admin", rest=get("/api/service-tokens"), counted_as="service_tokens")
async def list_service_tokens(call: OperationCall, params: PageParams) -> ServiceTokenList:
    """All service tokens, newest last."""
    services, place = call.services, attrgetter("created_at", "token_id")
    uses: dict[str, Tally] = {}

    async def load(after: Place | None, count: int) -> list[ServiceTokenRecord]:
        nonlocal uses
        revoked = await services.service_tokens.load_revoked(after or FIRST, count)
        uses = await services.usage.find_all([record.token_id for record in revoked])
        return revoked

    def show(record: ServiceTokenRecord) -> ServiceTokenItem:
        return _show(record, uses.get(record.token_id) or services.usage.find(record.token_id), services)

    records = sort_rows(services.ledger.service_tokens.values(), "created_at", place)
    rows, cursor = await make_page(call, records, place, show, limit=params.limit, cursor=params.cursor, load=load)
    return ServiceTokenList(rows, cursor)


class RotateServiceTokenParams(msgspec.Struct, frozen=True):
    """For `grace_seconds` both secrets work; 0 ends the old one at once."""

    token_id: str
    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * _DAY)] = 3600.0


class RotatedServiceToken(msgspec.Struct, frozen=True):
    """The same token with a new secret."""

    token_id: str
    service_token: str
    name: str
    created_at: str
    rotated_at: str
    previous_valid_until: str


@operation("keys:admin", rest=post("/api/service-tokens/{token_id}/rotate"), counted_as="service_tokens")
async def rotate_service_token(call: OperationCall, params: RotateServiceTokenParams) -> RotatedServiceToken:
    """Replace the secret of a service token; the old one works for `grace_seconds`, so that no server is locked out."""
    authority = _authorize_files(call)
    record, secret = await call.services.service_tokens.rotate(authority, params.token_id, params.grace_seconds)
    assert record.rotated_at is not None
    assert record.previous_valid_until is not None
    return RotatedServiceToken(
        token_id=record.token_id,
        service_token=secret,
        name=record.name,
        created_at=iso(record.created_at),
        rotated_at=iso(record.rotated_at),
        previous_valid_until=iso(record.previous_valid_until),
    )


class ServiceTokenParams(msgspec.Struct, frozen=True):
    token_id: str


class RevokedServiceToken(msgspec.Struct, frozen=True):
    message: str
    token_id: str


@operation("keys:admin", rest=delete("/api/service-tokens/{token_id}"), counted_as="service_tokens")
async def revoke_service_token(call: OperationCall, params: ServiceTokenParams) -> RevokedServiceToken:
    """Revoke a service token, both its secrets, and the tokens for files that it issued; in force at once, durable
    before this answers. Idempotent. To replace a secret, rotate the token: that ends none of them."""
    record = await call.services.service_tokens.revoke(params.token_id, by=call.session.id)
    return RevokedServiceToken("service token revoked", record.token_id)


def act_for(call: OperationCall, user_id: str) -> None:
    """Let this call of a service token act for a user (contract 7.3.5). Raises InvalidParams."""
    if not is_user_id(user_id):
        raise InvalidParams(
            "user_id is not 1 to 128 characters of A-Z a-z 0-9 @ . _ + - without '..'",
            hint="name the user whose files it is about",
        )
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"
    call.session.caller = dataclasses.replace(caller, acts_for=user_id)


def _authorize_files(call: OperationCall) -> Asker:
    """The right to create service tokens: keys:admin, and files:admin since these reach the files of every user.
    Raises Refused."""
    authority = call.authority("keys:admin", call.authority("files:admin").check)
    authority.check()
    return authority


def _show(record: ServiceTokenRecord, used: Tally | None, services: Services) -> ServiceTokenItem:
    return ServiceTokenItem(
        token_id=record.token_id,
        name=record.name,
        status=record.status,
        networks=_list(record.networks),
        created_at=iso(record.created_at),
        rotated_at=iso_or_none(record.rotated_at),
        previous_valid_until=iso_or_none(record.previous_valid_until),
        last_used=iso_or_none(used.last_used if used else None),
        usage_count=used.count if used else 0,
    )


def _list(networks: tuple[str, ...] | None) -> list[str] | None:
    return None if networks is None else list(networks)
