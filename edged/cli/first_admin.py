"""`edged claim`: make the first administrator of a new box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edged.cli.options import ask, ask_password, errors_shown, show_fields, show_json, talks
from edged.errors import InvalidState


@click.command()
@click.option("--new", is_flag=True, help="Only make another code; the one before is worth nothing any more.")
@click.option("--username", metavar="NAME", help="Without it you are asked.")
@click.option("--password-stdin", is_flag=True, help="The first line of standard input is the password, for scripts.")
@talks
def claim(new: bool, username: str | None, password_stdin: bool, **where: Any) -> None:
    """Make the first administrator of a box that has no user yet.

    Whoever may open the unix socket needs no code. From elsewhere (POST /api/claim) the code of the box is needed, good
    for fifteen minutes and five tries; --new makes another one.
    """
    if new and username:
        raise click.UsageError("--new makes a code and no administrator: leave out --username")
    if new:
        found = ask("create_claim_code", {}, **where)
        if where["as_json"]:
            show_json(found)
        else:
            show_fields({"code": _read(Path(found["path"])), **found})
        return
    if ask("list_users", {}, **where)["users"]:
        with errors_shown(as_json=where["as_json"]):
            raise InvalidState("there is an administrator already", hint="edged user list")
    params = {
        "username": username or click.prompt("User name", err=True),
        "password": ask_password(from_stdin=password_stdin),
    }
    done = ask("claim", params, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"{done['username']} is the administrator now")


def _read(path: Path) -> str | None:
    """The code, if there is one and it may be read."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
