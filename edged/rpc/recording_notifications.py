"""Notifications of recordings that begin, end or fail (contract 3b).

As for cameras (camera_notifications.py): a session gets one notification of an event, as `recording_status_update` if
it subscribed to that, else under the event's name; v1 sessions get the former unasked. No session is notified of a
camera that its caller may not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec
import structlog

from edged.access.gate import Gate
from edged.cameras.model import Camera
from edged.clock import iso
from edged.credentials.callers import Resource
from edged.feeds import Lagged, Reader
from edged.library.active_recordings import RecordingChanged, Status
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import camera_resource
from edged.rpc.dialects import View, present
from edged.rpc.recipients import choose_topic, find_recipients
from edged.rpc.session import RpcSession
from edged.wire import jsonrpc

UPDATE: Final = "recording_status_update"
#: Status → the name that v1 clients have for the state.
_STATES: Final[Mapping[Status, str]] = {
    "STARTING": "active", "RECORDING": "active", "STOPPED": "completed", "ERROR": "error"
}  # fmt: skip
_log = structlog.get_logger("notifications")


class RecordingEvent(msgspec.Struct, frozen=True):
    """What happened to a recording; `duration` seconds, `start_time` Unix seconds."""

    device: str
    device_path: str
    status: str
    session_id: str
    recording_id: str
    filename: str
    duration: float
    file_size: int
    start_time: float
    startTime: str  # noqa: N815 (contract 3b)
    format: str
    timestamp: str
    error: str


async def run(
    changes: Reader[RecordingChanged],
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    find_camera: Callable[[str], Camera | None],
    now: Callable[[], float],
) -> None:
    """Notify sessions of every change; runs until cancelled. `now` gives Unix seconds. Nothing is sent for changes that
    were lost."""
    while True:
        change = await changes.receive()
        if isinstance(change, Lagged):
            _log.warning("recording_changes_lost")
            continue
        notify(change, sessions, conversations, gate, find_camera(change.record.camera), now())


def notify(
    change: RecordingChanged,
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    camera: Camera | None,
    now: float,
) -> int:
    """Notify of one change all sessions that asked for it and may read the camera; returns how many. Never waits."""
    name = change.record.camera
    resource = camera_resource(camera) if camera else Resource.of_camera(name)
    names = camera.names if camera else frozenset({name})
    written: dict[View, bytes] = {}
    count = 0
    topic_of = partial(find_topic, event=change.event)
    for _, conversation, topic in find_recipients(
        sessions, conversations, gate, "camera:read", resource, names, topic_of
    ):
        view = conversation.view
        if view not in written:
            written[view] = write(change, camera, view, now)
        conversation.push(jsonrpc.notification(topic, written[view]))
        count += 1
    return count


def find_topic(session: Session, event: str) -> str | None:
    """The name under which a session is notified of an event of a recording."""
    return choose_topic(session, UPDATE, event)


def write(change: RecordingChanged, camera: Camera | None, view: View, now: float) -> bytes:
    """The params: flat for some clients, nested for others."""
    record = change.record
    event = RecordingEvent(
        device=record.camera,
        device_path=(camera.node if camera else None) or "",
        status=change.status,
        session_id=record.recording_id,
        recording_id=record.recording_id,
        filename=record.filename,
        duration=change.duration,
        file_size=change.size,
        start_time=record.began,
        startTime=iso(record.began),
        format=record.format,
        timestamp=iso(now),
        error=change.problem,
    )
    flat = msgspec.to_builtins(present(event, view, lambda _device: None))
    nested = {name: flat[name] for name in ("device_path", "recording_id", "filename", "start_time")}
    return jsonrpc.encode({**flat, "recording": {**nested, "status": _STATES[change.status]}})
