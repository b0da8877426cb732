"""decide(): may this caller do this to that, now? Pure; the reason comes with the answer.

Order (contract 7.6): expired, then camera_access, then capability. Revocation is the ledger's and
comes before all of these (access.gate).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from edged.credentials.callers import NOTHING, Caller, Resource
from edged.credentials.roles import OPEN, SELF


class Reason(StrEnum):
    """Why not: the same word in log, metric and explanation (field.md 4)."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    ALG_NOT_ALLOWED = "alg_not_allowed"
    BAD_AUDIENCE = "bad_audience"
    UNTRUSTED_ISSUER = "untrusted_issuer"
    EXPIRED = "expired"
    NO_EXPIRY = "no_expiry"
    NOT_YET_VALID = "not_yet_valid"
    REVOKED = "revoked"
    ROLE_DENIED = "role_denied"
    MISSING_SCOPE = "missing_scope"
    CAMERA_DENIED = "camera_denied"
    ORIGIN_DENIED = "origin_denied"


#: Reasons that concern the credential itself; the rest concern what was asked with a good one.
CREDENTIAL_REASONS = frozenset(Reason) - {Reason.MISSING_SCOPE, Reason.CAMERA_DENIED}


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
    if capability == SELF:
        return ALLOWED
    if caller.streams is not None and capability in ("stream:read", "stream:publish"):
        named = caller.streams.read if capability == "stream:read" else caller.streams.publish
        return ALLOWED if "*" in named or not named.isdisjoint(resource.names) else _CAMERA_DENIED
    if resource.names and not caller.sees(resource.names):
        return _CAMERA_DENIED
    if capability in caller.capabilities:
        return ALLOWED
    if caller.grants:
        if any(f"{capability}:{name}" in caller.grants for name in resource.names):
            return ALLOWED
        # A list may be asked for by someone who may see some of it; its rows are then judged one by one.
        if not resource.names and any(grant.startswith(f"{capability}:") for grant in caller.grants):
            return ALLOWED
    return _MISSING_SCOPE
