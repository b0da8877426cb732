"""The header of a compact JWS: the three members that are read, and those for which a token is refused.

A member that only gives a hint is ignored (RFC 7515 section 4): identity providers write `x5t`, `x5t#S256`, `nonce`,
`cty` and names of their own. A token is refused for a member that names or holds a key (RFC 8725 3.10), that says
that others must be understood, or that makes it something else than a signed token.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from edged.credentials.decision import Reason

#: Keys and places of keys; `crit` (RFC 7515 4.1.11), `b64` (RFC 7797); what only encrypted tokens have (RFC 7516 4.1,
#: RFC 7518 4.6.1, 4.7.1, 4.8.1).
REFUSED: Final = frozenset(
    {
        "jku", "jwk", "x5u", "x5c", "crit", "b64",
        "enc", "zip", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c",
    }
)  # fmt: skip
#: Media types of tokens that edged reads (RFC 7519 5.1, RFC 9068 2.1), without `application/` and in lower case.
TYPES: Final = frozenset({"jwt", "at+jwt"})
_APPLICATION: Final = "application/"
#: Other issuers name their keys as they like; the name is looked up in memory among the keys of that issuer.
_KID = re.compile(r"[!-~]{1,128}\Z")


class TokenHeader(NamedTuple):
    """`alg` is "" where it is not a text, `kid` where there is none or none that could be looked up.

    `fault` is why no token with this header is good: a reason and a detail for the log; None for most.
    """

    alg: str
    kid: str
    names_key: bool
    fault: tuple[Reason, str] | None


def read_header(members: dict[str, object], algorithms: frozenset[str]) -> TokenHeader:
    """The members of a header → what is read of them; `algorithms` are those that can be verified at all."""
    alg, kid = members.get("alg"), members.get("kid")
    good_kid = kid if isinstance(kid, str) and _KID.match(kid) else ""
    return TokenHeader(
        alg if isinstance(alg, str) else "", good_kid, "kid" in members, _find_fault(members, algorithms, good_kid)
    )


def _find_fault(members: dict[str, object], algorithms: frozenset[str], good_kid: str) -> tuple[Reason, str] | None:
    alg, typ = members.get("alg"), members.get("typ", "JWT")
    if not isinstance(alg, str) or alg not in algorithms:
        return Reason.ALG_NOT_ALLOWED, "its alg is none that is verified here"
    if refused := REFUSED & members.keys():
        return Reason.MALFORMED, f"header member {min(refused)!r} is not accepted"
    if not isinstance(typ, str) or not is_jwt(typ):
        return Reason.MALFORMED, "typ is not JWT"
    if "kid" in members and not good_kid:
        return Reason.MALFORMED, "kid is not a short printable name"
    return None


def is_jwt(typ: str) -> bool:
    """Whether this media type is a JWT's. Case does not count, `application/` may be left out (RFC 7515 4.1.9)."""
    return typ.lower().removeprefix(_APPLICATION) in TYPES
