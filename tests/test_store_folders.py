"""One process per folder: held, let go, refused with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.errors import StartFailed
from edged.store.folders import hold_folders


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
