"""Roles and the capabilities they hold; how a written permission becomes capabilities (contract 7.2 to 7.4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

_VIEWER = frozenset({"camera:read", "stream:read", "system:read"})
_OPERATOR = _VIEWER | {"camera:write"}
_ADMIN = _OPERATOR | {
    "camera:delete", "stream:publish", "system:admin", "keys:admin", "users:admin", "sessions:admin",
    "tokens:issue", "tokens:revoke", "audit:read", "metrics:read", "files:admin",
}  # fmt: skip

ROLES: dict[str, frozenset[str]] = {
    "monitor": frozenset({"metrics:read", "system:read"}),
    "viewer": _VIEWER,
    "operator": _OPERATOR,
    "admin": _ADMIN,
}
ALIASES = {"user": "operator"}

#: What a files token may do with the files of its subject, and a service token with those of whom it names (7.2).
FILES = frozenset({"files:read", "files:write", "files:delete"})
#: What a service token may do. No role holds any of this, and no permission reaches it.
SERVICE = FILES | {"token:mint"}
#: The one scope that is more than a list of permissions, and only in what our own RS256 key signed (contract 7.3).
FILES_SCOPE = "files"

#: Every capability that a declaration may name; "none" needs no credential, "self" any good one.
CAPABILITIES = _ADMIN | SERVICE
OPEN = "none"
SELF = "self"

#: What a role-less `*` or pattern never reaches (contract 7.3, 7.4).
_GUARDED = ("system:", "keys:", "users:", "sessions:", "tokens:", "audit:")
_LEGACY = {"view": _VIEWER, "control": frozenset({"camera:write"}), "admin": _ADMIN}
_SEGMENT = re.compile(r"[A-Za-z0-9_./-]+\Z")
_READERS = {"camera:read": "stream:read"}


def canonical_role(name: str) -> str:
    """`user` → `operator`; anything else stays."""
    return ALIASES.get(name, name)


def is_permission(text: str) -> bool:
    """Whether `text` follows the grammar seg(:seg)*, `*` only alone or as the last segment."""
    segments = text.split(":")
    return all(_SEGMENT.match(part) or (part == "*" and at == len(segments) - 1) for at, part in enumerate(segments))


def _subjects(word: str) -> tuple[str, ...]:
    """`cameras` → `camera`, `files` stays: plural and singular name the same thing."""
    return (word, word[:-1]) if word.endswith("s") else (word,)


def expand(permissions: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Written permissions → (whole capabilities, grants for one thing such as `camera:read:camera1`).

    Verb-first spellings (`read:cameras`, `read:*`) reach the same capabilities. A pattern never
    reaches a guarded capability (system:admin, keys:admin …): those need an exact name or a role.
    """
    whole: set[str] = set()
    single: set[str] = set()
    for permission in permissions:
        if permission in _LEGACY:
            whole |= _LEGACY[permission]
        elif permission in _ADMIN:
            whole.add(permission)
        elif is_permission(permission):
            whole |= {name for name in _ADMIN if not name.startswith(_GUARDED) and _reaches(permission, name)}
            parts = permission.split(":", 2)
            if len(parts) == 3 and ":".join(parts[:2]) in _ADMIN and parts[2] != "*":
                single.add(permission)
    return frozenset(whole), frozenset(single)


def find_nearest(permission: str) -> str:
    """The known word that a permission without effect was probably meant to be, "" if none is near."""
    from difflib import get_close_matches

    near = get_close_matches(permission, list_known(), n=1, cutoff=0.6)
    return near[0] if near else ""


def list_known() -> list[str]:
    """Every permission that a role holds, and the words of older systems, sorted."""
    return sorted({*_ADMIN, *_LEGACY})


@lru_cache(maxsize=1024)
def has_effect(permission: str) -> bool:
    """Whether a written permission gives something, or is a word of another system (`read:posts`, contract 7.3).

    A single word that is none of ours, and one that names a thing or an action of ours beside a wrong one, as
    `camera:raed` does, give nothing to anybody.
    """
    if any(expand([permission])) or permission in CAPABILITIES or permission == "*":
        return True
    first, colon, rest = permission.partition(":")
    if not colon or not is_permission(permission):
        return False
    from difflib import get_close_matches

    nouns = {word for name in CAPABILITIES for word in (name.split(":")[0], f"{name.split(':')[0]}s")}
    return not any(get_close_matches(word, nouns, n=1, cutoff=0.8) for word in (first, rest.split(":")[0]))


def _reaches(pattern: str, capability: str) -> bool:
    noun, verb = capability.split(":")
    if pattern == "*":
        return True
    first, _, rest = pattern.partition(":")
    if rest == "*":
        return first in (noun, verb)
    if rest.endswith(":*"):
        return first == noun and rest[:-2] == verb
    return first == verb and noun in _subjects(rest)


def role_capabilities(roles: Iterable[str]) -> frozenset[str]:
    """The union over the known roles; unknown names give nothing."""
    return frozenset().union(*(ROLES[role] for role in roles if role in ROLES))


def compute(
    roles: frozenset[str], permissions: Iterable[str] | None, *, has_streams: bool
) -> tuple[frozenset[str], frozenset[str]]:
    """Capabilities and single grants of a credential (contract 7.3, steps 2 and 3, and 7.5).

    Permissions narrow a role and never widen it; without a role they reach everything but the guarded ones.
    Seeing a camera includes its stream unless the credential lists streams itself.
    """
    if permissions is None:
        return _compute_roles(roles, has_streams), frozenset()
    asked, single = expand(permissions)
    known = role_capabilities(roles)
    ceiling = known if roles & ROLES.keys() else frozenset(c for c in _ADMIN if not c.startswith(_GUARDED))
    whole = asked & ceiling
    single = frozenset(grant for grant in single if grant.rsplit(":", 1)[0] in ceiling)
    if not has_streams:
        if "camera:read" in whole:
            whole |= {"stream:read"}
        single |= {
            f"{_READERS[name]}:{thing}"
            for name, _, thing in (grant.rpartition(":") for grant in single)
            if name in _READERS
        }
    return whole, frozenset(single)


def name_cameras(camera_access: Collection[str] | None) -> frozenset[str] | None:
    """The cameras that a credential opens (contract S0-6); None, every one, if it has no list or one with `*` in it."""
    return None if camera_access is None or "*" in camera_access else frozenset(camera_access)


@lru_cache(maxsize=64)
def _compute_roles(roles: frozenset[str], has_streams: bool) -> frozenset[str]:
    """What roles alone give; asked with every token, and few are different."""
    whole = role_capabilities(roles)
    return whole | {"stream:read"} if "camera:read" in whole and not has_streams else whole
