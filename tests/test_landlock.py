"""Children cannot open the databases, the credentials and the settings where setpriv and the kernel have Landlock."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
import structlog.testing
from daemon_helpers import make_config, running_daemon
from media_helpers import ENVIRONMENT
from patience import fail_after

from edged.children import find_landlock, spawn
from edged.landlock import Landlock


def rules_of(options: list[str]) -> set[str]:
    """The paths of the rules among setpriv's options."""
    return {rule.split(":", 2)[2] for rule in options if rule.startswith("path-beneath:")}


def make_box(folder: Path) -> tuple[Path, Path]:
    """A state folder with a secret in it, and a folder inside of it that children need."""
    state = folder / "box" / "state"
    (state / "run").mkdir(parents=True)
    (state / "trust.db").write_text("secret")
    (state / "run" / "playlist").write_text("playlist")
    (folder / "box" / "beside").mkdir()
    (folder / "shortcut").symlink_to(state)
    (folder / "way round").symlink_to(folder)
    return state, state / "run"


def test_no_rule_allows_what_is_shut_or_a_folder_above(disk_path: Path) -> None:
    """Landlock allows whole folders: one above, or a link to one, would allow what is shut."""
    state, run = make_box(disk_path)
    allowed = rules_of(Landlock([state], [run]).options("/bin/true"))
    assert not allowed & {"/", *map(str, state.parents), str(state)}
    assert str(disk_path / "shortcut") not in allowed
    assert str(disk_path / "way round") not in allowed
    assert {"/usr", "/dev", "/proc", str(run), "/bin/true", str(disk_path / "box" / "beside")} <= allowed


def test_a_folder_that_holds_what_is_shut_cannot_be_opened(disk_path: Path) -> None:
    """[recording] folder may be set to the state folder itself."""
    state, run = make_box(disk_path)
    landlock = Landlock([state], [run, state, disk_path])
    assert landlock.refused == [str(state), str(disk_path)]
    assert not rules_of(landlock.options("/bin/true")) & {str(state), str(disk_path)}
    with structlog.testing.capture_logs() as lines:
        find_landlock(landlock, ENVIRONMENT)
    assert [line["folder"] for line in lines if line["event"] == "folder_not_opened"] == landlock.refused


def test_what_vanishes_is_listed_no_more(disk_path: Path) -> None:
    """A folder above a shut one may be removed while edged runs: children are started all the same."""
    state, _ = make_box(disk_path)
    landlock = Landlock([state, disk_path / "box" / "beside" / "deeper" / "secret"])
    (disk_path / "box" / "beside" / "deeper").mkdir()
    landlock.options("/bin/true")
    (disk_path / "box" / "beside" / "deeper").rmdir()
    assert str(disk_path / "box" / "beside") not in rules_of(landlock.options("/bin/true"))


def test_devices_stay_allowed_whatever_is_shut() -> None:
    """A state folder in /dev/shm must not take the cameras away."""
    assert "/dev" in rules_of(Landlock([Path("/dev/shm/state")]).options("/bin/true"))


def test_a_folder_that_appears_beside_is_allowed_from_the_next_child_on(disk_path: Path) -> None:
    """A name server's file in /run may come after the start of edged."""
    state, run = make_box(disk_path)
    landlock = Landlock([state], [run])
    landlock.options("/bin/true")
    (disk_path / "box" / "later").mkdir()
    assert str(disk_path / "box" / "later") in rules_of(landlock.options("/bin/true"))


def test_a_setpriv_without_landlock_is_told_once_and_children_start_as_before(disk_path: Path) -> None:
    """Debian 12: the option is unknown there."""
    guard = disk_path / "setpriv"
    guard.write_text("#!/bin/sh\necho \"setpriv: unrecognized option '--landlock-access'\" >&2\nexit 1\n")
    guard.chmod(0o755)
    environment = {"PATH": f"{disk_path}:{ENVIRONMENT['PATH']}"}
    with structlog.testing.capture_logs() as lines:
        assert find_landlock(Landlock([disk_path / "state"]), environment) is None
    assert [(line["event"], line["why"]) for line in lines] == [
        ("children_not_confined", "setpriv: unrecognized option '--landlock-access'")
    ]


async def run_confined(landlock: Landlock, script: str) -> str:
    """What a shell script under this Landlock writes."""
    said = b""
    with fail_after(20):
        async with spawn(["sh", "-c", f"exec 2>&1; {script}"], environment=ENVIRONMENT, landlock=landlock) as child:
            assert child.stdout is not None
            async for data in child.stdout:
                said += data
    return said.decode()


@pytest.mark.landlock
@pytest.mark.parametrize(
    "script",
    [
        "cat {state}/trust.db",
        "cat {box}/../shortcut/trust.db",
        "cat '{box}/../way round/box/state/trust.db'",
        "cat /proc/self/root{state}/trust.db",
        "cat /proc/{edged}/root{state}/trust.db",
        "ls /proc/{edged}/cwd",
        "ls {state}",
        "echo x > {state}/trust.db",
        "echo x > {state}/new",
        "mv {state}/trust.db {state}/run/trust.db",
        "ln {state}/trust.db {state}/run/trust.db",
        "cat /proc/{edged}/mem",
    ],
)
async def test_a_child_cannot_open_what_is_shut(disk_path: Path, script: str) -> None:
    """By whatever path, and not through the process of edged either."""
    state, run = make_box(disk_path)
    script = script.format(state=state, box=disk_path / "box", edged=os.getpid())
    said = await run_confined(Landlock([state], [run]), f"{script} && echo succeeded")
    assert "succeeded" not in said
    assert "secret" not in said
    assert "denied" in said or "cross-device" in said
    assert (state / "trust.db").read_text() == "secret"


@pytest.mark.landlock
async def test_a_child_can_open_what_it_needs(disk_path: Path) -> None:
    """Its own folder, the system's files, devices, and whatever appears in /dev later."""
    state, run = make_box(disk_path)
    landlock = Landlock([state], [run])
    device = Path("/dev/shm") / f"edged-{uuid.uuid4()}"
    landlock.options("/bin/true")
    device.write_text("later\n")
    try:
        said = await run_confined(
            landlock,
            f"cat {run}/playlist; echo more > {run}/own && cat {run}/own; cat {device};"
            "echo x > /dev/null && echo null;"
            f"cat /etc/hostname /etc/passwd > /dev/null && echo system; ls {disk_path}/box/beside && echo beside",
        )
    finally:
        device.unlink()
    assert said == "playlistmore\nlater\nnull\nsystem\nbeside\n"


@pytest.mark.landlock
async def test_a_program_in_a_folder_that_is_shut_can_be_run(disk_path: Path) -> None:
    """[mediamtx] binary may lie anywhere."""
    state, run = make_box(disk_path)
    program = state / "mediamtx"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o755)
    with fail_after(20):
        async with spawn([str(program), "hi"], environment=ENVIRONMENT, landlock=Landlock([state], [run])) as child:
            assert child.stdout is not None
            assert await child.stdout.receive_some(100) == b"hi\n"


@pytest.mark.landlock
@pytest.mark.ffmpeg
async def test_an_ffmpeg_of_the_daemon_cannot_open_what_is_private(
    disk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole daemon: neither the databases, nor the local socket's folder, nor a shared secret's file."""
    config = make_config(disk_path, cameras=1)
    seen, programs = config.paths.runtime / "children" / "seen", disk_path / "programs"
    programs.mkdir()
    (programs / "ffmpeg").write_text(
        f"#!/bin/sh\n{{ cat {config.paths.state}/trust.db; cat {disk_path}/secret; ls {config.paths.runtime};"
        f" echo end; }} > {seen}.new 2>&1; mv {seen}.new {seen}\n"
    )
    (programs / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    async with running_daemon(disk_path, config=config) as daemon, daemon.local() as admin:
        assert "error" in await admin.ask("take_snapshot", device="camera0")
        lines = seen.read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["Permission denied"] * 3 + ["end"]
