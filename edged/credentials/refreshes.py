"""Refresh: from a token to the claims of its one successor (contract 10.5; S0-13 to S0-16).

A successor says what the token said, with a new `iat`, `exp` and `jti`: nothing is added that lets it do more. Streams
that the token names by a map it names as every token of edged does (contract C-30). All that come of one token by
refreshing are its family, which ends 30 days after that first token was issued.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Final

from edged.credentials.callers import Caller, Signer
from edged.credentials.claims import write_streams
from edged.credentials.identities import Identity, Kind
from edged.credentials.tokens import ALGORITHM

#: How long a family lives, from the issue of its first token, seconds.
FAMILY_SECONDS: Final = 30 * 86400.0
#: The life of a successor of a token that somebody else made, or that did not say how long it was to live, seconds
#: (S0-7, S0-13).
USUAL_LIFE: Final = 86400


def signer_of(caller: Caller) -> Signer | None:
    """What signed this caller's token; None where edged cannot sign the like of it: then it cannot be refreshed."""
    return caller.token.signed_by if caller.method == "jwt_local" and caller.token is not None else None


def text_of(caller: Caller) -> Identity:
    """The identity of this token's very text."""
    return next(each for each in caller.identities if each.kind is Kind.TOKEN)


def name_of(caller: Caller, signer: Signer) -> str:
    """What a token is known by when it is refreshed once more, in hex: the same for each text of one successor.

    With a `jti` that is all that it says, so that two tokens to which somebody gave one jti are two; without one it is
    its text (S0-8). Our key pairs follow each other, so that their kid is left out.
    """
    if "jti" not in caller.claims:
        return text_of(caller).value
    key = signer.name if signer.algorithm == ALGORITHM else ""
    told = json.dumps([signer.algorithm, key, caller.claims], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def started_at(caller: Caller, now: float) -> float:
    """When the family of this first token began, Unix seconds: at its issue, if it says when that was."""
    issued = caller.claims.get("iat")
    return min(float(issued), now) if isinstance(issued, (int, float)) else now


def renew(caller: Caller, signer: Signer, *, now: float, started: float, epoch: int) -> dict[str, object] | None:
    """The claims of the successor; None once the family that began at `started` is over. Times are Unix seconds.

    One of edged's own lives as long as it did, and says the `epoch` of now; one that others made by a shared secret a
    day (S0-13): their clients ask anew an hour before the end. None outlives its family. By a shared secret it names no
    audience, which guide S0's own validator refuses (S0-11).
    """
    issued = int(now)
    ends = min(issued + _life_of(caller), int(started + FAMILY_SECONDS))
    if ends <= now:
        return None
    claims = dict(caller.claims)
    if signer.algorithm == ALGORITHM:
        claims.pop("aud", None)
    if caller.epoch is not None:
        claims["epoch"] = epoch
    if caller.streams is not None and isinstance(claims.get("mediamtx_permissions"), dict):
        claims |= write_streams(caller.streams)
    return {**claims, "iat": issued, "exp": ends, "jti": secrets.token_urlsafe(16)}


def _life_of(caller: Caller) -> int:
    issued = caller.claims.get("iat")
    if caller.epoch is None or caller.expires is None or not isinstance(issued, (int, float)):
        return USUAL_LIFE
    return max(1, int(caller.expires - issued))
