"""The passwords of edged's own children: ffmpeg and MediaMTX show them to the gate, and nobody else knows them."""

from __future__ import annotations

import secrets

import msgspec

from edged.credentials.api_keys import digest


class _ChildSecret(msgspec.Struct):
    """Good for one path and one action, and for so many accepted uses (None: until dropped)."""

    path: str
    action: str
    uses: int | None


class ChildSecrets:
    """Passwords by their digest, in memory only; never waits."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, _ChildSecret] = {}

    def make(self, path: str, action: str, uses: int | None = 1) -> str:
        """A password for one child: `action` (publish, read, api) on `path`; gone after `uses` accepted questions."""
        secret = secrets.token_urlsafe(24)
        self._secrets[digest(secret)] = _ChildSecret(path, action, uses)
        return secret

    def drop(self, secret: str) -> None:
        """The child has ended: its password is worth nothing. Safe to say twice."""
        self._secrets.pop(digest(secret), None)

    def use(self, secret: str, path: str, action: str) -> bool:
        """Whether this is a child's password for this; an accepted use counts."""
        key = digest(secret)
        child = self._secrets.get(key)
        if child is None or child.path != path or child.action != action:
            return False
        if child.uses is not None:
            child.uses -= 1
            if child.uses <= 0:
                del self._secrets[key]
        return True
