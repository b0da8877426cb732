"""Where the gauges of edged.metrics are read from when somebody scrapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from edged.cameras.model import Status
from edged.cameras.registry import Registry
from edged.daemon.access import Access
from edged.daemon.media import Media
from edged.library.disks import Disks
from edged.metrics import Metrics
from edged.net.server import Server
from edged.operations.health import count_causes, count_problems
from edged.operations.services import Services
from edged.operations.sessions import count_sessions

_CAMERA_STATES = {Status.CONNECTED: True, Status.DISCONNECTED: False, Status.ERROR: None}


def watch(
    metrics: Metrics, access: Access, cameras: Registry, media: Media, disks: Disks, server: Server, services: Services
) -> None:
    """Have every gauge read from where its number stands."""
    clock, ledger, accounts = access.clock, access.ledger, access.accounts

    def count_keys() -> Mapping[str, int]:
        now = clock.now()
        counts = Counter(ledger.key_status(record, now) for record in ledger.keys.values())
        counts["revoked"] += len(ledger.revoked_keys)
        return counts

    metrics.gauges.watch(
        sessions=lambda: count_sessions(services),
        connections=lambda: server.connections,
        cameras=lambda: {camera.name: _CAMERA_STATES[camera.status] for camera in cameras.all()},
        children=lambda: count_children(media),
        camera_causes=lambda: count_causes(cameras.all()),
        camera_restarts=lambda: {camera.name: media.conditions.find(camera.name).restarts for camera in cameras.all()},
        api_keys=count_keys,
        mediamtx_version=lambda: media.mediamtx.state.version,
        clock=lambda: (clock.is_synchronized, clock.is_trusted, clock.high_water()),
        issuers=access.issuers.last_success,
        pending_revocations=lambda: accounts.registrar.pending,
        health=lambda: count_problems(services),
        restore_unconfirmed=lambda: accounts.restores.pending is not None,
        disks=lambda: {disk.name: disk.free_bytes for disk in disks.latest},
    )


def count_children(media: Media) -> Mapping[str, int]:
    """Running child processes by what they are."""
    return {
        "mediamtx": int(media.mediamtx.state.pid is not None),
        "publisher": sum(state.pid is not None for state in media.publishers.states.values()),
        "frames": len(media.frames.running),
    }
