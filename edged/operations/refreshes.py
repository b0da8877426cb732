"""Refresh: a token for a token (contract 3, 5.2, 10.5)."""

from __future__ import annotations

import msgspec

from edged.clock import iso
from edged.credentials.callers import ApiKey, Caller, NoCredential, parse_credential
from edged.credentials.identities import Identity
from edged.credentials.roles import SELF
from edged.operations.catalogue import OperationCall, operation
from edged.operations.rest import post
from edged.operations.sessions import enter


class RefreshTokenParams(msgspec.Struct, frozen=True):
    """`token` (or `auth_token`) is what is to be refreshed; without it the token that this session came in by."""

    token: str | None = None
    auth_token: str | None = None


class StreamPermissions(msgspec.Struct, frozen=True):
    """Streams by name, `*` for all."""

    read: list[str]
    publish: list[str]


class RefreshedToken(msgspec.Struct, frozen=True):
    """A token's successor; `expires_in` seconds, `expires_at` ISO 8601."""

    token: str
    token_type: str
    expires_at: str
    expires_in: int
    jti: str
    permissions: StreamPermissions


@operation("none", rest=post("/api/token/refresh"))
async def refresh_token(call: OperationCall, params: RefreshTokenParams) -> RefreshedToken:
    """A new token for one that is good, or ended a few minutes ago: it says the same, and lives as long again.

    Who asks again gets the same. A session whose own token it was goes on by the new one, also if it had expired, and
    so do the streams that the token opened. Whoever holds a token may ask: it is what is shown. An API key has none: it
    is rotated, and so its holder is told.
    """
    services, session = call.services, call.session
    text = params.token if params.token is not None else params.auth_token
    own = session.caller or session.expired
    shown = text or own
    if text and isinstance(credential := parse_credential(text), ApiKey):
        shown = services.limiter.authenticate(services.gate, credential, session.peer, session.transport)
    elif not shown:
        # Nobody, who shows nothing: the gate says so, and counts it.
        shown = services.gate.authenticate(NoCredential(), session.transport)
    made = await services.refreshes.refresh(shown, session.transport)
    is_own = own is not None and (shown is own or _is_of(own, str(shown)))
    if is_own and not session.is_closed and services.gate.judge(made.caller, SELF).allowed:
        enter(call, made.caller)
    claims, now = made.caller.claims, services.clock.now()
    assert made.caller.expires is not None, "every token ends"
    return RefreshedToken(
        token=made.text,
        token_type="Bearer",  # noqa: S106 (the scheme of RFC 6750)
        expires_at=iso(made.caller.expires),
        expires_in=max(0, int(made.caller.expires - int(now))),
        jti=str(claims["jti"]),
        permissions=_streams_of(made.caller),
    )


def _is_of(caller: Caller, text: str) -> bool:
    """Whether this is the token that made this caller."""
    return Identity.of_token(text) in caller.identities


def _streams_of(caller: Caller) -> StreamPermissions:
    """What a token opens of the streams: what it names, or those of the cameras that it may see (contract 7.5)."""
    if caller.streams is not None:
        return StreamPermissions(sorted(caller.streams.read), sorted(caller.streams.publish))
    named = {capability: _reached(caller, capability) for capability in ("stream:read", "stream:publish")}
    return StreamPermissions(named["stream:read"], named["stream:publish"])


def _reached(caller: Caller, capability: str) -> list[str]:
    if capability in caller.capabilities:
        return ["*"] if caller.cameras is None else sorted(caller.cameras)
    single = {grant.rpartition(":")[2] for grant in caller.grants if grant.startswith(f"{capability}:")}
    return sorted(name for name in single if caller.sees(frozenset({name})))
