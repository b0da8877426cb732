"""What tables, columns, indexes and foreign keys a file has, read by sqlite-utils; and what it lacks.

Only a process that migrates imports this module: sqlite-utils costs 2 to 8 MB and 30 to 180 ms. It is used for what it
reads. What it writes is committed at other times by 3.38 (Debian 13) than by 4.x, so that statements which belong
together stay raw SQL between BEGIN IMMEDIATE and COMMIT (store/migrating.py).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import sqlite_utils
from sqlite_utils.db import Table

#: Steps as in store/migrations.py; store/migrating.py imports this module only when it needs it.
Steps = tuple[tuple[str, ...], ...]


class TableSchema(msgspec.Struct, frozen=True):
    """One table: `columns` by name as (type, NOT NULL, default, place in the primary key), `indexes` as (columns,
    unique, partial), `references` as (column, other table), the names of `triggers`, and whether it is STRICT."""

    columns: dict[str, tuple[str, bool, str | None, int]]
    indexes: frozenset[tuple[tuple[str, ...], bool, bool]]
    references: frozenset[tuple[str, str]]
    triggers: frozenset[str]
    strict: bool


def read(connection: sqlite3.Connection) -> dict[str, TableSchema]:
    """The tables of a file by name, without SQLite's own. Reads only; an open transaction stays open."""
    # Neither a pragma that the connection keeps, nor what plugins of sqlite-utils would do to it.
    database = sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)
    return {table.name: _describe(table) for table in database.tables if not table.name.startswith("sqlite_")}


def find_missing(connection: sqlite3.Connection, steps: Steps) -> list[str]:
    """What a file lacks that these steps make, each as words; [] if nothing. What it has beside that is no matter."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for statements in steps:
            for statement in statements:
                model.execute(statement)
        wanted = read(model)
    found = read(connection)
    missing: list[str] = []
    for name, schema in wanted.items():
        missing += _compare(name, schema, found[name]) if name in found else [f"table {name}"]
    return missing


def _compare(name: str, wanted: TableSchema, found: TableSchema) -> list[str]:
    missing = [f"column {name}.{column} as it should be" if column in found.columns else f"column {name}.{column}"
               for column, facts in wanted.columns.items() if found.columns.get(column) != facts]  # fmt: skip
    missing += [f"index on {name} ({', '.join(columns)})" for columns, *_ in sorted(wanted.indexes - found.indexes)]
    missing += [f"reference of {name}.{column} to {other}" for column, other in
                sorted(wanted.references - found.references)]  # fmt: skip
    missing += [f"trigger {trigger} of {name}" for trigger in sorted(wanted.triggers - found.triggers)]
    if wanted.strict and not found.strict:
        missing.append(f"STRICT of table {name}")
    return missing


def find_generated(database: sqlite_utils.Database, table: str) -> dict[str, tuple[str, bool, str | None, int]]:
    """The generated columns of a table, as in TableSchema: PRAGMA table_info, and so sqlite-utils, leaves them out."""
    query = 'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?) WHERE hidden > 1'
    return {row[0]: (row[1], bool(row[2]), row[3], int(row[4])) for row in database.execute(query, [table])}


def _describe(table: Table) -> TableSchema:
    columns: list[Any] = list(table.columns)
    return TableSchema(
        {each.name: (each.type, bool(each.notnull), each.default_value, int(each.is_pk)) for each in columns}
        | find_generated(table.db, table.name),
        frozenset((tuple(each.columns), bool(each.unique), bool(each.partial)) for each in table.indexes),
        frozenset((str(each.column), each.other_table) for each in table.foreign_keys),
        frozenset(each.name for each in table.triggers),
        table.strict,
    )
