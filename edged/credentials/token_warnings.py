"""Warnings about a token that is good all the same: those of guide S0's validator (S0-25 to S0-27)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OLD: Final = "Token is very old"
SUSPICIOUS: Final = "Suspicious token patterns detected"
#: Text → what the metrics call it, where they count it.
KINDS: Final = {OLD: "old", SUSPICIOUS: "suspicious"}
#: Older than this it is called so, seconds.
OLD_SECONDS: Final = 30 * 86400.0
#: More permissions than this are called so.
MOST_PERMISSIONS: Final = 10
_ROLES: Final = frozenset({"superadmin", "root", "master"})
#: What guide S0's validator says of a token that lacks a claim (S0-26).
MISSING: Final = "Missing required claim: {}"


def errors_of(claims: Mapping[str, object]) -> list[str]:
    """What guide S0's validator calls an error of a token that edged takes all the same: that it says no `iat`.

    Every token that is good says `exp`, and whose it is: in `sub`, or in `user_id`, as all of guide S1's do.
    """
    return [MISSING.format("iat")] if claims.get("iat") is None else []


def warnings_of(claims: Mapping[str, object], now: float) -> list[str]:
    """The texts, in the order in which guide S0's validator says them. `claims` have been read before; `now`: Unix
    seconds."""
    return [
        *([OLD] if is_old(claims, now) else []),
        *([MISSING.format("sub")] if claims.get("sub") is None else []),
        *([SUSPICIOUS] if is_suspicious(claims) else []),
    ]


def counted_of(claims: Mapping[str, object], now: float) -> list[str]:
    """Those of the texts that the metrics count; every token that is new here is asked for them."""
    return [*([OLD] if is_old(claims, now) else []), *([SUSPICIOUS] if is_suspicious(claims) else [])]


def is_old(claims: Mapping[str, object], now: float) -> bool:
    """Whether it says that it was issued more than 30 days ago."""
    issued = claims.get("iat")
    return isinstance(issued, (int, float)) and issued < now - OLD_SECONDS


def is_suspicious(claims: Mapping[str, object]) -> bool:
    """More than ten permissions, the name of a role that nobody hands out, or no jti."""
    permissions, roles = claims.get("permissions"), claims.get("roles")
    # Where an issuer names roles by another claim, nobody has looked at the types of these.
    named = {
        name for name in (claims.get("role"), *(roles if isinstance(roles, list) else ())) if isinstance(name, str)
    }
    many = isinstance(permissions, list) and len(permissions) > MOST_PERMISSIONS
    return many or not claims.get("jti") or not _ROLES.isdisjoint(named)
