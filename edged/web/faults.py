"""Errors as HTTP answers: {"error", "detail", "code"} (contract C-35, 4b, 10.20), and "in_force" of what was not saved.

`error` is the field's short phrase, `detail` the sentence with what to do next, `code` one word for programs.
The reason of a refusal is coarser here than in the log.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Final

import structlog
from starlette.responses import Response

from edged.credentials.decision import outside_reason
from edged.errors import Denied, EdgedError, RateLimited, Refused, without_paths
from edged.web.requests import json_response

_log = structlog.get_logger("web")
_REALM: Final = 'Bearer realm="edged"'
#: The second challenge of routes that take Basic (RFC 7617).
BASIC: Final = 'Basic realm="edged", charset="UTF-8"'

#: Slug → status and phrase (contract 4b, HTTP column).
STATUSES: Final[dict[str, tuple[int, str]]] = {
    "invalid_params": (400, "Invalid params"),
    "unknown_method": (404, "Not found"),
    "not_found": (404, "Not found"),
    "camera_not_found": (404, "Camera not found"),
    "invalid_state": (409, "Invalid state"),
    "storage": (507, "Insufficient storage space"),
    "rate_limited": (429, "Rate limited"),
    "unsupported": (501, "Unsupported"),
    "not_built": (501, "Unsupported"),
    "dependency_failed": (503, "Dependency failed"),
    "store_error": (503, "Store failed"),
    "overloaded": (503, "Overloaded"),
}
#: Fields of errors that are shown: whether a change that was not saved is in force all the same.
_TOLD: Final = ("in_force",)
#: Reason as callers see it → phrase and sentence (contract 10.20).
_UNAUTHENTICATED: Final[dict[str, tuple[str, str]]] = {
    "auth_required": ("Authentication required", "no credential was sent"),
    "expired": ("Authentication failed", "this credential has expired"),
    "revoked": ("Authentication failed", "this credential was revoked"),
    "auth_failed": ("Authentication failed", "this credential is not accepted"),
}


def respond(
    status: int, code: str, error: str, detail: str, headers: Mapping[str, str] | None = None, **more: object
) -> Response:
    """One fault as JSON."""
    return json_response({"error": error, "detail": detail, "code": code, **more}, status, headers)


def not_json() -> Response:
    """415 for a body whose Content-Type is not JSON."""
    return respond(415, "unsupported_media_type", "Unsupported media type", "send Content-Type: application/json")


def fault(problem: EdgedError) -> Response:
    """An EdgedError as a response."""
    if isinstance(problem, Refused):
        return _refusal(problem)
    status, phrase = STATUSES.get(problem.slug, (500, "Internal error"))
    if status == 500:
        return unexpected(problem)
    headers = {}
    if isinstance(problem, RateLimited):
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_ms / 1000)))
    more = {name: problem.fields[name] for name in _TOLD if name in problem.fields}
    told = without_paths(str(problem)) if status == 503 else str(problem)
    return respond(status, problem.slug, phrase, told, headers, **more)


def unexpected(problem: Exception) -> Response:
    """A bug: the caller gets an incident number, the log the same number and the traceback."""
    incident = secrets.token_hex(4)
    _log.error("request_failed", incident=incident, exc_info=problem)
    return respond(500, "internal", "Internal error", f"incident {incident}: the log of edged says more")


def sole(problem: BaseException) -> BaseException:
    """The one error inside a nursery's group of one, else the group itself."""
    while isinstance(problem, BaseExceptionGroup) and len(problem.exceptions) == 1:
        problem = problem.exceptions[0]
    return problem


def _refusal(problem: Refused) -> Response:
    code = outside_reason(problem.reason)
    if code == "camera_not_found":
        status, phrase = STATUSES[code]
        return respond(status, code, phrase, "no camera of this name")
    if code == "permission_denied":
        detail = str(problem)
        if not isinstance(problem, Denied):
            required = problem.fields.get("required", "another credential")
            detail = f"needs {required}; this credential has the role {problem.fields.get('have', 'none')}"
        headers = {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'}
        return respond(403, code, "Insufficient permissions", detail, headers)
    if code == "origin_denied":
        sentence = "asked through a page of another site, or by a name that is not this box's"
        return respond(403, code, "Origin denied", f"{sentence}: {problem.hint}" if problem.hint else sentence)
    phrase, sentence = _UNAUTHENTICATED[code]
    detail = f"{sentence}: {problem.hint}" if problem.hint else sentence
    if isinstance(text := problem.fields.get("text"), str):
        phrase = detail = text
    more: dict[str, object] = {}
    if isinstance(text := problem.fields.get("oauth"), str):
        # RFC 6749, section 5.2: clients look at `error`.
        phrase, more = text, {"error_description": detail}
    challenge = _REALM if code == "auth_required" else f'{_REALM}, error="invalid_token"'
    return respond(401, code, phrase, detail, {"WWW-Authenticate": challenge}, **more)
