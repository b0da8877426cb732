"""What edged relies on MediaMTX to do, asked of the stand-in and of the real program alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from media_helpers import (
    ENVIRONMENT,
    REAL,
    Hook,
    RtspClient,
    install_standin,
    is_alive,
    open_hook,
    open_rtsp,
    running,
    supervisor,
    until,
)
from patience import fail_after

from edged.children import spawn
from edged.errors import DependencyFailed
from edged.mediamtx import settings
from edged.mediamtx.client import ControlApi
from edged.mediamtx.paths import Paths, plan
from edged.mediamtx.process import Supervisor
from edged.mediamtx.settings import parse_version, path_conf
from edged.mediamtx.viewers import Viewers

real = pytest.param("real", marks=[pytest.mark.mediamtx, pytest.mark.skipif(REAL is None, reason="mediamtx not found")])
ALWAYS = {"source": "publisher", "overridePublisher": True}


@pytest.fixture(params=["standin", real])
def binary(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The program under test."""
    return str(install_standin(tmp_path / "bin")) if request.param == "standin" else str(REAL)


@asynccontextmanager
async def ready(binary: str, folder: Path, hook: Hook, **more: Any) -> AsyncIterator[tuple[Supervisor, ControlApi]]:
    """A supervisor with a server that is ready."""
    server = supervisor(hook, folder / "run", binary, **more)
    async with running(server.run):
        await until(server, "ready")
        assert server.client is not None
        yield server, server.client


async def test_it_says_its_version(binary: str) -> None:
    """`--version` prints a version that we can read."""
    with fail_after(20):
        async with spawn([binary, "--version"], environment=ENVIRONMENT, landlock=None) as child:
            assert child.stdout is not None
            assert parse_version((await child.stdout.receive_some()).decode()) == (1, 20, 1)
            assert await child.wait() == 0


async def test_it_takes_our_configuration_and_answers(binary: str, tmp_path: Path) -> None:
    """With the file that we write it becomes ready, and every call of its API asks our hook with our secret."""
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            assert (await client.info()).version == "v1.20.1"
            assert {question["action"] for question in hook.questions} == {"api"}
            assert {question["user"] for question in hook.questions} == {"edged"}


async def test_a_path_can_be_made_set_again_and_removed(binary: str, tmp_path: Path) -> None:
    """Replace makes a path where there is none and is harmless when repeated; delete removes it, also twice."""
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            for _ in range(2):
                await client.replace_path("camera0", ALWAYS)
                assert plan({"camera0": ALWAYS}, await client.list_path_configs()) == []
            assert [path.name for path in await client.list_paths()] == ["camera0"]
            for _ in range(2):
                await client.delete_path("camera0")
                assert await client.list_path_configs() == {}


async def test_what_an_on_demand_path_is_set_to_is_what_it_lists(binary: str, tmp_path: Path) -> None:
    """Our values are in its own normal form: nothing is set again for nothing, and a change of mode is seen."""
    from test_mediamtx_settings import FakeSource

    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            for always_on in (False, True, False):
                wanted = {"camera0": path_conf(FakeSource("camera0", always_on))}
                assert plan(wanted, await client.list_path_configs()) != []
                await client.replace_path("camera0", wanted["camera0"])
                assert plan(wanted, await client.list_path_configs()) == []


async def test_lists_longer_than_a_page_come_whole(
    binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is read page after page."""
    monkeypatch.setattr("edged.mediamtx.client.PAGE_ITEMS", 2)
    wanted = {f"camera{n}": ALWAYS for n in range(5)}
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook, wanted_paths=lambda: wanted) as (_, client):
            assert sorted(path.name for path in await client.list_paths()) == sorted(wanted)


async def test_a_path_it_cannot_have_is_refused_with_its_reason(binary: str, tmp_path: Path) -> None:
    """A bad value changes nothing and ends nothing; the error carries MediaMTX's reason."""
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            with pytest.raises(DependencyFailed, match="unknown field"):
                await client.replace_path("camera0", {"nonsense": 1})
            assert await client.list_paths() == []


async def test_a_stranger_cannot_use_the_control_api(binary: str, tmp_path: Path) -> None:
    """Another password is refused, so other local users cannot kick or list."""
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            stranger = ControlApi(*client._address, "edged", "guess", timeout=15)
            with pytest.raises(DependencyFailed, match="401"):
                await stranger.list_paths()


async def test_a_kick_of_an_unknown_session_finds_nothing(binary: str, tmp_path: Path) -> None:
    """An unknown id is an answer, not an error, over every protocol that is on, and over one that is off."""
    nobody = "0d3c9a1e-9c4f-4b49-8f52-0d4c4f6a0000"
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            for protocol in ("rtsp", "hls", "webrtc", "rtmp"):
                assert not await client.kick(protocol, nobody)


async def test_a_protocol_that_is_off_has_no_sessions(binary: str, tmp_path: Path) -> None:
    """A list that does not exist is an empty one."""
    with fail_after(30):
        async with open_hook() as hook, ready(binary, tmp_path, hook) as (_, client):
            assert await client.list_sessions_of("rtmp") == []


@asynccontextmanager
async def streaming(server: Supervisor) -> AsyncIterator[tuple[RtspClient, RtspClient]]:
    """A publisher and a reader of camera0."""
    port = server.state.rtsp_port
    async with open_rtsp(port, "camera0") as publisher, open_rtsp(port, "camera0") as reader:
        await publisher.publish()
        await reader.read()
        yield publisher, reader


async def test_a_reader_is_listed_and_can_be_kicked(binary: str, tmp_path: Path) -> None:
    """The id that the hook was told is the one listed; a kick closes that connection and no other."""
    with fail_after(30):
        async with (
            open_hook() as hook,
            ready(binary, tmp_path, hook, wanted_paths=lambda: {"camera0": ALWAYS}) as (server, client),
            streaming(server) as (publisher, reader),
        ):
            sessions = {session.state: session for session in await client.list_sessions()}
            assert sessions.keys() == {"publish", "read"}
            asked = [q["id"] for q in hook.questions if q["action"] == "read"]
            assert sessions["read"].id == asked[-1]
            assert sessions["read"].path == "camera0"
            assert len(sessions["read"].connections) == 1
            (path,) = await client.list_paths()
            assert (path.ready, path.readers, path.source_type) == (True, 1, "rtspSession")
            assert await client.kick("rtsp", sessions["read"].id)
            assert [session.state for session in await client.list_sessions()] == ["publish"]
            await reader.wait_closed()
            assert not await client.kick("rtsp", sessions["read"].id)
            assert await publisher.ask("OPTIONS") == 200


async def test_a_kick_by_connection_finds_the_session(binary: str, tmp_path: Path) -> None:
    """Older servers told the hook the connection's id; that is enough to put the reader out."""
    with fail_after(30):
        async with (
            open_hook() as hook,
            ready(binary, tmp_path, hook, wanted_paths=lambda: {"camera0": ALWAYS}) as (server, _client),
            streaming(server) as (_, reader),
        ):
            viewers = Viewers(server)
            (reading,) = [session for session in await viewers.list() if session.state == "read"]
            async with running(viewers.run):
                viewers.kick("rtsp", reading.connections[0])
                await reader.wait_closed()
            assert [session.state for session in await viewers.list()] == ["publish"]


async def test_a_removed_path_ends_its_sessions(binary: str, tmp_path: Path) -> None:
    """Taking a camera away closes its publisher and its readers. All before the deadline."""
    with fail_after(30):
        async with (
            open_hook() as hook,
            ready(binary, tmp_path, hook, wanted_paths=lambda: {"camera0": ALWAYS}) as (server, client),
            streaming(server) as (publisher, reader),
        ):
            await client.delete_path("camera0")
            await publisher.wait_closed()
            await reader.wait_closed()
            # A connection may be gone before the list says so.
            while await client.list_sessions():
                await trio.sleep(0.02)


async def test_a_denied_reader_gets_no_session(binary: str, tmp_path: Path) -> None:
    """What the hook refuses is refused, and a path that is not configured is not even asked about."""
    with fail_after(30):
        async with (
            open_hook(lambda question: False) as hook,
            ready(binary, tmp_path, hook, wanted_paths=lambda: {"camera0": ALWAYS}) as (server, client),
        ):
            async with open_rtsp(server.state.rtsp_port, "camera0") as reader:
                assert await reader.ask("DESCRIBE", Accept="application/sdp") == 401
            hook.questions.clear()
            async with open_rtsp(server.state.rtsp_port, "camera9") as reader:
                assert await reader.ask("DESCRIBE", Accept="application/sdp") == 400
            assert await client.list_sessions() == []
            assert all(question["action"] == "api" for question in hook.questions)


async def test_a_taken_port_is_a_state_that_names_the_port_and_its_holder(binary: str, tmp_path: Path) -> None:
    """The state says which port, who has it, and becomes ready once it is free."""
    holder = trio.socket.socket()
    await holder.bind(("127.0.0.1", 0))
    holder.listen()
    port = holder.getsockname()[1]
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", binary, rtsp=f"127.0.0.1:{port}")
            async with running(server.run):
                state = await until(server, "port_taken")
                assert f"{port}/tcp" in state.detail
                assert f"pid {__import__('os').getpid()}" in state.detail
                assert "[mediamtx]" in state.remedy
                holder.close()
                assert (await until(server, "ready")).rtsp_port == port


async def test_a_taken_udp_port_is_named_too(binary: str, tmp_path: Path) -> None:
    """WebRTC's UDP port counts like the others."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as holder:
        await holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        with fail_after(30):
            async with open_hook() as hook:
                server = supervisor(hook, tmp_path / "run", binary, webrtc_udp=f"127.0.0.1:{port}")
                async with running(server.run):
                    assert f"{port}/udp" in (await until(server, "port_taken")).detail


async def test_a_refused_configuration_is_a_state_with_its_own_line(
    binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that it does not know ends up in the state, word for word; the same again follows pauses."""
    import edged.mediamtx.process as process

    render = settings.render
    monkeypatch.setattr(process, "render", lambda *a, **k: render(*a, **k).replace('"rtspEncryption"', '"nonsense"'))
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", binary)
            async with running(server.run):
                state = await until(server, "config_refused")
                assert 'json: unknown field "nonsense"' in state.detail
                assert state.remedy


async def test_stopping_leaves_nothing_behind(binary: str, tmp_path: Path) -> None:
    """After a stop there is no process, no configuration file, and no secret that is still good."""
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", binary)
            async with running(server.run):
                pid = (await until(server, "ready")).pid
                assert pid is not None
                assert (tmp_path / "run" / "mediamtx.json").stat().st_mode & 0o777 == 0o600
            assert server.state.status == "stopped"
            assert server.client is None
            assert not is_alive(pid)
            assert list((tmp_path / "run").iterdir()) == []
            assert hook.secrets == set()


async def test_after_a_kill_it_is_ready_again_with_its_paths(binary: str, tmp_path: Path) -> None:
    """kill -9 of MediaMTX: a new one with the same paths stands within 5 s, also for changes made meanwhile."""
    from test_mediamtx_settings import FakeSource

    paths = Paths()
    paths.set_wanted([FakeSource("camera0")])
    with fail_after(60):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", binary, wanted_paths=paths.wanted)
            async with running(server.run, partial(paths.run, server)):
                first = (await until(server, "ready")).pid
                assert first is not None
                __import__("os").kill(first, 9)
                began = trio.current_time()
                assert "signal 9" in (await until(server, "waiting")).detail
                paths.set_wanted([FakeSource("camera0"), FakeSource("camera1", always_on=True)])
                assert (await until(server, "ready")).pid != first
                while not paths.converged:
                    await trio.sleep(0.01)
                assert {path.name for path in await paths.list()} == {"camera0", "camera1"}
                assert trio.current_time() - began < 5
