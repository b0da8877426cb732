"""Where an outside issuer names roles in its tokens, and what its words mean here.

No identity provider says "viewer": Keycloak lists words of its own at `realm_access.roles`, Entra ID at `roles`,
Cognito at `cognito:groups`, others at a claim that they name by a URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from edged.credentials.claims import ClaimsRefused, read_roles
from edged.credentials.decision import Reason
from edged.credentials.roles import canonical_role


class RoleClaim(NamedTuple):
    """`path` names the claim, "" for `role` and `roles`. `words` are theirs → our roles; without any they are ours."""

    path: str = ""
    words: Mapping[str, str] = MappingProxyType({})

    def read(self, claims: Mapping[str, object]) -> frozenset[str]:
        """The roles that a token names, by our names. Raises ClaimsRefused for a claim of another type.

        A word that is not in the table gives nothing, also where it is the name of a role of edged; and where the
        roles stand elsewhere, `role` and `roles` say nothing.
        """
        said = read_roles(claims) if not self.path else _texts(find_claim(claims, self.path), self.path)
        if not self.words:
            return frozenset(map(canonical_role, said))
        return frozenset(canonical_role(self.words[word]) for word in said if word in self.words)


#: How edged's own tokens say it, and those by its shared secrets.
OWN: Final = RoleClaim()


def find_claim(claims: Mapping[str, object], path: str) -> object:
    """The value at a dotted path, None where nothing is.

    A name may hold dots itself, such as `https://example.com/roles`: the longest name that is there counts.
    """
    if path in claims:
        return claims[path]
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        inner = claims.get(".".join(parts[:count]))
        if isinstance(inner, Mapping):
            return find_claim(inner, ".".join(parts[count:]))
    return None


def _texts(value: object, path: str) -> list[str]:
    """One word, or a list of words, as many as a token can hold: people are in many groups."""
    if value is None:
        return []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        raise ClaimsRefused(Reason.MALFORMED, f"{path} is neither a string nor a list of strings")
    return listed
