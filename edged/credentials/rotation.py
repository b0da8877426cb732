"""Credentials whose secret can be replaced: for a while after it the old one is good beside the new."""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import msgspec
from msgspec.structs import replace

#: Replaced secrets that are kept: so many rotations may follow one another while the grace of the first still runs.
MOST_REPLACED: Final = 4


class Replaced(NamedTuple):
    """A secret that was replaced, by its SHA-256, and until when it is good; Unix seconds."""

    digest: bytes
    until: float


class Rotating(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the secrets of one credential: SHA-256 only; times are Unix seconds.

    After a rotation `previous_digest` is good until `previous_valid_until`; what was replaced before that, if its grace
    was promised, stands in `older`, the latest first.
    """

    digest: bytes
    rotated_at: float | None = None
    previous_digest: bytes | None = None
    previous_valid_until: float | None = None
    older: tuple[Replaced, ...] = ()

    @property
    def replaced(self) -> tuple[Replaced, ...]:
        """The secrets that were replaced and are kept, the latest first."""
        if self.previous_digest is None:
            return ()
        return (Replaced(self.previous_digest, self.previous_valid_until or 0.0), *self.older)

    @property
    def digests(self) -> frozenset[bytes]:
        """Of all its secrets, the present one and those that were replaced."""
        return frozenset({self.digest, *(each.digest for each in self.replaced)})

    def rotate(self, digest: bytes, now: float, grace_seconds: float) -> Self:
        """The same credential with a new secret; the present one is good for `grace_seconds` more, and those before it
        for as long as they were promised. With 0 all of them end.

        Of more than `MOST_REPLACED` the one that ends first is dropped: its grace should be over (`is_crowded`).
        """
        older = self.replaced if grace_seconds > 0 else ()
        if len(older) >= MOST_REPLACED:
            first = min(older, key=lambda each: each.until)
            older = tuple(each for each in older if each is not first)
        return replace(
            self,
            digest=digest,
            rotated_at=now,
            previous_digest=self.digest,
            previous_valid_until=now + grace_seconds,
            older=older,
        )

    def is_crowded(self, now: float) -> bool:
        """Whether one more rotation with a grace would drop a secret that is still good."""
        return len(self.replaced) >= MOST_REPLACED and all(each.until > now for each in self.replaced)
