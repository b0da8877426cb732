"""Notifications of cameras that are plugged in, unplugged or change (contract 3b).

v1 sessions get `camera_status_update` unasked, v2 sessions what they subscribed to. A session gets one notification of
an event: as `camera_status_update` if it subscribed to that, else under the event's name. No session is notified of a
camera that its caller may not read. Sending never waits: each session's outbox is limited (edged.net.outbox).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from edged.access.gate import Gate
from edged.cameras.model import CONNECTED, DISCONNECTED, STATUS_CHANGE, Camera, CameraChanged, Status
from edged.clock import iso
from edged.feeds import Lagged, Reader
from edged.operations.caller_sessions import Session, Sessions
from edged.operations.catalogue import camera_resource
from edged.rpc.dialects import View, present
from edged.rpc.recipients import choose_topic, find_recipients
from edged.rpc.session import RpcSession
from edged.wire import jsonrpc

UPDATE: Final = "camera_status_update"

#: The event to report where changes were lost, so that only the status is known.
_EVENTS: Final[Mapping[Status, str]] = {
    Status.CONNECTED: CONNECTED,
    Status.DISCONNECTED: DISCONNECTED,
    Status.ERROR: STATUS_CHANGE,
}

#: (camera, the host name that the client reached us at) → its row as in a list (operations.cameras.CameraRow).
CameraRow = Callable[[Camera, str], msgspec.Struct]
_log = structlog.get_logger("notifications")

_NESTED = ("device", "device_path", "name", "status", "capabilities", "stream_url")
_FLAT = (*_NESTED, "camera_id", "resolution", "fps", "streams")


async def run(
    changes: Reader[CameraChanged],
    sessions: Sessions,
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    camera_row: CameraRow,
    *,
    cameras: Callable[[], Iterable[Camera]],
    now: Callable[[], float],
) -> None:
    """Notify sessions of every change; runs until cancelled. `now` gives Unix seconds.

    Where changes were lost, notifies them of the present state of each of `cameras` instead.
    """
    while True:
        news = await changes.receive()
        if isinstance(news, Lagged):
            _log.warning("camera_changes_lost")
            found = [(camera, _EVENTS[camera.status]) for camera in cameras()]
        else:
            found = [(as_listed(news), news.event)]
        for camera, event in found:
            notify(camera, event, sessions, conversations, gate, camera_row, now())


def notify(
    camera: Camera,
    event: str,
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    camera_row: CameraRow,
    now: float,
) -> int:
    """Notify of one event all sessions that asked for it and may read the camera; returns how many. Never waits."""
    written: dict[tuple[str, View], bytes] = {}
    count = 0
    topic_of = partial(find_topic, event=event)
    resource = camera_resource(camera)
    for session, conversation, topic in find_recipients(
        sessions, conversations, gate, "camera:read", resource, camera.names, topic_of
    ):
        key = (session.peer.host, conversation.view)
        params = written.get(key)
        if params is None:
            params = written[key] = write(camera_row(camera, session.peer.host), conversation.view, now)
        conversation.push(jsonrpc.notification(topic, params))
        count += 1
    return count


def as_listed(change: CameraChanged) -> Camera:
    """The camera with the names that it was listed with: an unplugged one still has its device file here.

    v1 clients find the row that has changed by it.
    """
    camera, before = change.camera, change.previous
    if camera.node is None and before is not None and before.node is not None:
        return replace(camera, node=before.node)
    return camera


def find_topic(session: Session, event: str) -> str | None:
    """The name under which a session is notified of an event; each event is a change of status too."""
    return choose_topic(session, UPDATE, event, STATUS_CHANGE)


def write(row: msgspec.Struct, view: View, now: float) -> bytes:
    """The params of a camera notification: flat for some clients, nested for others, the same words in both."""
    shown = msgspec.to_builtins(present(row, view, lambda _device: None))
    flat = {name: shown[name] for name in _FLAT if name in shown}
    nested = {name: shown[name] for name in _NESTED if name in shown}
    return jsonrpc.encode({**flat, "timestamp": iso(now), "camera": nested})
