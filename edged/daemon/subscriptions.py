"""Who reads whose feed: the subscriptions, made before anything can be published, and the reactions that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from edged.access.admissions import Ended
from edged.cameras.model import Camera, CameraChanged
from edged.cameras.registry import Registry
from edged.daemon.access import Access
from edged.daemon.media import Media
from edged.daemon.nurseries import Task
from edged.feeds import Reader
from edged.library.active_recordings import RecordingChanged
from edged.library.event_ring import EventRing
from edged.library.gaps import Gap
from edged.library.recordings import Recordings
from edged.library.snapshots import SnapshotChanged, Snapshots
from edged.mediamtx.server_state import ServerState
from edged.metrics import Metrics
from edged.operations.listings import CameraRow, row
from edged.operations.services import Services
from edged.reactions import cameras as camera_reactions
from edged.reactions import clock_upkeep, revocations
from edged.reactions import events as event_reactions
from edged.reactions import mediamtx as mediamtx_reactions
from edged.reactions import recordings as recording_reactions
from edged.reactions import viewers as viewer_reactions
from edged.rpc import camera_notifications, event_notifications, recording_notifications
from edged.rpc.endpoint import RpcEndpoint
from edged.store.events import EventRow


class Feeds(msgspec.Struct, frozen=True):
    """One reader of each feed for each who follows it."""

    cameras_for_media: Reader[CameraChanged]
    cameras_for_clients: Reader[CameraChanged]
    cameras_for_recordings: Reader[CameraChanged]
    recordings_for_clients: Reader[RecordingChanged]
    endings: Reader[Ended]
    media_states: Reader[ServerState]
    sources: Reader[str]
    cameras_for_events: Reader[CameraChanged]
    recordings_for_events: Reader[RecordingChanged]
    gaps_for_events: Reader[Gap]
    snapshots_for_events: Reader[SnapshotChanged]
    jumps_for_events: Reader[float]
    events_for_clients: Reader[EventRow]


@contextmanager
def subscribed(
    access: Access, cameras: Registry, media: Media, recordings: Recordings, snapshots: Snapshots, events: EventRing
) -> Iterator[Feeds]:
    """Subscribe to every feed while the block runs."""
    with (
        cameras.changes.subscribe() as for_media,
        cameras.changes.subscribe() as for_clients,
        cameras.changes.subscribe() as for_recordings,
        recordings.changes.subscribe() as recorded,
        access.admissions.endings.subscribe() as endings,
        media.mediamtx.states.subscribe() as states,
        media.conditions.changes.subscribe() as sources,
        cameras.changes.subscribe() as cameras_for_events,
        recordings.changes.subscribe() as recorded_for_events,
        recordings.gaps.changes.subscribe() as gaps,
        snapshots.changes.subscribe() as taken,
        access.jumps.subscribe() as jumps,
        events.added.subscribe() as happened,
    ):
        yield Feeds(
            for_media, for_clients, for_recordings, recorded, endings, states, sources, cameras_for_events,
            recorded_for_events, gaps, taken, jumps, happened,
        )  # fmt: skip


def event_tasks(feeds: Feeds, events: EventRing) -> tuple[Task, ...]:
    """What follows for the ring of events."""
    return (
        partial(event_reactions.follow_cameras, feeds.cameras_for_events, events),
        partial(event_reactions.follow_recordings, feeds.recordings_for_events, events),
        partial(event_reactions.follow_gaps, feeds.gaps_for_events, events),
        partial(event_reactions.follow_snapshots, feeds.snapshots_for_events, events),
        partial(event_reactions.follow_jumps, feeds.jumps_for_events, events),
    )


def media_tasks(feeds: Feeds, access: Access, cameras: Registry, media: Media, metrics: Metrics) -> tuple[Task, ...]:
    """The encoders, the pictures, and what follows for them from cameras, MediaMTX and revocations."""
    conditions, source_checks, admissions = media.conditions, media.source_checks, access.admissions
    return (
        media.publishers.run,
        media.frames.run,
        source_checks.run,
        partial(
            camera_reactions.follow, feeds.cameras_for_media, cameras, media.paths, conditions,
            media.publishers, media.frames, source_checks,
        ),
        partial(camera_reactions.follow_sources, feeds.sources, cameras, conditions, source_checks),
        partial(mediamtx_reactions.follow, feeds.media_states, media.publishers, metrics.child_restarted),
        partial(revocations.follow, feeds.endings, admissions, media.viewers, access.clock.monotonic),
        partial(viewer_reactions.follow, admissions, media.viewers),
    )  # fmt: skip


def recording_tasks(feeds: Feeds, access: Access, cameras: Registry, recordings: Recordings) -> tuple[Task, ...]:
    """What follows for recordings from cameras, the seals of their files, and the end of what was deleted long ago."""
    sealing = recordings.index.sealing
    return (
        partial(recording_reactions.follow, feeds.cameras_for_recordings, cameras, recordings),
        partial(clock_upkeep.prune, access.clock, recordings.sweep.deleted.prune),
        *(() if sealing is None else (sealing.run,)),
    )


def client_tasks(
    feeds: Feeds, access: Access, cameras: Registry, media: Media, recordings: Recordings, services: Services,
    rpc: RpcEndpoint,
) -> tuple[Task, ...]:  # fmt: skip
    """The notifications that clients get."""
    now, gate, sessions = access.clock.now, access.gate, services.sessions

    def camera_row(camera: Camera, host: str) -> CameraRow:
        active = recordings.active.get(camera.name)
        return row(camera, services.own_urls.stream_host(host), media.mediamtx.state, active, access.clock.system)

    return (
        partial(
            camera_notifications.run, feeds.cameras_for_clients, sessions, rpc.conversations, gate, camera_row,
            cameras=cameras.all, now=now,
        ),
        partial(
            recording_notifications.run, feeds.recordings_for_clients, sessions, rpc.conversations, gate,
            cameras.find, now,
        ),
        partial(
            event_notifications.run, feeds.events_for_clients, sessions, rpc.conversations, gate, cameras.find
        ),
    )  # fmt: skip
