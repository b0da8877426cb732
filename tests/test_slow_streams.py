"""Cameras whose pictures are far apart: one a second, one in three seconds, key frames 20 s and a minute apart."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from bare_rtsp_server import bare_camera
from patience import fail_after, times
from pictures_helpers import PASSWORD, Camera, Server, Spawner, eventually, open_mediamtx

from edged import children
from edged.errors import DependencyFailed
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.ffmpeg import find_ffmpeg
from edged.mediamtx.frames import Frames
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.source_checks import SourceChecks

pytestmark = [pytest.mark.ffmpeg, pytest.mark.mediamtx]


@asynccontextmanager
async def slow_camera(server: Server, *, rate: float, gop: int) -> AsyncIterator[Camera]:
    """A camera in the network, at camera1, with so many pictures a second and so many from key frame to key frame."""
    arguments = [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi"),
        *("-i", f"testsrc2=size=160x120:rate={rate}", "-c:v", "libx264", "-preset", "ultrafast"),
        *("-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", str(gop), "-keyint_min", str(gop)),
        *("-f", "rtsp", "-rtsp_transport", "tcp", f"rtsp://{server.rtsp}/camera1"),
    ]
    spawn = partial(children.spawn, environment=dict(os.environ), landlock=None, stdout=False, stderr=False)
    async with spawn(arguments):
        await server.until(lambda path: path.bytes_received > 0, "camera1")
        # Into the time between two key frames.
        await trio.sleep(1.5 / rate)
        yield Camera(kind="rtsp", url=f"rtsp://{server.rtsp}/camera1")


@asynccontextmanager
async def open_frames() -> AsyncIterator[Frames]:
    frames = Frames(Spawner(), find_ffmpeg, lambda _path: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(frames.run)
        yield frames
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def published(server: Server, camera: Camera, spawn: Spawner | None = None) -> AsyncIterator[Publishers]:
    """The camera's own publisher, always on."""
    publishers = Publishers(
        spawn or Spawner(),
        find_ffmpeg,
        lambda: server.rtsp,
        lambda *_: PASSWORD,
        lambda _secret: None,
        server.list_paths,
    )
    publishers.set_sources([camera])
    async with trio.open_nursery() as nursery:
        await nursery.start(publishers.run)
        yield publishers
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("rate", "gop"), [(1, 2), (2, 4)])
async def test_a_camera_of_one_or_two_pictures_a_second_gives_a_snapshot_and_a_stream(
    tmp_path: Path, rate: float, gop: int
) -> None:
    """The picture comes with its key frame, and the publisher passes the stream on without a restart."""
    async with open_mediamtx(tmp_path) as server, slow_camera(server, rate=rate, gop=gop) as camera:
        async with open_frames() as frames:
            with fail_after(9):
                assert (await frames.snapshot(camera)).startswith(b"\xff\xd8")
        async with published(server, Camera(kind="rtsp", url=camera.url, always_on=True)) as publishers:
            await eventually(lambda: publishers.states["camera0"].status == "running")
            assert publishers.states["camera0"].restarts == 0


@pytest.mark.slow
async def test_key_frames_20_seconds_apart_give_a_picture_and_a_stream(tmp_path: Path) -> None:
    """Whoever asks waits for the next key frame; what is passed on begins before it."""
    async with open_mediamtx(tmp_path) as server, slow_camera(server, rate=5, gop=100) as camera:
        async with open_frames() as frames:
            for _ in range(times(2)):
                assert (await frames.snapshot(camera)).startswith(b"\xff\xd8")
        async with published(server, Camera(kind="rtsp", url=camera.url, always_on=True)) as publishers:
            with fail_after(9):
                await server.until(lambda path: path.ready)
            await server.until(lambda path: path.bytes_received > 0)
            await eventually(lambda: publishers.states["camera0"].status == "running")
            assert publishers.states["camera0"].restarts == 0


@pytest.mark.slow
async def test_key_frames_a_minute_apart_are_named_as_the_cause(tmp_path: Path) -> None:
    """After 30 s, with what to set in the camera."""
    async with (
        open_mediamtx(tmp_path) as server,
        slow_camera(server, rate=5, gop=300) as camera,
        open_frames() as frames,
    ):
        began = trio.current_time()
        with pytest.raises(DependencyFailed) as caught:
            await frames.snapshot(camera)
        assert 28 < trio.current_time() - began < 45
        cause = caught.value.cause  # type: ignore[attr-defined]
        assert cause.slug == "key_frames"
        assert "key frame interval" in cause.remedy


async def test_a_camera_that_says_nothing_is_given_up_after_ten_seconds_however_often_it_is_opened() -> None:
    """Its port takes connections and answers nothing."""

    async def say_nothing(stream: trio.SocketStream) -> None:
        opened.append(stream)
        await trio.sleep_forever()

    opened: list[trio.SocketStream] = []
    async with trio.open_nursery() as nursery, open_frames() as frames:
        listener = (await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1")))[0]
        port = listener.socket.getsockname()[1]
        began = trio.current_time()
        with pytest.raises(DependencyFailed) as caught:
            await frames.snapshot(Camera(kind="rtsp", url=f"rtsp://127.0.0.1:{port}/x"))
        assert 9 < trio.current_time() - began < 25
        assert opened
        assert caught.value.cause.slug == "silent"  # type: ignore[attr-defined]
        nursery.cancel_scope.cancel()


async def test_a_device_of_less_than_one_picture_a_second_is_a_camera() -> None:
    """One picture in three seconds: no restart, a snapshot and a moving picture."""
    spawn = Spawner()
    camera = Camera(rate=0.33)
    frames = Frames(spawn, find_ffmpeg, lambda _path: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(frames.run)
        async with frames.watch(camera) as reader:
            number, first = await reader.next(0)
            _, second = await reader.next(number)
            assert first != second
        assert len(spawn.started) == 1
        nursery.cancel_scope.cancel()


async def test_a_camera_whose_server_does_not_tell_the_size_gives_a_picture_and_a_stream(tmp_path: Path) -> None:
    """Short analysis finds no size where the parameter sets come in the stream only: then the stream is looked at."""
    async with open_mediamtx(tmp_path) as server, bare_camera() as url:
        async with open_frames() as frames:
            assert (await frames.snapshot(Camera(kind="rtsp", url=url))).startswith(b"\xff\xd8")
        spawn = Spawner()
        async with published(server, Camera(kind="rtsp", url=url, always_on=True), spawn) as publishers:
            await server.until(lambda path: path.bytes_received > 0)
            await eventually(lambda: publishers.states["camera0"].status == "running")
            # The second start looks at the stream; the first is no failure.
            assert (len(spawn.started), publishers.states["camera0"].restarts) == (2, 0)
        conditions = Conditions()
        source_checks = SourceChecks(Spawner(), find_ffmpeg, frames, conditions, lambda _path: False)
        source_checks.set_sources([Camera(kind="rtsp", url=url, rate=0.0)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source_checks.run)
            await eventually(lambda: conditions.find("camera0").figures.rate > 0)
            assert conditions.find("camera0").figures.width == 160
            nursery.cancel_scope.cancel()
