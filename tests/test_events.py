"""Events over the whole daemon: what is in the ring, who may know of it, and who is notified."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from patience import fail_after
from seed_clients import compat

from edged.operations.pages import write_cursor

pytestmark = pytest.mark.ffmpeg


async def until_event(client: Conversation, kind: str, **params: Any) -> Any:
    """The page that has an event of this kind."""
    while True:
        page = await client.call("get_events", **params)
        if any(event["kind"] == kind for event in page["events"]):
            return page
        await trio.sleep(0.05)


def forge(run: str, number: float, name: str = "get_events") -> str:
    return write_cursor(name, (number, run))


def kinds(page: Any) -> list[str]:
    return [event["kind"] for event in page["events"]]


async def enter(client: Conversation, key: str, *topics: str) -> None:
    await client.call("authenticate", auth_token=key)
    if topics:
        await client.call("subscribe_events", topics=list(topics))


async def test_what_happened_is_told_to_those_who_may_know_it_by_every_way(tmp_path: Path) -> None:
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=2) as daemon, daemon.local() as admin:
            _, viewer = await daemon.create_key("viewer")
            _, narrow = await daemon.create_key("viewer", camera_access=["camera1"])
            _, blind = await daemon.create_key("viewer", permissions=["camera:read"])
            begin = await admin.call("get_events", limit=1)
            async with (
                daemon.websocket() as hearing,
                daemon.websocket() as other,
                daemon.websocket(compat(daemon)) as old,
            ):
                topics = ("snapshot.taken", "snapshot.error", "system.clock_jump")
                await enter(hearing, viewer, *topics)
                await enter(other, narrow, *topics)
                await old.call("authenticate", token=viewer)
                await old.call("subscribe_events", topics=list(topics))
                taken = await admin.call("take_snapshot", device="camera0", filename="gate")
                told = await hearing.hear("snapshot.taken")
                assert (told["device"], told["filename"], told["file_size"]) == (
                    "camera0", "gate.jpg", taken["file_size"],
                )  # fmt: skip
                assert (await old.hear("snapshot.taken"))["filename"] == "gate.jpg"
                await other.call("ping")
                assert other.news == []
                page = await until_event(hearing, "snapshot.taken", since=begin["cursor"])
                (event,) = [event for event in page["events"] if event["kind"] == "snapshot.taken"]
                assert (event["device"], event["details"]["filename"]) == ("camera0", "gate.jpg")
                (shown,) = [
                    event
                    for event in (await old.call("get_events", kinds="snapshot"))["events"]
                    if event["kind"] == "snapshot.taken"
                ]
                assert shown == event
                assert {event["device"] for event in (await other.call("get_events"))["events"]} == {"", "camera1"}
                assert (await other.call("get_events", kinds="snapshot"))["events"] == []
            by_rest = await daemon.request("GET", "/api/events?kinds=snapshot,recording.stop&limit=5", key=viewer)
            assert kinds(by_rest.json) == ["snapshot.taken"]
            by_rest = await daemon.request("GET", "/api/events", key=blind)
            assert {event["device"] for event in by_rest.json["events"]} == {"camera0", "camera1"}
            assert "system.startup" in kinds((await daemon.request("GET", "/api/events", key=viewer)).json)
            of_one = await admin.call("get_events", device="/dev/video1")
            assert {event["device"] for event in of_one["events"]} == {"camera1"}


async def test_pages_lead_from_the_first_event_to_the_last(tmp_path: Path) -> None:
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=2) as daemon, daemon.local() as admin:
            await until_event(admin, "camera.connected")
            everything = await admin.call("get_events", limit=1000)
            # A cursor of a run that nobody knows: from the beginning.
            first = await admin.call("get_events", since=forge("x", 0), limit=1)
            assert (first["gap"], first["more"]) == (True, True)
            found, cursor, more = first["events"], first["cursor"], True
            while more:
                page = await admin.call("get_events", since=cursor, limit=1)
                found, cursor, more = found + page["events"], page["cursor"], page["more"]
                assert not page["gap"]
            assert found == everything["events"]


async def test_a_cursor_that_is_none_and_kinds_that_are_none_are_clear_errors(tmp_path: Path) -> None:
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            _, viewer = await daemon.create_key("viewer")
            bad = [
                *("x", "{}", "a" * 1024, "W10", "bnVsbA", "\x00", "é"),
                *(forge("x", number) for number in (-1, 1.5, 1e300, 2**60)),
                forge("x", 1, "list_recordings"),
            ]
            for since in bad:
                error = (await admin.ask("get_events", since=since))["error"]
                assert (error["code"], error["data"]["reason"]) == (-32602, "invalid_params"), since
                assert "cursor" in error["data"]["detail"] + error["data"].get("hint", ""), since
            for words in ("", ",", "..", "a b", "Camera", "a" * 65, "a,b,c,d,e,f,g,h,i", "a/b", "*"):
                error = (await admin.ask("get_events", kinds=words))["error"]
                assert (error["code"], "kinds" in error["message"]) == (-32602, True), words
            for path in ("since=x", "kinds=..", "limit=0", "limit=1001", "limit=x"):
                reply = await daemon.request("GET", f"/api/events?{path}", key=viewer)
                assert (reply.status, reply.json["code"]) == (400, "invalid_params"), path
            error = (await admin.ask("get_events", device="camera7"))["error"]
            assert error["data"]["reason"] == "not_found"


async def test_a_cursor_survives_a_restart_and_not_a_database_that_is_begun_anew(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1)
    with fail_after(90):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_event(admin, "camera.connected")
            cursor = (await admin.call("get_events"))["cursor"]
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            page = await until_event(admin, "camera.connected", since=cursor)
            assert not page["gap"]
            assert kinds(page)[:2] == ["system.shutdown", "system.startup"]
            assert page["events"][1]["details"]["version"]
            cursor = page["cursor"]
            assert [page["gap"], page["events"]] == [False, page["events"]]
            assert (await admin.call("get_events", since=cursor))["events"] == []
        for file in config.paths.state.glob("usage.db*"):
            file.unlink()
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            page = await until_event(admin, "camera.connected", since=cursor)
            assert (page["gap"], kinds(page)[0]) == (True, "system.startup")
            assert not (await admin.call("get_events", since=page["cursor"]))["gap"]


async def until_heard(heard: list[Any]) -> None:
    while not heard:
        await trio.sleep(0.01)


async def test_the_stop_is_told_to_those_who_are_there(tmp_path: Path) -> None:
    with fail_after(60):
        async with trio.open_nursery() as nursery:
            heard: list[Any] = []

            async def listen(daemon: RunningDaemon, key: str, entered: trio.Event) -> None:
                async with daemon.websocket() as client:
                    await enter(client, key, "system.shutdown")
                    entered.set()
                    heard.append(await client.hear("system.shutdown"))

            async with running_daemon(tmp_path, cameras=1) as daemon:
                _, viewer = await daemon.create_key("viewer")
                entered = trio.Event()
                nursery.start_soon(listen, daemon, viewer, entered)
                await entered.wait()
                os.kill(os.getpid(), signal.SIGTERM)
                await until_heard(heard)
            assert [event["kind"] for event in heard] == ["system.shutdown"]


async def test_a_camera_that_goes_and_comes_is_two_events(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            cursor = (await until_event(admin, "camera.connected"))["cursor"]
            file = config.paths.state / "test-cameras" / "test 0"
            file.unlink()
            await until_event(admin, "camera.disconnected", since=cursor)
            file.touch()
            page = await until_event(admin, "camera.connected", since=cursor)
            assert kinds(page) == ["camera.disconnected", "camera.connected"]
            assert page["events"][0]["details"] == {"name": "test 0", "status": "DISCONNECTED"}
            assert msgspec.json.encode(page).count(b"problem") == 0


async def test_an_event_is_reported_with_a_picture_and_stands_whatever_cannot_be_done(tmp_path: Path) -> None:
    """Without MediaMTX: the recording begins when there is a picture, and the camera that is away gives none."""
    config = make_config(tmp_path, cameras=2)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, operator = await daemon.create_key("operator")
            _, viewer = await daemon.create_key("viewer")
            begin = (await until_event(admin, "camera.connected"))["cursor"]
            async with daemon.websocket() as hearing:
                await enter(hearing, viewer, "event.created", "snapshot.taken")
                body = {"kind": "dock.open", "text": "gate ü 2", "record_seconds": 20}
                reply = await daemon.request("POST", "/api/cameras/camera0/events", key=operator, body=body)
                made = reply.json
                assert (reply.status, made["kind"], made["text"], made["problems"]) == (
                    201,
                    "dock.open",
                    "gate ü 2",
                    [],
                )
                assert made["recording"]["is_new"]
                told = await hearing.hear("event.created")
                assert (told["kind"], told["event_id"], told["text"]) == ("dock.open", made["event_id"], "gate ü 2")
                assert told["recording_id"] == made["recording"]["recording_id"]
                assert (await hearing.hear("snapshot.taken"))["event_id"] == made["event_id"]
            again = await admin.call("create_event", device="camera0", kind="motion", record_seconds=3, snapshot=False)
            assert (again["recording"]["is_new"], again["snapshot"]) == (False, None)
            assert again["recording"]["until"] == made["recording"]["until"]
            page = await admin.call("get_events", since=begin, kinds="dock,motion", device="camera0")
            assert [(each["kind"], each["details"].get("text")) for each in page["events"]] == [
                ("dock.open", "gate ü 2"), ("motion", None),
            ]  # fmt: skip
            (config.paths.state / "test-cameras" / "test 1").unlink()
            await until_event(admin, "camera.disconnected", since=begin)
            away = await admin.call("create_event", device="camera1", kind="motion", record_seconds=5)
            assert [(each["part"], each["reason"]) for each in away["problems"]] == [
                ("recording", "dependency_failed"), ("snapshot", "dependency_failed"),
            ]  # fmt: skip
            assert all("camera1 is disconnected" in each["message"] for each in away["problems"])
            assert away["recording"]["is_new"]
            await until_event(admin, "motion", device="camera1")
            await until_event(admin, "snapshot.error", device="camera1")
            for secret, status in ((viewer, 403), ("", 401)):
                reply = await daemon.request("POST", "/api/cameras/camera0/events", key=secret, body={"kind": "motion"})
                assert reply.status == status


async def test_the_picture_of_an_event_is_found_by_its_id_by_those_who_may_see_its_camera(tmp_path: Path) -> None:
    """The kept one, also after a restart; once it is deleted there is none, for nothing was recorded then."""
    config = make_config(tmp_path, cameras=2)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_event(admin, "camera.connected")
            made = await admin.call("create_event", device="camera0", kind="motion", text="event_of another")
            event, kept = made["event_id"], made["snapshot"]["filename"]
            await until_event(admin, "snapshot.taken")
            (first,) = (await admin.call("list_snapshots"))["files"]
            _, viewer = await daemon.create_key("viewer")
            _, operator = await daemon.create_key("operator")
            _, narrow = await daemon.create_key("operator", camera_access=["camera1"])
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_event(admin, "camera.connected")
            found = await admin.call("get_snapshot", device="camera0", event=event)
            assert (found["filename"], found["timestamp"]) == (kept, first["created_time"])
            path = "/api/cameras/{}/snapshot.jpg?event={}"
            picture = await daemon.request("GET", path.format("camera0", event), key=viewer)
            file = await daemon.request("GET", made["snapshot"]["download_url"], key=viewer)
            assert (picture.status, picture.body) == (200, file.body)
            asking = {"event": event}
            for key, device, status in (
                (operator, "camera0", 201), (viewer, "camera0", 403), (narrow, "camera0", 404),
                (narrow, "camera1", 404), (operator, "camera1", 404),
            ):  # fmt: skip
                target = f"/api/cameras/{device}/recorded-snapshots"
                reply = await daemon.request("POST", target, key=key, body=asking)
                assert reply.status == status, reply.body
                if key != viewer:
                    reply = await daemon.request("GET", path.format(device, event), key=key)
                    assert reply.status == (200 if status == 201 else 404)
            for other, reason in (
                ("event_of", "not_found"), ("motion", "not_found"), ("%", "not_found"), ("", "invalid_params")
            ):  # fmt: skip
                error = (await admin.ask("get_snapshot", device="camera0", event=other))["error"]
                assert error["data"]["reason"] == reason
            for params in ({}, {"event": event, "at": 1}):
                error = (await admin.ask("get_snapshot", device="camera0", **params))["error"]
                assert error["data"]["reason"] == "invalid_params"
            assert (await admin.call("list_snapshots"))["total"] == 1
            await admin.call("delete_snapshot", filename=kept)
            # Another one of the same name is not that of the event.
            (config.snapshots.folder / "camera0" / kept).write_bytes(b"another")
            error = (await admin.ask("get_snapshot", device="camera0", event=event))["error"]
            assert (error["data"]["reason"], "in the 10 s before" in str(error)) == ("not_found", True)


async def test_what_cannot_be_reported_is_a_clear_error_and_leaves_no_event(box: Conversation) -> None:
    wrong: list[dict[str, Any]] = [
        {"kind": ""}, {"kind": "Motion"}, {"kind": "a b"}, {"kind": "a..b"}, {"kind": "a.b.c.d.e"}, {"kind": "x" * 65},
        {"kind": "recording.stop"}, {"kind": "system"}, {"kind": "camera.connected"}, {"kind": "event.created"},
        {"kind": "motion\n"}, {"kind": "a", "text": "x" * 501}, {"kind": "a", "text": "a\nb"},
        {"kind": "a", "text": "\x00"}, {"kind": "a", "text": "\u202e"}, {"kind": "a", "text": "\u2028"},
        {"kind": "a", "record_seconds": 0}, {"kind": "a", "record_seconds": -1}, {"kind": "a", "record_seconds": 3601},
        {"kind": "a", "record_seconds": "1"}, {"text": "a"},
    ]  # fmt: skip
    with fail_after(30):
        before = (await box.call("get_events", kinds="a"))["cursor"]
        for params in wrong:
            error = (await box.ask("create_event", device="camera0", **params))["error"]
            assert (error["code"], error["data"]["reason"]) == (-32602, "invalid_params"), params
            assert (await box.call("get_events", since=before, device="camera0"))["events"] == [], params


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Conversation]:
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            await until_event(admin, "camera.connected")
            yield admin
