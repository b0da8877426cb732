"""`edged key`: make, list, rotate and revoke API keys."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, show_fields, show_json, show_table, talks

_ROLES = click.Choice(["monitor", "viewer", "operator", "user", "admin"])
_COLUMNS = ("key_id", "name", "role", "status", "created_at", "expires_at", "last_used", "usage_count")
_quiet = click.option("--quiet", "-q", is_flag=True, help="Print the secret alone, for scripts to capture.")


@click.group()
def key() -> None:
    """API keys of the running daemon."""


@key.command()
@click.argument("name")
@click.option("--role", type=_ROLES, required=True, help="What the key may do; user is operator.")
@click.option("--expires-in-days", type=click.FloatRange(min=0, min_open=True), help="Without it the key has no end.")
@click.option("--camera", "cameras", multiple=True, metavar="CAMERA", help="Only this camera; may be repeated.")
@click.option("--permission", "permissions", multiple=True, help="Only this of what the role may do; may be repeated.")
@_quiet
@talks
def create(
    name: str, role: str, expires_in_days: float | None, cameras: tuple[str, ...], permissions: tuple[str, ...],
    quiet: bool, **where: Any,
) -> None:  # fmt: skip
    """Make an API key called NAME and print its secret, this one time."""
    params = {
        "name": name,
        "role": role,
        "expires_in_days": expires_in_days,
        "camera_access": list(cameras) or None,
        "permissions": list(permissions) or None,
    }
    _show_secret(ask("create_key", params, **where), quiet=quiet, as_json=where["as_json"])


@key.command("list")
@click.option("--role", type=_ROLES, help="Only keys of this role.")
@click.option("--status", type=click.Choice(["active", "expired", "revoked"]), help="Only keys in this state.")
@click.option("--unused-days", type=click.FloatRange(min=0), help="Only keys unused for so long.")
@talks
def list_all(role: str | None, status: str | None, unused_days: float | None, **where: Any) -> None:
    """Show all keys; their secrets are known to nobody any more."""
    found = ask("list_keys", {"role": role, "status": status, "unused_days": unused_days}, **where)
    if where["as_json"]:
        show_json(found)
    elif found["keys"]:
        show_table(_COLUMNS, found["keys"])
    else:
        click.echo("no keys; make one: edged key create NAME --role viewer", err=True)


@key.command()
@click.argument("key_id")
@click.option("--grace", type=click.IntRange(min=0), metavar="SECONDS", help="How long the old secret lives (3600).")
@_quiet
@talks
def rotate(key_id: str, grace: int | None, quiet: bool, **where: Any) -> None:
    """Give a key a new secret and print it, this one time; the old one works on for a while."""
    made = ask("rotate_key", {"key_id": key_id, "grace_seconds": grace}, **where)
    # The contract's reply says the secret under two names; people need it once.
    shown = made if where["as_json"] else {name: value for name, value in made.items() if name != "new_api_key"}
    _show_secret(shown, quiet=quiet, as_json=where["as_json"])


@key.command()
@click.argument("key_id")
@talks
def revoke(key_id: str, **where: Any) -> None:
    """End a key and everything that it opened, at once and for good."""
    done = ask("revoke_key", {"key_id": key_id}, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"{done['key_id']} is revoked")


def _show_secret(made: dict[str, Any], *, quiet: bool, as_json: bool) -> None:
    if quiet:
        click.echo(made["api_key"])
    elif as_json:
        show_json(made)
    else:
        show_fields(made)
        click.echo("Keep api_key now: it is not shown again.", err=True)
