"""Room for denials: real blocks, in a file of edged's own or none."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edged.errors import StoreFailed
from edged.store import database
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.room import HEADER, PIECE, SIZE, Room

SECTOR = 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.room"


@pytest.fixture
def room(path: Path) -> Iterator[Room]:
    room = Room(path)
    yield room
    room.close()


def test_the_room_has_a_block_for_each_byte_and_is_for_nobody_elses_eyes(path: Path, room: Room) -> None:
    """Also under a umask that would give it away."""
    before = os.umask(0)
    try:
        room.grow()
    finally:
        os.umask(before)
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o777, room.is_whole) == (HEADER + SIZE, 0o600, True)
    assert found.st_blocks * SECTOR >= HEADER + SIZE
    content = path.read_bytes()[HEADER:]
    assert len({content[start : start + 4096] for start in range(0, SIZE, 4096)}) == SIZE // 4096


def test_the_room_is_given_up_piece_by_piece_until_nothing_is_left(path: Path, room: Room) -> None:
    """And made again in what there is; told once each."""
    with capture_logs() as told:
        room.grow()
        sizes = []
        while room.give_up():
            sizes.append(path.stat().st_size - HEADER)
        room.grow()
    assert sizes == list(range(SIZE - PIECE, -1, -PIECE))
    assert (path.stat().st_size, room.size) == (HEADER + SIZE, SIZE)
    assert [line["event"] for line in told] == ["room for denials is used", "room for denials is whole"]


def test_what_an_earlier_run_left_is_taken_over_as_it_is(path: Path, room: Room) -> None:
    """A start on a full disk writes nothing for it, and can give it up."""
    room.grow()
    room.give_up()
    left = path.read_bytes()
    later = Room(path)
    later.find()
    assert later.size == SIZE - PIECE == len(left) - HEADER
    assert path.read_bytes() == left
    assert later.give_up()
    later.close()


def test_nothing_is_made_by_looking_for_it(path: Path, room: Room) -> None:
    """What is refused at the start is left as it was."""
    room.find()
    assert not path.exists()
    assert not room.give_up()


def test_a_copy_with_holes_holds_no_blocks_and_is_written_anew(path: Path, room: Room) -> None:
    """As a restored copy of the folder may have it."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    room.find()
    assert room.size == 0
    room.grow()
    assert path.stat().st_blocks * SECTOR >= SIZE


def test_a_room_that_is_larger_than_wanted_gives_the_rest_back(path: Path, room: Room) -> None:
    """Of another version, perhaps."""
    path.write_bytes(os.urandom(HEADER + SIZE + 5000))
    room.find()
    assert path.stat().st_size == HEADER + SIZE
    assert room.is_whole


def link(path: Path, other: Path) -> None:
    path.symlink_to(other)


def hard_link(path: Path, other: Path) -> None:
    path.hardlink_to(other)


def fifo(path: Path, _other: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _other: Path) -> None:
    path.mkdir()


def foreign(path: Path, _other: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: no file of somebody else's can be made")
    path.write_bytes(b"theirs")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize("put", [link, hard_link, fifo, folder, foreign])
def test_what_is_not_a_file_of_our_own_is_left_alone(path: Path, room: Room, put: Callable[[Path, Path], None]) -> None:
    """Told once, with a remedy; once it is moved away the room is made."""
    other = path.with_name("other")
    other.write_bytes(b"somebody's")
    other.chmod(0o644)
    put(path, other)
    before = path.lstat()
    with capture_logs() as told:
        room.find()
        room.grow()
        room.grow()
        assert not room.give_up()
        assert room.size == 0
        after = path.lstat()
        assert (other.read_bytes(), other.stat().st_mode & 0o777) == (b"somebody's", 0o644)
        assert (before.st_ino, before.st_size, before.st_mode) == (after.st_ino, after.st_size, after.st_mode)
        (short,) = told
        assert short["event"] == "room for denials is short"
        assert "move away what stands there" in short["remedy"]
        path.rename(path.with_name("away"))
        room.grow()
        assert room.is_whole
    assert told[-1]["event"] == "room for denials is whole"


def test_a_part_of_the_room_is_better_than_none(path: Path, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the space ends within it, what there was is kept."""
    limit = HEADER + SIZE // 2 + 12288
    really = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= limit:
            raise OSError(28, "No space left on device")
        return really(descriptor, data[: limit - offset], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with capture_logs() as told:
        room.grow()
        room.grow()
    assert (room.size, path.stat().st_size, room.is_whole) == (limit - HEADER, limit, False)
    assert [(line["kept_bytes"], line["problem"]) for line in told] == [(limit - HEADER, "No space left on device")]
    assert "free space" in told[0]["remedy"]


def test_what_no_sync_vouches_for_is_no_room(path: Path, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that finds out at the sync that there is no space."""
    room.grow()
    room.give_up()

    def fsync(_descriptor: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", fsync)
    room.grow()
    assert (room.size, path.stat().st_size) == (SIZE - PIECE, HEADER + SIZE - PIECE)


class Trouble:
    """COMMITs that fail with an error of SQLite's, and what the room was at each of them."""

    def __init__(self, path: Path, name: str, times: int) -> None:
        self._path, self._name, self._left = path, name, times
        self.sizes: list[int] = []
        self._really = database._transact

    def transact(self, connection: sqlite3.Connection, transaction: Any) -> Any:
        self.sizes.append(self._path.stat().st_size - HEADER)
        if self._left:
            self._left -= 1
            problem = sqlite3.OperationalError("no room")
            problem.sqlite_errorname = self._name
            raise problem
        return self._really(connection, transaction)


def note(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO meta (name, value) VALUES ('x', 1)")


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE"])
async def test_a_denial_is_written_again_in_the_room_whichever_word_sqlite_has_for_no_space(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """ENOSPC of a write is FULL, a quota an error of writing: first in the log's own blocks, then piece by piece; what
    is left over is taken back before the caller hears of it."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", room=path) as db:
        trouble = Trouble(path, name, 3)
        monkeypatch.setattr(database, "_transact", trouble.transact)
        await db.write(note, may_stand=True)
        assert trouble.sizes == [SIZE, SIZE, SIZE - PIECE, SIZE - 2 * PIECE]
        assert (path.stat().st_size, db.room_bytes, db.has_room) == (HEADER + SIZE, SIZE, True)


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE"])
async def test_a_grant_gets_nothing_of_the_room(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is told that nothing was done, after one try."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", room=path) as db:
        trouble = Trouble(path, name, 1)
        monkeypatch.setattr(database, "_transact", trouble.transact)
        with pytest.raises(StoreFailed, match="nothing was done"):
            await db.write(note)
        assert trouble.sizes[0] == SIZE
        assert path.stat().st_size == HEADER + SIZE


async def test_other_trouble_than_space_leaves_the_room_alone(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is not mended by it."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", room=path) as db:
        trouble = Trouble(path, "SQLITE_CORRUPT", 1)
        monkeypatch.setattr(database, "_transact", trouble.transact)
        with pytest.raises(StoreFailed):
            await db.write(note, may_stand=True)
        assert trouble.sizes == [SIZE]


async def test_with_all_of_the_room_used_up_a_denial_fails_and_the_next_commit_makes_it_anew(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk takes nothing nothing more is asked of it."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", room=path) as db:
        with monkeypatch.context() as patched:
            trouble = Trouble(path, "SQLITE_FULL", 1000)
            patched.setattr(database, "_transact", trouble.transact)
            with pytest.raises(StoreFailed):
                await db.write(note, may_stand=True)
        assert trouble.sizes == [SIZE, *range(SIZE, -1, -PIECE)]
        assert (db.room_bytes, db.has_room) == (0, False)
        await db.write(note)
        await db.write(lambda _connection: None)
        assert db.has_room


async def test_a_database_that_asks_for_no_room_has_none(tmp_path: Path) -> None:
    """What only counts, and the commands that open the file beside no daemon."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust") as db:
        await db.write(note, may_stand=True)
        assert (db.room_bytes, db.has_room) == (None, True)
    assert not list(tmp_path.glob("*.room"))


async def test_a_copy_before_a_migration_is_of_the_database_alone(tmp_path: Path, path: Path) -> None:
    """The room is worth nothing elsewhere."""
    async with Database.open(tmp_path / "trust.db", TRUST[:-1], name="trust", room=path):
        pass
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", room=path) as db:
        assert db.has_room
    assert [file.suffix for file in (tmp_path / "backups").iterdir()] == [".db"]


def test_what_the_header_says_outlives_every_piece_that_is_given_up(path: Path, room: Room) -> None:
    """It is the part that is never cut off."""
    room.grow()
    room.note_commits(41)
    while room.give_up():
        pass
    room.note_commits(42)
    assert path.stat().st_size == HEADER
    later = Room(path)
    later.find()
    assert later.commits == 42
    later.close()


def test_the_number_of_commits_never_falls(path: Path, room: Room) -> None:
    """Whatever an older database says of itself."""
    room.grow()
    room.note_commits(42)
    room.note_commits(7)
    later = Room(path)
    later.find()
    assert later.commits == 42
    later.close()


@pytest.mark.parametrize("begin", [b"", b"edged trust commits", b"edged trust commits 00000000000000000042 00000000\n"])
def test_a_header_that_cannot_be_read_says_nothing(path: Path, begin: bytes) -> None:
    """Noise of an earlier version, or damage."""
    path.write_bytes(begin + os.urandom(HEADER))
    room = Room(path)
    room.find()
    assert room.commits == 0
    room.grow()
    room.note_commits(3)
    room.close()
    later = Room(path)
    later.find()
    assert later.commits == 3
    later.close()
