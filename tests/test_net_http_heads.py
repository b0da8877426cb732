"""What RFC 9112 says of the lines of a head, of targets that are whole URLs, and of clients that end their own side."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from net_helpers import UPGRADE, ask, connect, read_all, read_reply, running, until
from patience import fail_after, times

from edged.net.head_lines import HeadLines

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


# --- one empty line before a request line (RFC 9112 2.2) --------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"\r\n" + LAST, POST + b"\r\n" + LAST, POST + b"\r\n" + GET + b"\r\n" + LAST, GET + b"\r\n" + POST + LAST]
)
async def test_a_crlf_before_a_request_line_is_ignored(data):
    """The first request's and a pipelined one's, as some old clients send it behind a body."""
    async with running() as served:
        reply = await ask(served.port, data)
    assert reply.count(b"HTTP/1.1 200 ") == data.count(b"HTTP/1.1\r\n") == len(served.scopes)


@settings(max_examples=times(25, least=25), deadline=None)
@given(st.lists(st.integers(1, 80), max_size=4))
def test_where_the_reads_fall_does_not_matter(cuts):
    """The CR may come alone, and the empty line long before its request."""
    data = b"\r\n" + POST + b"\r\n" + LAST
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})

    async def send() -> bytes:
        async with running() as served, await connect(served.port) as stream:
            for one, other in itertools.pairwise(places):
                await stream.send_all(data[one:other])
                await trio.sleep(0.002)
            return await read_all(stream)

    assert trio.run(send).count(b"HTTP/1.1 200 ") == 2


async def test_a_crlf_alone_leaves_a_kept_connection_idle():
    """It is the end of the request before, and no beginning of a late one: no 408."""
    async with running(head_seconds=0.2, keep_alive_seconds=30) as served, await connect(served.port) as stream:
        await stream.send_all(POST + b"\r\n")
        assert (await read_reply(stream))[1] == b"hi"
        await trio.sleep(0.5)
        await stream.send_all(GET)
        assert (await read_reply(stream))[1] == b"hello"


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n"]), max_size=30), st.lists(st.integers(0, 60), max_size=6))
def test_the_lines_of_a_head_are_the_same_however_it_is_read(parts, cuts):
    """Their number, whether one ends in LF alone, and where the head ends."""
    data = b"".join(parts)
    lines = HeadLines()
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    for one, other in itertools.pairwise(places):
        lines.feed(data[one:other])
    head, end, _ = data.partition(b"\r\n\r\n")
    assert (lines.number, lines.is_whole) == ((head + end).count(b"\n"), bool(end))
    assert lines.is_bare == (b"\n" in (head + end).replace(b"\r\n", b""))


@pytest.mark.parametrize(
    "data",
    [
        LAST.replace(b"\r\n", b"\n"),
        LAST.replace(b"1.1\r\n", b"1.1\n"),
        LAST.replace(b"a\r\n", b"a\n"),
        LAST.replace(b"close\r\n", b"close\n"),
        LAST.replace(b"\r\n\r\n", b"\r\n\n"),
        b"\n" + LAST,
        GET + LAST.replace(b"a\r\n", b"a\n"),
    ],
)
async def test_a_line_that_ends_in_lf_alone_is_refused(data):
    """Another reader in front may take what follows for another request: 400, and the connection ends."""
    async with running() as served:
        reply = await ask(served.port, data)
    first = data.startswith(GET)
    assert len(served.scopes) == first
    assert reply[reply.index(b"HTTP/1.1", first) :].startswith(b"HTTP/1.1 400 ")


# --- whole URLs (RFC 9112 3.2.2) --------------------------------------------------------------------------------------


async def test_the_authority_of_a_whole_url_is_the_host_whatever_host_says():
    """One Host reaches the app and the session of a WebSocket."""
    async with running() as served:
        await ask(served.port, b"GET http://box:1/x?y HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        (scope,) = served.scopes
        assert (scope["path"], scope["query_string"], scope["edged.peer"].host) == ("/x", b"y", "box")
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"box:1"]
        async with await connect(served.port) as stream:
            await stream.send_all(UPGRADE.replace(b"GET /ws", b"GET http://box/ws"))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        assert served.sessions[0].headers["host"] == "box"
        assert served.sessions[0].peer.host == "box"


# --- a client that has ended its own side -----------------------------------------------------------------------------


async def stream_forever(_scope, _receive, send):
    """Parts, a few milliseconds apart."""
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await trio.sleep(0.01)


async def test_a_stream_goes_on_for_a_half_closed_client_and_ends_when_it_is_gone():
    """`nc -N` and tools like it send a request, end their side, and read."""
    async with running(stream_forever, head_seconds=0.4) as served:
        async with await connect(served.port) as stream:
            await stream.send_all(GET)
            await stream.send_eof()
            found = b""
            with trio.move_on_after(1.5):  # the watcher looks several times
                while chunk := await stream.receive_some():
                    found += chunk
            assert found.count(b"part") > 20
            assert served.server.connections == 1
        await until(lambda: served.server.connections == 0)


async def test_an_app_that_is_about_to_stream_can_keep_a_half_closed_client():
    """The first part may take longer than the watcher's pause."""

    async def app(scope, receive, send):
        scope["edged.serve_half_closed"]()
        await trio.sleep(0.6)
        await stream_forever(scope, receive, send)

    async with running(app, head_seconds=0.4) as served:
        async with await connect(served.port) as stream:
            await stream.send_all(GET)
            await stream.send_eof()
            with fail_after(5):
                assert b"200" in await stream.receive_some()
        await until(lambda: served.server.connections == 0)


# --- bodies that nobody reads -----------------------------------------------------------------------------------------


async def test_an_unread_body_in_many_chunks_costs_the_connection():
    """Only a small one is read so that the connection can go on; this one would hold the loop."""

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"no"})

    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running(app) as served:
        few = await ask(served.port, chunked + b"1\r\nx\r\n" * 10 + b"0\r\n\r\n" + LAST)
        many = await ask(served.port, chunked + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n" + LAST)
    assert (few.count(b"HTTP/1.1 200 "), many.count(b"HTTP/1.1 200 ")) == (2, 1)
