"""API keys: 256 random bits as `camera_service_sk_` + 64 hex, kept as SHA-256 (contract S1-5).

Keys that another service has issued look otherwise; what counts is their SHA-256 alone (contract C-24).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from edged.credentials.callers import API_KEY_PREFIX, Caller, Streams
from edged.credentials.identities import Identity
from edged.credentials.roles import canonical_role, compute, name_cameras
from edged.credentials.rotation import Rotating

#: SHA-256 in hex of keys that everybody has read → where they are printed. Never a key here, whoever brings it.
PUBLISHED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "8df736ef83b1709d5a854c1ecff35cf0efc84d85715e3fdb315aedcd463e8df0": "the client guide's sample key",
    }
)

_SHAPE = re.compile(r"camera_service_sk_[A-Za-z0-9]{64}\Z")


class MintedKey(NamedTuple):
    """A new key: `key_id` is public, `secret` is shown once, `digest` is what is stored."""

    key_id: str
    secret: str
    digest: bytes


def mint_key_id() -> str:
    """`key_` + 16 hex; never reused in practice (64 random bits)."""
    return f"key_{secrets.token_hex(8)}"


def mint_secret() -> tuple[str, bytes]:
    """A new secret and its digest."""
    secret = API_KEY_PREFIX + secrets.token_hex(32)
    return secret, digest(secret)


def mint() -> MintedKey:
    """A new key with a new id."""
    return MintedKey(mint_key_id(), *mint_secret())


def is_well_formed(secret: str) -> bool:
    """Whether text has the issued form (accepted tail: 64 letters or digits)."""
    return _SHAPE.match(secret) is not None


def digest(secret: str) -> bytes:
    """What the store and the ledger know a key by: SHA-256 of its UTF-8 text."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def published_as(key_digest: bytes) -> str | None:
    """Where the key of this digest is printed for everybody to read; None if it is not known to be."""
    return PUBLISHED.get(key_digest.hex())


class KeyRecord(Rotating, frozen=True, kw_only=True):
    """What is known of one API key; times are Unix seconds. The secret is nowhere.

    A revoked key stays known, so that its use is told from a wrong key. A suspended one comes back when it is resumed.
    `streams` None: those of the cameras that it may see; else exactly these (contract 7.5). With an `owner`, a user's
    name, it can do at most what they may, and rests while they are disabled or deleted (10.18). `made_by`: the names of
    whoever made it (credentials.claims.makers_of); nothing for root, and for keys of earlier versions.
    """

    key_id: str
    name: str
    role: str
    created_at: float
    expires_at: float | None = None
    permissions: tuple[str, ...] | None = None
    camera_access: tuple[str, ...] | None = None
    streams: Streams | None = None
    owner: str | None = None
    made_by: frozenset[Identity] = frozenset()
    revoked_at: float | None = None
    suspended_at: float | None = None

    def status(self, now: float) -> str:
        """active, expired, suspended or revoked: what the gate would say first."""
        if self.revoked_at is not None:
            return "revoked"
        if self.suspended_at is not None:
            return "suspended"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"


def key_caller(record: KeyRecord, key_digest: bytes, expires: float | None) -> Caller:
    """The caller that one secret of a key speaks for until `expires` (Unix seconds, None: no end)."""
    roles = frozenset({canonical_role(record.role)})
    whole, single = compute(roles, record.permissions, has_streams=record.streams is not None)
    identity = Identity.of_key(record.key_id)
    return Caller(
        method="api_key",
        subject=str(identity),
        name=record.name,
        roles=roles,
        capabilities=whole,
        grants=single,
        cameras=name_cameras(record.camera_access),
        streams=record.streams,
        expires=expires,
        identities=frozenset({identity, Identity.of_secret(key_digest)}),
        credential_id=record.key_id,
        permissions=record.permissions or (),
    )
