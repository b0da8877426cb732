"""cli/demo.py: the checks run against a real daemon, and say which could not run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from patience import fail_after

from edged.cli.demo_box import expect, held, pick_port, remove_abandoned
from edged.cli.demo_checks import Checks

pytestmark = pytest.mark.ffmpeg

LAST_LINE = re.compile(r"(\d+) passed, (\d+) failed, (\d+) not run")


async def play(*arguments: str, without_mediamtx: bool = False, **options: str) -> tuple[int, str]:
    """`edged demo` as a child: its exit code and what it printed."""
    environment = os.environ | options
    if without_mediamtx:
        folders = environment["PATH"].split(":")
        environment["PATH"] = ":".join(each for each in folders if not (Path(each) / "mediamtx").exists())
    done = await trio.run_process(
        [sys.executable, "-m", "edged", "demo", *arguments],
        capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=environment,
    )  # fmt: skip
    return done.returncode or 0, done.stdout.decode()


@pytest.mark.slow
@pytest.mark.mediamtx
async def test_with_mediamtx_every_step_holds_and_none_is_left_out() -> None:
    """Exit code 0, nothing failed, nothing not run."""
    code, said = await play("--once")
    found = LAST_LINE.fullmatch(said.splitlines()[-1])
    assert found, said
    assert (code, found[2], found[3]) == (0, "0", "0"), said


@pytest.mark.slow
async def test_without_mediamtx_its_steps_are_not_run_and_never_passed(tmp_path: Path) -> None:
    """The RTSP steps say why; the others hold."""
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("ffmpeg", "setpriv"):
        program = next(Path(each) / name for each in os.environ["PATH"].split(":") if (Path(each) / name).exists())
        (bare / name).symlink_to(program)
    code, said = await play("--once", PATH=str(bare))
    found = LAST_LINE.fullmatch(said.splitlines()[-1])
    assert found, said
    assert (code, found[2], found[3]) == (0, "0", "3"), said
    assert said.count("not run: mediamtx not found") == 3


def post(url: str, form: bytes) -> bytes:
    """As `curl -d` does it, whatever proxy is set."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, form, timeout=20) as answer:
        return bytes(answer.read())


@asynccontextmanager
async def started_demo(**options: Any) -> AsyncIterator[tuple[trio.Process, str, Path]]:
    """A demo that serves: its process, what it has printed, and its folder. It does not outlive the block, whatever
    fails there, and its daemon does not outlive it."""
    demo = await trio.lowlevel.open_process(
        [sys.executable, "-m", "edged", "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    assert demo.stdout is not None
    try:
        with fail_after(80):
            said = b""
            async for data in demo.stdout:
                said += data
                if b"Ctrl-C stops it" in said:
                    break
            folder = re.search(rb"rm '(/\S+?)/state/", said)
            assert folder, said
            yield demo, said.decode(), Path(folder[1].decode())
    finally:
        with trio.CancelScope(shield=True):
            demo.kill()
            await demo.wait()
            await demo.stdout.aclose()


def find_daemon(folder: Path) -> int | None:
    """The process that serves this demo's settings."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"serve" in words and str(folder / "conf.d").encode() in words:
                    return int(entry.name)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_it_serves_until_it_is_asked_to_end_and_leaves_nothing_behind(number: signal.Signals) -> None:
    """The page comes first, then a key and the lines to try, each of which works; Ctrl-C, SIGTERM or a closed terminal
    end the demo, its daemon and its folder, and its output ends."""
    async with started_demo() as (demo, said, folder):
        assert demo.stdout is not None
        assert "camera_service_sk_" in said
        assert re.search(r"browser.*http://127\.0\.0\.1:\d+/", said)
        assert said.index("browser") < said.index("camera_service_sk_") < said.index("EDGED_SOCKET")
        daemon = find_daemon(folder)
        assert daemon is not None
        if number == signal.SIGINT:
            login = re.search(r"curl (http://127.0.0.1:\d+/api/token) -d '(username=demo&password=demo)'", said)
            assert bool(login) is bool(shutil.which("curl")), said
            if login:
                answer = await trio.to_thread.run_sync(post, login[1], login[2].encode())
                assert b'"read":["camera' in answer
            path = re.search(r"export EDGED_SOCKET=(\S+)", said)
            assert path
            environ = os.environ | {"EDGED_SOCKET": path[1]}
            listed = await trio.run_process(
                [sys.executable, "-m", "edged", "key", "list"], env=environ, capture_stdout=True
            )
            assert b"demo" in listed.stdout
        demo.send_signal(number)
        rest = b""
        async for data in demo.stdout:
            rest += data
        assert await demo.wait() == 128 + number
        assert b"stopped" in rest
        assert b"Traceback" not in rest, rest.decode()
        assert not folder.exists()
        assert find_daemon(folder) is None


@pytest.mark.slow
async def test_a_demo_in_the_background_of_a_script_hears_sigint() -> None:
    """A shell has it ignored by what is started with &; whoever sends it means it."""
    ignoring = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    async with started_demo(preexec_fn=ignoring) as (demo, _, folder):
        assert demo.stdout is not None
        demo.send_signal(signal.SIGINT)
        async for _ in demo.stdout:
            pass
        assert await demo.wait() == 128 + signal.SIGINT
        assert not folder.exists()


@pytest.mark.slow
async def test_a_demo_that_is_killed_takes_its_daemon_along_and_the_next_one_its_folder() -> None:
    """No daemon with a live admin key is left, and whoever waits for the demo's output gets its end."""
    async with started_demo() as (demo, _, folder):
        assert demo.stdout is not None
        demo.kill()
        async for _ in demo.stdout:
            pass
        await demo.wait()
        while find_daemon(folder) is not None:
            await trio.sleep(0.05)
        assert folder.exists()
        remove_abandoned(folder.parent)
        assert not folder.exists()


def test_the_folder_of_a_running_demo_is_nobodys_to_remove(tmp_path: Path) -> None:
    """Two demos side by side; and what is no demo's stays."""
    running, other = tmp_path / "edged-demo-a", tmp_path / "edged-demo-b"
    running.mkdir()
    other.mkdir()
    with held(running):
        remove_abandoned(tmp_path)
        assert running.exists()
    assert other.exists()
    remove_abandoned(tmp_path)
    assert not running.exists()


async def test_a_step_that_does_not_hold_is_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """What was seen stands in the line; the checks go on."""
    checks = Checks()

    async def fails() -> str:
        expect(False, "it was blue")
        return ""

    async def holds() -> str:
        return "red"

    assert not await checks.step("the picture is red", fails)
    assert await checks.step("the picture is red", holds)
    assert not await checks.step("the picture is red", holds, unless="no picture")
    assert (checks.passed, checks.failed, checks.not_run) == (1, 1, 1)
    assert "FAILED the picture is red" in capsys.readouterr().out


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    """The demo goes on beside whatever listens already."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert pick_port(port) not in (0, port)
