"""Rights in params and replies, and the rule that nobody hands on more than their own (contract 10.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from edged.credentials import stream_names
from edged.credentials.callers import Caller, Streams
from edged.credentials.decision import Reason
from edged.credentials.roles import canonical_role, compute, is_permission, name_cameras
from edged.errors import Denied, InvalidParams
from edged.operations.catalogue import OperationCall

Role = Literal["monitor", "viewer", "operator", "user", "admin"]
_MOST: Final = 64
_LONGEST: Final = 128


class StreamAccess(msgspec.Struct, frozen=True):
    """Paths of MediaMTX to read and to publish to; `cam*` for all that begin so, `*` for all (contract 7.5, C-32)."""

    read: list[str] = []
    publish: list[str] = []


class Grantor:
    """The caller of a call as one who hands rights on, also if the session belongs to another caller later."""

    def __init__(self, call: OperationCall) -> None:
        assert call.session.caller is not None, "the gate lets nobody ask this without a caller"
        self._caller = call.session.caller
        self._gate = call.services.gate
        self._api_keys = call.services.api_keys

    def refuse_widening(
        self,
        role: str,
        permissions: Sequence[str] | None,
        camera_access: Sequence[str] | None,
        streams: Streams | None = None,
        roles: Sequence[str] = (),
    ) -> None:
        """Raises Denied unless the caller has all of these rights now (contract 10.1); `roles` are further ones."""
        named = frozenset(map(canonical_role, (role, *roles)))
        whole, single = compute(named, permissions, has_streams=streams is not None)
        asked = Caller("api_key", "", named, whole, single, name_cameras(camera_access), streams)
        if not self._gate.current(self._caller).covers(asked):
            raise Denied(
                Reason.MISSING_SCOPE,
                "nobody can hand on more than they may do themselves",
                required=role or None,
                have=self._caller.role,
            )

    def refuse_key(self, key_id: str) -> None:
        """Raises Denied unless the caller could create this key as it is now, NotFound."""
        held = self._api_keys.find(key_id)
        self.refuse_widening(held.role, held.permissions, held.camera_access, held.streams)


def read_names(member: str, names: list[str] | None) -> tuple[str, ...] | None:
    """Permissions or cameras, checked. Raises InvalidParams naming the first bad one."""
    if names is None:
        return None
    if len(names) > _MOST:
        raise InvalidParams(f"{member} has more than {_MOST} entries")
    for name in names:
        if not 0 < len(name) <= _LONGEST or (member == "permissions" and not is_permission(name)):
            raise InvalidParams(f"{member} entry {name[:_LONGEST]!r} is not a valid name")
    return tuple(names)


def read_streams(streams: StreamAccess | None) -> Streams | None:
    """Streams, checked. Raises InvalidParams naming the first bad one."""
    if streams is None:
        return None
    for name in (*streams.read, *streams.publish):
        if not 0 < len(name) <= _LONGEST or not stream_names.is_grant(name):
            raise InvalidParams(f"streams entry {name[:_LONGEST]!r} is no path's name, nor how it begins (cam*), nor *")
    if len(streams.read) + len(streams.publish) > _MOST:
        raise InvalidParams(f"streams has more than {_MOST} entries")
    return Streams(frozenset(streams.read), frozenset(streams.publish))


def show_streams(streams: Streams | None) -> StreamAccess | None:
    """Stream rights in the form of params."""
    return None if streams is None else StreamAccess(sorted(streams.read), sorted(streams.publish))
