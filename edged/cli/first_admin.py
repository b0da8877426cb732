"""`edged claim`: make the first administrator of a new box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edged.cli.options import ask, ask_password, show_fields, show_json, talks


@click.command()
@click.option("--new", is_flag=True, help="Only make another code; the one before is worth nothing any more.")
@click.option("--username", metavar="NAME", help="Without it you are asked.")
@click.option("--password-stdin", is_flag=True, help="The first line of standard input is the password, for scripts.")
@talks
def claim(new: bool, username: str | None, password_stdin: bool, **where: Any) -> None:
    """Make the first administrator of a box that has no user yet.

    The box makes a code at each start until it has one, good for fifteen minutes and five tries. Who may read its file
    (sudo) need not know it; others are asked for it.
    """
    if new and username:
        raise click.UsageError("--new makes a code and no administrator: leave out --username")
    found = ask("create_claim_code" if new else "get_claim_code", {}, **where)
    code = _read(Path(found["path"]))
    if new:
        if where["as_json"]:
            show_json(found)
        else:
            show_fields({"code": code, **found})
        return
    params = {
        "code": code or click.prompt("Code", err=True),
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
