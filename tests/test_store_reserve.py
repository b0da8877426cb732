"""The reserve: allocated blocks, in a file of edged's own or none."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edged.errors import StartFailed, StoreFailed
from edged.store import jobs, meta
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.replacements import begin_anew
from edged.store.reserve import HEADER, PIECE, SIZE, Reserve, read_commits

SECTOR = 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.reserve"


@pytest.fixture
def reserve(path: Path) -> Iterator[Reserve]:
    reserve = Reserve(path)
    yield reserve
    reserve.close()


def test_the_reserve_has_a_block_for_each_byte_and_is_for_nobody_elses_eyes(path: Path, reserve: Reserve) -> None:
    """Also under a umask that would give it away."""
    before = os.umask(0)
    try:
        reserve.grow()
    finally:
        os.umask(before)
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o777, reserve.is_whole) == (HEADER + SIZE, 0o600, True)
    assert found.st_blocks * SECTOR >= HEADER + SIZE
    content = path.read_bytes()[HEADER:]
    assert len({content[start : start + 4096] for start in range(0, SIZE, 4096)}) == SIZE // 4096


def test_the_reserve_is_given_up_piece_by_piece_until_nothing_is_left(path: Path, reserve: Reserve) -> None:
    """And made again in what there is; told once each."""
    with capture_logs() as told:
        reserve.grow()
        sizes = []
        while reserve.give_up():
            sizes.append(path.stat().st_size - HEADER)
        reserve.grow()
    assert sizes == list(range(SIZE - PIECE, -1, -PIECE))
    assert (path.stat().st_size, reserve.size) == (HEADER + SIZE, SIZE)
    assert [line["event"] for line in told] == ["reserve_used", "reserve_whole"]


def test_what_an_earlier_run_left_is_taken_over_as_it_is(path: Path, reserve: Reserve) -> None:
    """A start on a full disk writes nothing for it, and can give it up."""
    reserve.grow()
    reserve.give_up()
    left = path.read_bytes()
    later = Reserve(path)
    later.find()
    assert later.size == SIZE - PIECE == len(left) - HEADER
    assert path.read_bytes() == left
    assert later.give_up()
    later.close()


def test_nothing_is_made_by_looking_for_it(path: Path, reserve: Reserve) -> None:
    """What is refused at the start is left as it was."""
    reserve.find()
    assert not path.exists()
    assert not reserve.give_up()


def test_a_copy_with_holes_holds_no_blocks_and_is_written_anew(path: Path, reserve: Reserve) -> None:
    """As a restored copy of the folder may have it."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    reserve.find()
    assert reserve.size == 0
    reserve.grow()
    assert path.stat().st_blocks * SECTOR >= SIZE


def test_a_reserve_that_is_larger_than_wanted_gives_the_rest_back(path: Path, reserve: Reserve) -> None:
    """Of another version, perhaps."""
    path.write_bytes(os.urandom(HEADER + SIZE + 5000))
    reserve.find()
    assert path.stat().st_size == HEADER + SIZE
    assert reserve.is_whole


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
def test_what_is_not_a_file_of_our_own_is_left_alone(
    path: Path, reserve: Reserve, put: Callable[[Path, Path], None]
) -> None:
    """Told once, with a remedy; once it is moved away the reserve is made."""
    other = path.with_name("other")
    other.write_bytes(b"somebody's")
    other.chmod(0o644)
    put(path, other)
    before = path.lstat()
    with capture_logs() as told:
        reserve.find()
        reserve.grow()
        reserve.grow()
        assert not reserve.give_up()
        assert reserve.size == 0
        after = path.lstat()
        assert (other.read_bytes(), other.stat().st_mode & 0o777) == (b"somebody's", 0o644)
        assert (before.st_ino, before.st_size, before.st_mode) == (after.st_ino, after.st_size, after.st_mode)
        (short,) = told
        assert short["event"] == "reserve_short"
        assert "move away what stands there" in short["remedy"]
        path.rename(path.with_name("away"))
        reserve.grow()
        assert reserve.is_whole
    assert told[-1]["event"] == "reserve_whole"


def test_a_part_of_the_reserve_is_better_than_none(
    path: Path, reserve: Reserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the space ends within it, what there was is kept."""
    limit = HEADER + SIZE // 2 + 12288
    really = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= limit:
            raise OSError(28, "No space left on device")
        return really(descriptor, data[: limit - offset], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with capture_logs() as told:
        reserve.grow()
        reserve.grow()
    assert (reserve.size, path.stat().st_size, reserve.is_whole) == (limit - HEADER, limit, False)
    assert [(line["kept_bytes"], line["problem"]) for line in told] == [(limit - HEADER, "No space left on device")]
    assert "free space" in told[0]["remedy"]


def test_a_reserve_that_was_not_synced_is_none(path: Path, reserve: Reserve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that finds out at the sync that there is no space."""
    reserve.grow()
    reserve.give_up()

    def fsync(_descriptor: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", fsync)
    reserve.grow()
    assert (reserve.size, path.stat().st_size) == (SIZE - PIECE, HEADER + SIZE - PIECE)


class Trouble:
    """COMMITs that fail with an error of SQLite's, and what the reserve was at each of them."""

    def __init__(self, path: Path, name: str, times: int) -> None:
        self._path, self._name, self._left = path, name, times
        self.sizes: list[int] = []
        self._really = jobs.transact

    def transact(self, connection: sqlite3.Connection, transaction: Any) -> Any:
        self.sizes.append(self._path.stat().st_size - HEADER)
        if self._left:
            self._left -= 1
            problem = sqlite3.OperationalError("no space")
            problem.sqlite_errorname = self._name
            raise problem
        return self._really(connection, transaction)


def note(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO meta (name, value) VALUES ('x', 1)")


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE"])
async def test_a_denial_is_written_again_in_the_reserve_whichever_word_sqlite_has_for_no_space(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """ENOSPC of a write is FULL, a quota an error of writing: first in the log's own blocks, then piece by piece; what
    is left over is taken back before the caller hears of it."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path) as db:
        trouble = Trouble(path, name, 3)
        monkeypatch.setattr(jobs, "transact", trouble.transact)
        await db.write(note, may_stand=True)
        assert trouble.sizes == [SIZE, SIZE, SIZE - PIECE, SIZE - 2 * PIECE]
        assert (path.stat().st_size, db.reserve_bytes, db.has_reserve) == (HEADER + SIZE, SIZE, True)


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE"])
async def test_a_grant_gets_nothing_of_the_reserve(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is told that nothing was done, after one try."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path) as db:
        trouble = Trouble(path, name, 1)
        monkeypatch.setattr(jobs, "transact", trouble.transact)
        with pytest.raises(StoreFailed, match="nothing was done"):
            await db.write(note)
        assert trouble.sizes[0] == SIZE
        assert path.stat().st_size == HEADER + SIZE


async def test_other_trouble_than_space_leaves_the_reserve_alone(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is not mended by it."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path) as db:
        trouble = Trouble(path, "SQLITE_CORRUPT", 1)
        monkeypatch.setattr(jobs, "transact", trouble.transact)
        with pytest.raises(StoreFailed):
            await db.write(note, may_stand=True)
        assert trouble.sizes == [SIZE]


async def test_with_all_of_the_reserve_used_up_a_denial_fails_and_the_next_commit_makes_it_anew(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk takes nothing nothing more is asked of it."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path) as db:
        with monkeypatch.context() as patched:
            trouble = Trouble(path, "SQLITE_FULL", 1000)
            patched.setattr(jobs, "transact", trouble.transact)
            with pytest.raises(StoreFailed):
                await db.write(note, may_stand=True)
        assert trouble.sizes == [SIZE, *range(SIZE, -1, -PIECE)]
        assert (db.reserve_bytes, db.has_reserve) == (0, False)
        await db.write(note)
        await db.write(lambda _connection: None)
        assert db.has_reserve


async def test_a_database_that_asks_for_no_reserve_has_none(tmp_path: Path) -> None:
    """What only counts, and the commands that open the file beside no daemon."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust") as db:
        await db.write(note, may_stand=True)
        assert (db.reserve_bytes, db.has_reserve) == (None, True)
    assert not list(tmp_path.glob("*.reserve"))


async def test_a_copy_before_a_migration_is_of_the_database_alone(tmp_path: Path, path: Path) -> None:
    """The reserve is worth nothing elsewhere."""
    async with Database.open(tmp_path / "trust.db", TRUST[:-1], name="trust", reserve=path):
        pass
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path) as db:
        assert db.has_reserve
    assert [file.suffix for file in (tmp_path / "backups").iterdir()] == [".db"]


def test_what_the_header_says_outlives_every_piece_that_is_given_up(path: Path, reserve: Reserve) -> None:
    """It is the part that is never cut off."""
    reserve.grow()
    reserve.note_commits(41)
    while reserve.give_up():
        pass
    reserve.note_commits(42)
    assert path.stat().st_size == HEADER
    later = Reserve(path)
    later.find()
    assert later.commits == 42
    later.close()


def test_the_number_of_commits_never_falls(path: Path, reserve: Reserve) -> None:
    """Whatever an older database says of itself."""
    reserve.grow()
    reserve.note_commits(42)
    reserve.note_commits(7)
    later = Reserve(path)
    later.find()
    assert later.commits == 42
    later.close()


@pytest.mark.parametrize("begin", [b"", b"edged trust commits", b"edged trust commits 00000000000000000042 00000000\n"])
def test_a_header_that_cannot_be_read_says_nothing(path: Path, begin: bytes) -> None:
    """Noise of an earlier version, or damage."""
    path.write_bytes(begin + os.urandom(HEADER))
    reserve = Reserve(path)
    reserve.find()
    assert reserve.commits == 0
    reserve.grow()
    reserve.note_commits(3)
    reserve.close()
    later = Reserve(path)
    later.find()
    assert later.commits == 3
    later.close()


# --- the name of earlier versions -----------------------------------------------


def write(path: Path, commits: int) -> None:
    """A reserve that says so, as a run left it."""
    made = Reserve(path)
    made.grow()
    made.note_commits(commits)
    made.close()


#: Renames as a start does, and ends itself with SIGKILL at its n-th step: before an even one is done, after an odd one.
_KILLED = """
import os, signal, sys
from pathlib import Path
from edged.store.reserve import Reserve

left = int(sys.argv[2])

def step(done):
    def stepped(*args, **kwargs):
        global left
        for act in (None, done):
            result = act and act(*args, **kwargs)
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return result
    return stepped

for name in ("rename", "unlink", "fsync"):
    setattr(os, name, step(getattr(os, name)))
Reserve(Path(sys.argv[1])).find()
"""


def rename_killed(path: Path, steps: int) -> bool:
    """Whether it was killed before it was through."""
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(steps)], check=False)
    assert ended.returncode in (0, -signal.SIGKILL)
    return ended.returncode != 0


@pytest.mark.parametrize(
    ("files", "highest"),
    [
        ({"trust.room": 41}, 41),
        ({"trust.room": 41, "trust.reserve": 42}, 42),
        ({"trust.room": 42, "trust.reserve": 41}, 42),
        ({"trust.room": 41, "trust.reserve": 41}, 41),
    ],
)
def test_a_kill_at_any_step_of_the_rename_loses_no_commit(tmp_path: Path, files: dict[str, int], highest: int) -> None:
    """What commands read meanwhile is the higher number, and the next start has it under the one name."""
    kills = 0
    for steps in range(20):
        folder = tmp_path / str(steps)
        folder.mkdir()
        for name, commits in files.items():
            write(folder / name, commits)
        was_killed = rename_killed(folder / "trust.reserve", steps)
        assert read_commits(folder / "trust.reserve") == highest
        later = Reserve(folder / "trust.reserve")
        later.find()
        assert (later.commits, later.size) == (highest, SIZE)
        later.close()
        assert [file.name for file in folder.iterdir()] == ["trust.reserve"]
        if not was_killed:
            break
        kills += 1
    assert kills == 4, "before and after the rename, before and after the sync"


@pytest.mark.parametrize("put", [link, hard_link, fifo, folder, foreign])
def test_what_stands_under_the_former_name_and_is_not_our_own_is_left_alone(
    path: Path, reserve: Reserve, put: Callable[[Path, Path], None]
) -> None:
    """And the reserve is made beside it."""
    other = path.with_name("other")
    other.write_bytes(b"somebody's")
    former = path.with_name("trust.room")
    put(former, other)
    before = former.lstat()
    reserve.find()
    reserve.grow()
    assert former.lstat().st_ino == before.st_ino
    assert other.read_bytes() == b"somebody's"
    assert reserve.is_whole


def test_a_former_file_is_not_put_over_what_is_not_our_own(path: Path, reserve: Reserve) -> None:
    """Its number counts all the same."""
    write(path.with_name("trust.room"), 42)
    path.symlink_to(path.with_name("other"))
    reserve.find()
    assert path.is_symlink()
    assert (reserve.commits, read_commits(path)) == (42, 42)


async def test_a_start_with_the_former_file_goes_on_with_it(tmp_path: Path, path: Path) -> None:
    """The number that it says is known before the database is judged."""
    former = path.with_name("trust.room")
    write(former, 42)
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path) as db:
        assert (db.known_commits, db.has_reserve) == (42, True)
    assert (path.exists(), former.exists()) == (True, False)


async def test_a_former_file_shows_that_there_was_a_database(tmp_path: Path, path: Path) -> None:
    """A database that is lost is not begun anew unasked."""
    write(path.with_name("trust.room"), 42)
    with pytest.raises(StartFailed, match="missing or empty"):
        async with Database.open(tmp_path / "trust.db", TRUST, name="trust", reserve=path, proofs=(tmp_path / "none",)):
            raise AssertionError


def test_a_new_database_counts_on_from_the_former_file(tmp_path: Path) -> None:
    """`edged trust begin-anew` before the first start of this version."""
    write(tmp_path / "trust.room", 42)
    begin_anew(tmp_path / "trust.db", tmp_path / "usage.db", tmp_path / "trust.reserve", datetime.now(UTC))
    with closing(sqlite3.connect(tmp_path / "trust.db")) as made:
        assert meta.load_commits(made) == 43
