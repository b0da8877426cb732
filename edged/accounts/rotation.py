"""What the rotation of a secret means for whoever is inside by an old one; keys and service tokens alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from edged.access.admissions import Admissions
from edged.clock import iso
from edged.credentials.identities import Identity
from edged.credentials.rotation import MOST_REPLACED, Rotating
from edged.errors import InvalidParams, InvalidState

#: How long the old secret is good (contract 10.7), seconds.
GRACE_SECONDS: Final = 3600.0


def check_grace(seconds: float) -> None:
    """Raises InvalidParams."""
    if not 0 <= seconds < math.inf:
        raise InvalidParams("grace_seconds is negative or endless", hint="0 ends the old secret at once")


def check_capacity(before: Rotating, now: float, grace_seconds: float) -> None:
    """Raises InvalidState if a secret that was promised to be good for longer would have to go. `now`: Unix seconds."""
    if grace_seconds > 0 and before.is_crowded(now):
        first = min(each.until for each in before.replaced)
        raise InvalidState(
            f"{MOST_REPLACED} earlier secrets of it are in their grace, the first until {iso(first)}",
            hint="rotate again then, or with grace_seconds 0, which ends all of them now",
        )


def shorten(
    admissions: Admissions, before: Rotating, grace_seconds: float, identity: Callable[[bytes], Identity]
) -> None:
    """Whoever is inside by the secret that was replaced just now stays for the grace; with 0 nobody stays who came by
    an earlier one either. `before`: as it was; `identity`: digest → what its callers answer to."""
    ended = [before.digest] if grace_seconds > 0 else before.digests
    admissions.shorten([identity(each) for each in ended], grace_seconds)
