"""Kept snapshots: names, files, and what happens when two want the same one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import InvalidParams, InvalidState, NotFound, StoreFailed
from edged.library import snapshots as module
from edged.library.snapshots import Snapshots, check_name, complete_name

#: 2026-11-22 06:30:00 UTC
NOW = 1795329000.0
JPEG = b"\xff\xd8picture\xff\xd9"


async def test_a_saved_picture_is_found_again_with_its_camera(tmp_path: Path) -> None:
    """What was saved under a name is found under it, byte for byte, and tells its camera."""
    snapshots = Snapshots(tmp_path / "media" / "snapshots")
    saved = await snapshots.save("dock.jpg", "camera0", JPEG, "jpg", NOW)
    (found,) = await snapshots.find("dock.jpg")
    assert (saved.filename, saved.size, saved.created_at, saved.path) == ("dock.jpg", len(JPEG), NOW, found)
    assert found.read_bytes() == JPEG
    assert snapshots.camera_of(found) == "camera0"


async def test_a_name_without_its_ending_means_the_newest_of_that_name(tmp_path: Path) -> None:
    """Some clients drop the ending (C-39); the whole name is exact, and nothing but pictures is meant by half a one."""
    snapshots = Snapshots(tmp_path)
    forms: list[tuple[str, str, Literal["jpg", "png"]]] = [
        ("dock.jpg", "camera0", "jpg"),
        ("dock.png", "camera1", "png"),
    ]
    for name, camera, form in forms:
        await snapshots.save(name, camera, JPEG, form, NOW)
    (tmp_path / "camera0" / "dock.txt").write_bytes(b"a note")
    (tmp_path / "camera0" / "dock.jpeg").symlink_to(tmp_path / "camera1" / "dock.png")
    os.utime(tmp_path / "camera0" / "dock.jpg", (NOW, NOW))
    os.utime(tmp_path / "camera1" / "dock.png", (NOW + 1, NOW + 1))
    assert [path.name for path in await snapshots.find("dock")] == ["dock.png", "dock.jpg"]
    assert [path.name for path in await snapshots.find("dock.jpg")] == ["dock.jpg"]
    await snapshots.save("dock.v2", "camera0", JPEG, "jpg", NOW)
    assert [path.name for path in await snapshots.find("dock.v2")] == ["dock.v2.jpg"]


async def test_others_cannot_read_a_snapshot(tmp_path: Path) -> None:
    """A picture of somebody's gate is not world-readable."""
    saved = await Snapshots(tmp_path).save(None, "camera0", JPEG, "jpg", NOW)
    assert saved.path.stat().st_mode & 0o777 == 0o640 & ~_umask()


async def test_a_second_picture_of_one_name_gets_a_counter_whatever_its_camera(tmp_path: Path) -> None:
    """Nothing is overwritten, and a name means one picture, so that it can be asked for without its camera."""
    snapshots = Snapshots(tmp_path)
    names = [
        (await snapshots.save("dock.jpg", camera, camera.encode(), "jpg", NOW)).filename
        for camera in ("camera0", "camera1", "camera0")
    ]
    assert names == ["dock.jpg", "dock-1.jpg", "dock-2.jpg"]
    assert (await snapshots.find("dock-1.jpg"))[0].read_bytes() == b"camera1"


async def test_many_at_once_get_a_name_each(tmp_path: Path) -> None:
    """Twenty saves of one name in the same moment leave twenty whole files."""
    snapshots = Snapshots(tmp_path)
    names: list[str] = []

    async def save(count: int) -> None:
        saved = await snapshots.save("a.jpg", f"camera{count % 3}", bytes([count]) * 50, "jpg", NOW)
        names.append(saved.filename)

    async with trio.open_nursery() as nursery:
        for count in range(20):
            nursery.start_soon(save, count)
    assert len(set(names)) == 20
    contents = {(await snapshots.find(name))[0].read_bytes() for name in names}
    assert contents == {bytes([count]) * 50 for count in range(20)}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("given_name", "form", "expected"),
    [
        (None, "jpg", "camera0_2026-11-22_06-30-00.jpg"),
        ("", "png", "camera0_2026-11-22_06-30-00.png"),
        ("dock", "png", "dock.png"),
        ("dock.v2", "jpg", "dock.v2.jpg"),
        ("DOCK.JPEG", "jpg", "DOCK.JPEG"),
    ],
)
def test_a_name_is_completed(given_name: str | None, form: module.Format, expected: str) -> None:
    """Without a name there is camera and time; without an ending, that of the format is added."""
    assert complete_name(given_name, "camera0", form, NOW) == expected


def test_an_ending_of_another_format_is_refused() -> None:
    """A PNG is not saved under the name of a JPEG."""
    with pytest.raises(InvalidParams, match="format is jpg"):
        complete_name("dock.png", "camera0", "jpg", NOW)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", ".hidden", "a/b.jpg", "a\0.jpg", "a\n", "ä.jpg", "x" * 101]
)
async def test_an_unsafe_name_is_refused(tmp_path: Path, name: str) -> None:
    """No name leads out of the folder, hides a file or breaks a header line."""
    snapshots = Snapshots(tmp_path / "inner")
    with pytest.raises(InvalidParams):
        await snapshots.save(name, "camera0", JPEG, "jpg", NOW)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=130))
def test_a_name_that_passes_is_one_plain_file_name(name: str) -> None:
    """Whatever passes the check stays inside its folder."""
    try:
        check_name(name)
    except InvalidParams:
        return
    assert Path("/folder", name).resolve().parent == Path("/folder")
    assert not name.startswith(".")
    assert name.isascii()


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """A missing file, a missing folder and a file half written are the same: not found."""
    with pytest.raises(NotFound):
        await Snapshots(tmp_path / "none").find("a.jpg")
    with pytest.raises(InvalidParams):
        await Snapshots(tmp_path).find("../a.jpg")
    (tmp_path / ".a.jpg.part").write_bytes(b"half")
    (tmp_path / "stray.jpg").write_bytes(b"of no camera")
    (tmp_path / "camera0").mkdir()
    for name in ("a.jpg", "stray.jpg"):
        with pytest.raises(NotFound):
            await Snapshots(tmp_path).find(name)


async def test_a_symbolic_link_is_not_served(tmp_path: Path) -> None:
    """Whoever can write into the folder cannot make edged hand out another file."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "snapshots" / "camera0").mkdir(parents=True)
    (tmp_path / "snapshots" / "camera0" / "a.jpg").symlink_to(tmp_path / "secret")
    snapshots = Snapshots(tmp_path / "snapshots")
    with pytest.raises(NotFound):
        await snapshots.find("a.jpg")
    assert (await snapshots.save("a.jpg", "camera0", JPEG, "jpg", NOW)).filename == "a-1.jpg"


async def test_a_disk_that_does_not_take_it_is_told(tmp_path: Path) -> None:
    """A folder that cannot be made is a failed store with the system's reason, not a crash."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match="not saved"):
        await Snapshots(tmp_path / "file").save(None, "camera0", JPEG, "jpg", NOW)


async def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails in the middle, neither a file nor a half one is left."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreFailed, match="No space left"):
        await Snapshots(tmp_path).save("a.jpg", "camera0", JPEG, "jpg", NOW)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_name_that_was_used_too_often_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for a free name ends."""
    monkeypatch.setattr(module, "_HIGHEST_COUNT", 3)
    snapshots = Snapshots(tmp_path)
    for _ in range(3):
        await snapshots.save("a.jpg", "camera0", JPEG, "jpg", NOW)
    with pytest.raises(InvalidState, match="another name"):
        await snapshots.save("a.jpg", "camera0", JPEG, "jpg", NOW)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
