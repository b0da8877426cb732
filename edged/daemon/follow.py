"""Who reads whose feed: the subscriptions, made before anything can be published, and the reactions that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from edged.access.admissions import Ended
from edged.cameras.model import CameraChanged
from edged.cameras.registry import Registry
from edged.daemon.access import Access
from edged.daemon.media import Media
from edged.daemon.nurseries import Task
from edged.feeds import Reader
from edged.mediamtx.server_state import ServerState
from edged.metrics import Metrics
from edged.reactions import cameras as camera_reactions
from edged.reactions import mediamtx as mediamtx_reactions
from edged.reactions import revocations
from edged.reactions import viewers as viewer_reactions


class Feeds(msgspec.Struct, frozen=True):
    """One reader of each feed for each who follows it."""

    cameras_for_media: Reader[CameraChanged]
    cameras_for_clients: Reader[CameraChanged]
    endings: Reader[Ended]
    media_states: Reader[ServerState]
    sources: Reader[str]


@contextmanager
def subscribed(access: Access, cameras: Registry, media: Media) -> Iterator[Feeds]:
    """Subscribe to every feed while the block runs."""
    with (
        cameras.changes.subscribe() as for_media,
        cameras.changes.subscribe() as for_clients,
        access.admissions.endings.subscribe() as endings,
        media.mediamtx.states.subscribe() as states,
        media.conditions.changes.subscribe() as sources,
    ):
        yield Feeds(for_media, for_clients, endings, states, sources)


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
