"""WebSocket: what a client may send, what it gets, and how each thing ends. trio-websocket is the other side."""

from __future__ import annotations

import random
import struct
from contextlib import suppress

import pytest
import trio
from net_helpers import UPGRADE, ask, close_code, connect, frame, frames_in, open_raw, opened, read_all, running, until
from patience import fail_after
from structlog.testing import capture_logs
from trio_websocket import ConnectionClosed, WebSocketConnection

from edged.net.upgrades import choose_subprotocol


@pytest.fixture(autouse=True)
def log():
    """What was logged; a test that expects an incident takes it out."""
    with capture_logs() as lines:
        yield lines
    assert not [line for line in lines if line["log_level"] == "error"], lines


def closing_reason(client: WebSocketConnection) -> str:
    """The text of the close frame that came."""
    assert client.closed is not None
    return str(client.closed.reason)


async def closing_code(client) -> int:
    """Read until the server closes."""
    with fail_after(10):
        while True:
            try:
                await client.get_message()
            except ConnectionClosed as end:
                return int(end.reason.code) if end.reason else 0


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/"])
async def test_a_websocket_opens_on_three_paths(path):
    """The documented path, with a slash, and the root answer 101 and echo."""
    async with running() as served, opened(served, path) as client:
        await client.send_message("hé")
        assert await client.get_message() == "hé"
        assert served.sessions[0].peer.host == "127.0.0.1"
        assert served.sessions[0].headers["host"].startswith("127.0.0.1")


async def test_the_first_known_subprotocol_is_chosen():
    """The client's order counts; an unknown name is not echoed."""
    async with running() as served:
        async with opened(served, subprotocols=["x", "camera-v1", "jsonrpc-2.0"]) as client:
            assert client.subprotocol == "camera-v1"
            assert served.sessions[0].subprotocol == "camera-v1"
        async with opened(served, subprotocols=["x"]) as client:
            assert client.subprotocol is None
    assert choose_subprotocol(None) is None


async def test_a_websocket_on_another_path_is_404():
    """An upgrade elsewhere is refused with a status, not with silence."""
    async with running() as served:
        assert (await ask(served.port, UPGRADE.replace(b"/ws", b"/other"))).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", b"426"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", b"400"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"!!!", b"400"),
        (b"Connection: Upgrade", b"Connection: keep-alive", b"400"),
        (b"GET /ws", b"POST /ws", b"405"),
        (b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx", b"400"),
        (b"Upgrade: websocket\r\n", b"", b"426"),
    ],
)
async def test_a_bad_upgrade_gets_its_status(old, new, status):
    """Each rule of RFC 6455 4.2.1 has an answer of its own."""
    async with running() as served:
        reply = await ask(served.port, UPGRADE.replace(old, new))
        assert reply.startswith(b"HTTP/1.1 " + status)
        assert b'"detail"' in reply
        if old == b"Version: 13":
            assert b"Sec-WebSocket-Version: 13" in reply


async def test_frames_right_behind_the_handshake_are_answered():
    """A client need not wait for the 101 before its first frame."""
    async with running() as served, await connect(served.port) as stream:
        await stream.send_all(UPGRADE + frame(b"one") + frame(b"two"))
        data = b""
        while not data.endswith(b"two"):
            data += await stream.receive_some(4096)
        assert frames_in(data.partition(b"\r\n\r\n")[2]) == [(1, b"one"), (1, b"two")]


async def test_replies_to_one_read_leave_in_one_write(monkeypatch):
    """32 calls in one packet cost one system call as it leaves."""
    from edged.net.stream import Stream

    writes = []
    plain = Stream.try_send

    def counted(self, data):
        writes.append(len(data))
        return plain(self, data)

    monkeypatch.setattr("edged.net.websocket.perf_counter", lambda: 0.0)  # ... that is answered within one turn
    async with running() as served, await open_raw(served.port) as stream:
        monkeypatch.setattr(Stream, "try_send", counted)
        await stream.send_all(frame(b"abc") * 32)
        data = b""
        while len(data) < 32 * 5:
            data += await stream.receive_some(4096)
        assert writes == [160]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1048576])
async def test_every_length_comes_back_whole(size):
    """The three ways to write a length, up to the limit itself."""
    async with running() as served, opened(served, max_message_size=2**21) as client:
        await client.send_message("login")
        assert await client.get_message() == "welcome"
        await client.send_message("x" * size)
        assert await client.get_message() == "x" * size


async def test_a_frame_in_single_bytes_is_put_together():
    """Where the packets are cut makes no difference, also between whole frames."""
    async with running() as served, await open_raw(served.port) as stream:
        for byte in frame("grün".encode()) + frame(b"a" * 200):
            await stream.send_all(bytes([byte]))
        await stream.send_all(frame(b"b") + frame(b"c")[:4])
        await stream.send_all(frame(b"c")[4:])
        await stream.send_all(frame(b"d"))
        data = b""
        while not data.endswith(b"d"):
            data += await stream.receive_some(4096)
        assert [text for _, text in frames_in(data)] == ["grün".encode(), b"a" * 200, b"b", b"c", b"d"]


async def test_fragments_with_a_ping_between_them_make_one_message():
    """Control frames may stand between fragments; UTF-8 may be cut anywhere."""
    text = "größe".encode()
    async with running() as served, await open_raw(served.port) as stream:
        await stream.send_all(frame(text[:3], fin=False) + frame(b"hi", 9) + frame(text[3:4], 0, fin=False))
        await stream.send_all(frame(text[4:], 0))
        await stream.send_all(frame(b"end"))
        data = b""
        while not data.endswith(b"end"):
            data += await stream.receive_some(4096)
        found = frames_in(data)
        assert (10, b"hi") in found
        assert [each for each in found if each[0] == 1] == [(1, text), (1, b"end")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"\x00\x01", 2), 1003),
        (frame(b"\xff\xfe"), 1007),
        (frame(b"\xc3", fin=False) + frame(b"\x28", 0), 1007),
        (frame(b"x", masked=False), 1002),
        (frame(b"x", rsv=4), 1002),
        (frame(b"x", 3), 1002),
        (frame(b"x", 0), 1002),
        (frame(b"x" * 126, 9), 1002),
        (frame(b"x", 9, fin=False), 1002),
        (frame(b"x", fin=False) + frame(b"y"), 1002),
        (frame(struct.pack("!H", 1005), 8), 1002),
        (frame(b"x", 8), 1002),
        (frame(struct.pack("!H", 1000) + b"\xff", 8), 1007),
        (frame(struct.pack("!H", 1000), 8), 1000),
        (frame(struct.pack("!H", 4000) + b"why", 8), 4000),
        (frame(b"x" * 16385), 1009),
        (frame(b"x" * 60000), 1009),
        (frame(b"x" * 9000, fin=False) + frame(b"x" * 9000, 0), 1009),
        (b"\x81\xff\x00\x00\x00\x00\x7f\xff\xff\xff\x01\x02\x03\x04", 1009),
        (b"\x81\xff\x00\x00\x00\x00\x00\x0f\xff\xff\x01\x02\x03\x04" + b"x" * 40000, 1009),
    ],
)
async def test_what_may_not_be_sent_has_a_close_code(data, code):
    """Contract 10.3 and RFC 6455 7.4.1; nothing is delivered to the session."""
    async with running() as served, await open_raw(served.port) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        assert close_code(await read_all(stream)) == code
        assert served.sessions[0].received == []


@pytest.mark.parametrize("first", [frame(b"x" * 1048577), frame(b"x" * 600000, fin=False) + frame(b"x" * 600000, 0)])
async def test_more_than_the_limit_after_authentication_is_1009(first):
    """1 MiB a message, its fragments counted together."""
    async with running() as served, await open_raw(served.port) as stream:
        await stream.send_all(frame(b"login"))
        await stream.receive_some(100)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(first)
        assert close_code(await read_all(stream)) == 1009


async def test_empty_fragments_cost_no_memory():
    """A message that never ends but never grows is held in nothing."""
    async with running() as served, await open_raw(served.port) as stream:
        await stream.send_all(frame(b"a", fin=False) + frame(b"", 0, fin=False) * 20000 + frame(b"b", 0))
        assert frames_in(await stream.receive_some(100)) == [(1, b"ab")]


async def test_what_is_queued_goes_out_before_the_close():
    """A session that ends itself gets its reply, then the code; what follows is dropped."""
    async with running() as served, opened(served) as client:
        await client.send_message("bye")
        assert await client.get_message() == "last"
        assert await closing_code(client) == 4401
        assert served.sessions[0].outbox.closed


async def test_calls_behind_a_close_are_not_answered():
    """In one read: reply, close echo, and nothing more."""
    async with running() as served, await open_raw(served.port) as stream:
        await stream.send_all(frame(b"one") + frame(struct.pack("!H", 1000), 8) + frame(b"two"))
        assert frames_in(await read_all(stream)) == [(1, b"one"), (8, struct.pack("!H", 1000))]
        assert served.sessions[0].received == [b"one"]


async def test_a_session_that_breaks_is_logged_once_and_closed_1011(log):
    """The client learns an incident id, the log the exception, nobody a traceback."""
    async with running() as served:
        for word in ("crash", "task crash"):
            async with opened(served) as client:
                await client.send_message(word)
                assert await closing_code(client) == 1011
                reason = closing_reason(client)
                assert reason.startswith("incident ")
                assert reason[9:] in [line.get("incident") for line in log]
    assert [line["event"] for line in log] == ["session_failed", "task_failed"]
    log.clear()


async def test_no_session_no_upgrade(log):
    """If the session cannot be made, the answer is a 500 and not a half-open WebSocket."""
    async with running() as served:
        reply = await ask(served.port, UPGRADE.replace(b"\r\n\r\n", b"\r\nX-Refuse: 1\r\n\r\n"))
        assert reply.startswith(b"HTTP/1.1 500 ")
    assert [line["event"] for line in log] == ["session_failed"]
    log.clear()


async def test_a_reply_from_a_task_goes_out_at_once():
    """`send` from elsewhere than the reading task flushes by itself."""
    async with running() as served, opened(served) as client:
        await client.send_message("later")
        with fail_after(5):
            assert await client.get_message() == "done"


async def test_ten_thousand_random_frames_end_with_a_code_each_time():
    """Whatever comes, the answer is an echo or a close frame, and the log stays silent."""
    chance = random.Random(7)
    sent = 0
    async with running() as served:
        while sent < 10000:
            async with await open_raw(served.port) as stream:
                batch = []
                for _ in range(500):
                    payload = chance.randbytes(chance.choice((0, 1, 5, 60, 130)))
                    kind = chance.random()
                    if kind < 0.9:
                        batch.append(frame(payload.hex().encode(), chance.choice((1, 1, 1, 9, 10))))
                    elif kind < 0.995:
                        batch.append(frame(b"a", fin=False) + frame(payload.hex().encode()[:60], 0))
                    else:
                        is_last, reserved = chance.random() < 0.5, chance.randrange(8)
                        batch.append(frame(payload, chance.randrange(16), fin=is_last, rsv=reserved))
                sent += len(batch)
                with trio.move_on_after(20):
                    async with trio.open_nursery() as nursery:
                        replies: list[bytes] = []

                        async def collect(stream=stream, replies=replies) -> None:
                            replies.append(await read_all(stream))

                        nursery.start_soon(collect)
                        with suppress(trio.BrokenResourceError):
                            await stream.send_all(b"".join(batch) + frame(b"", 8))
                assert frames_in(replies[0])[-1][0] == 8
        await until(lambda: served.server.connections == 0)


async def test_a_client_may_vanish_at_any_moment():
    """Cut after each byte of handshake and frames: no log line, no task, no descriptor left."""
    whole = UPGRADE + frame(b"later") + frame(b"x" * 300)
    async with running() as served:
        for at in range(0, len(whole) + 1, 7):
            stream = await connect(served.port)
            await stream.send_all(whole[:at])
            if at % 2:
                stream.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: the end is a reset
            await stream.aclose()
        await until(lambda: served.server.connections == 0)
        async with opened(served) as client:
            await client.send_message("still there")
            assert await client.get_message() == "still there"


async def test_a_client_that_stops_reading_is_cut_off_with_1013_and_delays_nobody():
    """Its outbox overflows, it is told 1013 behind what was on its way, and others are answered meanwhile."""
    async with running() as served, await open_raw(served.port, receive_buffer=4096) as slow:
        await slow.send_all(frame(b"login"))
        await slow.receive_some(100)
        async with opened(served) as quick:
            for _ in range(40):
                await slow.send_all(frame(b"give 1000000"))
                await quick.send_message("hello")
                with fail_after(2):
                    assert await quick.get_message() == "hello"
        await until(lambda: served.drops == 1)
        assert served.sessions[0].outbox.closed
        data = await read_all(slow)
        assert close_code(data) == 1013


async def test_too_many_messages_overflow_the_outbox():
    """257 small messages behind a stalled one are too many, whatever their size."""
    async with running() as served, await open_raw(served.port, receive_buffer=4096) as slow:
        await slow.send_all(frame(b"give 8000000"))
        await until(lambda: served.sessions[0].outbox.is_blocked)
        outbox = served.sessions[0].outbox
        for _ in range(256):
            outbox.send(b"note")
        assert not outbox.closed
        outbox.send(b"one more")
        assert outbox.closed
        assert served.drops == 1
        for _ in range(300):
            outbox.put(b"\x8a\x00")  # pongs behind the close are dropped, not hoarded


async def test_a_slow_reader_that_catches_up_loses_nothing():
    """What the kernel did not take is sent later, in order."""
    async with running() as served, await open_raw(served.port, receive_buffer=4096) as slow:
        await slow.send_all(frame(b"give 8000000"))
        await until(lambda: served.sessions[0].outbox.is_blocked)
        for number in range(100):
            await slow.send_all(frame(b"%d" % number))
        data = b""
        while not data.endswith(b"99"):
            data += await slow.receive_some(1000000)
        assert [text for _, text in frames_in(data)][1:] == [b"%d" % number for number in range(100)]
        await until(lambda: not served.sessions[0].outbox.is_blocked)
        assert served.drops == 0


async def test_a_stall_ends_the_connection():
    """A client that reads nothing for `stall_seconds` is cut."""
    async with running(stall_seconds=0.3) as served, await open_raw(served.port, receive_buffer=4096) as slow:
        await slow.send_all(frame(b"give 8000000"))
        await until(lambda: served.sessions[0].is_closed)
        assert served.drops == 1


async def test_an_idle_client_is_pinged_and_stays_while_it_answers():
    """trio-websocket answers pings by itself, so it outlives the limit of silence."""
    async with running(ping_seconds=0.1, silence_seconds=0.5) as served, opened(served) as client:
        await trio.sleep(1.5)
        await client.send_message("here")
        assert await client.get_message() == "here"


async def test_a_silent_client_is_closed():
    """Pings that nobody answers end in a close."""
    async with running(ping_seconds=0.1, silence_seconds=0.5) as served, await open_raw(served.port) as stream:
        data = frames_in(await read_all(stream))
        assert data[0] == (9, b"")
        assert data[-1][0] == 8
        await until(lambda: served.sessions[0].is_closed)


async def test_a_client_that_never_answers_a_close_is_cut(monkeypatch):
    """Our close waits only so long for the client's."""
    monkeypatch.setattr("edged.net.websocket.CLOSE_SECONDS", 0.2)
    async with running(ping_seconds=0.4) as served, await open_raw(served.port) as stream:
        await stream.send_all(frame(b"bye"))
        assert close_code(await read_all(stream)) == 4401
        await until(lambda: served.sessions[0].is_closed)


async def test_a_reason_is_cut_to_what_a_close_frame_holds():
    """123 bytes, and never half a letter."""
    async with running() as served, opened(served) as client:
        await until(lambda: served.sessions)
        served.sessions[0].outbox.close(1000, "ü" * 100)
        served.sessions[0].outbox.close(4401, "too late")
        assert await closing_code(client) == 1000
        assert closing_reason(client) == "ü" * 61


async def test_stopping_lets_calls_drain_and_says_1001():
    """A call under way is answered, then each WebSocket is closed with 1001, and new connections are refused."""
    async with running() as served:
        served.later = 0.4
        async with opened(served) as client, opened(served) as idle:
            await client.send_message("later")
            await until(lambda: served.sessions[0].received)
            port = served.port
            served.stop()
            with trio.CancelScope(shield=True), fail_after(10):
                assert await client.get_message() == "done"
                assert await closing_code(client) == 1001
                assert await closing_code(idle) == 1001
                with pytest.raises(OSError, match=r"."):
                    await connect(port)
