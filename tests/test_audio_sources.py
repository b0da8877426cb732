"""Codecs of network cameras, and their sound: off unless it is asked for, and then Opus."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, make_config, running_daemon
from patience import fail_after
from pictures_helpers import open_mediamtx
from test_revocation import media_api

from edged import children
from edged.config.cameras import CameraSettings
from edged.mediamtx.figures import read_codec

pytestmark = [pytest.mark.ffmpeg, pytest.mark.mediamtx]
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10")
_H265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=10:bframes=0:log-level=error")
_TONE = ("-f", "lavfi", "-i", "sine=frequency=440")


@asynccontextmanager
async def camera(url: str, *codecs: str, has_sound: bool = True) -> AsyncIterator[None]:
    """A camera that sends its picture and a tone."""
    source = ("-re", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10", *(_TONE if has_sound else ()))
    arguments = ["ffmpeg", "-nostdin", "-loglevel", "error", *source, "-pix_fmt", "yuv420p", *codecs]
    arguments += ["-f", "rtsp", "-rtsp_transport", "tcp", url]
    async with children.spawn(arguments, environment=dict(os.environ), landlock=None, stdout=False, stderr=False):
        yield


async def until_known(admin: Conversation, device: str) -> Any:
    while not (found := await admin.call("get_camera_status", device=device))["audio_codec"]:
        await trio.sleep(0.1)
    return found


async def published(daemon: Any, path: str) -> tuple[str, str]:
    """The codecs of a path of MediaMTX's, once it is there."""
    while True:
        for state in await media_api(daemon).list_paths():
            if state.name == path and state.ready:
                return state.figures.video, state.figures.audio
        await trio.sleep(0.2)


async def test_h265_and_sound_are_named_and_sound_is_published_where_it_is_wanted(tmp_path: Path) -> None:
    """H.265 is passed on as it is; AAC becomes Opus, Opus stays; without `audio` nothing is heard."""
    with fail_after(150):
        async with (
            open_mediamtx(tmp_path) as server,
            camera(f"rtsp://{server.rtsp}/camera0", *_H265, "-c:a", "aac"),
            camera(f"rtsp://{server.rtsp}/camera1", *_H264, has_sound=False),
        ):
            address = f"rtsp://{server.rtsp}"
            always = partial(CameraSettings, mode="always")
            cameras = (
                always(name="quiet", source=f"{address}/camera0"),
                always(name="heard", source=f"{address}/camera0?heard", id="heard", audio=True),
                always(name="mute", source=f"{address}/camera1", audio=True),
            )
            config = msgspec.structs.replace(make_config(tmp_path, cameras=0, mediamtx=True), camera=cameras)
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                await daemon.wait_media()
                for device, video, audio, is_heard in (
                    ("camera0", "H265", "AAC", False), ("camera1", "H265", "AAC", True),
                    ("camera2", "H264", "none", False),
                ):  # fmt: skip
                    known = await until_known(admin, device)
                    assert (known["video_codec"], known["audio_codec"]) == (video, audio)
                    assert known["audio"] is is_heard
                assert await published(daemon, "camera0") == ("H265", "none")
                assert await published(daemon, "camera1") == ("H265", "Opus")
                assert await published(daemon, "camera2") == ("H264", "none")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  Stream #0:0: Video: hevc (Main), yuv420p(tv), 320x240, 10 fps", ("video", "H265")),
        ("  Stream #0:1: Audio: pcm_alaw, 8000 Hz, mono, s16, 64 kb/s", ("audio", "G711")),
        ("  Stream #0:1[0x101](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz", ("audio", "AAC")),
        ("  Stream #0:2: Data: none", ("", "")), ("Video: h264", ("", "")),
        ("  Stream #0:0: Video: av1", ("video", "AV1")),
    ],
)  # fmt: skip
def test_a_codec_is_read_from_what_ffmpeg_tells(line: str, expected: tuple[str, str]) -> None:
    assert read_codec(line) == expected
