"""The two dialects that one socket can speak, as data (contract 0), and what they make of results and errors.

v1 is what the clients of the camera-service guides speak, v2 the later service and its web client. An operation
knows neither: it names cameras `cameraN` in a field `device` (and the device file, or "", in `device_path`) and
raises errors with slugs; everything that differs on the wire is decided by the tables below.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
import structlog

from edged.credentials.callers import Caller, Credential, Token
from edged.credentials.decision import outside_reason
from edged.credentials.roles import ROLES
from edged.errors import Denied, EdgedError, Refused
from edged.wire import jsonrpc

_log = structlog.get_logger("rpc")


class Dialect(msgspec.Struct, frozen=True):
    """What one family of clients expects on the wire.

    `column` is its column of `FAULTS`; `null_result`: errors carry `result: null` (contract C-4);
    `soft_authenticate`: a failed authenticate is a result (C-2); `pushed`: notifications come unasked (C-22);
    `tells_expiry`: `auth_expired` is sent (10.3); `names_nodes`: `device` is the device file where there is one
    (C-7); `null_cameras`: methods that answer null for a camera that is not there (C-13); `signs_links`: a
    `download_url` is an absolute signed link (C-38).
    """

    name: str
    column: int
    null_result: bool
    soft_authenticate: bool
    pushed: bool
    tells_expiry: bool
    names_nodes: bool
    null_cameras: frozenset[str]
    signs_links: bool


V1: Final = Dialect("v1", 0, True, True, True, False, True, frozenset({"get_camera_status"}), False)
V2: Final = Dialect("v2", 1, False, False, False, True, False, frozenset(), True)

#: Sec-WebSocket-Protocol → the dialect that it forces.
SUBPROTOCOLS: Mapping[str, Dialect] = MappingProxyType({"jsonrpc-2.0": V2, "camera-v1": V1})


def of_listener(listener: str) -> Dialect:
    """What is spoken before the client has shown what it is."""
    return V1 if listener == "compat" else V2


def of_authenticate(token: str | None, auth_token: str | None, auth_type: str | None) -> Dialect | None:
    """What the members of a client's first authenticate say about it; None if it sent no credential."""
    if auth_token is not None and (token is None or auth_type is None):
        return V2
    return V1 if token is not None else None


# --- errors -------------------------------------------------------------------------------------------------------

_INTERNAL = (jsonrpc.INTERNAL_ERROR, "Internal error")
_V2_AUTHENTICATION = (-32001, "Authentication failed or token expired")

#: Situation → (code, message) in v1 and in v2 (contract 4b). An error's slug names its row; a refusal's is
#: what `outside_reason` makes of its reason (contract 10.20).
FAULTS: Mapping[str, tuple[tuple[int, str], tuple[int, str]]] = MappingProxyType(
    {
        "parse_error": ((jsonrpc.PARSE_ERROR, "Parse error"),) * 2,
        "invalid_request": ((jsonrpc.INVALID_REQUEST, "Invalid Request"),) * 2,
        "unknown_method": ((jsonrpc.METHOD_NOT_FOUND, "Method not found"),) * 2,
        "invalid_params": ((jsonrpc.INVALID_PARAMS, "Invalid params"),) * 2,
        "internal": (_INTERNAL,) * 2,
        "store_error": (_INTERNAL,) * 2,
        "overloaded": (_INTERNAL,) * 2,
        "auth_required": ((-32001, "Authentication required"), _V2_AUTHENTICATION),
        "auth_failed": ((-32001, "Authentication failed"), _V2_AUTHENTICATION),
        "expired": ((-32001, "Authentication failed"), _V2_AUTHENTICATION),
        "revoked": ((-32001, "Authentication failed"), _V2_AUTHENTICATION),
        "permission_denied": ((-32003, "Insufficient permissions"), (-32002, "Permission denied")),
        "origin_denied": ((-32003, "Insufficient permissions"), (-32002, "Permission denied")),
        "rate_limited": ((-32002, "Rate limit exceeded"), (-32040, "Rate limited")),
        "camera_not_found": ((-32004, "Camera not found"), (-32010, "Not found")),
        "not_found": ((-32010, "Not found"),) * 2,
        # v1's own text for this row is true of a recording only (the error says `resource="recording"`).
        "invalid_state": ((-32005, "Invalid state"), (-32020, "Invalid state")),
        "already_recording": ((-32005, "Recording already in progress"), (-32020, "Invalid state")),
        "storage": ((-32007, "Insufficient storage space"), (-32020, "Invalid state")),
        "dependency_failed": ((-32006, "MediaMTX service unavailable"), (-32050, "Dependency failed")),
        "unsupported": ((-32008, "Camera capability not supported"), (-32030, "Unsupported")),
        "not_built": ((-32008, "Camera capability not supported"), (-32030, "Unsupported")),
    }
)

_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "auth_required": "call authenticate with a JWT or an API key first",
        "auth_failed": "authenticate with a valid JWT or API key",
        "expired": "authenticate again with a new token",
        "revoked": "authenticate with another credential",
        "permission_denied": "use a credential that has the required capability",
    }
)
#: Rows whose refusals may have a hint of their own, for example where no JWT is taken; it does not say what was wrong.
_OWN_HINTS = frozenset({"auth_required", "auth_failed", "permission_denied"})
_INVALID: Mapping[int, str] = MappingProxyType(
    {jsonrpc.PARSE_ERROR: "parse_error", jsonrpc.INVALID_REQUEST: "invalid_request"}
)
#: Characters of one text in an error: what a client sent comes back in it.
_LONGEST_TEXT = 300
_UNAUTHENTICATED = -32001


def situation(problem: EdgedError) -> str:
    """The row of `FAULTS` that an error belongs to."""
    if isinstance(problem, Refused):
        return outside_reason(problem.reason)
    if problem.slug == "invalid_state" and problem.fields.get("resource") == "recording":
        return "already_recording"
    return problem.slug if problem.slug in FAULTS else "internal"


class Fault(msgspec.Struct, frozen=True):
    """An error to be answered: a row of `FAULTS`, and the `data` beside its code."""

    row: str
    data: Mapping[str, object]

    @property
    def is_unauthenticated(self) -> bool:
        """Whether it says that the session has no good credential."""
        return FAULTS[self.row][0][0] == _UNAUTHENTICATED

    def encode(self, request_id: msgspec.Raw | bytes, dialect: Dialect, *, result: bytes | None = None) -> bytes:
        """The answer in a dialect; `result` is JSON to send beside the error whatever the dialect's habit."""
        code, message = FAULTS[self.row][dialect.column]
        detail = self.data.get("detail")
        if self.row == "invalid_params" and detail:
            message = f"{message}: {detail}"  # the text is all that some clients show
        if result is None and dialect.null_result:
            result = jsonrpc.NULL
        return jsonrpc.fault(request_id, code, message, self.data, result=result)


def fault(problem: EdgedError, *, lost: str | None = None) -> Fault:
    """The answer to an error; `lost` (expired, revoked) is why a session that had a credential has none.

    Of a refused credential it gives the coarse reason only: the exact one is for the log and the metric.
    """
    row = situation(problem)
    if row == "auth_required" and lost is not None:
        row = lost
    fields = {name: _short(value) for name, value in problem.fields.items()}
    if not isinstance(problem, Refused):
        return _fault(row, fields, detail=_short(problem.sentence), hint=problem.hint)
    if row == "camera_not_found":
        fields = {}
    explained = isinstance(problem, Denied)
    if row == "permission_denied":
        # A role is not what is missing where the sentence says what is.
        fields["required_role"] = None if explained else _weakest_role(fields.get("required"))
        fields["have_role"] = fields.get("have")
    detail = _short(problem.sentence) if explained else ""
    return _fault(row, fields, detail=detail, hint=(problem.hint if row in _OWN_HINTS else "") or _HINTS.get(row, ""))


def invalid(problem: jsonrpc.Invalid) -> Fault:
    """The answer to something that is not a request."""
    return _fault(_INVALID[problem.code], {}, detail=_short(problem.detail))


def incident(method: str, error: Exception) -> Fault:
    """The answer to an unexpected exception: logged whole under a number, of which the client gets the number only."""
    number = secrets.token_hex(4)
    _log.error("incident", incident=number, method=method, exc_info=error)
    return _fault("internal", {"incident": number}, hint="the log says more about this incident")


def _fault(row: str, fields: dict[str, object], *, detail: object = "", hint: str = "") -> Fault:
    (code_v1, _), (code_v2, _) = FAULTS[row]
    data = {"required": None, "have": None, **fields, "reason": _reason(row)}
    data |= {"code_v1": code_v1, "code_v2": code_v2}
    if detail:
        data["detail"] = detail
    if hint:
        data["hint"] = hint
    return Fault(row, data)


def _reason(row: str) -> str:
    return "not_found" if row == "camera_not_found" else row


def _short(value: object) -> object:
    return f"{value[:_LONGEST_TEXT]}…" if isinstance(value, str) and len(value) > _LONGEST_TEXT else value


def _weakest_role(capability: object) -> str | None:
    return next((role for role in ("viewer", "operator", "monitor", "admin") if capability in ROLES[role]), None)


def authentication_text(credential: Credential) -> str:
    """`result.error` of a failed authenticate in v1 (contract S1-39)."""
    return "Invalid or expired JWT token" if isinstance(credential, Token) else "Invalid or expired API key"


def failed_authentication(error: str) -> bytes:
    """The result of a failed authenticate for a v1 client."""
    return jsonrpc.encode({"authenticated": False, "error": error})


# --- results ------------------------------------------------------------------------------------------------------


class View(msgspec.Struct, frozen=True, eq=False):
    """How cameras are named to one client: `names_nodes` in `device`, `shows_nodes` at all (contract C-7).

    There are three of them, compared by identity: kept encodings are found by them.
    """

    names_nodes: bool
    shows_nodes: bool


_NODES = View(names_nodes=True, shows_nodes=True)
_NAMES = View(names_nodes=False, shows_nodes=False)
_NAMES_AND_NODES = View(names_nodes=False, shows_nodes=True)


def view_of(dialect: Dialect, caller: Caller | None) -> View:
    """Device files are for v1, whose scripts hard-code them, and for administrators."""
    if dialect.names_nodes:
        return _NODES
    return _NAMES_AND_NODES if caller is not None and caller.role == "admin" else _NAMES


#: The device file of `cameraN` today, None without one.
NodeOf = Callable[[str], str | None]


def present(value: Any, view: View, node_of: NodeOf) -> Any:
    """A result with every camera in it named as this client wants it; the same object where nothing is to change.

    A struct with a field `device` is about a camera. `device_path`, where it has one, is never empty: whatever
    stands there is good as `device` of a next call. A struct inside it that has only `device_path` is about the same
    camera, and gets the same text.
    """
    if isinstance(value, tuple | list):
        shown = [present(item, view, node_of) for item in value]
        return value if all(new is old for new, old in zip(shown, value, strict=True)) else shown
    if not isinstance(value, msgspec.Struct):
        return value
    deep, is_of_camera = _fields_of(type(value))
    if not deep and not is_of_camera:
        return value
    changes: dict[str, Any] = {}
    for name in deep:
        old = getattr(value, name)
        if isinstance(old, tuple | list | msgspec.Struct) and (new := present(old, view, node_of)) is not old:
            changes[name] = new
    device = getattr(value, "device", None)
    if isinstance(device, str):
        path = getattr(value, "device_path", None)
        node = (node_of(device) if path is None else path) or device
        if view.names_nodes and node != device:
            changes["device"] = node
        path_shown = node if view.shows_nodes else device
        if path is not None:
            changes["device_path"] = path_shown
        for name in deep:
            inner = changes.get(name, getattr(value, name))
            if isinstance(inner, msgspec.Struct) and not hasattr(inner, "device") and hasattr(inner, "device_path"):
                changes[name] = msgspec.structs.replace(inner, device_path=path_shown)
    return msgspec.structs.replace(value, **changes) if changes else value


@lru_cache(maxsize=256)
def _fields_of(kind: type[msgspec.Struct]) -> tuple[tuple[str, ...], bool]:
    """The fields of a struct in which another can lie, by what they are declared as; and whether it has a `device`."""
    fields = kind.__struct_fields__
    try:
        hints = get_type_hints(kind)
    except NameError:  # declared by names that only the type checker imports
        return fields, "device" in fields
    return tuple(name for name in fields if not _is_plain(hints[name])), "device" in fields


def _is_plain(hint: Any) -> bool:
    """Whether values of this type are texts, numbers and the like, or lists and maps of these."""
    if get_origin(hint) is Literal:
        return True
    inner = [each for each in get_args(hint) if each is not ...]
    return all(map(_is_plain, inner)) if inner else hint in _PLAIN


_PLAIN: Final = frozenset({str, int, float, bool, bytes, NoneType})

#: Operations that return the identical object while nothing has changed: their JSON is kept for it.
KEPT = frozenset({"get_camera_list"})


class Presenter:
    """Results → JSON in a view; keeps the last `size` encodings of results that come again."""

    def __init__(self, node_of: NodeOf, *, size: int = 64) -> None:
        self._node_of = node_of
        self._size = size
        # The result is held beside its JSON, so that its id cannot become another object's.
        self._kept: dict[tuple[int, View], tuple[object, bytes]] = {}

    def encode(self, method: str, result: object, view: View) -> bytes:
        """JSON of the result of `method`. Raises whatever a result that has no JSON form makes msgspec raise."""
        if method not in KEPT:
            return _encode(result if isinstance(result, str) else present(result, view, self._node_of))
        found = self._kept.get((id(result), view))
        if found is not None:
            return found[1]
        text = _encode(present(result, view, self._node_of))
        if len(self._kept) >= self._size:
            del self._kept[next(iter(self._kept))]
        self._kept[id(result), view] = (result, text)
        return text


_encode = msgspec.json.Encoder().encode
