"""Publishers: one ffmpeg per camera, always or while somebody watches, started again when it fails."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from pictures_helpers import (
    PASSWORD,
    Camera,
    Server,
    Spawner,
    command_lines,
    eventually,
    open_mediamtx,
    publish,
    write_script,
)

from edged.errors import DependencyFailed
from edged.mediamtx import causes, progress
from edged.mediamtx import publisher as module
from edged.mediamtx.client import PathState
from edged.mediamtx.ffmpeg import find_ffmpeg
from edged.mediamtx.progress import (
    STALL_SECONDS,
    START_SECONDS,
    Progress,
    follow_progress,
    is_stalled,
)
from edged.mediamtx.published_camera import PublishedCamera
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.sources import CameraSource
from edged.mediamtx.streams import publish_arguments
from edged.restarts import GOOD_SECONDS, Restarts

URL = "rtsp://edged:x@127.0.0.1:8554/camera0"


@dataclass(frozen=True)
class Seen:
    """One path as MediaMTX lists it."""

    name: str = "camera0"
    readers: int = 0
    bytes_received: int = 0


class Secrets:
    """Makes one password again and again; notes which are good."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, int | None]] = []
        self.good = 0

    def new(self, path: str, action: str, uses: int | None) -> str:
        self.made.append((path, action, uses))
        self.good += 1
        return PASSWORD

    def drop(self, secret: str) -> None:
        assert secret == PASSWORD
        self.good -= 1


async def see_nothing() -> list[Any]:
    return []


@asynccontextmanager
async def opened(
    spawn: Spawner,
    secrets: Secrets,
    find: Callable[[], str] = find_ffmpeg,
    address: Callable[[], str | None] = lambda: "127.0.0.1:1",
    list_paths: Callable[[], Awaitable[Sequence[PathState]]] = see_nothing,
    **more: object,
) -> AsyncIterator[Publishers]:
    """Publishers that run, and end with the block."""
    publishers = Publishers(spawn, find, address, secrets.new, secrets.drop, list_paths, **more)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(publishers.run)
        yield publishers
        nursery.cancel_scope.cancel()


def opened_at(server: Server, spawn: Spawner, secrets: Secrets) -> AbstractAsyncContextManager[Publishers]:
    """Publishers that publish to this MediaMTX."""
    return opened(spawn, secrets, find_ffmpeg, lambda: server.rtsp, server.list_paths)


def status(publishers: Publishers, name: str = "camera0") -> str:
    return publishers.states[name].status


def set_pauses(monkeypatch: pytest.MonkeyPatch, seconds: float, good: float = GOOD_SECONDS) -> None:
    """From here on cameras pause for so long after each end without `good` seconds of media."""

    def make(source: CameraSource, wanted_until: float) -> PublishedCamera:
        return PublishedCamera(source, wanted_until=wanted_until, ends=Restarts(seconds, seconds, good))

    monkeypatch.setattr(module, "PublishedCamera", make)


def has_started(spawn: Spawner, times: int) -> bool:
    return len(spawn.started) == times


# --- decisions ---


def test_h264_is_passed_on_and_anything_else_encoded() -> None:
    """A camera's own H264 costs nothing; MJPG and YUYV are encoded with a key frame each second."""
    usb = Camera(kind="usb", node="/dev/video0", pixel_format="H264", rate=15.0)
    arguments = publish_arguments(usb, URL)
    assert arguments[arguments.index("-c:v") + 1] == "copy"
    assert arguments[-1] == URL
    encoded = publish_arguments(dataclasses.replace(usb, pixel_format="MJPG"), URL)
    assert encoded[encoded.index("-c:v") + 1] == "libx264"
    assert encoded[encoded.index("-g") + 1] == "15"


def test_a_configured_encoder_is_used_without_libx264s_options() -> None:
    """An encoder in hardware knows no presets."""
    arguments = publish_arguments(Camera(encoder="h264_v4l2m2m"), URL)
    assert arguments[arguments.index("-c:v") + 1] == "h264_v4l2m2m"
    assert "-preset" not in arguments


def test_the_address_of_an_rtsp_camera_is_in_no_argument() -> None:
    """It may hold a password; the arguments name the file that holds it."""
    arguments = publish_arguments(Camera(kind="rtsp", url=f"rtsp://u:{PASSWORD}@h/"), URL, "/tmp/list")
    assert PASSWORD not in " ".join(arguments)
    assert arguments[arguments.index("-i") + 1] == "/tmp/list"


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_a_publisher_whose_bytes_grow_is_never_stalled(counts: list[int]) -> None:
    """While the count grows with each look it lives; once it stands still for the time, it does not."""
    progress, now = Progress(0.0), 0.0
    for total in sorted(set(counts) - {0}):
        now += STALL_SECONDS - 1
        progress = follow_progress(progress, total, now)
        assert not is_stalled(progress, now)
    still = follow_progress(progress, progress.received, now + START_SECONDS)
    assert is_stalled(still, now + START_SECONDS)


def test_a_start_may_take_longer_than_a_stall_and_a_new_count_is_no_movement() -> None:
    """A camera may need seconds to switch on; MediaMTX counts from 0 for each publisher."""
    assert not is_stalled(Progress(0.0), START_SECONDS - 0.1)
    assert is_stalled(Progress(0.0), START_SECONDS)
    assert follow_progress(Progress(1.0, 500, moving=True), 0, 2.0) == Progress(1.0, 0, moving=True)
    assert is_stalled(Progress(1.0, 500, moving=True), 1.0 + STALL_SECONDS)


# --- one that is not ffmpeg, to see what is done with it ---


async def test_a_failing_ffmpeg_is_paused_explained_and_its_password_dropped(tmp_path: Path) -> None:
    """The state says what ffmpeg said and what to do, never the password, and counts; each start had its own."""
    spawn, secrets = Spawner(), Secrets()
    script = write_script(tmp_path, 'for last; do :; done; echo "$last: Connection refused" >&2; exit 1')
    with fail_after(30):
        async with opened(spawn, secrets, script) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: publishers.states["camera0"].restarts >= 2)
            state = publishers.states["camera0"]
            assert state.detail == f"{causes.SERVER.sentence}: {causes.SERVER.remedy}"
            exact = publishers.conditions.find("camera0").cause
            assert exact is not None
            assert exact.exact == "rtsp://***/camera0: Connection refused"
            assert not publishers.is_active("camera9")
    assert secrets.made[:2] == [("camera0", "publish", 1)] * 2
    assert secrets.good == 0


async def test_a_silent_end_is_told_by_its_code(tmp_path: Path) -> None:
    """Even a publisher that says nothing leaves a reason."""
    with fail_after(30):
        async with opened(Spawner(), Secrets(), write_script(tmp_path, "exit 7")) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: status(publishers) == "pausing")
            cause = publishers.conditions.find("camera0").cause
            assert cause is not None
            assert cause.exact == "ffmpeg ended with code 7"


async def test_a_missing_ffmpeg_is_a_state_not_a_crash() -> None:
    """The remedy stands in the state; an ffmpeg installed later is found."""

    def find() -> str:
        raise DependencyFailed("no ffmpeg", hint="install it: apt install ffmpeg")

    with fail_after(30):
        async with opened(Spawner(), Secrets(), find) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: status(publishers) == "pausing")
            assert "apt install ffmpeg" in publishers.states["camera0"].detail


async def test_a_full_disk_is_a_reason_like_any_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the playlist cannot be written the state says so, and edged goes on."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with fail_after(30):
        async with opened(Spawner(), Secrets(), lambda: "/bin/true") as publishers:
            publishers.set_sources([Camera(kind="rtsp", url="rtsp://127.0.0.1/x", always_on=True)])
            await eventually(lambda: status(publishers) == "pausing")
            assert "cannot be started" in publishers.states["camera0"].detail


async def test_without_a_reader_no_ffmpeg_runs_and_mediamtx_is_not_asked(tmp_path: Path) -> None:
    """A camera on demand that nobody watches costs no process and no question."""
    spawn, asked = Spawner(), list[bool]()

    async def look() -> list[Any]:
        asked.append(True)
        return []

    script = write_script(tmp_path, "exec sleep 60")
    with fail_after(30):
        async with opened(spawn, Secrets(), script, list_paths=look) as publishers:
            publishers.set_sources([Camera()])
            await trio.sleep(0.2)
            assert (status(publishers), spawn.started, asked) == ("asleep", [], [])
            publishers.wake("camera7")
            publishers.wake("camera0")
            before = trio.current_time()
            await eventually(lambda: bool(spawn.started))
            assert publishers.is_active("camera0")
            assert trio.current_time() - before < 5
    assert not spawn.alive


async def test_who_waits_for_a_camera_that_is_plugged_in_meanwhile_gets_it(tmp_path: Path) -> None:
    """MediaMTX asks once and then holds its reader; a wish for a camera that is not there is kept as long."""
    spawn = Spawner()
    script = write_script(tmp_path, "exec sleep 60")
    with fail_after(30):
        async with opened(spawn, Secrets(), script) as publishers:
            for number in range(200):  # whatever else is asked for costs little
                publishers.wake("camera0" if number == 20 else f"nothing{number}")
            publishers.set_sources([Camera()])
            await eventually(lambda: bool(spawn.started))


async def test_while_mediamtx_is_not_ready_a_camera_waits(tmp_path: Path) -> None:
    """No ffmpeg is started against a server that is not there."""
    spawn = Spawner()
    address: str | None = None
    script = write_script(tmp_path, "exec sleep 60")
    with fail_after(30):
        async with opened(spawn, Secrets(), script, lambda: address) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: status(publishers) == "waiting")
            assert not publishers.is_active("camera0")
            address = "127.0.0.1:1"
            publishers.nudge()
            await eventually(lambda: len(spawn.started) == 1)


async def test_a_nudge_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When MediaMTX is back nobody waits for the end of a long pause. All before the deadline."""
    set_pauses(monkeypatch, 1000.0)
    spawn = Spawner()
    with fail_after(30):
        async with opened(spawn, Secrets(), write_script(tmp_path, "exit 1")) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: status(publishers) == "pausing")
            publishers.nudge()
            await eventually(lambda: len(spawn.started) == 2)


async def test_a_changed_or_removed_camera_ends_its_ffmpeg_and_no_other(tmp_path: Path) -> None:
    """A new size means a new start, a new name for people does not; the other camera's process stays the same."""
    spawn = Spawner()
    script = write_script(tmp_path, "exec sleep 60")
    one, two = Camera("camera0", always_on=True), Camera("camera1", always_on=True)
    with fail_after(30):
        async with opened(spawn, Secrets(), script) as publishers:
            publishers.set_sources([one, two])
            await eventually(lambda: len(spawn.alive) == 2)
            stays = publishers.states["camera1"].pid
            publishers.set_sources([dataclasses.replace(one, width=320), two])
            await eventually(lambda: len(spawn.started) == 3)
            publishers.set_sources([dataclasses.replace(one, width=320), two])
            publishers.set_sources([two])
            await eventually(lambda: len(spawn.alive) == 1)
            assert list(publishers.states) == ["camera1"]
            assert publishers.states["camera1"].pid == stays
            assert publishers.states["camera1"].restarts == 0


async def test_sources_may_be_set_before_it_runs(tmp_path: Path) -> None:
    """The order of a start does not matter. It starts before the deadline."""
    spawn, secrets = Spawner(), Secrets()
    script = write_script(tmp_path, "exec sleep 60")
    publishers = Publishers(spawn, script, lambda: "127.0.0.1:1", secrets.new, secrets.drop, see_nothing)
    publishers.set_sources([Camera(always_on=True)])
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(publishers.run)
            await eventually(lambda: len(spawn.alive) == 1)
            nursery.cancel_scope.cancel()


async def test_a_device_is_released_before_a_publisher_opens_it(tmp_path: Path) -> None:
    """Whoever else holds the camera lets go before ffmpeg starts, and sees that it is about to."""
    spawn, seen = Spawner(), list[tuple[str, bool, int]]()

    async def release_device(name: str) -> None:
        seen.append((name, publishers.is_active(name), len(spawn.started)))

    script = write_script(tmp_path, "exec sleep 60")
    with fail_after(30):
        async with opened(spawn, Secrets(), script, release_device=release_device) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: len(spawn.started) == 1)
    assert seen == [("camera0", True, 0)]


async def test_a_publisher_whose_bytes_stand_still_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First it runs, because bytes came; then none come. While MediaMTX does not answer, nobody is blamed."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(progress, "STALL_SECONDS", 0.5)
    spawn = Spawner()
    seen: list[Seen] | None = None

    async def look() -> list[Any]:
        if seen is None:
            raise DependencyFailed("MediaMTX does not answer")
        return seen

    with fail_after(30):
        async with opened(spawn, Secrets(), write_script(tmp_path, "exec sleep 60"), list_paths=look) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await trio.sleep(1)
            assert len(spawn.started) == 1
            seen = [Seen(bytes_received=1000)]
            await eventually(lambda: status(publishers) == "running")
            await eventually(lambda: status(publishers) == "pausing")
            assert causes.STALLED.sentence in publishers.states["camera0"].detail
            await eventually(lambda: len(spawn.started) == 2)
            assert len(spawn.alive) == 1


async def test_a_camera_on_demand_sleeps_when_its_last_reader_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody reads it goes on; afterwards it ends, which is no failure."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.5)
    spawn, total, readers = Spawner(), 0, 1

    async def look() -> list[Any]:
        nonlocal total
        total += 100
        return [Seen(readers=readers, bytes_received=total)]

    with fail_after(30):
        async with opened(spawn, Secrets(), write_script(tmp_path, "exec sleep 60"), list_paths=look) as publishers:
            publishers.set_sources([Camera()])
            publishers.wake("camera0")
            await trio.sleep(1.5)
            assert len(spawn.alive) == 1
            readers = 0
            await eventually(lambda: status(publishers) == "asleep")
            assert not spawn.alive
            assert publishers.states["camera0"].restarts == 0


# --- the real thing ---


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
async def test_a_woken_camera_is_up_and_sleeps_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the wish to a stream at MediaMTX; without readers it ends; nothing but its own arguments knows its word."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(module, "IDLE_SECONDS", 6.0)
    spawn, secrets = Spawner(), Secrets()
    with fail_after(80):
        async with open_mediamtx(tmp_path) as server, opened_at(server, spawn, secrets) as publishers:
            publishers.set_sources([Camera()])
            publishers.wake("camera0")
            await server.until(lambda path: path.ready)
            await eventually(lambda: status(publishers) == "running")
            assert publishers.states["camera0"].pid == spawn.started[0].pid
            await eventually(lambda: status(publishers) == "asleep")
            await server.until(lambda path: not path.ready)
    assert (secrets.good, len(spawn.started)) == (0, 1)


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
@pytest.mark.parametrize("how", ["killed", "silent", "stopped"])
async def test_a_publisher_that_publishes_no_more_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One that is dead, at once; one that is there and sends nothing, by its bytes; one that a signal stopped, however
    long its camera may be silent."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(progress, "STALL_SECONDS", 1.5 if how == "silent" else 1000.0)
    if how == "silent":
        # Nothing else than a signal keeps a test's ffmpeg from sending.
        monkeypatch.setattr(module, "is_stopped", lambda _pid: False)
    spawn, secrets = Spawner(), Secrets()
    with fail_after(80):
        async with open_mediamtx(tmp_path) as server, opened_at(server, spawn, secrets) as publishers:
            publishers.set_sources([Camera(always_on=True)])
            await eventually(lambda: status(publishers) == "running")
            first = spawn.started[-1]
            os.kill(first.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            await eventually(lambda: len(spawn.started) > 1 and status(publishers) == "running")
            await server.until(lambda path: path.ready)
            assert first.returncode is not None


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
async def test_an_rtsp_camera_is_passed_on_with_its_password_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the camera sends arrives as H264 at its own path, and no process list shows the camera's password."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    secrets = Secrets()
    with fail_after(80):
        async with (
            open_mediamtx(tmp_path) as server,
            publish(server, "locked"),
            opened_at(server, Spawner(), secrets) as publishers,
        ):
            url = f"rtsp://u:{PASSWORD}@{server.rtsp}/locked"
            publishers.set_sources([Camera("camera1", kind="rtsp", url=url, always_on=True)])
            await server.until(lambda path: path.ready, "camera1")
            await eventually(lambda: status(publishers, "camera1") == "running")
            assert PASSWORD not in command_lines()


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
async def test_a_refused_publisher_is_told_without_its_password(tmp_path: Path) -> None:
    """MediaMTX's own refusal reaches the state with the password masked."""
    spawn, secrets = Spawner(), Secrets()
    with fail_after(80):
        async with open_mediamtx(tmp_path) as server, opened_at(server, spawn, secrets) as publishers:
            publishers.set_sources([Camera("unknown", always_on=True)])
            await eventually(lambda: status(publishers, "unknown") == "pausing")
            detail = publishers.states["unknown"].detail
            assert detail
            assert PASSWORD not in detail
