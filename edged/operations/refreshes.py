"""refresh_token: the successor of a token (contract 3, 5.2, 10.5)."""

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
    """The token to be refreshed is `token` or `auth_token`; without it the one by which this session authenticated."""

    token: str | None = None
    auth_token: str | None = None


class StreamPermissions(msgspec.Struct, frozen=True):
    """Names of streams, `*` for all."""

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
    """A new token with the claims and the life of one that is good, or expired up to five minutes ago.

    A repeated call returns the same successor. A session whose own token was refreshed goes on by the new one, also
    if the old one has expired, as do the streams that it opened. The token is credential enough. API keys are not
    refreshed but rotated, and the error says so.
    """
    services, session = call.services, call.session
    text = params.token if params.token is not None else params.auth_token
    own = session.caller or session.expired
    shown = text or own
    if text and isinstance(credential := parse_credential(text), ApiKey):
        shown = services.gate.authenticate(credential, session.peer, session.transport)
    elif not shown:
        # No credential at all: the gate refuses it and counts it.
        shown = services.gate.authenticate(NoCredential(), session.peer, session.transport)
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
    """Whether this is the token by which this caller authenticated."""
    return Identity.of_token(text) in caller.identities


def _streams_of(caller: Caller) -> StreamPermissions:
    """The streams that a token names, or those of the cameras that it may see (contract 7.5)."""
    if caller.streams is not None:
        return StreamPermissions(sorted(caller.streams.read), sorted(caller.streams.publish))
    named = {capability: _reached(caller, capability) for capability in ("stream:read", "stream:publish")}
    return StreamPermissions(named["stream:read"], named["stream:publish"])


def _reached(caller: Caller, capability: str) -> list[str]:
    if capability in caller.capabilities:
        return ["*"] if caller.cameras is None else sorted(caller.cameras)
    single = {grant.rpartition(":")[2] for grant in caller.grants if grant.startswith(f"{capability}:")}
    return sorted(name for name in single if caller.sees(frozenset({name})))
