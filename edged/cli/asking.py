"""Asking the running daemon one thing over its unix socket."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edged.cli.output import INTERRUPTED, errors_shown
from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.config.model import Config

#: Rows of a list that are asked for at a time.
_PAGE: Final = 500


def find(
    method: str, params: Mapping[str, object], *, socket: Path | None, directory: Path, as_json: bool
) -> dict[str, Any] | None:
    """As `ask`; None where the daemon answers that there is no such thing."""
    from edged.cli.client import Answered

    with errors_shown(as_json=as_json):
        try:
            return _call(method, params, socket or find_socket(directory))
        except Answered as problem:
            if problem.fields.get("reason") != "not_found":
                raise
    return None


def ask(
    method: str, params: Mapping[str, object], *, socket: Path | None, directory: Path, as_json: bool,
    nulls: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Ask the running daemon one thing. Members that are None are left out, those in `nulls` sent as null; errors end
    the command."""
    with errors_shown(as_json=as_json):
        given = {name: value for name, value in params.items() if value is not None} | dict.fromkeys(nulls)
        return _call(method, given, socket or find_socket(directory))


def ask_all(
    method: str, member: str, params: Mapping[str, object], *, socket: Path | None, directory: Path, as_json: bool
) -> dict[str, Any]:
    """As `ask`, of a list: all of its rows, which are the reply's `member`, page by page.

    In one reply they could be more than a client takes at a time (1 MiB).
    """
    with errors_shown(as_json=as_json):
        path = socket or find_socket(directory)
        given = {name: value for name, value in params.items() if value is not None} | {"limit": _PAGE}
        found, rows = _call(method, given, path), []
        while "next_cursor" in found:
            rows += found[member]
            found = _call(method, {**given, "cursor": found["next_cursor"]}, path)
    return {**found, member: rows + found[member]}


def _call(method: str, params: Mapping[str, object], path: Path) -> dict[str, Any]:
    """Raises EdgedError; Ctrl-C ends the command."""
    import trio

    from edged.cli.client import call_once

    try:
        result: dict[str, Any] = trio.run(partial(call_once, path, method, params))
    except KeyboardInterrupt:
        click.echo(f"edged: interrupted: {method} was sent and may have been done", err=True)
        sys.exit(INTERRUPTED)
    return result


def find_socket(directory: Path) -> Path:
    """The daemon's unix socket by the settings in a folder. Raises ConfigError."""
    from edged.config.model import OFF, Config

    try:
        path = load_config(directory).listen.unix
    except ConfigError as problem:
        # The settings may hold a camera's password, so not every administrator may read them: the default socket, then.
        if not isinstance(problem.__cause__, PermissionError):
            raise
        path = Config().listen.unix
    if path == OFF:
        raise ConfigError("listen.unix is off: there is no unix socket", hint="name one with --socket")
    return Path(path)


def load_config(directory: Path) -> Config:
    """The settings in force. Raises ConfigError."""
    from edged.config.load import load
    from edged.systemd import credentials_directory

    return load(directory, os.environ, credentials_directory())
