"""One read of one client, however much is in it, lets the tasks of the others run in between."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from net_helpers import LIMITS, EchoSession, Served, connect, frame, open_raw, plain_app, read_reply, running, until
from patience import times
from rpc_helpers import Box
from starlette.requests import Request

from edged.credentials.callers import Peer
from edged.net import shares
from edged.net.pools import Member
from edged.net.websocket import WebSocket
from edged.web.bodies import read_body


class Turns:
    """How often a task that does nothing else got its turn."""

    def __init__(self) -> None:
        self.number = 0

    async def take(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.number += 1


@asynccontextmanager
async def bystander() -> AsyncIterator[Turns]:
    """Counts turns for as long as the block runs."""
    turns = Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.take)
        yield turns
        nursery.cancel_scope.cancel()


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the code under test each look at the clock takes a millisecond, so that a turn is a few messages."""
    tick = itertools.count()

    def now() -> float:
        return next(tick) / 1000

    for module in ("edged.net.websocket", "edged.rpc.session"):
        monkeypatch.setattr(f"{module}.perf_counter", now, raising=False)


PARTS = frame(b"a", fin=False) + frame(b"b", opcode=0)


@pytest.mark.usefixtures("slow_clock")
@pytest.mark.parametrize("message", [frame(b""), frame(b"x"), PARTS, frame(b"", opcode=9) + frame(b"x")])
async def test_many_small_frames_in_one_read_give_way(message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones, fragments, and pings in between."""
    number = 60000 // len(message) // 10
    marks: list[int] = []
    async with running(outbox_messages=10**6) as served, bystander() as turns:
        monkeypatch.setattr(EchoSession, "receive", lambda _self, _text: marks.append(turns.number))
        async with await open_raw(served.port) as stream:
            await stream.send_all(message * number)
            await until(lambda: len(marks) == number)
    assert len(set(marks)) > number / 20, "each turn is a few messages"


async def test_many_chunks_of_a_body_in_one_read_give_way() -> None:
    """A body of single bytes, and the answer is still the whole of it."""
    marks: list[int] = []
    async with bystander() as turns:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def noted() -> Any:
                marks.append(turns.number)
                return await receive()

            await plain_app(scope, noted, send)

        async with running(app) as served, await connect(served.port) as stream:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            await stream.send_all(head + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
            assert (await read_reply(stream))[1] == b"x" * 5000
    assert len(set(marks)) > 5000 / 64 / 2


#: Nearly a mebibyte whose nesting is expensive to find: a string of escaped quotes.
LONG = b'{"jsonrpc":"2.0","id":"long","method":"ping","params":["' + b"[" * 65 + b'\\"' * 524_000 + b'"]}'


async def test_a_long_message_gives_way_between_its_steps_and_what_comes_behind_it_waits() -> None:
    """A text of 1 MB is looked at in pieces of 64 KiB; a call in the same read is answered after it."""
    marks: list[int] = []
    async with trio.open_nursery() as nursery, bystander() as turns:
        box = Box(nursery)
        client = box.open()
        websocket = make_websocket([])

        def receive(text: bytes) -> Iterator[None]:
            for _step in client.rpc.receive(text) or ():
                marks.append(turns.number)
                yield

        cast(Any, websocket.session).receive = receive
        await take(websocket, frame(LONG) + frame(b'{"jsonrpc":"2.0","id":"short","method":"ping"}'))
        assert [answer["id"] for answer in client.outbox.take()] == ["long", "short"]
        nursery.cancel_scope.cancel()
    assert len(marks) >= len(LONG) // 65536
    assert len(set(marks)) > len(marks) / 2, "each step is a turn of its own"


async def test_a_long_body_gives_way_between_its_steps() -> None:
    """Before it is decoded."""

    async def receive() -> Any:
        return {"type": "http.request", "body": LONG}

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    async with bystander() as turns:
        assert await read_body(cast(Any, SimpleNamespace(http=request))) == LONG
        assert turns.number >= len(LONG) // 65536 / 2


@pytest.mark.usefixtures("slow_clock")
async def test_a_batch_gives_way_between_its_members() -> None:
    """Its answers come in one message, in their order."""
    async with trio.open_nursery() as nursery, bystander() as turns:
        box = Box(nursery)
        client, marks = box.open(), []
        note = box.counts.rpc_answered
        box.counts.rpc_answered = lambda *given: (marks.append(turns.number), note(*given))[1]  # type: ignore
        client.send([{"jsonrpc": "2.0", "method": "ping", "id": number} for number in range(50)])
        (answer,) = await client.outbox.wait()
        assert [member["id"] for member in answer] == list(range(50))
    assert len(set(marks)) >= 50 / 10


@pytest.mark.usefixtures("slow_clock")
async def test_the_batches_of_one_connection_have_their_turns_one_after_the_other() -> None:
    """Thirty of them at once hold the loop no longer than one, and none is lost."""
    async with trio.open_nursery() as nursery, bystander() as turns:
        box = Box(nursery)
        client, marks = box.open(), []
        note = box.counts.rpc_answered
        box.counts.rpc_answered = lambda *given: (marks.append(turns.number), note(*given))[1]  # type: ignore
        for batch in range(30):
            client.send([{"jsonrpc": "2.0", "method": "ping", "id": f"{batch}.{number}"} for number in range(50)])
            await trio.lowlevel.checkpoint()
        answers = await client.outbox.wait(30)
        nursery.cancel_scope.cancel()
    assert sorted(len(answer) for answer in answers) == [50] * 30
    assert max(marks.count(turn) for turn in set(marks)) < 25


# --- whatever the reads are, the messages are the same ----------------------------------------------------------------


class Pipe:
    """A stream that takes everything."""

    closed = False
    stalled_since = None

    def try_send(self, data: bytes) -> int:
        return len(data)


def make_websocket(received: list[bytes]) -> WebSocket:
    member = Member(Peer("main", "192.0.2.1", 1), "192.0.2.1")
    member.share = shares.Share(shares.Turns())
    websocket = WebSocket(
        cast(Any, Pipe()),
        LIMITS,
        cast(Any, Served()),
        lambda _work: None,
        0.0,
        identify=bool,
        hold=lambda _what, _size: True,
        member=member,
    )
    websocket.session = EchoSession(Served(), None, {}, None, websocket.outbox, None)  # type: ignore[arg-type]
    cast(Any, websocket.session).authenticated = True

    def receive_in_steps(text: bytes) -> Iterator[None]:
        yield
        yield
        received.append(text)

    def receive(text: bytes) -> Iterator[None] | None:
        return receive_in_steps(text) if len(text) > 65535 else received.append(text)  # type: ignore[func-returns-value]

    cast(Any, websocket.session).receive = receive
    return websocket


async def take(websocket: WebSocket, data: bytes) -> None:
    """As the reading task does."""
    head, websocket._head = websocket._head, b""
    await websocket._take_rest(head + data, 0)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [part for one, other in itertools.pairwise(places) if (part := data[one:other])]


TEXTS = st.sampled_from([b"", b"a", b"x" * 125, b"x" * 126, b"y" * 1000, b"z" * 65535, b"z" * 65536, b"z" * 70000])
SHAPES: list[Callable[[bytes], bytes]] = [
    frame,
    lambda text: frame(b"ping", opcode=9) + frame(text),
    lambda text: frame(text[:1], fin=False) + frame(b"", opcode=9) + frame(text[1:], opcode=0),
]


@settings(max_examples=times(150, least=25), deadline=None)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(SHAPES)), max_size=6), st.lists(st.integers(0, 2**20), max_size=12))
def test_messages_do_not_depend_on_how_they_are_read(messages: Any, cuts: list[int]) -> None:
    """Frames of every length, cut anywhere, come out as they were sent."""
    received: list[bytes] = []
    websocket = make_websocket(received)

    async def feed() -> None:
        for part in split(b"".join(shape(text) for text, shape in messages), cuts):
            await take(websocket, part)

    trio.run(feed)
    assert received == [text for text, _ in messages]
    assert not websocket.outbox.closed


@pytest.mark.parametrize("length", [125, 1000, 65000])
async def test_a_frame_above_the_limit_is_refused_however_it_is_read(length: int) -> None:
    """Alone in its read, behind another, or in two parts: 1009."""
    for data in ([frame(b"x" * length)], [frame(b"a") + frame(b"x" * length)], split(frame(b"x" * length), [100])):
        async with running(message_bytes=100) as served, await open_raw(served.port) as stream:
            await stream.send_all(frame(b"login"))
            await until(lambda sessions=served.sessions: sessions[0].authenticated)  # type: ignore[misc]
            for part in data:
                await stream.send_all(part)
                await trio.sleep(0.01)
            found = b""
            while not found.endswith(b"message too big") and b"\x03\xf1" not in found:
                chunk = await stream.receive_some()
                assert chunk, found
                found += chunk
            assert b"x" * length not in served.sessions[0].received


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
def test_a_payload_that_looks_like_a_frame_is_a_payload(cut: int) -> None:
    """The read ends behind a header, or within one, and the next begins as a whole text frame would."""
    inner = b"\x81\x83\x01\x01\x01\x01abc"
    received: list[bytes] = []
    websocket = make_websocket(received)
    # Masked with zeros, so that the payload is on the wire as it is.
    whole = b"\x81" + bytes([0x80 | len(inner)]) + b"\0\0\0\0" + inner

    async def feed() -> None:
        for part in (whole[:cut], whole[cut:]):
            await take(websocket, part)

    trio.run(feed)
    # 0x81 begins no UTF-8: the payload was taken for what it is, and refused.
    assert (received, websocket.outbox.closed) == ([], True)
