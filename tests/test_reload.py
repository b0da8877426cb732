"""SIGHUP: a running daemon reads its settings again; in a terminal it ends, as everything there does."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from cli_helpers import write_config
from daemon_helpers import free_port
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from rtsp_client import RtspReader

from edged.cli.client import call_once, connect
from edged.config.model import CameraSettings, Config, LimitSettings, LogSettings, SourceSettings
from edged.daemon.reload import differing, is_applied

ROOT = Path(__file__).parent.parent


@dataclass
class Daemon:
    """`edged serve` as a child, and what it tells systemd."""

    folder: Path
    child: subprocess.Popen[bytes]
    notices: socket.socket
    told: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def conf(self) -> Path:
        return self.folder / "conf.d"

    async def hang_up(self) -> None:
        """SIGHUP, and wait until it says that it is ready again."""
        self.told.clear()
        self.child.send_signal(signal.SIGHUP)
        await self.until(lambda: any(each.startswith("READY=1") for each in self.told))

    async def until(self, fact: Callable[[], bool]) -> None:
        with fail_after(30):
            while not fact():
                assert self.child.poll() is None or fact(), self.log
                try:
                    self.told.append(self.notices.recv(4096).decode())
                except BlockingIOError:
                    await trio.sleep(0.02)

    async def call(self, method: str, **params: object) -> Any:
        return await call_once(self.folder / "run" / "edged.sock", method, params)

    async def cameras(self) -> dict[str, str]:
        return {one["device"]: one["name"] for one in (await self.call("get_camera_list"))["cameras"]}


@asynccontextmanager
async def running(folder: Path, *, stdin: int = subprocess.DEVNULL, is_new: bool = True) -> AsyncIterator[Daemon]:
    directory = write_config(folder) if is_new else folder / "conf.d"
    (folder / "notify").unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, (folder / "log").open("wb") as log:
        notices.bind(str(folder / "notify"))
        notices.setblocking(False)
        child = subprocess.Popen(  # noqa: ASYNC220 - it reads no clock of ours
            [sys.executable, "-m", "edged", "serve", "--directory", str(directory)],
            cwd=ROOT, env={**environment, "NOTIFY_SOCKET": str(folder / "notify")}, stdin=stdin, stdout=log, stderr=log,
        )  # fmt: skip
        daemon = Daemon(folder, child, notices)
        try:
            await daemon.until(lambda: any(each.startswith("READY=1") for each in daemon.told))
            yield daemon
        finally:
            child.terminate()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(child.wait)


async def test_a_hangup_takes_cameras_and_disturbs_nobody(tmp_path: Path) -> None:
    """systemd is told when it begins and when it is done; whoever is connected stays; a name makes no other camera."""
    async with running(tmp_path) as daemon, connect(tmp_path / "run" / "edged.sock") as kept:
        assert await daemon.cameras() == {"camera0": "Front dock"}
        settings = daemon.conf / "box.toml"
        settings.write_text(settings.read_text().replace('name = "Front dock"', 'name = "Gate"\n        path = "gate"'))
        (daemon.conf / "more.toml").write_text('[[camera]]\nname = "Yard"\nsource = "rtsp://192.0.2.7/s"\n')
        await daemon.hang_up()
        assert daemon.told[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert await daemon.cameras() == {"camera0": "Gate", "camera1": "Yard"}
        assert (await daemon.call("get_stream_url", device="gate"))["stream_name"] == "gate"
        (daemon.conf / "more.toml").unlink()
        await daemon.hang_up()
        assert await daemon.cameras() == {"camera0": "Gate"}
        assert daemon.log.count("settings_read_again") == 2
        assert "settings_need_restart" not in daemon.log
        assert await kept.call("ping") == "pong"


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_a_hangup_ends_no_stream_but_those_of_what_goes(tmp_path: Path) -> None:
    """A viewer of one camera sees on while another comes, its own gets a new name, and a third goes."""
    rtsp = free_port()
    media = "\n".join(
        [
            f'enabled = true\nrtsp = "127.0.0.1:{rtsp}"\nhls = "off"\nwebrtc = "off"',
            f'webrtc_udp = "127.0.0.1:{free_port(socket.SOCK_DGRAM)}"',
        ]
    )
    async with running(tmp_path) as first:
        pass  # makes the folders and the settings
    (first.conf / "media.toml").write_text(f"[mediamtx]\n{media}\n")
    settings, third = first.conf / "box.toml", first.conf / "third.toml"
    settings.write_text(
        settings.read_text().replace('name = "Front dock"', 'name = "Front dock"\n        id = "front"')
    )
    third.write_text('[[camera]]\nname = "Third"\nsource = "test"\n')
    with fail_after(90):
        async with running(tmp_path, is_new=False) as daemon:
            while (await daemon.call("get_system_status"))["mediamtx"]["status"] != "ready":
                await trio.sleep(0.05)
            key = (await daemon.call("create_key", name="v", role="viewer"))["api_key"]
            stays, goes = RtspReader(rtsp, "camera0", "v", key), RtspReader(rtsp, "camera1", "v", key)
            for viewer in (stays, goes):
                await viewer.play()
                await viewer.wait_packet()
            settings.write_text(settings.read_text().replace('name = "Front dock"', 'name = "Gate"'))
            third.write_text('[[camera]]\nname = "Fourth"\nsource = "rtsp://192.0.2.7/s"\n')
            await daemon.hang_up()
            assert await daemon.cameras() == {"camera0": "Gate", "camera2": "Fourth"}
            await goes.wait_end()
            seen = stays.received
            while stays.received < seen + 20:
                await stays.wait_packet()
            for viewer in (stays, goes):
                await viewer.aclose()


async def test_a_file_that_cannot_be_read_changes_nothing_and_is_told(tmp_path: Path) -> None:
    """In the log and in the status, with file and line; and the next one counts."""
    async with running(tmp_path) as daemon:
        bad = daemon.conf / "bad.toml"
        bad.write_text('[log]\nlevl = "debug"\n[[camera]]\nname = "x"\nsource = "test"\n')
        await daemon.hang_up()
        assert await daemon.cameras() == {"camera0": "Front dock"}
        assert "settings_not_applied" in daemon.log
        assert f"{bad} line 2" in daemon.log
        assert any("the settings were not applied" in each for each in daemon.told)
        bad.write_text('[[camera]]\nname = "x"\nsource = "test"\n')
        await daemon.hang_up()
        assert await daemon.cameras() == {"camera0": "Front dock", "camera1": "x"}
        assert not any("not applied" in each for each in daemon.told)


async def test_what_needs_a_restart_is_named_and_the_rest_is_applied(tmp_path: Path) -> None:
    """By key, each time until it is restarted or taken back; no value is shown."""
    async with running(tmp_path) as daemon:
        more = daemon.conf / "more.toml"
        more.write_text('[limits]\nbatch = 7\n[log]\nlevel = "debug"\n[auth]\nissuer = "another-planted-name"\n')
        await daemon.hang_up()
        (line,) = [line for line in daemon.log.splitlines() if "settings_need_restart" in line]
        assert "limits.batch" in line
        assert "auth.issuer" in line
        assert "log.level" not in line
        assert "planted" not in daemon.log
        await daemon.hang_up()
        assert daemon.log.count("settings_need_restart") == 2
        more.unlink()
        await daemon.hang_up()
        assert daemon.log.count("settings_need_restart") == 2


async def test_an_added_camera_outlives_a_hangup(tmp_path: Path) -> None:
    """And a setting says from then on where calls may add one."""
    async with running(tmp_path) as daemon:
        await daemon.call("add_camera", name="Yard", source="rtsp://192.0.2.7/s")
        (daemon.conf / "more.toml").write_text('[sources]\nalso_allowed = ["127.0.0.0/8"]\n')
        await daemon.hang_up()
        await daemon.call("add_camera", name="Own", source="rtsp://127.0.0.1:1/s")
        assert await daemon.cameras() == {"camera0": "Front dock", "camera1": "Yard", "camera2": "Own"}


async def test_in_a_terminal_a_hangup_ends_it_in_order(tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    try:
        async with running(tmp_path, stdin=theirs) as daemon:
            daemon.child.send_signal(signal.SIGHUP)
            with fail_after(30):
                code = await trio.to_thread.run_sync(daemon.child.wait)
            assert code == 0
            assert "stopped" in daemon.log
    finally:
        os.close(mine)
        os.close(theirs)


def test_the_unit_lets_systemd_wait_for_it() -> None:
    assert "Type=notify-reload\n" in (ROOT / "packaging/debian/edged.service").read_text()


@given(st.integers(1, 99), st.sampled_from(["debug", "info"]), st.booleans(), st.booleans())
def test_exactly_what_differs_is_named(batch: int, level: Any, camera: bool, source: bool) -> None:
    config = Config(
        limits=LimitSettings(batch=batch),
        log=LogSettings(level=level),
        camera=(CameraSettings(name="x", source="test"),) if camera else (),
        sources=SourceSettings(also_allowed=("127.0.0.0/8",) if source else ()),
    )
    wanted = {"limits.batch": batch != 50, "log.level": level != "info", "camera": camera}
    wanted["sources.also_allowed"] = source
    assert set(differing(Config(), config)) == {key for key, is_other in wanted.items() if is_other}
    assert differing(config, config) == []
    assert [key for key in wanted if not is_applied(key)] == ["limits.batch"]
