"""Children: spawned from the main thread, awaited by pidfd, stopped, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from media_helpers import ENVIRONMENT, is_alive
from patience import fail_after

from edged.children import Child, spawn
from edged.errors import DependencyFailed

ROOT = Path(__file__).parent.parent


def shell(script: str, **more: Any) -> Child:
    return spawn(["sh", "-c", script], environment=ENVIRONMENT, landlock=None, **more)


async def read_all(stream: trio.lowlevel.FdStream | None) -> bytes:
    assert stream is not None
    return b"".join([data async for data in stream])


async def test_a_child_tells_its_output_and_its_code() -> None:
    """Both streams and the exit code arrive; waiting again gives the same."""
    with fail_after(10):
        async with shell("echo out; echo err >&2; exit 7") as child:
            assert await read_all(child.stdout) == b"out\n"
            assert await read_all(child.stderr) == b"err\n"
            assert await child.wait() == 7
            assert await child.wait() == 7
            assert child.returncode == 7


async def test_several_tasks_may_wait_for_one_end() -> None:
    """Each of them learns the code."""
    codes = []
    with fail_after(10):
        async with shell("sleep 0.1; exit 3") as child, trio.open_nursery() as nursery:

            async def wait() -> None:
                codes.append(await child.wait())

            for _ in range(3):
                nursery.start_soon(wait)
    assert codes == [3, 3, 3]


async def test_output_that_is_not_asked_for_is_no_stream() -> None:
    """It goes nowhere and fills nothing."""
    with fail_after(10):
        async with shell("yes | head -c 300000; exit 0", stdout=False, stderr=False) as child:
            assert child.stdout is None
            assert child.stderr is None
            assert await child.wait() == 0


async def test_a_child_has_the_given_environment_and_folder_and_no_more(tmp_path: Path) -> None:
    """Nothing of our own environment reaches it, and it reads no input."""
    with fail_after(10):
        environment = {**ENVIRONMENT, "A": "b"}
        async with spawn(
            ["sh", "-c", "env; pwd; cat"], environment=environment, landlock=None, folder=tmp_path
        ) as child:
            said = (await read_all(child.stdout)).decode().split("\n")
    assert "A=b" in said
    assert str(tmp_path) in said
    assert not any(line.startswith("HOME=") for line in said)


async def test_a_child_leads_a_session_of_its_own() -> None:
    """Ctrl-C in a terminal reaches us alone."""
    with fail_after(10):
        async with shell("sleep 60") as child:
            assert os.getsid(child.pid) == child.pid
            assert os.getpgid(child.pid) == child.pid


async def test_leaving_the_block_kills_the_whole_group() -> None:
    """A child that ignores SIGTERM, and what it started, are gone when the block is left."""
    with fail_after(10):
        async with shell("trap '' TERM; sleep 60 & echo $!; wait; sleep 60") as child:
            assert child.stdout is not None
            grandchild = int(await child.stdout.receive_some())
            assert is_alive(grandchild)
    assert child.returncode == -signal.SIGKILL
    while is_alive(grandchild):
        await trio.sleep(0.01)


async def test_what_a_child_leaves_in_its_group_dies_with_it() -> None:
    """A grandchild that holds the pipe open does not hold us up."""
    with fail_after(10):
        async with shell("sleep 60 & echo $!; exit 0") as child:
            assert await child.wait() == 0
            grandchild = int(await read_all(child.stdout))
            while is_alive(grandchild):
                await trio.sleep(0.01)


async def test_a_cancelled_block_kills_its_child() -> None:
    """Cancellation cannot leave a child behind."""
    with fail_after(10), trio.move_on_after(0.1):
        async with shell("sleep 60") as child:
            await child.wait()
    assert child.returncode == -signal.SIGKILL
    assert not is_alive(child.pid)


async def test_stop_asks_first() -> None:
    """The signal given comes first, so a child can put its things in order."""
    with fail_after(10):
        async with shell("trap 'exit 5' INT; echo ready; while :; do sleep 0.01; done") as child:
            assert child.stdout is not None
            await child.stdout.receive_some()
            assert await child.stop(5, signal.SIGINT) == 5


async def test_stop_kills_a_child_that_ignores_the_signal() -> None:
    """After the grace the group is killed."""
    with fail_after(10):
        async with shell("trap '' TERM; echo ready; while :; do sleep 0.01; done") as child:
            assert child.stdout is not None
            await child.stdout.receive_some()
            assert await child.stop(0.1) == -signal.SIGKILL


async def test_signals_to_the_dead_do_nothing() -> None:
    """Terminating or killing what has ended is no error, and hits nobody who may have its number by now."""
    with fail_after(10):
        async with shell("exit 0") as child:
            await child.wait()
            child.terminate()
            child.kill()
            assert await child.stop(0) == 0


async def test_a_missing_program_is_an_error_with_a_remedy() -> None:
    """It names the program and what to do."""
    with pytest.raises(DependencyFailed, match="no program 'no-such-thing'") as caught:
        spawn(["no-such-thing"], environment=ENVIRONMENT, landlock=None)
    assert "install no-such-thing" in caught.value.hint


async def test_a_missing_guard_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """Without setpriv nothing is spawned, because it could outlive us."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(DependencyFailed, match="setpriv") as caught:
        spawn([str(program)], environment={"PATH": str(tmp_path)}, landlock=None)
    assert "util-linux" in caught.value.hint


async def test_a_folder_that_is_not_there_is_an_error_that_leaks_nothing(tmp_path: Path) -> None:
    """A failed start closes what it had opened."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(DependencyFailed, match="could not be started"):
        spawn(["true"], environment=ENVIRONMENT, landlock=None, folder=tmp_path / "absent")
    with pytest.raises(DependencyFailed):
        spawn(["true"], environment=ENVIRONMENT, landlock=None, folder=tmp_path / "absent", stdout=False, stderr=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_worker_thread_cannot_spawn() -> None:
    """The child would die with that thread, some seconds later, for no visible reason."""
    with pytest.raises(RuntimeError, match="main thread"):
        await trio.to_thread.run_sync(lambda: shell("true"))


async def test_a_child_that_hangs_in_the_kernel_does_not_hold_us_up(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after some seconds, with a log line, instead of stopping the daemon from stopping."""
    child = shell("sleep 60")
    kill = child.kill
    monkeypatch.setattr(child, "kill", lambda: None)
    began = trio.current_time()
    async with child:
        pass
    assert trio.current_time() - began == pytest.approx(5)
    assert child.returncode is None
    kill()
    while child.returncode is None:
        child._reap()


@pytest.mark.slow
async def test_a_child_outlives_the_worker_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every worker thread of the process has ended by idleness, a child that was spawned before is alive."""
    # Seconds without work; 10 in trio, which a thread that waits already keeps to.
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.1)
    with fail_after(60):
        await trio.to_thread.run_sync(threading.get_ident)
        async with shell("sleep 60") as child:
            await trio.to_thread.run_sync(threading.get_ident)
            while [thread for thread in threading.enumerate() if "Trio" in thread.name]:
                await trio.sleep(0.1)
            await trio.sleep(0.5)
            assert is_alive(child.pid)


PARENT = """
import os, sys, trio
from edged.children import spawn
async def main():
    async with spawn(["sleep", "60"], environment={"PATH": os.environ["PATH"]}, landlock=None) as child:
        print(child.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def test_killing_the_parent_leaves_no_child() -> None:
    """kill -9 of the process that spawned it ends a child, which by itself would go on."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait()

        async def wait_for_its_end() -> None:
            with fail_after(30):
                while is_alive(pid):
                    await trio.sleep(0.01)

        trio.run(wait_for_its_end)
