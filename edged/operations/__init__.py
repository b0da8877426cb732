"""The only place, beside reactions, where two rooms meet: everything that can be asked of edged."""

from __future__ import annotations

from edged.operations import (
    api_keys,
    cameras,
    clock,
    events,
    revocations,
    sessions,
    signing_keys,
    snapshots,
    streams,
    system,
    tickets,
    tokens,
)
from edged.operations.catalogue import Catalogue


def gather() -> Catalogue:
    """All operations. Raises ValueError if one of them names no capability."""
    return Catalogue.gather(
        sessions,
        cameras,
        snapshots,
        streams,
        tickets,
        events,
        api_keys,
        tokens,
        signing_keys,
        revocations,
        system,
        clock,
    )
