"""library/recording_files.py: closed files are moved once, whatever happens in between, and nothing else is touched."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from fmp4_helpers import make_segment
from structlog.testing import capture_logs

from edged.library import recording_files as module
from edged.library.recording_files import RecordingFiles

BEGAN = 1_796_000_000.25


def write(root: Path, name: str = "1796000000-250000.mp4", **options: object) -> Path:
    path = root / "open" / "camera0" / "dock" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_segment(at_ns=round(BEGAN * 1e6) * 1000, **options))  # type: ignore[arg-type]
    return path


def test_a_file_is_left_alone_while_somebody_writes_it(tmp_path: Path) -> None:
    files, path = RecordingFiles(tmp_path), write(tmp_path)
    with path.open("ab"):
        look = files.look()
        assert [(file.camera, file.size) for file in look.writing] == [("camera0", path.stat().st_size)]
        assert look.closed == ()
        assert path.exists()


def test_a_writer_that_comes_while_a_file_is_looked_at_does_not_end_edged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells the holder of a lease by a signal (fcntl(2)); that of its choice by default ends the process."""
    path = write(tmp_path)
    plain = fcntl.fcntl

    def lease(descriptor: int, command: int, value: int) -> int:
        result = plain(descriptor, command, value)
        if (command, value) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        return result

    monkeypatch.setattr(fcntl, "fcntl", lease)
    assert not module.is_being_written(path)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_leases_a_file_is_closed_when_nothing_was_written_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As on NFS."""
    path = write(tmp_path)

    def refuse(_descriptor: int, command: int, _value: int) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))
        return 0

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert module.is_being_written(path)
    os.utime(path, (0, 0))
    assert not module.is_being_written(path)


def test_a_closed_file_is_kept_in_the_folder_of_its_day(tmp_path: Path) -> None:
    size = write(tmp_path).stat().st_size
    files = RecordingFiles(tmp_path)
    (row,) = files.look().closed
    assert (row.file, row.camera) == ("camera0/2026-11-30/1796000000-250000.mp4", "camera0")
    assert row.began == pytest.approx(BEGAN, abs=1e-6)
    assert (row.size, row.recovered) == (size, False)
    assert row.duration == pytest.approx(10 * 6000 / 90000)
    assert files.look().closed == ()
    assert list(files.list_kept()) == [("camera0", row.file)]
    assert files.describe("camera0", row.file) == row


def test_two_files_of_one_microsecond_are_both_kept(tmp_path: Path) -> None:
    write(tmp_path, "1796000000-250000.mp4")
    write(tmp_path, "1796000000-250001.mp4")
    assert len({row.file for row in RecordingFiles(tmp_path).look().closed}) == 2


def test_a_file_that_its_writer_did_not_close_is_recovered(tmp_path: Path) -> None:
    path = write(tmp_path, declared=0)
    path.write_bytes(path.read_bytes()[:-5])
    (row,) = RecordingFiles(tmp_path).look().closed
    assert row.recovered
    assert row.duration == pytest.approx(5 * 6000 / 90000)


def test_a_move_that_a_crash_cut_in_half_is_finished(tmp_path: Path) -> None:
    """Both names of the one file are there: it is kept once."""
    path = write(tmp_path)
    kept = tmp_path / "camera0/2026-11-30/1796000000-250000.mp4"
    kept.parent.mkdir(parents=True)
    os.link(path, kept)
    (row,) = RecordingFiles(tmp_path).look().closed
    assert row.file == "camera0/2026-11-30/1796000000-250000.mp4"
    assert not path.exists()
    assert kept.stat().st_nlink == 1


@pytest.mark.parametrize("content", [b"no mp4 at all", b"\0\0\0\x08ftyp" + b"x" * 40])
def test_a_file_that_is_no_segment_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path)
    path.write_bytes(content)
    assert RecordingFiles(tmp_path).look().closed == ()
    assert (tmp_path / "damaged" / path.name).read_bytes() == content


def test_an_empty_file_and_one_without_a_part_are_deleted(tmp_path: Path) -> None:
    write(tmp_path, "1-000000.mp4").write_bytes(b"")
    write(tmp_path, "2-000000.mp4", parts=0)
    assert RecordingFiles(tmp_path).look().closed == ()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Neither as a file, nor as a folder of a camera, a day or open/."""
    outside = tmp_path / "outside"
    write(outside)
    root = tmp_path / "root"
    folder = root / "open" / "camera0"
    folder.mkdir(parents=True)
    (folder / "1-000000.mp4").symlink_to(outside / "open/camera0/dock/1796000000-250000.mp4")
    (root / "open" / "camera1").symlink_to(outside / "open" / "camera0")
    (root / "camera2").symlink_to(outside)
    files = RecordingFiles(root)
    assert files.look() == module.Look((), ())
    assert list(files.list_kept()) == []
    assert (outside / "open/camera0/dock/1796000000-250000.mp4").exists()


def test_only_what_is_named_is_removed_and_empty_folders_with_it(tmp_path: Path) -> None:
    write(tmp_path, "1-000000.mp4")
    files = RecordingFiles(tmp_path)
    (first,) = files.look().closed
    write(tmp_path, "2-000000.mp4")
    (second,) = files.look().closed
    assert files.remove((first.file,)) == (first.file,)
    assert list(files.list_kept()) == [("camera0", second.file)]
    assert files.remove((second.file, "camera0/2026-11-30/9-000000.mp4")) == (
        second.file,
        "camera0/2026-11-30/9-000000.mp4",
    )
    assert not (tmp_path / "camera0" / "2026-11-30").exists()


@pytest.mark.parametrize("doing", ["look", "remove"])
def test_a_disk_that_refuses_is_told_once_and_once_when_it_no_longer_does(tmp_path: Path, doing: str) -> None:
    """However many files there are, and however often each is tried."""
    files = RecordingFiles(tmp_path)
    kept = []
    for number in (1, 2):
        write(tmp_path, f"{number}-000000.mp4")
        kept += [row.file for row in files.look().closed]
    # A folder that is no folder, or a file that is one: root may write where rights say no.
    day = (tmp_path / kept[0]).parent
    if doing == "look":
        for file in kept:
            (tmp_path / file).rename(tmp_path / "open" / "camera0" / "dock" / Path(file).name)
        day.rmdir()
        day.write_text("in the way")
        names = ("recording_not_kept", "recordings_kept_again")
    else:
        for file in kept:
            (tmp_path / file).unlink()
            (tmp_path / file).mkdir()
        names = ("recording_not_deleted", "recordings_deleted_again")

    def try_it() -> None:
        if doing == "look":
            files.look()
        else:
            files.remove(tuple(kept))

    with capture_logs() as told:
        for _ in range(4):
            try_it()
        assert [(line["event"], line["files"], "remedy" in line) for line in told] == [(names[0], 2, True)]
        if doing == "look":
            day.unlink()
        else:
            for file in kept:
                (tmp_path / file).rmdir()
        for _ in range(2):
            try_it()
        assert [line["event"] for line in told] == list(names)
