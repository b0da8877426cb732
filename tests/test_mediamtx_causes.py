"""ffmpeg's words → causes: each is produced with a real ffmpeg, the system's and the wheel's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pictures_helpers import PASSWORD, Camera, Server, Spawner, free_ports, open_mediamtx, publish

from edged import children
from edged.mediamtx import causes
from edged.mediamtx.causes import CAUSES, Cause, NoPicture, find_cause
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.ffmpeg import Complaints, _find_wheel, choose_transport, find_ffmpeg, private_file, secrets_of
from edged.mediamtx.frames import Frames
from edged.mediamtx.sources.encoding import encode_arguments
from edged.mediamtx.streams import publish_arguments

ffmpeg = pytest.mark.ffmpeg
mediamtx = pytest.mark.mediamtx


@pytest.fixture(params=["system", "wheel"])
def program(request: pytest.FixtureRequest) -> str:
    """Two ffmpegs that word things differently."""
    if request.param == "system":
        return find_ffmpeg()
    pytest.importorskip("imageio_ffmpeg")
    return _find_wheel()


async def cause_of(program: str, camera: Camera) -> Cause:
    """Why a snapshot of this camera fails."""
    conditions = Conditions()
    frames = Frames(Spawner(), lambda: program, lambda _path: None, conditions=conditions)
    async with trio.open_nursery() as nursery:
        await nursery.start(frames.run)
        with pytest.raises(NoPicture) as caught:
            await frames.snapshot(camera)
        nursery.cancel_scope.cancel()
    assert conditions.find(camera.name).cause == caught.value.cause
    return caught.value.cause


def rtsp(url: str, **more: object) -> Camera:
    return Camera(kind="rtsp", url=url, **more)  # type: ignore[arg-type]


@ffmpeg
async def test_an_address_that_leads_nowhere_is_told_as_what_it_is(program: str, tmp_path: Path) -> None:
    """The name, the port, what answers there; the exact line holds no password and no temporary path."""
    (port,) = free_ports(1)
    found = {
        "name": await cause_of(program, rtsp(f"rtsp://u:{PASSWORD}@no-such-host.invalid/x")),
        "port": await cause_of(program, rtsp(f"rtsp://u:{PASSWORD}@127.0.0.1:{port}/x")),
        "no port": await cause_of(program, rtsp(f"rtsp://u:{PASSWORD}@127.0.0.1:port/x")),
        "address": await cause_of(program, rtsp("rtsp://u:a b@127.0.0.1/x")),
    }
    slugs = {name: cause.slug for name, cause in found.items()}
    assert slugs == {"name": "name_unknown", "port": "refused", "no port": "bad_address", "address": "bad_address"}
    for cause in found.values():
        assert PASSWORD not in cause.exact
        assert "edged-private" not in cause.exact
        assert "0x" not in cause.exact
    assert found["name"].is_unreachable
    assert found["port"].is_unreachable


@ffmpeg
@mediamtx
async def test_a_server_that_refuses_is_told_as_what_it_is(program: str, tmp_path: Path) -> None:
    """A wrong password, no such stream, sound only, another protocol."""
    async with open_mediamtx(tmp_path) as server, publish(server, "locked"), publish_sound(server, "camera1"):
        host, web = server.rtsp, server.api
        slugs = [
            (await cause_of(program, rtsp(url))).slug
            for url in (f"rtsp://u:wrong-word@{host}/locked", f"rtsp://{host}/camera0", f"rtsp://{host}/camera1",
                        f"rtsp://{web}/x")
        ]  # fmt: skip
    assert slugs == ["password", "no_stream", "no_video", "not_rtsp"]


@ffmpeg
@mediamtx
async def test_a_camera_that_sends_by_udp_only_gives_a_picture_and_by_tcp_its_cause(
    program: str, tmp_path: Path
) -> None:
    """`auto` takes TCP, and UDP where there is no TCP; with `tcp` the setting is named."""
    async with open_mediamtx(tmp_path, transport="udp") as server, publish(server, "camera0", transport="udp"):
        url = f"rtsp://{server.rtsp}/camera0"
        cause = await cause_of(program, rtsp(url, transport="tcp"))
        assert cause.slug == "transport"
        assert "rtsp_transport" in cause.remedy
        frames = Frames(Spawner(), lambda: program, lambda _path: None)
        async with trio.open_nursery() as nursery:
            await nursery.start(frames.run)
            assert (await frames.snapshot(rtsp(url))).startswith(b"\xff\xd8")
            nursery.cancel_scope.cancel()


@ffmpeg
async def test_a_host_without_a_route_is_told_as_unreachable(program: str) -> None:
    """In a network namespace without any network."""
    here = Path(__file__).parent
    script = (
        "import sys, trio; sys.path.insert(0, sys.argv[1])\n"
        "from test_mediamtx_causes import cause_of, rtsp\n"
        "print(trio.run(cause_of, sys.argv[2], rtsp('rtsp://192.0.2.7/x')).slug)\n"
    )
    command = ["unshare", "-rn", sys.executable, "-c", script, str(here), program]
    ran = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    if b"unshare" in ran.stderr:
        pytest.skip("no network namespaces here")
    assert ran.stdout.decode().splitlines()[-1:] == ["unreachable"], ran.stderr.decode()


@ffmpeg
def test_what_the_encoder_and_the_device_complain_of(program: str, tmp_path: Path) -> None:
    """An encoder that is not there, a device that is none or is not there, MediaMTX that takes nothing."""
    (port,) = free_ports(1)
    test = Camera(width=320, height=240)
    at = f"rtsp://127.0.0.1:{port}/x"
    assert explain(program, publish_arguments(Camera(encoder="h264_none"), at)).slug == "encoder"
    assert explain(program, publish_arguments(test, at)).slug == "server"
    assert explain(program, publish_arguments(Camera(kind="usb", node="/dev/video77"), at)).slug == "unplugged"
    assert explain(program, publish_arguments(Camera(kind="usb", node="/dev/null"), at)).slug == "format"


def explain(program: str, arguments: list[str]) -> Cause:
    said = subprocess.run([program, *arguments], capture_output=True, check=False, timeout=60).stderr
    complaints = Complaints(may_redirect=False)
    complaints.feed(said)
    complaints.finish()
    return complaints.explain(causes.ENDED, network=False)


@ffmpeg
def test_an_odd_size_is_cropped_to_even(program: str, tmp_path: Path) -> None:
    """The colours of yuv420p come two by two: some encoders take nothing else. The test picture is even by itself."""
    arguments = encode_arguments(Camera(kind="usb", width=161, height=121))
    made = subprocess.run(
        [program, "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", "161x121", "-i", "-", *arguments,
         "-frames:v", "1", "-f", "rawvideo", "-c:v", "rawvideo", "-"],
        input=bytes(161 * 121 * 3), capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert len(made.stdout) == 160 * 120 * 3 // 2


@given(st.lists(st.text(max_size=120), max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_whatever_is_said_the_table_answers(lines: list[str], network: bool, opened: bool, reads_only: bool) -> None:
    """A cause of the table or none, with the line that it was found by."""
    found = find_cause(lines, network=network, opened=opened, reads_only=reads_only)
    assert found is None or (found.exact in lines and found.slug in {cause.slug for cause in CAUSES})


def test_every_cause_says_what_to_do_and_no_two_share_a_name() -> None:
    """Sentences of plain words, each once."""
    assert len({cause.slug for cause in CAUSES}) == len(CAUSES)
    assert len({cause.sentence for cause in CAUSES}) == len(CAUSES)
    assert all(cause.sentence and cause.remedy for cause in CAUSES)


def test_after_the_source_is_open_what_refuses_is_mediamtx() -> None:
    """The same words mean another thing when they come from where the stream goes."""
    line = ["[tcp] Connection to tcp://127.0.0.1:8554?timeout=0 failed: Connection refused"]
    before = find_cause(line, network=True, opened=False)
    after = find_cause(line, network=True, opened=True)
    assert before is not None
    assert after is not None
    assert (before.slug, after.slug) == ("refused", "server")


def test_a_private_file_and_a_secret_are_in_no_line(tmp_path: Path) -> None:
    """Lines are kept without level, object addresses, paths of ours and passwords."""
    url = f"rtsp://u:{PASSWORD}@h/x"
    complaints = Complaints(secrets_of(url), may_redirect=False)
    with private_file(b"", ".ffconcat", tmp_path) as name:
        complaints.feed(f"[info] Input #0, concat, from '{name}':\n".encode())
        complaints.feed(f"[rtsp @ 0x55d5bcf5d980] [error] {url}: gone\n[error] {name}: Connection timed out\n".encode())
    assert list(complaints.lines) == ["[rtsp] ***: gone", "its source: Connection timed out"]
    assert complaints.is_open
    assert complaints.explain(causes.ENDED, network=True).slug == "silent"


def test_a_server_that_says_nothing_by_tcp_is_asked_by_udp_in_turns() -> None:
    """Only with `auto`, and only for silence or a refused transport."""
    tried = [choose_transport("auto", failures, "silent") for failures in range(1, 5)]
    assert tried == ["udp", "auto", "udp", "auto"]
    assert choose_transport("auto", 1, "transport") == "udp"
    assert choose_transport("tcp", 1, "silent") == "tcp"
    assert choose_transport("auto", 1, "password") == "auto"


@asynccontextmanager
async def publish_sound(server: Server, name: str) -> AsyncIterator[None]:
    """A source without a picture."""
    arguments = [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "sine", "-c:a", "aac"),
        *("-f", "rtsp", "-rtsp_transport", "tcp", f"rtsp://{server.rtsp}/{name}"),
    ]
    async with children.spawn(arguments, environment=dict(os.environ), landlock=None, stdout=False, stderr=False):
        await server.until(lambda path: path.ready, name)
        yield
