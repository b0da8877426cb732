"""An RTSP server that leads elsewhere (RFC 2326, 11.3): followed for a camera of the settings, refused for one that a
call has added, because its address was judged and the other was not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from bare_rtsp_server import bare_camera
from patience import fail_after
from pictures_helpers import Camera, Spawner

from edged.mediamtx.causes import NoPicture
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.ffmpeg import find_ffmpeg
from edged.mediamtx.frames import Frames
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.source_checks import SourceChecks

pytestmark = pytest.mark.ffmpeg
AT = ("OPTIONS", "DESCRIBE")


@asynccontextmanager
async def leading_to(target: str, at: str) -> AsyncIterator[str]:
    """The address of a server that answers each request of the method `at` with a redirect."""

    async def serve(stream: trio.SocketStream) -> None:
        buffer = b""
        try:
            while data := await stream.receive_some(4096):
                buffer += data
                while b"\r\n\r\n" in buffer:
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    lines = head.decode().split("\r\n")
                    number = next(line for line in lines if line.lower().startswith("cseq"))
                    status = f"302 Found\r\nLocation: {target}" if lines[0].startswith(at) else "200 OK"
                    await stream.send_all(f"RTSP/1.0 {status}\r\n{number}\r\n\r\n".encode())
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"rtsp://127.0.0.1:{listeners[0].socket.getsockname()[1]}/x"
        nursery.cancel_scope.cancel()


def make_camera(url: str, *, is_pinned: bool) -> Camera:
    return Camera(kind="rtsp", url=url, rate=0.0, transport="tcp", is_pinned=is_pinned)


@asynccontextmanager
async def running_frames(folder: Path, conditions: Conditions | None = None) -> AsyncIterator[Frames]:
    frames = Frames(Spawner(), find_ffmpeg, lambda _path: None, folder=folder, conditions=conditions)
    async with trio.open_nursery() as nursery:
        await nursery.start(frames.run)
        yield frames
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("at", AT)
async def test_a_redirect_of_a_camera_of_the_settings_is_followed(tmp_path: Path, at: str) -> None:
    """A recorder may distribute its cameras so; whoever writes the settings may name any address anyway."""
    with fail_after(60):
        async with bare_camera() as target, leading_to(target, at) as url, running_frames(tmp_path) as frames:
            assert (await frames.snapshot(make_camera(url, is_pinned=False))).startswith(b"\xff\xd8")


@pytest.mark.parametrize("at", AT)
async def test_a_picture_of_an_added_camera_does_not_come_from_where_its_server_leads(tmp_path: Path, at: str) -> None:
    """The server that it leads to, on loopback, is asked for no stream that anybody sees."""
    with fail_after(60):
        async with bare_camera() as target, leading_to(target, at) as url, running_frames(tmp_path) as frames:
            with pytest.raises(NoPicture) as refused:
                await frames.snapshot(make_camera(url, is_pinned=True))
    assert refused.value.cause.slug == "redirected"
    assert target in refused.value.cause.exact, "an administrator sees where it leads"


@pytest.mark.parametrize("at", AT)
async def test_an_added_camera_is_not_published_from_where_its_server_leads(tmp_path: Path, at: str) -> None:
    """MediaMTX, here a listener that only counts, gets nothing; the state names the cause."""
    connected = 0

    async def count(_stream: trio.SocketStream) -> None:
        nonlocal connected
        connected += 1

    conditions = Conditions()

    async def list_nothing() -> list[Any]:
        return []

    with fail_after(60):
        async with bare_camera() as target, leading_to(target, at) as url, trio.open_nursery() as nursery:
            (server,) = await nursery.start(partial(trio.serve_tcp, count, 0, host="127.0.0.1"))
            address = f"127.0.0.1:{server.socket.getsockname()[1]}"
            publishers = Publishers(
                Spawner(), find_ffmpeg, lambda: address, lambda _path, _action, _uses: "s" * 30, lambda _secret: None,
                list_nothing, folder=tmp_path, conditions=conditions,
            )  # fmt: skip
            publishers.set_sources([make_camera(url, is_pinned=True)])
            await nursery.start(publishers.run)
            publishers.wake("camera0")
            while conditions.find("camera0").works is not False:
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    cause = conditions.find("camera0").cause
    assert cause is not None
    assert cause.slug == "redirected"
    assert connected == 0


@pytest.mark.parametrize("at", AT)
async def test_a_check_of_an_added_camera_says_that_its_server_leads_elsewhere(tmp_path: Path, at: str) -> None:
    """Before anybody has watched it."""
    conditions = Conditions()
    with fail_after(60):
        async with (
            bare_camera() as target,
            leading_to(target, at) as url,
            running_frames(tmp_path, conditions) as frames,
            trio.open_nursery() as nursery,
        ):
            checks = SourceChecks(Spawner(), find_ffmpeg, frames, conditions, lambda _path: False, folder=tmp_path)
            checks.set_sources([make_camera(url, is_pinned=True)])
            nursery.start_soon(checks.run)
            while conditions.find("camera0").works is not False:
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    cause = conditions.find("camera0").cause
    assert cause is not None
    assert cause.slug == "redirected"
