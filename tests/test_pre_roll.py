"""Pre-rolls over the whole daemon with the real MediaMTX and ffmpeg, in a folder of /dev/shm."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from patience import fail_after
from test_recordings import fetch, probe, until_active

from edged.cli.evidence import fetch_evidence
from edged.cli.verification import verify
from edged.config.model import Config
from edged.credentials.seal_signatures import read, read_thumbprints
from edged.credentials.seals import DerivedSeal, SegmentSeal

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg, pytest.mark.slow]

#: Seconds of pre-roll, and of a group of pictures (a key frame each second).
PRE_ROLL = 6
GROUP = 1.0


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a tmpfs."""
    folder = Path(tempfile.mkdtemp(prefix="edged-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def make_pre_roll_config(folder: Path, memory: Path, record: str = "manual") -> Config:
    config = make_config(folder, cameras=1, mediamtx=True)
    (camera,) = config.camera
    camera = msgspec.structs.replace(camera, pre_roll_seconds=PRE_ROLL, record=record, rate=15.0)
    recording = msgspec.structs.replace(config.recording, pre_roll_folder=memory / "pre-roll")
    return msgspec.structs.replace(config, camera=(camera,), recording=recording)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """(size, time of change) of everything below a folder."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def until_filled(config: Config) -> None:
    """Until the pre-roll is as long as it will be."""
    while True:
        begins = sorted(int(path.name.split("-")[0]) for path in config.recording.pre_roll_folder.rglob("*.mp4"))
        if begins and time.time() - begins[0] > PRE_ROLL + 2:
            return
        await trio.sleep(0.1)


async def test_a_recording_begins_before_it_was_asked_for_and_is_whole(tmp_path: Path, memory: Path) -> None:
    config = make_pre_roll_config(tmp_path, memory)
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            await until_filled(config)
            asked = time.time()
            begun = await admin.call("start_recording", device="camera0", filename="yard")
            assert begun["recording"]["start_time"] <= asked - PRE_ROLL
            assert begun["pre_roll"] == pytest.approx(asked - begun["recording"]["start_time"], abs=1)
            await until_active(admin)
            await trio.sleep(3)
            stopped = time.time()
            ended = await admin.call("stop_recording", device="camera0")
            assert ended["start_time"] == begun["start_time"]
            info = await admin.call("get_recording_info", filename="yard")
            assert (info["gaps"], info["pre_roll"]) == (0, begun["pre_roll"])
            file = await fetch(daemon, key, "yard.mp4", tmp_path)
            # From the key frame before the pre-roll until it was stopped, or the end of that part.
            assert stopped - asked + PRE_ROLL - GROUP < probe(file) < stopped - asked + PRE_ROLL + 2 + 3 * GROUP
            assert ended["duration"] == pytest.approx(probe(file), abs=2)
            await admin.call("delete_recording", filename="yard.mp4")
            assert files_of(config.recording.folder) == {}


async def test_without_a_recording_nothing_is_written_to_the_disk_and_memory_is_bounded(
    tmp_path: Path, memory: Path
) -> None:
    config = make_pre_roll_config(tmp_path, memory)
    folder = config.recording.pre_roll_folder
    with fail_after(120):
        async with running_daemon(tmp_path, config=config):
            await until_filled(config)
            # What the start writes late is written by now.
            before: dict[str, tuple[int, int]] = {}
            while before != (before := files_of(tmp_path / "state")):
                await trio.sleep(2)
            largest = 0
            for _ in range(100):
                largest = max(largest, size_of(folder))
                await trio.sleep(0.1)
            # The log of the test is no part of it.
            assert files_of(tmp_path / "state") == before
            assert largest < config.camera[0].bitrate / 8 * (PRE_ROLL + 8)
            assert folder.stat().st_mode & 0o777 == 0o700


async def test_what_a_killed_edged_left_in_memory_is_moved_once(tmp_path: Path, memory: Path) -> None:
    """As after kill -9 in the middle of a recording: some pieces are at both places, some in memory only."""
    config = make_pre_roll_config(tmp_path, memory)
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_filled(config)
            await admin.call("start_recording", device="camera0", filename="yard")
            await until_active(admin)
            kept = config.recording.folder / "camera0"
            while len(list(kept.rglob("*.mp4"))) < 4:
                await trio.sleep(0.1)
        # Put back what a crash between copying and deleting leaves.
        last = max(kept.rglob("*.mp4"))
        (path,) = {piece.parent for piece in config.recording.pre_roll_folder.rglob("*.mp4")}
        shutil.copy(last, path / last.name)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_active(admin)
            await trio.sleep(4)
            ended = await admin.call("stop_recording", device="camera0")
            info = await admin.call("get_recording_info", filename="yard")
            # While edged was away; ffmpeg may send its first half second faster.
            assert info["gaps"] <= 1
            with closing(sqlite3.connect(config.paths.state / "usage.db")) as usage:
                rows = {row[0]: row[1] for row in usage.execute("SELECT file, size FROM segments")}
            root = config.recording.folder
            assert rows == {str(file.relative_to(root)): file.stat().st_size for file in kept.rglob("*.mp4")}
            assert sum(rows.values()) == ended["file_size"]
            assert len({file.read_bytes() for file in kept.rglob("*.mp4")}) == len(rows)
            assert not (root / "moving").exists() or not list((root / "moving").iterdir())


async def test_a_camera_that_is_always_recorded_needs_no_memory_for_its_pre_roll(tmp_path: Path, memory: Path) -> None:
    config = make_pre_roll_config(tmp_path, memory, record="always")
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            await until_active(admin)
            await trio.sleep(PRE_ROLL + 1)
            begun = await admin.call("start_recording", device="camera0", filename="visit")
            assert begun["pre_roll"] == pytest.approx(PRE_ROLL, abs=0.5)
            await trio.sleep(2)
            await admin.call("stop_recording", device="camera0")
            assert list(config.recording.pre_roll_folder.rglob("*.mp4")) == []
            # What there is of it so far would stay without its end.
            early = await daemon.request("GET", "/files/recordings/visit.mp4", key=key)
            assert (early.status, b"is being written" in early.body or b"no bytes" in early.body) == (409, True)
            # Its segment closes within a minute; MediaMTX closes it now.
            for child in Path("/proc").glob("[0-9]*"):
                try:
                    if (child / "comm").read_text() == "mediamtx\n" and f"PPid:\t{os.getpid()}" in (
                        child / "status"
                    ).read_text():
                        os.kill(int(child.name), signal.SIGTERM)
                except OSError:
                    continue
            while not (await admin.call("get_recording_info", filename="visit"))["file_size"]:
                await trio.sleep(0.2)
            file = await fetch(daemon, key, "visit.mp4", tmp_path)
            assert PRE_ROLL + 2 - GROUP < probe(file) < PRE_ROLL + 2 + 3 * GROUP


async def until_sealed(folder: Path) -> list[Path]:
    """Until each segment has its seal: the segments."""
    while True:
        kept = sorted(folder.glob("camera0/*/*.mp4"))
        if kept and all(path.with_name(f"{path.name}.seal").exists() for path in kept):
            return kept
        await trio.sleep(0.1)


async def test_an_event_is_recorded_with_its_pre_roll_and_every_piece_of_it_is_sealed(
    tmp_path: Path, memory: Path
) -> None:
    """From before the event to the seconds after it that were asked for; verified elsewhere by the box's key."""
    config = make_pre_roll_config(tmp_path, memory)
    root, seconds = config.recording.folder, 5.0
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            await until_filled(config)
            asked = time.time()
            made = await admin.call("create_event", device="camera0", kind="dock.open", record_seconds=seconds)
            assert made["problems"] == []
            assert made["recording"]["is_new"]
            assert made["snapshot"]["file_size"] > 0
            name = made["recording"]["filename"]
            running = await until_active(admin)
            assert running["recording_id"] == made["recording"]["recording_id"]
            while (info := await admin.call("get_recording_info", filename=name))["status"] != "STOPPED":
                await trio.sleep(0.2)
            assert info["pre_roll"] >= PRE_ROLL
            # Its last piece is closed some seconds later: who asks now gets all of it.
            file = await fetch(daemon, key, name, tmp_path)
            assert probe(file) >= info["pre_roll"] + seconds - 0.5
            (event,) = (await admin.call("get_events", kinds="dock.open"))["events"]
            assert event["details"]["recording_id"] == made["recording"]["recording_id"]
            # The event lies in the recording, behind its pre-roll.
            began = datetime.fromisoformat(info["created_time"]).timestamp()
            assert began <= asked - PRE_ROLL
            # Each piece that is in a file on the disk, and none that is not.
            kept = await until_sealed(root)
            assert len(kept) >= (PRE_ROLL + seconds) // (2 + GROUP)
            numbers = [read(path.with_name(f"{path.name}.seal").read_bytes()).statement for path in kept]
            assert [each.number for each in numbers if isinstance(each, SegmentSeal)] == [*range(1, len(kept) + 1)]
            assert [each.file for each in numbers if isinstance(each, SegmentSeal)] == [
                str(path.relative_to(root)) for path in kept
            ]
            assert not list(memory.rglob("*.seal"))
            known = read_thumbprints((await daemon.request("GET", "/.well-known/jwks.json")).body)
            where: Any = {"socket": Path(config.listen.unix), "directory": tmp_path, "as_json": False}
            elsewhere = tmp_path / "elsewhere"
            done = await trio.to_thread.run_sync(partial(fetch_evidence, name, elsewhere, **where))
            assert (done["segments"], done["unsealed"]) == (len(kept), 0)
            # Of the box's own folder too, while MediaMTX goes on writing into memory.
            assert verify([root], known=known).problems == []
    verdict = verify([elsewhere], known=known)
    assert (verdict.problems, verdict.notes, verdict.proven, verdict.segments) == ([], [], True, len(kept))
    (elsewhere / kept[1].relative_to(root)).unlink()
    assert [each.kind for each in verify([elsewhere], known=known).problems] == ["missing"]


async def test_a_clip_of_what_is_only_in_memory_holds_all_of_it_up_to_now_and_names_its_pieces(
    tmp_path: Path, memory: Path
) -> None:
    """Nobody has asked for a recording. The piece that is being written is closed in time; the rest stays in memory."""
    config = make_pre_roll_config(tmp_path, memory)
    root = config.recording.folder
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key()
            await until_filled(config)
            older = time.time() - 2 * PRE_ROLL
            refused = await admin.ask("create_clip", device="camera0", start=older - 5, end=older)
            assert refused["error"]["data"]["reason"] == "not_found"
            assert files_of(root) == {}
            end = time.time()
            clip = await admin.call("create_clip", device="camera0", start=end - 4, end=end, filename="visit")
            assert clip["missing"] == []
            # A tenth of a second at an edge needs no further piece.
            assert end - 4 - 2 - GROUP < datetime.fromisoformat(clip["start_time"]).timestamp() <= end - 3.9
            assert datetime.fromisoformat(clip["end_time"]).timestamp() >= end - 0.1
            file = await fetch(daemon, key, "visit.mp4", tmp_path)
            assert probe(file) == pytest.approx(clip["duration"], abs=0.3)
            kept = await until_sealed(root)
            # Those pieces and no others, now and later.
            assert 2 <= len(kept) <= 4
            await trio.sleep(3)
            assert sorted(root.glob("camera0/*/*.mp4")) == kept
            assert len(list(config.recording.pre_roll_folder.rglob("*.mp4"))) >= 2
            evidence = (await daemon.request("GET", "/api/recordings/visit/evidence", key=key)).json
            made = read(evidence["seal"].encode()).statement
            assert isinstance(made, DerivedSeal)
            assert len(made.parts) == len(evidence["segments"]) == len(kept)
            file.with_name(f"{file.name}.seal").write_text(evidence["seal"])
            known = read_thumbprints((await daemon.request("GET", "/.well-known/jwks.json")).body)
            verdict = verify([file, root], known=known)
            assert (verdict.problems, verdict.proven) == ([], True)
            await a_picture_of_an_event_of_which_nothing_is_recorded(daemon, admin, key)
            # A recording that begins now takes what the clip has put on the disk, too, and leaves it the clip.
            begun = await admin.call("start_recording", device="camera0", filename="yard")
            assert begun["pre_roll"] >= PRE_ROLL - 0.1
            await until_active(admin)
            await admin.call("stop_recording", device="camera0")
            assert (await admin.call("get_recording_info", filename="yard"))["gaps"] == 0
            await admin.call("delete_recording", filename="yard")
            assert all(path.exists() for path in kept)
            await admin.call("delete_recording", filename="visit")
            assert not any(path.exists() for path in kept)


async def a_picture_of_an_event_of_which_nothing_is_recorded(
    daemon: RunningDaemon, admin: Conversation, viewer: str
) -> None:
    """It comes out of memory, is kept, and is that of the event from then on, also for those who may not keep one."""
    event = (await admin.call("create_event", device="camera0", kind="dock.open", snapshot=False))["event_id"]
    at = time.time()
    taken = await admin.call("get_snapshot", device="camera0", event=event)
    assert datetime.fromisoformat(taken["timestamp"]).timestamp() == pytest.approx(at, abs=0.3)
    while True:
        again = await admin.call("get_snapshot", device="camera0", event=event)
        if again["filename"] == taken["filename"]:
            break
    picture = await daemon.request("GET", f"/api/cameras/camera0/snapshot.jpg?event={event}", key=viewer)
    assert len(picture.body) == taken["file_size"]
    where = ["--socket", str(daemon.config.listen.unix), "--json"]
    command = [sys.executable, "-m", "edged", "camera", "snapshot", "camera0", "--event", event, *where]
    done = await trio.run_process(command, capture_stdout=True)
    assert msgspec.json.decode(done.stdout)["filename"] == taken["filename"]


async def test_pieces_that_a_killed_edged_left_in_memory_are_sealed_once_and_as_recovered(
    tmp_path: Path, memory: Path
) -> None:
    config = make_pre_roll_config(tmp_path, memory)
    root = config.recording.folder
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_filled(config)
            await admin.call("start_recording", device="camera0", filename="yard")
            await until_active(admin)
            while len(list(root.glob("camera0/*/*.seal"))) < 3:
                await trio.sleep(0.1)
            before = {path.name: path.read_bytes() for path in root.glob("camera0/*/*.seal")}
        # What a crash leaves: a piece in memory that is on the disk and sealed, and one that is in memory only.
        *_, last = sorted(root.glob("camera0/*/*.mp4"))
        (path,) = {piece.parent for piece in config.recording.pre_roll_folder.rglob("*.mp4")}
        shutil.copy(last, path / last.name)
        first = sorted(root.glob("camera0/*/*.mp4"))[0]
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await until_active(admin)
            await trio.sleep(3)
            await admin.call("stop_recording", device="camera0")
            kept = await until_sealed(root)
            assert len({path.name for path in kept}) == len(kept) > len(before)
            for name, seal in before.items():
                (there,) = root.glob(f"camera0/*/{name}")
                assert there.read_bytes() == seal
            found = [read(each.with_name(f"{each.name}.seal").read_bytes()).statement for each in kept]
            assert sorted(each.number for each in found if isinstance(each, SegmentSeal)) == [*range(1, len(kept) + 1)]
            assert first in kept
            assert verify([root], known=None).problems == []
