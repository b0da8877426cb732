"""One credential with a stream over every protocol, watched and published: however it ends, all of them end with it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import planted
import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, free_port, make_config, port_of, running_daemon
from patience import fail_after
from test_revocation import HlsViewer, WhepViewer, assert_refused, watch_rtsp

from edged.credentials import tokens
from edged.library.snapshots import Snapshots
from edged.mediamtx.client import ControlApi, MediaSession
from edged.mediamtx.ffmpeg import find_ffmpeg

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg, pytest.mark.slow]
#: How long a stream may take to end on a busy machine; the promise is far shorter and measured elsewhere.
PATIENCE = 30.0
PASSWORD = planted.plant("horse staple correct", "a password of the protocols' user")
#: A kept picture that no socket's buffer holds.
PICTURE = b"\xff\xd8" + bytes(48 * 1024 * 1024) + b"\xff\xd9"
Action = Literal["read", "publish"]
#: Who watches camera0, and where what is published goes: each to a path of its own.
PLACES: Mapping[tuple[str, Action], str] = {
    ("rtmp", "read"): "camera0", ("srt", "read"): "camera0",
    ("rtsp", "publish"): "camera1", ("rtmp", "publish"): "camera2", ("srt", "publish"): "camera3",
}  # fmt: skip


# Credentials and how they end ----------------------------------------------------------------------------------------


@dataclass
class Held:
    """A credential that may watch and publish, and what ends it."""

    secret: str
    end: Callable[[], Awaitable[object]]


def asking(daemon: RunningDaemon, method: str, **params: object) -> Callable[[], Awaitable[object]]:
    async def ask() -> Any:
        async with daemon.local() as admin:
            return await admin.call(method, **params)

    return ask


async def hold_key(daemon: RunningDaemon) -> Held:
    """An API key, revoked."""
    key_id, secret = await daemon.create_key("admin")
    return Held(secret, asking(daemon, "revoke_key", key_id=key_id))


async def hold_line(daemon: RunningDaemon) -> Held:
    """A token of others, ended by a line through all of its subject's tokens up to now."""
    now = int(time.time())
    claims = {"user_id": "viewer-1", "role": "admin", "iat": now, "exp": now + 600}
    text = tokens.sign(claims, tokens.SharedSecret("test", SECRET))
    return Held(text, asking(daemon, "revoke", subject="viewer-1", before="now"))


async def hold_login(daemon: RunningDaemon) -> Held:
    """A token by a user's password; the user is disabled."""
    await add_user(daemon)
    async with daemon.websocket() as client:
        token = (await client.call("login", username="ann", password=PASSWORD))["token"]
    return Held(token, asking(daemon, "update_user", name="ann", disabled=True))


async def hold_owned(daemon: RunningDaemon) -> Held:
    """A key of a user; the user is disabled."""
    await add_user(daemon)
    _, secret = await daemon.create_key("admin", owner="ann")
    return Held(secret, asking(daemon, "update_user", name="ann", disabled=True))


async def hold_orphan(daemon: RunningDaemon) -> Held:
    """A key of a user; the user's subject is revoked for good."""
    return Held((await hold_owned(daemon)).secret, asking(daemon, "revoke", subject="ann"))


async def add_user(daemon: RunningDaemon) -> None:
    for name in ("root", "ann"):
        await asking(daemon, "create_user", name=name, role="admin", password=PASSWORD)()


HOLDS = {"key": hold_key, "line": hold_line, "login": hold_login, "owned": hold_owned, "orphan": hold_orphan}


# Players and publishers ----------------------------------------------------------------------------------------------


async def address(daemon: RunningDaemon, secret: str, protocol: str, action: Action) -> str:
    """What ffmpeg is given: the key itself; or, as ffmpeg and SRT cut a token short, a ticket for it."""
    camera, media = PLACES[protocol, action], daemon.config.mediamtx
    if len(secret) > 100:
        body = {"device": camera, "action": action, "ttl": 600}
        head = {"Authorization": f"Bearer {secret}", "Host": f"127.0.0.1:{daemon.port}"}
        made = await daemon.request("POST", "/api/tickets", body=body, headers=head)
        assert made.status in (200, 201), made.body
        return str(made.json["urls"][protocol])
    port = port_of((getattr(media, protocol),))
    if protocol == "rtsp":
        return f"rtsp://viewer:{secret}@127.0.0.1:{port}/{camera}"
    if protocol == "rtmp":
        return f"rtmp://127.0.0.1:{port}/{camera}?user=viewer&pass={secret}"
    return f"srt://127.0.0.1:{port}?streamid={action}:{camera}:viewer:{secret}"


@dataclass
class Runner:
    """ffmpeg, as it watches or publishes until it is ended; its exit code then."""

    protocol: str
    action: Action
    url: str = field(repr=False)
    ended: trio.Event = field(default_factory=trio.Event)
    code: int | None = None

    @property
    def words(self) -> list[str]:
        if self.action == "read":
            # RTMP does not say that there is no sound: ffmpeg would look for it for 5 s.
            return ["-analyzeduration", "500k", "-i", self.url, "-c", "copy", "-f", "null", "-"]
        form = {"rtsp": ["rtsp", "-rtsp_transport", "tcp"], "rtmp": ["flv"], "srt": ["mpegts"]}[self.protocol]
        picture = ["-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=5"]
        return [*picture, "-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "-f", *form, self.url]

    async def run(self) -> None:
        done = await trio.run_process(
            [str(find_ffmpeg()), "-hide_banner", "-nostdin", "-loglevel", "error", *self.words],
            capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.code = done.returncode
        self.ended.set()

    @property
    def fact(self) -> tuple[str, str, str]:
        return self.protocol, self.action, PLACES[self.protocol, self.action]


async def runners(daemon: RunningDaemon, secret: str, *, only: str = "") -> list[Runner]:
    return [
        Runner(protocol, action, await address(daemon, secret, protocol, action))
        for protocol, action in PLACES
        if action.startswith(only)
    ]


@dataclass
class Transfer:
    """A GET whose reply is not over."""

    stream: trio.SocketStream
    received: int = 0

    async def wait_more(self) -> None:
        data = await self.stream.receive_some(4096)
        assert data
        self.received += len(data)

    async def wait_end(self) -> None:
        try:
            while data := await self.stream.receive_some(65536):
                self.received += len(data)
        except trio.BrokenResourceError:
            pass


async def get(daemon: RunningDaemon, target: str, secret: str) -> Transfer:
    transfer = Transfer(await trio.open_tcp_stream("127.0.0.1", daemon.port))
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\r\n"
    await transfer.stream.send_all(head.encode())
    start = await transfer.stream.receive_some(4096)
    assert start.startswith(b"HTTP/1.1 200"), start
    return transfer


async def list_sessions(daemon: RunningDaemon) -> list[MediaSession]:
    """What MediaMTX itself lists, but edged's own publishers."""
    text = (daemon.config.paths.runtime / "children" / "mediamtx.json").read_text()
    port = port_of((json.loads(text)["apiAddress"],))
    protocols = ("rtsp", "webrtc", "hls", "rtmp", "srt")
    client = ControlApi("127.0.0.1", port, "edged", planted.child_secrets("api")[-1], protocols=protocols)
    found = await client.list_sessions()
    return [each for each in found if (each.protocol, each.path, each.state) != ("rtsp", "camera0", "publish")]


async def until_listed(daemon: RunningDaemon, wanted: list[Runner]) -> None:
    """Until MediaMTX has each of these, as what it is."""
    facts = sorted(each.fact for each in wanted)
    with fail_after(60):
        while True:
            found = [(each.protocol, each.state, each.path) for each in await list_sessions(daemon)]
            if sorted(fact for fact in found if fact in facts) == facts:
                return
            dead = [each.fact for each in wanted if each.ended.is_set()]
            assert not dead
            await trio.sleep(0.1)


def make_daemon_config(tmp_path: Path) -> Any:
    config = make_config(tmp_path, cameras=4, mediamtx=True)
    media = msgspec.structs.replace(
        config.mediamtx, rtmp=f"127.0.0.1:{free_port()}", srt=f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    )
    return msgspec.structs.replace(config, mediamtx=media)


# The test ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOLDS)
async def test_what_a_credential_opened_ends_with_it_over_every_protocol(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Watched over RTSP, RTMP, SRT, HLS, WebRTC and as live picture, published over RTSP, RTMP and SRT, a download
    under way: ended, and refused when tried again. What another key opened goes on. None of it is an incident."""
    config = make_daemon_config(tmp_path)
    await Snapshots(config.snapshots.folder).save("big.jpg", "camera0", PICTURE, "jpg", time.time())
    live = "/api/cameras/camera0/live.mjpeg"
    with fail_after(200):
        async with running_daemon(tmp_path, config=config) as daemon, trio.open_nursery() as nursery:
            await daemon.wait_media()
            held, other = await HOLDS[kind](daemon), await hold_key(daemon)
            theirs, mine = await runners(daemon, other.secret, only="read"), await runners(daemon, held.secret)
            for each in (*theirs, *mine):
                nursery.start_soon(each.run)
            rtsp, bystander = await watch_rtsp(daemon, held.secret), await watch_rtsp(daemon, other.secret)
            hls, whep = HlsViewer(daemon.hls, "camera0", held.secret), WhepViewer(daemon, "camera0", held.secret)
            assert (await hls.read(), await whep.play()) == (200, 201)
            picture, stays = await get(daemon, live, held.secret), await get(daemon, live, other.secret)
            await picture.wait_more()
            download = await get(daemon, "/files/snapshots/big.jpg", held.secret)
            await until_listed(daemon, [*theirs, *mine])

            await held.end()
            with fail_after(PATIENCE):
                for each in mine:
                    await each.ended.wait()
                for one in (rtsp, hls, picture, download):
                    await one.wait_end()
                while whep.session in [session.id for session in await list_sessions(daemon)]:
                    await trio.sleep(0.02)
            assert download.received < len(PICTURE)

            again = [Runner(each.protocol, each.action, each.url) for each in mine]
            with fail_after(60):
                async with trio.open_nursery() as refused:
                    for each in again:
                        refused.start_soon(each.run)
                    refused.start_soon(assert_refused, daemon, held.secret)
            assert all(each.code for each in again)
            head = {"Authorization": f"Bearer {held.secret}"}
            for target in (live, "/files/snapshots/big.jpg"):
                assert (await daemon.request("GET", target, headers=head)).status == 401

            assert not any(each.ended.is_set() for each in theirs)
            # One of the two over RTSP is edged itself, which makes the live picture of what it reads. Who was refused
            # just now may be listed a moment longer.
            stay = [("rtmp", "read"), ("rtsp", "read"), ("rtsp", "read"), ("srt", "read")]
            with trio.move_on_after(PATIENCE):
                while sorted((each.protocol, each.state) for each in await list_sessions(daemon)) != stay:
                    await trio.sleep(0.1)
            assert sorted((each.protocol, each.state) for each in await list_sessions(daemon)) == stay
            await bystander.wait_packet()
            await stays.wait_more()
            for viewer in (rtsp, bystander):
                await viewer.aclose()
            for one in (picture, stays, download):
                await one.stream.aclose()
            nursery.cancel_scope.cancel()
    told = capfd.readouterr()
    assert "incident" not in told.out + told.err


async def test_whoever_has_only_connected_is_in_peace_while_others_are_terminated(tmp_path: Path) -> None:
    """MediaMTX lists an RTMP connection before it has said a word; a revocation meanwhile is none of its business."""
    config = make_daemon_config(tmp_path)
    with fail_after(90):
        async with running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            other = await hold_key(daemon)
            async with await trio.open_tcp_stream("127.0.0.1", port_of((config.mediamtx.rtmp,))) as silent:
                while ("rtmp", "idle") not in [(each.protocol, each.state) for each in await list_sessions(daemon)]:
                    await trio.sleep(0.02)
                await other.end()
                with trio.move_on_after(2.5) as waited:  # the first sweeps after an end lie within this time
                    await silent.receive_some(1)
                assert waited.cancelled_caught, "it was ended"
