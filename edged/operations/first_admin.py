"""Claiming a new box: its code makes the first administrator, and nobody makes a second by it (contract 10.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import structlog
import trio

from edged.access.authority import Proof
from edged.credentials.decision import Reason
from edged.credentials.passwords import check_password
from edged.errors import Denied, InvalidState, UnknownMethod
from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.rest import create, get

if TYPE_CHECKING:
    from edged.accounts.first_admin import FirstAdmin

_log = structlog.get_logger("first_admin")


_HOW: Final = "a box without users makes a code at each start, and on it with: sudo edged claim --new"
#: A longer one is none of these; it is not looked at.
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class ClaimParams(msgspec.Struct, frozen=True):
    """The code of the box, which the unix socket does not ask for, and who its administrator shall be."""

    username: _Text
    password: _Text
    code: _Text = ""


class Claimed(msgspec.Struct, frozen=True):
    """The administrator, who logs in with their password from here on."""

    username: str
    role: str


@operation("none", rest=create("/api/claim"), counted_as="first_admin")
async def claim(call: OperationCall, params: ClaimParams) -> Claimed:
    """Make the first administrator of a box that has no user, for whoever can read its code or open its unix socket.

    By POST /api/claim, where pages of other sites are kept out, and on the unix socket; not on a WebSocket.
    """
    services, session = call.services, call.session
    address = session.peer.address
    if session.transport == "ws":
        raise UnknownMethod("no method 'claim'", hint="POST /api/claim")

    def is_still_first() -> None:
        """Asked in the registrar's own task, right before the commit: of two claims one is too late, as is one
        whose code was withdrawn while its password was hashed."""
        if not services.users.is_empty():
            raise InvalidState("there is an administrator already", hint="log in, or ask them for an account")
        if not session.peer.is_local_socket and not services.first_admin.is_code(params.code):
            raise InvalidState("this code was withdrawn meanwhile", hint=_HOW)

    if session.peer.is_local_socket:
        # Who may open it is an administrator: a code that strangers can use up must not keep them out.
        is_still_first()
    else:
        services.limiter.check(address)
        if not services.first_admin.takes(params.code):
            services.limiter.failed(address, None, params.code)
            refusal = services.gate.refuse(Reason.UNKNOWN_KEY, "claim_code", session.transport)
            refusal.hint = _HOW
            raise refusal
    check_password(params.password, params.username)
    hashed = await services.passwords.hash(params.password)
    # Whoever hangs up now may have made an administrator: then the code's file has to go all the same.
    with trio.CancelScope(shield=True):
        user = await services.users.create(Proof(is_still_first), name=params.username, role="admin", password=hashed)
        services.first_admin.withdraw()
    services.limiter.succeeded(address, user.name)
    _log.warning("claimed", user=user.name, address=address or None)
    return Claimed(user.name, user.role)


class ClaimCode(msgspec.Struct, frozen=True):
    """Where the code is, which is told to nobody: the file is for root and the daemon. `expires_in`: seconds."""

    path: str
    expires_in: int


@operation("users:admin", rest=get("/api/claim/code"), no_command="edged claim needs no code", counted_as="first_admin")
def get_claim_code(call: OperationCall, params: NoParams) -> ClaimCode:
    """Where the code for the first administrator is, if there is one. On this machine only."""
    first_admin = _require_local(call)
    if first_admin.seconds_left == 0:
        if not call.services.users.is_empty():
            raise InvalidState("there is an administrator already", hint="edged user list")
        raise InvalidState("the code has expired or was used up", hint="make another: sudo edged claim --new")
    return ClaimCode(str(first_admin.path), int(first_admin.seconds_left))


@operation("users:admin", rest=create("/api/claim/code", source="optional body"), counted_as="first_admin")
def create_claim_code(call: OperationCall, params: NoParams) -> ClaimCode:
    """Make another code for the first administrator; the one before is worth nothing any more. On this machine only."""
    _require_local(call).offer()
    return get_claim_code(call, params)


def _require_local(call: OperationCall) -> FirstAdmin:
    """Raises Refused to whoever is not on this machine."""
    if not call.session.peer.is_local_socket:
        raise Denied(
            Reason.MISSING_SCOPE, "the code is on the box and nowhere else", hint="there: sudo edged claim --new"
        )
    return call.services.first_admin
