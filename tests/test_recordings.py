"""Recordings over the whole daemon with the real MediaMTX and ffmpeg."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import fork_server
import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from patience import FACTOR, fail_after

from edged.config.model import Config, RecordingSettings
from edged.library import active_recordings, disk_watch
from edged.mediamtx import settings

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg, pytest.mark.slow]


async def until_active(client: Conversation, device: str = "camera0") -> dict[str, Any]:
    """The state of a recording that has its first bytes."""
    while True:
        state = await client.call("get_recording_status", device=device)
        if state is not None and state["status"] == "active":
            return dict(state)
        await trio.sleep(0.1)


async def until_written(config: Config, besides: Collection[Path] = ()) -> Path:
    """A file that was begun and has grown twice since, so has two seconds of pictures at least."""
    sizes: dict[Path, set[int]] = {}
    while True:
        for path in (config.recording.folder / "open").rglob("*.mp4"):
            with suppress(FileNotFoundError):
                seen = sizes.setdefault(path, set())
                seen.add(path.stat().st_size)
                if path not in besides and len(seen - {0}) > 2:
                    return path
        await trio.sleep(0.1)


def probe(file: Path) -> float:
    """Seconds of a file that ffmpeg decodes whole, without an error."""
    subprocess.run(["ffmpeg", "-v", "error", "-xerror", "-i", file, "-f", "null", "-"], check=True)
    command: list[str | Path] = ["ffprobe", "-v", "error", "-show_format", "-of", "json", file]
    said = subprocess.run(command, check=True, capture_output=True)
    return float(json.loads(said.stdout)["format"]["duration"])


async def fetch(daemon: RunningDaemon, key: str, name: str, folder: Path) -> Path:
    reply = await daemon.request("GET", f"/files/recordings/{name}", key=key)
    assert reply.status == 200, reply.body
    assert int(reply.headers["content-length"]) == len(reply.body)
    file = folder / f"fetched-{name}"
    file.write_bytes(reply.body)
    return file


def children(daemon: RunningDaemon, config: Config, name: str) -> list[int]:
    """The pids of this daemon's children of a program."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and Path(os.fsdecode(command[0])).name == name:
            found.append(int(folder.name))
    return found


async def test_a_recording_is_listed_described_fetched_and_deleted(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            begun = await admin.call("start_recording", device="camera0", filename="yard")
            assert (begun["success"], begun["filename"], begun["format"]) == (True, "yard.mp4", "fmp4")
            assert begun["recording"]["status"] == "active"
            state = await until_active(admin)
            assert (state["recording_id"], state["filename"]) == (begun["recording_id"], "yard.mp4")
            (camera,) = (await admin.call("get_camera_list"))["cameras"]
            assert (camera["recording"], camera["recording_session"]) == (True, begun["recording_id"])
            assert camera["current_file"] == "yard.mp4"
            assert camera["elapsed_time"] > 0
            again = (await admin.ask("start_recording", device="camera0"))["error"]
            assert (again["code"], again["data"]["reason"]) == (-32020, "already_recording")
            refused = await daemon.request("GET", "/files/recordings/yard.mp4", key=key)
            assert refused.status == 409
            await trio.sleep(3)
            ended = await admin.call("stop_recording", device="camera0")
            assert (ended["status"], ended["recording_id"]) == ("STOPPED", begun["recording_id"])
            assert ended["file_size"] > 10_000
            assert await admin.call("get_recording_status", device="camera0") is None
            (listed,) = (await admin.call("list_recordings"))["files"]
            assert (listed["filename"], listed["status"], listed["gaps"]) == ("yard.mp4", "STOPPED", 0)
            assert listed == await admin.call("get_recording_info", filename="yard")
            file = await fetch(daemon, key, "yard.mp4", tmp_path)
            assert probe(file) == pytest.approx(ended["duration"], abs=1)
            assert file.stat().st_size == ended["file_size"] == listed["file_size"]
            part = await daemon.request("GET", "/files/recordings/yard.mp4", key=key, headers={"Range": "bytes=10-19"})
            assert (part.status, part.body) == (206, file.read_bytes()[10:20])
            deleted = await admin.call("delete_recording", filename="yard.mp4")
            assert (deleted["filename"], deleted["deleted"]) == ("yard.mp4", True)
            assert (await daemon.request("GET", "/files/recordings/yard.mp4", key=key)).status == 404
            assert [path for path in config.recording.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("form", "ending"), [("fmp4", "mp4"), ("mp4", "mp4"), ("mkv", "mkv")])
async def test_segments_are_joined_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, ending: str
) -> None:
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "3s")
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            await admin.call("start_recording", device="camera0", filename="yard", format=form)
            await until_active(admin)
            await trio.sleep(8)
            ended = await admin.call("stop_recording", device="camera0")
            assert len(list((config.recording.folder / "camera0").rglob("*.mp4"))) >= 2
            file = await fetch(daemon, key, f"yard.{ending}", tmp_path)
            # The recorder is switched off after the recording has ended: up to a second more is in the file.
            assert ended["duration"] - 0.5 < probe(file) < ended["duration"] + 1.2
            first = file.stat()
            assert (await fetch(daemon, key, f"yard.{ending}", tmp_path)).stat().st_size == first.st_size


async def test_a_recording_ends_by_itself_and_the_reply_comes_before_the_notification(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon:
            _, key = await daemon.create_key("operator")
            _, elsewhere = await daemon.create_key(camera_access=["camera7"])
            async with daemon.websocket() as client, daemon.websocket() as other:
                for session, secret in ((client, key), (other, elsewhere)):
                    await session.call("authenticate", auth_token=secret)
                    await session.call("subscribe_events", topics=["recording_status_update"])
                # However long it takes until there is a picture.
                for seconds in (5, 10, 20):
                    client.news.clear()
                    begun = await client.call("start_recording", device="camera0", duration=seconds)
                    assert client.news == []
                    assert begun["duration"] == seconds
                    while not client.news or (last := client.news[-1]["params"])["status"] != "STOPPED":
                        await client.call("ping")
                        await trio.sleep(0.1)
                    told = [news["params"]["status"] for news in client.news]
                    if last["duration"] >= 1:
                        break
                assert told == ["STARTING", "RECORDING", "STOPPED"]
                assert last["recording"]["status"] == "completed"
                assert last["filename"] == begun["filename"]
                assert 1 <= last["duration"] <= seconds + 1
                await other.call("ping")
                assert other.news == []
                assert (await other.call("list_recordings"))["total"] == 0
                assert (await other.ask("get_recording_info", filename=begun["filename"]))["error"]["code"] == -32010


@pytest.mark.parametrize("killed", ["mediamtx", "ffmpeg"])
async def test_a_recording_goes_on_after_its_writer_was_killed(tmp_path: Path, killed: str) -> None:
    """In the middle; what was written before is kept, and a gap is told where there is one."""
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("start_recording", device="camera0")
            await until_active(admin)
            await trio.sleep(4)
            for pid in children(daemon, config, killed):
                os.kill(pid, signal.SIGKILL)
            kept = config.recording.folder / "camera0"
            while not list(kept.rglob("*.mp4")):
                await trio.sleep(0.1)
            writing = config.recording.folder / "open"
            while not [path for path in writing.rglob("*.mp4") if path.stat().st_size > 10_000]:
                await trio.sleep(0.1)
            await trio.sleep(2)
            ended = await admin.call("stop_recording", device="camera0")
            (listed,) = (await admin.call("list_recordings"))["files"]
            # Both are there again at once, and newer versions of ffmpeg send their first half second faster: that may
            # be no gap.
            assert listed["gaps"] <= 1
            told = [event["details"] for event in (await admin.call("get_events", kinds="recording.gap"))["events"]]
            assert [gap["recording_id"] for gap in told] == [listed["recording_id"]] * listed["gaps"]
            assert all(gap["begin"] <= gap["end"] and gap["seconds"] > 0.5 for gap in told)
            assert ended["duration"] > 4
            for path in kept.rglob("*.mp4"):
                assert probe(path) > 0.5


async def test_a_recording_goes_on_after_a_restart_of_edged(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            begun = await admin.call("start_recording", device="camera0")
            before = await until_written(config)
        assert before.exists()
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            state = await until_active(admin)
            assert state["recording_id"] == begun["recording_id"]
            # It counts as active while the last bytes are less than a minute old: wait for new ones.
            await until_written(config, {before})
            ended = await admin.call("stop_recording", device="camera0")
            kept = list((config.recording.folder / "camera0").rglob("*.mp4"))
            assert len(kept) == 2
            assert ended["duration"] == pytest.approx(sum(probe(path) for path in kept), abs=1.5)


async def test_an_index_that_was_lost_is_made_anew_from_the_files(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("start_recording", device="camera0")
            await until_active(admin)
            await trio.sleep(2)
            ended = await admin.call("stop_recording", device="camera0")
        with closing(sqlite3.connect(config.paths.state / "usage.db")) as usage, usage:
            usage.execute("DELETE FROM segments")
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            while (listed := (await admin.call("list_recordings"))["files"][0])["file_size"] == 0:
                await trio.sleep(0.1)
            assert (listed["file_size"], listed["duration"]) == (ended["file_size"], pytest.approx(ended["duration"]))


async def test_a_camera_that_is_always_recorded_has_one_recording_an_hour_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of six seconds; beside them somebody records for a while."""
    monkeypatch.setattr(active_recordings, "HOUR_SECONDS", 6.0)
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    (camera,) = config.camera
    config = msgspec.structs.replace(config, camera=(msgspec.structs.replace(camera, record="always"),))
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            await until_active(admin)
            assert (await admin.ask("stop_recording", device="camera0"))["error"]["code"] == -32020
            begun = await admin.call("start_recording", device="camera0", filename="visit")
            assert (await admin.call("get_recording_status", device="camera0"))["filename"] == "visit.mp4"
            await trio.sleep(8)
            ended = await admin.call("stop_recording", device="camera0")
            assert ended["recording_id"] == begun["recording_id"]
            while len([item for item in await listed(admin) if item["status"] == "STOPPED"]) < 4:
                await trio.sleep(0.2)
            assert len(list((config.recording.folder / "open").rglob("*.mp4"))) == 1
            assert len(list((config.recording.folder / "camera0").rglob("*.mp4"))) == 0
    async with running_daemon(tmp_path, config=make_config(tmp_path, cameras=0)) as daemon, daemon.local() as admin:
        found = await listed(admin)
        # The first hour may have ended before there was a picture.
        while not any(item["file_size"] for item in found):
            await trio.sleep(0.1)
            found = await listed(admin)
        _, key = await daemon.create_key()
        full = [item for item in found if item["filename"] != "visit.mp4" and item["duration"] > 5.5]
        assert full
        assert all(item["gaps"] == 0 for item in found)
        for item in (*full[:2], *(item for item in found if item["filename"] == "visit.mp4")):
            file = await fetch(daemon, key, item["filename"], tmp_path)
            # It begins with a key frame, which are two seconds apart.
            assert item["duration"] - 1 < probe(file) < item["duration"] + 5


async def listed(client: Conversation) -> list[dict[str, Any]]:
    return list((await client.call("list_recordings"))["files"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a tmpfs of 5 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "edged-test", folder], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_on_a_full_disk_the_oldest_files_go_and_recording_goes_on(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of 5 MiB, of which a tenth stays free; written to for 45 seconds."""
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "2s")
    for name in ("SWEEP_SECONDS", "SHORT_SECONDS", "VAIN_SECONDS"):
        monkeypatch.setattr(disk_watch, name, 1.0)
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    config = msgspec.structs.replace(config, recording=RecordingSettings(folder=small_disk / "recordings"))
    least = 5 * 1024 * 1024
    with fail_after(85):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("monitor")
            await admin.call("start_recording", device="camera0")
            await until_active(admin)
            kept = config.recording.folder / "camera0"
            while not list(kept.rglob("*.mp4")):
                await trio.sleep(0.1)
            first = min(path.name for path in kept.rglob("*.mp4"))
            until = trio.current_time() + 45
            while trio.current_time() < until:
                figures = os.statvfs(small_disk)
                least = min(least, figures.f_bavail * figures.f_frsize)
                await trio.sleep(0.05)
            assert least > 128 * 1024
            assert first not in {path.name for path in kept.rglob("*.mp4")}
            state = await admin.call("get_recording_status", device="camera0")
            assert state["status"] == "active"
            shown = (await daemon.request("GET", "/metrics", key=key)).body.decode()
            (deleted,) = re.findall(r'edged_recording_files_deleted_total\{reason="disk_full"\} (\S+)', shown)
            assert float(deleted) > 0
            found = dict(re.findall(r'(edged_record\w+)(?:\{camera="camera0"\})? (\S+)', shown))
            assert float(found["edged_recorded_bytes_total"]) > 0
            assert float(found["edged_recorded_seconds_total"]) > 0
            assert found["edged_recording_gaps_total"] == "0.0"
            assert float(found["edged_recording_oldest_timestamp_seconds"]) > 0
            assert 'edged_disk_free_bytes{disk="recording"}' in shown
            ended = await admin.call("stop_recording", device="camera0")
            assert ended["file_size"] < 5 * 1024 * 1024


@pytest.mark.parametrize("stopped", ["ffmpeg", "mediamtx"])
async def test_a_recording_goes_on_after_its_writer_was_stopped(tmp_path: Path, stopped: str) -> None:
    """By SIGSTOP: within 10 seconds of the encoder, 20 of MediaMTX."""
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(85):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("start_recording", device="camera0")
            await until_active(admin)
            await trio.sleep(3)
            (pid,) = children(daemon, config, stopped)
            os.kill(pid, signal.SIGSTOP)
            began = trio.current_time()
            writing = config.recording.folder / "open"
            before = set(writing.rglob("*.mp4"))
            while not [path for path in writing.rglob("*.mp4") if path not in before and path.stat().st_size > 5000]:
                await trio.sleep(0.1)
            assert trio.current_time() - began < {"ffmpeg": 10, "mediamtx": 20}[stopped] * FACTOR
            await admin.call("stop_recording", device="camera0")
            (item,) = await listed(admin)
            assert item["gaps"] == 1


async def test_the_command_copies_a_recording_and_overwrites_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("start_recording", device="camera0", filename="yard")
            await until_active(admin)
            await trio.sleep(2)
            ended = await admin.call("stop_recording", device="camera0")
            command = ["-m", "edged", "recording", "download", "--socket", config.listen.unix]
            done = await trio.to_thread.run_sync(fork_server.run, [*command, "yard"], os.environ, tmp_path)
            assert done.stdout.decode() == f"yard.mp4: {ended['file_size']} bytes\n"
            assert (tmp_path / "yard.mp4").stat().st_size == ended["file_size"]
            for words, said in (
                (["yard"], "yard.mp4 exists: name another file with --to"),
                (["none"], "no recording 'none'"),
                (["yard", "--to", "nowhere/a.mp4"], "nowhere/a.mp4 cannot be written: No such file or directory"),
            ):
                failed = await trio.to_thread.run_sync(fork_server.run, [*command, *words], os.environ, tmp_path)
                assert failed.returncode == 1
                assert said in failed.stderr.decode()
            assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["yard.mp4"]
