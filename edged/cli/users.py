"""`edged user`: add, list, show, change, re-password and remove users. Passwords stand on no command line."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, ask_password, show_json, show_rights, show_table, talks
from edged.cli.rights import ROLES, changes_rights, gives_rights, list_lifted

_COLUMNS = ("name", "display_name", "role", "disabled", "has_password", "created_at")
_name = click.argument("name")
_display_name = click.option("--display-name", metavar="TEXT", help="What lists show beside the name.")
_password_stdin = click.option(
    "--password-stdin", is_flag=True, help="The first line of standard input is the password, for scripts."
)


@click.group()
def user() -> None:
    """Users of the running daemon, who log in with a password and own keys."""


@user.command()
@_name
@click.option("--role", type=ROLES, default="viewer", show_default=True, help="What they may do; user is operator.")
@_display_name
@gives_rights
@_password_stdin
@click.option("--no-password", is_flag=True, help="They cannot log in; they may own keys.")
@talks
def add(
    name: str, role: str, display_name: str | None, rights: dict[str, object], password_stdin: bool, no_password: bool,
    **where: Any,
) -> None:  # fmt: skip
    """Make a user called NAME; you are asked for their password."""
    if no_password and password_stdin:
        raise click.UsageError("--no-password and --password-stdin say the contrary of each other")
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
    """Show all users."""
    found = ask("list_users", {}, **where)
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
    """Show one user: what they may do."""
    _show(ask("get_user", {"name": name}, **where), where)


@user.command("set")
@_name
@click.option("--role", type=ROLES, help="What they may do; user is operator.")
@_display_name
@changes_rights
@click.option("--disable/--enable", "disabled", default=None, help="Refuse them and their keys; or let them in again.")
@talks
def set_rights(
    name: str, role: str | None, display_name: str | None, rights: dict[str, object], lifted: dict[str, bool],
    disabled: bool | None, **where: Any,
) -> None:  # fmt: skip
    """Change what a user is called and may do. What is taken away is gone at once. What is left out stays."""
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
@_password_stdin
@talks
def password(name: str, password_stdin: bool, **where: Any) -> None:
    """Give a user another password; everything that the old one opened ends."""
    _tell(ask("set_password", {"name": name, "password": ask_password(from_stdin=password_stdin)}, **where), where)


@user.command()
@_name
@talks
def remove(name: str, **where: Any) -> None:
    """End a user and everything that their password opened, at once and for good; their keys rest."""
    _tell(ask("delete_user", {"name": name}, **where), where)


@user.command("demo-login")
@talks
def demo_login(**where: Any) -> None:
    """Make the user demo with the password demo, a viewer, as the example of the MediaMTX token server has one.

    Everybody knows this password: it is taken on this very machine only, and only by a demo (auth.demo_login).
    """
    _show(ask("create_demo_login", {}, **where), where)


def _tell(done: dict[str, Any], where: dict[str, Any]) -> None:
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"{done['name']}: {done['message']}")


def _show(item: dict[str, Any], where: dict[str, Any]) -> None:
    if where["as_json"]:
        show_json(item)
        return
    show_rights({**item, **{what: "yes" if item[what] else "no" for what in ("disabled", "has_password")}})
