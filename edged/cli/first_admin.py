"""`edged claim`: create the first administrator of a new box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edged.cli.asking import ask
from edged.cli.options import ask_password, password_stdin, talks
from edged.cli.output import errors_shown, show_fields, show_json, tell
from edged.errors import InvalidState


@click.command()
@click.option("--new", is_flag=True, help="Only make a new code; the previous one becomes invalid.")
@click.option("--username", metavar="NAME", help="Name of the administrator; asked for if missing.")
@password_stdin
@talks
def claim(new: bool, username: str | None, password_stdin: bool, **where: Any) -> None:
    """Create the first administrator.

    For a box that has no user yet. On this machine no code is needed. From elsewhere (POST /api/claim) it takes
    the code of the box, which is valid for fifteen minutes and five attempts; --new makes a new one.
    """
    if new and username:
        raise click.UsageError("--new makes a code and no administrator: omit --username")
    if new:
        found = ask("create_claim_code", {}, **where)
        if where["as_json"]:
            show_json(found)
        else:
            show_fields({"code": _read(Path(found["path"])), **found})
        return
    if ask("list_users", {"limit": 1}, **where)["users"]:
        with errors_shown(as_json=where["as_json"]):
            raise InvalidState("there is an administrator already", hint="edged user list")
    params = {
        "username": username or click.prompt("User name", err=True),
        "password": ask_password(from_stdin=password_stdin),
    }
    done = ask("claim", params, **where)
    tell(done, f"{done['username']} is an administrator now", where)


def _read(path: Path) -> str | None:
    """The code, if there is one and it may be read."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
