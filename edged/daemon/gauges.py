"""Where the gauges of edged.metrics are read from when somebody scrapes."""

from __future__ import annotations

from collections.abc import Mapping

from edged.cameras.model import Status
from edged.cameras.registry import Registry
from edged.config.model import Config
from edged.daemon.access import Access
from edged.daemon.media import Media
from edged.library.disks import RECORDING, Disks
from edged.library.recording_index import Recorded
from edged.library.recordings import Recordings
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
    clock, ledger, accounts, recordings = access.clock, access.ledger, access.accounts, services.recordings

    metrics.gauges.watch(
        sessions=lambda: count_sessions(services),
        connections=lambda: server.connections,
        cameras=lambda: {camera.name: _CAMERA_STATES[camera.status] for camera in cameras.all()},
        children=lambda: count_children(media),
        camera_causes=lambda: count_causes(cameras.all()),
        camera_restarts=lambda: {camera.name: media.conditions.find(camera.name).restarts for camera in cameras.all()},
        api_keys=lambda: ledger.count_keys(clock.now()),
        mediamtx_version=lambda: media.mediamtx.state.version,
        clock=lambda: (clock.is_synchronized, clock.is_trusted, clock.high_water()),
        issuers=access.issuers.last_success,
        pending_revocations=lambda: accounts.registrar.pending,
        health=lambda: count_problems(services),
        restore_unconfirmed=lambda: accounts.restores.pending is not None,
        recorded=lambda: {camera.name: count_recorded(recordings, camera.name) for camera in cameras.all()},
        oldest_recording=lambda: recordings.index.oldest,
        camera_flaps=lambda: {camera.name: cameras.flaps[camera.name] for camera in cameras.all()},
        identity_conflicts=lambda: cameras.waiting,
        quarantined_ports=lambda: cameras.quarantined,
        disks=lambda: {disk.name: disk.free_bytes for disk in disks.latest},
    )


def count_recorded(recordings: Recordings, camera: str) -> tuple[int, float, int]:
    """Bytes, seconds and gaps of a camera since the start."""
    recorded = recordings.index.recorded.get(camera, Recorded())
    return recorded.size, round(recorded.seconds, 3), recordings.gaps.counts[camera]


def build_disks(config: Config) -> Disks:
    """Every folder that edged writes to."""
    folders = {
        "state": config.paths.state, "runtime": config.paths.runtime, "media": config.snapshots.folder,
        RECORDING: config.recording.folder,
    }  # fmt: skip
    return Disks(folders, config.limits.disk_low_mib * 1024 * 1024)


def count_children(media: Media) -> Mapping[str, int]:
    """Running child processes by what they are."""
    return {
        "mediamtx": int(media.mediamtx.state.pid is not None),
        "publisher": sum(state.pid is not None for state in media.publishers.states.values()),
        "frames": len(media.frames.running),
    }
