"""The hook's listener: a question in any shape has a reply, and costs no task if it came whole."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from net_helpers import ask, connect, count_descriptors, read_all
from patience import fail_after, times
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from edged.errors import StartFailed
from edged.net import hook as module
from edged.net.hook import HookExchange, reply, serve_hook


def answer(body: bytes) -> tuple[int, bytes]:
    """204 for "yes", 401 for anything else, and one word that breaks it."""
    if body == b"break":
        raise ValueError("a secret detail")
    return (204, b"") if body == b"yes" else (401, b"no")


@asynccontextmanager
async def hook():
    """A hook at /h; gives its port and leaves no descriptor."""
    before = count_descriptors()
    with fail_after(20):
        async with trio.open_nursery() as nursery:

            async def start(task_status):
                await serve_hook(answer, path="/h", task_status=task_status)

            yield await nursery.start(start)
            nursery.cancel_scope.cancel()
    assert count_descriptors() <= before


def post(body: bytes, path: bytes = b"/h") -> bytes:
    """A question as MediaMTX sends it."""
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(b"yes"), b"204 No Content"),
        (post(b"who"), b"401 Unauthorized"),
        (post(b""), b"401"),
        (b"POST /h HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n2\r\nes\r\n0\r\n\r\n", b"204"),
        (post(b"yes", b"/other"), b"404"),
        (post(b"yes", b"/h?x"), b"404"),
        (b"GET /h HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", b"417"),
        (b"garbage\r\n\r\n", b"400"),
        (post(b"yes").replace(b"\r\n", b"\n"), b"400"),
        (post(b"yes").replace(b"Host: a\r\n", b"Host: a\r\n" + b"x:\r\n" * 64), b"431"),
        (b"POST /h HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40000, b"431"),
        (post(b"x" * 70000), b"413"),
    ],
)
async def test_every_question_has_a_reply(data, status):
    """Whole replies, whether the question came at once or byte by byte."""
    async with hook() as port:
        with capture_logs() as log:
            assert (await ask(port, data)).startswith(b"HTTP/1.1 " + status)
            if len(data) < 300:
                async with await connect(port) as stream:
                    try:
                        for at in range(len(data)):
                            await stream.send_all(data[at : at + 1])
                            await trio.lowlevel.checkpoint()
                    except trio.BrokenResourceError:
                        pass
                    assert (await read_all(stream)).startswith((b"HTTP/1.1 " + status, b""))
        assert log == []


async def test_a_slow_question_is_answered_when_it_is_whole():
    """The first part arrives alone; the body is a short ASCII reason."""
    async with hook() as port, await connect(port) as stream:
        await stream.send_all(post(b"nope")[:30])
        await trio.sleep(0.05)
        await stream.send_all(post(b"nope")[30:])
        assert (await read_all(stream)).endswith(b"\r\n\r\nno")


async def test_a_broken_answer_is_a_500_with_one_line_in_the_log():
    """MediaMTX takes it for a no; the client learns nothing of the exception."""
    async with hook() as port:
        with capture_logs() as log:
            found = await ask(port, post(b"break"))
    assert found.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in found
    assert [line["event"] for line in log] == ["hook_failed"]


async def test_askers_that_vanish_or_say_nothing_cost_little(monkeypatch):
    """They time out, of too many the oldest are closed, and real questions are answered meanwhile."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    monkeypatch.setattr(module, "_SECONDS", 0.3)
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.2, raising=False)
    async with hook() as port:
        with capture_logs() as log:
            for at in range(0, 60, 6):
                await ask_and_leave(port, post(b"yes")[:at], reset=at % 4 == 0)
            silent = [await connect(port) for _ in range(5)]
            assert await read_all(silent[4]) == b""
            assert await read_all(silent[0]) == b""
            assert (await ask(port, post(b"yes"))).startswith(b"HTTP/1.1 204")
            for each in silent:
                await each.aclose()
        assert log == []


async def test_silent_connections_never_keep_a_slow_question_out(monkeypatch):
    """A question whose bytes come a moment after its connection is answered, however many others say nothing."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    async with hook() as port:
        silent = [await connect(port) for _ in range(6)]
        async with await connect(port) as stream:
            await trio.sleep(0.05)
            await stream.send_all(post(b"yes"))
            assert (await read_all(stream)).startswith(b"HTTP/1.1 204")
        for each in silent:
            await each.aclose()


@pytest.mark.parametrize("is_accepted_first", [True, False])
async def test_a_connection_that_says_nothing_ends_before_one_that_says_a_part(mock_clock, is_accepted_first):
    """Each has a deadline; that of a silent one is the shorter, whether a part comes before or after the accept."""
    async with hook() as port, await connect(port) as silent:
        # Nothing is accepted between these two lines.
        with socket.create_connection(("127.0.0.1", port)) as sock:
            if is_accepted_first:
                await wait_all_tasks_blocked(0.05)
            sock.sendall(post(b"yes")[:10])
            await wait_all_tasks_blocked(0.05)
            mock_clock.jump((module._SILENT_SECONDS + module._SECONDS) / 2)
            assert await read_all(silent) == b""
            sock.sendall(post(b"yes")[10:])
            await wait_all_tasks_blocked(0.05)
            assert sock.recv(1000).startswith(b"HTTP/1.1 204")


async def ask_and_leave(port: int, data: bytes, *, reset: bool) -> None:
    """Send a part and go."""
    stream = await connect(port)
    await stream.send_all(data)
    if reset:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await stream.aclose()


async def test_a_question_that_came_whole_needs_no_task():
    """Read, judged and answered in the accepting task."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.sendall(post(b"yes"))
        assert module._answer_now(theirs, HookExchange(answer, b"/h"))
        assert ours.recv(1000).startswith(b"HTTP/1.1 204 ")
        assert theirs.fileno() == -1


async def test_accepting_survives_exhaustion(monkeypatch):
    """A pause and few lines in the log; the question is answered afterwards."""

    errors = [OSError(24, "Too many open files")] * 8

    class Failing(socket.socket):
        def accept(self):
            if errors:
                raise errors.pop()
            return super().accept()

    plain = socket.create_server

    def create(*given, **named):
        made = plain(*given, **named)
        return Failing(fileno=made.detach())

    monkeypatch.setattr(socket, "create_server", create)
    with capture_logs() as log:
        async with hook() as port:
            assert (await ask(port, post(b"yes"))).startswith(b"HTTP/1.1 204 ")
    assert [(line["event"], line["times"]) for line in log] == [
        ("accept_failed", times) for times in (1, 1, 1, 1, 1, 3)
    ]


async def test_without_loopback_the_start_fails_in_words(monkeypatch):
    """StartFailed says what must be up."""

    def refuse(*_, **__):
        raise OSError("no such device")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(StartFailed, match="loopback"):
        await serve_hook(answer, path="/h")


def test_a_status_without_a_name_is_still_a_reply():
    """The answer's status is not ours to choose."""
    assert reply(299, b"x").startswith(b"HTTP/1.1 299 \r\n")


@settings(max_examples=times(500, least=25), deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
def test_no_bytes_break_a_question(pieces, start_well):
    """For any bytes: a reply, nobody to reply to, or a wish for more; never an exception."""
    question = HookExchange(answer, b"/h")
    if start_well:
        assert question.take(b"POST /h HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") is None
    for piece in [*pieces, b""]:
        found = question.take(piece)
        assert found is None or found == b"" or found.startswith(b"HTTP/1.1 ")
        if found is not None or not piece:
            break
