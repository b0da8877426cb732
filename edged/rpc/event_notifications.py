"""Notifications of events that are neither a camera's nor a recording's own (contract 3b): pictures, what somebody has
reported, the box.

They go to those that subscribed to them, in both dialects: the clients of v1 know none of them. An event of a camera is
for those who may read it, one of the box for those with system:read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec
import structlog

from edged.access.gate import Gate
from edged.cameras.model import Camera
from edged.clock import iso
from edged.credentials.callers import NOTHING, Resource
from edged.feeds import Lagged, Reader
from edged.library.event_kinds import topic_of
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import camera_resource
from edged.rpc.dialects import View, present
from edged.rpc.recipients import find_recipients
from edged.rpc.session import RpcSession
from edged.store.events import EventRow
from edged.wire import jsonrpc

_log = structlog.get_logger("notifications")


class _OfCamera(msgspec.Struct, frozen=True):
    device: str
    device_path: str


async def run(
    events: Reader[EventRow],
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    find_camera: Callable[[str], Camera | None],
) -> None:
    """Notify sessions of every event that has a topic here; runs until cancelled. Nothing is sent for those that were
    lost: the ring has them."""
    while True:
        event = await events.receive()
        if isinstance(event, Lagged):
            _log.warning("events_lost")
            continue
        if (topic := topic_of(event.kind)) is not None:
            notify(event, topic, sessions, conversations, gate, find_camera(event.camera) if event.camera else None)


def notify(
    event: EventRow,
    topic: str,
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    camera: Camera | None,
) -> int:
    """Notify of one event all sessions that asked for `topic` and may know of it; returns how many. Never waits."""
    if event.camera:
        capability, resource = "camera:read", camera_resource(camera) if camera else Resource.of_camera(event.camera)
        names = camera.names if camera else frozenset({event.camera})
    else:
        capability, resource, names = "system:read", NOTHING, frozenset()
    written: dict[View, bytes] = {}
    count = 0
    wanted = partial(_find_topic, topic=topic)
    for _, conversation, name in find_recipients(sessions, conversations, gate, capability, resource, names, wanted):
        view = conversation.view
        if view not in written:
            written[view] = write(event, camera, view)
        conversation.push(jsonrpc.notification(name, written[view]))
        count += 1
    return count


def write(event: EventRow, camera: Camera | None, view: View) -> bytes:
    """The params: those of every event, and its details."""
    params: dict[str, object] = {}
    if event.camera:
        of_camera = _OfCamera(event.camera, (camera.node if camera else None) or "")
        params |= msgspec.to_builtins(present(of_camera, view, lambda _device: None))
    return jsonrpc.encode(
        {**params, **msgspec.json.decode(event.details), "kind": event.kind, "timestamp": iso(event.at)}
    )


def _find_topic(session: Session, topic: str) -> str | None:
    return topic if topic in session.topics else None
