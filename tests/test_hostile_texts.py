"""A whole running daemon, and texts that were made to cost: each is refused for about what a harmless one costs."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
import trio
from daemon_helpers import RunningDaemon, running_daemon
from net_helpers import ask, connect
from patience import fail_after

ATTACK = b"[" * 65 + b'"' + b'\\"' * 1400
HARMLESS = b'{"a":"' + b"x" * (len(ATTACK) - 8) + b'"}'
HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")


def token_of(payload: bytes) -> bytes:
    """Three parts, of which the last could be a signature."""
    return HEADER + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=") + b"." + b"A" * 43


def requests_with(token: bytes) -> list[bytes]:
    """The ways in for a stranger that take a bearer token."""
    head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + token + b"\r\n"
    return [
        b"GET /api/keys" + head + b"\r\n",
        b"GET /api/cameras/camera0/live.mjpeg" + head + b"\r\n",
        b"GET /files/snapshots/a.jpg" + head + b"\r\n",
        b"GET /metrics" + head + b"\r\n",
        b"POST /oauth/introspect" + head + b"Content-Length: 0\r\n\r\n",
    ]


async def cost_of(daemon: RunningDaemon, data: bytes) -> float:
    """Processor seconds of the daemon, which runs in this thread, for one request; the least of some."""
    times = []
    for _ in range(3):
        started = time.thread_time()
        assert (await ask(daemon.port, data)).startswith(b"HTTP/1.1 4")
        times.append(time.thread_time() - started)
    return min(times)


async def test_a_bearer_that_was_made_to_cost_costs_what_another_one_of_its_length_does(tmp_path: Path) -> None:
    """At each endpoint that a stranger can reach."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            for attack, harmless in zip(
                requests_with(token_of(ATTACK)), requests_with(token_of(HARMLESS)), strict=True
            ):
                assert await cost_of(daemon, attack) < 4 * await cost_of(daemon, harmless), attack[:60]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_the_live_picture_goes_on_for_a_client_that_sends_no_more(tmp_path: Path, version: bytes) -> None:
    """It has ended its own side, and reads: several pictures over more than the watcher's pause."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            _, key = await daemon.create_key("viewer")
            async with await connect(daemon.port) as stream:
                head = b"GET /api/cameras/camera0/live.mjpeg HTTP/%b\r\nHost: localhost\r\nX-API-Key: %b\r\n\r\n"
                await stream.send_all(head % (version, key.encode()))
                await stream.send_eof()
                pictures, started = 0, trio.current_time()
                while trio.current_time() - started < 3 or pictures < 3:
                    data = await stream.receive_some(65536)
                    assert data, "the picture has ended"
                    pictures += data.count(b"\xff\xd8\xff")
