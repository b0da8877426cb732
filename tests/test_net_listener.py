"""Listening: addresses, socket files, inherited sockets, caps, exhaustion, stopping."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from typing import Any, cast

import pytest
import trio
import trio.testing
from net_helpers import GET_X as GET
from net_helpers import ask, connect, opened, read_all, read_reply, running, serve_unrestricted, until
from patience import fail_after
from structlog.testing import capture_logs

from edged.errors import StartFailed
from edged.net import pools
from edged.net import server as module
from edged.net.handlers import Handlers
from edged.net.listeners import Listener, inherit, open_all_tcp, open_tcp, open_unix


@pytest.mark.parametrize("address", ["", "8002", "a:b", "a:", "a:65536", "a:-1", "a:٣", "::1:80"])
def test_what_is_no_address_is_refused_by_name(address):
    """The error names what was written."""
    with pytest.raises(StartFailed) as failed:
        open_tcp("main", address)
    assert repr(address) in str(failed.value)


def test_a_taken_port_is_named_with_its_remedy():
    """The first thing an installer sees when an old service still runs."""
    first = open_tcp("main", "127.0.0.1:0")
    try:
        with pytest.raises(StartFailed) as failed:
            open_tcp("main", f"127.0.0.1:{first.port}")
        assert f"127.0.0.1:{first.port}" in str(failed.value)
        assert "another program" in failed.value.hint
    finally:
        first.close()


def test_an_ipv6_listener_leaves_ipv4_alone():
    """[::] and 0.0.0.0 stand side by side on one port."""
    first = open_tcp("main", "0.0.0.0:0")
    second = open_tcp("main", f"[::]:{first.port}")
    assert first.port == second.port
    first.close()
    second.close()


def test_without_ipv6_the_other_addresses_still_open(monkeypatch):
    """A box without IPv6 starts; the log says what is missing."""
    plain = socket.socket

    def no_ipv6(family=-1, *given, **named):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return plain(family, *given, **named)

    monkeypatch.setattr(socket, "socket", no_ipv6)
    for addresses in (["127.0.0.1:0", "[::1]:0"], ["[::]:0", "127.0.0.1:0"], ["localhost:0"], [":0"]):
        without: list[str] = []
        opened_now = open_all_tcp("main", addresses, without)
        assert [each.socket.family for each in opened_now] == [socket.AF_INET]
        assert len(without) == 1
        with pytest.raises(StartFailed):
            open_all_tcp("main", ["127.0.0.1:0", f"127.0.0.1:{opened_now[0].port}"])
        opened_now[0].close()
    with pytest.raises(StartFailed):
        open_all_tcp("main", ["[::1]:0"])


def test_an_ipv6_address_of_another_machine_is_an_error_where_there_is_ipv6():
    """A typing error in an address is not taken for a system without IPv6."""
    with pytest.raises(StartFailed, match="2001:db8::7"):
        open_all_tcp("main", ["127.0.0.1:0", "[2001:db8::7]:0"])


@pytest.mark.parametrize(("address", "hosts"), [(":0", ["0.0.0.0", "::"]), ("localhost:0", ["127.0.0.1", "::1"])])
def test_a_port_alone_is_listened_at_over_both_families(address, hosts):
    """One port, IPv4 and IPv6."""
    opened_now = open_all_tcp("main", [address])
    assert [each.socket.getsockname()[0] for each in opened_now] == hosts
    assert len({each.port for each in opened_now}) == 1
    for each in opened_now:
        each.close()


async def test_a_unix_peer_has_the_uid_that_the_kernel_states(tmp_path):
    """SO_PEERCRED; mode 0660; the file goes when we stop."""
    path = tmp_path / "run" / "edged.sock"
    async with running(listeners=[open_unix("unix", path)]) as served:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(GET.replace(b"Host: a", b"Host: box"))
            await read_reply(stream)
        peer = served.scopes[0]["edged.peer"]
        assert (peer.uid, peer.listener, peer.address, peer.host) == (os.getuid(), "unix", "", "box")
        assert served.scopes[0]["client"] is None
        assert served.listeners[0].port == 0
    assert not path.exists()


async def test_a_socket_file_is_replaced_only_if_nobody_answers(tmp_path):
    """A stale file from a crash goes; a running daemon's stays, and so does a file that is no socket."""
    path = tmp_path / "edged.sock"
    open_unix("unix", path).socket.close()
    live = open_unix("unix", path)
    with pytest.raises(StartFailed, match="another program listens"):
        open_unix("unix", path)
    live.close()
    path.write_text("precious")
    with pytest.raises(StartFailed, match="move the file away"):
        open_unix("unix", path)
    assert path.read_text() == "precious"
    with pytest.raises(StartFailed):
        open_unix("unix", tmp_path / ("x" * 200))


async def test_an_inherited_socket_is_served_and_its_file_stays(tmp_path):
    """systemd made it; systemd removes it."""
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        async with running(listeners=[inherit("unix", given.dup())]), await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(GET)
            await read_reply(stream)
    assert path.exists()


async def test_the_33rd_stranger_of_an_address_is_turned_away_with_429(monkeypatch):
    """Whoever authenticates makes room again; other addresses are not concerned."""
    monkeypatch.setattr(pools, "is_loopback", lambda _: False)
    async with running() as served, trio.open_nursery() as nursery:
        strangers = [await connect(served.port) for _ in range(31)]
        async with opened(served) as client:
            refused = await connect(served.port)
            reply = await read_all(refused)
            assert reply.startswith(b"HTTP/1.1 429 ")
            assert b"Retry-After: 10" in reply
            assert b"loopback is exempt" in reply
            await refused.aclose()
            await client.send_message("login")
            await client.get_message()
            await strangers[0].send_all(GET)
            await read_reply(strangers[0])
            async with await connect(served.port) as allowed:
                await allowed.send_all(GET)
                assert (await read_reply(allowed))[1] == b"hello"
                served.scopes[0]["edged.authenticated"]("api_key:somebody")
                async with await connect(served.port) as another:
                    await another.send_all(GET)
                    await read_reply(another)
        for each in strangers:
            await each.aclose()
        nursery.cancel_scope.cancel()


async def test_loopback_is_exempt_from_the_cap_of_an_address():
    """A proxy or a console may sit there."""
    async with running(unauthenticated_per_address=2) as served:
        streams = [await connect(served.port) for _ in range(6)]
        for each in streams:
            await each.send_all(GET)
            assert (await read_reply(each))[1] == b"hello"
            await each.aclose()


async def test_over_the_total_cap_the_answer_is_503():
    """And one more is let in as soon as somebody leaves; the count is told on."""
    async with running(connections=2) as served:
        first, second = await connect(served.port), await connect(served.port)
        await until(lambda: served.server.connections == 2)
        assert (await ask(served.port, b"")).startswith(b"HTTP/1.1 503 ")
        await first.aclose()
        await until(lambda: served.server.connections == 1)
        async with await connect(served.port) as third:
            await third.send_all(GET)
            await read_reply(third)
        await second.aclose()
        await until(lambda: served.server.connections == 0)
        assert max(served.counts) == 2
        assert served.counts[-1] == 0


async def test_a_flood_over_the_cap_costs_no_tasks():
    """Past 64 polite refusals the rest is written and closed at once."""
    async with running(connections=1) as served:
        first = await connect(served.port)
        await until(lambda: served.server.connections == 1)
        crowd = [await connect(served.port) for _ in range(80)]
        replies = [await each.receive_some(1000) for each in crowd]
        assert all(reply.startswith(b"HTTP/1.1 503 ") for reply in replies)
        for each in (first, *crowd):
            await each.aclose()
        await trio.sleep(0.05)


class BadListening:
    """A listening socket that fails a few times first."""

    def __init__(self, real: Any, errors: list[OSError]) -> None:
        self._real, self._errors = real, errors
        self.family = real.family

    def fileno(self):
        return self._real.fileno()

    def accept(self):
        if self._errors:
            raise self._errors.pop(0)
        return self._real.accept()

    def getsockname(self):
        return self._real.getsockname()

    def close(self):
        self._real.close()


async def test_accepting_survives_exhaustion_and_clients_that_left():
    """EMFILE pauses and is logged; ECONNABORTED is nobody's news."""
    real = open_tcp("main", "127.0.0.1:0")
    errors = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "aborted")]
    with capture_logs() as log:
        bad = Listener("main", cast("socket.socket", BadListening(real.socket, errors)))
        async with running(listeners=[bad]) as served, await connect(served.port) as stream:
            await stream.send_all(GET)
            assert (await read_reply(stream))[1] == b"hello"
    assert [line["event"] for line in log] == ["accept_failed"]


async def test_a_client_that_left_before_we_looked_is_nothing(monkeypatch):
    """The address cannot be asked any more: closed, no log line."""

    def gone(*_):
        raise OSError(errno.ENOTCONN, "not connected")

    with capture_logs() as log:
        async with running() as served:
            monkeypatch.setattr(module, "peer_of", gone)
            assert await ask(served.port, b"") == b""
    assert log == []


async def test_a_broken_check_ends_its_connection_only(monkeypatch):
    """The watcher goes on whatever it meets."""
    from edged.net.connection import Connection

    async with running(head_seconds=0.2) as served:
        with capture_logs() as log:
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "check", lambda *_: 1 / 0)
                async with await connect(served.port) as stream:
                    assert await read_all(stream) == b""
            async with await connect(served.port) as stream:
                await stream.send_all(GET)
                await read_reply(stream)
        assert [line["event"] for line in log] == ["check_failed"]


async def test_a_bug_in_a_connection_is_an_incident_and_not_the_end(monkeypatch):
    """One line with an id; the neighbours notice nothing."""
    from edged.net.connection import Connection

    async def broken(self):
        raise ValueError("a bug")

    async with running() as served:
        with capture_logs() as log:
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "_speak", broken)
                assert await ask(served.port, GET) == b""
            async with await connect(served.port) as stream:
                await stream.send_all(GET)
                await read_reply(stream)
        assert [(line["event"], len(line["incident"])) for line in log] == [("connection_failed", 8)]


async def test_stopping_leaves_no_task_thread_or_file(tmp_path):
    """The server's nursery is empty when `serve` has ended."""
    threads = threading.active_count()
    path = tmp_path / "edged.sock"
    async with running(listeners=[open_tcp("main", "127.0.0.1:0"), open_unix("unix", path)]) as served:
        await trio.testing.wait_all_tasks_blocked(0.01)  # each listener has its task by then
        tasks = trio.lowlevel.current_statistics().tasks_living
        streams = [await connect(served.port) for _ in range(20)]
        await until(lambda: served.server.connections == 20)
        for each in streams:
            await each.aclose()
        await until(lambda: served.server.connections == 0)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
    assert threading.active_count() == threads
    assert not path.exists()


async def test_a_start_that_is_given_up_ends():
    """Something else of the services failed while the listeners were opening: nothing may wait for them."""
    listener = open_tcp("main", "127.0.0.1:0")
    with fail_after(20), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            scope.cancel()
            await nursery.start(serve_unrestricted, [listener], Handlers(cast(Any, None), cast(Any, None)))
    assert scope.cancelled_caught
    assert listener.socket.fileno() == -1
