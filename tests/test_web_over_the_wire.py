"""The web application behind the real listener: real sockets, real heads, the kernel's word about who asks."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import h11
import msgspec
import pytest
import trio
from net_helpers import serve_unrestricted
from patience import fail_after
from web_helpers import JPEG, Site

from edged.library.snapshots import Snapshots
from edged.net.handlers import Handlers, OpenSession
from edged.net.listeners import open_all_tcp, open_unix

PICTURE = bytes(range(256)) * 20_000
LIVE = "/api/cameras/camera0/live.mjpeg"


def no_session(*_arguments: object) -> OpenSession:
    raise AssertionError("nobody speaks WebSocket here")


@asynccontextmanager
async def open_services(site: Site, folder: Path) -> AsyncIterator[tuple[int, Path]]:
    """The site on a free port of loopback and on a unix socket."""
    path = folder / "edged.sock"
    listeners = [*open_all_tcp("main", ["127.0.0.1:0"]), open_unix("unix", path)]
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_unrestricted, listeners, Handlers(site.app, cast(Any, no_session)))
        yield port, path
        nursery.cancel_scope.cancel()


@dataclass
class Got:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    #: Whether the answer ended as HTTP says, and not with the connection.
    complete: bool = False


class Client:
    """h11 on a trio stream: one request after the other."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._machine = h11.Connection(h11.CLIENT)
        self.got = Got()

    @classmethod
    async def to(cls, where: int | Path) -> Client:
        if isinstance(where, int):
            return cls(await trio.open_tcp_stream("127.0.0.1", where))
        return cls(await trio.open_unix_socket(where))

    async def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send one request."""
        self.got = Got()
        given = {"Host": "localhost", **(headers or {}), **({"Content-Length": str(len(body))} if body else {})}
        data = self._machine.send(h11.Request(method=method, target=target, headers=list(given.items())))
        data += self._machine.send(h11.Data(data=body)) if body else b""
        await self.stream.send_all(data + self._machine.send(h11.EndOfMessage()))

    async def read(self, least: int | None = None) -> Got:
        """The answer: all of it, or until `least` bytes of body have come."""
        while least is None or len(self.got.body) < least:
            try:
                event = self._machine.next_event()
            except h11.RemoteProtocolError:
                return self.got
            if event is h11.NEED_DATA:
                try:
                    self._machine.receive_data(await self.stream.receive_some(65536))
                except trio.BrokenResourceError:
                    return self.got
            elif isinstance(event, h11.Response):
                self.got.status = event.status_code
                self.got.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                self.got.body += event.data
            else:
                self.got.complete = isinstance(event, h11.EndOfMessage)
                if self.got.complete and self._machine.states[h11.SERVER] is h11.DONE:
                    self._machine.start_next_cycle()
                return self.got
        return self.got


async def fetch(
    where: int | Path, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Got:
    client = await Client.to(where)
    async with client.stream:
        await client.ask(method, target, headers, body)
        return await client.read()


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path, snapshots=Snapshots(tmp_path / "snapshots"))


@pytest.mark.skipif(os.getuid() != 0, reason="asks as root")
async def test_the_guides_lines_work_for_root(site: Site, tmp_path: Path) -> None:
    """Make, rotate, delete: the kernel says who asks; a proxy's header takes the word back."""
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, _):
            body = b'{"name": "Service Key", "role": "operator"}'
            made = await fetch(port, "POST", "/api/keys", {"Content-Type": "application/json"}, body)
            assert made.status == 201
            assert made.headers["cache-control"] == "no-store"
            key = msgspec.json.decode(bytes(made.body))
            rotated = await fetch(port, "POST", f"/api/keys/{key['key_id']}/rotate")
            assert rotated.status == 200
            proxied = await fetch(port, "GET", "/api/keys", {"X-Forwarded-For": "192.0.2.7"})
            assert proxied.status == 401
            assert (await fetch(port, "DELETE", f"/api/keys/{key['key_id']}")).status == 200


async def test_the_local_socket_speaks_http(site: Site, tmp_path: Path) -> None:
    """Without a credential: its file mode has decided."""
    with fail_after(30):
        async with open_services(site, tmp_path) as (_, path):
            assert (await fetch(path, "GET", "/api/keys")).status == 200
            assert (await fetch(path, "GET", "/metrics")).status == 200
            assert (await fetch(path, "GET", "/nothing")).status == 404


async def test_one_connection_asks_again_and_again(site: Site, tmp_path: Path) -> None:
    """Keep-alive, also behind refusals and HEAD."""
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, _):
            client = await Client.to(port)
            async with client.stream:
                for method, target, status in (
                    ("GET", "/health/live", 200),
                    ("GET", LIVE, 401),
                    ("HEAD", "/health/live", 200),
                    ("PUT", "/health/live", 405),
                    ("GET", "/nothing", 404),
                ):
                    await client.ask(method, target)
                    got = await client.read()
                    assert (got.status, got.complete) == (status, True)


async def test_a_revoked_viewer_sees_the_end_at_once(site: Site, tmp_path: Path) -> None:
    """The picture runs, the key is revoked, the answer ends as HTTP says; the same connection is then refused."""
    key_id, key = site.key("viewer")
    site.frames.rate = 100.0
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, path):
            client = await Client.to(port)
            async with client.stream:
                await client.ask("GET", f"{LIVE}?fps=10", {"X-API-Key": key})
                await client.read(least=3 * len(JPEG))
                assert (await fetch(path, "DELETE", f"/api/keys/{key_id}")).status == 200
                began = trio.current_time()
                got = await client.read()
                assert trio.current_time() - began < 5
                assert got.complete
                assert len(site.admissions) == 0
                await client.ask("GET", LIVE, {"X-API-Key": key})
                assert b'"revoked"' in (await client.read()).body


async def test_a_viewer_that_hangs_up_is_forgotten(site: Site, tmp_path: Path) -> None:
    """Its source stops, and nobody is inside."""
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, _):
            client = await Client.to(port)
            await client.ask("GET", LIVE, {"X-API-Key": site.key("viewer")[1]})
            await client.read(least=1)
            assert site.frames.watching == ["camera0"]
            await client.stream.aclose()
            while site.frames.watching or len(site.admissions):
                await trio.sleep(0.01)


async def test_a_stalled_viewer_is_cut_off_when_it_is_revoked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a part: no false end, the connection is closed, and others go on meanwhile."""
    monkeypatch.setattr("web_helpers.JPEG", PICTURE)
    site.frames.rate = 100.0
    key_id, key = site.key("viewer")
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, path):
            raw = trio.socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await raw.connect(("127.0.0.1", port))
            client = Client(trio.SocketStream(raw))
            async with client.stream:
                await client.ask("GET", f"{LIVE}?fps=10", {"X-API-Key": key})
                await client.read(least=1)
                await trio.sleep(0.5)
                assert (await fetch(path, "DELETE", f"/api/keys/{key_id}")).status == 200
                assert len(site.admissions) == 0
                got = await client.read()
                assert not got.complete
            while site.frames.watching:
                await trio.sleep(0.01)


async def test_a_kept_picture_comes_whole(site: Site, tmp_path: Path) -> None:
    """Five megabytes and a range of them."""
    await site.services.snapshots.save("big.jpg", "camera0", PICTURE, "jpg", 1_800_000_000.0)
    headers = {"Authorization": f"Bearer {site.token('viewer')}"}
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, _):
            whole = await fetch(port, "GET", "/files/snapshots/big.jpg", headers)
            assert (whole.status, whole.complete, bytes(whole.body) == PICTURE) == (200, True, True)
            part = await fetch(port, "GET", "/files/snapshots/big.jpg", {**headers, "Range": "bytes=100-199"})
            assert (part.status, bytes(part.body)) == (206, PICTURE[100:200])


async def test_a_body_that_is_too_long_is_413(site: Site, tmp_path: Path) -> None:
    """Before anybody reads it; and half a body that stays away is nobody's key."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {site.token()}"}
    with fail_after(30):
        async with open_services(site, tmp_path) as (port, _):
            client = await Client.to(port)
            async with client.stream:
                head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                await client.stream.send_all(
                    f"POST /api/keys HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 2000000\r\n\r\n".encode()
                )
                assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 413")
            client = await Client.to(port)
            async with client.stream:
                await client.stream.send_all(
                    f"POST /api/keys HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 44\r\n\r\n{{".encode()
                )
            assert (await fetch(port, "GET", "/health/live")).status == 200
    assert not site.ledger.keys
