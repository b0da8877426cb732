"""Who hears of a camera, under which name, and in which words (contract 3b, C-22)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from patience import fail_after
from rpc_helpers import NOW, Box, Client, camera, row

from edged.cameras.model import Camera, CameraChanged, Status
from edged.feeds import Feed
from edged.library.event_kinds import topic_of
from edged.rpc import camera_notifications, event_notifications
from edged.store.events import EventRow

UNPLUGGED = camera(0, node=None, status=Status.DISCONNECTED)


def tell(box: Box, item: Camera, event: str) -> int:
    return camera_notifications.notify(item, event, box.sessions, box.rpc.conversations, box.gate, row, NOW)


def entered(box: Box, member: str, *topics: str, role: str = "viewer", **given: Any) -> Client:
    client = box.open(**given)
    assert client.enter(box.make_key(role), member)["authenticated"]
    client.rpc.session.topics.update(topics)
    return client


def test_v1_hears_unasked_and_v2_what_it_asked_for() -> None:
    """One event once each, under the method name if that was asked for, else under the event's own."""
    box = Box()
    old = entered(box, "token")
    both = entered(box, "auth_token", "camera_status_update", "camera.connected")
    own = entered(box, "auth_token", "camera.connected", "camera.status_change")
    change = entered(box, "auth_token", "camera.status_change")
    other = entered(box, "auth_token", "camera.disconnected", "recording.start")
    silent, stranger = entered(box, "auth_token"), box.open("compat")
    assert tell(box, camera(0), "camera.connected") == 4
    heard = [
        [text["method"] for text in client.outbox.take()]
        for client in (old, both, own, change, other, silent, stranger)
    ]
    assert heard == [
        ["camera_status_update"],
        ["camera_status_update"],
        ["camera.connected"],
        ["camera.status_change"],
        [],
        [],
        [],
    ]


def test_the_payload_has_both_shapes_in_the_same_words() -> None:
    """Flat for some clients, nested for others; device_path is the list's (contract 3b, 8.5)."""
    box = Box()
    client = entered(box, "token")
    tell(box, camera(0), "camera.connected")
    (text,) = client.outbox.take()
    nested = {
        "device": "/dev/video4",
        "device_path": "/dev/video4",
        "name": "Camera 0",
        "status": "CONNECTED",
        "capabilities": ["snapshot", "stream"],
        "stream_url": "rtsp://box:8554/camera0",
    }
    assert text["params"] == nested | {
        "camera_id": "camera0",
        "resolution": "640x480",
        "fps": 15,
        "streams": {},
        "timestamp": "2027-01-15T08:00:00Z",
        "camera": nested,
    }
    listed = client.ask("get_camera_list")["result"]["cameras"][0]
    assert listed["device_path"] == text["params"]["device_path"]


def test_everybody_hears_it_in_their_own_view() -> None:
    """Names for v2, device files for its administrators, and the host by which each client came."""
    box = Box()
    viewer = entered(box, "auth_token", "camera_status_update")
    admin = entered(box, "auth_token", "camera_status_update", role="admin", host="10.0.0.5")
    tell(box, camera(0), "camera.connected")
    (seen,), (known,) = viewer.outbox.take(), admin.outbox.take()
    assert (seen["params"]["device"], seen["params"]["device_path"]) == ("camera0", "camera0")
    assert (known["params"]["device"], known["params"]["device_path"]) == ("camera0", "/dev/video4")
    assert known["params"]["camera"]["stream_url"] == "rtsp://10.0.0.5:8554/camera0"


def test_nobody_hears_of_a_camera_that_they_may_not_see() -> None:
    """By camera_access, by role, or because the credential is over."""
    box = Box()
    narrow = box.open("compat")
    narrow.enter(box.make_key("viewer", camera_access=("camera1",)))
    monitor, late = box.open("compat"), box.open("compat")
    monitor.enter(box.make_key("monitor"))
    late.enter(box.make_token("viewer", expires_in=60))
    box.time += 3600
    assert tell(box, camera(0), "camera.connected") == 0
    assert box.counts.failed == []
    assert tell(box, camera(1), "camera.connected") == 1
    assert [text["params"]["camera_id"] for text in narrow.outbox.take()] == ["camera1"]


def test_a_subscription_may_be_to_one_camera() -> None:
    """By either of its names."""
    box = Box()
    for device, number in (("camera0", 1), ("/dev/video4", 1), ("camera1", 0)):
        client = entered(box, "auth_token", "camera_status_update")
        client.rpc.session.only_device = device
        tell(box, camera(0), "camera.connected")
        assert len(client.outbox.take()) == number


def test_a_closed_conversation_is_passed_over() -> None:
    """Closing, or gone already."""
    box = Box()
    closing, gone, there = (entered(box, "token") for _ in range(3))
    closing.outbox.close(1001)
    gone.rpc.closed()
    box.sessions.add(gone.rpc.session)
    tell(box, camera(0), "camera.connected")
    assert (closing.outbox.texts, gone.outbox.texts, len(there.outbox.texts)) == ([], [], 1)


ERROR = replace(camera(0), status=Status.ERROR)


@pytest.mark.parametrize(
    ("now", "before", "event"),
    [
        (camera(0), None, "camera.connected"),
        (camera(0), UNPLUGGED, "camera.connected"),
        (camera(0), ERROR, "camera.connected"),
        (UNPLUGGED, camera(0), "camera.disconnected"),
        (UNPLUGGED, ERROR, "camera.disconnected"),
        (UNPLUGGED, None, "camera.status_change"),
        (UNPLUGGED, UNPLUGGED, "camera.status_change"),
        (ERROR, camera(0), "camera.status_change"),
        (replace(camera(0), label="new"), camera(0), "camera.status_change"),
    ],
)
def test_events_are_named_for_what_happened(now: Camera, before: Camera | None, event: str) -> None:
    """Connected and disconnected are comings and goings; everything else is a change."""
    assert CameraChanged(now, before).event == event


@given(
    st.sets(
        st.sampled_from(["camera_status_update", "camera.connected", "camera.disconnected", "camera.status_change"])
    ),
    st.booleans(),
    st.sampled_from(["camera.connected", "camera.disconnected", "camera.status_change"]),
)
def test_an_event_has_at_most_one_name_for_a_session(topics: set[str], pushed: bool, event: str) -> None:
    """A name that was asked for, or v1's."""
    client = entered(Box(), "token" if pushed else "auth_token", *topics)
    name = camera_notifications.find_topic(client.rpc.session, event)
    if pushed:
        assert name == "camera_status_update"
    elif name is None:
        assert not topics & {"camera_status_update", "camera.status_change", event}
    else:
        assert name in topics


@pytest.fixture
async def told() -> AsyncIterator[tuple[Box, Feed[CameraChanged]]]:
    """A services whose notifications run, on a feed that holds two changes at most."""
    with fail_after(10):
        async with trio.open_nursery() as nursery:
            box, feed = Box(nursery), Feed[CameraChanged]()
            with feed.subscribe(2) as changes:
                nursery.start_soon(_run, box, changes)
                yield box, feed
                nursery.cancel_scope.cancel()


async def _run(box: Box, changes: Any) -> None:
    await camera_notifications.run(
        changes,
        box.sessions,
        box.rpc.conversations,
        box.gate,
        row,
        cameras=lambda: box.registry.known,
        now=box.clock.now,
    )


async def test_changes_reach_sessions_as_they_happen(told: tuple[Box, Feed[CameraChanged]]) -> None:
    """Unplugged and plugged in again: two texts, in this order."""
    box, feed = told
    client = entered(box, "auth_token", "camera.connected", "camera.disconnected")
    feed.publish(CameraChanged(UNPLUGGED, camera(0)))
    feed.publish(CameraChanged(camera(0), UNPLUGGED))
    texts = await client.outbox.wait(2)
    assert [text["method"] for text in texts] == ["camera.disconnected", "camera.connected"]
    assert [text["params"]["status"] for text in texts] == ["DISCONNECTED", "CONNECTED"]


async def test_an_unplugged_camera_is_told_by_the_path_that_it_was_listed_by(
    told: tuple[Box, Feed[CameraChanged]],
) -> None:
    """v1 clients key their table by device_path (contract 8.5); so does a filter, and a key for a device file."""
    box, feed = told
    old, limited = entered(box, "token"), box.open("compat")
    limited.enter(box.make_key("viewer", camera_access=("/dev/video4",)))
    filtered = entered(box, "auth_token", "camera.disconnected")
    filtered.rpc.session.only_device = "/dev/video4"
    feed.publish(CameraChanged(UNPLUGGED, camera(0)))
    for client in (old, limited):
        (text,) = await client.outbox.wait(1)
        nested = text["params"]["camera"]
        assert (nested["device_path"], nested["status"]) == ("/dev/video4", "DISCONNECTED")
        assert text["params"]["device_path"] == "/dev/video4"
    (text,) = await filtered.outbox.wait(1)
    assert (text["params"]["device"], text["params"]["device_path"]) == ("camera0", "camera0")


async def test_lost_changes_are_made_good_by_the_present_state(told: tuple[Box, Feed[CameraChanged]]) -> None:
    """A reader that fell behind tells how every camera is now, each under the name of that state."""
    box, feed = told
    client = entered(box, "auth_token", "camera.connected", "camera.disconnected", "camera.status_change")
    box.registry.known = [
        camera(0),
        replace(camera(1), status=Status.ERROR),
        replace(camera(2), status=Status.DISCONNECTED),
    ]
    for _ in range(3):
        feed.publish(CameraChanged(UNPLUGGED, camera(0)))
    await trio.testing.wait_all_tasks_blocked()
    told_now = [(text["method"], text["params"]["device"]) for text in client.outbox.take()][:3]
    assert told_now == [
        ("camera.connected", "camera0"),
        ("camera.status_change", "camera1"),
        ("camera.disconnected", "camera2"),
    ]


def report(box: Box, event: EventRow, topic: str) -> int:
    found = camera(0) if event.camera else None
    return event_notifications.notify(event, topic, box.sessions, box.rpc.conversations, box.gate, found)


def test_an_event_of_a_camera_is_told_to_subscribers_who_may_read_it_in_their_own_view() -> None:
    """In v1 too it must be subscribed to: no client of v1 knows such a topic."""
    box = Box()
    old, new, silent = (
        entered(box, "token", "snapshot.taken"),
        entered(box, "auth_token", "snapshot.taken"),
        entered(box, "token"),
    )
    narrow = box.open()
    narrow.enter(box.make_key("viewer", camera_access=("camera1",)), "auth_token")
    narrow.rpc.session.topics.add("snapshot.taken")
    event = EventRow(7, NOW, "snapshot.taken", "camera0", '{"filename":"gate.jpg","file_size":9}')
    assert report(box, event, "snapshot.taken") == 2
    (seen,), (named,) = old.outbox.take(), new.outbox.take()
    assert (seen["method"], seen["params"]["device"], named["params"]["device"]) == (
        "snapshot.taken", "/dev/video4", "camera0",
    )  # fmt: skip
    assert named["params"] == {
        "device": "camera0", "device_path": "camera0", "filename": "gate.jpg", "file_size": 9, "kind": "snapshot.taken",
        "timestamp": "2027-01-15T08:00:00Z",
    }  # fmt: skip
    assert not silent.outbox.take()
    assert not narrow.outbox.take()


def test_an_event_of_the_box_is_for_those_who_may_read_its_state() -> None:
    """Not for a credential of camera:read alone, nor for a subscription to one camera."""
    box = Box()
    viewer = entered(box, "auth_token", "system.clock_jump")
    blind = box.open()
    blind.enter(box.make_key("viewer", permissions=("camera:read",)), "auth_token")
    blind.rpc.session.topics.add("system.clock_jump")
    one = entered(box, "auth_token", "system.clock_jump")
    one.rpc.session.only_device = "camera0"
    assert report(box, EventRow(7, NOW, "system.clock_jump", "", '{"seconds":-3.5}'), "system.clock_jump") == 1
    (told,) = viewer.outbox.take()
    assert told["params"] == {"seconds": -3.5, "kind": "system.clock_jump", "timestamp": "2027-01-15T08:00:00Z"}


@pytest.mark.parametrize(
    ("kind", "topic"),
    [
        ("recording.stop", None), ("camera.connected", None), ("system.events_lost", None),
        ("snapshot.error", "snapshot.error"), ("motion", "event.created"), ("camera_motion.left", "event.created"),
    ],
)  # fmt: skip
def test_each_event_has_one_topic(kind: str, topic: str | None) -> None:
    """Those of cameras and recordings are told with their whole state instead."""
    assert topic_of(kind) == topic
