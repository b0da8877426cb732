"""ping, authenticate and whoami; the active sessions: list_sessions, end_session (contract 10.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from operator import attrgetter
from typing import Final

import msgspec
from msgspec import UNSET

from edged.access.admissions import Admission
from edged.clock import Clock, iso
from edged.credentials.callers import CREDENTIAL_KINDS, Caller, parse_credential
from edged.credentials.identities import Kind
from edged.credentials.roles import ROLES
from edged.errors import InvalidParams, NotFound, Refused
from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.file_params import sight_of
from edged.operations.pages import Cursor, Limit, NextCursor, Offset, Rows, make_page
from edged.operations.rest import delete, get
from edged.operations.services import Services

#: The words of guide S1 (contract 7.2).
_CAMERA_WORDS: Final = {"view": "camera:read", "control": "camera:write"}
#: `expires_at` of a key without an end, seconds from now (contract 3, authenticate).
_NO_END_SECONDS = 24 * 3600.0


@operation("none", no_rest="GET /health/live says the same", no_command="edged status says more")
def ping(call: OperationCall, params: NoParams) -> str:
    """Always "pong"; needs no credential (contract C-11)."""
    return "pong"


class AuthenticateParams(msgspec.Struct, frozen=True):
    """`auth_token` or `token`, and `auth_type`: jwt, api_key or auto."""

    auth_token: str | None = None
    token: str | None = None
    auth_type: str | None = None


class Authenticated(msgspec.Struct, frozen=True):
    """The caller of the session; `expires_at` ISO 8601.

    `permissions` are the words of guide S1 (view, control, admin), each where it holds, and the capabilities.
    """

    authenticated: bool
    role: str
    roles: list[str]
    permissions: list[str]
    expires_at: str
    session_id: str
    user_id: str


@operation("none", no_rest="each request shows its own credential", no_command="the unix socket needs no credential")
def authenticate(call: OperationCall, params: AuthenticateParams) -> Authenticated:
    """Bind a credential to this session. After a failure the session has none (contract S0-17).

    With an unknown auth_type, or while its address has tried too often, nothing is checked and the session stays as
    it is.
    """
    if params.auth_type and params.auth_type not in CREDENTIAL_KINDS:
        # The value is not repeated: it may be the credential itself, sent in the wrong member.
        raise InvalidParams(f"auth_type is none of {', '.join(CREDENTIAL_KINDS)}", hint="without it edged finds out")
    session, gate = call.session, call.services.gate
    text = params.token if params.token is not None else params.auth_token
    credential = parse_credential(text or "", params.auth_type or "auto")
    try:
        caller = gate.authenticate(credential, session.peer, session.transport)
    except Refused as problem:
        leave(call)
        if not text:
            problem.hint = "send token (or auth_token) with a JWT or an API key"
        raise
    enter(call, caller, is_fresh=True)
    until = caller.expires if caller.expires is not None else call.services.clock.now() + _NO_END_SECONDS
    role = caller.role
    return Authenticated(
        authenticated=True,
        role=role,
        roles=_list_roles(caller.roles),
        permissions=_list_permissions(caller.capabilities, caller.grants, caller.cameras != frozenset()),
        expires_at=iso(until),
        session_id=session.id,
        user_id=caller.subject,
    )


@lru_cache(maxsize=64)
def _list_roles(roles: frozenset[str]) -> list[str]:
    """Cached, since most logins have the same; never changed."""
    return sorted(roles)


@lru_cache(maxsize=64)
def _list_permissions(capabilities: frozenset[str], grants: frozenset[str], has_cameras: bool) -> list[str]:
    """Cached as the roles are. A word for cameras needs a camera, and the right."""

    def may(capability: str) -> bool:
        return capability in capabilities or any(grant.startswith(f"{capability}:") for grant in grants)

    words = [word for word, capability in _CAMERA_WORDS.items() if has_cameras and may(capability)]
    if capabilities >= ROLES["admin"]:
        words.append("admin")
    return [*words, *sorted(capabilities | grants)]


def enter(call: OperationCall, caller: Caller, *, is_fresh: bool = False) -> None:
    """The session goes on with this caller, as do its tickets and the streams of the same family or key. Raises
    Refused if the credential has just ended, unless it `is_fresh`; the session is then without any."""
    session, gate = call.session, call.services.gate
    if session.is_closed:
        return  # the client has left meanwhile: nobody would ever end this admission
    try:
        session.admission = gate.admit(
            caller, session.transport, session.end, name=session.id, before=session.admission, is_fresh=is_fresh
        )
    except Refused:
        leave(call)
        raise
    session.caller, session.expired = caller, None
    gate.renew_tickets(caller, session.id)
    gate.renew_streams(caller)


def leave(call: OperationCall) -> None:
    """The session loses its credential."""
    session = call.session
    if session.admission is not None:
        call.services.gate.admissions.remove(session.admission)
    session.caller = session.admission = session.expired = None


class Whoami(msgspec.Struct, frozen=True):
    """The members of guide S2, and the rights of the caller."""

    user_id: str
    username: str
    roles: list[str]
    permissions: list[str]
    authenticated: bool
    claims: dict[str, object]


@operation("self", rest=get("/api/whoami"))
def whoami(call: OperationCall, params: NoParams) -> Whoami:
    """The caller of this session (contract S2-6)."""
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


class ListSessionsParams(msgspec.Struct, frozen=True):
    """A page, the newest session first: behind those that came with `cursor` as `next_cursor`, or after `offset`."""

    limit: Limit = 100
    offset: Offset = 0
    cursor: Cursor | None = None


class SessionItem(msgspec.Struct, frozen=True):
    """An active session: its credential, its start and latest end, and the camera that it shows.

    `bytes` went to a viewer, or came from a publisher; null where they are not counted. `session_id` is that of
    `authenticate`; a WebSocket has one, as has each picture and each MediaMTX session.
    """

    session_id: str
    transport: str
    subject: str
    name: str
    role: str
    since: str
    deadline: str | None = None
    key_id: str | None = None
    jti: str | None = None
    token_hash: str | None = None
    camera: str | None = None
    bytes: int | None = None


class SessionList(msgspec.Struct, frozen=True):
    """`total` counts all sessions, also those on other pages."""

    sessions: Rows[SessionItem]
    total: int
    next_cursor: NextCursor = UNSET


@operation("self", rest=get("/api/sessions"), counted_as="sessions")
async def list_sessions(call: OperationCall, params: ListSessionsParams) -> SessionList:
    """The active sessions: all of them with sessions:admin, otherwise one's own."""
    gate, caller = call.services.gate, call.session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"
    sees_all = gate.judge(caller, "sessions:admin").allowed
    seen = [
        each
        for each in gate.admissions
        if _is_somebody(each) and gate.admissions.is_present(each) and (sees_all or _is_own(caller, each.caller))
    ]
    place = attrgetter("since", "id")
    seen.sort(key=place)
    show = partial(_show, clock=call.services.clock, sees=sight_of(call.services, caller))
    rows, cursor = await make_page(
        call, seen, place, show, limit=params.limit, cursor=params.cursor, offset=params.offset, newest_first=True
    )
    if sees_all:
        # The pauses of a long list ask for the operation's own right only.
        gate.authorize(call.session.caller, "sessions:admin", call.session.transport)
    return SessionList(rows, len(seen), cursor)


def count_sessions(services: Services) -> Counter[str]:
    """Sessions by transport: every WebSocket, with or without a credential, and every other active session, each
    once."""
    talking = {session.id: session.transport for session in services.sessions}
    admissions = services.gate.admissions
    others = (
        each.transport
        for each in admissions
        if each.id not in talking and _is_somebody(each) and admissions.is_present(each)
    )
    return Counter([*talking.values(), *others])


class EndSessionParams(msgspec.Struct, frozen=True):
    session_id: str


class EndedSession(msgspec.Struct, frozen=True):
    message: str
    session_id: str


@operation("self", rest=delete("/api/sessions/{session_id}"), counted_as="sessions")
def end_session(call: OperationCall, params: EndSessionParams) -> EndedSession:
    """End a session: any with sessions:admin, otherwise one's own. The credential stays good."""
    gate, caller = call.services.gate, call.session.caller
    found = gate.admissions.find(params.session_id)
    if found is not None and not _is_somebody(found):
        found = None
    if caller is None or found is None or not _is_own(caller, found.caller):
        # Checked before the caller learns whether there is such a session.
        gate.authorize(caller, "sessions:admin", call.session.transport)
    if found is None:
        shown = params.session_id[:64]
        raise NotFound(f"no session {shown!r}", hint="list_sessions names them", resource="session", id=shown)
    call.services.registrar.end_session(found, by=call.session.id)
    return EndedSession("session ended", found.id)


def _is_somebody(admission: Admission) -> bool:
    """Whether this is not a child process of edged."""
    return admission.caller.method != "internal"


def _is_own(caller: Caller, other: Caller) -> bool:
    """Whether both have the same credential, or the same subject of the same issuer."""
    if not caller.identities.isdisjoint(other.identities):
        return True
    same = (caller.method, caller.issuer, caller.subject) == (other.method, other.issuer, other.subject)
    return same and caller.claims.get("iss") == other.claims.get("iss")


def _show(admission: Admission, clock: Clock, sees: Callable[[str], bool]) -> SessionItem:
    """A session; which camera it shows is told to those who may see that."""
    caller, now = admission.caller, clock.now()
    left = None if admission.deadline is None else admission.deadline - clock.monotonic()
    names = {each.kind: each.name for each in caller.identities}
    return SessionItem(
        session_id=admission.id,
        transport=admission.transport,
        subject=caller.subject,
        name=caller.name,
        role=caller.role,
        since=iso(now - (clock.monotonic() - admission.since)),
        # Rounded to the second of which it was computed, since the two clocks are read one after the other.
        deadline=None if left is None else iso(now + left + 0.5),
        key_id=names.get(Kind.KEY),
        jti=names.get(Kind.JTI),
        token_hash=names.get(Kind.TOKEN),
        camera=admission.path if admission.path and sees(admission.path) else None,
        bytes=admission.bytes_moved,
    )
