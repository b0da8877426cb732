"""Whoever has `camera_access: [camera1]` sees exactly camera1, by every operation and every route.

Two cameras have the same kinds of files; whatever is of camera0 is named `gate…`, what is of camera1 `yard…`.
camera2, `gate two`, is not plugged in. A row of `ASKED` is enough for a new operation: it is asked by RPC and by its
route, of a foreign and of an own file or camera; camera9 is gone, and `gate9…` is recorded of it. What is about no
single camera has a row of `OF_ALL`, whose answer must say no foreign word, or says in `EXEMPT` why it has none.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import fork_server
import msgspec
import pytest
import trio
from cli_helpers import wait_for_socket, write_config
from daemon_helpers import Reply, RunningDaemon, free_port
from fmp4_helpers import make_segment
from patience import fail_after

from edged import operations
from edged.config.load import load
from edged.operations.events import TOPICS
from edged.store import recordings
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.recordings import RecordingRecord
from edged.web.routes import list_paths

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg]
CATALOGUE = operations.gather()
#: When both cameras were recorded, Unix seconds.
BEGAN = 1_790_000_000
#: How many recordings of each camera there are, and pictures.
MANY = 6
Kind = Literal["list", "file", "camera"]


class Row(NamedTuple):
    """What is asked: an operation of the catalogue, or `METHOD /path`.

    A `list` is given neither a file nor a camera. A `file` operation is given one by `filename`, a `camera` operation a
    camera by `device`. `params` are the others; `own` is how an own file or camera is answered, in HTTP, 0 for anything
    but 404.
    """

    asked: str
    kind: Kind
    params: Mapping[str, Any] = {}
    own: int = 200
    #: The name of the file; of the own camera and of the foreign one.
    file: str = "1.mp4"
    #: Own, foreign and absent, where that is no name of a recording.
    names: tuple[str, str, str] | None = None


def segment(camera: int, count: int) -> str:
    """The path of a segment that `fill` makes."""
    began = BEGAN + 600 * count + camera
    return f"camera{camera}/{time.strftime('%Y-%m-%d', time.gmtime(began))}/{began}-000000.mp4"


#: In it all of them were recorded.
DAY = {"start": "2026-09-21T14:00:00Z", "end": "2026-09-22T14:00:00Z"}

ASKED = [
    Row("list_recordings", "list"),
    Row("list_recordings", "list", {"limit": 1}),
    Row("list_recordings", "list", {"offset": 1}),
    Row("list_snapshots", "list"),
    Row("list_snapshots", "list", {"limit": 1}),
    Row("get_recording_info", "file"),
    Row("get_recording_info", "file", file="1"),
    Row("get_recording_evidence", "file"),
    Row("delete_recording", "file", file="{way}.mp4"),
    Row("protect_recording", "file"),
    Row("unprotect_recording", "file"),
    Row("create_file_link", "file", own=201),
    Row("create_file_link", "file", {"kind": "snapshot"}, own=201, file="1.jpg"),
    Row("get_snapshot_info", "file", file="1.jpg"),
    Row("delete_snapshot", "file", file="{way}.jpg"),
    # By one way it is begun and ended, by the other it runs or has ended already.
    Row("start_recording", "camera", {"filename": "yard-new"}, own=0),
    Row("get_recording_status", "camera"),
    Row("stop_recording", "camera", own=0),
    # No such picture can be taken: the test camera has no ffmpeg that it may use.
    Row("take_snapshot", "camera", own=0),
    Row("get_camera_status", "camera"),
    Row("get_stream_url", "camera"),
    Row("create_ticket", "camera", own=201),
    Row("update_camera", "camera", {"rate": 5}, own=0),
    Row("remove_camera", "camera", own=0),
    Row("rename_camera", "camera", {"name": "yard"}, own=0),
    Row("forget_camera", "camera", own=0),
    Row("set_retention_policy", "camera", {"policy_type": "manual", "enabled": True}),
    Row("GET /api/cameras/{device}/snapshot.jpg", "camera", own=0),
    Row("GET /api/cameras/{device}/snapshot.jpg", "camera", {"at": BEGAN + 1.2}, own=0),
    Row("GET /api/cameras/{device}/live.mjpeg", "camera", {"fps": 0}, own=0),
    # Of no interval, and of no time: told to whoever may know of the camera.
    Row("create_clip", "camera", {"start": 2, "end": 1}, own=0),
    Row("get_snapshot", "camera", {"at": "then"}, own=0),
    # Without a camera: test_events.py.
    Row("get_events", "camera"),
    Row("create_playback_link", "camera", DAY, own=201),
    Row("GET /api/cameras/{device}/playback.m3u8", "camera", DAY),
    Row("get_timeline", "camera"),
    Row("get_timeline", "camera", {**DAY, "limit": 1}),
    Row("create_event", "camera", {"kind": "motion", "snapshot": False}, own=0),
    Row("GET /files/recordings/{filename}", "file"),
    Row("HEAD /files/recordings/{filename}", "file"),
    Row("GET /files/recordings/{filename}", "file", file="1"),
    Row("GET /files/snapshots/{filename}", "file", file="1.jpg"),
    Row("GET /files/segments/{filename}", "file", names=(segment(1, 1), segment(0, 1), segment(1, 999))),
]
#: Whatever a caller must never be told of camera0, camera2 and camera9.
FOREIGN = re.compile("gate|camera0|camera2|camera9")


class Sum(NamedTuple):
    """What is asked about no single camera; `says` is in what somebody is told who may see all cameras."""

    asked: str
    params: Mapping[str, Any] = {}
    says: str = ""
    #: In HTTP, to whoever is limited.
    status: int = 200


OF_ALL = [
    Sum("whoami"),
    Sum("list_sessions"),
    Sum("get_camera_list", says="gate post"),
    Sum("get_camera_list", {"limit": 1}, says="camera0"),
    Sum("get_streams", says="gate_way"),
    Sum("get_streams", {"limit": 1}, says="gate"),
    Sum("get_events", says="camera0"),
    Sum("get_events", {"kinds": "camera,recording"}, says="camera2"),
    Sum("get_system_status", says="1 of 3 cameras"),
    Sum("get_storage_info"),
    Sum("get_clock"),
    Sum("get_token_usage"),
    Sum("list_camera_devices"),
    Sum("list_revocations"),
    Sum("list_signing_keys"),
    Sum("list_service_tokens"),
    # These are about the files of all cameras, and a new camera is none of the caller's own.
    Sum("cleanup_old_files", status=403),
    Sum("set_retention_policy", {"policy_type": "age", "enabled": True, "max_age_days": 0.001}, status=403),
    Sum("add_camera", {"name": "x", "source": "rtsp://192.0.2.1/", "path": "gate_way"}, status=403),
    Sum("GET /metrics", says='camera="camera0"', status=403),
    Sum("GET /health"),
    Sum("GET /healthz"),
    Sum("GET /health/live"),
    Sum("GET /health/ready"),
]
#: What has no row, and why.
EXEMPT = {
    "ping": "always pong",
    "authenticate": "the caller's own rights",
    "subscribe_events": "what is told then: test_nobody_hears_of_a_foreign_camera",
    "unsubscribe_events": "the same",
    "confirm_restore": "on the unix socket",
    "reset_clock": "on the unix socket",
    "end_session": "its reply repeats an id",
    **dict.fromkeys(
        ("bind_camera", "release_camera_device"), "a device that is plugged in, as list_camera_devices: "
        "test_operations_camera_devices.py"
    ),
    # Rights name cameras by the words that somebody has chosen; who may read them is another question (7.2).
    **dict.fromkeys((
        "create_key", "list_keys", "get_key", "update_key", "suspend_key", "resume_key", "rotate_key", "revoke_key",
        "import_keys", "list_users", "create_user", "get_user", "update_user", "delete_user", "set_password",
        "create_demo_login", "issue_token", "validate_token", "introspect_token", "revoke_token", "refresh_token",
        "create_stream_token", "login", "claim", "get_claim_code", "create_claim_code", "revoke",
    ), "about credentials, not about cameras"),
    **dict.fromkeys((
        "create_service_token", "import_service_token", "rotate_service_token", "revoke_service_token",
        "generate_files_token", "create_signing_key", "promote_signing_key", "retire_signing_key",
    ), "about secrets and keys of the box, which have no camera"),
}  # fmt: skip
#: Routes without an operation, and why they have no row.
EXEMPT_PATHS = {
    "/": "a page of the program",
    "/jwks-path": "public keys", "/.well-known/jwks.json": "public keys", "/ws": "the operations", "/ws/": "the same",
    "/static/page.js": "a file of the program", "/static/page.css": "the same", "/static/icon.svg": "the same",
}  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A running daemon with the files of two cameras, and who asks."""

    daemon: RunningDaemon
    restricted: str
    everyone: str
    #: An administrator's, as `restricted`, but for all cameras.
    admin: str

    async def rpc(self, key: str, method: str, params: Mapping[str, Any]) -> Any:
        """The reply as text: result or error."""
        async with self.daemon.websocket() as client:
            await client.call("authenticate", auth_token=key)
            return await client.ask(method, **params)

    async def rest(self, key: str, asked: str, params: Mapping[str, Any]) -> Reply:
        """By an operation's route, or `METHOD /path`."""
        if " " in asked:
            method, path, source = (*asked.split(" ", 1), "query")
        else:
            declared = CATALOGUE.operations[asked].rest
            assert declared is not None, asked
            method, path, source = declared.method, declared.path, declared.source
        left = dict(params)
        for name in re.findall(r"{(\w+)", path):
            path = re.sub(rf"{{{name}(:path)?}}", quote(str(left.pop(name))), path)
        if source == "query":
            return await self.daemon.request(method, f"{path}?{urlencode(left)}" if left else path, key=key)
        return await self.daemon.request(method, path, key=key, body=left)


async def fill(folder: Path) -> None:
    """Recordings and pictures of both cameras, before the start."""
    async with Database.open(folder / "state" / "trust.db", TRUST, name="trust") as trust:
        for number, word in ((0, "gate"), (1, "yard"), (9, "gate9")):
            camera = f"camera{number}"
            pictures = folder / "state" / "media" / "snapshots" / camera
            pictures.mkdir(parents=True)
            for count, name in enumerate((*map(str, range(MANY - 2)), "rpc", "rest")):
                began = BEGAN + 600 * count + number
                day = time.strftime("%Y-%m-%d", time.gmtime(began))
                segment = folder / "state" / "media" / "recordings" / camera / day / f"{began}-000000.mp4"
                segment.parent.mkdir(parents=True, exist_ok=True)
                segment.write_bytes(make_segment(at_ns=began * 10**9))
                (pictures / f"{word}{name}.jpg").write_bytes(b"\xff\xd8 a picture \xff\xd9")
                record = RecordingRecord(
                    recording_id=f"rec_{number}{count:015x}", filename=f"{word}{name}.mp4", camera=camera,
                    format="fmp4", began=float(began), ended=began + 0.6,
                )  # fmt: skip
                await trust.write(partial(recordings.insert, record=record))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    directory = write_config(folder)
    text = (directory / "box.toml").read_text()
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("main", "compat", "rtsp", "hls", "webrtc", "webrtc_udp")}
    media = "".join(f'{name} = "{addresses[name]}"\n' for name in ("rtsp", "hls", "webrtc", "webrtc_udp"))
    for old, new in (
        ("main = []", f'main = ["{addresses["main"]}"]'),
        ("compat = []", f'compat = ["{addresses["compat"]}"]'),
        ("enabled = false", media),
        ('name = "Front dock"', 'name = "gate post"\npath = "gate_way"'),
    ):
        assert old in text
        text = text.replace(old, new)
    for name, path in (("yard post", "yard_way"), ("gate two", "gate_two")):
        text += f'\n[[camera]]\nname = "{name}"\nsource = "test"\npath = "{path}"\n'
    (directory / "box.toml").write_text(text)
    trio.run(fill, folder)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    serving = fork_server.start(["-m", "edged", "serve", "--directory", directory], environ, folder / "log")
    try:
        wait_for_socket(folder / "run" / "edged.sock", serving, folder / "log")
        yield trio.run(make_box, RunningDaemon(load(directory), folder / "log"))
        serving.terminate()
        assert serving.wait(timeout=30) == 0, (folder / "log").read_text()
    finally:
        serving.kill()
        serving.wait()


def plug(daemon: RunningDaemon, label: str) -> Path:
    """The file that stands for a test camera's plug."""
    return daemon.config.paths.state / "test-cameras" / label


async def make_box(daemon: RunningDaemon) -> Box:
    with fail_after(30):
        _, restricted = await daemon.create_key("admin", camera_access=["camera1"])
        _, everyone = await daemon.create_key("operator")
        _, admin = await daemon.create_key("admin")
        found = Box(daemon, restricted, everyone, admin)
        await daemon.wait_media()
        plug(daemon, "gate two").unlink()
        while (await found.rpc(admin, "get_camera_status", {"device": "camera2"}))["result"]["status"] == "CONNECTED":
            await trio.sleep(0.05)
        # The files are indexed after the start.
        while any(
            not each["file_size"] for each in (await found.rpc(everyone, "list_recordings", {}))["result"]["files"]
        ):
            await trio.sleep(0.05)
    return found


def test_every_operation_and_every_route_has_a_row() -> None:
    """Whoever adds one adds a row to `ASKED` or `OF_ALL`."""
    asked = {row.asked for row in ASKED} | {row.asked for row in OF_ALL}
    for name in CATALOGUE.operations:
        assert (name in asked) + (name in EXEMPT) == 1, name
    by_operations = {each.rest.path for each in CATALOGUE.operations.values() if each.rest is not None}
    routes = {re.sub(r"{\w+(:path)?}", "{}", each.partition(" ")[2]) for each in asked if " " in each}
    for path in list_paths() - by_operations:
        assert (re.sub(r"{\w+(:path)?}", "{}", path) in routes) + (path in EXEMPT_PATHS) == 1, path


WAYS = [(row, way) for row in ASKED for way in ("rpc", "rest") if way == "rest" or " " not in row.asked]


@pytest.mark.parametrize(("row", "way"), WAYS, ids=[f"{row.asked}-{way}" for row, way in WAYS])
async def test_exactly_the_own_camera_is_seen(box: Box, row: Row, way: str) -> None:
    """What is foreign is answered as what does not exist, word for word."""
    file = row.file.format(way=way)
    with fail_after(30):
        if row.kind == "list":
            seen, everything = [await ask(box, way, key, row) for key in (box.restricted, box.everyone)]
            assert seen.status == everything.status == 200
            assert "yard" in seen.text
            assert not FOREIGN.search(seen.text)
            assert seen.json["total"] == len([each for each in everything.all if each["device"] == "camera1"])
            assert "camera0" in {each["device"] for each in everything.all}
            return
        name = "filename" if row.kind == "file" else "device"
        own, foreign, absent = (
            (f"yard{file}", f"gate{file}", f"none{file}") if row.kind == "file" else ("camera1", "camera0", "camera77")
        )
        own, foreign, absent = row.names or (own, foreign, absent)
        nothing = await ask(box, way, box.restricted, row, **{name: absent})
        hidden = await ask(box, way, box.restricted, row, **{name: foreign})
        assert (hidden.status, hidden.text.replace(foreign, absent)) == (nothing.status, nothing.text)
        assert hidden.status == 404
        shown = await ask(box, way, box.restricted, row, **{name: own})
        assert not FOREIGN.search(shown.text)
        assert row.own == 0 or shown.status == row.own, shown.text
        assert shown.status != 404


SUMS = [(row, way) for row in OF_ALL for way in ("rpc", "rest") if way == "rest" or " " not in row.asked]


@pytest.mark.parametrize(("row", "way"), SUMS, ids=[f"{row.asked}-{way}" for row, way in SUMS])
async def test_what_is_about_all_cameras_says_nothing_of_foreign_ones(box: Box, row: Sum, way: str) -> None:
    """Neither a name nor a number of them; the row's own word shows that there is something to be told."""
    with fail_after(30):
        if row.status == 200:
            everything = await ask_all(box, way, box.admin, row)
            assert row.says in everything[1]
        status, text = await ask_all(box, way, box.restricted, row)
        assert not FOREIGN.search(text)
        assert not re.search(r"\bof [23] cameras", text)
        if way == "rest":
            assert status == row.status, text
        else:
            assert ("permission_denied" in text) == (row.status != 200), text


async def ask_all(box: Box, way: str, key: str, row: Sum) -> tuple[int, str]:
    """(status of HTTP, 0 by RPC; the whole reply as text)."""
    if way == "rpc":
        return 0, json.dumps(await box.rpc(key, row.asked, row.params))
    answered = await box.rest(key, row.asked, row.params)
    return answered.status, f"{answered.headers}\n{answered.body.decode()}"


async def test_sums_are_of_the_own_camera(box: Box) -> None:
    """get_storage_info, get_camera_list and get_system_status: the figures of whoever sees all are those of two."""
    with fail_after(30):
        for kind, member in (("recordings", "recordings_size"), ("snapshots", "snapshots_size")):
            sizes = []
            for key in (box.restricted, box.admin):
                files = (await box.rpc(key, f"list_{kind}", {"limit": 1000}))["result"]["files"]
                info = (await box.rpc(key, "get_storage_info", {}))["result"]
                assert info[member] == sum(each["file_size"] for each in files) > 0
                sizes.append(info[member])
            assert sizes[0] < sizes[1]
        for key, total, connected in ((box.restricted, 1, 1), (box.admin, 3, 2)):
            listed = (await box.rpc(key, "get_camera_list", {}))["result"]
            assert (listed["total"], listed["connected"]) == (total, connected)
        own, whole = [(await box.rpc(key, "get_system_status", {}))["result"] for key in (box.restricted, box.admin)]
        assert (own["status"], own["message"], own["problems"]) == ("ready", "everything works", [])
        assert own["available_cameras"] == ["camera1"]
        assert whole["status"] == "partial"


async def test_links_and_cursors_of_others_open_nothing_foreign(box: Box) -> None:
    """A credential that is shown counts before the link; a cursor says where to go on, and not what may be seen."""
    with fail_after(30):
        for filename, kind in (("gate1.mp4", "recording"), ("gate1.jpg", "snapshot")):
            link = (await box.rpc(box.everyone, "create_file_link", {"filename": filename, "kind": kind}))["result"]
            path = "/" + link["url"].split("/", 3)[3]
            assert (await box.daemon.request("GET", path)).status == 200
            assert (await box.daemon.request("GET", path, key=box.restricted)).status == 404
        played = await box.rpc(box.everyone, "create_playback_link", {"device": "camera0", **DAY})
        path = "/" + played["result"]["url"].split("/", 3)[3]
        assert (await box.daemon.request("GET", path)).status == 200
        assert (await box.daemon.request("GET", path, key=box.restricted)).status == 404
        for method, member in (("list_recordings", "cursor"), ("list_snapshots", "cursor"), ("get_events", "since")):
            page = (await box.rpc(box.everyone, method, {"limit": 1}))["result"]
            cursor = page["cursor" if method == "get_events" else "next_cursor"]
            for way in ("rpc", "rest"):
                status, text = await ask_all(box, way, box.restricted, Sum(method, {member: cursor}))
                assert status in (0, 200)
                assert not FOREIGN.search(text)


@pytest.mark.parametrize(
    ("asked", "params"),
    [
        ("get_timeline", DAY),
        ("create_playback_link", DAY),
        ("GET /api/cameras/{device}/playback.m3u8", DAY),
        ("set_retention_policy", {"policy_type": "manual", "enabled": True}),
    ],
)
async def test_a_foreign_camera_that_is_gone_is_as_one_that_never_was(
    box: Box, asked: str, params: Mapping[str, Any]
) -> None:
    """Its recordings are told to those who may see it, whether it is there or not."""
    with fail_after(30):
        status, _ = await ask_all(box, "rest", box.admin, Sum(asked, {**params, "device": "camera9"}))
        assert status in (200, 201)
        told = [
            await ask_all(box, "rest", box.restricted, Sum(asked, {**params, "device": name}))
            for name in ("camera9", "camera77")
        ]
        assert told[0][0] == told[1][0] == 404
        assert told[0][1].rpartition("\n")[2].replace("camera9", "camera77") == told[1][1].rpartition("\n")[2]


async def test_a_picture_of_a_foreign_event_is_no_picture_of_the_own_camera(box: Box) -> None:
    """The id of an event of camera0 is as good as none for camera1."""
    with fail_after(30):
        params = {"device": "camera0", "kind": "motion", "snapshot": False}
        event = (await box.rpc(box.everyone, "create_event", params))["result"]["event_id"]
        for asked in (event, "evt_0000000000000000"):
            reply = await box.rpc(box.restricted, "get_snapshot", {"device": "camera1", "event": asked})
            error = json.dumps(reply["error"]).replace(asked, "")
            assert not FOREIGN.search(error)
            assert reply["error"]["data"]["reason"] == "not_found"


async def test_a_name_or_path_that_a_foreign_camera_has_is_refused_without_naming_it(box: Box) -> None:
    """update_camera and rename_camera: whoever sees all cameras is told which one is in the way."""
    added = {"name": "net", "source": "rtsp://192.0.2.1/one"}
    with fail_after(30):
        device = (await box.rpc(box.admin, "add_camera", added))["result"]["device"]
        _, limited = await box.daemon.create_key("admin", camera_access=[device])
        for method, params in (
            ("update_camera", {"name": "gate post"}),
            ("update_camera", {"path": "gate_way"}),
            ("rename_camera", {"name": "gate two"}),
        ):
            (value,) = params.values()
            for key in (limited, box.admin):
                error = (await box.rpc(key, method, {"device": device, **params}))["error"]
                assert error["data"]["reason"] == "invalid_state"
                told = json.dumps(error).replace(value, "")
                assert bool(FOREIGN.search(told)) is (key is box.admin), told
        await box.rpc(box.admin, "remove_camera", {"device": device})


async def test_a_viewer_of_a_foreign_camera_is_a_session_without_a_camera(box: Box) -> None:
    """An administrator may end every session, and is told the camera of those alone that it may see."""
    with fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", box.daemon.port) as viewer:
            request = f"GET /api/cameras/camera0/live.mjpeg HTTP/1.1\r\nHost: x\r\nX-API-Key: {box.everyone}\r\n\r\n"
            await viewer.send_all(request.encode())
            assert (await viewer.receive_some()).startswith(b"HTTP/1.1 200")
            for key, camera in ((box.admin, "camera0"), (box.restricted, None)):
                sessions = (await box.rpc(key, "list_sessions", {}))["result"]["sessions"]
                (seen,) = [each for each in sessions if each["transport"] == "http"]
                assert seen["camera"] == camera


async def test_nobody_hears_of_a_foreign_camera(box: Box) -> None:
    """In both dialects, by either name of a topic, with and without a filter: the same happens to both cameras."""
    compat = int(box.daemon.config.listen.compat[0].rpartition(":")[2])
    topics = sorted(set(TOPICS) - {"camera_status_update", "recording_status_update"})
    with fail_after(60):
        async with AsyncExitStack() as stack:
            listeners = []
            for key, port, filters in (
                (box.restricted, compat, None), (box.restricted, box.daemon.port, None),
                (box.restricted, box.daemon.port, {"device": "camera0"}),
                (box.admin, compat, None), (box.admin, box.daemon.port, None),
            ):  # fmt: skip
                client = await stack.enter_async_context(box.daemon.websocket(port))
                await client.call("authenticate", **{"token" if port == compat else "auth_token": key})
                if filters is None:
                    await client.call("subscribe_events", topics=topics)
                else:
                    refused = await client.ask("subscribe_events", topics=topics, filters=filters)
                    absent = await client.ask("subscribe_events", topics=topics, filters={"device": "camera77"})
                    assert json.dumps(refused).replace("camera0", "camera77").replace(
                        f'"id": {refused["id"]}', f'"id": {absent["id"]}'
                    ) == json.dumps(absent)
                listeners.append(client)
            await stir(box)
            for number, client in enumerate(listeners):
                is_limited, is_filtered = number < 3, number == 2
                if not is_filtered:
                    while (await client.hear("event.created")).get("text") != "the end":
                        pass
                told = [json.dumps(each) for each in client.news]
                if is_limited:
                    assert not [each for each in told if FOREIGN.search(each)]
                else:
                    assert [each for each in told if "camera0" in each]
                    assert [each for each in told if "camera2" in each]


async def stir(box: Box) -> None:
    """Something of each kind happens to each camera, and at last an event of camera1."""
    for device in ("camera0", "camera1"):
        for method, params in (
            ("create_event", {"kind": "motion", "snapshot": False}),
            ("start_recording", {}),
            ("stop_recording", {}),
            ("take_snapshot", {}),
        ):
            await box.rpc(box.admin, method, {"device": device, **params})
    plug(box.daemon, "gate two").touch()
    while (await box.rpc(box.admin, "get_camera_status", {"device": "camera2"}))["result"]["status"] != "CONNECTED":
        await trio.sleep(0.05)
    plug(box.daemon, "gate two").unlink()
    while (await box.rpc(box.admin, "get_camera_status", {"device": "camera2"}))["result"]["status"] == "CONNECTED":
        await trio.sleep(0.05)
    params = {"device": "camera1", "kind": "motion", "snapshot": False, "text": "the end"}
    await box.rpc(box.admin, "create_event", params)


class Answer(NamedTuple):
    """A reply by either way: the status of HTTP, the text, and the JSON; `all`: the files of a list without limits."""

    status: int
    text: str
    json: Any
    all: list[Any]


async def ask(box: Box, way: str, key: str, row: Row, **more: str) -> Answer:
    params = {**row.params, **more}
    everything = []
    if row.kind == "list":
        everything = (await box.rpc(key, row.asked, {**row.params, "limit": 1000, "offset": 0}))["result"]["files"]
    if way == "rpc":
        reply = await box.rpc(key, row.asked, params)
        found = reply.get("result", reply.get("error"))
        status = (
            200 if "result" in reply else int(reply["error"]["data"].get("status", 404 if is_absent(reply) else 400))
        )
        return Answer(row.own if "result" in reply and row.own else status, json.dumps(found), found, everything)
    answered = await box.rest(key, row.asked, params)
    is_json = "json" in answered.headers.get("content-type", "")
    text = answered.body.decode(errors="replace")
    return Answer(answered.status, text, msgspec.json.decode(answered.body) if is_json and text else None, everything)


def is_absent(reply: Any) -> bool:
    return reply["error"]["data"]["reason"] in ("not_found", "camera_not_found", "file_not_found")
