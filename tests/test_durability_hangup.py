"""A caller that hangs up right after it asked, at random moments for each operation: done, or not done.

A real edged in a child, a real WebSocket over TCP; where there is a compiler its syncs take a few milliseconds, so that
many a moment lies in the middle of a commit. Part of the callers hang up before their last byte is out.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import Conversation, ended, free_port
from durability_helpers import Box, Disk, compile_disk, read_file, running_box
from net_helpers import frame, open_raw
from patience import fail_after, until_seen
from rtsp_client import RtspReader, RtspRefused

from edged.credentials.api_keys import digest

pytestmark = [pytest.mark.slow]
#: How many moments, of which a run tries a tenth (patience.py).
MOMENTS = 100
#: How long a sync takes, and the longest time between the call and the end of the call's connection, seconds.
SYNC = 0.004
PATIENCE = 4 * SYNC


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    return compile_disk(tmp_path_factory.mktemp("disk")) if shutil.which("gcc") else None


#: What begins each picture.
TURN = b"Content-Type: image/jpeg"
#: A camera that needs no hardware.
CAMERA = """
[[camera]]
name = "test 0"
source = "test"
size = "320x240"
"""


@pytest.fixture
async def box(tmp_path: Path, library: Path | None) -> AsyncIterator[Box]:
    async with running_box(tmp_path, Disk(tmp_path, library) if library else None, settings=CAMERA) as box:
        if box.disk is not None:
            box.disk.behave(delay=SYNC)
        yield box


def drain(stream: trio.SocketStream) -> None:
    """Read what has come, so that what comes then is new. Raises OSError."""
    with suppress(BlockingIOError):
        while os.read(stream.socket.fileno(), 65536):
            pass


class Picture:
    """A live picture under way: parts come until it ends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def flows(self) -> bool:
        """Whether a picture comes that was not here yet; False once they have ended."""
        held = b""
        try:
            drain(self._stream)
            while TURN not in held:
                data = await self._stream.receive_some(65536)
                if not data:
                    return False
                held += data
        except (trio.BrokenResourceError, ConnectionResetError):
            return False
        return True

    async def wait_end(self) -> None:
        while await self.flows():
            pass


@asynccontextmanager
async def watching(box: Box, secret: str) -> AsyncIterator[Picture]:
    """The live picture over HTTP, by a key; one has come."""
    async with await trio.open_tcp_stream("127.0.0.1", box.port) as stream:
        head = f"GET /api/cameras/camera0/live.mjpeg?fps=10 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {secret}\r\n"
        await stream.send_all(f"{head}Connection: close\r\n\r\n".encode())
        picture = Picture(stream)
        assert await picture.flows()
        yield picture


@asynccontextmanager
async def stay_watching(box: Box, admin: Conversation) -> AsyncIterator[Picture]:
    """The same by a key of its own that nobody revokes."""
    async with watching(box, (await admin.call("create_key", name="bystander", role="viewer"))["api_key"]) as picture:
        yield picture


class Callers:
    """Those who hang up, and an administrator who stays."""

    def __init__(self, box: Box, admin: Conversation, seed: int) -> None:
        self.box, self.admin = box, admin
        self.chance = random.Random(seed)
        self._secret = ""
        self._barrier = ""

    async def enter(self) -> None:
        self._secret = (await self.admin.call("create_key", name="caller", role="admin"))["api_key"]
        self._barrier = (await self.admin.call("create_key", name="barrier", role="viewer"))["key_id"]

    async def hang_up_on(self, method: str, **params: object) -> None:
        """Ask and be gone; on return everything that this call still does has been done."""
        stream = await open_raw(self.box.port)
        await stream.send_all(frame(_call("authenticate", auth_token=self._secret)))
        assert b'"authenticated":true' in await stream.receive_some(65536)
        sent = frame(_call(method, **params))
        if self.chance.random() < 0.15:
            sent = sent[: self.chance.randrange(len(sent))]
        await stream.send_all(sent)
        if self.chance.random() < 0.8:
            await trio.sleep(self.chance.uniform(0, PATIENCE))
        way = self.chance.choice(["reset", "end", "half"])
        if way == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == "half":
            await stream.send_eof()
        await stream.aclose()
        # Whoever is answered for the third time was answered in a later turn of the loop than ours was read; and
        # changes of credentials are made in the order in which they were asked for.
        for _ in range(3):
            assert await self.admin.call("ping") == "pong"
        await self.admin.call("rotate_key", key_id=self._barrier, grace_seconds=0)

    async def listed(self) -> dict[str, Any]:
        """What the running edged says of every key, by name; its uses aside, which only count."""
        keys = (await self.admin.call("list_keys"))["keys"]
        counted = {"last_used", "usage_count"}
        return {key["name"]: {name: key[name] for name in key.keys() - counted} for key in keys}

    def row(self, name: str) -> dict[str, Any] | None:
        """What another program reads of a key."""
        names = "key_id, name, role, digest, created_at, revoked_at, rotated_at, previous_digest, previous_valid_until"
        found = read_file(self.box.database, f"SELECT {names} FROM api_keys WHERE name = ?", name)
        return dict(zip(names.split(", "), found[0], strict=True)) if found else None


def _call(method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def show(outcomes: Counter[str], capfd: pytest.CaptureFixture[str], method: str) -> None:
    with capfd.disabled():
        print(f"\n{method}: {', '.join(f'{number} {name}' for name, number in sorted(outcomes.items()))}")


async def restart(box: Box) -> None:
    """As after a power failure, on a disk that is quick again."""
    box.kill()
    box.disk = None
    await box.start()


@pytest.mark.ffmpeg
async def test_a_key_is_untouched_or_revoked_when_whoever_revoked_it_hung_up(
    box: Box, capfd: pytest.CaptureFixture[str]
) -> None:
    """Untouched: it opens what it did, its session and picture go on. Revoked: refused, on the disk, its session closed
    (4401) and its picture ended; another key's picture goes on all the time."""
    outcomes: Counter[str] = Counter()
    secrets: dict[str, tuple[str, bool]] = {}
    async with box.admin() as admin, stay_watching(box, admin) as another:
        callers = Callers(box, admin, 1)
        await callers.enter()
        for number in until_seen(MOMENTS, outcomes, "revoked", "untouched"):
            name = f"victim {number}"
            made = await admin.call("create_key", name=name, role="viewer")
            async with box.client(made["api_key"]) as inside, watching(box, made["api_key"]) as picture:
                await callers.hang_up_on("revoke_key", key_id=made["key_id"])
                revoked = (await callers.listed())[name]["status"] == "revoked"
                row = callers.row(name)
                assert row is not None
                denied = read_file(
                    box.database, "SELECT 1 FROM revocations WHERE identity = ?", f"key:{made['key_id']}"
                )
                assert (row["revoked_at"] is not None, denied) == (revoked, [(1,)] if revoked else [])
                assert await box.lets_in(made["api_key"]) is not revoked
                if revoked:
                    with fail_after(30):
                        assert await ended(inside) == 4401
                        await picture.wait_end()
                else:
                    assert "result" in await inside.ask("get_camera_list")
                    assert await picture.flows()
            outcomes["revoked" if revoked else "untouched"] += 1
            secrets[name] = (made["api_key"], revoked)
            assert await another.flows()
    show(outcomes, capfd, "revoke_key")
    assert min(outcomes["revoked"], outcomes["untouched"]) > 0
    await restart(box)
    for secret, revoked in secrets.values():
        assert await box.lets_in(secret) is not revoked


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
async def test_an_rtsp_reader_stays_or_goes_with_its_key_when_whoever_revoked_it_hung_up(
    tmp_path: Path, library: Path | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the real MediaMTX: untouched, and its stream flows; or revoked on the disk, its stream ended, and refused."""
    ports = {name: free_port() for name in ("rtsp", "hls", "webrtc")}
    media = "\n".join(f'{name} = "127.0.0.1:{port}"' for name, port in ports.items())
    media += f'\nwebrtc_udp = "127.0.0.1:{free_port(socket.SOCK_DGRAM)}"'
    disk = Disk(tmp_path, library) if library else None
    outcomes: Counter[str] = Counter()
    gone: list[str] = []
    async with running_box(tmp_path, disk, settings=CAMERA, media=media) as box:
        if disk is not None:
            disk.behave(delay=SYNC)
        async with box.admin() as admin:
            while (await admin.call("get_system_status"))["mediamtx"]["status"] != "ready":
                await trio.sleep(0.05)
            callers = Callers(box, admin, 7)
            await callers.enter()
            made = await admin.call("create_key", name="bystander", role="viewer")
            another = await read_rtsp(ports["rtsp"], made["api_key"])
            for number in until_seen(MOMENTS // 5, outcomes, "revoked", "untouched"):
                name = f"victim {number}"
                made = await admin.call("create_key", name=name, role="viewer")
                reader = await read_rtsp(ports["rtsp"], made["api_key"])
                await callers.hang_up_on("revoke_key", key_id=made["key_id"])
                (stored,) = read_file(box.database, "SELECT revoked_at IS NOT NULL FROM api_keys WHERE name = ?", name)
                assert ((await callers.listed())[name]["status"] == "revoked") == stored[0]
                with fail_after(30):
                    if stored[0]:
                        await reader.wait_end()
                        gone.append(made["api_key"])
                    else:
                        await assert_flows(reader)
                    await assert_flows(another)
                await reader.aclose()
                outcomes["revoked" if stored[0] else "untouched"] += 1
            await another.aclose()
            async with trio.open_nursery() as nursery:
                for secret in gone:
                    nursery.start_soon(assert_refused, ports["rtsp"], secret)
        assert await box.stop() == 0
    show(outcomes, capfd, "revoke_key, RTSP")
    assert min(outcomes["revoked"], outcomes["untouched"]) > 0


async def read_rtsp(port: int, secret: str) -> RtspReader:
    """A viewer who has seen something. Raises RtspRefused."""
    reader = RtspReader(port, "camera0", "viewer", secret)
    try:
        await reader.play()
        await reader.wait_packet()
    except BaseException:
        await reader.aclose()
        raise
    return reader


async def assert_refused(port: int, secret: str) -> None:
    with pytest.raises(RtspRefused):
        await read_rtsp(port, secret)


async def assert_flows(reader: RtspReader) -> None:
    """Something new comes."""
    drain(reader.stream)
    await reader.wait_packet()


async def test_a_key_is_absent_or_complete_when_whoever_made_it_hung_up(
    box: Box, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the running edged knows is what is on the disk, member by member, before and after kill and restart."""
    outcomes: Counter[str] = Counter()
    async with box.admin() as admin:
        callers = Callers(box, admin, 2)
        await callers.enter()
        for number in until_seen(MOMENTS, outcomes, "complete", "absent"):
            name = f"new {number}"
            await callers.hang_up_on(
                "create_key", name=name, role="operator", permissions=["camera:read"], camera_access=["camera1"]
            )
            known, row = (await callers.listed()).get(name), callers.row(name)
            assert (known is None) == (row is None)
            if known is not None and row is not None:
                assert (row["key_id"], row["role"]) == (known["key_id"], known["role"])
                assert (known["permissions"], known["camera_access"]) == (["camera:read"], ["camera1"])
                assert (len(row["digest"]), row["revoked_at"], known["status"]) == (32, None, "active")
            outcomes["absent" if row is None else "complete"] += 1
        before = await callers.listed()
    show(outcomes, capfd, "create_key")
    assert min(outcomes["complete"], outcomes["absent"]) > 0
    await restart(box)
    async with box.admin() as admin:
        assert await Callers(box, admin, 0).listed() == before


@pytest.mark.parametrize("grace", [0, 3600])
async def test_a_key_has_its_old_secret_or_a_new_one_when_whoever_rotated_it_hung_up(
    box: Box, capfd: pytest.CaptureFixture[str], grace: int
) -> None:
    """Rotated: a new digest on the disk, the old one beside it until its grace ends, and with it its session."""
    outcomes: Counter[str] = Counter()
    secrets: list[tuple[str, bool]] = []
    async with box.admin() as admin:
        callers = Callers(box, admin, 3 + grace)
        await callers.enter()
        for number in until_seen(MOMENTS // 2, outcomes, "rotated", "untouched"):
            name = f"turning {number}"
            made = await admin.call("create_key", name=name, role="viewer")
            old = digest(made["api_key"])
            async with box.client(made["api_key"]) as inside:
                await callers.hang_up_on("rotate_key", key_id=made["key_id"], grace_seconds=grace)
                row = callers.row(name)
                assert row is not None
                rotated = row["digest"] != old
                facts = (row["previous_digest"], row["rotated_at"] is None, row["previous_valid_until"] is None)
                assert facts == ((old, False, False) if rotated else (None, True, True))
                opens = not rotated or grace > 0
                assert await box.lets_in(made["api_key"]) is opens
                assert ("result" in await inside.ask("get_camera_list")) is opens
            outcomes["rotated" if rotated else "untouched"] += 1
            secrets.append((made["api_key"], opens))
    show(outcomes, capfd, f"rotate_key, grace {grace} s")
    assert min(outcomes["rotated"], outcomes["untouched"]) > 0
    await restart(box)
    for secret, opens in secrets:
        assert await box.lets_in(secret) is opens


async def test_a_key_is_suspended_or_not_when_whoever_suspended_or_resumed_it_hung_up(
    box: Box, capfd: pytest.CaptureFixture[str]
) -> None:
    """Suspended: refused, on the disk, its session closed; resumed: on the disk before it opens anything again."""
    outcomes: Counter[str] = Counter()
    secrets: list[tuple[str, bool]] = []

    async def is_suspended(name: str, secret: str) -> bool:
        status = (await callers.listed())[name]["status"]
        stored = read_file(box.database, "SELECT suspended_at IS NOT NULL FROM api_keys WHERE name = ?", name)
        assert (status, stored) in [("suspended", [(1,)]), ("active", [(0,)])]
        assert await box.lets_in(secret) is (status == "active")
        return bool(status == "suspended")

    async with box.admin() as admin:
        callers = Callers(box, admin, 9)
        await callers.enter()
        for number in until_seen(MOMENTS // 2, outcomes, "suspended", "untouched", "resumed", "still suspended"):
            name = f"resting {number}"
            made = await admin.call("create_key", name=name, role="viewer")
            secret = made["api_key"]
            async with box.client(secret) as inside:
                await callers.hang_up_on("suspend_key", key_id=made["key_id"])
                if suspended := await is_suspended(name, secret):
                    with fail_after(30):
                        assert await ended(inside) == 4401
                else:
                    assert "result" in await inside.ask("get_camera_list")
            outcomes["suspended" if suspended else "untouched"] += 1
            if suspended:
                await callers.hang_up_on("resume_key", key_id=made["key_id"])
                suspended = await is_suspended(name, secret)
                outcomes["still suspended" if suspended else "resumed"] += 1
            secrets.append((secret, suspended))
    show(outcomes, capfd, "suspend_key, resume_key")
    assert min(outcomes[name] for name in ("suspended", "untouched", "resumed", "still suspended")) > 0
    await restart(box)
    for secret, suspended in secrets:
        assert await box.lets_in(secret) is not suspended


def successor_of(box: Box, text: str) -> list[dict[str, Any]]:
    """What another program reads of what came of a token: the claims of its successor, if it has one."""
    found = read_file(
        box.database,
        "SELECT claims FROM refreshes JOIN family_members USING (family_id) WHERE identity = ?",
        f"token:{hashlib.sha256(text.encode()).hexdigest()}",
    )
    return [json.loads(claims) for (claims,) in found]


async def test_a_token_has_one_successor_or_none_when_whoever_refreshed_it_hung_up(
    box: Box, capfd: pytest.CaptureFixture[str]
) -> None:
    """None: the next question makes one. One: it is what every question gets from then on, before and after kill and
    restart; then whoever revokes the token and hangs up ends both, or neither."""
    outcomes: Counter[str] = Counter()
    told: list[tuple[str, str, bool]] = []
    async with box.admin() as admin:
        callers = Callers(box, admin, 11)
        await callers.enter()
        for _ in until_seen(MOMENTS, outcomes, "one", "none", "revoked", "not revoked"):
            text = (await admin.call("issue_token", user_id="ada", signing_key="RS256"))["token"]
            await callers.hang_up_on("refresh_token", token=text)
            found = successor_of(box, text)
            assert len(found) <= 1
            jti = (await admin.call("refresh_token", token=text))["jti"]
            assert [claims["jti"] for claims in found or [{"jti": jti}]] == [jti]
            outcomes["one" if found else "none"] += 1
            made = (await admin.call("refresh_token", token=text))["token"]
            revoked = False
            if len(told) % 2:
                await callers.hang_up_on("revoke_token", token=text)
                good = [await box.lets_in(each) for each in (text, made)]
                assert good in ([True, True], [False, False])
                denied = read_file(box.database, "SELECT count(*) FROM revocations WHERE identity LIKE 'family:%'")
                revoked = not good[0]
                outcomes["revoked" if revoked else "not revoked"] += 1
                assert denied == [(outcomes["revoked"],)]
            told.append((text, made, revoked))
    show(outcomes, capfd, "refresh_token, revoke_token")
    assert min(outcomes[name] for name in ("one", "none", "revoked", "not revoked")) > 0
    await restart(box)
    async with box.admin() as admin:
        for text, made, revoked in told:
            assert [await box.lets_in(each) for each in (text, made)] == [not revoked] * 2
            answer = await admin.ask("refresh_token", token=text)
            if revoked:
                assert answer["error"]["data"]["reason"] == "revoked"
            else:
                assert answer["result"]["token"] == made


async def test_these_moments_lie_in_the_middle_of_commits(box: Box) -> None:
    """A caller waits for longer than one sync takes, so some are gone before it, some after, most during it."""
    if box.disk is None:
        pytest.skip("gcc not found: the disk that is slow cannot be built (apt-get install gcc)")
    async with box.admin() as admin:
        began = trio.current_time()
        await admin.call("create_key", name="timed", role="viewer")
        assert trio.current_time() - began >= SYNC
