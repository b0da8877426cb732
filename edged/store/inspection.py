"""A database as an operator may look at it: a consistent copy in memory, without secrets, that only answers questions.

sqlite-utils reads the schema of the file and makes the copy; a command in a process of its own imports this module,
never the daemon. The copy is SQLite's (https://sqlite.org/backup.html), so that a running daemon goes on writing.
Secrets are taken out of the copy itself: no expression of a query can reach them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import sqlite_utils

from edged.errors import NOT_JSON, EdgedError
from edged.store.migrating import schema_version
from edged.store.schemas import find_generated
from edged.store.sqlite_errors import remedy
from edged.urls import mask_url

#: What stands where a secret stood; where there was none there is null still.
MASK: Final = "***"
_BUSY_SECONDS: Final = 5.0
#: What a query may do (https://sqlite.org/c3ref/c_alter_table.html): read, and call functions.
_ALLOWED: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
#: Between two looks for Ctrl-C, steps of SQLite's virtual machine.
_STEPS: Final = 100_000
_TYPES: Final[Mapping[str, type]] = {"TEXT": str, "REAL": float, "INTEGER": int}


def _mask_urls(value: object) -> object:
    """JSON text, or a URL: the same with credentials in URLs masked."""
    if not isinstance(value, str):
        return MASK
    if not value.startswith("{"):
        return mask_url(value)
    try:
        members = msgspec.json.decode(value, type=dict[str, Any])
    except NOT_JSON:
        return MASK
    shown = {name: mask_url(each) if isinstance(each, str) else each for name, each in members.items()}
    return msgspec.json.encode(shown).decode()


def _show(value: object) -> object:
    return value


def _mask(_value: object) -> object:
    return MASK


#: Table → column → how it is shown. A column that is not named here is masked.
COLUMNS: Final[Mapping[str, Mapping[str, Callable[[object], object]]]] = MappingProxyType(
    {
        table: {**dict.fromkeys(shown.split(), _show), **dict.fromkeys(secret.split(), _mask),
                **dict.fromkeys(urls.split(), _mask_urls)}
        for table, shown, secret, urls in (
            ("api_keys", "key_id name role created_at expires_at permissions camera_access streams owner made_by"
             " revoked_at suspended_at rotated_at previous_valid_until imported ended_at ended_looks",
             "digest previous_digest older_secrets", ""),
            ("service_tokens", "token_id name created_at networks made_by revoked_at rotated_at previous_valid_until"
             " imported",
             "digest previous_digest older_secrets", ""),
            ("users", "name display_name role permissions camera_access streams epoch created_at password_changed_at"
             " disabled_at deleted_at", "password", ""),
            ("signing_keys", "number algorithm state public created_at promoted_at retired_at signs_until", "private",
             ""),
            ("issuers", "name keys fetched_at", "", "source"),
            ("revocations", "identity reason at until", "", ""),
            ("cut_offs", "scope before at reason own_before epoch", "", ""),
            ("provisional_cut_offs", "scope boot seconds at reason epoch", "", ""),
            ("families", "family_id started until", "", ""),
            ("family_members", "family_id identity", "", ""),
            ("refreshes", "name family_id claims", "", ""),
            ("cameras", "number identity label kind path binding", "", ""),
            ("added_cameras", "number", "", "settings address"),
            ("recordings", "recording_id filename stem camera format began ended until reason made_by is_protected"
             " deleted_at delete_reason pre_roll is_swept", "", ""),
            ("recording_sums", "camera number longest", "", ""),
            ("segment_sums", "camera files bytes longest", "", ""),
            ("segments", "file camera began duration size recovered layout", "", ""),
            ("seals", "file camera series number digest previous sealed kid", "", ""),
            ("series", "camera name", "", ""),
            ("statements", "series kind first last camera kid sealed text", "", ""),
            ("events", "number at kind camera details", "", ""),
            ("event_runs", "name first is_whole", "", ""),
            ("meta", "name value", "", ""),
            ("tallies", "credential_id last_used count", "", ""),
            ("offenders", "axis name level wait", "", ""),
            ("known_places", "subject address age", "", ""),
            ("trust_commits", "id number", "", ""),
        )
    }
)  # fmt: skip


class CannotInspect(EdgedError):
    """The file cannot be looked at; the sentence says why."""

    slug = "cannot_inspect"


class QueryFailed(EdgedError):
    """SQLite refused the query; the sentence says why."""

    slug = "query_failed"


class TableInfo(msgspec.Struct, frozen=True):
    """One table: its `columns`, which of them are `masked`, and how many `rows` it has."""

    name: str
    rows: int
    columns: tuple[str, ...]
    masked: tuple[str, ...]


class Copy(msgspec.Struct, frozen=True):
    """What was in the file at one moment. `schema` is its number, `statements` the SQL that makes each table."""

    schema: int
    tables: tuple[TableInfo, ...]
    statements: Mapping[str, tuple[str, ...]]
    _database: sqlite_utils.Database

    def find(self, table: str) -> TableInfo:
        """Raises CannotInspect, naming the tables that there are."""
        for info in self.tables:
            if info.name == table:
                return info
        raise CannotInspect(
            f"there is no table {table!r}", hint=f"known are {', '.join(info.name for info in self.tables)}"
        )

    def rows(self, table: str) -> Iterator[dict[str, object]]:
        """Every row of a table. Raises CannotInspect if there is none of this name."""
        return (
            {name: _plain(value) for name, value in row.items()} for row in self._database[self.find(table).name].rows
        )

    def query(self, sql: str) -> tuple[tuple[str, ...], Iterator[tuple[object, ...]]]:
        """The names, each once, and the rows of one SELECT. Raises QueryFailed, also while rows are read."""
        with _refused():
            cursor = self._database.execute(sql)
        if cursor.description is None:
            raise QueryFailed("the query returns nothing", hint="only SELECT is allowed")
        return _number([str(each[0]) for each in cursor.description]), _read(cursor)


@contextmanager
def open_copy(path: Path) -> Iterator[Copy]:
    """A copy of the database at `path`, for root and for the owner of the file. Raises CannotInspect."""
    _check_user(path)
    with closing(sqlite3.connect(":memory:")) as whole, closing(sqlite3.connect(":memory:")) as shown:
        try:
            _copy_file(path, whole)
            source_tables = sqlite_utils.Database(whole, recursive_triggers=False, execute_plugins=False)
            database = sqlite_utils.Database(shown, recursive_triggers=False, execute_plugins=False)
            names = sorted(name for name in source_tables.table_names() if not name.startswith("sqlite_"))
            tables = tuple(_copy_table(source_tables, database, name) for name in names)
            statements = {name: _read_statements(whole, name) for name in names}
            schema = schema_version(whole)
        except sqlite3.Error as problem:
            raise CannotInspect(f"{path}: {problem}", hint=remedy(problem)) from None
        except OSError as problem:
            raise CannotInspect(f"{path}: {problem.strerror}", hint="look for it again") from None
        whole.close()
        shown.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        # Python hears a signal when it runs itself: without this Ctrl-C would wait for the end of a query.
        shown.set_progress_handler(lambda: 0, _STEPS)
        yield Copy(schema, tables, statements, database)


def _check_user(path: Path) -> None:
    """Raises CannotInspect for anybody but root and the owner of the file."""
    try:
        owner = path.stat().st_uid
    except FileNotFoundError:
        raise CannotInspect(
            f"there is no database {path}", hint="name the folder of the settings with --directory"
        ) from None
    except OSError:
        owner = 0
    if os.geteuid() not in (0, owner):
        raise CannotInspect(f"{path} is for root and for its owner only", hint="use sudo, or sudo -u edged")


def _copy_file(path: Path, target: sqlite3.Connection) -> None:
    """All that is committed. Raises sqlite3.Error.

    A connection that only reads cannot remove the -wal and -shm that it makes where nobody else has the file open. So a
    file without a log is read as one that does not change, and read again in the other way if it did.
    """
    before = _find_facts(path)
    ways = ("mode=ro&immutable=1", "mode=ro") if before is not None else ("mode=ro",)
    for way in ways:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, timeout=_BUSY_SECONDS)) as source:
            source.backup(target)
        if _find_facts(path) == before:
            break


def _find_facts(path: Path) -> tuple[int, ...] | None:
    """What changes when the file does; None while it has a log, where commits stand that are not in it."""
    if path.with_name(f"{path.name}-wal").exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _copy_table(source: sqlite_utils.Database, target: sqlite_utils.Database, name: str) -> TableInfo:
    """Make the table again, without constraints, and fill it with what may be shown."""
    columns: dict[str, str] = {each.name: each.type for each in source[name].columns}
    columns |= {column: facts[0] for column, facts in find_generated(source, name).items()}
    known = COLUMNS.get(name, {})
    filters = {column: known.get(column, _mask) for column in columns}
    # A BLOB column takes every value as it is (https://sqlite.org/datatype3.html, 3.1).
    types = {column: str if filters[column] is _mask else _TYPES.get(kind, bytes) for column, kind in columns.items()}
    rows = (
        {column: None if value is None else filters[column](value) for column, value in row.items()}
        for row in source[name].rows
    )
    table = target.table(name)
    table.create(types)
    table.insert_all(rows)
    masked = tuple(column for column in columns if filters[column] is _mask)
    return TableInfo(name, source[name].count, tuple(columns), masked)


def _read_statements(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    query = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC, name"
    return tuple(str(sql) for (sql,) in connection.execute(query, (table,)))


def _read(cursor: sqlite3.Cursor) -> Iterator[tuple[object, ...]]:
    with _refused():
        for row in cursor:
            yield tuple(map(_plain, row))


@contextmanager
def _refused() -> Iterator[None]:
    """What SQLite says against a query becomes QueryFailed; Ctrl-C in the middle of one stays what it is."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as problem:
        if str(problem) == "interrupted":
            raise KeyboardInterrupt from None
        is_denied = "not authorized" in str(problem) or "prohibited" in str(problem)
        hint = "only SELECT is allowed, on this copy" if is_denied else "edged db schema shows the tables"
        raise QueryFailed(f"the query failed: {problem}", hint=hint) from None


def _number(names: Iterable[str]) -> tuple[str, ...]:
    """The names of columns, a second one of the same name as `name_2`."""
    found: list[str] = []
    for name in names:
        number, free = 1, name
        while free in found:
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return tuple(found)


def _plain(value: object) -> object:
    """JSON has no bytes."""
    return value.hex() if isinstance(value, bytes) else value
