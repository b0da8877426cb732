"""The live picture: who may see it, how fast, and how it ends. Time is the test's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock
from web_helpers import JPEG, REMOTE, UNIX, Reply, Site

from edged.cameras.model import Camera, Status
from edged.credentials.callers import Peer
from edged.errors import DependencyFailed

LIVE = "/api/cameras/camera0/live.mjpeg"
_PART = re.compile(rb"Content-Type: image/jpeg\r\nContent-Length: (\d+)\r\n\r\n", re.DOTALL)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Viewer:
    """Takes parts as they come; leaves after `parts` of them."""

    def __init__(self, parts: int) -> None:
        self.scope = trio.CancelScope()
        self.times: list[float] = []
        self.reply = Reply()
        self._parts = parts

    async def take(self, reply: Reply) -> None:
        self.reply = reply
        if len(reply.parts) == 1:
            return
        self.times.append(trio.current_time())
        if len(self.times) >= self._parts:
            self.scope.cancel()

    async def watch(self, site: Site, target: str = LIVE, *, key: str, peer: Peer = REMOTE) -> Reply:
        with self.scope:
            return await site.ask("GET", target, key=key, peer=peer, on_part=self.take)
        return self.reply


def read_pictures(body: bytes, boundary: str) -> list[bytes]:
    """What a client that believes Content-Length sees."""
    found, rest = [], body
    while rest.startswith(b"--" + boundary.encode() + b"\r\n"):
        head, _, rest = rest.partition(b"\r\n\r\n")
        if not (match := re.search(rb"Content-Length: (\d+)", head)):
            break
        size = int(match[1])
        found.append(rest[:size])
        assert rest[size : size + 2] in (b"\r\n", b"")
        rest = rest[size + 2 :]
    return found


async def test_a_viewer_sees_five_whole_pictures_a_second(site: Site, autojump_clock: MockClock) -> None:
    """200 multipart/x-mixed-replace; every part says its length; five a second unless asked otherwise."""
    _, key = site.key("viewer")
    viewer = Viewer(21)
    reply = await viewer.watch(site, key=key)
    assert reply.status == 200
    kind, _, boundary = reply.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/x-mixed-replace"
    assert reply.headers["cache-control"] == "no-store"
    pictures = read_pictures(reply.body, boundary)
    assert len(pictures) >= 20
    assert all(picture.startswith(JPEG) for picture in pictures)
    assert len(set(pictures)) == len(pictures), "each is a new one"
    assert viewer.times[20] - viewer.times[0] == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize(("rate", "seconds"), [(1, 10.0), (10, 1.0)])
async def test_the_rate_is_the_viewers(site: Site, autojump_clock: MockClock, rate: int, seconds: float) -> None:
    """?fps=1 to 10, whatever the source makes."""
    viewer = Viewer(11)
    await viewer.watch(site, f"{LIVE}?fps={rate}", key=site.key("viewer")[1])
    assert viewer.times[10] - viewer.times[0] == pytest.approx(seconds, abs=0.15)


async def test_a_slow_source_gives_what_it_has(site: Site, autojump_clock: MockClock) -> None:
    """Two pictures a second stay two, none of them twice."""
    site.frames.rate = 2.0
    viewer = Viewer(5)
    reply = await viewer.watch(site, f"{LIVE}?fps=10", key=site.key("viewer")[1])
    assert viewer.times[4] - viewer.times[0] == pytest.approx(2.0, abs=0.1)
    assert len(set(reply.parts)) == len(reply.parts)


@pytest.mark.parametrize("fps", ["0", "11", "five", "", "-1", "2.5", "1e1", "5", "99999999999999999999"])
async def test_a_senseless_rate_is_400(site: Site, autojump_clock: MockClock, fps: str) -> None:
    """Whole numbers from 1 to 10 only (the Arabic-Indic five is not one)."""
    reply = await site.ask("GET", f"{LIVE}?fps={fps.replace('5', '%D9%A5') if fps == '5' else fps}", key=site.key()[1])
    assert (reply.status, reply.json["code"]) == (400, "invalid_params")
    assert "fps" in reply.json["detail"]
    assert not site.frames.watching


async def test_a_stalled_viewer_loses_pictures_and_delays_nobody(site: Site, autojump_clock: MockClock) -> None:
    """While one does not read, the other gets its five a second; the stalled one goes on with the newest."""
    _, key = site.key("viewer")
    stalled, lively = Reply(), Viewer(51)

    async def stall(reply: Reply) -> None:
        nonlocal stalled
        stalled = reply
        if len(reply.parts) == 3:
            await trio.sleep(9)

    async with trio.open_nursery() as nursery:

        async def hold() -> None:
            await site.ask("GET", LIVE, key=key, on_part=stall)

        nursery.start_soon(hold)
        await lively.watch(site, key=key)
        nursery.cancel_scope.cancel()
    assert lively.times[50] - lively.times[0] == pytest.approx(10.0, abs=0.3)
    numbers = [int(picture[len(JPEG) :]) for picture in read_pictures(stalled.body, "edged-picture")]
    assert numbers == sorted(set(numbers))
    assert numbers[2] - numbers[1] > 100, "the pictures of nine seconds are gone"


async def test_no_admission_is_left_afterwards(site: Site, autojump_clock: MockClock) -> None:
    """While the picture runs there is one admission on the camera's path; when the viewer goes, none."""
    seen: list[tuple[str, str]] = []

    async def look(_reply: Reply) -> None:
        seen.extend((admission.path, admission.transport) for admission in list(site.admissions))
        scope.cancel()

    with trio.CancelScope() as scope:
        await site.ask("GET", LIVE, key=site.key("viewer")[1], on_part=look)
    assert seen == [("camera0", "http")]
    assert len(site.admissions) == 0
    assert not site.frames.watching


async def test_revoking_the_key_ends_the_picture(site: Site, autojump_clock: MockClock) -> None:
    """At once, with a proper end of the answer, and its next question is refused."""
    key_id, key = site.key("viewer")
    ended = 0.0
    async with trio.open_nursery() as nursery:

        async def revoke() -> None:
            await trio.sleep(3.05)
            reply = await site.ask("DELETE", f"/api/keys/{key_id}", key=site.key()[1])
            assert reply.status == 200

        nursery.start_soon(revoke)
        began = trio.current_time()
        reply = await site.ask("GET", LIVE, key=key)
        ended = trio.current_time() - began
    assert reply.status == 200
    assert reply.complete
    assert ended == pytest.approx(3.05, abs=0.01)
    assert len(read_pictures(reply.body, "edged-picture")) >= 14
    assert len(site.admissions) == 0
    assert (await site.ask("GET", LIVE, key=key)).json["code"] == "revoked"


async def test_a_half_sent_part_gets_no_end(site: Site, autojump_clock: MockClock) -> None:
    """Cut off inside a part, nothing may follow: what would be the end of the answer would count as picture."""
    key_id, key = site.key("viewer")
    stalled = trio.Event()
    kept = Reply()

    async def stall(reply: Reply) -> None:
        nonlocal kept
        kept = reply
        if len(reply.parts) == 3:
            stalled.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await site.ask("GET", LIVE, key=key, on_part=stall)

        nursery.start_soon(watch)
        await stalled.wait()
        assert (await site.ask("DELETE", f"/api/keys/{key_id}", key=site.key()[1])).status == 200
    assert len(kept.parts) == 3
    assert not kept.complete
    assert len(site.admissions) == 0


async def test_expiry_ends_the_picture(site: Site, autojump_clock: MockClock) -> None:
    """A token of a minute shows a minute, and its picture ends by itself."""
    began = trio.current_time()
    site.clock._system = lambda: 1_800_000_000.0 + trio.current_time() - began
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.admissions.run)
        reply = await site.ask("GET", f"{LIVE}?fps=1", key=site.token("viewer", 60))
        nursery.cancel_scope.cancel()
    assert reply.complete
    assert trio.current_time() - began == pytest.approx(60, abs=1.1)


async def test_revoked_before_the_first_picture_is_401(site: Site, autojump_clock: MockClock) -> None:
    """Nothing has been sent yet, so it can still be said."""
    site.frames.delay = 5.0
    key_id, key = site.key("viewer")
    async with trio.open_nursery() as nursery:

        async def revoke() -> None:
            await trio.sleep(1)
            await site.ask("DELETE", f"/api/keys/{key_id}", key=site.key()[1])

        nursery.start_soon(revoke)
        reply = await site.ask("GET", LIVE, key=key)
    assert (reply.status, reply.json["code"]) == (401, "revoked")
    assert not site.frames.watching


async def test_no_picture_in_time_is_503(site: Site, autojump_clock: MockClock) -> None:
    """Before the head is sent, so a program can read why."""
    site.frames.delay, site.frames.until = 10.0, 0
    site.frames.ending = DependencyFailed("camera0 gives no picture", hint="look at its cable", camera="camera0")
    reply = await site.ask("GET", LIVE, key=site.key("viewer")[1])
    assert (reply.status, reply.json["code"]) == (503, "dependency_failed")
    assert "cable" in reply.json["detail"]
    assert len(site.admissions) == 0


async def test_a_source_that_ends_ends_the_picture(site: Site, autojump_clock: MockClock) -> None:
    """After the head an error can only be the end."""
    site.frames.until = 30
    site.frames.ending = DependencyFailed("camera0 was unplugged")
    reply = await site.ask("GET", LIVE, key=site.key("viewer")[1])
    assert reply.status == 200
    assert reply.complete
    assert len(read_pictures(reply.body, "edged-picture")) >= 9


async def test_an_exception_during_an_answer_closes_the_connection(site: Site, autojump_clock: MockClock) -> None:
    """It is logged, and the connection is not left as if the picture had ended well."""
    site.frames.until = 3
    site.frames.ending = RuntimeError("a mistake")
    reply = await site.ask("GET", LIVE, key=site.key("viewer")[1])
    assert reply.status == 200
    assert not reply.complete


async def test_a_disconnected_camera_is_503_at_once(site: Site, autojump_clock: MockClock) -> None:
    """Nobody waits ten seconds for a camera that is known to be away."""
    site.cameras.present = (Camera(name="camera0", label="dock", kind="usb", status=Status.DISCONNECTED),)
    began = trio.current_time()
    reply = await site.ask("GET", LIVE, key=site.key("viewer")[1])
    assert reply.status == 503
    assert "disconnected" in reply.json["detail"]
    assert trio.current_time() == began


async def test_who_may_see_which_camera(site: Site, autojump_clock: MockClock) -> None:
    """401 without a credential, 403 for who may see none, 404 for one that is not there for them."""
    assert (await site.ask("GET", LIVE)).status == 401
    assert (await site.ask("GET", LIVE, key=site.key("monitor")[1])).status == 403
    assert (await site.ask("GET", "/api/cameras/camera9/live.mjpeg", key=site.key("monitor")[1])).status == 403
    restricted = site.key("viewer", camera_access=("camera1",))[1]
    hidden = await site.ask("GET", LIVE, key=restricted)
    absent = await site.ask("GET", "/api/cameras/camera9/live.mjpeg", key=restricted)
    assert (hidden.status, hidden.json["code"]) == (absent.status, absent.json["code"]) == (404, "camera_not_found")
    assert hidden.body.replace(b"camera0", b"") == absent.body.replace(b"camera9", b"")
    streams = site.token("viewer", extra={"mediamtx_permissions": [{"action": "read", "path": "camera1"}]})
    assert (await site.ask("GET", LIVE, key=streams)).status == 404


@pytest.mark.parametrize("peer", [REMOTE, UNIX])
async def test_head_tells_the_same_without_a_picture(site: Site, autojump_clock: MockClock, peer: Peer) -> None:
    """HEAD starts no source; the socket of this machine needs no credential."""
    headers = {} if peer is UNIX else {"X-API-Key": site.key("viewer")[1]}
    reply = await site.ask("HEAD", LIVE, headers=headers, peer=peer)
    assert reply.status == 200
    assert reply.complete
    assert reply.body == b""
    assert reply.headers["content-type"].startswith("multipart/x-mixed-replace")
    assert (await site.ask("HEAD", LIVE)).status == 401
