"""`edged service-token`: what other servers show under /v1/files."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from edged.cli.options import FAILED, ask, show_json, show_secret, show_table, talks
from edged.cli.streams import is_terminal, read_line

_VARIABLE = "AUTH_SERVICE_TOKEN"
_COLUMNS = ("token_id", "name", "status", "networks", "created_at", "previous_valid_until", "last_used", "usage_count")
_networks = click.option(
    "--network", "networks", multiple=True, metavar="CIDR", help="Good from here only (192.0.2.0/24); repeatable."
)
_quiet = click.option("--quiet", "-q", is_flag=True, help="Print the secret alone, for scripts to capture.")


@click.group("service-token")
def service_token() -> None:
    """Tokens with which other servers act for any user under /v1/files."""


@service_token.command()
@click.argument("name")
@_networks
@_quiet
@talks
def add(name: str, networks: tuple[str, ...], quiet: bool, **where: Any) -> None:
    """Make a service token called NAME and print its secret, this one time."""
    made = ask("create_service_token", {"name": name, "networks": list(networks) or None}, **where)

    def undo() -> str:
        ask("revoke_service_token", {"token_id": made["token_id"]}, **where)
        return f"{made['token_id']} is revoked again"

    show_secret(made, "service_token", quiet=quiet, as_json=where["as_json"], undo=undo)


@service_token.command("list")
@talks
def list_all(**where: Any) -> None:
    """Show all service tokens; their secrets are known to nobody any more."""
    found = ask("list_service_tokens", {}, **where)
    if where["as_json"]:
        show_json(found)
    elif found["service_tokens"]:
        show_table(_COLUMNS, found["service_tokens"])
    else:
        click.echo("no service tokens; make one: edged service-token add NAME", err=True)


@service_token.command()
@click.argument("token_id")
@click.option("--grace", type=click.IntRange(min=0), metavar="SECONDS", help="How long the old secret lives (3600).")
@_quiet
@talks
def rotate(token_id: str, grace: int | None, quiet: bool, **where: Any) -> None:
    """Give a service token a new secret and print it, this one time; the old one works on for a while."""
    made = ask("rotate_service_token", {"token_id": token_id, "grace_seconds": grace}, **where)
    again = (
        f"nobody has it, and the old one ends when its grace does; edged service-token rotate {token_id} makes another"
    )
    show_secret(made, "service_token", quiet=quiet, as_json=where["as_json"], undo=lambda: again)


@service_token.command()
@click.argument("token_id")
@talks
def revoke(token_id: str, **where: Any) -> None:
    """End a service token and the tokens that it made for users, at once and for good."""
    done = ask("revoke_service_token", {"token_id": token_id}, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"{done['token_id']} is revoked")


@service_token.command("import")
@click.argument("name", default=_VARIABLE)
@_networks
@talks
def import_token(name: str, networks: tuple[str, ...], **where: Any) -> None:
    """Accept the token that other servers hold already, so that they need not change; it is called NAME.

    It is read from AUTH_SERVICE_TOKEN or standard input: an argument would stand in the process list. edged keeps its
    hash only. It may be done again; exit code 1 if it was revoked here.
    """
    params = {"service_token": _read(), "name": name, "networks": list(networks) or None}
    done = ask("import_service_token", params, **where)
    if where["as_json"]:
        show_json(done)
    else:
        told = {"imported": "imported", "known": "is known already, and stays as it is", "revoked": "is revoked"}
        click.echo(f"{done['token_id']} {told[done['status']]}")
    if done["status"] == "revoked":
        sys.exit(FAILED)


def _read() -> str:
    """The token's text: the environment, else a pipe."""
    text = os.environ.get(_VARIABLE, "") or ("" if is_terminal() else read_line())
    if not text.strip():
        raise click.UsageError(f"no token: give it in {_VARIABLE} or on standard input")
    return text.strip()
