"""Pools of connections that cannot fill each other, shares by place and by credential, and what a stranger may hold."""

from __future__ import annotations

import errno
import gc
import math
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import RunningDaemon, make_config, running_daemon
from msgspec.structs import replace
from net_helpers import GET_X as GET
from net_helpers import (
    LIMITS,
    ask,
    close_code,
    connect,
    frame,
    frames_in,
    open_raw,
    opened,
    plain_app,
    read_all,
    read_reply,
    running,
    until,
)
from patience import fail_after
from structlog.testing import capture_logs
from trio_websocket import ConnectionClosed
from websockets.server import ServerProtocol

from edged import descriptors, memory
from edged.access.admissions import Admission
from edged.config.model import LimitSettings
from edged.credentials.callers import Caller, Peer, TokenFacts
from edged.daemon import listeners
from edged.net import pools
from edged.net.connection import Connection
from edged.net.listeners import Listener, open_tcp, open_unix
from edged.net.outbox import WebSocketOutbox
from edged.net.pools import SIZES, Member, Pools
from edged.net.websocket import WebSocket
from edged.operations.caller_sessions import Session
from edged.rpc.session import RpcSession


def fill(found: Pools, peer: Peer, number: int) -> list[Member]:
    """So many more connections of this peer."""
    members = []
    for _ in range(number):
        place = pools.place_of_peer(peer, socket.AF_INET if peer.address else socket.AF_UNIX)
        assert found.find_full(peer, place) is None
        members.append(Member(peer, place))
        found.add(members[-1])
    return members


def test_neighbours_of_an_ipv6_network_share_a_place() -> None:
    """Whoever has a /64 has 2**64 addresses; it is one neighbour as an IPv4 address is."""
    found = Pools(LIMITS)
    for number in range(32):
        fill(found, Peer("main", f"2001:db8:1:2::{number:x}"), 1)
    full = found.find_full(Peer("main", "2001:db8:1:2:ffff::1"), "2001:db8:1:2::/64")
    assert full is not None
    assert full.status == 429
    assert "2001:db8:1:2::/64" in full.detail
    assert "loopback is exempt" in full.detail
    assert "trusted_proxies" in full.detail
    fill(found, Peer("main", "2001:db8:1:3::1"), 1)


def test_a_credential_has_so_many_connections() -> None:
    """The next one is refused, another credential is not, and whoever leaves makes room."""
    found = Pools(replace(LIMITS, connections_per_credential=2))
    members = fill(found, Peer("main", "192.0.2.1"), 4)
    assert [found.identify(each, "api_key:a") for each in members] == [True, True, False, False]
    assert found.identify(members[2], "api_key:b")
    found.remove(members[0])
    assert found.identify(members[3], "api_key:a")
    assert found.identify(members[3], "api_key:a")


def test_nobody_fills_the_pool_of_another() -> None:
    """The network's is full: the unix socket, the local listener and the key set's go on."""
    found = Pools(replace(LIMITS, connections=8))
    fill(found, Peer("main", "127.0.0.1"), 5)
    fill(found, Peer("compat", "127.0.0.1"), 3)
    assert found.find_full(Peer("main", "192.0.2.1"), "192.0.2.1") is not None
    for name in ("local", "tokens"):
        fill(found, Peer(name, "127.0.0.1"), SIZES[name])
        assert found.find_full(Peer(name, "127.0.0.1"), "127.0.0.1") is not None
    fill(found, Peer("unix", uid=1000), 48)
    assert found.find_full(Peer("unix", uid=1000), "uid 1000") is not None, "one administrator's"
    fill(found, Peer("unix", uid=0), 16)


@pytest.mark.parametrize(
    ("caller", "account"),
    [
        (Caller("api_key", "ann", frozenset(), frozenset(), credential_id="k1"), "api_key:k1"),
        (Caller("peercred", "local:0", frozenset(), frozenset(), credential_id="local:0"), ""),
        (
            Caller("jwt_local", "ann", frozenset(), frozenset(), token=TokenFacts(claims={"iss": "edged"})),
            "jwt_local:edged:ann",
        ),
        (
            Caller("ticket", "x", frozenset(), frozenset(),
                   parent=Caller("api_key", "ann", frozenset(), frozenset(), credential_id="k1")),
            "api_key:k1",
        ),
    ],
)  # fmt: skip
def test_tokens_count_by_their_subject_and_tickets_by_their_maker(caller: Caller, account: str) -> None:
    """Nobody has more connections by having more tokens."""
    assert caller.account == account


async def test_the_network_full_of_connections_keeps_nobody_from_the_unix_socket(tmp_path: Path) -> None:
    """Also not from numbers."""
    listeners = [
        open_tcp("main", "127.0.0.1:0"), open_unix("unix", tmp_path / "edged.sock"), open_tcp("local", "127.0.0.1:0")
    ]  # fmt: skip
    async with running(listeners=listeners, connections=2) as served:
        crowd = [await connect(served.port) for _ in range(2)]
        await until(lambda: served.server.connections == 2)
        assert (await ask(served.port, GET)).startswith(b"HTTP/1.1 503 ")
        async with await trio.open_unix_socket(str(tmp_path / "edged.sock")) as local:
            await local.send_all(GET)
            assert (await read_reply(local))[1] == b"hello"
        async with await connect(listeners[2].port) as metrics:
            await metrics.send_all(GET)
            assert (await read_reply(metrics))[1] == b"hello"
        for each in crowd:
            await each.aclose()


async def test_a_websocket_over_the_share_of_its_credential_is_closed_1013() -> None:
    """Those that are there already are not disturbed."""
    async with running(connections_per_credential=1) as served, opened(served) as first, opened(served) as second:
        await first.send_message("login")
        assert await first.get_message() == "welcome"
        await second.send_message("login")
        with pytest.raises(ConnectionClosed) as closed:
            await second.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1013
        await first.send_message("again")
        await first.get_message()


async def test_of_the_websockets_over_the_share_of_a_credential_only_a_few_wait_for_their_clients() -> None:
    """Each is told 1013. A client that never closes would otherwise keep a place of the network for five seconds."""
    async with running(connections_per_credential=1) as served, opened(served) as first, AsyncExitStack() as stack:
        await first.send_message("login")
        assert await first.get_message() == "welcome"
        clients = [await stack.enter_async_context(await open_raw(served.port)) for _ in range(pools._TURNED_AWAY + 4)]
        for client in clients:
            await client.send_all(frame(b"login"))
            assert close_code(await client.receive_some(200)) == 1013
        for client in clients[pools._TURNED_AWAY :]:
            assert await client.receive_some(200) == b""
        await until(lambda: served.server.connections == 1 + pools._TURNED_AWAY)
        for client in clients[: pools._TURNED_AWAY]:
            await client.aclose()
        await until(lambda: served.server.connections == 1)
        async with opened(served) as next_one:
            await next_one.send_message("login")
            with pytest.raises(ConnectionClosed):
                await next_one.get_message()


async def test_many_that_are_turned_away_are_a_line_a_minute() -> None:
    """The first five are written as they come."""
    with capture_logs() as log:
        async with running(connections=1) as served:
            first = await connect(served.port)
            await until(lambda: served.server.connections == 1)
            for _ in range(12):
                assert (await ask(served.port, b"")).startswith(b"HTTP/1.1 503 ")
            await first.aclose()
    lines = [line for line in log if line["event"] == "connection_refused"]
    assert [line["times"] for line in lines] == [1, 1, 1, 1, 1, 7]
    assert {line["address"] for line in lines} == {"127.0.0.1"}


class Exhausted:
    """A listening socket whose accept fails for want of descriptors so many times."""

    def __init__(self, real: socket.socket, times: int) -> None:
        self._real, self.times, self.family = real, times, real.family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def accept(self) -> Any:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._real.accept()


async def test_without_a_descriptor_strangers_give_way_to_the_unix_socket(tmp_path: Path) -> None:
    """They can come again; whoever has authenticated stays, and the log is not filled."""
    local = open_unix("unix", tmp_path / "edged.sock")
    short = Listener("unix", Exhausted(local.socket, 8), local.path)  # type: ignore[arg-type]
    with capture_logs() as log:
        async with running(listeners=[open_tcp("main", "127.0.0.1:0"), short]) as served, opened(served) as known:
            await known.send_message("login")
            await known.get_message()
            strangers = [await connect(served.port) for _ in range(3)]
            await until(lambda: served.server.connections == 4)
            async with await trio.open_unix_socket(str(tmp_path / "edged.sock")) as admin:
                await admin.send_all(GET)
                assert (await read_reply(admin))[1] == b"hello"
            for each in strangers:
                assert await read_all(each) == b""
                await each.aclose()
            await known.send_message("still here")
            await known.get_message()
    assert [line["times"] for line in log if line["event"] == "accept_failed"] == [1, 1, 1, 1, 1, 3]


def test_fewer_descriptors_are_fewer_connections_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how many there are and where to get more."""
    monkeypatch.setattr(descriptors, "raise_limit", lambda: 1024)
    with capture_logs() as log:
        assert listeners.fit_limits(LimitSettings()).connections == 512
        assert listeners.fit_limits(LimitSettings(connections=100)).connections == 100
    (line,) = log
    assert (line["event"], line["connections"], line["wanted"]) == ("connections_limited", 512, 2048)
    assert "LimitNOFILE" in line["remedy"]


# -- what a stranger may hold ------------------------------------------------------------------------------------------


async def after_login(scope: Any, receive: Any, send: Any) -> None:
    """An app that knows everybody who asks at /known before it reads."""
    if scope["path"] == "/known":
        assert scope["edged.authenticated"]("api_key:somebody")
    await plain_app(scope, receive, send)


@pytest.mark.parametrize("body", ["declared", "chunked"])
async def test_a_strangers_body_has_at_most_16_kib(body: str) -> None:
    """More is refused before it is held; whoever has shown a credential may send the whole limit."""
    for path, status in ((b"/", b"413"), (b"/known", b"200")):
        async with running(after_login) as served, await connect(served.port) as stream:
            head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            piece = b"x" * 20_000
            if body == "declared":
                sent = head + b"Content-Length: 20000\r\n\r\n" + piece
            else:
                sent = head + b"Transfer-Encoding: chunked\r\n\r\n4e20\r\n" + piece + b"\r\n0\r\n\r\n"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, sent)
                assert (await read_all(stream)).startswith(b"HTTP/1.1 " + status)


async def test_a_strangers_body_has_a_deadline_for_the_whole() -> None:
    """A byte now and then does not keep it alive."""
    async with running(head_seconds=0.3) as served, await connect(served.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        answer: list[bytes] = []

        async def hear() -> None:
            answer.append(await read_all(stream))
            nursery.cancel_scope.cancel()

        with fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear)
                while True:
                    await trio.sleep(0.1)
                    await stream.send_all(b"x")
        assert answer[0].startswith(b"HTTP/1.1 408 ")


async def test_a_strangers_half_message_has_a_deadline_for_the_whole() -> None:
    """1008; somebody idle who pings stays, as a page does that waits for its user."""
    whole = frame(b"x" * 1000)
    async with running(head_seconds=0.3) as served, await open_raw(served.port) as slow, opened(served) as idle:
        answer = b""
        with fail_after(10):
            for at in range(len(whole) - 1):
                try:
                    await slow.send_all(whole[at : at + 1])
                except trio.BrokenResourceError:
                    break
                with trio.move_on_after(0.1):
                    answer += (piece := await slow.receive_some())
                    if not piece or close_code(answer):
                        break
        assert close_code(answer) == 1008
        await idle.send_message("still here")
        await idle.get_message()


# -- a trusted proxy's clients -----------------------------------------------------------------------------------------


async def test_a_trusted_proxys_clients_are_told_apart() -> None:
    """Each has a share of its own; the proxy itself is not counted, and who is no proxy is not believed."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["edged.peer"])
        await plain_app(scope, receive, send)

    def get(forwarded: bytes) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + forwarded + b"\r\n\r\n"

    async with running(app, unauthenticated_per_address=2, is_proxy=lambda address: address == "127.0.0.1") as served:
        streams = [await connect(served.port) for _ in range(4)]
        for stream, client in zip(
            streams, (b"192.0.2.7", b"6.6.6.6, 192.0.2.7", b"192.0.2.7", b"192.0.2.8"), strict=True
        ):
            await stream.send_all(get(client))
        statuses = [(await read_reply(stream))[0].split()[1] for stream in streams]
        assert statuses == [b"200", b"200", b"429", b"200"]
        assert {(peer.address, peer.proxy) for peer in seen} == {
            ("192.0.2.7", "127.0.0.1"), ("192.0.2.8", "127.0.0.1")
        }  # fmt: skip
        for stream in streams:
            await stream.aclose()
    seen.clear()
    async with running(app) as served, await connect(served.port) as stream:
        await stream.send_all(get(b"192.0.2.7"))
        await read_reply(stream)
    assert [(peer.address, peer.proxy) for peer in seen] == [("127.0.0.1", "")]


# -- the whole daemon --------------------------------------------------------------------------------------------------


@pytest.fixture
async def small_daemon(tmp_path: Path) -> Any:
    """A daemon with places for a few."""
    config = make_config(tmp_path, cameras=0)
    limits = type(config.limits)(connections=6, connections_per_credential=4)
    config = type(config)(
        paths=config.paths, listen=config.listen, auth=config.auth, mediamtx=config.mediamtx, limits=limits
    )
    async with running_daemon(tmp_path, config=config) as daemon:
        yield daemon


async def test_what_a_connection_took_is_free_when_it_ends(small_daemon: RunningDaemon) -> None:
    """No garbage collector is needed: an attacker's dead connections would pile up until it runs."""
    kinds = (Connection, RpcSession, Session, Admission, ServerProtocol, WebSocket, WebSocketOutbox)

    def count() -> int:
        """Those that the garbage collector has not come for stand in its list, too."""
        return sum(isinstance(each, kinds) for each in gc.get_objects())

    _, secret = await small_daemon.create_key()
    gc.collect()
    before = count()
    gc.disable()
    try:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(small_daemon.websocket())
            await client.call("authenticate", auth_token=secret)
            await client.call("get_camera_list")
            plain = await stack.enter_async_context(await connect(small_daemon.port))
            await plain.send_all(f"GET /api/keys HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\n\r\n".encode())
            await read_reply(plain)
            assert count() >= before + 2
        await until(lambda: count() == before, 10)
    finally:
        gc.enable()


async def test_one_viewers_key_cannot_keep_root_from_revoking_it(small_daemon: RunningDaemon) -> None:
    """As many connections as it gets, and strangers in all the other places: the unix socket answers."""
    key_id, secret = await small_daemon.create_key()
    async with AsyncExitStack() as stack:
        for number in range(7):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", small_daemon.port))
            if number < 5:
                await stream.send_all(
                    f"GET /api/keys/{key_id} HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\n\r\n".encode()
                )
                head = (await stream.receive_some(65536)).partition(b"\r\n")[0]
                assert head.split()[1] == (b"429" if number == 4 else b"200")
        with fail_after(5):
            await small_daemon.revoke_key(key_id)


@dataclass
class Heap:
    """A process whose memory a test sets; `free` of it can be given back."""

    held: int = 40 << 20
    free: int = 0
    times: int = 0

    def give_back(self) -> None:
        self.held, self.free, self.times = self.held - self.free, 0, self.times + 1


@pytest.fixture
def heap(monkeypatch: pytest.MonkeyPatch) -> Heap:
    found = Heap()
    monkeypatch.setattr(memory, "resident", lambda: found.held)
    monkeypatch.setattr(memory, "give_back", found.give_back)
    return found


def test_memory_is_given_back_when_a_burst_is_over_however_long_it_took(heap: Heap) -> None:
    """While it lasts nothing is free, and it is tried less often, but every 20 s."""
    bursts = memory.Bursts()
    heap.held += 20 << 20
    now = 0.0
    for pause in (20.0, 20.0, 20.0):
        assert bursts.wait_for(now) == 0.0
        bursts.give_back(now)
        assert bursts.wait_for(now) == pause
        now += pause
    heap.free = 20 << 20
    bursts.give_back(now)
    assert heap.held == 40 << 20
    assert bursts.wait_for(now) == math.inf
    heap.held += 20 << 20
    assert bursts.wait_for(now) == memory.FIRST_PAUSE


def test_a_little_more_memory_is_no_reason_to_look_through_it(heap: Heap) -> None:
    bursts = memory.Bursts()
    heap.held += memory.GROWN - 1
    assert bursts.wait_for(0.0) == math.inf


async def test_memory_is_given_back_also_when_everybody_has_left(heap: Heap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FIRST_PAUSE", 0.05)
    async with running(head_seconds=0.2) as served:
        for number in range(1, 3):
            client = await connect(served.port)
            heap.held += 20 << 20
            await until(lambda number=number: heap.times >= number)  # type: ignore[misc]
            await client.aclose()
            await until(lambda: served.server.connections == 0)
            heap.free = 20 << 20
            await until(lambda: heap.held == 40 << 20)


def test_what_lies_between_what_lives_on_is_given_back() -> None:
    """With a glibc; elsewhere it is nothing, and nothing is raised."""
    blocks = [bytes(2000) for _ in range(20_000)]
    kept = blocks[::50]
    before = memory.resident()
    del blocks
    memory.give_back()
    if memory._find_trim() is not None:
        assert before - memory.resident() > 20 << 20
    memory.give_back()
    assert len(kept) == 400


# -- what one credential may have held for it --------------------------------------------------------------------------


def test_bytes_that_wait_are_counted_by_credential() -> None:
    """Four longest messages together; who leaves, or shows another credential, takes theirs along."""
    found = Pools(LIMITS)
    members = fill(found, Peer("main", "192.0.2.1"), 3)
    whole = LIMITS.message_bytes
    for member in members[:2]:
        assert found.identify(member, "api_key:a")
        assert found.hold(member, 2 * whole)
    assert found.identify(members[2], "api_key:b")
    assert found.hold(members[2], 2 * whole)
    assert not found.hold(members[0], 2 * whole + 1)
    assert found.hold(members[0], whole)
    assert found.identify(members[1], "api_key:b")
    assert not found.hold(members[2], 2 * whole + 1)
    assert found.hold(members[0], 4 * whole)
    for member in members:
        found.remove(member)
    assert found._held == {}


async def test_many_half_messages_of_one_credential_are_not_kept() -> None:
    """Each may be a MiB, not all of them at once: 1013 for who comes too late, and those before are not disturbed."""
    half = frame(b" " * 100_000, fin=False)
    async with running(message_bytes=100_000) as served, AsyncExitStack() as stack:
        clients = []
        for _ in range(6):
            client = await stack.enter_async_context(await open_raw(served.port))
            await client.send_all(frame(b"login"))
            assert frames_in(await client.receive_some(1000)) == [(1, b"welcome")]
            clients.append(client)
            await client.send_all(half)
        with fail_after(10):
            for client in clients[4:]:
                assert close_code(await client.receive_some(1000)) == 1013
            for client in clients[:4]:
                await client.send_all(frame(b"", opcode=0))
                assert len(await client.receive_some(1_000)) > 0


async def test_many_long_bodies_of_one_credential_are_not_kept() -> None:
    """429 for who comes too late; the bodies before are answered."""
    async with running(after_login, message_bytes=100_000) as served, AsyncExitStack() as stack:
        head = b"POST /known HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
        streams = []
        for number in range(5):
            stream = await stack.enter_async_context(await connect(served.port))
            await stream.send_all(head + b"x" * 99_000)
            streams.append(stream)
            if number < 4:
                await trio.sleep(0.1)
        with fail_after(10):
            assert (await read_reply(streams[4]))[0].startswith(b"HTTP/1.1 429 ")
            for stream in streams[:4]:
                await stream.send_all(b"x" * 1000)
                assert (await read_reply(stream))[0].startswith(b"HTTP/1.1 200 ")
