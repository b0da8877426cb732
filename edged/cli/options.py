"""Options that several commands have, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from edged.cli.params import option
from edged.cli.stdio import is_terminal, read_line

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


quiet = click.option("--quiet", "-q", is_flag=True, help="Print the secret alone, for scripts to capture.")
password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input, for scripts."
)
include_made = click.option(
    "--and-what-it-made", "include_made", is_flag=True,
    help="Also revoke the API keys and service tokens that were made with it, and with those.",
)  # fmt: skip


def paged(operation: str) -> Callable[[F], F]:
    """--limit and --offset of a command that shows a page."""
    limit = option(operation, "limit", help="How many to show, the newest first.")
    offset = option(operation, "offset", help="How many of the newest to skip.")
    return lambda command: limit(offset(command))


def role(operation: str, *, help: str, **more: Any) -> Callable[[F], F]:  # noqa: A002
    """--role, with the roles that there are."""
    return option(operation, "role", help=f"{help} (user is another name of operator).", **more)


def grace(operation: str) -> Callable[[F], F]:
    """--grace of a command that gives another secret."""
    return option(
        operation, "grace_seconds", "--grace", metavar="SECONDS", help="How long the old secret remains valid."
    )


def ask_password(*, from_stdin: bool) -> str:
    """A password: asked for twice without echo, or the first line of standard input; never from the command line."""
    if from_stdin:
        return read_line()
    if not is_terminal():
        raise click.UsageError("there is no terminal to ask for the password on: use --password-stdin")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
