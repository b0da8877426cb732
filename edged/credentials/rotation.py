"""Credentials whose secret can be replaced: for a while after it the old one is good beside the new."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotating:
    """What is known of the secrets of one credential: SHA-256 only; times are Unix seconds.

    After a rotation `previous_digest` is good until `previous_valid_until`.
    """

    digest: bytes
    rotated_at: float | None = None
    previous_digest: bytes | None = None
    previous_valid_until: float | None = None

    def rotate(self, digest: bytes, now: float, grace_seconds: float) -> Self:
        """The same credential with a new secret; the present one is good for `grace_seconds` more, the one before it
        no more."""
        return replace(
            self,
            digest=digest,
            rotated_at=now,
            previous_digest=self.digest,
            previous_valid_until=now + grace_seconds,
        )
