"""Users: what is known of one, what they may do, and what tokens they get by their password (contract 7, 10.18)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

import msgspec
from msgspec.structs import replace

from edged.credentials import stream_names
from edged.credentials.callers import Caller, Streams
from edged.credentials.identities import Identity
from edged.credentials.roles import canonical_role, compute, name_cameras, role_capabilities
from edged.structs import Discreet

#: Names stand in tokens, URLs, lists and file paths: as the clients' own user ids (contract S3-18), but shorter, and
#: not to be taken for an option or a hidden file.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}\Z")
NAME_RULE: Final = "1 to 64 of A-Z a-z 0-9 . _ @ + -, a letter, digit or _ first, no two dots in a row"
#: Role → what a login's token lists for it: the words of the clients' own example (contract S2-4), and behind them the
#: word that reaches all of the role here (7.3), for by the others alone a viewer could see no camera.
_LISTED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "admin": ("read:*", "write:*", "delete:*", "admin"),
        "operator": ("read:posts", "write:own_posts", "view", "control"),
        "viewer": ("read:posts", "view"),
        "monitor": ("metrics:read", "system:read"),
    }
)


def is_user_name(text: str) -> bool:
    """Whether somebody may be called this."""
    return _NAME.match(text) is not None and ".." not in text


class UserRecord(Discreet, msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one user; times are Unix seconds. `password` is an argon2id hash, None if there is none yet.

    Tokens of theirs that edged issued at an epoch before `epoch` are worth nothing. A deleted user stays known, so
    that their tokens do. `streams` None: those of the cameras that they may see; else exactly these (contract 7.5).
    """

    hidden: ClassVar = frozenset({"password"})

    name: str
    role: str
    created_at: float
    epoch: int
    display_name: str = ""
    permissions: tuple[str, ...] | None = None
    camera_access: tuple[str, ...] | None = None
    streams: Streams | None = None
    password: str | None = None
    password_changed_at: float | None = None
    disabled_at: float | None = None
    deleted_at: float | None = None

    @property
    def status(self) -> str:
        """active, disabled or deleted."""
        if self.deleted_at is not None:
            return "deleted"
        return "active" if self.disabled_at is None else "disabled"

    @property
    def rights(self) -> Caller:
        """What they may do, as a caller; a disabled or deleted one nothing, but that is asked beside this."""
        roles = frozenset({canonical_role(self.role)})
        whole, single = compute(roles, self.permissions, has_streams=self.streams is not None)
        return Caller(
            method="none",
            subject=self.name,
            name=self.display_name or self.name,
            roles=roles,
            capabilities=whole,
            grants=single,
            cameras=name_cameras(self.camera_access),
            streams=self.streams,
        )

    @property
    def can_administer(self) -> bool:
        """Whether they have what it takes to log in now and administer users; what is denied is asked beside this
        (accounts.users)."""
        return self.status == "active" and self.password is not None and "users:admin" in self.rights.capabilities

    def login_claims(self) -> dict[str, object]:
        """What a login's token says of them, in the clients' own words (contract S2-11)."""
        role = canonical_role(self.role)
        listed = _LISTED.get(role, ()) if self.permissions is None else self.permissions
        return {"sub": login_subject(self.name), "username": self.name, "roles": [role], "permissions": list(listed)}


def login_subject(name: str) -> str:
    """What a login's token calls the user in `sub` (contract S2-11)."""
    return f"user_{name}"


def login_identities(name: str) -> tuple[Identity, ...]:
    """By what a revocation of a subject hits every login of a user (credentials.scopes)."""
    written = login_subject(name)
    of_user, of_subject = Identity.of_user, Identity.of_subject
    return of_user(name), of_user(written), of_subject("", name), of_subject("", written)


def loses(before: UserRecord, after: UserRecord) -> bool:
    """Whether a user may do less afterwards, or is less: then tokens that say the former are worth nothing."""
    lower = role_capabilities({canonical_role(before.role)}) - role_capabilities({canonical_role(after.role)})
    return bool(lower) or not after.rights.covers(before.rights)


def gains(before: UserRecord, after: UserRecord) -> bool:
    """Whether a user may do more afterwards."""
    return not before.rights.covers(after.rights)


def common(before: UserRecord, after: UserRecord) -> UserRecord:
    """`after`, held to what `before` could do already: what may be in force before it is on disk."""
    rights = narrow(after.rights, before.rights)
    return replace(
        after,
        permissions=(*sorted(rights.capabilities), *sorted(rights.grants)),
        camera_access=None if rights.cameras is None else tuple(sorted(rights.cameras)),
        streams=rights.streams,
    )


def narrow(caller: Caller, by: Caller) -> Caller:
    """`caller`, held to what `by` may do: it can do nothing that either cannot. Cameras are compared as written."""
    grants = frozenset(g for g in caller.grants if _holds(by, g)) | frozenset(g for g in by.grants if _holds(caller, g))
    return dataclasses.replace(
        caller,
        roles=_lower(caller.roles, by.roles),
        capabilities=caller.capabilities & by.capabilities,
        grants=grants,
        cameras=_both(caller.cameras, by.cameras),
        streams=_narrow_streams(caller, by),
    )


def _lower(roles: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    """The roles that hold less; none if each holds something that the others do not."""
    mine, theirs = role_capabilities(roles), role_capabilities(others)
    if mine <= theirs:
        return roles
    return others if theirs <= mine else frozenset()


def _holds(caller: Caller, grant: str) -> bool:
    return grant in caller.grants or grant.rpartition(":")[0] in caller.capabilities


def _both(names: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    """What is in both sets; None is everything."""
    if names is None:
        return others
    return names if others is None else names & others


def _narrow_streams(caller: Caller, by: Caller) -> Streams | None:
    if caller.streams is None and by.streams is None:
        return None
    read, publish = (
        stream_names.common(_paths(caller, capability), _paths(by, capability))
        for capability in ("stream:read", "stream:publish")
    )
    return Streams(read, publish)


def _paths(caller: Caller, capability: str) -> frozenset[str]:
    """The streams that a caller may read or publish, as rights name them."""
    if caller.streams is not None:
        return caller.streams.of(capability)
    if capability in caller.capabilities:
        paths = caller.cameras
    else:
        granted = (grant.rpartition(":") for grant in caller.grants)
        paths = _both(frozenset(path for name, _, path in granted if name == capability), caller.cameras)
    return frozenset({stream_names.ALL}) if paths is None else stream_names.without_beginnings(paths)
