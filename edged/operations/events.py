"""Subscriptions to notifications (contract 3, 3b)."""

from __future__ import annotations

from typing import Final

import msgspec

from edged.errors import InvalidParams
from edged.operations.catalogue import OperationCall, operation

#: Topics that this version publishes; a client may ask for either spelling.
_ACTIVE: Final = (
    "camera_status_update",
    "camera.connected",
    "camera.disconnected",
    "camera.status_change",
    "recording_status_update",
    "recording.start",
    "recording.stop",
    "recording.progress",
    "recording.error",
    "recording.gap",
    "recording.drift",
    "snapshot.taken",
    "snapshot.error",
    "event.created",
    "system.startup",
    "system.shutdown",
    "system.clock_jump",
)
#: Topics of the contract that this version does not publish: accepted, and named as inactive in the answer, so that
#: clients that ask for a fixed list go on.
_INACTIVE: Final = (
    "system_health_update",
    "mediamtx.stream",
    "mediamtx.path",
    "mediamtx.stream_started",
    "mediamtx.stream_stopped",
    "system.health",
    "system.error",
)
TOPICS: Final = frozenset(_ACTIVE + _INACTIVE)


#: Why these are JSON-RPC methods only.
_NO_REST: Final = "notifications go to WebSockets only"
_NO_COMMAND: Final = "a command does not wait for notifications"


class Filters(msgspec.Struct, frozen=True, omit_defaults=True):
    """Only events of this camera."""

    device: str | None = None


class SubscribeParams(msgspec.Struct, frozen=True):
    topics: list[str]
    filters: Filters | None = None


class Subscribed(msgspec.Struct, frozen=True, omit_defaults=True):
    """All topics of the session; of these `inactive` are those that this version does not publish."""

    subscribed: bool
    topics: list[str]
    filters: Filters
    inactive: list[str] = []


@operation(
    "camera:read",
    no_rest="notifications go to WebSockets only",
    no_command="a command ends before anything can be notified",
)
def subscribe_events(call: OperationCall, params: SubscribeParams) -> Subscribed:
    """Subscribe to notifications. An unknown topic is an error that lists the known ones."""
    unknown = [topic for topic in params.topics if topic not in TOPICS]
    if unknown or not params.topics:
        raise InvalidParams(
            f"unknown topic {unknown[0][:64]!r}" if unknown else "topics is empty",
            hint="topics are " + ", ".join(sorted(TOPICS)),
            topics=sorted(TOPICS),
        )
    call.session.topics.update(params.topics)
    if params.filters is not None:
        call.session.only_device = _find_device(call, params.filters.device)
    topics = sorted(call.session.topics)
    return Subscribed(
        subscribed=True,
        topics=topics,
        filters=Filters(device=call.session.only_device),
        inactive=[topic for topic in topics if topic in _INACTIVE],
    )


def _find_device(call: OperationCall, device: str | None) -> str | None:
    """The id of a camera that is named by its path, which may later be another camera's, or of a test picture that is
    named by the device file that it stands for; other names stay."""
    camera = call.services.cameras.find(device) if device is not None else None
    return camera.name if camera is not None and device in (camera.path, camera.stand_in) else device


class UnsubscribeParams(msgspec.Struct, frozen=True):
    topics: list[str] | None = None


class Unsubscribed(msgspec.Struct, frozen=True):
    unsubscribed: bool
    topics: list[str]


@operation(
    "camera:read",
    no_rest="notifications go to WebSockets only",
    no_command="a command ends before anything can be notified",
)
def unsubscribe_events(call: OperationCall, params: UnsubscribeParams) -> Unsubscribed:
    """End subscriptions; without topics, all of them. `topics` in the reply are those that ended."""
    session = call.session
    gone = session.topics & set(params.topics) if params.topics is not None else set(session.topics)
    session.topics -= gone
    if not session.topics:
        session.only_device = None
    return Unsubscribed(unsubscribed=True, topics=sorted(gone))
