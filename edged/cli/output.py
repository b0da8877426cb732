"""How the answer of a command is shown, for people or as JSON; and what becomes of errors.

Exit codes: 0 done; 1 the daemon said no, or the answer is no; 2 the command was written wrongly; 3 no daemon could be
asked; 78 a setting is wrong (EX_CONFIG, as systemd shows it); 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final

import click

from edged.cli.stdio import write_out
from edged.errors import ConfigError, EdgedError

FAILED: Final = 1
UNREACHABLE: Final = 3
#: 128 and the number of SIGINT, as a shell says it.
INTERRUPTED: Final = 130
BAD_CONFIG: Final = 78


@contextmanager
def errors_shown(*, as_json: bool) -> Iterator[None]:
    """Errors of the family become one line on stderr (or JSON) and an exit code."""
    try:
        yield
    except EdgedError as problem:
        code = (
            BAD_CONFIG if isinstance(problem, ConfigError) else UNREACHABLE if problem.slug == "unreachable" else FAILED
        )
        if as_json:
            show_json(
                {"error": problem.sentence, "hint": problem.hint, "code": problem.slug, **problem.fields}, err=True
            )
        else:
            click.echo(f"edged: {problem}", err=True)
        sys.exit(code)


def tell(done: Mapping[str, Any], sentence: str, where: Mapping[str, Any]) -> None:
    """What was done: the daemon's answer as JSON, or a sentence for people."""
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(sentence)


def tell_made(done: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Which keys were revoked with it, where that was asked for."""
    if "also_revoked" in done and not where["as_json"]:
        click.echo(f"  also revoked: {', '.join(done['also_revoked']) or 'nothing'}")


def show_page(names: Sequence[str], rows: Sequence[Mapping[str, object]], total: int) -> None:
    """A table that is a page of `total` rows."""
    show_table(names, rows)
    if total > len(rows):
        click.echo(f"{len(rows)} of {total}: see --limit and --offset", err=True)


def show_json(value: object, *, err: bool = False) -> None:
    """A value as JSON, indented, one document."""
    click.echo(_to_json(value, sys.stderr if err else sys.stdout), err=err)


def _to_json(value: object, stream: IO[str] | None) -> str:
    import json

    import msgspec

    data = msgspec.json.encode(value)
    if (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8":
        # Escapes of JSON's own for what the encoding has no letter for.
        return json.dumps(json.loads(data), indent=2)
    return msgspec.json.format(data, indent=2).decode()


def show_fields(rows: Mapping[str, object]) -> None:
    """Names and values one below the other; what is None is left out."""
    if text := format_fields(rows):
        click.echo(text)


def format_fields(rows: Mapping[str, object]) -> str:
    """The lines of show_fields."""
    shown = {name: value for name, value in rows.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    return "\n".join(f"{name:<{width}}  {_plain(value)}" for name, value in shown.items())


def show_rights(item: Mapping[str, object]) -> None:
    """A key or a user."""
    show_fields(describe_effect(item))


def describe_effect(item: Mapping[str, object]) -> dict[str, object]:
    """The same members; what may be done is said where it is nothing, and what has no effect where it is something.

    The streams that are named are two rows.
    """
    streams = item.get("streams")
    named = {what: streams[what] for what in ("read", "publish")} if isinstance(streams, dict) else {}
    shown = {**{name: value for name, value in item.items() if name != "streams"}, **named}
    if "effective_permissions" in shown:
        shown["effective_permissions"] = shown["effective_permissions"] or "nothing"
    shown["without_effect"] = shown.get("without_effect") or None
    return shown


def show_secret(made: Mapping[str, Any], member: str, *, quiet: bool, as_json: bool, undo: Callable[[], str]) -> None:
    """A reply whose `member` is a new secret, which no other will hold.

    Where it cannot be written out nobody has it: `undo` is called and says what has become of it; exit code 1.
    """
    text = (
        str(made[member]) if quiet else _to_json(made, sys.stdout) if as_json else format_fields(describe_effect(made))
    )
    if problem := write_out(text):
        said = undo()
        click.echo(f"edged: the new {member} could not be written out ({problem}): {said}", err=True)
        sys.exit(FAILED)
    if not (quiet or as_json):
        click.echo(f"Keep {member} now: it is not shown again.", err=True)


def show_table(names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Columns under upper-case names; what is None is a dash."""
    cells = [[name.upper().replace("_", " ") for name in names]]
    cells += [["-" if row.get(name) is None else _plain(row[name]) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    for line in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _plain(value: object) -> str:
    """Text for a terminal: names come from other people, so control characters do not pass."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return "".join(char if char.isprintable() else "?" for char in str(value))
