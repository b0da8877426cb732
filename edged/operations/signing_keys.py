"""Signing keys: list, create, promote and retire the key pairs that sign tokens (contract 10.1, 10.21)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from edged.clock import iso, iso_or_none
from edged.credentials.identities import Identity
from edged.credentials.signing_keys import PUBLISHED_SECONDS, Algorithm, SigningKeyRecord, State
from edged.errors import Overloaded, StoreFailed
from edged.operations.catalogue import OperationCall, operation
from edged.operations.pages import NextCursor, PageParams, Place, Rows, make_page
from edged.operations.rest import create, get, post
from edged.operations.services import Services


class PublishedKeys(NamedTuple):
    """The JWK set, or why nobody may rely on one."""

    text: bytes
    problem: str = ""


def publish_keys(services: Services) -> PublishedKeys:
    """For verifiers, who rely on this alone."""
    keyring = services.keyring
    if services.restores.pending is not None:
        # They would accept a key that was distrusted after the copy was made.
        return PublishedKeys(b"", "which signing keys are good is not confirmed yet")
    if not any(keyring.is_published(record) for record in keyring.all()):
        return PublishedKeys(b"", "every signing key is distrusted: make a new one")
    return PublishedKeys(keyring.jwks())


class SigningKeyItem(msgspec.Struct, frozen=True):
    """A key pair without its private half; times ISO 8601, None for what has not happened.

    `published`: it is in the JWKS. `promotable_at`: from when a next key can be promoted without force.
    `needed_until`: no token that it signed is good after that. `distrusted`: tokens that it signed are refused.
    """

    kid: str
    algorithm: Algorithm
    state: State
    published: bool
    created_at: str
    promotable_at: str | None
    promoted_at: str | None
    retired_at: str | None
    needed_until: str | None
    distrusted: bool


class SigningKeyList(msgspec.Struct, frozen=True):
    keys: Rows[SigningKeyItem]
    next_cursor: NextCursor = UNSET


@operation("keys:admin", rest=get("/api/signing-keys"), counted_as="signing_keys")
async def list_signing_keys(call: OperationCall, params: PageParams) -> SigningKeyList:
    """Every key pair, newest last, without private halves."""

    def place(record: SigningKeyRecord) -> Place:
        return float(record.number), ""

    rows, cursor = await make_page(
        call, sorted(call.services.keyring.all(), key=place), place, partial(_show, services=call.services),
        limit=params.limit, cursor=params.cursor,
    )  # fmt: skip
    return SigningKeyList(rows, cursor)


class CreateSigningKeyParams(msgspec.Struct, frozen=True):
    """RS256 or ES256."""

    algorithm: Algorithm


@operation("keys:admin", rest=create("/api/signing-keys"), counted_as="signing_keys")
async def create_signing_key(call: OperationCall, params: CreateSigningKeyParams) -> SigningKeyItem:
    """Create the next key of an algorithm: published from now on, ready to be promoted in two hours."""
    return _show(await call.services.keyring.create(call.grant("keys:admin"), params.algorithm), call.services)


class PromoteSigningKeyParams(msgspec.Struct, frozen=True):
    """`force` promotes a key that some verifiers may not know yet."""

    kid: str
    force: bool = False


@operation("keys:admin", rest=post("/api/signing-keys/{kid}/promote"), counted_as="signing_keys")
async def promote_signing_key(call: OperationCall, params: PromoteSigningKeyParams) -> SigningKeyItem:
    """Sign with the next key from now on; the one before is retired, and its tokens stay good."""
    grant = call.grant("keys:admin")
    return _show(await call.services.keyring.promote(grant, params.kid, force=params.force), call.services)


class RetireSigningKeyParams(msgspec.Struct, frozen=True):
    """`distrust` is for a key that leaked: all tokens that it signed are refused, and another key is promoted at
    once."""

    kid: str
    distrust: bool = False


@operation("keys:admin", rest=post("/api/signing-keys/{kid}/retire"), counted_as="signing_keys")
async def retire_signing_key(call: OperationCall, params: RetireSigningKeyParams) -> SigningKeyItem:
    """Retire a next key, or distrust any: in force at once with the sessions of its tokens, durable before this
    answers."""
    services = call.services
    kid = services.keyring.get(params.kid).kid
    if not params.distrust:
        return _show(await services.keyring.retire(call.grant("keys:admin"), kid), services)
    denied = frozenset({Identity.of_signing_key(kid)})
    await services.registrar.revoke_token(denied, None, by=call.session.id, reason="signing_key")
    try:
        # Part of a revocation in force: done also if the caller is revoked meanwhile.
        return _show(await services.keyring.give_up(kid), services)
    except (StoreFailed, Overloaded) as problem:
        raise type(problem)(
            f"{kid} is distrusted, and that is saved; it is not retired: {problem.sentence}",
            hint=f"{problem.hint}; then ask again, so that another key signs",
            in_force=True,
        ) from problem


def _show(record: SigningKeyRecord, services: Services) -> SigningKeyItem:
    is_next = record.state == "next"
    fit = services.clock.now() + PUBLISHED_SECONDS - services.keyring.published_since(record)
    return SigningKeyItem(
        kid=record.kid,
        algorithm=record.algorithm,
        state=record.state,
        published=services.keyring.is_published(record),
        created_at=iso(record.created_at),
        promotable_at=iso(fit) if is_next else None,
        promoted_at=iso_or_none(record.promoted_at),
        retired_at=iso_or_none(record.retired_at),
        needed_until=iso_or_none(record.signs_until or None),
        distrusted=Identity.of_signing_key(record.kid) in services.ledger.denials,
    )
