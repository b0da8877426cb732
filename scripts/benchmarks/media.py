"""How long recordings and pictures take with the real MediaMTX and ffmpeg: p50 and p95 of up to 30 tries.

The daemon and its children share core 0, and the source is a test picture of 640x480 at 15/s that one ffmpeg encodes.
What is recorded, played and downloaded is looked at, too: whatever is wrong with it ends the run with an error. Most of
the time of a picture out of a recording and of a clip is that in which ffmpeg's libraries are loaded: the time of
`ffmpeg -version` stands beside them. A process in a session of its own shares a core with all sessions that are busy,
whatever its niceness (sched(7), autogroup): on a machine that does other things, too, `chrt -r 1` measures.
"""

from __future__ import annotations

import argparse
import http.client
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import trio
from measure import Daemon, NotRun, cpu_seconds, expect, running

from edged.clock import iso_exact

#: Percent of a core that edged itself may take for each camera that streams and records, with four of them.
CPU_LIMIT: Final = 1.0
CAMERAS: Final = 4
MEASURED_SECONDS: Final = 20.0
#: Tries at most; of a cold snapshot, for each of which the camera has to fall asleep, a third.
TRIES: Final = 30
PRE_ROLL: Final = 5
CLIP_SECONDS: Final = 60.0
LAST_SECONDS: Final = 10.0
#: Seconds that anything may take.
PATIENCE: Final = 60.0
T = TypeVar("T")


def bench_media(args: argparse.Namespace) -> None:
    """Recordings, snapshots, clips, playback and CPU. Raises NotRun; SystemExit if a limit is exceeded or something is
    wrong."""
    if not args.with_media:
        raise NotRun("mediamtx not found")
    tries = min(args.tries, TRIES)
    for mode, name in (("on_demand", "the camera asleep"), ("always", "the camera streams")):
        with running(cameras=1, camera=f'mode = "{mode}"') as daemon:
            show(f"start_recording to new bytes on the disk, {name}", trio.run(_record, daemon, tries, mode))
            trio.run(_check_recordings, daemon, tries)
    with tempfile.TemporaryDirectory(prefix="edged-bench-", dir="/dev/shm") as memory:
        options = {
            "camera": f"pre_roll_seconds = {PRE_ROLL}",
            "more": f'[recording]\npre_roll_folder = "{memory}/pre-roll"',
        }
        with running(cameras=1, **options) as daemon:
            took = trio.run(_record, daemon, tries, "pre_roll")
            show(f"start_recording to new bytes on the disk, pre-roll of {PRE_ROLL} s", took)
            trio.run(_check_recordings, daemon, tries)
            trio.run(_clip_the_last, daemon, tries, float(PRE_ROLL), "in memory")
    with running(cameras=1) as daemon:
        trio.run(_take_snapshots, daemon, tries)
    percent = _bench_cpu()
    # Last, because a minute has to be recorded first.
    with running(cameras=1, camera='mode = "always"') as daemon:
        trio.run(_read_recorded, daemon, tries)
    if percent > CPU_LIMIT and not args.facts:
        raise SystemExit(f"limits exceeded: CPU of edged for a camera that streams and records, {percent:.2f} %")


def show(name: str, seconds: Sequence[float]) -> None:
    """The middle and the 95th percentile of some times."""
    print(f"{name}: {_percentiles(seconds)}, {len(seconds)} tries, load {os.getloadavg()[0]:.1f}", flush=True)


def _percentiles(seconds: Sequence[float]) -> str:
    took = sorted(1000 * each for each in seconds)
    middle, high = statistics.median(took), took[math.ceil(0.95 * len(took)) - 1]
    return f"p50 {_digits(middle)} ms, p95 {_digits(high)} ms"


def _digits(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2f}"


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

    async def snapshot() -> None:
        taken = await daemon.call("take_snapshot", device="camera0")
        (path,) = daemon.media.glob(f"snapshots/*/{taken['filename']}")
        data = path.read_bytes()
        expect(data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9", f"{path.name} is no whole JPEG")
        expect(len(data) == taken["file_size"], f"{path.name} has another size than was said")

    cold = []
    for _ in range(max(1, tries // 3)):
        await _wait_encoder(daemon, runs=False)
        cold += await _time(snapshot, 1)
    show("snapshot of a camera that is asleep", cold)
    show("snapshot right after another", await _time(snapshot, tries))


async def _check_recordings(daemon: Daemon, count: int) -> None:
    """So many recordings are listed and have bytes, index and disk agree, every seal is good, and one can be played."""
    await _wait_closed(daemon)
    files = (await daemon.call("list_recordings", limit=1000))["files"]
    expect(len(files) == count, f"{len(files)} recordings are listed, {count} were made")
    expect(all(file["file_size"] for file in files), "a recording has no bytes")
    expect(not list((daemon.recordings / "damaged").rglob("*.mp4")), "a file is damaged")
    await _edged("recording", "verify", daemon.recordings)
    await _check_file(daemon, files[0]["filename"])


async def _check_file(daemon: Daemon, name: str) -> None:
    """A recording as one file: its seal is good, and ffmpeg decodes it without an error."""
    with tempfile.TemporaryDirectory(dir=daemon.folder) as folder:
        target = Path(folder) / "file.mp4"
        await _edged("recording", "download", name, "--to", target, "--seal", "--socket", daemon.socket)
        await _edged("recording", "verify", target)
        done = await trio.run_process(
            ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", target, "-f", "null", "-"],
            capture_stderr=True, check=False,
        )  # fmt: skip
        expect(not done.returncode and not done.stderr, f"{name} is not played: {done.stderr.decode()[:300]}")


async def _edged(*words: object) -> None:
    """A command of edged. Raises SystemExit if it fails."""
    command = [sys.executable, "-m", "edged", *map(str, words)]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    expect(not done.returncode, f"edged {words[0]} {words[1]}: {(done.stdout + done.stderr).decode()[:300]}")


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
    """A picture by its time, playback and files beside reads of the same bytes, and a clip of a minute beside a copy."""
    await daemon.wait_media()
    whole = await daemon.call("start_recording", device="camera0", format="mp4")
    await _wait_bytes(daemon)
    begin = time.time() + 1
    await trio.sleep(CLIP_SECONDS + 5)
    await _clip_the_last(daemon, tries, LAST_SECONDS, "which is being recorded")
    await daemon.call("stop_recording", device="camera0")
    await _wait_closed(daemon)
    begun, ended = iso_exact(begin), iso_exact(begin + CLIP_SECONDS)
    key = (await daemon.call("create_key", name="bench", role="admin"))["api_key"]
    show(
        "ffmpeg -version, beside",
        await _time(partial(trio.run_process, ["ffmpeg", "-version"], capture_stdout=True), tries),
    )

    async def picture() -> None:
        at = begin + CLIP_SECONDS / 2
        taken = await daemon.call("get_snapshot", device="camera0", at=iso_exact(at))
        late = at - datetime.fromisoformat(taken["timestamp"]).timestamp()
        # The source sends 15 a second, and an encoder may have had to wait for its turn.
        expect(-0.01 <= late < 5, f"the picture of a time is {late:.2f} s older")
        expect(taken["file_size"], "the picture of a time has no bytes")

    show("get_snapshot of a time", await _time(picture, tries))
    fetch = partial(_fetch, daemon, key)
    await _play(daemon, fetch, f"/api/cameras/camera0/playback.m3u8?start={begun}&end={ended}", tries)
    # Joined when it is first fetched.
    name = f"/files/recordings/{whole['filename']}"
    show("a recording of more than a minute fetched for the first time", [(await _in_thread(fetch, name)).seconds])
    took = [await _in_thread(fetch, name) for _ in range(tries)]
    _show_beside("the same again", took, await _read_beside(took[-1].data, daemon.folder, tries))
    made, again, copied = [], [], []
    for number in range(tries):
        clip = await daemon.call("create_clip", device="camera0", start=begun, end=ended)
        name = f"/files/recordings/{clip['filename']}"
        made.append(await _in_thread(fetch, name))
        again.append(await _in_thread(fetch, name))
        expect(made[-1].data == again[-1].data, "a clip that is fetched again has other bytes")
        expect(abs(clip["duration"] - CLIP_SECONDS) < 5, f"the clip of {CLIP_SECONDS:.0f} s has {clip['duration']} s")
        began = time.perf_counter()
        await _in_thread(_write, made[-1].data, daemon.folder / "copy.mp4")
        copied.append(time.perf_counter() - began)
        if number == tries - 1:
            await _check_file(daemon, clip["filename"])
        await daemon.call("delete_recording", filename=clip["filename"])
    megabytes = len(made[-1].data) / 1e6
    show(f"clip of {CLIP_SECONDS:.0f} s, {megabytes:.1f} MB, made and fetched", [each.seconds for each in made])
    show("the same bytes written to the disk", copied)
    _show_beside("the clip again", again, await _read_beside(again[-1].data, daemon.folder, tries))
    await _check_recordings(daemon, 1)


async def _clip_the_last(daemon: Daemon, tries: int, seconds: float, where: str) -> None:
    """Its last second is waited for until MediaMTX has written it; in memory, until its piece is closed."""
    names: list[str] = []

    async def clip() -> None:
        now = time.time()
        made = await daemon.call("create_clip", device="camera0", start=iso_exact(now - seconds), end=iso_exact(now))
        names.append(made["filename"])
        # From a key frame before it on; how much of its last seconds the encoder has sent is a matter of the load.
        expect(0 < made["duration"] < seconds + 4, f"a clip of {seconds:.0f} s has {made['duration']} s")

    show(f"create_clip of the last {seconds:.0f} s until now, {where}", await _time(clip, tries))
    for name in names:
        await daemon.call("delete_recording", filename=name)


class Fetched(NamedTuple):
    """What an answer held, and seconds until its first byte and until its last."""

    data: bytes
    first: float
    seconds: float


def _fetch(daemon: Daemon, key: str, path: str, extent: str = "") -> Fetched:
    """A file or a range of it, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.local, timeout=PATIENCE)
    try:
        began = time.perf_counter()
        connection.request("GET", path, headers={"X-API-Key": key} | ({"Range": f"bytes={extent}"} if extent else {}))
        answer = connection.getresponse()
        data = bytearray(answer.read(1))
        first = time.perf_counter() - began
        while piece := answer.read(1 << 16):
            data += piece
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    expect(answer.status == (206 if extent else 200), f"{path} was answered {answer.status}: {bytes(data[:300])!r}")
    return Fetched(bytes(data), first, seconds)


async def _play(daemon: Daemon, fetch: Callable[..., Fetched], target: str, tries: int) -> None:
    """The list; and the header and the first fragment that it names, as a player asks for them."""
    lists, firsts, wholes = [], [], []
    for _ in range(tries):
        listed = await _in_thread(fetch, target)
        text = listed.data.decode()
        expect(text.startswith("#EXTM3U") and "#EXT-X-ENDLIST" in text, f"no list of what is over: {text}")
        (url, header), *_ = re.findall(r'#EXT-X-MAP:URI="(.*)",BYTERANGE="([0-9]+@[0-9]+)"', text)
        (size, offset), *_ = re.findall(r"#EXT-X-BYTERANGE:([0-9]+)@([0-9]+)", text)
        path = urlsplit(url)
        (file,) = daemon.recordings.glob(path.path.partition("/files/segments/")[2])
        link = f"{path.path}?{path.query}"
        head = await _in_thread(fetch, link, f"0-{int(header.partition('@')[0]) - 1}")
        first = await _in_thread(fetch, link, f"{offset}-{int(offset) + int(size) - 1}")
        whole = file.read_bytes()
        expect(whole.startswith(head.data), "the header of a segment that is played is another one")
        expect(first.data == whole[int(offset) :][: int(size)], "what is played is not what is on the disk")
        lists.append(listed.seconds)
        firsts.append(listed.seconds + head.seconds + first.first)
        wholes.append(first)
    show(f"playback of {CLIP_SECONDS:.0f} s: the list", lists)
    show("playback: list, header, and the first byte of a picture", firsts)
    _show_beside("playback: its first fragment", wholes, await _read_beside(wholes[-1].data, daemon.folder, tries))


async def _read_beside(data: bytes, folder: Path, tries: int) -> list[Fetched]:
    """The same bytes read from a file."""
    path = folder / "beside"
    path.write_bytes(data)

    def read() -> Fetched:
        began = time.perf_counter()
        with path.open("rb") as file:
            file.read(1)
            first = time.perf_counter() - began
            file.seek(0)
            return Fetched(file.read(), first, time.perf_counter() - began)

    return [await _in_thread(read) for _ in range(tries)]


def _show_beside(name: str, fetched: Sequence[Fetched], read: Sequence[Fetched]) -> None:
    kinds: list[tuple[str, Callable[[Fetched], float]]] = [
        ("first byte", lambda each: each.first),
        (f"all {len(fetched[-1].data) / 1e6:.1f} MB", lambda each: each.seconds),
    ]
    for what, seconds in kinds:
        show(f"{name}, {what}", list(map(seconds, fetched)))
        print(f"  read from the file, {what}: {_percentiles(list(map(seconds, read)))}", flush=True)


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    return await trio.to_thread.run_sync(partial(work, *arguments))


def _write(data: bytes, target: Path) -> None:
    """Write a file, until its bytes are on the disk."""
    with target.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


async def _wait_recorded(daemon: Daemon) -> None:
    """Until every camera records and the first seconds are over."""
    await daemon.wait_media()
    with trio.fail_after(PATIENCE):
        while len({path.parent.parent for path in _files_in(daemon.recordings)}) < CAMERAS:
            await trio.sleep(0.1)
    await trio.sleep(5)


async def _wait_closed(daemon: Daemon) -> None:
    """Until no file is written any more, and index and disk agree."""
    with trio.fail_after(PATIENCE):
        while list((daemon.recordings / "open").rglob("*.mp4")) or await daemon.count_unindexed():
            await trio.sleep(0.1)


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
