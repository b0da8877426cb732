"""Revocation, rotation and expiry reach the wire: streams of the real MediaMTX end, over every protocol."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import planted
import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, make_config, port_of, running_daemon
from media_helpers import install_standin, order
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused

from edged.credentials import tokens
from edged.mediamtx.client import ControlApi, MediaSession

real = [pytest.mark.mediamtx, pytest.mark.ffmpeg]
#: How long a stream may take to end on a busy machine; the promise is far shorter and measured elsewhere.
PATIENCE = 10.0
OFFER = "\r\n".join(
    (
        "v=0", "o=- 4611731400430051336 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0",
        "m=video 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", "a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "a=mid:0", "a=recvonly", "a=rtcp-mux",
        "a=rtpmap:96 H264/90000", "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "",
    )
)  # fmt: skip


# Credentials and how they end ----------------------------------------------------------------------------------------


@dataclass
class Held:
    """A credential, and what revokes it."""

    secret: str
    revoke: Callable[[], Awaitable[None]]


async def hold_key(daemon: RunningDaemon) -> Held:
    key_id, secret = await daemon.create_key()
    return Held(secret, lambda: daemon.revoke_key(key_id))


def sign(jti: str, seconds: float = 600) -> str:
    now = time.time()
    claims = {"user_id": "viewer", "role": "viewer", "jti": jti, "iat": int(now), "exp": now + seconds}
    return tokens.sign(claims, tokens.SharedSecret("test", SECRET))


async def hold_jti(daemon: RunningDaemon) -> Held:
    """A token that is revoked by its jti, as whoever no longer has its text does it."""
    jti = secrets.token_hex(8)

    async def revoke() -> None:
        async with daemon.local() as admin:
            await admin.call("revoke_token", jti=jti)

    return Held(sign(jti), revoke)


async def hold_token(daemon: RunningDaemon) -> Held:
    """A token that is revoked by its text."""
    text = sign(secrets.token_hex(8))

    async def revoke() -> None:
        async with daemon.local() as admin:
            await admin.call("revoke_token", token=text)

    return Held(text, revoke)


HOLDS = {"key": hold_key, "jti": hold_jti, "token": hold_token}


# Viewers -------------------------------------------------------------------------------------------------------------


def media_api(daemon: RunningDaemon) -> ControlApi:
    """MediaMTX's own API, with the password that edged made for itself: what it lists is what there is."""
    text = (daemon.config.paths.runtime / "children" / "mediamtx.json").read_text()
    port = port_of((json.loads(text)["apiAddress"],))
    return ControlApi("127.0.0.1", port, "edged", planted.child_secrets("api")[-1], protocols=("rtsp", "webrtc", "hls"))


async def list_readers(daemon: RunningDaemon) -> list[MediaSession]:
    """Everybody in MediaMTX's lists but edged's own publishers."""
    return [session for session in await media_api(daemon).list_sessions() if session.state != "publish"]


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"viewer:{password}".encode()).decode()


@dataclass
class HlsViewer:
    """An HLS player without a picture: it keeps cookies, follows redirects and reads the playlist."""

    port: int
    path: str
    password: str
    cookies: str = "cookieCheck=1"
    target: str = ""

    async def read(self) -> int:
        """The status of the playlist; MediaMTX holds the first until there is a picture."""
        return await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)

    def _read(self) -> int:
        target = self.target or f"/{self.path}/index.m3u8?cookieCheck=1"
        for _ in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                head = {"Cookie": self.cookies} | ({} if self.target else {"Authorization": basic(self.password)})
                connection.request("GET", target, headers=head)
                with connection.getresponse() as response:
                    body = response.read()
                    given = [each.split(";")[0] for each in response.headers.get_all("Set-Cookie", [])]
                    self.cookies = "; ".join([self.cookies, *given])
                    if response.status not in (301, 302, 307):
                        if response.status == 200 and not self.target:
                            lines = [line for line in body.decode().splitlines() if line and not line.startswith("#")]
                            self.target = f"/{self.path}/{lines[0]}"
                        return response.status
                    target = response.headers["Location"]
            finally:
                connection.close()
        raise AssertionError("too many redirects")

    async def wait_end(self) -> None:
        """Until the playlist is refused."""
        while await self.read() == 200:
            await trio.sleep(0.05)


@dataclass
class WhepViewer:
    """A WebRTC viewer whose offer is answered; its media never flow."""

    daemon: RunningDaemon
    path: str
    password: str
    session: str = ""

    async def play(self) -> int:
        """POST the offer; the status."""

        def post() -> int:
            connection = http.client.HTTPConnection(
                "127.0.0.1", port_of((self.daemon.config.mediamtx.webrtc,)), timeout=60
            )
            try:
                head = {"Content-Type": "application/sdp", "Authorization": basic(self.password)}
                connection.request("POST", f"/{self.path}/whep", OFFER.encode(), head)
                with connection.getresponse() as response:
                    response.read()
                    self.session = response.headers.get("ID", "")
                    return response.status
            finally:
                connection.close()

        return await trio.to_thread.run_sync(post, abandon_on_cancel=True)

    async def is_listed(self) -> bool:
        return self.session in [session.id for session in await list_readers(self.daemon)]


async def watch_rtsp(daemon: RunningDaemon, password: str, camera: str = "camera0") -> RtspReader:
    """A viewer who has seen something."""
    viewer = RtspReader(daemon.rtsp, camera, "viewer", password)
    await viewer.play()
    await viewer.wait_packet()
    return viewer


async def assert_refused(daemon: RunningDaemon, password: str) -> None:
    """This credential opens nothing any more, over any protocol."""
    again = RtspReader(daemon.rtsp, "camera0", "viewer", password)
    with pytest.raises(RtspRefused) as refused:
        await again.play()
    assert refused.value.status == 401
    await again.aclose()
    assert await HlsViewer(daemon.hls, "camera0", password).read() == 401
    assert await WhepViewer(daemon, "camera0", password).play() == 401


# The tests -----------------------------------------------------------------------------------------------------------


class TestOnTheRealMediaMTX:
    """What a viewer sees of it."""

    pytestmark = real

    @pytest.mark.parametrize("kind", HOLDS)
    async def test_a_revoked_credential_ends_its_streams_over_every_protocol(self, tmp_path: Path, kind: str) -> None:
        """RTSP is closed, the HLS playlist refused, the WebRTC session gone; another viewer goes on."""
        with fail_after(80):
            async with running_daemon(tmp_path, mediamtx=True) as daemon:
                await daemon.wait_media()
                held, other = await HOLDS[kind](daemon), await hold_key(daemon)
                bystander = await watch_rtsp(daemon, other.secret)
                rtsp = await watch_rtsp(daemon, held.secret)
                hls = HlsViewer(daemon.hls, "camera0", held.secret)
                assert await hls.read() == 200
                assert await hls.read() == 200, "its session works without the credential"
                whep = WhepViewer(daemon, "camera0", held.secret)
                assert await whep.play() == 201
                assert await whep.is_listed()
                await held.revoke()
                with fail_after(PATIENCE):
                    await rtsp.wait_end()
                    await hls.wait_end()
                    while await whep.is_listed():
                        await trio.sleep(0.02)
                await assert_refused(daemon, held.secret)
                assert [session.protocol for session in await list_readers(daemon)] == ["rtsp"]
                await bystander.wait_packet()
                await rtsp.aclose()
                await bystander.aclose()

    @pytest.mark.slow
    async def test_a_held_hls_reader_does_not_outlive_its_key(self, tmp_path: Path) -> None:
        """MediaMTX lists it only when the picture comes; a second later at most it is out again."""
        with fail_after(200):
            async with running_daemon(tmp_path, mediamtx=True) as daemon:
                await daemon.wait_media()
                held, other = await hold_key(daemon), await hold_key(daemon)
                daemon.plug(1).unlink()
                await self._wait_connected(daemon, 1)
                hls = HlsViewer(daemon.hls, "camera1", held.secret)
                statuses: list[int] = []
                listed_at = gone_at = 0.0

                async def read() -> None:
                    statuses.append(await hls.read())

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read)
                    await trio.sleep(1)
                    assert not statuses, "MediaMTX holds it: there is no picture"
                    await held.revoke()
                    revoked_at = trio.current_time()
                    await trio.sleep(3.5)  # between two sweeps, whichever they are
                    daemon.plug(1).touch()
                    await self._wait_connected(daemon, 2)
                    # Whoever asks for the picture now brings it for the held one too.
                    nursery.start_soon(self._try_until_it_plays, daemon, other.secret)
                    while not gone_at and trio.current_time() - revoked_at < 30:
                        mine = [one for one in await list_readers(daemon) if one.protocol == "hls"]
                        if mine and not listed_at:
                            listed_at = trio.current_time()
                        if not mine and (listed_at or trio.current_time() - revoked_at > 14):
                            gone_at = trio.current_time()
                        await trio.sleep(0.05)
                    print(
                        f"listed {listed_at - revoked_at:.2f} s, gone {gone_at - revoked_at:.2f} s after the revocation"
                    )
                    assert listed_at, "the reader was never let through: this test shows nothing"
                    assert gone_at - revoked_at < 14
                    while not statuses:
                        await trio.sleep(0.05)
                    assert await hls.read() == 401
                    nursery.cancel_scope.cancel()

    async def _wait_connected(self, daemon: RunningDaemon, number: int) -> None:
        async with daemon.local() as admin:
            while (await admin.call("get_camera_list"))["connected"] != number:
                await trio.sleep(0.05)

    async def _try_until_it_plays(self, daemon: RunningDaemon, password: str) -> None:
        while True:
            viewer = RtspReader(daemon.rtsp, "camera1", "viewer", password)
            try:
                with suppress(RtspRefused, OSError):
                    await viewer.play()
                    await viewer.wait_end()
            finally:
                with trio.CancelScope(shield=True):
                    await viewer.aclose()
            await trio.sleep(0.1)

    @pytest.mark.parametrize("grace", [0, 1])
    async def test_a_rotated_keys_old_secret_ends_with_its_grace(self, tmp_path: Path, grace: int) -> None:
        """The stream that the old secret opened ends, the one of the new secret stays."""
        with fail_after(80):
            async with running_daemon(tmp_path, mediamtx=True) as daemon:
                await daemon.wait_media()
                key_id, old = await daemon.create_key()
                viewer = await watch_rtsp(daemon, old)
                async with daemon.local() as admin:
                    rotated = await admin.call("rotate_key", key_id=key_id, grace_seconds=grace)
                began = trio.current_time()
                new = await watch_rtsp(daemon, rotated["api_key"])
                with fail_after(PATIENCE):
                    await viewer.wait_end()
                assert trio.current_time() - began >= grace * 0.5 - 0.1, "not before its time"
                await assert_refused(daemon, old)
                await new.wait_packet()
                await viewer.aclose()
                await new.aclose()

    async def test_an_expired_token_ends_its_streams(self, tmp_path: Path) -> None:
        """RTSP, HLS and WebRTC: MediaMTX itself looks at a credential only once."""
        config = make_config(tmp_path, mediamtx=True)
        config = msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, leeway=0))
        with fail_after(80):
            async with running_daemon(tmp_path, config=config) as daemon:
                await daemon.wait_media()
                _, key = await daemon.create_key()
                warm = await watch_rtsp(daemon, key)  # so that nobody has to wait for a picture
                token = sign("short", seconds=6)
                rtsp = await watch_rtsp(daemon, token)
                hls = HlsViewer(daemon.hls, "camera0", token)
                whep = WhepViewer(daemon, "camera0", token)
                assert (await hls.read(), await whep.play()) == (200, 201)
                with fail_after(6 + PATIENCE):
                    await rtsp.wait_end()
                    await hls.wait_end()
                    while await whep.is_listed():
                        await trio.sleep(0.02)
                await assert_refused(daemon, token)
                await warm.wait_packet()
                await rtsp.aclose()
                await warm.aclose()

    @pytest.mark.parametrize("step", ["DESCRIBE", "SETUP"])
    async def test_a_handshake_in_flight_ends_with_the_key(self, tmp_path: Path, step: str) -> None:
        """Revoked between two requests of one viewer: the next is refused or finds the connection closed."""
        with fail_after(80):
            async with running_daemon(tmp_path, mediamtx=True) as daemon:
                await daemon.wait_media()
                held, other = await hold_key(daemon), await hold_key(daemon)
                warm = await watch_rtsp(daemon, other.secret)
                flight = RtspReader(daemon.rtsp, "camera0", "viewer", held.secret)
                flight._stream = await trio.open_tcp_stream("127.0.0.1", daemon.rtsp)
                await flight.request("DESCRIBE", flight.url, {"Accept": "application/sdp"})
                if step == "SETUP":
                    await self._set_up(flight)
                await held.revoke()
                with pytest.raises((RtspRefused, OSError)):  # noqa: PT012 - whichever of them comes first
                    if step == "DESCRIBE":
                        await self._set_up(flight)
                    await trio.sleep(0.5)
                    await flight.request("PLAY", flight.url + "/")
                await flight.aclose()
                with fail_after(PATIENCE):
                    while len(await list_readers(daemon)) != 1:
                        await trio.sleep(0.05)
                await warm.aclose()

    async def _set_up(self, reader: RtspReader) -> None:
        await reader.request("SETUP", f"{reader.url}/trackID=0", {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"})

    async def test_nobody_slips_through_while_a_key_is_revoked(self, tmp_path: Path) -> None:
        """Twenty viewers at every stage of their handshakes: none is left, and none is admitted after the reply."""
        with fail_after(85):
            async with running_daemon(tmp_path, mediamtx=True) as daemon:
                await daemon.wait_media()
                other = await hold_key(daemon)
                warm = await watch_rtsp(daemon, other.secret)
                for attempt in range(4):
                    held = await hold_key(daemon)
                    async with trio.open_nursery() as nursery:

                        async def come(delay: float, secret: str = held.secret) -> None:
                            await trio.sleep(delay)
                            viewer = RtspReader(daemon.rtsp, "camera0", "viewer", secret)
                            try:
                                with suppress(RtspRefused, OSError), fail_after(PATIENCE):
                                    await viewer.play()
                                    await viewer.wait_end()
                            finally:
                                await viewer.aclose()

                        for number in range(20):
                            nursery.start_soon(come, number * 0.002)
                        await trio.sleep(0.004 * attempt + 0.006)
                        await held.revoke()
                    assert len(await list_readers(daemon)) == 1
                await warm.wait_packet()
                await warm.aclose()


async def test_a_kick_that_fails_is_left_to_the_sweep(tmp_path: Path) -> None:
    """MediaMTX answers 500 to every kick for a while: the viewer goes as soon as it does not."""
    program = install_standin(tmp_path / "standin")
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    server = msgspec.structs.replace(config.mediamtx, binary=str(program))
    config = msgspec.structs.replace(config, mediamtx=server)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            held = await hold_key(daemon)
            viewer = RtspReader(daemon.rtsp, "camera0", "viewer", held.secret)
            viewer._stream = await trio.open_tcp_stream("127.0.0.1", daemon.rtsp)
            await viewer.request("SETUP", f"{viewer.url}/trackID=0", {"Transport": "RTP/AVP/TCP"})
            await viewer.request("PLAY", viewer.url)
            order(tmp_path / "standin", "no-kicks")
            await held.revoke()
            # Longer than the tries of the kick itself.
            with trio.move_on_after(2.5) as waited:
                await viewer.wait_end()
            assert waited.cancelled_caught, "the stand-in did not do as it was told"
            assert len(await list_readers(daemon)) == 1
            order(tmp_path / "standin")
            with fail_after(30):
                await viewer.wait_end()
            assert await list_readers(daemon) == []
            await viewer.aclose()
