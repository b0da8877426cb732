"""A file that is damaged, empty or gone: what only counts is begun anew, what must not be lost stops the start."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from trust_helpers import rows, until

from edged.errors import StartFailed
from edged.store import api_keys, backups, meta, restores, usage
from edged.store.database import Database
from edged.store.migrations import TRUST, USAGE
from edged.store.opening import leave_marker, set_aside
from edged.store.replacements import begin_anew, restore
from edged.store.reserve import Reserve
from edged.store.revocations import load_cut_offs
from edged.store.usage import Tally


def damage_page(path: Path, table: str) -> None:
    """The free-block pointer of a table's first page: its rows are still read, and it is not sound."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size + 1)
        file.write(b"\x0f\xf0")


def write_text(path: Path) -> None:
    path.write_text("this is no database\n" * 500)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def drop_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE tallies")
        connection.commit()


def damage_tallies(path: Path) -> None:
    damage_page(path, "tallies")


@pytest.mark.parametrize("harm", [write_text, cut, zeros, drop_table, damage_tallies])
async def test_what_only_counts_is_set_aside_and_begun_anew(tmp_path: Path, harm: object) -> None:
    """Renamed with a time, and told with where it is; what was in it is still there."""
    path = tmp_path / "usage.db"
    async with Database.open(path, USAGE, name="usage", is_expendable=True) as db:
        await db.write(lambda connection: usage.save(connection, [Tally(f"key_{n}", 1.0, 2) for n in range(300)]))
    harm(path)  # type: ignore[operator]
    before = path.read_bytes()
    with capture_logs() as told:
        async with Database.open(path, USAGE, name="usage", is_expendable=True) as db:
            assert db.read_now(usage.load) == []
            await db.write(lambda connection: usage.save(connection, [Tally("key_1", 1.0, 2)]))
    (line,) = [line for line in told if line["event"] == "database_set_aside"]
    (aside,) = tmp_path.glob("usage-2*.db")
    assert line["set_aside"] == str(aside)
    assert aside.read_bytes() == before


async def test_a_usage_database_of_a_newer_edged_is_not_set_aside(tmp_path: Path) -> None:
    """It is not damaged; who went back to an older edged goes forward again."""
    path = tmp_path / "usage.db"
    async with Database.open(path, (*USAGE, ("CREATE TABLE later (x TEXT)",)), name="usage"):
        pass
    with pytest.raises(StartFailed, match="has schema"):
        async with Database.open(path, USAGE, name="usage", is_expendable=True):
            pass
    assert not list(tmp_path.glob("usage-2*.db"))


async def test_a_damaged_trust_database_stops_the_start_and_names_both_commands(tmp_path: Path) -> None:
    path = tmp_path / "trust.db"
    async with Database.open(path, TRUST, name="trust"):
        pass
    with closing(sqlite3.connect(path)) as connection:
        backup = backups.make(connection, path, len(TRUST))
    damage_page(path, "revocations")
    with pytest.raises(StartFailed) as caught:
        async with Database.open(path, TRUST, name="trust"):
            pass
    assert "is damaged" in caught.value.sentence
    assert f"edged trust restore {backup}" in caught.value.hint
    assert "edged trust begin-anew" in caught.value.hint


async def test_a_large_trust_database_is_checked_right_after_the_start(tmp_path: Path) -> None:
    """It serves meanwhile; damage is told once, with what to do."""
    path = tmp_path / "trust.db"
    async with Database.open(path, TRUST, name="trust") as db:
        await db.write(
            lambda connection: connection.executemany(
                "INSERT INTO revocations (identity, reason, at) VALUES (?, 'x', 1.0)",
                [(f"token:{secrets.token_hex(100)}",) for _ in range(6000)],
            )
        )
    assert path.stat().st_size > 1024 * 1024
    async with Database.open(path, TRUST, name="trust") as db:
        await until(lambda: db._is_checked)
        assert db.damage == ""
    damage_page(path, "cameras")
    with capture_logs() as told:
        async with Database.open(path, TRUST, name="trust") as db:
            await until(lambda: db.damage != "")
    (line,) = [line for line in told if line["event"] == "database_damaged"]
    assert "edged trust begin-anew" in line["remedy"]


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")


@pytest.mark.parametrize("harm", [gone, emptied, without_tables])
@pytest.mark.parametrize("proof", ["trust.exists", "usage.db", "trust.reserve", "backups"])
async def test_a_trust_database_that_vanished_stops_the_start_if_anything_shows_that_there_was_one(
    tmp_path: Path, harm: object, proof: str
) -> None:
    """Each proof alone is enough; both commands are named, and nothing is made."""
    path, marker, tallies = tmp_path / "trust.db", tmp_path / "trust.exists", tmp_path / "usage.db"
    async with Database.open(path, TRUST, name="trust", reserve=tmp_path / "trust.reserve", proofs=(marker, tallies)):
        leave_marker(marker)
    with closing(sqlite3.connect(path)) as connection:
        backups.make(connection, path, len(TRUST))
    async with Database.open(tallies, USAGE, name="usage"):
        pass
    harm(path)  # type: ignore[operator]
    before = path.read_bytes() if path.exists() else None
    for each in (marker, tallies, tmp_path / "trust.reserve"):
        if each.name != proof:
            each.unlink()
    if proof != "backups":
        for copy in backups.find(path):
            copy.path.unlink()
    with pytest.raises(StartFailed) as caught:
        async with Database.open(
            path, TRUST, name="trust", reserve=tmp_path / "trust.reserve", proofs=(marker, tallies)
        ):
            pass
    assert proof in caught.value.sentence
    assert "edged trust begin-anew" in caught.value.hint
    assert (path.read_bytes() if path.exists() else None) == before


async def test_a_new_box_has_no_proofs_and_starts(tmp_path: Path) -> None:
    """Also where something of somebody else's stands in the reserve's place."""
    (tmp_path / "trust.reserve").symlink_to("/nowhere")
    proofs = (tmp_path / "trust.exists", tmp_path / "usage.db")
    async with Database.open(
        tmp_path / "trust.db", TRUST, name="trust", reserve=tmp_path / "trust.reserve", proofs=proofs
    ) as db:
        assert db.commits == 0


async def test_whoever_begins_anew_has_no_keys_and_refuses_every_token_of_before(tmp_path: Path) -> None:
    """An older file that is put back later is behind; what stood there is set aside."""
    path, reserve = tmp_path / "trust.db", tmp_path / "trust.reserve"
    async with Database.open(path, TRUST, name="trust", reserve=reserve) as db:
        for epoch in (5, 6):
            await db.write(lambda connection, epoch=epoch: meta.save_epoch(connection, epoch))  # type: ignore[misc]
    before = datetime.now(UTC)
    aside = begin_anew(path, tmp_path / "usage.db", reserve, before)
    assert aside is not None
    assert rows(aside, "SELECT value FROM meta WHERE name = 'epoch'") == [(6,)]
    async with Database.open(path, TRUST, name="trust", reserve=reserve, proofs=(tmp_path / "none",)) as db:
        assert db.read_now(api_keys.load) == []
        lineage = db.read_now(restores.load)
        assert lineage.mark is None
        assert lineage.commits == 3
        assert lineage.epoch > 6
        (line,) = db.read_now(load_cut_offs)
        assert (str(line.scope), line.before, line.epoch) == ("all", before.timestamp(), lineage.epoch)
    kept = Reserve(reserve)
    kept.find()
    assert kept.commits == 3
    kept.close()


def test_what_is_set_aside_takes_its_log_along_and_replaces_nothing(tmp_path: Path) -> None:
    now = datetime(2027, 1, 31, 12, tzinfo=UTC)
    for _ in range(2):
        for name in ("trust.db", "trust.db-wal"):
            (tmp_path / name).write_text(name)
        set_aside(tmp_path / "trust.db", now)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "trust-20270131T120000Z-2.db", "trust-20270131T120000Z-2.db-wal", "trust-20270131T120000Z.db",
        "trust-20270131T120000Z.db-wal",
    ]  # fmt: skip
    assert set_aside(tmp_path / "trust.db", now) is None


async def test_of_what_only_counts_the_newest_few_that_were_set_aside_are_kept(tmp_path: Path) -> None:
    """A disk that damages it at every start is not filled by it; other files are not touched."""
    path = tmp_path / "usage.db"
    (tmp_path / "usage-notes.db").touch()
    for _ in range(backups.KEPT + 3):
        write_text(path)
        async with Database.open(path, USAGE, name="usage", is_expendable=True):
            pass
    assert len(list(tmp_path.glob("usage-2*.db"))) == backups.KEPT
    assert (tmp_path / "usage-notes.db").exists()


def test_root_gives_a_restored_database_to_the_user_whose_folder_it_is(tmp_path: Path) -> None:
    """Else the daemon, which is not root, could not open it."""
    if os.geteuid() != 0:
        pytest.skip("not root: no folder of somebody else's can be made")
    state = tmp_path / "state"
    state.mkdir()
    kept = Reserve(state / "trust.reserve")
    kept.grow()
    kept.note_commits(41)
    kept.close()
    for path in (state, state / "trust.reserve"):
        os.chown(path, 12345, 12346)
    begin_anew(state / "trust.db", state / "usage.db", state / "trust.reserve", datetime.now(UTC))
    found = (state / "trust.db").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600)
    assert rows(state / "trust.db", "SELECT value FROM meta WHERE name = 'commits'") == [(42,)]
    restore(state / "trust.db", state / "trust.db", datetime.now(UTC))
    assert (state / "trust.db").stat().st_uid == 12345
