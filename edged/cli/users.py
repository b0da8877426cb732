"""`edged user`: add, list, show, change and remove users. Passwords are never arguments."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.asking import ask, ask_all
from edged.cli.options import ask_password, password_stdin, role, talks
from edged.cli.output import show_json, show_rights, show_table, tell
from edged.cli.rights import changes_rights, gives_rights, list_lifted

_COLUMNS = ("name", "display_name", "role", "disabled", "has_password", "created_at")
_name = click.argument("name")
_display_name = click.option("--display-name", metavar="TEXT", help="Name for display in lists.")


@click.group()
def user() -> None:
    """Users, their passwords and rights."""


@user.command()
@_name
@role("create_user", default="viewer", show_default=True, help="Role of the user")
@_display_name
@gives_rights(elsewhere=True)
@password_stdin
@click.option("--no-password", is_flag=True, help="Create the user without a password: no login, but keys.")
@talks
def add(
    name: str, role: str, display_name: str | None, rights: dict[str, object], password_stdin: bool, no_password: bool,
    **where: Any,
) -> None:  # fmt: skip
    """Create the user NAME; the password is asked for."""
    if no_password and password_stdin:
        raise click.UsageError("--no-password contradicts --password-stdin")
    params = {
        "name": name,
        "role": role,
        "display_name": display_name,
        **rights,
        "password": None if no_password else ask_password(from_stdin=password_stdin),
    }
    _show(ask("create_user", params, **where), where)


@user.command("list")
@talks
def list_all(**where: Any) -> None:
    """List all users."""
    found = ask_all("list_users", "users", {}, **where)
    if where["as_json"]:
        show_json(found)
    elif found["users"]:
        rows = [{**item, **{what: "yes" if item[what] else "no" for what in ("disabled", "has_password")}}
                for item in found["users"]]  # fmt: skip
        show_table(_COLUMNS, rows)
    else:
        click.echo("no users; make one: edged user add NAME --role admin", err=True)


@user.command()
@_name
@talks
def show(name: str, **where: Any) -> None:
    """Show one user and their permissions."""
    _show(ask("get_user", {"name": name}, **where), where)


@user.command("set")
@_name
@role("update_user", help="New role")
@_display_name
@changes_rights(elsewhere=True)
@click.option(
    "--disable/--enable", "disabled", default=None, help="Refuse the user and their keys, or accept them again."
)
@talks
def set_rights(
    name: str, role: str | None, display_name: str | None, rights: dict[str, object], lifted: dict[str, bool],
    disabled: bool | None, **where: Any,
) -> None:  # fmt: skip
    """Change a user, with immediate effect. What is not given stays as it is."""
    params = {
        "name": name,
        "role": role,
        "display_name": display_name,
        **rights,
        "disabled": disabled,
    }
    _show(ask("update_user", params, nulls=list_lifted(params, lifted), **where), where)


@user.command()
@_name
@password_stdin
@talks
def password(name: str, password_stdin: bool, **where: Any) -> None:
    """Set a user's password, and end everything that was opened with the old one."""
    _tell(ask("set_password", {"name": name, "password": ask_password(from_stdin=password_stdin)}, **where), where)


@user.command()
@_name
@talks
def remove(name: str, **where: Any) -> None:
    """Remove a user permanently, end everything that their password opened, and suspend their keys."""
    _tell(ask("delete_user", {"name": name}, **where), where)


@user.command("demo-login")
@talks
def demo_login(**where: Any) -> None:
    """Create the user demo with the password demo and the role viewer, as in the example of the MediaMTX token server.

    The password is public, so this login works from this machine only, and only with auth.demo_login.
    """
    _show(ask("create_demo_login", {}, **where), where)


def _tell(done: dict[str, Any], where: dict[str, Any]) -> None:
    tell(done, f"{done['name']}: {done['message']}", where)


def _show(item: dict[str, Any], where: dict[str, Any]) -> None:
    if where["as_json"]:
        show_json(item)
        return
    show_rights({**item, **{what: "yes" if item[what] else "no" for what in ("disabled", "has_password")}})
