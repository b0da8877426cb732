"""Everything that can be asked of edged. Beside reactions the only place that uses more than one package below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edged.operations import (
    added_cameras,
    api_keys,
    cameras,
    clock,
    events,
    files,
    first_admin,
    introspection,
    logins,
    refreshes,
    restores,
    revocations,
    service_tokens,
    sessions,
    signing_keys,
    snapshots,
    streams,
    system,
    tickets,
    tokens,
    users,
)
from edged.operations.catalogue import Catalogue

#: What is asked now and then, and by few: counted by noun, so that the metrics stay few as the operations grow.
ADMINISTRATION: Final = frozenset(
    {
        "api_keys",
        "users",
        "logins",
        "service_tokens",
        "tokens",
        "signing_keys",
        "revocations",
        "first_admin",
        "clock",
        "added_cameras",
    }
)

#: Nouns that are counted with another one, what they are about.
_COUNTED_WITH: Final = {"introspection": "tokens", "files": "service_tokens", "restores": "clock"}


def metric_labels(catalogue: Catalogue) -> Mapping[str, str]:
    """Operation → what the metrics call it: its own name, or the noun that it administers."""
    nouns = {item.name: _COUNTED_WITH.get(item.noun, item.noun) for item in catalogue.operations.values()}
    return {name: noun if noun in ADMINISTRATION else name for name, noun in nouns.items()}


def gather() -> Catalogue:
    """All operations. Raises ValueError if one of them names no capability."""
    return Catalogue.gather(
        sessions,
        cameras,
        added_cameras,
        snapshots,
        streams,
        tickets,
        events,
        api_keys,
        users,
        logins,
        service_tokens,
        files,
        tokens,
        introspection,
        refreshes,
        signing_keys,
        revocations,
        first_admin,
        system,
        clock,
        restores,
    )
