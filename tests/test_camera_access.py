"""Whoever has `camera_access: [camera1]` sees exactly camera1, by every operation and route that deals with files.

Both cameras have the same kinds of files; those of camera0 are all named `gate…`, those of camera1 `yard…`. A row of
`ASKED` is enough for a new operation: it is asked by RPC and by its route, of a foreign and of an own file or camera.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
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
from edged.store import recordings
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.recordings import RecordingRecord
from edged.web.routes import list_paths

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
#: What deals with files and is of no camera, and why.
OF_NO_CAMERA = {
    "get_storage_info": "administrators only: the disk as a whole",
    "set_retention_policy": "administrators only",
    "cleanup_old_files": "administrators only",
    "generate_files_token": "a token for what another service keeps",
}
#: By these words an operation or a path deals with files.
WORDS = re.compile(r"record|snapshot|clip|playback|timeline|event|files|picture|storage|retention")
#: Of these only the words match.
NO_FILES = {"subscribe_events": "test_recordings.py and test_rpc_notifications.py", "unsubscribe_events": "the same"}
#: Routes without an operation that show live pictures of a camera: test_web_live.py.
LIVE = re.compile(r"/api/cameras/|/v1/files/")


@dataclass(frozen=True)
class Box:
    """A running daemon with the files of two cameras, and who asks."""

    daemon: RunningDaemon
    restricted: str
    everyone: str

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
        for number, word in enumerate(("gate", "yard")):
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
    with (directory / "more.toml").open("w") as more:
        more.write('[[camera]]\nname = "Yard"\nsource = "test"\n')
    text = (directory / "box.toml").read_text().replace("main = []", f'main = ["127.0.0.1:{free_port()}"]')
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


async def make_box(daemon: RunningDaemon) -> Box:
    with fail_after(30):
        _, restricted = await daemon.create_key("admin", camera_access=["camera1"])
        _, everyone = await daemon.create_key("operator")
        found = Box(daemon, restricted, everyone)
        # The files are indexed after the start.
        while any(
            not each["file_size"] for each in (await found.rpc(everyone, "list_recordings", {}))["result"]["files"]
        ):
            await trio.sleep(0.05)
    return found


def test_every_operation_and_route_that_deals_with_files_has_a_row() -> None:
    """Whoever adds one adds a row to `ASKED`."""
    asked = {row.asked for row in ASKED}
    for name, each in CATALOGUE.operations.items():
        if each.counted_as == "recordings" or WORDS.search(name):
            assert (name in asked) + (name in OF_NO_CAMERA) + (name in NO_FILES) == 1, name
    by_operations = {each.rest.path for each in CATALOGUE.operations.values() if each.rest is not None}
    routes = {re.sub(r"{\w+(:path)?}", "{}", row.asked.partition(" ")[2]) for row in ASKED if " " in row.asked}
    for path in list_paths() - by_operations:
        if WORDS.search(path) and not LIVE.match(path):
            assert re.sub(r"{\w+(:path)?}", "{}", path) in routes, path


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
            assert not re.search("gate|camera0", seen.text)
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
        assert "gate" not in shown.text
        assert row.own == 0 or shown.status == row.own, shown.text
        assert shown.status != 404


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
