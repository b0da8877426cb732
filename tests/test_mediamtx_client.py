"""The control API's client, where MediaMTX does not behave; the contract tests show it where all is well."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import fail_after, times

from edged.errors import DependencyFailed
from edged.mediamtx.client import ControlApi, PathState

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SECRET = "s3cret-of-one-start"


@asynccontextmanager
async def answering(answer: bytes | None, *, timeout: float = 5.0) -> AsyncIterator[tuple[ControlApi, list[bytes]]]:
    """A client of a server that gives this answer to every question; None: none at all."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        if answer is None:
            await trio.sleep_forever()
        else:
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield ControlApi("127.0.0.1", port, "edged", SECRET, timeout=timeout), asked
        nursery.cancel_scope.cancel()


def good(value: object) -> bytes:
    body = json.dumps(value).encode()
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_an_older_server_says_ready_and_bytes_by_other_names() -> None:
    """Before 1.16.2: `ready`, `bytesReceived`, `bytesSent`, and no type of a source that is not there."""
    item = {"name": "camera0", "ready": True, "source": None, "readers": [{}], "bytesReceived": 5, "bytesSent": 6}
    with fail_after(10):
        async with answering(good({"itemCount": 1, "pageCount": 1, "items": [item]})) as (client, _):
            assert await client.list_paths() == [PathState("camera0", True, 1, 5, 6, "")]


async def test_a_newer_server_is_believed_by_the_newer_names() -> None:
    """A path with an offline clip is `ready` and yet not `available`."""
    item = {"name": "camera0", "ready": True, "available": False, "readers": [], "inboundBytes": 7, "outboundBytes": 8,
            "bytesReceived": 1, "bytesSent": 1, "source": {"type": "rtspSession", "id": "x"}}  # fmt: skip
    with fail_after(10):
        async with answering(good({"pageCount": 1, "items": [item]})) as (client, _):
            assert await client.list_paths() == [PathState("camera0", False, 0, 7, 8, "rtspSession")]


@pytest.mark.parametrize(
    ("members", "since"),
    [
        ({"ready": True, "readyTime": "2026-11-22T07:00:42.587515522Z"}, 1795330842.587515),
        ({"available": True, "availableTime": "2026-11-22T09:00:42+02:00", "readyTime": None}, 1795330842.0),
        ({"available": False, "availableTime": "2026-11-22T07:00:42Z"}, None),
        ({"ready": True, "readyTime": None}, None),
        ({"ready": True, "readyTime": "yesterday"}, None),
        ({"ready": True}, None),
    ],
)
async def test_since_when_a_path_is_ready_is_told_in_unix_seconds(members: dict[str, Any], since: float | None) -> None:
    """Under the name of its age, with Go's nine digits; a time that is none is not worth an error."""
    with fail_after(10):
        async with answering(good({"pageCount": 1, "items": [{"name": "camera0", **members}]})) as (client, _):
            (path,) = await client.list_paths()
    assert path.ready_since == (pytest.approx(since, abs=1e-5) if since else None)


async def test_null_members_of_a_session_are_nothing() -> None:
    """A session that is not on a path yet has none."""
    with fail_after(10):
        item = {"id": "a", "path": None, "state": None}
        async with answering(good({"pageCount": 1, "items": [item]})) as (client, _):
            (session,) = await client.list_sessions_of("webrtc")
    assert (session.path, session.state, session.connections) == ("", "", ())


async def test_silence_ends_at_the_deadline() -> None:
    """A server that accepts and says nothing is a failure that says so, without the password."""
    with fail_after(10):
        async with answering(None, timeout=0.1) as (client, _):
            with pytest.raises(DependencyFailed, match=r"GET /v3/info within 0\.1 s") as caught:
                await client.info()
    assert SECRET not in str(caught.value)


async def test_a_single_call_may_have_more_time() -> None:
    """The health check waits longer than MediaMTX waits for the hook."""
    with fail_after(10):
        async with answering(None, timeout=9) as (client, _):
            with pytest.raises(DependencyFailed, match=r"within 0\.05 s"):
                await client.list_paths(timeout=0.05)


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    """A refused connection says so."""
    with trio.socket.socket() as holder:
        await holder.bind(("127.0.0.1", 0))
        client = ControlApi("127.0.0.1", holder.getsockname()[1], "edged", SECRET)
        with fail_after(10), pytest.raises(DependencyFailed, match="refused"):
            await client.info()


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", OK, OK + b"Content-Length: 10\r\n\r\nhalf", good([1]), good({"version": 3}),
     OK + b"Content-Length: 1\r\n\r\n{", b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"],
)  # fmt: skip
async def test_a_broken_answer_is_a_failure(answer: bytes) -> None:
    """Whatever comes instead of what was asked for is one kind of error."""
    with fail_after(10):
        async with answering(answer) as (client, _):
            with pytest.raises(DependencyFailed):
                await client.info()


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has a greatest length."""
    monkeypatch.setattr("edged.mediamtx.client.ANSWER_BYTES", 1000)
    with fail_after(10):
        async with answering(OK + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000) as (client, _):
            with pytest.raises(DependencyFailed, match="too long"):
                await client.info()


async def test_a_refusal_tells_where_to_look() -> None:
    """401 is the hook's doing, and the error says so."""
    with fail_after(10):
        async with answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") as (client, _):
            with pytest.raises(DependencyFailed, match="401") as caught:
                await client.kick("rtsp", "x")
    assert "hook" in caught.value.hint


async def test_mediamtxs_own_reason_is_passed_on() -> None:
    """The `error` member of its answer stands in ours."""
    body = b'{"status":"error","error":"invalid path name"}'
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n" + body
    with fail_after(10):
        async with answering(answer) as (client, _):
            with pytest.raises(DependencyFailed, match="invalid path name"):
                await client.delete_path("x")


async def test_a_list_that_must_exist_may_not_be_absent() -> None:
    """A server without the path list is not one that we can supervise."""
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
    with fail_after(10):
        async with answering(answer) as (client, _):
            with pytest.raises(DependencyFailed, match="404"):
                await client.list_paths()
            assert await client.list_sessions() == []


async def test_names_are_quoted() -> None:
    """An id from outside cannot change which call is made."""
    with fail_after(10):
        async with answering(good({"status": "ok"})) as (client, asked):
            assert await client.kick("rtsp", "../x y?z\r\n")
    assert asked[0].startswith(b"POST /v3/rtspsessions/kick/..%2Fx%20y%3Fz%0D%0A HTTP/1.1\r\n")


@settings(max_examples=times(50, least=25), deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=300))
async def test_no_body_breaks_the_client(body: bytes) -> None:
    """For any bytes the outcome is a list or our own error."""
    head = OK + f"Content-Length: {len(body)}\r\n\r\n".encode()
    with fail_after(10):
        async with answering(head + body) as (client, _):
            with pytest.raises(DependencyFailed):
                await client.list_paths()
