"""All operations. Beside reactions this is the only package that uses more than one of those below."""

from __future__ import annotations

from collections.abc import Mapping

from edged.operations import (
    added_cameras,
    api_key_imports,
    api_key_secrets,
    api_keys,
    camera_devices,
    cameras,
    clips,
    clock,
    event_ring,
    events,
    evidence,
    files,
    first_admin,
    introspection,
    links,
    logins,
    playback,
    recordings,
    refreshes,
    reports,
    restores,
    revocations,
    service_tokens,
    sessions,
    signing_keys,
    snapshots,
    storage,
    streams,
    system,
    tickets,
    timeline,
    tokens,
    users,
)
from edged.operations.catalogue import Catalogue


def metric_labels(catalogue: Catalogue) -> Mapping[str, str]:
    """Operation → its label in the metrics."""
    return {item.name: item.counted_as for item in catalogue.operations.values()}


def gather() -> Catalogue:
    """All operations. Raises ValueError if one of them names no capability."""
    return Catalogue.gather(
        sessions,
        cameras,
        added_cameras,
        camera_devices,
        snapshots,
        recordings,
        evidence,
        clips,
        storage,
        streams,
        tickets,
        links,
        events,
        event_ring,
        timeline,
        playback,
        reports,
        api_key_secrets,
        api_keys,
        api_key_imports,
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
