"""The first administrator of a new box, made by its code, once (contract 10.1)."""

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
#: A longer text cannot be a name, a password or a code.
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class ClaimParams(msgspec.Struct, frozen=True):
    """The code of the box, which is not needed on the unix socket, and the name and password of the administrator."""

    username: _Text
    password: _Text
    code: _Text = ""


class Claimed(msgspec.Struct, frozen=True):
    """The administrator, who logs in with the password from now on."""

    username: str
    role: str


@operation("none", rest=create("/api/claim"), counted_as="first_admin")
async def claim(call: OperationCall, params: ClaimParams) -> Claimed:
    """Make the first administrator of a box without users, by its code or on its unix socket.

    By POST /api/claim, never through a page of another site, and on the unix socket; not on a WebSocket.
    """
    services, session = call.services, call.session
    address = session.peer.address
    if session.transport == "ws":
        raise UnknownMethod("no method 'claim'", hint="POST /api/claim")

    def is_still_first() -> None:
        """Called by the registrar right before the commit: of two claims one is too late, as is one whose code was
        withdrawn while its password was hashed."""
        if not services.users.is_empty():
            raise InvalidState("there is an administrator already", hint="log in, or ask them for an account")
        if not session.peer.is_local_socket and not services.first_admin.is_code(params.code):
            raise InvalidState("this code was withdrawn meanwhile", hint=_HOW)

    if session.peer.is_local_socket:
        # The unix socket is for administrators: a code that others used up must not lock them out.
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
    # A client that disconnects now may have made an administrator: the file of the code is removed in any case.
    with trio.CancelScope(shield=True):
        user = await services.users.create(Proof(is_still_first), name=params.username, role="admin", password=hashed)
        services.first_admin.withdraw()
    services.limiter.succeeded(address, user.name)
    _log.warning("first_admin_claimed", user=user.name, address=address or None)
    return Claimed(user.name, user.role)


class ClaimCode(msgspec.Struct, frozen=True):
    """The file that holds the code, readable by root and the daemon only; `expires_in` seconds."""

    path: str
    expires_in: int


@operation("users:admin", rest=get("/api/claim/code"), no_command="edged claim needs no code", counted_as="first_admin")
def get_claim_code(call: OperationCall, params: NoParams) -> ClaimCode:
    """The file of the code for the first administrator. On the unix socket only."""
    first_admin = _require_local(call)
    if first_admin.seconds_left == 0:
        if not call.services.users.is_empty():
            raise InvalidState("there is an administrator already", hint="edged user list")
        raise InvalidState("the code has expired or was used up", hint="make another: sudo edged claim --new")
    return ClaimCode(str(first_admin.path), int(first_admin.seconds_left))


@operation("users:admin", rest=create("/api/claim/code", source="optional body"), counted_as="first_admin")
def create_claim_code(call: OperationCall, params: NoParams) -> ClaimCode:
    """Make another code for the first administrator; the one before is void. On the unix socket only."""
    _require_local(call).offer()
    return get_claim_code(call, params)


def _require_local(call: OperationCall) -> FirstAdmin:
    """Raises Refused unless the call came by the unix socket."""
    if not call.session.peer.is_local_socket:
        raise Denied(
            Reason.MISSING_SCOPE, "the code is on the box and nowhere else", hint="there: sudo edged claim --new"
        )
    return call.services.first_admin
