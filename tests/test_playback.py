"""Playback of recordings over the whole daemon: what ffmpeg plays by a link alone, and what ends it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import trio
from daemon_helpers import Conversation, Reply, RunningDaemon, make_config, running_daemon
from patience import fail_after
from test_library_playlists import Entry, read_list

from edged.mediamtx import settings

pytestmark = pytest.mark.ffmpeg

#: When the first file began, Unix seconds, and the times of all.
BEGAN = 1_790_000_000
ALL = {"start": "2026-09-21T14:13:20Z", "end": "2026-09-21T14:15:00Z"}
#: Seconds behind `BEGAN`, size of the picture, pictures a second. Each file has six seconds.
FILES = ((0, "160x120", 25), (6, "160x120", 25), (60, "320x180", 10))
PICTURES = 6 * 25 + 6 * 25 + 6 * 10
PLACE = "camera0/2026-09-21"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with picture and sound in parts of one second, as MediaMTX writes them; key frames lie within the parts."""
    folder = tmp_path_factory.mktemp("made")
    for offset, size, rate in FILES:
        source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}", "-f", "lavfi", "-i", "sine"]
        coding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "24", "-c:a", "aac"]
        parts = ["-movflags", "empty_moov+default_base_moof", "-frag_duration", "1000000", "-f", "mp4"]
        target = folder / f"{BEGAN + offset}-000000.mp4"
        subprocess.run(["ffmpeg", "-v", "error", *source, "-t", "6", *coding, *parts, target], check=True)
    return folder


@dataclass
class Box:
    """A running daemon with three files of camera0, and a viewer."""

    daemon: RunningDaemon
    admin: Conversation
    key_id: str
    key: str
    folder: Path

    async def link(self, **more: Any) -> str:
        reply = await self.daemon.request(
            "POST", "/api/cameras/camera0/playback", key=self.key, body={**ALL, **more}
        )  # fmt: skip
        assert reply.status == 201, reply.body
        assert reply.json["url"].startswith(f"http://127.0.0.1:{self.daemon.port}/api/cameras/camera0/playback.m3u8?")
        return str(reply.json["url"])

    async def get(self, url: str, method: str = "GET", **headers: str) -> Reply:
        """Without a credential in a header, as a player does."""
        parts = urlsplit(url)
        return await self.daemon.request(method, f"{parts.path}?{parts.query}", headers=headers)

    async def entries(self, url: str) -> list[Entry]:
        reply = await self.get(url)
        assert reply.status == 200, reply.body
        return [entry._replace(url=urljoin(url, entry.url)) for entry in read_list(reply.body.decode())]


@asynccontextmanager
async def opened(folder: Path, made: Path) -> AsyncIterator[Box]:
    config = make_config(folder, cameras=1)
    kept = config.recording.folder / PLACE
    kept.mkdir(parents=True)
    for path in made.iterdir():
        (kept / path.name).write_bytes(path.read_bytes())
    with fail_after(60):
        async with running_daemon(folder, config=config) as daemon, daemon.local() as admin:
            key_id, key = await daemon.create_key()
            while len((await admin.call("get_timeline", device="camera0", **ALL))["spans"]) < 2:
                await trio.sleep(0.05)
            yield Box(daemon, admin, key_id, key, kept)


async def ffmpeg(*words: str, program: str = "ffmpeg") -> subprocess.CompletedProcess[bytes]:
    """Ended with the test; what it said."""
    command = [program, "-v", "error", *words]
    return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)


async def count_pictures(url: str) -> int:
    """That arrive at ffmpeg's decoder."""
    counted = ("-select_streams", "v", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0")
    done = await ffmpeg(*counted, url, program="ffprobe")
    return int(done.stdout.split()[0])


async def test_ffmpeg_plays_every_picture_by_the_link_alone(tmp_path: Path, made: Path) -> None:
    """Of files of two sizes, over a gap; from any time on."""
    async with opened(tmp_path, made) as box:
        url = await box.link()
        found = await box.entries(url)
        begins = {entry.number: entry.at for entry in reversed(found)}
        assert [begins[number] for number in range(3)] == [BEGAN, BEGAN + 6, BEGAN + 60]
        assert await count_pictures(url) == PICTURES
        done = await ffmpeg("-xerror", "-i", await box.link(end="2026-09-21T14:13:32Z"), "-f", "null", "-")
        assert (done.returncode, done.stderr) == (0, b"")
        assert await count_pictures(await box.link(start="2026-09-21T14:13:26.1Z")) == PICTURES - 150
        assert await count_pictures(await box.link(start="2026-09-21T14:14:00Z")) == 60
        # What the list names are the bytes of the file.
        data = next(path for path in made.iterdir() if path.name in found[0].url).read_bytes()
        for entry in found[:2]:
            span = f"bytes={entry.offset}-{entry.offset + entry.size - 1}"
            reply = await box.get(entry.url, Range=span)
            assert (reply.status, reply.body) == (206, data[entry.offset : entry.offset + entry.size])
        head = await box.get(url, "HEAD")
        assert (head.status, head.headers["content-type"]) == (200, "application/vnd.apple.mpegurl")
        assert (head.headers["cache-control"], head.headers["referrer-policy"]) == ("no-store", "no-referrer")
        # The same list by a header; and its links are the same, too.
        query = "&".join(f"{name}={value}" for name, value in ALL.items())
        by_key = await box.daemon.request("GET", f"/api/cameras/camera0/playback.m3u8?{query}", key=box.key)
        assert by_key.body == (await box.get(url)).body


async def test_a_player_stops_where_its_key_is_revoked(tmp_path: Path, made: Path) -> None:
    """At the next piece; nothing of the list opens any more."""
    async with opened(tmp_path, made) as box:
        url = await box.link()
        found = await box.entries(url)
        for entry in found:
            assert (await box.get(entry.url, "HEAD")).status == 200
        # As fast as it was recorded: the list has 18 seconds.
        command = ["ffmpeg", "-v", "error", "-progress", "pipe:1", "-re", "-i", url, "-map", "0:v", "-f", "null", "-"]
        player = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert player.stdout is not None
        said = b""
        while not (shown := re.findall(rb"frame=([0-9]+)\n", said)) or int(shown[-1]) < 5:
            said += await player.stdout.receive_some()
        await box.daemon.revoke_key(box.key_id)
        while piece := await player.stdout.receive_some():
            said += piece
        await player.wait()
        # What it had fetched by then, and not the rest.
        assert int(re.findall(rb"frame=([0-9]+)\n", said)[-1]) < PICTURES - 150
        for target in (url, found[0].url, found[-1].url):
            reply = await box.get(target)
            assert (reply.status, reply.json["code"]) == (401, "revoked")


async def test_a_file_that_is_deleted_meanwhile_is_not_found_and_the_player_goes_on(tmp_path: Path, made: Path) -> None:
    async with opened(tmp_path, made) as box:
        url = await box.link()
        found = await box.entries(url)
        (box.folder / f"{BEGAN + 6}-000000.mp4").unlink()
        gone = next(entry for entry in found if f"{BEGAN + 6}-" in entry.url)
        reply = await box.get(gone.url)
        assert (reply.status, reply.json["code"]) == (404, "not_found")
        assert await count_pictures(url) == 150


async def test_a_list_ends_where_the_sound_goes_and_another_one_goes_on_from_there(tmp_path: Path, made: Path) -> None:
    """hls.js stops at such a change before the first picture, and ffmpeg shows a broken one."""
    folder = tmp_path / "made"
    shutil.copytree(made, folder)
    source = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10", "-t", "6", "-c:v", "libx264", "-g", "10"]
    parts = ["-movflags", "empty_moov+default_base_moof", "-frag_duration", "1000000", "-pix_fmt", "yuv420p"]
    silent = str(folder / f"{BEGAN + 70}-000000.mp4")
    assert (await ffmpeg(*source, *parts, silent)).returncode == 0
    async with opened(tmp_path, folder) as box:
        reply = await box.daemon.request("POST", "/api/cameras/camera0/playback", key=box.key, body=ALL)
        assert reply.json["continues_at"] == "2026-09-21T14:14:30.000Z"
        url = reply.json["url"]
        assert (await box.get(url)).body.endswith(b"#EXT-X-ENDLIST\n")
        assert await count_pictures(url) == PICTURES
        following = await box.link(start=reply.json["continues_at"])
        assert {entry.at for entry in await box.entries(following)} >= {float(BEGAN + 70)}
        done = await ffmpeg("-xerror", "-i", following, "-f", "null", "-")
        assert (done.returncode, done.stderr) == (0, b"")
        assert await count_pictures(following) == 60


BAD = (
    ("", 400, "start and end are required"),
    ("start=2026-09-21T14:13:20Z", 400, "start and end are required"),
    ("start=x&end=y", 400, "start is no ISO 8601 time"),
    ("start=2026-09-22T00:00:00Z&end=2026-09-21T00:00:00Z", 400, "end must lie behind start"),
    ("start=2026-09-21T00:00:00Z&end=2026-09-22T00:00:00Z&end=2026-09-23T00:00:00Z", 400, "stands twice"),
    ("start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z", 404, "nothing of camera0 is recorded"),
)


async def test_a_time_that_is_none_is_an_error_and_a_link_opens_no_other_time(tmp_path: Path, made: Path) -> None:
    async with opened(tmp_path, made) as box:
        for query, status, said in BAD:
            reply = await box.daemon.request("GET", f"/api/cameras/camera0/playback.m3u8?{query}", key=box.key)
            assert reply.status == status
            assert said in reply.json["detail"]
        url = await box.link()
        assert (await box.get(url.replace("14%3A13%3A20", "14%3A13%3A10"))).status == 401
        assert (await box.get(url.replace("camera0", "camera1"))).status == 401


@pytest.mark.slow
@pytest.mark.mediamtx
async def test_a_recording_that_runs_is_a_list_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real MediaMTX; when it has ended the list ends, and ffmpeg plays what its files hold."""
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "2s")
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(90):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            key_id, key = await daemon.create_key()
            box = Box(daemon, admin, key_id, key, config.recording.folder)
            begun = await admin.call("start_recording", device="camera0")
            times = {
                "start": begun["start_time"],
                "end": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
            }
            answer = Reply(404, {}, b"")
            while answer.status == 404:
                await trio.sleep(0.2)
                answer = await daemon.request("POST", "/api/cameras/camera0/playback", key=key, body=times)
            assert answer.json["growing"]
            url = answer.json["url"]
            first = (await box.get(url)).body.decode()
            assert "#EXT-X-PLAYLIST-TYPE" not in first
            second = first
            while len(read_list(second)) < len(read_list(first)) + 2:
                await trio.sleep(0.2)
                second = (await box.get(url)).body.decode()
            assert second.startswith(first)
            await admin.call("stop_recording", device="camera0")
            last = second
            while "#EXT-X-ENDLIST" not in last:
                await trio.sleep(0.2)
                last = (await box.get(url)).body.decode()
            assert last.startswith(second)
            kept = list(config.recording.folder.glob("camera0/*/*.mp4"))
            assert await count_pictures(url) == sum([await count_pictures(str(path)) for path in kept])
            assert len(kept) >= 3
