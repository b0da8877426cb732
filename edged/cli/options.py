"""What commands share: options, how answers are shown, and what becomes of errors.

Exit codes: 0 done; 1 the daemon said no, or the answer is no; 2 the command was written wrongly; 3 no daemon could be
asked; 78 a setting is wrong (EX_CONFIG, as systemd shows it); 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click

from edged.cli.streams import is_terminal, read_line, write_out
from edged.errors import ConfigError, EdgedError

if TYPE_CHECKING:
    from edged.config.model import Config

FAILED: Final = 1
UNREACHABLE: Final = 3
#: 128 and the number of SIGINT, as a shell says it.
INTERRUPTED: Final = 130
BAD_CONFIG: Final = 78
_DIRECTORY: Final = Path("/etc/edged/conf.d")

F = TypeVar("F", bound=Callable[..., Any])

with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
with_directory = click.option(
    "--directory",
    # Whoever may not read the folder may yet use the socket.
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    envvar="EDGED_CONFIG_DIR",
    default=_DIRECTORY,
    show_default=True,
    show_envvar=True,
    help="The folder of *.toml settings.",
)
_with_socket = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="EDGED_SOCKET",
    show_envvar=True,
    help="The daemon's unix socket; without it the one in the settings.",
)


def talks(command: F) -> F:
    """Options of a command that asks the running daemon: --socket, --directory and --json."""
    return _with_socket(with_directory(with_json(command)))


def ask(
    method: str, params: Mapping[str, object], *, socket: Path | None, directory: Path, as_json: bool,
    nulls: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Ask the running daemon one thing. Members that are None are left out, those in `nulls` sent as null; errors end
    the command."""
    import trio

    from edged.cli.client import call_once

    with errors_shown(as_json=as_json):
        path = socket or _find_socket(directory)
        given = {name: value for name, value in params.items() if value is not None} | dict.fromkeys(nulls)
        try:
            result: dict[str, Any] = trio.run(partial(call_once, path, method, given))
        except KeyboardInterrupt:
            click.echo(f"edged: interrupted: {method} was asked for and may have been done all the same", err=True)
            sys.exit(INTERRUPTED)
    return result


def _find_socket(directory: Path) -> Path:
    from edged.config.model import OFF, Config

    try:
        path = load_config(directory).listen.unix
    except ConfigError as problem:
        # They may hold a camera's password, so not every admin may read them; the socket is then where it always is.
        if not isinstance(problem.__cause__, PermissionError):
            raise
        path = Config().listen.unix
    if path == OFF:
        raise ConfigError("listen.unix is off: there is no socket to ask on", hint="name one with --socket")
    return Path(path)


def load_config(directory: Path) -> Config:
    """The settings in force. Raises ConfigError."""
    from edged.config.load import load
    from edged.systemd import credentials_directory

    return load(directory, os.environ, credentials_directory())


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


def ask_password(*, from_stdin: bool) -> str:
    """A password: asked for twice without echo, or the first line of standard input; never from the command line."""
    if from_stdin:
        return read_line()
    if not is_terminal():
        raise click.UsageError("there is no terminal to ask for the password on: use --password-stdin")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _plain(value: object) -> str:
    """Text for a terminal: names come from other people, so control characters do not pass."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return "".join(char if char.isprintable() else "?" for char in str(value))
