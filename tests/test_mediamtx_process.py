"""The supervisor: every way in which MediaMTX can fail, by the stand-in; what only the real program shows, by it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from media_helpers import (
    LOOPBACK,
    QUICK,
    REAL,
    STANDIN,
    eventually,
    install_standin,
    is_alive,
    open_hook,
    open_rtsp,
    order,
    running,
    supervisor,
    until,
)
from patience import fail_after
from structlog.testing import capture_logs
from test_mediamtx_settings import FakeSource

from edged.children import spawn
from edged.config.model import MediaMTXSettings
from edged.mediamtx.paths import Paths
from edged.mediamtx.ports import pick_ports
from edged.mediamtx.process import Supervisor
from edged.mediamtx.server_run import RunEnd, Timing
from edged.mediamtx.server_state import ServerState
from edged.mediamtx.settings import find_binary, path_conf
from edged.mediamtx.viewers import Viewers

BRISK = Timing(first_pause=0.05, longest_pause=0.2, health_every=0.05, health_within=1.0, stop_grace=0.5)


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder with a stand-in called mediamtx."""
    return install_standin(tmp_path / "bin").parent


async def test_switched_off_is_a_state_and_no_process(tmp_path: Path) -> None:
    """`enabled = false`: nothing is started, and the state says how to change that."""
    with fail_after(10):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", "/nowhere", enabled=False)
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
            assert server.state.status == "off"
            assert "enabled = true" in server.state.remedy
            assert server.client is None


async def test_a_missing_program_is_a_state_with_its_remedy_and_is_found_later(tmp_path: Path) -> None:
    """The state says where it was looked for and how to get it; once it is there it is used, without a restart."""
    folder = tmp_path / "bin"
    with fail_after(30):
        async with open_hook() as hook:
            timing = Timing(look_again=0.05)
            server = supervisor(hook, tmp_path / "run", folder / "mediamtx", timing=timing)
            async with running(server.run):
                state = await until(server, "missing")
                assert str(folder / "mediamtx") in state.detail
                assert "scripts/get-mediamtx" in state.remedy
                assert "[mediamtx] binary" in state.remedy
                install_standin(folder)
                await until(server, "ready")


async def test_the_search_is_repeated_each_30_seconds(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing program costs next to nothing, and is told once."""
    searches: list[float] = []
    import edged.mediamtx.process as process

    find = find_binary

    def search(configured: str, path: str) -> object:
        searches.append(trio.current_time())
        return find(configured, path)

    monkeypatch.setattr(process, "find_binary", search)
    with capture_logs() as logs:
        server = Supervisor(
            MediaMTXSettings(binary="/nowhere"),
            hook_url=str,
            new_secret=lambda path, action, uses: "",
            drop_secret=lambda secret: None,
            spawn=partial(spawn, environment={}, landlock=None),
            search_path="",
            folder=tmp_path,
        )
        with trio.move_on_after(95):
            await server.run()
    assert [round(later - first) for first, later in pairwise(searches)] == [30, 30, 30]
    assert [entry["event"] for entry in logs] == ["missing", "stopped"]


@pytest.mark.parametrize(("version", "word"), [("v1.17.0", "1.17.1"), ("v0.0.0", "1.17.1")])
async def test_a_version_below_the_minimum_is_refused(tmp_path: Path, version: str, word: str) -> None:
    """It is not started; the state names both versions."""
    program = install_standin(tmp_path / "bin", version=version)
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", program)
            async with running(server.run):
                state = await until(server, "refused_version")
                assert version.removeprefix("v") in state.detail
                assert word in state.detail
                assert state.version == version.removeprefix("v")
                assert not (tmp_path / "run").exists()


async def test_a_program_that_is_not_mediamtx_is_refused(bin_folder: Path, tmp_path: Path) -> None:
    """What prints no version is not run."""
    order(bin_folder, "junk-version")
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                assert "does not say its version" in (await until(server, "refused_version")).detail


async def test_an_older_version_than_recommended_works_and_says_so(tmp_path: Path) -> None:
    """Ready, with an advice."""
    program = install_standin(tmp_path / "bin", version="v1.18.0")
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", program)
            async with running(server.run):
                state = await until(server, "ready")
                assert "1.20.1" in state.detail
                assert "scripts/get-mediamtx" in state.remedy


async def test_a_file_that_cannot_be_run_is_a_state(tmp_path: Path) -> None:
    """Something that is no program, found under the name, is told, and nothing breaks."""
    program = tmp_path / "mediamtx"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", program)
            async with running(server.run):
                await until(server, "refused_version")


async def test_a_runtime_folder_that_cannot_be_written_is_a_state(bin_folder: Path, tmp_path: Path) -> None:
    """The daemon goes on; the state carries the system's reason."""
    (tmp_path / "run").write_text("a file")
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                assert "exists" in (await until(server, "waiting")).detail
                (tmp_path / "run").unlink()
                await until(server, "ready")
            assert hook.secrets == set()


async def test_ready_tells_ports_version_and_process(bin_folder: Path, tmp_path: Path) -> None:
    """Everything that others need to reach it; a protocol that is off has no port."""
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", hls="off")
            async with running(server.run):
                state = await until(server, "ready")
                assert state.pid is not None
                assert is_alive(state.pid)
                assert state.version == "1.20.1"
                assert state.rtsp_port
                assert state.webrtc_port
                assert state.hls_port is None
                assert state.detail == ""


async def test_a_key_that_a_newer_version_has_lost_is_left_out(bin_folder: Path, tmp_path: Path) -> None:
    """A key that the file can do without is not a reason to stay away."""
    order(bin_folder, "refuse:moq", "refuse:pprof")
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                await until(server, "ready")


async def test_a_key_that_protects_is_never_left_out(bin_folder: Path, tmp_path: Path) -> None:
    """A version that does not know it is refused, with its own line."""
    order(bin_folder, "refuse:authHTTPExclude")
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                state = await until(server, "config_refused")
                assert 'unknown field "authHTTPExclude"' in state.detail
                order(bin_folder)
                await until(server, "ready")


async def test_an_exit_at_the_start_is_tried_again_and_explained(bin_folder: Path, tmp_path: Path) -> None:
    """The state carries the code and the last error line."""
    order(bin_folder, "fail")
    with fail_after(20):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                state = await until(server, "waiting")
                assert "code 3" in state.detail
                assert "it will not do" in state.detail
                assert state.pid is None
                order(bin_folder)
                await until(server, "ready")


async def test_pauses_grow_to_10_s_and_there_is_none_after_health(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.5, 0.5, 1, 2 … at most 10 s between the starts of a server that does not live; none after 2 s of health."""

    starts: list[float] = []
    health = iter([0.0] * 8 + [2.0, 2.0, 0.0, 1.9, 0.0])

    async def live(self: Supervisor) -> RunEnd:
        starts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return RunEnd(ServerState("waiting"), next(health))

    monkeypatch.setattr(Supervisor, "_run_once", live)
    server = Supervisor(
        LOOPBACK,
        hook_url=str,
        new_secret=lambda path, action, uses: "",
        drop_secret=lambda secret: None,
        spawn=partial(spawn, environment={}, landlock=None),
        search_path="",
        folder=tmp_path,
    )
    with trio.move_on_after(0.5 + 0.5 + 1 + 2 + 4 + 8 + 10 + 10 + 0 + 0 + 0.5 + 1 + 0.1):
        await server.run()
    pauses = [round(later - first, 3) for first, later in pairwise(starts)]
    assert pauses == [0.5, 0.5, 1, 2, 4, 8, 10, 10, 0, 0, 0.5, 1]


async def test_a_server_that_never_answers_is_unhealthy(bin_folder: Path, tmp_path: Path) -> None:
    """One that runs and does not listen is stopped and started anew."""
    order(bin_folder, "mute")
    with fail_after(30):
        async with open_hook() as hook:
            timing = Timing(first_pause=0.05, ready_within=0.5, stop_grace=2)
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", timing=timing)
            async with running(server.run):
                pid = (await until(server, "starting")).pid if server.state.pid is None else server.state.pid
                state = await until(server, "unhealthy")
                assert "not ready after 0.5 s" in state.detail
                assert pid is None or not is_alive(pid)


async def test_a_hook_that_refuses_us_is_named(bin_folder: Path, tmp_path: Path) -> None:
    """A server that may not let us in is not ready, and the state says that the hook said no."""
    with fail_after(30):
        async with open_hook() as hook:
            timing = Timing(first_pause=0.05, ready_within=2, stop_grace=2)
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", timing=timing)
            hook.judge = lambda question: False  # type: ignore[method-assign]
            async with running(server.run):
                assert "hook" in (await until(server, "unhealthy")).detail


@pytest.mark.parametrize("word", ["hang", "500", "close-output"])
async def test_a_server_that_stops_working_is_restarted(bin_folder: Path, tmp_path: Path, word: str) -> None:
    """It answers nothing, or errors, or nobody could read its output any more: stopped, then ready again."""
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", timing=BRISK)
            async with running(server.run):
                first = (await until(server, "ready")).pid
                order(bin_folder, word)
                state = await until(server, "unhealthy")
                assert state.detail
                assert server.client is None
                order(bin_folder)
                assert (await until(server, "ready")).pid != first
                assert first is not None
                assert not is_alive(first)


async def test_one_failed_health_check_is_forgiven(bin_folder: Path, tmp_path: Path) -> None:
    """A single error is logged; viewers are not disturbed for it."""
    with fail_after(30), capture_logs() as logs:
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                first = await until(server, "ready")
                order(bin_folder, "500-once")
                await eventually(lambda: any(entry["event"] == "health_check_failed" for entry in logs))
                asked = len(hook.questions)
                await eventually(lambda: len(hook.questions) > asked + 3)
                assert server.state == first
    assert [entry["times"] for entry in logs if entry["event"] == "health_check_failed"] == [1]


async def test_a_crash_is_explained_and_mended(bin_folder: Path, tmp_path: Path) -> None:
    """The code and the last words of a server that was ready."""
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                await until(server, "ready")
                order(bin_folder, "crash")
                state = await until(server, "waiting")
                assert "code 3: it broke" in state.detail
                order(bin_folder)
                await until(server, "ready")


async def test_a_flood_of_output_hangs_nothing(bin_folder: Path, tmp_path: Path) -> None:
    """16 MiB of output in one go: the same process goes on answering, and the log is not flooded."""
    with fail_after(60), capture_logs() as logs:
        async with open_hook() as hook:
            timing = Timing(health_every=0.1, listener_within=30, health_within=30)
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", timing=timing)
            async with running(server.run):
                first = await until(server, "ready")
                order(bin_folder, "flood")
                await eventually((bin_folder / "orders.flooded").exists)
                assert server.client is not None
                await server.client.list_paths(timeout=30)
                assert server.state == first
    assert sum(entry["count"] for entry in logs if entry["event"] == "lines_left_out") > 10000
    assert len([entry for entry in logs if entry["event"] == "output"]) < 5000


async def test_a_server_that_ignores_the_stop_is_killed(bin_folder: Path, tmp_path: Path) -> None:
    """After the grace it is over, whatever it thinks."""
    with fail_after(30):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", timing=BRISK)
            async with running(server.run):
                pid = (await until(server, "ready")).pid
                order(bin_folder, "deaf")
            assert pid is not None
            assert not is_alive(pid)
            assert server.state.status == "stopped"


async def test_a_stop_while_it_starts_leaves_nothing(bin_folder: Path, tmp_path: Path) -> None:
    """Cancelled at any moment: no process, no file, no secret."""
    with fail_after(60):
        for delay in (0.0, 0.02, 0.1, 0.2):
            async with open_hook() as hook:
                server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
                pids: list[int] = []
                async with running(server.run):
                    await trio.sleep(delay)
                    pids += [server.state.pid] if server.state.pid else []
                assert not any(is_alive(pid) for pid in pids)
                assert not (tmp_path / "run" / "mediamtx.json").exists()
                assert hook.secrets == set()


async def test_the_last_words_of_a_stop_are_read(bin_folder: Path, tmp_path: Path) -> None:
    """Its output is drained to the end while it stops."""
    with fail_after(30), capture_logs() as logs:
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                await until(server, "ready")
    assert "shutting down gracefully" in [entry.get("text") for entry in logs]


async def test_a_taken_api_port_is_picked_anew_at_once(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who takes the port between our picking and MediaMTX's listening costs one more start."""
    import edged.mediamtx.process as process

    pick, taken = pick_ports, trio.socket.socket()
    await taken.bind(("127.0.0.1", 0))
    taken.listen()
    answers: list[Callable[[MediaMTXSettings], tuple[MediaMTXSettings, int]]] = [
        lambda settings: (pick(settings)[0], taken.getsockname()[1]),
        pick,
    ]
    monkeypatch.setattr(process, "pick_ports", lambda settings: answers.pop(0)(settings))
    with taken, fail_after(30):
        async with open_hook() as hook:
            timing = Timing(first_pause=1000)
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx", timing=timing)
            async with running(server.run):
                await until(server, "ready")
    assert answers == []


async def test_no_secret_stands_in_log_process_list_or_state(bin_folder: Path, tmp_path: Path) -> None:
    """The API's password and the hook's address are told to nobody but MediaMTX."""
    with fail_after(30), capture_logs() as logs:
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", bin_folder / "mediamtx")
            async with running(server.run):
                state = await until(server, "ready")
                seen = Path(f"/proc/{state.pid}/cmdline").read_text() + Path(f"/proc/{state.pid}/environ").read_text()
                hidden = {*hook.secrets, hook.url}
                config = (tmp_path / "run" / "mediamtx.json").stat()
                assert stat.S_IMODE(config.st_mode) == 0o600
    assert len(hidden) == 2
    assert not any(secret in text for secret in hidden for text in (str(logs), str(state), seen))


async def test_standard_library_only() -> None:
    """The stand-in runs with `-I -S`: a plain Python is all it needs."""
    done = await trio.run_process(
        [sys.executable, "-I", "-S", str(STANDIN), "--version-is", "v1.2.3", "--orders", "/nowhere", "--version"],
        capture_stdout=True,
    )
    assert done.stdout == b"v1.2.3\n"


# What only the real program can show.


@pytest.mark.mediamtx
async def test_an_on_demand_path_holds_a_reader_until_a_publisher_comes(tmp_path: Path) -> None:
    """With a command that ends at once MediaMTX holds the reader all the same, and no process is left of it."""
    wanted = {"camera0": path_conf(FakeSource("camera0"))}
    with fail_after(40):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), wanted_paths=lambda: wanted, timing=QUICK)
            async with running(server.run):
                state = await until(server, "ready")
                held = trio.Event()
                async with (
                    open_rtsp(state.rtsp_port, "camera0") as reader,
                    open_rtsp(state.rtsp_port, "camera0") as publisher,
                    trio.open_nursery() as nursery,
                ):

                    async def read() -> None:
                        await reader.read()
                        held.set()

                    nursery.start_soon(read)
                    await eventually(lambda: any(q["action"] == "read" for q in hook.questions))
                    await trio.sleep(1.0)
                    assert not held.is_set()
                    children = Path(f"/proc/{state.pid}/task/{state.pid}/children").read_text().split()
                    assert [pid for pid in children if is_alive(int(pid))] == []
                    await publisher.publish()
                    await held.wait()
                    nursery.cancel_scope.cancel()


@pytest.mark.mediamtx
async def test_a_frozen_server_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP: its ports still take connections, its health does not answer; a new one comes."""
    timing = Timing(first_pause=0.05, health_every=0.1, health_within=0.5, stop_grace=0.5)
    with fail_after(40):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), timing=timing)
            async with running(server.run):
                first = (await until(server, "ready")).pid
                assert first is not None
                os.kill(first, signal.SIGSTOP)
                assert "did not answer" in (await until(server, "unhealthy")).detail
                assert (await until(server, "ready")).pid != first
                assert not is_alive(first)


@pytest.mark.mediamtx
async def test_a_server_that_worked_is_started_at_once_however_often_it_is_killed(tmp_path: Path) -> None:
    """Any pause would outlast the test."""
    timing = Timing(first_pause=1000.0, longest_pause=1000.0, good_after=0.2)
    with fail_after(40):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), timing=timing)
            async with running(server.run):
                killed = set()
                for _ in range(5):
                    state = await until(server, "ready")
                    assert state.pid is not None
                    assert state.pid not in killed
                    await trio.sleep(0.4)
                    killed.add(state.pid)
                    os.kill(state.pid, signal.SIGKILL)
                    await until(server, "waiting")
                await until(server, "ready")


@pytest.mark.mediamtx
async def test_its_denials_flood_nothing(tmp_path: Path) -> None:
    """Hundreds of log lines from refused clients: the server goes on, the same process."""
    wanted = {"camera0": path_conf(FakeSource("camera0", always_on=True))}
    with fail_after(60):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), wanted_paths=lambda: wanted)
            async with running(server.run):
                state = await until(server, "ready")
                # Each connection makes some 200 bytes of log: more than the 64 KiB that a pipe holds.
                for _ in range(400):
                    async with open_rtsp(state.rtsp_port, "camera9") as reader:
                        assert await reader.ask("DESCRIBE", Accept="application/sdp") == 400
                async with open_rtsp(state.rtsp_port, "camera0") as publisher:
                    await publisher.publish()
                assert server.state == state


@pytest.mark.mediamtx
async def test_a_revoked_reader_is_out_and_off_the_list(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Twenty times: a kick closes the reader's connection, and the next list does not show it. Latency is reported."""
    wanted = {"camera0": path_conf(FakeSource("camera0", always_on=True))}
    closed: list[float] = []
    with fail_after(60):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), wanted_paths=lambda: wanted)
            viewers = Viewers(server)
            async with running(server.run, viewers.run):
                state = await until(server, "ready")
                async with open_rtsp(state.rtsp_port, "camera0") as publisher:
                    await publisher.publish()
                    for _ in range(20):
                        async with open_rtsp(state.rtsp_port, "camera0") as reader:
                            await reader.read()
                            told = [str(q["id"]) for q in hook.questions if q["action"] == "read"][-1]
                            began = trio.current_time()
                            viewers.kick("rtsp", told)
                            await reader.wait_closed()
                            closed.append(1000 * (trio.current_time() - began))
                            assert told not in {session.id for session in await viewers.list()}
    closed.sort()
    summary = f"kick to end of stream: median {closed[10]:.1f} ms ({closed[0]:.1f} to {closed[-1]:.1f}), n=20"
    record_property("kick", summary)
    print(summary)


@pytest.mark.mediamtx
async def test_a_killed_server_is_back_within_five_seconds_with_shipped_timing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """kill -9 with the pauses as shipped: ready again, paths converged, and publishing works."""
    paths = Paths()
    paths.set_wanted([FakeSource("camera0")])
    with fail_after(60):
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), wanted_paths=paths.wanted, timing=Timing())
            async with running(server.run, partial(paths.run, server)):
                first = (await until(server, "ready")).pid
                assert first is not None
                os.kill(first, signal.SIGKILL)
                began = trio.current_time()
                await until(server, "waiting")
                state = await until(server, "ready")
                await eventually(lambda: paths.converged)
                async with open_rtsp(state.rtsp_port, "camera0") as publisher:
                    await publisher.publish()
                seconds = trio.current_time() - began
                assert seconds < 5
    record_property("back", f"{seconds:.2f} s")
    print(f"kill -9 to published again: {seconds:.2f} s")


PARENT = """
import sys, trio
sys.path.insert(0, "tests")
from media_helpers import *
from pathlib import Path
async def main():
    async with open_hook() as hook:
        server = supervisor(hook, Path(sys.argv[1]), sys.argv[2])
        async with running(server.run):
            print((await until(server, "ready")).pid, flush=True)
            await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.mediamtx
def test_killing_edged_leaves_no_mediamtx(tmp_path: Path) -> None:
    """kill -9 of the parent ends MediaMTX within two seconds."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", PARENT, str(tmp_path / "run"), str(REAL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root) as parent:
        assert parent.stdout is not None
        # The log goes to standard output too, by structlog's defaults; the number stands alone on its line.
        pid = next(int(line) for line in parent.stdout if line.strip().isdigit())
        assert is_alive(pid)
        parent.kill()

        async def wait_for_its_end() -> None:
            with fail_after(2):
                await eventually(lambda: not is_alive(pid))

        trio.run(wait_for_its_end)
