"""Each viewer counts once, over every protocol, with what it was sent, for as long as it is here."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, free_port, make_config, port_of, running_daemon
from log_helpers import kept_log
from patience import fail_after
from test_revocation import WhepViewer, watch_rtsp

from edged.mediamtx.ffmpeg import find_ffmpeg

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg]


def make_media_config(folder: Path) -> Any:
    config = make_config(folder, mediamtx=True, cameras=1)
    media = msgspec.structs.replace(
        config.mediamtx, rtmp=f"127.0.0.1:{free_port()}", srt=f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    )
    camera = msgspec.structs.replace(config.camera[0], mode="always")
    return msgspec.structs.replace(config, mediamtx=media, camera=(camera,))


async def wait_picture(daemon: RunningDaemon) -> None:
    """Until MediaMTX has the camera's stream."""
    await daemon.wait_media()
    async with daemon.local() as admin:
        while not all(each["ready"] for each in await admin.call("get_streams")):
            await trio.sleep(0.1)


async def list_viewers(daemon: RunningDaemon, key_id: str) -> list[dict[str, Any]]:
    async with daemon.local() as admin:
        return [each for each in (await admin.call("list_sessions"))["sessions"] if each["key_id"] == key_id]


async def read_gauge(daemon: RunningDaemon) -> dict[str, int]:
    port = port_of(daemon.config.listen.local)
    lines = (await daemon.request("GET", "/metrics", port=port)).body.decode().splitlines()
    return {line.split('"')[1]: int(float(line.split(" ")[1])) for line in lines if line.startswith("edged_sessions{")}


async def until(fact: Callable[[], Any]) -> None:
    while not await fact():
        await trio.sleep(0.2)


def start_player(stack: ExitStack, address: str) -> subprocess.Popen[bytes]:
    player = subprocess.Popen(
        [find_ffmpeg(), "-loglevel", "quiet", "-nostdin", "-i", address, "-map", "0:v", "-c", "copy", "-f", "null", "-"]
    )
    stack.callback(player.wait)
    stack.callback(player.kill)
    return player


async def test_one_viewer_over_each_protocol_is_counted_once_and_gone_when_it_left(tmp_path: Path) -> None:
    """RTSP, HLS, RTMP, SRT and a live picture: list and gauge say one of each, with bytes that grow; then none."""
    config = make_media_config(tmp_path)
    media = config.mediamtx
    expected = {"rtsp": 1, "hls": 1, "rtmp": 1, "srt": 1, "http": 1}
    with fail_after(80), ExitStack() as stack:
        async with running_daemon(tmp_path, config=config) as daemon:
            await wait_picture(daemon)
            key_id, key = await daemon.create_key("viewer")
            watcher = await watch_rtsp(daemon, key)
            start_player(stack, f"http://viewer:{key}@127.0.0.1:{daemon.hls}/camera0/index.m3u8")
            start_player(stack, f"rtmp://127.0.0.1:{port_of((media.rtmp,))}/camera0?user=viewer&pass={key}")
            start_player(stack, f"srt://127.0.0.1:{port_of((media.srt,))}?streamid=read:camera0:viewer:{key}")
            live = await trio.open_tcp_stream("127.0.0.1", daemon.port)
            await live.send_all(
                f"GET /api/cameras/camera0/live.mjpeg HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode()
            )
            seen: list[dict[str, Any]] = []

            async def all_here() -> bool:
                nonlocal seen
                seen = await list_viewers(daemon, key_id)
                counted = {name: number for name, number in (await read_gauge(daemon)).items() if number}
                shown = {each["transport"]: each["bytes"] for each in seen}
                return counted == expected and all(shown.values())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watcher.wait_end)
                nursery.start_soon(swallow, live)
                await until(all_here)
                assert sorted(each["transport"] for each in seen) == sorted(expected)
                before = {each["session_id"]: each["bytes"] for each in seen}

                async def all_grew() -> bool:
                    now = {each["session_id"]: each["bytes"] for each in await list_viewers(daemon, key_id)}
                    return now.keys() == before.keys() and all(now[name] > before[name] for name in before)

                await until(all_grew)
                nursery.cancel_scope.cancel()
            await watcher.aclose()
            await live.aclose()
            stack.close()
            with fail_after(20):
                await until(lambda: nobody_here(daemon, key_id))
            assert {name for name, number in (await read_gauge(daemon)).items() if number} <= {"uds"}


async def nobody_here(daemon: RunningDaemon, key_id: str) -> bool:
    return await list_viewers(daemon, key_id) == []


async def swallow(stream: trio.SocketStream) -> None:
    while await stream.receive_some(65536):
        pass


async def test_a_revocation_tells_how_many_viewers_it_ended(tmp_path: Path) -> None:
    """Two RTSP viewers and one over WebRTC by one key: three, at once and later; MediaMTX is asked for none that it has
    not, so that it writes no error.
    """
    with fail_after(80), kept_log() as log:
        async with running_daemon(tmp_path, config=make_media_config(tmp_path)) as daemon:
            await wait_picture(daemon)
            for pause in (0.0, 2.0):
                key_id, key = await daemon.create_key("viewer")
                viewers = [await watch_rtsp(daemon, key) for _ in range(2)]
                whep = WhepViewer(daemon, "camera0", key)
                assert await whep.play() == 201
                await trio.sleep(pause)
                await daemon.revoke_key(key_id)
                for viewer in viewers:
                    await viewer.wait_end()
                    await viewer.aclose()
                while await whep.is_listed():
                    await trio.sleep(0.05)
                await trio.sleep(0.5)  # what is kicked in vain is kicked by now
    text = log.getvalue()
    ended = [line for line in text.splitlines() if "registrar: revoked" in line or " revoked " in line]
    assert [line for line in ended if "ended=3" in line] == ended, ended
    assert len(ended) == 2
    assert "not found" not in text
