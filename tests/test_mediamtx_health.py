"""Whether a running MediaMTX works is asked of its RTSP listener and of its path manager, and said at once."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from daemon_helpers import running_daemon
from log_helpers import kept_log
from media_helpers import (
    QUICK,
    REAL,
    eventually,
    install_standin,
    is_alive,
    open_hook,
    order,
    running,
    supervisor,
    until,
)
from msgspec.structs import replace
from patience import fail_after

from edged.errors import DependencyFailed
from edged.mediamtx.client import ControlApi
from edged.mediamtx.health import Health, is_own_shortage
from edged.mediamtx.process import Supervisor
from edged.mediamtx.server_state import ServerState


async def until_silent(server: Supervisor) -> ServerState:
    """Wait until it is known that MediaMTX does not answer."""
    with server.states.subscribe() as states:
        state: object = server.state
        while not (isinstance(state, ServerState) and not state.answers):
            state = await states.receive()
        return state


async def test_a_closed_listener_fails_the_health_check(tmp_path: Path) -> None:
    """Its API answers as before, nobody can connect for RTSP: it is started again."""
    folder = install_standin(tmp_path / "bin").parent
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", folder / "mediamtx")
            async with running(server.run):
                first = await until(server, "ready")
                order(folder, "close-rtsp")
                assert "RTSP listener" in (await until(server, "unhealthy")).detail
                order(folder)
                assert (await until(server, "ready")).pid != first.pid


@pytest.mark.mediamtx
async def test_a_listener_that_ran_out_of_descriptors_is_replaced(tmp_path: Path) -> None:
    """MediaMTX closes its RTSP listener when accept fails, and its API goes on answering: a new one comes."""
    with fail_after(60), ExitStack() as sockets:
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), timing=replace(QUICK, health_every=2.0))
            async with running(server.run):
                first = await until(server, "ready")
                assert first.pid is not None
                assert first.rtsp_port is not None
                used = len(list(Path(f"/proc/{first.pid}/fd").iterdir()))
                resource.prlimit(first.pid, resource.RLIMIT_NOFILE, (used + 2, used + 2))
                with suppress(OSError):
                    for _ in range(8):
                        sockets.enter_context(socket.create_connection(("127.0.0.1", first.rtsp_port), timeout=5))
                await until(server, "unhealthy")
                assert (await until(server, "ready")).pid != first.pid


@pytest.mark.mediamtx
async def test_a_server_that_was_frozen_is_not_healthy_before_it_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP: what health and status say turns while the very same process is still being waited for."""
    with fail_after(80):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            assert (await daemon.request("GET", "/healthz")).json["status"] == "healthy"
            pid = _pid_of("mediamtx", tmp_path)
            os.kill(pid, signal.SIGSTOP)
            try:
                while (await daemon.request("GET", "/healthz")).json["status"] == "healthy":
                    await trio.sleep(0.1)
                status = await admin.call("get_system_status")
                assert status["mediamtx"]["status"] == "ready"
                assert status["status"] == "partial"
                assert "not answer" in status["message"]
            finally:
                os.kill(pid, signal.SIGCONT)
            while (await daemon.request("GET", "/healthz")).json["status"] != "healthy":
                await trio.sleep(0.1)
            assert is_alive(pid)


def _pid_of(program: str, folder: Path) -> int:
    """The process of this name that was started with something in this folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if arguments[0].endswith(program.encode()) and any(str(folder).encode() in each for each in arguments):
                return int(process.name)
    raise AssertionError(f"no process {program}")


async def test_a_slow_health_check_is_reported_before_it_ends(tmp_path: Path) -> None:
    """It does not answer for a while and then does: the state says both, and it is the same process."""
    folder = install_standin(tmp_path / "bin").parent
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", folder / "mediamtx", timing=replace(QUICK, slow_after=0.2))
            async with running(server.run):
                first = await until(server, "ready")
                assert first.answers
                assert first.pid is not None
                os.kill(first.pid, signal.SIGSTOP)
                silent = await until_silent(server)
                assert (silent.status, silent.pid) == ("ready", first.pid)
                os.kill(first.pid, signal.SIGCONT)
                await eventually(lambda: server.state == first)


async def test_a_suspicion_causes_a_health_check_at_once(tmp_path: Path) -> None:
    """Somebody could not reach it: its health is looked at before the next look would be due."""
    folder = install_standin(tmp_path / "bin").parent
    with fail_after(30):
        async with open_hook() as hook:
            timing = replace(QUICK, health_every=20.0)
            server = supervisor(hook, tmp_path / "run", folder / "mediamtx", timing=timing)
            async with running(server.run):
                await until(server, "ready")
                order(folder, "500")
                await trio.sleep(0.1)
                assert server.state.answers
                server.suspect()
                await until_silent(server)


@pytest.mark.mediamtx
async def test_health_checks_leave_no_log_lines(tmp_path: Path) -> None:
    """MediaMTX logs each RTSP connection; those that edged makes to look at it are not in edged's log."""
    with fail_after(30), kept_log() as log:
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL))
            async with running(server.run):
                state = await until(server, "ready")
                asked = len(hook.questions)
                await eventually(lambda: len(hook.questions) > asked + 5)
                assert state.rtsp_port is not None
                async with await trio.open_tcp_stream("127.0.0.1", state.rtsp_port) as stranger:
                    name = "{}:{}".format(*stranger.socket.getsockname())
                    await eventually(lambda: f"conn {name}] opened" in log.getvalue())
    opened = [line for line in log.getvalue().splitlines() if "[RTSP] [conn" in line and "opened" in line]
    assert len(opened) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_want_of_our_own_descriptors_is_no_verdict(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that edged itself could not make tells nothing about MediaMTX."""

    async def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("edged.mediamtx.health.connect", fail)
    with pytest.raises(DependencyFailed) as caught:
        await Health(ControlApi("127.0.0.1", 1, "u", "p"), ("127.0.0.1", 1)).check(1.0, 1.0)
    assert is_own_shortage(caught.value)


async def test_a_refused_connection_is_a_verdict() -> None:
    with pytest.raises(DependencyFailed, match="RTSP listener") as caught:
        await Health(ControlApi("127.0.0.1", 1, "u", "p"), ("127.0.0.1", 1)).check(1.0, 1.0)
    assert not is_own_shortage(caught.value)


async def test_another_program_on_its_port_is_no_health() -> None:
    """What answers something else than RTSP is named as that."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"SSH-2.0-x\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(DependencyFailed, match="does not speak RTSP"):
            await Health(ControlApi("127.0.0.1", 1, "u", "p"), ("127.0.0.1", port)).check(1.0, 1.0)
        nursery.cancel_scope.cancel()
