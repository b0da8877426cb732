"""Tokens: issue by a shared secret or a key pair, validate, revoke (contract 3, 10.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import structlog
from msgspec import UNSET

from edged.access.asking import asked_by
from edged.clock import iso
from edged.credentials import tokens
from edged.credentials.callers import Caller
from edged.credentials.claims import (
    FUTURE,
    LEEWAY,
    LONGEST_ID,
    LONGEST_LIFE,
    NO_SUBJECT,
    RESERVED,
    ClaimsRefused,
    read_caller,
    write_issued_by,
    write_streams,
)
from edged.credentials.decision import Reason
from edged.credentials.identities import TOKENS, Identity
from edged.credentials.roles import SELF, canonical_role
from edged.credentials.signing_keys import ALGORITHMS, Algorithm
from edged.credentials.token_warnings import MISSING, errors_of, warnings_of
from edged.credentials.tokens import SharedSecret
from edged.errors import InvalidParams, InvalidState, Unsupported
from edged.operations.camera_names import paths_of, resolve_rights
from edged.operations.catalogue import OperationCall, operation
from edged.operations.effects import list_effective, list_without_effect
from edged.operations.introspection import authorize_look, find_key
from edged.operations.makers import Ids, deny_made
from edged.operations.rest import create, get, post
from edged.operations.rights import Grantor, Role, StreamAccess, read_streams
from edged.operations.services import Services

_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_DAY: Final = 86400
#: Guide S0's own validator calls a token with more suspicious (S0-27).
_MOST_PERMISSIONS: Final = 10
_log = structlog.get_logger("tokens")


class IssueTokenParams(msgspec.Struct, frozen=True):
    """The subject, its rights, and the life in seconds (60 s to 30 days).

    `role` is viewer, or none where `roles` or only `streams` are given. `claims` are further ones, never used for
    decisions; whoami shows them. `signing_key` is RS256, ES256 or HS256, the name of a shared secret, or the kid of
    the current key pair; without it the first shared secret signs, or RS256 where there is none.
    """

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    role: Role | None = None
    roles: Annotated[list[Role], msgspec.Meta(max_length=8)] | None = None
    permissions: Annotated[list[str], msgspec.Meta(max_length=_MOST_PERMISSIONS)] | None = None
    camera_access: list[str] | None = None
    streams: StreamAccess | None = None
    signing_key: str | None = None
    claims: dict[str, Any] | None = None
    expires_in: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_LIFE)] = _DAY


class IssuedToken(msgspec.Struct, frozen=True):
    """`expires_in` seconds, `expires_at` ISO 8601. `effective_permissions` is what the token may do now,
    `without_effect` are permissions and cameras that have no effect."""

    token: str
    token_type: str
    expires_at: str
    expires_in: int
    jti: str
    effective_permissions: list[str] = []
    without_effect: list[str] = []


@operation("tokens:issue", rest=create("/api/tokens"), counted_as="tokens")
async def issue_token(call: OperationCall, params: IssueTokenParams) -> IssuedToken:
    """Sign a token with at most the rights of the caller.

    With `streams`, a MediaMTX in jwt mode that knows our JWKS admits it to exactly those.
    """
    services, caller = call.services, call.session.caller
    params = resolve_rights(params, services.cameras)
    streams, extra = read_streams(params.streams), params.claims or {}
    role = params.role or (None if streams or params.roles else "viewer")
    if taken := sorted(RESERVED & extra.keys()):
        raise InvalidParams(f"claims cannot name {taken[0]}", hint="the other members of issue_token say that")
    rights = (role or "", params.permissions, params.camera_access, streams, params.roles or ())
    authority = call.authority("tokens:issue", partial(Grantor(call).refuse_widening, *rights))
    authority.check()
    _check_subject(services, params.user_id)
    key = _choose_key(services, params.signing_key)
    epoch, now = await services.registrar.epoch(), services.clock.now()
    claims = tokens.issue_claims(
        params.user_id,
        role=role,
        now=now,
        expires_in=params.expires_in,
        permissions=params.permissions,
        camera_access=params.camera_access,
        extra={
            **extra,
            "iss": services.keyring.issuer,
            "epoch": epoch,
            **_issued_by(caller),
            **({"roles": params.roles} if params.roles else {}),
            **(write_streams(streams, paths_of(services.cameras)) if streams else {}),
        },
    )
    text = tokens.sign(claims, key) if isinstance(key, SharedSecret) else await services.keyring.sign(claims, key)
    # The caller or the subject may have been revoked while the disk was busy.
    authority.check()
    _check_subject(services, params.user_id)
    made = _check(services, text, epoch, now)
    _log.info("token_issued", jti=claims["jti"], subject=params.user_id, **asked_by())
    return IssuedToken(
        token=text,
        token_type="Bearer",  # noqa: S106 (the scheme of RFC 6750)
        expires_at=iso(int(now) + params.expires_in),
        expires_in=params.expires_in,
        jti=str(claims["jti"]),
        effective_permissions=list_effective(services.ledger.limit(made)),
        without_effect=list_without_effect(params.permissions, params.camera_access, services.cameras),
    )


def _issued_by(caller: Caller | None) -> dict[str, object]:
    """The credentials with which this token ends. Raises InvalidState after too many generations of tokens."""
    assert caller is not None, "the gate lets nobody ask this without a caller"
    try:
        names = write_issued_by(caller)
    except ClaimsRefused as problem:
        raise InvalidState(
            problem.detail, hint="have it issued by somebody who came in with a key or a login"
        ) from None
    return {"issued_by": names} if names else {}


def _check(services: Services, text: str, epoch: int, now: float) -> Caller:
    """The caller of the new token.

    Raises InvalidParams for a token that edged itself would refuse as too long, nested too deeply or of a wrong
    type, InvalidState for one that a cut-off refuses already.
    """
    try:
        made = read_caller(tokens.peek_claims(text), text, issuer="", now=now, epoch=epoch)
    except (tokens.TokenRefused, ClaimsRefused) as problem:
        raise InvalidParams(f"no such token would be good: {problem.detail}") from None
    if services.ledger.is_denied(made):
        raise InvalidState(
            "every token of so far was revoked just now, and this one with them",
            hint="ask again in a minute; what is revoked: edged revocation list",
        )
    return made


def _check_subject(services: Services, name: str) -> None:
    """Raises InvalidState for a subject whose tokens would be refused (contract 10.18)."""
    services.users.check_subject(name)
    user = services.ledger.users.get(name)
    if user is None or user.status == "active":
        return
    hint = "enable them first: edged user set NAME --enable" if user.deleted_at is None else "name another subject"
    raise InvalidState(
        f"user {name!r} is {user.status}: a token would not be good", hint=hint, resource="user", id=name
    )


def _choose_key(services: Services, wanted: str | None) -> SharedSecret | Algorithm:
    """A shared secret, or an algorithm whose current key pair signs. Raises Unsupported, NotFound, InvalidState."""
    if wanted is None:
        return services.shared_secrets[0] if services.shared_secrets else "RS256"
    for secret in services.shared_secrets:
        if wanted in (secret.name, secret.algorithm):
            return secret
    for algorithm in ALGORITHMS:
        if wanted == algorithm:
            return algorithm
    if wanted == tokens.ALGORITHM:
        raise Unsupported(
            "no shared secret configured",
            hint="openssl rand -base64 32 > FILE; chmod 600 FILE; name FILE in [auth.shared_secrets]; restart edged",
        )
    record = services.keyring.get(wanted)
    if record.state != "current":
        raise InvalidState(
            f"{record.kid} is {record.state} and does not sign",
            hint=f"{services.keyring.current(record.algorithm).kid} signs {record.algorithm}",
        )
    return record.algorithm


class ValidateTokenParams(msgspec.Struct, frozen=True):
    """A token, and what it must have: a role by its exact name or an alias, without rank, and permissions, all of
    them (contract S0-10, 7.4). An empty role or list requires nothing."""

    token: str
    required_role: str | None = None
    required_permissions: list[str] | None = None


class Validation(msgspec.Struct, frozen=True):
    """The result of guide S0; `payload` None unless valid. A token without `iat`, or without what was required, is
    not valid by that guide, though the gate may accept it."""

    valid: bool
    errors: list[str]
    warnings: list[str]
    payload: dict[str, object] | None


#: Reason, or where one reason has several texts the detail → the validator's own words (S0-9, S0-23, S0-24, S0-26).
_TEXTS: Final[Mapping[str, str]] = {
    Reason.EXPIRED: "Token has expired",
    Reason.REVOKED: "Token is blacklisted",
    Reason.NO_EXPIRY: MISSING.format("exp"),
    NO_SUBJECT: MISSING.format("sub"),
    FUTURE.format("iat"): "Token issued in the future",
    FUTURE.format("nbf"): "Invalid token: The token is not yet valid (nbf)",
}


@operation("self", rest=post("/api/tokens/validate", source="body"), counted_as="tokens")
def validate_token(call: OperationCall, params: ValidateTokenParams) -> Validation:
    """Whether a token is good: one's own for anybody, any with audit:read."""
    authorize_look(call, params.token)
    try:
        held = call.services.gate.verify_token(params.token)
    except tokens.TokenRefused as problem:
        text = _TEXTS.get(problem.reason) or _TEXTS.get(problem.detail) or f"Invalid token: {problem.detail}"
        return Validation(valid=False, errors=[text], warnings=[], payload=None)
    errors = errors_of(held.claims)
    if params.required_role and canonical_role(params.required_role) not in held.roles:
        errors.append(f"Required role '{params.required_role}' not found")
    missing = [name for name in params.required_permissions or () if name not in held.permissions]
    if missing:
        errors.append(f"Missing permissions: {missing}")
    warnings = warnings_of(held.claims, call.services.clock.now())
    return Validation(valid=not errors, errors=errors, warnings=warnings, payload=None if errors else held.claims)


class RevokeTokenParams(msgspec.Struct, frozen=True):
    """Exactly one of: the token itself, its jti, or the SHA-256 of its text in hex. A jti is that of the caller's
    issuer if it is the caller's own, else of every issuer. `include_made`: also the keys and service tokens that
    were created with it, which takes keys:admin."""

    token: str | None = None
    jti: str | None = None
    token_hash: str | None = None
    include_made: bool = False


class RevokedToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """`revoked`: it is refused from now on. False for a token that no trusted issuer has signed. `also_revoked`: ids
    of what it had created, if that was requested."""

    revoked: bool
    also_revoked: Ids = UNSET


class GetTokenUsageParams(msgspec.Struct, frozen=True):
    """At most so many tokens."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


@operation("audit:read", rest=get("/api/tokens/usage"), counted_as="tokens")
def get_token_usage(call: OperationCall, params: GetTokenUsageParams) -> dict[str, int]:
    """Uses of tokens since the start, by the SHA-256 of their text, the most used first (S0-28)."""
    return call.services.gate.token_uses.most_used(params.limit)


@operation("none", minds_caller=True, rest=post("/oauth/revoke", source="body"), counted_as="tokens")
async def revoke_token(call: OperationCall, params: RevokeTokenParams) -> RevokedToken:
    """Revoke a token, its sessions, and the tokens that were issued with it. The token itself is credential enough.
    By its jti or hash: one's own for anybody, any with tokens:revoke. Idempotent.

    An API key or a service token may stand for a token. That takes keys:admin, also for one's own key: a key may
    only read and rotate itself, since whoever found it must not lock out others who share it (10.1).
    """
    services, caller, transport = call.services, call.session.caller, call.session.transport
    if caller is not None or not params.token:
        # A credential that is shown besides must be good.
        services.gate.authorize(caller, SELF, transport)
    if len([value for value in (params.token, params.jti, params.token_hash) if value]) != 1:
        raise InvalidParams("give exactly one of token, jti, token_hash")
    if params.token and (key := find_key(services, params.token)) is not None:
        also = await _revoke_key(call, key, params) if caller is not None or not _is_over(services, key) else UNSET
        return RevokedToken(revoked=True, also_revoked=also)
    held = _read_held(services, params.token)
    if caller is None and held is None:
        return RevokedToken(revoked=False)
    identities, until = _name(params, held, caller)
    if params.token and held is None:
        # It is refused anyway, and its claims, such as a jti, may be those of another token.
        return RevokedToken(revoked=False)
    if caller is None or not _is_its_own(services, caller, identities):
        if not params.token:
            services.gate.authorize(caller, "tokens:revoke", transport)
            if params.jti:
                # With tokens:revoke a jti is that of every issuer.
                identities = frozenset({Identity.of_any_jti(params.jti[:LONGEST_ID])})
        elif not services.gate.judge(caller, "tokens:revoke").allowed and held is not None and _is_over(services, held):
            return RevokedToken(revoked=True)
    if params.include_made:
        services.gate.authorize(caller or held, "keys:admin", transport)
    due = services.registrar.deny(identities, until, call.session.id, "token", "")
    also, due_made = deny_made(call, identities, params.include_made)
    await services.registrar.settle(due)
    await services.registrar.settle(due_made)
    return RevokedToken(revoked=True, also_revoked=also)


async def _revoke_key(call: OperationCall, key: Caller, params: RevokeTokenParams) -> Ids:
    """Raises Refused without keys:admin; a key that is sent alone is its own credential."""
    call.services.gate.authorize(call.session.caller or key, "keys:admin", call.session.transport)
    revoke = call.services.service_tokens.revoke if key.method == "service_token" else call.services.api_keys.revoke
    pending = revoke(key.credential_id, by=call.session.id)
    also, due = deny_made(call, key.identities, params.include_made)
    await pending
    await call.services.registrar.settle(due)
    return also


def _is_its_own(services: Services, caller: Caller, identities: frozenset[Identity]) -> bool:
    """Whether these identify the caller's own token, or its family."""
    return identities <= caller.identities or _is_of_family(services, caller, identities)


def _read_held(services: Services, text: str | None) -> Caller | None:
    """The caller of a token, good or not; None for one that no trusted issuer has signed."""
    try:
        return services.gate.read_token(text) if text else None
    except tokens.TokenRefused:
        return None


def _is_over(services: Services, held: Caller) -> bool:
    """Whether it is revoked, or expired so long ago that it cannot be refreshed."""
    reason = services.gate.judge(held, SELF).reason
    if reason is Reason.EXPIRED and held.method == "jwt_local":
        return held.expires is not None and services.clock.now() >= held.expires + services.refreshes.grace
    return reason in (Reason.REVOKED, Reason.EXPIRED)


def _is_of_family(services: Services, caller: Caller, identities: frozenset[Identity]) -> bool:
    """Whether these identify nothing but tokens of the caller's family."""
    if caller.method != "jwt_local":
        return False
    own = services.ledger.denials.families_of_caller(caller)
    named = [services.ledger.denials.families_of([name]) for name in identities]
    return all(families and families <= own for families in named)


def _name(
    params: RevokeTokenParams, held: Caller | None, caller: Caller | None
) -> tuple[frozenset[Identity], float | None]:
    """The identities to revoke, and until when they could be used (Unix seconds, None: unknown); `held` is the
    caller of `token` if a trusted issuer has signed it. A jti is that of the issuer of `caller`. Raises
    InvalidParams."""
    if params.jti:
        return frozenset({Identity.of_jti("" if caller is None else caller.issuer, params.jti[:LONGEST_ID])}), None
    if params.token_hash:
        if not _HASH.match(params.token_hash):
            raise InvalidParams("token_hash is not 64 hex digits", hint="it is the SHA-256 of the token's text")
        return frozenset({Identity.of_token_hash(params.token_hash)}), None
    text = params.token or ""
    if held is None:
        try:
            tokens.peek_claims(text, tokens.LONGEST_OVER_HTTP)
        except tokens.TokenRefused as problem:
            raise InvalidParams(f"token cannot be read: {problem.detail}") from None
        return frozenset({Identity.of_token(text)}), None
    # Its jti is what copies of it have in common that differ in the spelling of a signature.
    names = frozenset(name for name in held.identities if name.kind in TOKENS)
    if held.expires is None:
        return names, None
    # It is remembered for as long as any token that was made with it may be good.
    return names, held.expires + LEEWAY + (LONGEST_LIFE if "tokens:issue" in held.capabilities else 0.0)
