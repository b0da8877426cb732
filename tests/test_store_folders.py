"""One process per folder: held, let go, refused with what to do."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.errors import StartFailed
from edged.store.folders import LOCK, hold_folders


async def test_missing_folders_are_made_for_us_alone(tmp_path: Path) -> None:
    """The state is nobody else's; the runtime folder leads others to the socket in it."""
    state, runtime = tmp_path / "lib" / "state", tmp_path / "run"
    async with hold_folders(state, runtime):
        assert state.stat().st_mode & 0o777 == 0o700
        assert runtime.stat().st_mode & 0o755 == 0o755 & ~_umask()


async def test_a_folder_is_held_until_the_end_of_the_block_and_no_longer(tmp_path: Path) -> None:
    """Whichever of the two it is; the same folder may be both."""
    one, two = tmp_path / "one", tmp_path / "two"
    async with hold_folders(one, two):
        for state, runtime in ((one, tmp_path / "x"), (tmp_path / "y", two)):
            with pytest.raises(StartFailed, match="another edged runs on"):
                async with hold_folders(state, runtime):
                    pass
    async with hold_folders(one, one):
        pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the reason and the remedy; one that is a file as well."""
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        with pytest.raises(StartFailed, match=rf"folder {folder} cannot be used: .*: make it writable"):
            async with hold_folders(folder, tmp_path / "run"):
                pass
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o000)
        with pytest.raises(StartFailed, match="Permission denied"):
            async with hold_folders(locked, tmp_path / "run"):
                pass


async def test_a_link_to_a_held_folder_is_the_same_folder(tmp_path: Path) -> None:
    """It is the folder that is held, not its name."""
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    async with hold_folders(tmp_path / "one", tmp_path / "link"):
        with pytest.raises(StartFailed):
            async with hold_folders(tmp_path / "link", tmp_path / "run"):
                pass


async def test_whoever_may_look_into_a_folder_cannot_hold_its_lock(tmp_path: Path) -> None:
    """The runtime folder is open to all where no package made it; what is locked in it is not."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o755)
    stranger = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(stranger, fcntl.LOCK_EX | fcntl.LOCK_NB)
        async with hold_folders(tmp_path / "state", runtime):
            for folder in (runtime, tmp_path / "state"):
                assert (folder / LOCK).stat().st_mode & 0o777 == 0o600
    finally:
        os.close(stranger)
    assert not (runtime / LOCK).exists(), "nothing stays"
    (runtime / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="cannot be used"):
        async with hold_folders(tmp_path / "state", runtime):
            pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_command_of_root_leaves_the_lock_to_the_folders_owner(tmp_path: Path) -> None:
    """Or the daemon could not start after it."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    async with hold_folders(state, state):
        assert (state / LOCK).stat().st_uid == 65534


def test_of_many_that_come_and_go_one_holds_a_folder_at_a_time(tmp_path: Path) -> None:
    """Its file is removed at the end, and whoever has opened it just before holds nothing by it."""
    script = """
import os, sys, time, trio
from pathlib import Path
from edged.errors import StartFailed
from edged.store.folders import hold_folders
async def main():
    folder, held = Path(sys.argv[1]), 0
    while held < 40:
        try:
            async with hold_folders(folder, folder):
                descriptor = os.open(folder / "alone", os.O_CREAT | os.O_EXCL)
                os.close(descriptor)
                os.unlink(folder / "alone")
                held += 1
        except StartFailed as problem:
            assert "another edged" in str(problem), problem
        await trio.sleep(0)
trio.run(main)
"""
    started = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "state")]) for _ in range(3)]
    assert [each.wait(60) for each in started] == [0, 0, 0]
    assert list((tmp_path / "state").iterdir()) == []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
