"""HTTP on a connection: what clients send, well or badly, what apps do, and how each thing ends."""

from __future__ import annotations

import json
import socket
import struct

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from net_helpers import ask, connect, plain_app, read_all, read_reply, running, until
from patience import fail_after, times
from structlog.testing import capture_logs

from edged.net.http_heads import BadHead, host_of, target_of
from edged.net.http_replies import fault_bytes

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def log():
    """What was logged; a test that expects an incident takes it out."""
    with capture_logs() as lines:
        yield lines
    assert not [line for line in lines if line["log_level"] == "error"], lines


async def test_a_kept_alive_connection_answers_again_and_again():
    """Replies carry Date and Content-Length and leave the connection open."""
    async with running() as served, await connect(served.port) as stream:
        for _ in range(3):
            await stream.send_all(GET)
            head, body = await read_reply(stream)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\ndate: " in head.lower()
            assert b"connection: close" not in head.lower()
            assert body == b"hello"


async def test_pipelined_requests_are_answered_in_order():
    """Three requests in one packet, one of them with a body."""
    async with running() as served:
        post = b"POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        reply = await ask(served.port, GET + post + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        bodies = [part.partition(b"\r\n\r\n")[2] for part in reply.split(b"HTTP/1.1 ")[1:]]
        assert bodies == [b"hello", b"abc", b"hello"]


async def test_the_scope_says_who_asks_and_what():
    """The ASGI scope, the peer, and the host of the Host header, or of the target where that is a whole URL."""
    async with running() as served:
        await ask(served.port, b"GET /a%20b?q=1%202 HTTP/1.0\r\nHost: box.local:8002\r\nX-A: 1\r\n\r\n")
        await ask(served.port, b"GET http://other/abs?z HTTP/1.0\r\nHost: [::1]:8002\r\n\r\n")
        await ask(served.port, b"OPTIONS * HTTP/1.0\r\nHost: not a host\r\n\r\n")
        await ask(served.port, b"GET / HTTP/1.0\r\n\r\n")
    first, second, third, fourth = served.scopes
    assert (first["path"], first["raw_path"], first["query_string"]) == ("/a b", b"/a%20b", b"q=1%202")
    assert (first["type"], first["method"], first["http_version"], first["scheme"]) == ("http", "GET", "1.0", "http")
    assert (b"x-a", b"1") in first["headers"]
    assert (first["edged.peer"].host, first["edged.peer"].address, first["edged.peer"].listener) == (
        "box.local",
        "127.0.0.1",
        "main",
    )
    assert first["client"] == ("127.0.0.1", first["edged.peer"].port)
    assert (second["path"], second["query_string"], second["edged.peer"].host) == ("/abs", b"z", "other")
    assert [value for name, value in second["headers"] if name == b"host"] == [b"other"]
    assert (third["path"], third["edged.peer"].host, fourth["edged.peer"].host) == ("*", "127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x00\x01\x02", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70000, b"431"),
        (b"GET /" + b"y" * 17000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET http://user:word@a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\nHost: a\n\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\n\r\n\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x:\r\n" * 128 + b"\r\n", b"431"),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", b"426"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", b"413"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", b"4"),
    ],
)
async def test_a_bad_request_gets_a_clear_status_and_the_end(data, status):
    """Half heads, smuggling tricks, huge heads: a JSON refusal with its status, and the connection ends."""
    async with running() as served, await connect(served.port) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        with fail_after(10):
            reply = await read_all(stream)
        assert reply.startswith(b"HTTP/1.1 " + status), reply
        assert b"connection: close" in reply.lower()
        if not data.startswith(b"HEAD"):
            assert set(json.loads(reply.partition(b"\r\n\r\n")[2])) == {"error", "detail", "code"}


async def test_a_request_with_two_lengths_is_refused_and_what_follows_is_no_request():
    """RFC 9112 6.1: Content-Length beside Transfer-Encoding may be smuggling; the connection ends."""
    async with running() as served:
        reply = await ask(
            served.port,
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        )
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert reply.count(b"HTTP/1.1 ") == 1
        assert not served.scopes


async def test_the_rest_of_a_refused_request_is_read_so_that_the_refusal_arrives():
    """Closing with unread bytes would reset the connection and lose the 413."""
    async with running() as served, await connect(served.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            await stream.send_all(b"x" * 100000)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 413 ")
        assert served.sessions == []


@pytest.mark.parametrize("reads", [True, False])
async def test_a_body_that_is_not_chunked_as_said_is_no_incident(reads):
    """400 whatever an app makes of exceptions; one that does not read is not disturbed, but the connection ends."""

    async def app(scope, receive, send):
        try:
            await (plain_app if reads else refuse)(scope, receive, send)
        except Exception:
            await refuse(scope, receive, send)
            raise

    async with running(app) as served:
        reply = await ask(served.port, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert reply.startswith(b"HTTP/1.1 400 " if reads else b"HTTP/1.1 401 ")
        assert b"connection: close" in reply.lower()


async def test_an_upgrade_that_we_do_not_know_is_an_ordinary_request():
    """curl offers h2c; it gets its answer over HTTP/1.1, and the connection goes on."""
    async with running() as served, await connect(served.port) as stream:
        for _ in range(2):
            await stream.send_all(GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"))
            assert (await read_reply(stream))[1] == b"hello"


@pytest.mark.parametrize("polite", [True, False])
async def test_a_chunked_body_over_the_limit_is_413(polite):
    """The length need not be declared to be limited, and the app never sees the end of it."""
    ended = []

    async def app(scope, receive, send):
        try:
            await plain_app(scope, receive, send)
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    async with running(app, message_bytes=1000) as served:
        chunks = b"190\r\n" + b"x" * 400 + b"\r\n"
        reply = await ask(
            served.port,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunks * 3
            + (b"0\r\n\r\n" if polite else b""),
        )
        assert reply.startswith(b"HTTP/1.1 413 ")
        assert ended == ["cancelled"]


async def test_a_body_at_the_limit_comes_back():
    """1 MiB is allowed to whoever has shown a credential, in whatever pieces it arrives."""
    body = bytes(range(256)) * 4096

    async def app(scope, receive, send):
        assert scope["edged.authenticated"]("api_key:somebody")
        await plain_app(scope, receive, send)

    async with running(app) as served, await connect(served.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, body)
            assert (await read_reply(stream))[1] == body


async def test_expect_100_is_answered_when_the_app_wants_the_body():
    """curl waits for it with bodies of more than 1 kB."""
    async with running() as served, await connect(served.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"ok")
        assert (await read_reply(stream))[1] == b"ok"


async def refuse(scope, receive, send):
    """An app that does not look at bodies."""
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


async def test_a_refusal_without_reading_ends_a_connection_only_if_the_body_is_not_there():
    """A small body that came along is skipped; one still expected means Connection: close."""
    async with running(refuse) as served:
        async with await connect(served.port) as stream:
            for _ in range(2):
                await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
                head, body = await read_reply(stream)
                assert body == b"no"
                assert b"connection: close" not in head.lower()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        reply = await ask(served.port, head)
        assert reply.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in reply.lower()


async def test_head_gets_the_head_of_get_and_no_body():
    """Content-Length stays, the body is dropped, the connection goes on."""
    async with running(refuse) as served, await connect(served.port) as stream:
        await stream.send_all(GET.replace(b"GET", b"HEAD") + GET)
        data = b""
        while not data.endswith(b"no"):
            data += await stream.receive_some(1000)
        assert data.count(b"content-length: 2") == 2
        assert data.count(b"no") == 1


async def test_204_has_no_body_and_no_length():
    """RFC 9110 8.6."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b"dropped"})

    async with running(app) as served:
        reply = await ask(served.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert reply.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"length" not in reply
        assert reply.endswith(b"\r\n\r\n")


async def stream_numbers(scope, receive, send):
    """Three pieces, then the end; an unknown status code to go with them."""
    await send({"type": "http.response.start", "status": 299, "headers": [(b"Date", b"now")]})
    for piece in (b"1", b"22", b"333"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def test_a_stream_is_chunked_or_ended_by_the_connection():
    """HTTP/1.1 gets chunks and goes on, HTTP/1.0 the bare bytes and the end."""
    async with running(stream_numbers) as served:
        reply = await ask(served.port, GET + GET.replace(b"1.1", b"1.0"))
        first, _, second = reply.partition(b"0\r\n\r\n")
        assert first.endswith(b"1\r\n1\r\n2\r\n22\r\n3\r\n333\r\n")
        assert second.endswith(b"\r\n\r\n122333")
        assert reply.lower().count(b"date: now") == 2


async def test_an_app_that_fails_first_is_a_500_with_an_incident_id(log):
    """No traceback reaches the client; the log has it once, under the id that the client sees."""

    async def app(scope, receive, send):
        raise ValueError("a secret detail")

    async with running(app) as served:
        reply = await ask(served.port, GET)
        assert reply.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in reply
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["detail"] == f"incident {log[0]['incident']}"
        assert [line["event"] for line in log] == ["app_failed"]
    log.clear()


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"type": "http.response.start", "status": 200}],
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
        [
            {"type": "http.response.start", "status": 200, "headers": [(b"bad name", b"x")]},
            {"type": "http.response.body"},
        ],
        [{"type": "websocket.send"}],
    ],
)
async def test_an_app_that_breaks_the_protocol_is_a_500(log, messages):
    """Nothing was sent yet, so that the client can still be told; never silence."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    async with running(app) as served:
        assert (await ask(served.port, GET)).startswith(b"HTTP/1.1 500 ")
    assert [line["event"] for line in log] == ["app_failed"]
    log.clear()


async def test_an_app_that_fails_in_the_middle_is_cut(log):
    """Half a body must not look like a whole one."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("in the middle")

    async with running(app) as served:
        reply = await ask(served.port, GET)
        assert b"half" in reply
        assert not reply.endswith(b"0\r\n\r\n")
    assert [line["event"] for line in log] == ["app_failed"]
    log.clear()


async def test_an_app_that_breaks_its_answer_off_is_cut_and_no_incident(log):
    """Whoever reads may stay no longer: the connection is closed without a word. Before its answer it is a failure."""

    async def app(scope, receive, send):
        if scope["path"] in ("/x", "/z"):
            await send({"type": "http.response.start", "status": 200})
        if scope["path"] == "/x":
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise trio.BrokenResourceError

    async with running(app) as served:
        reply = await ask(served.port, GET)
        assert b"half" in reply
        assert not reply.endswith(b"0\r\n\r\n")
        assert await ask(served.port, GET.replace(b"/x", b"/z")) == b""
        assert log == []
        assert (await ask(served.port, GET.replace(b"/x", b"/y"))).startswith(b"HTTP/1.1 500 ")
    assert [line["event"] for line in log] == ["app_failed"]
    log.clear()


async def test_an_app_that_fails_after_its_reply_is_logged_and_the_connection_goes_on(log):
    """Background work that fails is an incident, but the reply was whole."""

    async def app(scope, receive, send):
        await refuse(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        if scope["path"] == "/x":
            raise ValueError("afterwards")

    async with running(app) as served, await connect(served.port) as stream:
        await stream.send_all(GET)
        assert (await read_reply(stream))[1] == b"no"
        await stream.send_all(GET.replace(b"/x", b"/y"))
        assert (await read_reply(stream))[1] == b"no"
    assert [line["event"] for line in log] == ["app_failed"]
    log.clear()


async def test_an_app_that_has_answered_cleans_up_although_its_client_has_left():
    """As one that closes the file that it sent."""
    cleaned = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        await trio.sleep(0.9)
        cleaned.set()

    async with running(app, head_seconds=0.4) as served, await connect(served.port) as stream:
        await stream.send_all(GET)
        while not (await stream.receive_some(4096)).endswith(b"ok"):
            pass
        await stream.aclose()
        with fail_after(5):
            await cleaned.wait()


async def test_an_app_that_waits_is_cancelled_when_its_client_leaves():
    """Within the watcher's pause, although nobody reads."""
    ended = trio.Event()

    async def app(scope, receive, send):
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with running(app, head_seconds=0.4) as served:
        async with await connect(served.port) as stream:
            await stream.send_all(GET + GET)
            await until(lambda: served.scopes)
        with fail_after(5):
            await ended.wait()
        await until(lambda: served.server.connections == 0)


async def test_an_app_that_listens_is_told_and_may_tidy_up():
    """http.disconnect comes at once; a pipelined request meanwhile is kept."""
    events = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        events.append((await receive())["type"])
        await trio.sleep(0.01)
        events.append("tidy")
        with pytest.raises(OSError, match="left"):
            await send({"type": "http.response.body"})

    async with running(app) as served:
        async with await connect(served.port) as stream:
            await stream.send_all(GET)
            await until(lambda: served.scopes)
            await stream.send_all(GET)
            await trio.sleep(0.05)
            assert events == []
        await until(lambda: "tidy" in events)
        assert events[0] == "http.disconnect"


async def test_an_app_that_waits_for_a_body_is_told_that_the_client_left():
    """The end in the middle of a body is http.disconnect, an end by reset too."""
    events = []

    async def app(scope, receive, send):
        events.append((await receive())["type"])
        events.append((await receive())["type"])

    async with running(app) as served:
        for reset in (False, True):
            events.clear()
            stream = await connect(served.port)
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal")
            await until(lambda: events)
            if reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            await until(lambda: events == ["http.request", "http.disconnect"])


async def test_a_pipelined_request_behind_a_stream_is_answered_after_it():
    """What is read while watching for the end of the client is not lost."""
    go_on = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"end"})

    async with running(app) as served, await connect(served.port) as stream:
        await stream.send_all(GET)
        await until(lambda: served.scopes)
        await stream.send_all(GET.replace(b"/x", b"/second")[:20])
        await trio.sleep(0.05)
        go_on.set()
        await stream.send_all(GET.replace(b"/x", b"/second")[20:])
        data = b""
        while data.count(b"0\r\n\r\n") < 2:
            data += await stream.receive_some(1000)
        assert [scope["path"] for scope in served.scopes] == ["/x", "/second"]


async def endless(scope, receive, send):
    """Frames without end, as a live picture gives them."""
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 50000, "more_body": True})


async def test_a_viewer_that_leaves_ends_its_stream():
    """At once, and without a word in the log."""
    async with running(endless) as served:
        async with await connect(served.port) as stream:
            await stream.send_all(GET)
            await stream.receive_some(100000)
        await until(lambda: served.server.connections == 0)


async def test_a_viewer_that_does_not_read_waits_alone_and_is_cut():
    """`send` waits, others are answered, and after `stall_seconds` it is over."""

    async def app(scope, receive, send):
        await (endless if scope["path"] == "/live" else plain_app)(scope, receive, send)

    async with running(app, stall_seconds=0.5) as served, await connect(served.port, receive_buffer=4096) as slow:
        await slow.send_all(GET.replace(b"/x", b"/live"))
        async with await connect(served.port) as quick:
            for _ in range(10):
                await quick.send_all(GET)
                with fail_after(2):
                    await read_reply(quick)
        await until(lambda: served.server.connections <= 1)
        await until(lambda: served.server.connections == 0)


async def test_half_a_head_is_408_and_no_byte_is_the_end():
    """`head_seconds` for the first head."""
    async with running(head_seconds=0.3) as served:
        assert (await ask(served.port, b"GET / HT")).startswith(b"HTTP/1.1 408 ")
        assert await ask(served.port, b"") == b""


async def test_an_idle_kept_alive_connection_is_closed_and_a_half_head_on_it_is_408():
    """The idle time counts from the last reply, the head's from its first byte."""
    async with running(keep_alive_seconds=0.4, head_seconds=0.8) as served:
        async with await connect(served.port) as stream:
            await stream.send_all(GET)
            await read_reply(stream)
            assert await read_all(stream) == b""
        async with await connect(served.port) as stream:
            await stream.send_all(GET)
            await read_reply(stream)
            await stream.send_all(b"GET / HT")
            assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_stops_coming_is_408():
    """`stall_seconds` without a byte; a slow one may take its time."""
    async with running(stall_seconds=0.4) as served, await connect(served.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n")
        for _ in range(8):
            await trio.sleep(0.1)
            await stream.send_all(b"x")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_does_not_close_after_the_last_word_is_cut(monkeypatch):
    """Lingering has an end."""
    monkeypatch.setattr("edged.net.connection._LINGER_SECONDS", 0.2)
    async with running(head_seconds=0.4) as served, await connect(served.port) as stream:
        await stream.send_all(b"nonsense\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 400 ")
        await until(lambda: served.server.connections == 0)


async def test_a_client_may_vanish_at_any_moment():
    """Cut at each place, half of the times by a reset: nothing is logged, nothing stays."""
    whole = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789" + GET
    async with running() as served:
        for at in range(0, len(whole) + 1, 5):
            stream = await connect(served.port)
            await stream.send_all(whole[:at])
            if at % 2:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        await until(lambda: served.server.connections == 0)


async def test_stopping_waits_for_a_call_and_ends_streams():
    """The call under way is answered with Connection: close; a stream does not hold the stop up."""

    async def app(scope, receive, send):
        if scope["path"] == "/live":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await trio.sleep_forever()
        await trio.sleep(0.3)
        await refuse(scope, receive, send)

    async with running(app) as served, await connect(served.port) as call, await connect(served.port) as live:
        await call.send_all(GET)
        await live.send_all(GET.replace(b"/x", b"/live"))
        await until(lambda: len(served.scopes) == 2)
        served.stop()
        with trio.CancelScope(shield=True), fail_after(5):
            started = trio.current_time()
            reply = await read_all(call)
            assert reply.endswith(b"no")
            assert b"connection: close" in reply.lower()
            assert (await read_all(live)).endswith(b"x\r\n")
            assert trio.current_time() - started < 1.8


@settings(max_examples=times(300, least=25), deadline=None)
@given(st.binary(max_size=200))
def test_any_target_is_a_path_or_refused(target):
    """A path always begins with a slash (or is the star), and the authority of a URL is a host and a port."""
    try:
        found = target_of(target)
    except BadHead:
        return
    assert found.path == "*" or found.raw.startswith(b"/")
    assert found.authority is None or host_of(found.authority)


@pytest.mark.parametrize(
    ("value", "host"),
    [(b"box", "box"), (b"box:80", "box"), (b"[::1]:80", "[::1]"), (b"1.2.3.4", "1.2.3.4"), (b"a b", None), (b"", None),
     (b"a:b", None), (b"a/b", None), (b"\xff", None)],
)  # fmt: skip
def test_a_host_header_is_a_host_or_nothing(value, host):
    """What goes into URLs that we hand out is a name or an address."""
    assert host_of(value) == host


def test_a_refusal_is_http_as_another_implementation_reads_it():
    """h11's client side understands what we write without it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(fault_bytes(503, "later", (b"Retry-After", b"10")))
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == 503
    assert (b"retry-after", b"10") in list(head.headers)
    body = client.next_event()
    assert isinstance(body, h11.Data)
    assert json.loads(body.data)["code"] == "overloaded"
