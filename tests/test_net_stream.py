"""The stream itself: ends, breaks, stalls, and use after close, over a real socket pair."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing
from patience import fail_after

from edged.net.stream import Stream


@pytest.fixture
def pair():
    """A stream and the bare socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setblocking(False)
    with theirs:
        yield Stream(ours), theirs
        ours.close()


async def test_bytes_go_both_ways_until_the_end(pair):
    """b"" is the end; nothing there is None."""
    stream, theirs = pair
    assert stream.receive_now() is None
    theirs.sendall(b"hello")
    assert await stream.receive() == b"hello"
    assert stream.try_send(b"there") == 5
    assert theirs.recv(100) == b"there"
    assert not stream.is_peer_gone()
    theirs.sendall(b"unread")
    theirs.close()
    assert stream.is_peer_gone()
    assert stream.receive_now() == b"unread"
    assert await stream.receive() == b""
    stream.close()


async def test_a_full_kernel_takes_what_it_can_and_the_rest_waits(pair):
    """try_send never waits; send_all waits and shows since when."""
    stream, theirs = pair
    data = bytes(range(256)) * 40000
    got = bytearray()

    async def read() -> None:
        await trio.sleep(0.1)
        assert stream.stalled_since is not None
        theirs.setblocking(False)
        while len(got) < len(data):
            await trio.lowlevel.wait_readable(theirs)
            got.extend(theirs.recv(1000000))

    with fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await stream.send_all(data)
            assert stream.stalled_since is None
    assert bytes(got) == data
    while stream.try_send(data):
        pass
    assert stream.try_send(b"x") == 0
    stream.abort()


async def test_a_reset_is_a_broken_stream(pair):
    """Reading and writing both say so in trio's words."""
    stream, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive()
    with pytest.raises(trio.BrokenResourceError):
        stream.try_send(b"x")
    assert stream.is_peer_gone()
    stream.end_writing()
    stream.close()


async def test_a_reset_is_seen_without_waiting_too(pair):
    """`receive_now` is no exception."""
    stream, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(trio.BrokenResourceError):
        stream.receive_now()
    stream.close()


async def test_closing_wakes_whoever_waits_and_stays_closed(pair):
    """ClosedResourceError from everything; closing twice is nothing."""
    stream, _ = pair
    with fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            stream.close()
    stream.close()
    stream.abort()
    assert stream.is_peer_gone()
    for use in (stream.receive, stream.wait_readable, stream.wait_writable):
        with pytest.raises(trio.ClosedResourceError):
            await use()
    for use_now in (lambda: stream.try_send(b"x"), stream.receive_now):
        with pytest.raises(trio.ClosedResourceError):
            use_now()


async def test_reading_gives_way_to_others(pair):
    """A peer that sends without pause does not keep the loop: each read is a checkpoint."""
    stream, theirs = pair
    turns = []

    async def other() -> None:
        for _ in range(3):
            turns.append("other")
            await trio.lowlevel.checkpoint()

    with fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            theirs.sendall(b"abcdef")
            for _ in range(6):
                turns.append((await stream.receive(1)).decode())
    assert turns.index("other") < turns.index("f")
    stream.close()
