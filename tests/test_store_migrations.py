"""store/migrations.py and migrating.py: numbered steps, each whole; newer and foreign files are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from identity_helpers import named
from trust_helpers import rows

from edged.access.ledger import Ledger
from edged.credentials.identities import Identity
from edged.errors import StartFailed
from edged.store import refreshes
from edged.store.database import Database
from edged.store.migrating import Incomplete, NewerSchema, migrate, schema_version
from edged.store.migrations import TRUST, USAGE
from edged.store.schemas import find_missing, read

FIRST = ("CREATE TABLE a (x TEXT) STRICT",)
SECOND = ("ALTER TABLE a ADD COLUMN y TEXT", "INSERT INTO a VALUES ('x', 'y')")


@pytest.fixture
def connection(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("migrations", "tables"),
    [
        (
            TRUST,
            {
                "added_cameras",
                "api_keys",
                "recordings",
                "recording_sums",
                "series",
                "statements",
                "revocations",
                "cut_offs",
                "cameras",
                "meta",
                "signing_keys",
                "sqlite_sequence",
                "service_tokens",
                "users",
                "families",
                "family_members",
                "refreshes",
                "issuers",
                "provisional_cut_offs",
            },
        ),
        (
            USAGE,
            {
                "event_runs",
                "events",
                "tallies",
                "offenders",
                "known_places",
                "seals",
                "segments",
                "segment_sums",
                "trust_commits",
            },
        ),
    ],
)
async def test_a_new_file_gets_every_table(
    tmp_path: Path, migrations: tuple[tuple[str, ...], ...], tables: set[str]
) -> None:
    """The first start makes the schema and writes its number."""
    async with Database.open(tmp_path / "new.db", migrations, name="new") as db:
        found = await db.read(lambda c: c.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall())
        assert {row[0] for row in found} == tables
        assert await db.read(schema_version) == len(migrations)


def test_an_old_file_gets_the_missing_steps_only(connection: sqlite3.Connection) -> None:
    """A file at step 1 goes to step 2 with its rows."""
    migrate(connection, (FIRST,))
    connection.execute("INSERT INTO a VALUES ('kept')")
    migrate(connection, (FIRST, SECOND))
    assert schema_version(connection) == 2
    assert connection.execute("SELECT x, y FROM a").fetchall() == [("kept", None), ("x", "y")]


def test_a_file_that_is_up_to_date_is_not_written(connection: sqlite3.Connection) -> None:
    """Every start but the first leaves the SD card alone."""
    migrate(connection, (FIRST,))
    changes = connection.execute("PRAGMA data_version").fetchone(), connection.total_changes
    connection.execute("PRAGMA query_only = ON")
    migrate(connection, (FIRST,))
    assert (connection.execute("PRAGMA data_version").fetchone(), connection.total_changes) == changes


@pytest.mark.parametrize("broken", ["INSERT INTO nowhere VALUES (1)", "this is not SQL"])
def test_a_step_that_fails_leaves_the_step_before(connection: sqlite3.Connection, broken: str) -> None:
    """Nothing of a failed step stays, its number neither; the steps before it do."""
    with pytest.raises(sqlite3.Error):
        migrate(connection, (FIRST, ("CREATE TABLE b (x TEXT)", broken)))
    assert schema_version(connection) == 1
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    assert not connection.in_transaction


async def test_a_newer_file_is_refused_with_both_versions_and_left_alone(tmp_path: Path) -> None:
    """Downgrading edged says what is there, what it knows, and what to do."""
    path = tmp_path / "trust.db"
    async with Database.open(path, (*TRUST, FIRST, SECOND), name="trust"):
        pass
    before = path.read_bytes()
    with pytest.raises(
        StartFailed, match=rf"trust at .*trust.db has schema {len(TRUST) + 2}, .* up to {len(TRUST)}"
    ) as caught:
        async with Database.open(path, TRUST, name="trust"):
            pass
    assert caught.value.fields == {"found": len(TRUST) + 2, "known": len(TRUST)}
    assert caught.value.hint
    assert path.read_bytes() == before


def test_the_error_of_a_newer_file_has_both_numbers(connection: sqlite3.Connection) -> None:
    """Whoever catches it can tell both."""
    connection.execute("PRAGMA user_version = 7")
    with pytest.raises(NewerSchema) as caught:
        migrate(connection, (FIRST,))
    assert (caught.value.found, caught.value.known) == (7, 1)


async def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Tables but no version of ours: not a database to write into."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE photos (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StartFailed, match="not one of edged's: it holds photos"):
        async with Database.open(path, TRUST, name="trust"):
            pass
    assert path.read_bytes() == before
    assert rows(path, "SELECT name FROM sqlite_master") == [("photos",)]


def _number(path: Path, number: int) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")
        connection.commit()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("number", "told"), [(-1, "its schema is numbered -1"), (len(TRUST), "and has not any of its tables")]
)
async def test_a_number_without_a_schema_is_no_database_to_begin_with(tmp_path: Path, number: int, told: str) -> None:
    """Whoever started with it would know no denial: the file is named, what to do is said, nothing in it is changed."""
    path = tmp_path / "trust.db"
    before = _number(path, number)
    with pytest.raises(StartFailed) as caught:
        async with Database.open(path, TRUST, name="trust"):
            pass
    assert str(path) in caught.value.sentence
    assert told in caught.value.sentence
    assert "left as it is" in caught.value.hint
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["trust.db"]


async def test_a_file_with_a_negative_number_keeps_its_rows(tmp_path: Path) -> None:
    """Set right by hand it is what it was."""
    path = tmp_path / "trust.db"
    async with Database.open(path, TRUST, name="trust") as db:
        await db.write(lambda c: c.execute("INSERT INTO meta VALUES ('kept', 1)"))
    _number(path, -len(TRUST))
    with pytest.raises(StartFailed, match="is damaged"):
        async with Database.open(path, TRUST, name="trust"):
            pass
    _number(path, len(TRUST))
    async with Database.open(path, TRUST, name="trust") as db:
        assert await db.read(lambda c: c.execute("SELECT value FROM meta WHERE name = 'kept'").fetchone()[0]) == 1


async def test_a_file_that_lost_a_table_is_refused(tmp_path: Path) -> None:
    """Without its revocations a file would open to everybody who was denied."""
    path = tmp_path / "trust.db"
    async with Database.open(path, TRUST, name="trust") as db:
        await db.write(lambda c: c.execute("DROP TABLE revocations"))
    with pytest.raises(StartFailed, match=r"trust\.db is damaged.* has not revocations"):
        async with Database.open(path, TRUST, name="trust"):
            pass


async def test_a_family_of_an_earlier_version_still_ends_with_each_of_its_tokens(tmp_path: Path) -> None:
    """Its jtis were names without an issuer: by either name a revocation finds the others."""
    path = tmp_path / "trust.db"
    before = next(number for number, step in enumerate(TRUST) if any("made_by" in each for each in step))
    async with Database.open(path, TRUST[:before], name="trust") as db:
        await db.write(lambda c: c.execute("INSERT INTO families VALUES ('family:f', 1.0, 4e9)"))
        await db.write(
            lambda c: c.executemany(
                "INSERT INTO family_members VALUES ('family:f', ?)", [("jti:a:1",), ("jti:b",), ("token:" + "0" * 64,)]
            )
        )
    async with Database.open(path, TRUST, name="trust") as db:
        (family,) = db.read_now(refreshes.load)
    assert family.members == {Identity.of_jti("", "a:1"), Identity.of_jti("", "b"), named("token:" + "0" * 64)}
    for name in (Identity.of_any_jti("b"), Identity.of_jti("", "b")):
        ledger = Ledger()
        ledger.denials.join(family.identity, family.started, family.until, family.members)
        ledger.deny({name} | ledger.denials.families_of({name}))
        assert Identity.of_jti("", "a:1") in ledger.denials


@pytest.mark.parametrize("migrations", [TRUST, USAGE])
def test_a_file_of_each_earlier_schema_becomes_what_a_new_one_is(
    tmp_path: Path, migrations: tuple[tuple[str, ...], ...]
) -> None:
    """By sqlite-utils' reading: the same tables, columns, types, defaults, indexes and references, all STRICT."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        migrate(new, migrations)
        wanted = read(new)
    for number in range(1, len(migrations)):
        with closing(sqlite3.connect(tmp_path / f"{number}.db", isolation_level=None)) as old:
            migrate(old, migrations[:number])
            assert find_missing(old, migrations[:number]) == []
            assert find_missing(old, migrations) != []
            told: list[int] = []
            migrate(old, migrations, told.append)
            assert told == [number]
            assert read(old) == wanted
            assert all(table.strict for table in wanted.values())


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("DROP INDEX i", "index on a (x)"),
        ("ALTER TABLE a DROP COLUMN z", "column a.z"),
        ("DROP TABLE b; CREATE TABLE b (y INTEGER REFERENCES a) STRICT", "column b.y as it should be"),
        ("DROP TABLE b; CREATE TABLE b (y TEXT) STRICT", "reference of b.y to a"),
        ("DROP TABLE b; CREATE TABLE b (y TEXT REFERENCES a)", "STRICT of table b"),
        ("DROP TABLE c; CREATE TABLE c (x TEXT) STRICT", "column c.up"),
        ("DROP TRIGGER t", "trigger t of a"),
    ],
)
def test_an_old_file_that_lacks_something_is_refused_before_anything_is_done(
    connection: sqlite3.Connection, change: str, missing: str
) -> None:
    """What a step was written for is not there: no backup is made, nothing is changed, and what is missing is said."""
    first = (
        "CREATE TABLE a (x TEXT PRIMARY KEY, z TEXT) STRICT", "CREATE UNIQUE INDEX i ON a (x) WHERE x <> ''",
        "CREATE TABLE b (y TEXT REFERENCES a) STRICT",
        "CREATE TABLE c (x TEXT, up TEXT GENERATED ALWAYS AS (upper(x)) STORED) STRICT",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM c; END",
    )  # fmt: skip
    migrate(connection, (first,))
    connection.executescript(change)
    before = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    told: list[int] = []
    with pytest.raises(Incomplete) as caught:
        migrate(connection, (first, SECOND), told.append)
    assert str(caught.value) == f"it says schema 1 and has not {missing}"
    assert (told, schema_version(connection)) == ([], 1)
    assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == before


def test_what_somebody_added_to_an_old_file_is_no_obstacle(connection: sqlite3.Connection) -> None:
    """A table, a column and an index of an operator's own stay."""
    migrate(connection, (FIRST,))
    connection.executescript(
        "CREATE TABLE own (x TEXT); CREATE INDEX own_x ON a (x); ALTER TABLE a ADD COLUMN own TEXT"
    )
    migrate(connection, (FIRST, ("CREATE TABLE b (x TEXT) STRICT",)))
    assert schema_version(connection) == 2
    assert {"own", "a", "b"} == read(connection).keys()


def test_a_result_that_is_not_what_a_new_file_is_is_not_committed(connection: sqlite3.Connection) -> None:
    """A table that is there already, and is another one, is found before COMMIT: the file stays at the step before."""
    migrate(connection, (FIRST,))
    connection.execute("CREATE TABLE b (other TEXT)")
    with pytest.raises(Incomplete, match=r"it says schema 2 and has not column b\.x, STRICT of table b"):
        migrate(connection, (FIRST, ("CREATE TABLE IF NOT EXISTS b (x TEXT) STRICT",)))
    assert schema_version(connection) == 1
    assert not connection.in_transaction
