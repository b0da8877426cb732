"""How long recordings and pictures take with the real MediaMTX and ffmpeg: p50 and p95 of up to 30 tries.

The daemon and its children share core 0, and the source is a test picture of 640x480 at 15/s that one ffmpeg encodes.
"""

from __future__ import annotations

import argparse
import http.client
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from measure import Daemon, cpu_seconds, running

from edged.clock import iso_exact

#: Percent of a core that edged itself may take for each camera that streams and records, with four of them.
CPU_LIMIT: Final = 1.0
CAMERAS: Final = 4
MEASURED_SECONDS: Final = 20.0
#: Tries at most; of a cold snapshot, for each of which the camera has to fall asleep, a third.
TRIES: Final = 30
PRE_ROLL: Final = 5
CLIP_SECONDS: Final = 60.0
#: Seconds that anything may take.
PATIENCE: Final = 60.0


def bench_media(args: argparse.Namespace) -> None:
    """Recordings, snapshots, clips, playback and CPU. Raises SystemExit if a limit is exceeded."""
    if not args.with_media:
        print("media: not run: mediamtx not found")
        return
    tries = min(args.tries, TRIES)
    for mode, name in (("on_demand", "the camera asleep"), ("always", "the camera streams")):
        with running(cameras=1, camera=f'mode = "{mode}"') as daemon:
            show(f"start_recording to new bytes on the disk, {name}", trio.run(_record, daemon, tries, mode))
    with tempfile.TemporaryDirectory(prefix="edged-bench-", dir="/dev/shm") as memory:
        options = {
            "camera": f"pre_roll_seconds = {PRE_ROLL}",
            "more": f'[recording]\npre_roll_folder = "{memory}/pre-roll"',
        }
        with running(cameras=1, **options) as daemon:
            took = trio.run(_record, daemon, tries, "pre_roll")
            show(f"start_recording to new bytes on the disk, pre-roll of {PRE_ROLL} s", took)
    with running(cameras=1) as daemon:
        trio.run(_take_snapshots, daemon, tries)
    percent = _bench_cpu()
    # Last, because a minute has to be recorded first.
    with running(cameras=1, camera='mode = "always"') as daemon:
        trio.run(_read_recorded, daemon, tries)
    if percent > CPU_LIMIT:
        raise SystemExit(f"limits exceeded: CPU of edged for a camera that streams and records, {percent:.2f} %")


def show(name: str, seconds: Sequence[float]) -> None:
    """The middle and the 95th percentile of some times."""
    took = sorted(1000 * each for each in seconds)
    high = took[math.ceil(0.95 * len(took)) - 1]
    print(f"{name}: p50 {statistics.median(took):.0f} ms, p95 {high:.0f} ms, {len(took)} tries", flush=True)


async def _time(work: Callable[[], Any], tries: int) -> list[float]:
    """Seconds of each of so many calls of an async function."""
    took = []
    for _ in range(tries):
        began = time.perf_counter()
        with trio.fail_after(PATIENCE):
            await work()
        took.append(time.perf_counter() - began)
    return took


async def _record(daemon: Daemon, tries: int, mode: str) -> list[float]:
    """From the call to the first bytes that were not there before; each recording is stopped again."""
    await daemon.wait_media()
    if mode != "on_demand":
        await _wait_encoder(daemon, runs=True)
    if mode == "pre_roll":
        await trio.sleep(PRE_ROLL + 2)
    took = []
    for _ in range(tries):
        if mode == "on_demand":
            await _wait_encoder(daemon, runs=False)
        before = _bytes_in(daemon.recordings)

        async def record(before: int = before) -> None:
            await daemon.call("start_recording", device="camera0")
            while _bytes_in(daemon.recordings) <= before:
                await trio.sleep(0.002)

        took += await _time(record, 1)
        await daemon.call("stop_recording", device="camera0")
    return took


async def _take_snapshots(daemon: Daemon, tries: int) -> None:
    """One after the other, while the source goes on; and each from a camera that is asleep."""
    await daemon.wait_media()
    snapshot = partial(daemon.call, "take_snapshot", device="camera0")
    cold = []
    for _ in range(max(1, tries // 3)):
        await _wait_encoder(daemon, runs=False)
        cold += await _time(snapshot, 1)
    show("snapshot of a camera that is asleep", cold)
    show("snapshot right after another", await _time(snapshot, tries))


def _bench_cpu() -> float:
    """Percent of a core that edged itself takes for each of CAMERAS that stream and record; its children not counted."""
    with running(cameras=CAMERAS, camera='mode = "always"\nrecord = "always"') as daemon:
        trio.run(_wait_recorded, daemon)
        before = cpu_seconds(daemon.pid)
        time.sleep(MEASURED_SECONDS)
        percent = 100 * (cpu_seconds(daemon.pid) - before) / MEASURED_SECONDS / CAMERAS
    print(
        f"CPU of edged: {percent:.2f} % of a core for each of {CAMERAS} that record (limit {CPU_LIMIT:.0f})", flush=True
    )
    return percent


async def _read_recorded(daemon: Daemon, tries: int) -> None:
    """A picture by its time, a clip of a minute beside a copy of the same bytes, and the first byte of playback."""
    await daemon.wait_media()
    await daemon.call("start_recording", device="camera0")
    await _wait_bytes(daemon)
    begin = time.time() + 1
    await trio.sleep(CLIP_SECONDS + 5)
    await daemon.call("stop_recording", device="camera0")
    begun, ended = iso_exact(begin), iso_exact(begin + CLIP_SECONDS)
    key = (await daemon.call("create_key", name="bench", role="admin"))["api_key"]
    picture = partial(daemon.call, "get_snapshot", device="camera0", at=iso_exact(begin + CLIP_SECONDS / 2))
    show("get_snapshot of a time", await _time(picture, tries))
    playlist = f"/api/cameras/camera0/playback.m3u8?start={begun}&end={ended}"

    async def play() -> None:
        await trio.to_thread.run_sync(partial(_play, daemon, key, playlist))

    show("playback, to the first byte of a picture", await _time(play, tries))
    made, copied = [], []
    for _ in range(tries):
        clip = await daemon.call("create_clip", device="camera0", start=begun, end=ended)
        target = daemon.folder / "clip.mp4"
        began = time.perf_counter()
        await trio.to_thread.run_sync(partial(_fetch, daemon, key, f"/files/recordings/{clip['filename']}", target))
        made.append(time.perf_counter() - began)
        began = time.perf_counter()
        await trio.to_thread.run_sync(partial(_copy, target, daemon.folder / "copy.mp4"))
        copied.append(time.perf_counter() - began)
        await daemon.call("delete_recording", filename=clip["filename"])
    megabytes = target.stat().st_size / 1e6
    show(f"clip of {CLIP_SECONDS:.0f} s, {megabytes:.1f} MB, made and fetched", made)
    show("the same bytes copied to the disk", copied)


def _play(daemon: Daemon, key: str, target: str) -> None:
    """The list, and the first bytes of the first thing that it names after the initialization."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.local, timeout=PATIENCE)
    try:
        connection.request("GET", target, headers={"X-API-Key": key})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, f"{target} was answered {answer.status}: {text[:300]}"
        named = next(line for line in text.splitlines() if line and not line.startswith("#"))
        path = named.partition("://")[2].partition("/")[2] if "://" in named else named.lstrip("/")
        connection.request("GET", f"/{path}", headers={"X-API-Key": key})
        answer = connection.getresponse()
        assert answer.status == 200, f"/{path} was answered {answer.status}"
        assert answer.read(1)
    finally:
        connection.close()


def _fetch(daemon: Daemon, key: str, path: str, target: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.local, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"X-API-Key": key})
        answer = connection.getresponse()
        assert answer.status == 200, f"{path} was answered {answer.status}"
        with target.open("wb") as file:
            shutil.copyfileobj(answer, file, 1 << 16)
    finally:
        connection.close()


def _copy(source: Path, target: Path) -> None:
    """Copy a file, until its bytes are on the disk: so is a clip when it is answered."""
    with source.open("rb") as data, target.open("wb") as file:
        shutil.copyfileobj(data, file)
        file.flush()
        os.fsync(file.fileno())


async def _wait_recorded(daemon: Daemon) -> None:
    """Until every camera records and the first seconds are over."""
    await daemon.wait_media()
    with trio.fail_after(PATIENCE):
        while len({path.parent.parent for path in _files_in(daemon.recordings)}) < CAMERAS:
            await trio.sleep(0.1)
    await trio.sleep(5)


async def _wait_bytes(daemon: Daemon) -> None:
    with trio.fail_after(PATIENCE):
        while not _bytes_in(daemon.recordings):
            await trio.sleep(0.05)


async def _wait_encoder(daemon: Daemon, *, runs: bool) -> None:
    """Until an encoder runs, or until none does any more."""
    with trio.fail_after(PATIENCE):
        while _has_encoder(daemon.pid) != runs:
            await trio.sleep(0.1)
    if runs:
        await trio.sleep(3)


def _has_encoder(pid: int) -> bool:
    """Whether a process has a child, or a child of a child, that is ffmpeg."""
    found = False
    for entry in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in entry.read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]
                found |= command.endswith(b"ffmpeg") or _has_encoder(int(child))
    return found


def _files_in(folder: Path) -> list[Path]:
    """The recorded files below a folder, also those that are being written."""
    return list(folder.rglob("*.mp4"))


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in _files_in(folder):
        with suppress(FileNotFoundError):  # it was put at its place meanwhile
            size += path.stat().st_size
    return size
