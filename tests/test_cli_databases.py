"""`edged db`: a copy of a running daemon's databases, without secrets, for root and the owner."""

from __future__ import annotations

import csv
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_helpers import Shell, running_daemon

from edged.store.inspection import COLUMNS, MASK, CannotInspect, open_copy
from edged.store.migrating import migrate
from edged.store.migrations import TRUST, USAGE

PASSWORD = "a passphrase of the tests"
CAMERA_PASSWORD = "p-4Kz9-word"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Shell:
    return Shell(monkeypatch, capsys, directory)


@pytest.fixture
def made(shell: Shell) -> Iterator[dict[str, Any]]:
    """One of each thing that has a secret; the ids."""
    key = shell.run("key", "create", "dock", "--role", "viewer", "--json").json
    assert shell.run("key", "rotate", key["key_id"], "--json").code == 0
    assert shell.run("user", "add", "ann", "--password-stdin", stdin=f"{PASSWORD}\n").code == 0
    token = shell.run("service-token", "add", "uploads", "--json").json
    source = f"rtsp://viewer:{CAMERA_PASSWORD}@192.0.2.7/s?token=t-{CAMERA_PASSWORD}"
    assert shell.run("camera", "add", "Yard", "-", stdin=source).code == 0
    yield {"key": key, "token": token}
    assert shell.run("user", "remove", "ann").code == 0
    assert shell.run("camera", "remove", "Yard").code == 0


def find_secrets(state: Path) -> set[str]:
    """Every secret of the file itself, as it would look in any output."""
    queries = (
        "SELECT digest FROM api_keys", "SELECT previous_digest FROM api_keys", "SELECT digest FROM service_tokens",
        "SELECT password FROM users", "SELECT private FROM signing_keys",
    )  # fmt: skip
    with closing(sqlite3.connect(f"{(state / 'trust.db').as_uri()}?mode=ro", uri=True)) as connection:
        values = {row[0] for query in queries for row in connection.execute(query) if row[0] is not None}
    assert len(values) >= 5
    return {value.hex() if isinstance(value, bytes) else str(value) for value in values} | {CAMERA_PASSWORD}


def test_no_output_shows_a_secret(shell: Shell, made: dict[str, Any], directory: Path) -> None:
    """Hashes of keys and passwords, private keys, and passwords in cameras' URLs are ***, in each format."""
    secrets = find_secrets(directory.parent / "state")
    tables = shell.run("db", "tables", "--json").json["tables"]
    said = shell.run("db", "schema").out
    for table in tables:
        for kind in ("jsonl", "csv"):
            shown = shell.run("db", "export", table["table"], "--format", kind)
            assert shown.code == 0
            said += shown.out
        for flags in ((), ("--json",)):
            said += shell.run("db", "query", f"SELECT * FROM {table['table']}", *flags).out
    assert {secret for secret in secrets if secret in said} == set()
    assert PASSWORD not in said
    (user,) = shell.run("db", "query", "SELECT name, password FROM users WHERE name = 'ann'", "--json").json
    assert user == {"name": "ann", "password": MASK}
    (key,) = shell.run(
        "db", "query", f"SELECT hex(digest) AS hex, revoked_at FROM api_keys WHERE key_id = '{made['key']['key_id']}'",
        "--json",
    ).json  # fmt: skip
    assert key == {"hex": MASK.encode().hex().upper(), "revoked_at": None}
    (camera,) = shell.run("db", "query", "SELECT settings FROM added_cameras", "--json").json
    assert msgspec.json.decode(camera["settings"])["source"] == "rtsp://***@192.0.2.7/s?token=***"


def test_every_column_is_known_to_be_shown_or_masked() -> None:
    """A new column is masked until store/inspection.py says that it holds no secret; it has to say so."""
    for migrations in (TRUST, USAGE):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            migrate(connection, migrations)
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                if not name.startswith("sqlite_"):
                    columns = {row[1] for row in connection.execute(f"PRAGMA table_xinfo({name})")}
                    assert COLUMNS[name].keys() == columns, f"{name}: see COLUMNS in store/inspection.py"


def test_a_column_that_nobody_has_looked_at_is_masked(tmp_path: Path) -> None:
    """In a table of ours, and in one that is not."""
    path = tmp_path / "trust.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, TRUST)
        connection.execute("ALTER TABLE meta ADD COLUMN new TEXT")
        connection.execute("INSERT INTO meta VALUES ('a', 1.5, 'secret'), ('b', 'text', NULL)")
        connection.execute("CREATE TABLE own (x TEXT)")
        connection.execute("INSERT INTO own VALUES ('secret')")
    with open_copy(path) as copy:
        assert list(copy.rows("meta")) == [
            {"name": "a", "value": 1.5, "new": MASK}, {"name": "b", "value": "text", "new": None},
        ]  # fmt: skip
        assert list(copy.rows("own")) == [{"x": MASK}]
        assert copy.find("own").masked == ("x",)


def test_generated_columns_are_shown(tmp_path: Path) -> None:
    """They are no columns for PRAGMA table_info, and there all the same."""
    path = tmp_path / "trust.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, TRUST)
        connection.execute(
            "INSERT INTO recordings (recording_id, filename, camera, format, began, reason, made_by)"
            " VALUES ('r', 'a.mp4', 'camera0', 'mp4', 1.0, 'manual', 'me')"
        )
    with open_copy(path) as copy:
        (row,) = copy.rows("recordings")
        assert (row["stem"], row["until"]) == ("a", None)
        assert "stem" in copy.find("recordings").columns


def test_tables_are_listed_with_their_columns(shell: Shell, made: dict[str, Any]) -> None:
    """As a table, and as JSON with the number of the schema; --database usage shows the other file."""
    found = shell.run("db", "tables", "--json").json
    assert (found["database"], found["schema"]) == ("trust", len(TRUST))
    keys = next(table for table in found["tables"] if table["table"] == "api_keys")
    assert keys["masked"] == ["digest", "previous_digest", "older_secrets"]
    assert keys["rows"] >= 1
    head, *rows = shell.run("db", "tables", "--database", "usage").out.splitlines()
    assert head.split() == ["TABLE", "ROWS", "COLUMNS", "MASKED"]
    assert {row.split()[0] for row in rows} >= {"tallies", "offenders", "known_places", "trust_commits"}


def test_the_schema_is_the_file_s_own(shell: Shell) -> None:
    """The statements that made it, with their constraints, ready to be run."""
    said = shell.run("db", "schema", "signing_keys")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(said.out)
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert {"signing_keys", "signing_key_states"} <= names
    assert shell.run("db", "schema", "--json").json["tables"].keys() >= {"users", "api_keys"}
    unknown = shell.run("db", "schema", "userz")
    assert (unknown.code, unknown.out) == (1, "")
    assert "no table 'userz'" in unknown.err
    assert "users" in unknown.err


def test_rows_are_exported_as_json_lines_and_csv(shell: Shell, made: dict[str, Any]) -> None:
    """The same rows in both; CSV has a line of names, and an empty field for null (RFC 4180)."""
    lines = [msgspec.json.decode(line) for line in shell.run("db", "export", "users").out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(shell.run("db", "export", "users", "--format", "csv").out)))
    assert [row["name"] for row in rows] == [line["name"] for line in lines]
    assert lines[-1]["password"] == rows[-1]["password"] == MASK
    assert lines[-1]["disabled_at"] is None
    assert rows[-1]["disabled_at"] == ""


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM users", "only SELECT"),
        ("ATTACH 'other.db' AS other", "only SELECT"),
        ("PRAGMA user_version = 1", "only SELECT"),
        ("CREATE TABLE x (y)", "only SELECT"),
        ("SELECT load_extension('/x.so')", "query failed"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELEKT 1", "syntax error"),
        ("SELECT * FROM nothing", "edged db schema"),
        ("", "returns nothing"),
    ],
)
def test_a_query_only_reads(shell: Shell, sql: str, told: str) -> None:
    """Exit code 1 and a sentence; nothing is written, attached or loaded."""
    failed = shell.run("db", "query", sql)
    assert (failed.code, failed.out) == (1, "")
    assert told in failed.err
    assert "Traceback" not in failed.err


def test_columns_of_one_name_are_told_apart(shell: Shell) -> None:
    """A join shows both."""
    assert shell.run("db", "query", "SELECT 1 AS a, 2 AS a, x'ff' AS b", "--json").json == [
        {"a": 1, "a_2": 2, "b": "ff"}
    ]


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_others_than_root_and_the_owner_are_refused(tmp_path: Path, mode: int) -> None:
    """Whatever the modes of file and folder say."""
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / "trust.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, TRUST)
    path.chmod(0o644)
    folder.chmod(mode)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        if is_root:
            with pytest.raises(CannotInspect, match="for root and for its owner only"), open_copy(path):
                pass
        else:
            with open_copy(path) as copy:
                assert copy.schema == len(TRUST)
    finally:
        if is_root:
            os.seteuid(0)


def test_no_database_is_a_sentence(shell: Shell, tmp_path: Path) -> None:
    """And none is made."""
    shell.setenv("EDGED_PATHS_STATE", str(tmp_path / "nowhere"))
    missing = shell.run("db", "tables")
    assert missing.code == 1
    assert "there is no database" in missing.err
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere/trust.db").write_bytes(b"no database at all" * 100)
    assert "file is not a database" in shell.run("db", "tables").err


def test_a_stopped_daemon_s_files_are_as_they_were(tmp_path: Path) -> None:
    """Nothing is left beside the file, and its bytes are the same."""
    path = tmp_path / "trust.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, TRUST)
    before = path.read_bytes()
    with open_copy(path) as copy:
        assert copy.schema == len(TRUST)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["trust.db"]


def test_ctrl_c_ends_a_query_that_never_ends(directory: Path) -> None:
    """Exit code 130, without a traceback."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    process = subprocess.Popen(
        [sys.executable, "-c", "from edged.cli.main import main; print('began', flush=True); main()", "db", "query",
         endless, "--directory", str(directory)],
        cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        # Time to reach the query: a signal before it ends the command as well, and shows less.
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, "edged: interrupted\n")


def test_what_stands_in_the_log_only_is_in_the_copy(tmp_path: Path) -> None:
    """A running daemon's latest commits are not in the file itself yet."""
    path = tmp_path / "trust.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, TRUST)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO meta VALUES ('late', 1)")
        with open_copy(path) as copy:
            assert [row["name"] for row in copy.rows("meta")] == ["late"]
