"""cli/demo.py: the story plays on real parts, and says what it could not play."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trio

from edged.cli.demo import Story, expect, pick_port

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
        found = next(Path(each) / name for each in os.environ["PATH"].split(":") if (Path(each) / name).exists())
        (bare / name).symlink_to(found)
    code, said = await play("--once", PATH=str(bare))
    found = LAST_LINE.fullmatch(said.splitlines()[-1])
    assert found, said
    assert (code, found[2], found[3]) == (0, "0", "3"), said
    assert said.count("not run: mediamtx not found") == 3


def post(url: str, form: bytes) -> bytes:
    """As `curl -d` does it, whatever proxy is set."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, form, timeout=20) as answer:
        return bytes(answer.read())


@pytest.mark.slow
async def test_it_serves_until_ctrl_c_and_leaves_nothing_behind() -> None:
    """A key and the lines to try are printed, the example's login works; SIGINT ends it, its daemon and its folder."""
    with trio.fail_after(60):
        demo = await trio.lowlevel.open_process(
            [sys.executable, "-m", "edged", "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert demo.stdout is not None
        said = b""
        async for data in demo.stdout:
            said += data
            if b"Ctrl-C stops it" in said:
                break
        assert b"camera_service_sk_" in said
        login = re.search(rb"curl (http://127.0.0.1:\d+/api/token) -d '(username=demo&password=demo)'", said)
        assert login, said
        answer = await trio.to_thread.run_sync(post, login[1].decode(), login[2])
        assert b'"permissions":{"read":["camera0","camera1"],"publish":[]}' in answer
        folder = re.search(rb"rm '(/\S+?)/state/", said)
        assert folder, said
        demo.send_signal(signal.SIGINT)
        async for data in demo.stdout:
            said += data
        await demo.wait()
        await demo.stdout.aclose()
        assert b"stopped" in said
        assert b"Traceback" not in said, said.decode()
        assert not Path(folder[1].decode()).exists()


async def test_a_step_that_does_not_hold_is_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """What was seen stands in the line; the story goes on."""
    story = Story()

    async def fails() -> str:
        expect(False, "it was blue")
        return ""

    async def holds() -> str:
        return "red"

    assert not await story.step("the picture is red", fails)
    assert await story.step("the picture is red", holds)
    assert not await story.step("the picture is red", holds, unless="no picture")
    assert (story.passed, story.failed, story.not_run) == (1, 1, 1)
    assert "FAILED the picture is red" in capsys.readouterr().out


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    """The demo goes on beside whatever listens already."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert pick_port(port) not in (0, port)
