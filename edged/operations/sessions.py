"""Who is talking to us: ping, authenticate, whoami."""

from __future__ import annotations

import msgspec

from edged.clock import iso
from edged.credentials.callers import parse_credential
from edged.errors import Refused
from edged.operations.catalogue import Call, NoParams, operation

#: What a key without an end is said to be good for (contract 3, authenticate).
_NO_END_SECONDS = 24 * 3600.0


@operation("none")
def ping(call: Call, params: NoParams) -> str:
    """Is anybody there? Needs no credential (contract C-11)."""
    return "pong"


class AuthenticateParams(msgspec.Struct, frozen=True):
    """`auth_token` or `token`, and what it is: jwt, api_key or auto."""

    auth_token: str | None = None
    token: str | None = None
    auth_type: str | None = None


class Authenticated(msgspec.Struct, frozen=True):
    """Who the session is from here on; `expires_at` ISO 8601."""

    authenticated: bool
    role: str
    roles: list[str]
    permissions: list[str]
    expires_at: str
    session_id: str
    user_id: str


_WORDS = {"viewer": ["view"], "operator": ["view", "control"], "admin": ["view", "control", "admin"]}


@operation("none")
def authenticate(call: Call, params: AuthenticateParams) -> Authenticated:
    """Bind a credential to this very session. A failed try leaves it without any (contract S0-17)."""
    session, gate = call.session, call.house.gate
    text = params.token if params.token is not None else params.auth_token
    leave(call)
    try:
        caller = gate.authenticate(parse_credential(text or "", params.auth_type or "auto"), session.transport)
    except Refused as problem:
        if not text:
            problem.hint = "send token (or auth_token) with a JWT or an API key"
        raise
    session.admission = gate.admit(caller, session.transport, session.end)
    session.caller = caller
    until = caller.expires if caller.expires is not None else call.house.clock.now() + _NO_END_SECONDS
    return Authenticated(
        authenticated=True,
        role=caller.role,
        roles=sorted(caller.roles),
        permissions=[*_WORDS.get(caller.role, []), *sorted(caller.capabilities | caller.grants)],
        expires_at=iso(until),
        session_id=session.id,
        user_id=caller.subject,
    )


def leave(call: Call) -> None:
    """The session's credential counts no more."""
    session = call.session
    if session.admission is not None:
        call.house.gate.admissions.remove(session.admission)
    session.caller, session.admission = None, None


class Whoami(msgspec.Struct, frozen=True):
    """Seed 002's answer, and what this caller may do."""

    user_id: str
    username: str
    roles: list[str]
    permissions: list[str]
    authenticated: bool
    claims: dict[str, object]


@operation("self")
def whoami(call: Call, params: NoParams) -> Whoami:
    """Who the gate takes this session for (contract S2-6)."""
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"
    return Whoami(
        user_id=caller.subject,
        username=caller.name,
        roles=sorted(caller.roles),
        permissions=sorted(caller.capabilities | caller.grants),
        authenticated=True,
        claims=caller.claims,
    )
