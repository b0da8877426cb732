"""Cameras that come, go or change → the sessions that may hear of it (contract 3b).

v1 sessions get `camera_status_update` unasked, v2 sessions what they subscribed to: a session hears of one event
once, under the method name if it asked for that, else under the event's own. Nobody hears of a camera that the
gate would not let them read. Sending never waits: each session's outbox is limited (edged.net.outbox).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import msgspec
import structlog

from edged.access.gate import Gate
from edged.cameras.model import Camera, CameraChanged, Status
from edged.clock import iso
from edged.feeds import Lagged, Reader
from edged.operations.caller_sessions import Session, Sessions
from edged.operations.catalogue import camera_resource
from edged.rpc.dialects import View, present
from edged.rpc.session import RpcSession
from edged.wire import jsonrpc

UPDATE: Final = "camera_status_update"
CONNECTED: Final = "camera.connected"
DISCONNECTED: Final = "camera.disconnected"
STATUS_CHANGE: Final = "camera.status_change"

#: Where only the status is known, because changes were lost.
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
    """Tell of every change; runs for ever. `now` gives Unix seconds.

    Where changes were lost, tells how every one of `cameras` is at present instead.
    """
    while True:
        news = await changes.receive()
        if isinstance(news, Lagged):
            _log.warning("lagged")
            found = [(camera, _EVENTS[camera.status]) for camera in cameras()]
        else:
            found = [(as_listed(news), event_of(news))]
        for camera, event in found:
            tell(camera, event, sessions, conversations, gate, camera_row, now())


def tell(
    camera: Camera,
    event: str,
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    camera_row: CameraRow,
    now: float,
) -> int:
    """Tell one event to everybody who may and wants to hear of it; returns to how many. Never waits."""
    resource = camera_resource(camera)
    written: dict[tuple[str, View], bytes] = {}
    told = 0
    for session in sessions:
        name = name_for(session, event)
        conversation = conversations.get(session.id)
        if name is None or conversation is None or session.only_device not in (None, *camera.names):
            continue
        if not gate.judge(session.caller, "camera:read", resource).allowed:
            continue
        key = (session.peer.host, conversation.view)
        params = written.get(key)
        if params is None:
            params = written[key] = write(camera_row(camera, session.peer.host), conversation.view, now)
        conversation.push(jsonrpc.notification(name, params))
        told += 1
    return told


def as_listed(change: CameraChanged) -> Camera:
    """The camera under the names by which it was listed: an unplugged one still has its device file here.

    Clients of v1 key their table by it, and would otherwise look in vain for the row that has changed.
    """
    camera, before = change.camera, change.previous
    if camera.node is None and before is not None and before.node is not None:
        return replace(camera, node=before.node)
    return camera


def event_of(change: CameraChanged) -> str:
    """The event's own name. One seen for the first time is connected, or its status has changed."""
    status, before = change.camera.status, change.previous.status if change.previous else None
    if status is Status.CONNECTED and before is not Status.CONNECTED:
        return CONNECTED
    if status is Status.DISCONNECTED and before not in (None, Status.DISCONNECTED):
        return DISCONNECTED
    return STATUS_CHANGE


def name_for(session: Session, event: str) -> str | None:
    """Under which name a session hears of an event; None if it did not ask for it (contract C-22)."""
    topics = session.topics
    if session.caller is None:
        return None
    if session.pushed or UPDATE in topics:
        return UPDATE
    # Every coming and going is a change of status too.
    return next((name for name in (event, STATUS_CHANGE) if name in topics), None)


def write(row: msgspec.Struct, view: View, now: float) -> bytes:
    """The params of a camera notification: flat for some clients, nested for others, the same words in both."""
    shown = msgspec.to_builtins(present(row, view, lambda _device: None))
    flat = {name: shown[name] for name in _FLAT if name in shown}
    nested = {name: shown[name] for name in _NESTED if name in shown}
    return jsonrpc.encode({**flat, "timestamp": iso(now), "camera": nested})
