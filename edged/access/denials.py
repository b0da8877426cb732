"""What is denied for good, by identity; and what came of one token by refreshing, which is denied together."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import msgspec

from edged.credentials.callers import Caller
from edged.credentials.identities import SCOPES, TOKENS, Identity, Kind, widen
from edged.credentials.tokens import ALGORITHM


class Family(msgspec.Struct):
    """All tokens that came of one by refreshing: since when, until when (Unix seconds), and by what they are named."""

    started: float
    until: float
    members: set[Identity]


class Denials:
    """A set of identities that grows by families. Written by the registrar only; never waits."""

    def __init__(self) -> None:
        self._denied: set[Identity] = set()
        self._families: dict[Identity, Family] = {}
        # The families that an identity is of; and what is denied only as a member of a family, with that family.
        self._families_of: dict[Identity, set[Identity]] = {}
        self._derived: dict[Identity, Identity] = {}
        #: Whether any token is denied by whom it is of, so that it has to be looked at what a token says of that.
        self.is_scoped = False

    @property
    def identities(self) -> AbstractSet[Identity]:
        """Everything that is denied: the same set for as long as this lives, to be read only."""
        return self._denied

    def __contains__(self, identity: object) -> bool:
        return identity in self._denied

    def has_any(self, identities: Iterable[Identity]) -> bool:
        """Whether one of these is denied."""
        return not self._denied.isdisjoint(identities)

    def add(self, identities: Iterable[Identity]) -> None:
        """Deny these, and all families that one of them is of."""
        fresh = set(identities)
        for each in fresh:
            self._derived.pop(each, None)
        self._denied |= fresh
        for family in self.families_of(fresh):
            self._deny_members(family)
        self.is_scoped = self.is_scoped or any(each.kind in SCOPES for each in fresh)

    def _deny_members(self, family: Identity) -> None:
        self._denied.add(family)
        for each in self._families[family].members - self._denied:
            self._denied.add(each)
            self._derived[each] = family

    def is_named(self, identity: Identity) -> bool:
        """Whether this very identity is denied, not only as a member of its family."""
        return identity in self._denied and identity not in self._derived

    def forget(self, identities: Iterable[Identity], families: Iterable[Identity] = ()) -> None:
        """Whatever answers to these ended long ago, and so did every token of these families."""
        gone = set(families)
        for each in gone:
            family = self._families.pop(each, None)
            for member in family.members if family else ():
                if self._derived.get(member) == each:
                    del self._derived[member]
                    self._denied.discard(member)
        if gone:
            left = {member: found - gone for member, found in self._families_of.items()}
            self._families_of = {member: found for member, found in left.items() if found}
        self._denied.difference_update(identities)

    # --- families ---------------------------------------------------------------------------------------------------

    def join(self, family: Identity, started: float, until: float, identities: Iterable[Identity]) -> None:
        """Tokens with these identities came of one by refreshing: a denial of one is one of all, from here on (contract
        10.5). A signing key among them denies the family and is not denied with it. Times are Unix seconds."""
        named = set(identities)
        known = self._families.setdefault(family, Family(started, until, set()))
        known.until = max(known.until, until)
        known.members |= {each for each in named if each.kind in TOKENS}
        named |= widen(named)
        for each in named | {family}:
            self._families_of.setdefault(each, set()).add(family)
        # What is denied only as a member of another family says nothing of this one.
        if family in self._denied or any(map(self.is_named, named)):
            self._deny_members(family)

    def find_family(self, family: Identity) -> Family | None:
        """A family by its identity; None if there is none."""
        return self._families.get(family)

    @property
    def families(self) -> AbstractSet[Identity]:
        """Every family."""
        return self._families.keys()

    def families_of(self, identities: Iterable[Identity]) -> frozenset[Identity]:
        """The families that a denial of these is one of."""
        if not self._families:
            return frozenset()
        return frozenset(family for each in identities for family in self._families_of.get(each, ()))

    def families_of_caller(self, caller: Caller) -> frozenset[Identity]:
        """The families of the token that made this caller: by its text; and by its jti where a key pair of ours signed
        it, as nobody else gives one. Others somebody else may have given to another token."""
        kinds, token = [Kind.TOKEN], caller.token
        is_by_secret = token is not None and token.signed_by is not None and token.signed_by.algorithm == ALGORITHM
        if token is not None and token.epoch is not None and not is_by_secret:
            kinds.append(Kind.JTI)
        return self.families_of(each for each in caller.identities if each.kind in kinds)

    def with_members(self, identities: Iterable[Identity]) -> frozenset[Identity]:
        """These, and everything that their families are made of."""
        named = frozenset(identities)
        return named.union(*(self._families[each].members for each in self.families_of(named)))
