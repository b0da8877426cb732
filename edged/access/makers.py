"""By whom the makers of keys were made, also those that are revoked on disk and not in memory any more.

A revocation may include what a credential has made, and what that has made in its turn: the chain must not break where
one in the middle was revoked before.
"""

from __future__ import annotations

from collections.abc import Iterable

from edged.credentials.identities import Identity, Kind

_KINDS = (Kind.KEY, Kind.SERVICE_TOKEN)


class Makers:
    """Of what is revoked on disk only what has made something that is not, directly or not."""

    def __init__(self) -> None:
        #: By whom each of them was made.
        self.retired: dict[Identity, frozenset[Identity]] = {}
        # How many that are known were made by a key or a service token.
        self._made: dict[Identity, int] = {}

    def add(self, made_by: Iterable[Identity]) -> None:
        """Something is known that these have made."""
        for maker in made_by:
            if maker.kind in _KINDS:
                self._made[maker] = self._made.get(maker, 0) + 1

    def retire(self, identity: Identity, made_by: frozenset[Identity]) -> None:
        """What these have made is revoked on disk."""
        if identity in self._made:
            self.retired[identity] = made_by
        else:
            self._remove(made_by)

    def load(self, identity: Identity, made_by: frozenset[Identity]) -> None:
        """At a start: one of `missing` was made by these."""
        self.add(made_by)
        self.retired[identity] = made_by

    def missing(self, known: Iterable[Identity]) -> set[Identity]:
        """The makers of which nothing is said yet, besides the `known` ones."""
        return self._made.keys() - self.retired.keys() - set(known)

    def _remove(self, made_by: Iterable[Identity]) -> None:
        for maker in made_by:
            if maker.kind not in _KINDS:
                continue
            self._made[maker] -= 1
            if not self._made[maker]:
                del self._made[maker]
                if maker in self.retired:
                    self._remove(self.retired.pop(maker))
