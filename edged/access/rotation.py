"""What the rotation of a secret means for whoever is inside by an old one; keys and service tokens alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from edged.access.admissions import Admissions
from edged.credentials.rotation import Rotating
from edged.errors import InvalidParams

#: How long the old secret is good (contract 10.7), seconds.
GRACE_SECONDS: Final = 3600.0


def check_grace(seconds: float) -> None:
    """Raises InvalidParams."""
    if not 0 <= seconds < math.inf:
        raise InvalidParams("grace_seconds is negative or endless", hint="0 ends the old secret at once")


def shorten(admissions: Admissions, before: Rotating, grace_seconds: float, identity: Callable[[bytes], str]) -> None:
    """Whoever is inside by the secret that was replaced just now stays for the grace. `before`: as it was; `identity`:
    digest → the name that its callers answer to."""
    admissions.shorten([identity(before.digest)], grace_seconds)
    if before.previous_digest is not None:
        # Two secrets are good at a time; a rotation ends the one before both, whatever grace it still had.
        admissions.shorten([identity(before.previous_digest)], 0.0)
