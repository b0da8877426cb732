"""decide(): may this caller do this to that, now? Pure; the reason comes with the answer.

Order (contract 7.6): expired, then camera_access, then capability. Revocation is the ledger's and
comes before all of these (access.gate).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from edged.credentials.callers import NOTHING, Caller, Resource
from edged.credentials.roles import OPEN, SELF
from edged.credentials.stream_names import reaches


class Reason(StrEnum):
    """Why not: the same word in log, metric and explanation (architecture 4)."""

    MISSING = "missing"
    MALFORMED = "malformed"
    TOKEN_CUT = "token_cut"  # noqa: S105 (a reason)
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    ALG_NOT_ALLOWED = "alg_not_allowed"
    BAD_AUDIENCE = "bad_audience"
    UNTRUSTED_ISSUER = "untrusted_issuer"
    EXPIRED = "expired"
    NO_EXPIRY = "no_expiry"
    NOT_YET_VALID = "not_yet_valid"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    ROLE_DENIED = "role_denied"
    MISSING_SCOPE = "missing_scope"
    CAMERA_DENIED = "camera_denied"
    ORIGIN_DENIED = "origin_denied"
    ADDRESS_DENIED = "address_denied"


#: Exact reason → the word that whoever asked is told (contract 10.20). Every reason stands here: log, metric and
#: explanation keep the exact one, and no endpoint has a table of its own.
OUTSIDE: Final[Mapping[str, str]] = MappingProxyType(
    {
        Reason.MISSING: "auth_required",
        Reason.EXPIRED: "expired",
        Reason.REVOKED: "revoked",
        Reason.SUSPENDED: "auth_failed",
        Reason.MALFORMED: "auth_failed",
        Reason.TOKEN_CUT: "auth_failed",
        Reason.UNKNOWN_KEY: "auth_failed",
        Reason.BAD_SIGNATURE: "auth_failed",
        Reason.ALG_NOT_ALLOWED: "auth_failed",
        Reason.BAD_AUDIENCE: "auth_failed",
        Reason.UNTRUSTED_ISSUER: "auth_failed",
        Reason.NO_EXPIRY: "auth_failed",
        Reason.NOT_YET_VALID: "auth_failed",
        Reason.ROLE_DENIED: "auth_failed",
        # Of no credential: another one would not help.
        Reason.ORIGIN_DENIED: "origin_denied",
        Reason.ADDRESS_DENIED: "auth_failed",
        Reason.MISSING_SCOPE: "permission_denied",
        Reason.CAMERA_DENIED: "camera_not_found",
    }
)


def outside_reason(reason: str) -> str:
    """The exact reason of a refusal → what is told outside; of one that nobody declared no more than that it failed."""
    return OUTSIDE.get(reason, "auth_failed")


class Decision(NamedTuple):
    """Allowed, or refused with the reason."""

    allowed: bool
    reason: Reason | None = None


ALLOWED = Decision(True)
_EXPIRED = Decision(False, Reason.EXPIRED)
_MISSING = Decision(False, Reason.MISSING)
_MISSING_SCOPE = Decision(False, Reason.MISSING_SCOPE)
_CAMERA_DENIED = Decision(False, Reason.CAMERA_DENIED)


def decide(caller: Caller | None, capability: str, resource: Resource = NOTHING, *, now: float) -> Decision:
    """Judge one question. `now` is Unix seconds; `resource` NOTHING means that no single thing is concerned."""
    if capability == OPEN:
        return ALLOWED
    if caller is None:
        return _MISSING
    if caller.expires is not None and now >= caller.expires:
        return _EXPIRED
    if caller.parent is not None and not (of_parent := decide(caller.parent, capability, resource, now=now)).allowed:
        return of_parent
    if capability == SELF:
        return ALLOWED
    if caller.streams is not None and capability in ("stream:read", "stream:publish"):
        named = reaches(caller.streams.of(capability), resource.names_for(caller))
        return ALLOWED if named else _CAMERA_DENIED
    if resource.names and not caller.sees(resource.names_for(caller)):
        return _CAMERA_DENIED
    if capability in caller.capabilities:
        return ALLOWED
    if caller.grants:
        if any(f"{capability}:{name}" in caller.grants for name in resource.names_for(caller)):
            return ALLOWED
        # A list may be asked for by someone who may see some of it; its rows are then judged one by one.
        if not resource.names and any(grant.startswith(f"{capability}:") for grant in caller.grants):
            return ALLOWED
    return _MISSING_SCOPE
