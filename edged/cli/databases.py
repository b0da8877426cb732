"""`edged db`: look at a copy of edged's databases, in this process; the daemon has no part in it."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.cli.asking import load_config
from edged.cli.options import F, with_directory, with_json
from edged.cli.output import errors_shown, show_json, show_table

if TYPE_CHECKING:
    from edged.store.inspection import Copy

_DATABASES = click.Choice(["trust", "usage"])
_FORMATS = click.Choice(["jsonl", "csv"])
_COLUMNS = ("table", "rows", "columns", "masked")


def _looks(command: F) -> F:
    """Options of a command that looks at a database."""
    option = click.option(
        "--database", "name", type=_DATABASES, default="trust", show_default=True,
        help="trust: keys, users, tokens, revocations, cameras; usage: counts and waiting times.",
    )  # fmt: skip
    return option(with_directory(command))


@click.group("db")
def database() -> None:
    """Read the databases; secrets are masked.

    For root and the user edged only. Each command works on a copy of one moment: edged may be running, and nothing
    can be changed.
    """


@database.command()
@_looks
@with_json
def tables(name: str, directory: Path, as_json: bool) -> None:
    """List the tables with their columns and the number of rows."""
    with _copied(name, directory, as_json) as copy:
        found = [
            {"table": table.name, "rows": table.rows, "columns": table.columns, "masked": table.masked}
            for table in copy.tables
        ]
        if as_json:
            show_json({"database": name, "schema": copy.schema, "tables": found})
        else:
            show_table(_COLUMNS, [{**table, "masked": table["masked"] or None} for table in found])


@database.command()
@click.argument("table", required=False)
@_looks
@with_json
def schema(table: str | None, name: str, directory: Path, as_json: bool) -> None:
    """Print the SQL statements that create TABLE, or all tables."""
    with _copied(name, directory, as_json) as copy:
        names = [copy.find(table).name] if table else [each.name for each in copy.tables]
        statements = {each: copy.statements[each] for each in names}
        if as_json:
            show_json({"database": name, "schema": copy.schema, "tables": statements})
        else:
            click.echo("\n".join(f"{each};" for found in statements.values() for each in found))


@database.command()
@click.argument("sql")
@_looks
@with_json
def query(sql: str, name: str, directory: Path, as_json: bool) -> None:
    """Run one SELECT and show its result."""
    with _copied(name, directory, as_json) as copy:
        names, found = copy.query(sql)
        rows = [dict(zip(names, row, strict=True)) for row in found]
        if as_json:
            show_json(rows)
        else:
            show_table(names, rows)


@database.command()
@click.argument("table")
@click.option("--format", "kind", type=_FORMATS, default="jsonl", show_default=True, help="JSON Lines, or CSV.")
@_looks
def export(table: str, kind: str, name: str, directory: Path) -> None:
    """Print all rows of TABLE as JSON Lines or CSV."""
    with _copied(name, directory, as_json=False) as copy:
        columns = copy.find(table).columns
        _write(columns, copy.rows(table), as_csv=kind == "csv")


@contextmanager
def _copied(name: str, directory: Path, as_json: bool) -> Iterator[Copy]:
    with errors_shown(as_json=as_json):
        from edged.store.inspection import open_copy

        with open_copy(load_config(directory).paths.state / f"{name}.db") as copy:
            yield copy


def _write(columns: Sequence[str], rows: Iterable[dict[str, Any]], *, as_csv: bool) -> None:
    """Rows to standard output: RFC 4180, an empty field for null; or one JSON object a line."""
    import msgspec

    if as_csv:
        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(rows)
        return
    for row in rows:
        click.echo(msgspec.json.encode(row))
