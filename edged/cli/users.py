"""`edged user`: add, list, show, change, re-password and remove users. Passwords stand on no command line."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, ask_password, show_json, show_rights, show_table, talks

_ROLES = click.Choice(["monitor", "viewer", "operator", "user", "admin"])
_COLUMNS = ("name", "display_name", "role", "disabled", "has_password", "created_at")
_name = click.argument("name")
_display_name = click.option("--display-name", metavar="TEXT", help="What lists show beside the name.")
_cameras = click.option("--camera", "cameras", multiple=True, metavar="CAMERA", help="Only this camera; repeatable.")
_permissions = click.option(
    "--permission", "permissions", multiple=True, help="Only this of what the role may do; repeatable."
)
_read = click.option("--read", multiple=True, metavar="STREAMS", help="Read only these streams: a,b; repeatable.")
_publish = click.option("--publish", multiple=True, metavar="STREAMS", help="Publish these: a,b; repeatable.")
_password_stdin = click.option(
    "--password-stdin", is_flag=True, help="The first line of standard input is the password, for scripts."
)


@click.group()
def user() -> None:
    """Users of the running daemon, who log in with a password and own keys."""


@user.command()
@_name
@click.option("--role", type=_ROLES, default="viewer", show_default=True, help="What they may do; user is operator.")
@_display_name
@_cameras
@_permissions
@_read
@_publish
@_password_stdin
@click.option("--no-password", is_flag=True, help="They cannot log in; they may own keys.")
@talks
def add(
    name: str, role: str, display_name: str | None, cameras: tuple[str, ...], permissions: tuple[str, ...],
    read: tuple[str, ...], publish: tuple[str, ...], password_stdin: bool, no_password: bool, **where: Any,
) -> None:  # fmt: skip
    """Make a user called NAME; you are asked for their password."""
    if no_password and password_stdin:
        raise click.UsageError("--no-password and --password-stdin say the contrary of each other")
    params = {
        "name": name,
        "role": role,
        "display_name": display_name,
        "camera_access": list(cameras) or None,
        "permissions": list(permissions) or None,
        "streams": _streams(read, publish),
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
@click.option("--role", type=_ROLES, help="What they may do; user is operator.")
@_display_name
@_cameras
@click.option("--all-cameras", is_flag=True, help="Every camera.")
@_permissions
@click.option("--all-permissions", is_flag=True, help="All that the role may do.")
@_read
@_publish
@click.option("--camera-streams", is_flag=True, help="Streams of the cameras that they may see, no list of their own.")
@click.option("--disable/--enable", "disabled", default=None, help="Refuse them and their keys; or let them in again.")
@talks
def set_rights(
    name: str, role: str | None, display_name: str | None, cameras: tuple[str, ...], all_cameras: bool,
    permissions: tuple[str, ...], all_permissions: bool, read: tuple[str, ...], publish: tuple[str, ...],
    camera_streams: bool, disabled: bool | None, **where: Any,
) -> None:  # fmt: skip
    """Change what a user is called and may do. What is taken away is gone at once. What is left out stays."""
    params = {
        "name": name,
        "role": role,
        "display_name": display_name,
        "camera_access": list(cameras) or None,
        "permissions": list(permissions) or None,
        "streams": _streams(read, publish),
        "disabled": disabled,
    }
    lifted = {"camera_access": all_cameras, "permissions": all_permissions, "streams": camera_streams}
    nulls = [member for member, lift in lifted.items() if lift]
    if any(params[member] is not None for member in nulls):
        raise click.UsageError("one of these options says the contrary of another")
    _show(ask("update_user", params, nulls=nulls, **where), where)


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

    Everybody knows this password: it is taken on this very machine only.
    """
    _show(ask("create_demo_login", {}, **where), where)


def _streams(read: tuple[str, ...], publish: tuple[str, ...]) -> dict[str, list[str]] | None:
    named = {"read": _split(read), "publish": _split(publish)}
    return named if read or publish else None


def _split(lists: tuple[str, ...]) -> list[str]:
    return [name for text in lists for name in text.split(",") if name]


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
