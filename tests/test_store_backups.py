"""store/backups.py: before a migration changes a file there is a copy of it that was read back."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import sqlite_utils
from trust_helpers import rows

from edged.access.ledger import Ledger
from edged.credentials.api_keys import KeyRecord
from edged.credentials.identities import Identity
from edged.errors import StartFailed
from edged.store import api_keys, backups, cameras, meta, revocations, usage
from edged.store.backups import BackupFailed
from edged.store.cameras import Slot
from edged.store.database import Database
from edged.store.migrating import migrate, schema_version
from edged.store.migrations import TRUST, USAGE, Migrations
from edged.store.usage import Tally

STEP = ("CREATE TABLE later (x TEXT) STRICT", "INSERT INTO later VALUES ('made by the step')")
ROTATED = KeyRecord(
    key_id="key_0000000000000001", name="Küche", role="operator", digest=b"n" * 32, created_at=1.5, expires_at=4e9,
    permissions=("camera:read",), camera_access=("camera0",), rotated_at=2.5, previous_digest=b"o" * 32,
    previous_valid_until=3602.5,
)  # fmt: skip
PLAIN = KeyRecord(key_id="key_0000000000000002", name="yard", role="viewer", digest=b"p" * 32, created_at=2.0)
#: A camera's identity of before there were records of devices, as it is now.
RECORDED = {
    "vendor": "046d", "product": "082d", "model": "", "serial": "1", "port": "usb-1", "interface": "00", "index": "0",
    "path": "usb-1", "driver": "",
}  # fmt: skip
#: The schema that brought them.
RECORDS = next(number for number, step in enumerate(TRUST, 1) if any("binding" in each for each in step))
#: Its text in the file, before.
IDENTITY = '{"model":"046d:082d","part":"00.0","port":"usb-1","serial":"1"}'

#: What a box of each released schema has in its tables: as SQL, because that edged is not here any more to write it.
KEY_COLUMNS = (
    "key_id, name, role, digest, created_at, expires_at, permissions, camera_access, revoked_at, rotated_at,"
    " previous_digest, previous_valid_until"
)
SCHEMA_1 = (
    (
        f"INSERT INTO api_keys ({KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            "key_0000000000000001", "Küche", "operator", b"n" * 32, 1.5, 4e9, '["camera:read"]', '["camera0"]', None,
            2.5, b"o" * 32, 3602.5,
        ),
    ),
    (
        "INSERT INTO api_keys (key_id, name, role, digest, created_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?)",
        ("key_0000000000000002", "yard", "viewer", b"p" * 32, 2.0, 9.0),
    ),
    ("INSERT INTO revocations VALUES (?, ?, ?, ?)", ("key:key_0000000000000002", "key", 9.0, None)),
    ("INSERT INTO revocations VALUES (?, ?, ?, ?)", ("jti:abc", "token", 10.0, 4e9)),
    (
        "INSERT INTO cameras (number, identity, label, kind) VALUES (?, ?, ?, ?)",
        (3, IDENTITY, "dock", "usb"),
    ),
    ("INSERT INTO meta VALUES (?, ?)", ("high_water", 1.8e9)),
)  # fmt: skip

SCHEMA_2 = (
    (
        "INSERT INTO api_keys (key_id, name, role, digest, created_at, streams, suspended_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        ("key_0000000000000003", "resting", "viewer", b"r" * 32, 3.0, '{"camera0":["read"]}', 7.0),
    ),
    ("INSERT INTO cut_offs (scope, before, at, reason) VALUES (?, ?, ?, ?)", ("all", 5.0, 6.0, "a leak")),
)
SCHEMA_3 = (
    (
        "INSERT INTO signing_keys (algorithm, state, public, private, created_at) VALUES (?, ?, ?, ?, ?)",
        ("RS256", "current", "{}", "{}", 4.0),
    ),
)
SCHEMA_4 = (
    (
        "INSERT INTO users (name, display_name, role, camera_access, password, epoch, created_at, disabled_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ("ann", "Änne", "admin", '["camera0"]', "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA", 7, 5.0, 6.0),
    ),
    ("UPDATE api_keys SET owner = ? WHERE key_id = ?", ("ann", "key_0000000000000003")),
    ("INSERT INTO meta VALUES (?, ?)", ("epoch", 7)),
)
SCHEMA_5 = (
    (
        "INSERT INTO service_tokens (token_id, name, digest, created_at, networks) VALUES (?, ?, ?, ?, ?)",
        ("svc_0000000000000001", "uploads", b"s" * 32, 5.0, '["192.0.2.0/24"]'),
    ),
)
SCHEMA_6 = (
    ("UPDATE cut_offs SET own_before = ?, epoch = ? WHERE scope = ?", (4.5, 6, "all")),
    ("INSERT INTO families (family_id, started, until) VALUES (?, ?, ?)", ("family:ab", 4.0, 4e9)),
    ("INSERT INTO family_members (family_id, identity) VALUES (?, ?)", ("family:ab", "jti:abc")),
    ("INSERT INTO refreshes (name, family_id, claims) VALUES (?, ?, ?)", ("ab", "family:ab", '{"sub":"ann"}')),
)
SCHEMA_7 = (("INSERT INTO issuers VALUES (?, ?, ?, ?)", ("company", "https://login.example.com/", "{}", 5.0)),)
SCHEMA_8 = (
    ("UPDATE api_keys SET older_secrets = ? WHERE key_id = ?", (f'[["{"6d" * 32}",5.5]]', "key_0000000000000003")),
    ("UPDATE service_tokens SET older_secrets = ?", (f'[["{"6e" * 32}",6.5]]',)),
)
SCHEMA_9 = (
    (
        "INSERT INTO provisional_cut_offs (scope, boot, seconds, at, reason, epoch) VALUES (?, ?, ?, ?, ?, ?)",
        ("user:ann", "7d4e", 12.5, 6.0, "a leak", 7),
    ),
)
SCHEMA_10 = (
    ("INSERT INTO added_cameras (number, settings, address) VALUES (?, ?, ?)", (3, "{}", "rtsp://192.0.2.7/")),
)
SCHEMA_11 = (
    ("UPDATE api_keys SET made_by = ? WHERE key_id = ?", ('["user:ann"]', "key_0000000000000003")),
    ("UPDATE service_tokens SET made_by = ?", ('["user:ann"]',)),
)
ROWS = (SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4, SCHEMA_5, SCHEMA_6, SCHEMA_7, SCHEMA_8, SCHEMA_9, SCHEMA_10, SCHEMA_11)


def make_old(path: Path, migrations: Migrations) -> None:
    """A file as an edged that knew only these steps left it, with rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, migrations)
        for rows_of_step in ROWS[: len(migrations)]:
            for statement, values in rows_of_step:
                connection.execute(statement, values)


def dump(path: Path, columns: Mapping[str, list[str]]) -> dict[str, list[tuple[object, ...]]]:
    """Every row, of these columns of each table; without the mark of a copy."""
    found = {
        table: rows(path, f"SELECT {', '.join(names)} FROM {table} ORDER BY 1") for table, names in columns.items()
    }
    return found | {"meta": [row for row in found["meta"] if row[0] != "restored"]}


def columns_of(path: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = sqlite_utils.Database(connection).tables
        return {table.name: list(table.columns_dict) for table in tables if not table.name.startswith("sqlite_")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "trust.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    make_old(path, TRUST[:1])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize("released", range(1, len(TRUST) + 1))
@pytest.mark.parametrize("more", [(), (STEP,)], ids=["to this edged", "to a later edged"])
async def test_every_released_schema_comes_up_to_date_with_all_it_held(
    path: Path, released: int, more: Migrations
) -> None:
    """Keys, revocations, cameras and the clock's mark are what they were; what was denied is denied."""
    make_old(path, TRUST[:released])
    columns = columns_of(path)
    before = dump(path, columns)
    migrations = (*TRUST, *more)
    identity = RECORDED if released < RECORDS else msgspec.json.decode(IDENTITY, type=dict[str, str])
    async with Database.open(path, migrations, name="trust") as db:
        first, second, *_ = db.read_now(api_keys.load)
        assert first == ROTATED
        assert (second.key_id, second.revoked_at) == (PLAIN.key_id, 9.0)
        denied = db.read_now(revocations.load)
        assert [(str(item.identity), item.at, item.until) for item in denied] == [
            ("key:key_0000000000000002", 9.0, None), ("jti:abc", 10.0, 4e9),
        ]  # fmt: skip
        assert db.read_now(cameras.load) == [Slot(3, identity, "dock", "usb")]
        assert db.read_now(meta.load_high_water) == 1.8e9
        assert db.read_now(schema_version) == len(migrations)
        ledger = Ledger()
        ledger.put_key(second)
        assert Identity.of_key("key_0000000000000002") in ledger.denials
    after = {
        # All families are edged's own: their jtis are now named with that.
        table: [tuple(str(value).replace("jti:", "jti_of::") if table == "family_members" else value for value in row)
                for row in rows]
        for table, rows in before.items()
    }  # fmt: skip
    found = dump(path, columns)
    assert [msgspec.json.decode(str(row[1])) for row in found.pop("cameras")] == [identity]
    assert found == {table: rows for table, rows in (after if released < 11 else before).items() if table != "cameras"}
    copies = backups.find(path)
    assert [copy.schema for copy in copies] == ([released] if released < len(migrations) else [])
    assert all(dump(copy.path, columns) == before for copy in copies)
    assert not rows(path, "SELECT 1 FROM meta WHERE name = 'restored'")
    marks = [rows(copy.path, "SELECT value FROM meta WHERE name = 'restored'") for copy in copies]
    assert all('"cause":"copy"' in str(mark) for mark in marks)
    assert len(marks) == len(copies)


@pytest.mark.parametrize("released", range(1, len(USAGE) + 1))
async def test_every_released_usage_schema_comes_up_to_date(tmp_path: Path, released: int) -> None:
    """Tallies outlive an update too, though they only count."""
    path = tmp_path / "usage.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, USAGE[:released])
        connection.execute("INSERT INTO tallies (credential_id, last_used, count) VALUES ('key_1', 5.0, 7)")
    async with Database.open(path, (*USAGE, STEP), name="usage") as db:
        assert db.read_now(usage.load) == [Tally("key_1", 5.0, 7)]
    assert [copy.schema for copy in backups.find(path)] == [released]


async def test_the_copy_holds_what_the_file_held_and_nobody_else_reads_it(path: Path) -> None:
    """It has mode 0600 in a folder of 0700, needs no file beside it, and an edged of before opens it."""
    make_old(path, TRUST)
    async with Database.open(path, (*TRUST, STEP), name="trust") as db:
        await db.write(lambda connection: connection.execute("DELETE FROM api_keys"))
    (copy,) = backups.find(path)
    assert copy.path.name.startswith(f"trust-0001-schema{len(TRUST)}-20")
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.path.parent.stat().st_mode) == 0o700
    assert [file.name for file in copy.path.parent.iterdir()] == [copy.path.name]
    copy.path.rename(path)
    async with Database.open(path, TRUST, name="trust") as db:
        assert {PLAIN.key_id, ROTATED.key_id} < {key.key_id for key in db.read_now(api_keys.load)}


async def test_rows_that_are_only_in_the_wal_are_in_the_copy(path: Path) -> None:
    """A box that lost power has its last keys in the WAL; the copy is made of what a reader sees."""
    make_old(path, TRUST)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("INSERT INTO meta VALUES ('late', 1)")
        assert path.with_name("trust.db-wal").stat().st_size > 0
        async with Database.open(path, (*TRUST, STEP), name="trust"):
            pass
    assert rows(backups.find(path)[-1].path, "SELECT value FROM meta WHERE name = 'late'") == [(1,)]


async def test_a_new_file_and_one_that_is_up_to_date_are_not_copied(path: Path) -> None:
    """A copy is made of what a migration changes, and of nothing else."""
    async with Database.open(path, TRUST, name="trust"):
        pass
    async with Database.open(path, TRUST, name="trust"):
        pass
    assert not backups.folder_of(path).exists()


def test_the_newest_few_are_kept(connection: sqlite3.Connection, path: Path) -> None:
    """An SD card is small; another database's copies in the same folder are not touched."""
    other = backups.folder_of(path) / "usage-0001-schema1-20270131T120000Z.db"
    made = [backups.make(connection, path, 1)]
    other.touch()
    made += [backups.make(connection, path, 1) for _ in range(backups.KEPT + 1)]
    assert [copy.path for copy in backups.find(path)] == made[-backups.KEPT :]
    assert other.exists()


def test_the_newest_is_the_last_made_whatever_the_clock_says(connection: sqlite3.Connection, path: Path) -> None:
    """A box without a real-time clock that starts in 1970 does not throw its newest copy away."""
    now = datetime(2099, 1, 1, tzinfo=UTC)
    made = [backups.make(connection, path, 1, now - timedelta(days=9000 * number)) for number in range(4)]
    assert [copy.path for copy in backups.find(path)] == made[1:]
    assert made[3].name == "trust-0004-schema1-20250129T000000Z.db"


def test_a_migration_that_fails_at_every_start_does_not_push_the_copy_of_before_out(
    connection: sqlite3.Connection, path: Path
) -> None:
    """Systemd starts edged again for ever: copies of the same schema replace each other first."""
    first = backups.make(connection, path, 1)
    connection.execute("PRAGMA user_version = 2")
    made = [backups.make(connection, path, 2) for _ in range(5)]
    assert [copy.path for copy in backups.find(path)] == [first, *made[-2:]]


def test_what_a_power_cut_left_of_a_copy_is_in_nobodys_way(connection: sqlite3.Connection, path: Path) -> None:
    """A half copy is never taken for one, and the next try replaces it."""
    backups.folder_of(path).mkdir()
    half = backups.folder_of(path) / ".trust.part"
    half.write_bytes(b"half")
    assert backups.find(path) == []
    made = backups.make(connection, path, 1)
    assert list(backups.folder_of(path).iterdir()) == [made]


async def test_a_copy_that_cannot_be_made_stops_the_migration(path: Path) -> None:
    """A file stands where the folder should be: StartFailed says so, and the database is as it was."""
    make_old(path, TRUST)
    backups.folder_of(path).touch()
    with pytest.raises(StartFailed, match=r"left as it is.*no copy.*make the folder writable"):
        async with Database.open(path, (*TRUST, STEP), name="trust"):
            pass
    assert rows(path, "PRAGMA user_version") == [(len(TRUST),)]
    assert rows(path, "SELECT count(*) FROM api_keys") == [(3,)]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free space"), (errno.EDQUOT, "free space"), (errno.EIO, "disk errors"), (errno.EROFS, "writable")],
)
async def test_a_disk_that_fails_under_the_copy_stops_the_migration(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    """The remedy fits the error, no half copy stays behind, and the next start, on a mended disk, goes through."""
    make_old(path, TRUST)

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(StartFailed, match=remedy) as caught:
            async with Database.open(path, (*TRUST, STEP), name="trust"):
                pass
    assert os.strerror(number) in str(caught.value)
    assert list(backups.folder_of(path).iterdir()) == []
    assert rows(path, "PRAGMA user_version") == [(len(TRUST),)]
    async with Database.open(path, (*TRUST, STEP), name="trust") as db:
        assert db.read_now(schema_version) == len(TRUST) + 1


async def test_a_database_that_is_damaged_is_not_migrated(path: Path) -> None:
    """It does not pass quick_check: a person should look before anything is changed."""
    make_old(path, TRUST)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'revocations'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        # The free-block pointer of a page's header: its rows are still read, and it is not sound.
        file.seek((page - 1) * size + 1)
        file.write(b"\x0f\xf0")
    before = path.read_bytes()
    with pytest.raises(StartFailed, match=r"is damaged.*restore a backup.*edged trust begin-anew"):
        async with Database.open(path, (*TRUST, STEP), name="trust"):
            pass
    assert path.read_bytes() == before
    assert backups.find(path) == []


async def test_a_database_that_cannot_be_read_is_not_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own error has SQLite's remedy."""
    make_old(path, TRUST)

    def broken(_connection: sqlite3.Connection, _part: Path, _edit: object) -> None:
        problem = sqlite3.OperationalError("disk I/O error")
        problem.sqlite_errorname = "SQLITE_IOERR_READ"
        raise problem

    monkeypatch.setattr("edged.store.backups.copy", broken)
    with pytest.raises(StartFailed, match=r"disk I/O error.*journalctl -k"):
        async with Database.open(path, (*TRUST, STEP), name="trust"):
            pass


def test_a_copy_of_something_else_is_no_copy(connection: sqlite3.Connection, path: Path) -> None:
    """The schema number of the copy is read back too."""
    with pytest.raises(BackupFailed, match="has schema 1 and not 2"):
        backups.make(connection, path, 2)
    assert backups.find(path) == []


async def test_a_newer_schema_is_refused_with_the_backup_that_fits(path: Path) -> None:
    """Both versions, and the newest copy that this edged can open; the newer file and the copies stay."""
    make_old(path, TRUST)
    async with Database.open(path, (*TRUST, STEP), name="trust"):
        pass
    async with Database.open(path, (*TRUST, STEP, ("CREATE TABLE still_later (x TEXT)",)), name="trust"):
        pass
    fits, too_new = backups.find(path)
    before = path.read_bytes()
    with pytest.raises(StartFailed) as caught:
        async with Database.open(path, TRUST, name="trust"):
            pass
    assert f"has schema {len(TRUST) + 2}, this edged knows up to {len(TRUST)}" in caught.value.sentence
    assert f"edged trust restore {fits.path}; " in caught.value.hint
    assert "edged trust confirm-restore" in caught.value.hint
    assert too_new.path.name not in str(caught.value)
    assert path.read_bytes() == before


async def test_a_newer_schema_without_a_backup_says_that_too(path: Path) -> None:
    """Nobody searches for what is not there."""
    async with Database.open(path, (*TRUST, STEP), name="trust"):
        pass
    with pytest.raises(StartFailed, match=r"\(there is none in .*backups\) .*: edged trust restore FILE"):
        async with Database.open(path, TRUST, name="trust"):
            pass
