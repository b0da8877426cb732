"""Recordings that begin, end or fail → the sessions that may hear of it (contract 3b).

As for cameras (notifications): a session hears of one event once, under `recording_status_update` if it asked for
that, else under the event's own name; v1 sessions get the former unasked. Nobody hears of a camera that the gate would
not let them read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
import structlog

from edged.access.gate import Gate
from edged.cameras.model import Camera
from edged.clock import iso
from edged.credentials.callers import Resource
from edged.feeds import Lagged, Reader
from edged.library.recordings import RecordingChanged
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import camera_resource
from edged.rpc.dialects import View, present
from edged.rpc.session import RpcSession
from edged.wire import jsonrpc

UPDATE: Final = "recording_status_update"
#: Status → the event's own name, and how v1 clients call the state.
EVENTS: Final[Mapping[str, tuple[str, str]]] = {
    "STARTING": ("recording.start", "active"),
    "RECORDING": ("recording.progress", "active"),
    "STOPPED": ("recording.stop", "completed"),
    "ERROR": ("recording.error", "error"),
}
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
    """Tell of every change; runs until cancelled. `now` gives Unix seconds. Changes that were lost are not told."""
    while True:
        change = await changes.receive()
        if isinstance(change, Lagged):
            _log.warning("lagged")
            continue
        tell(change, sessions, conversations, gate, find_camera(change.record.camera), now())


def tell(
    change: RecordingChanged,
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    camera: Camera | None,
    now: float,
) -> int:
    """Tell one change to everybody who may and wants to hear of it; returns to how many. Never waits."""
    name = change.record.camera
    resource = camera_resource(camera) if camera else Resource.of_camera(name)
    names = camera.names if camera else frozenset({name})
    written: dict[View, bytes] = {}
    told = 0
    for session in sessions:
        topic, conversation = topic_for(session, change.status), conversations.get(session.id)
        if topic is None or conversation is None or session.only_device not in (None, *names):
            continue
        if not gate.judge(session.caller, "camera:read", resource).allowed:
            continue
        view = conversation.view
        if view not in written:
            written[view] = write(change, camera, view, now)
        conversation.push(jsonrpc.notification(topic, written[view]))
        told += 1
    return told


def topic_for(session: Session, status: str) -> str | None:
    """Under which name a session hears of it; None if it did not ask for it (contract C-22)."""
    if session.caller is None:
        return None
    if session.pushed or UPDATE in session.topics:
        return UPDATE
    event = EVENTS[status][0]
    return event if event in session.topics else None


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
    return jsonrpc.encode({**flat, "recording": {**nested, "status": EVENTS[change.status][1]}})
