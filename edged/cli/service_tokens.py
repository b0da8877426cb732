"""`edged service-token`: credentials of servers that act for users under /v1/files."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from edged.cli.asking import ask, ask_all
from edged.cli.options import grace, quiet, talks
from edged.cli.output import FAILED, show_json, show_secret, show_table, tell
from edged.cli.stdio import is_terminal, read_line

_VARIABLE = "AUTH_SERVICE_TOKEN"
_COLUMNS = ("token_id", "name", "status", "networks", "created_at", "previous_valid_until", "last_used", "usage_count")
_networks = click.option(
    "--network", "networks", multiple=True, metavar="CIDR",
    help="Network from which it may be used (192.0.2.0/24); may be repeated. Without it: all.",
)  # fmt: skip


@click.group("service-token")
def service_token() -> None:
    """Credentials of servers under /v1/files.

    With one a server acts for any of its users.
    """


@service_token.command()
@click.argument("name")
@_networks
@quiet
@talks
def add(name: str, networks: tuple[str, ...], quiet: bool, **where: Any) -> None:
    """Make a service token called NAME and print its secret, which is shown only once."""
    made = ask("create_service_token", {"name": name, "networks": list(networks) or None}, **where)

    def undo() -> str:
        ask("revoke_service_token", {"token_id": made["token_id"]}, **where)
        return f"{made['token_id']} is revoked again"

    show_secret(made, "service_token", quiet=quiet, as_json=where["as_json"], undo=undo)


@service_token.command("list")
@talks
def list_all(**where: Any) -> None:
    """List all service tokens, without their secrets."""
    found = ask_all("list_service_tokens", "service_tokens", {}, **where)
    if where["as_json"]:
        show_json(found)
    elif found["service_tokens"]:
        show_table(_COLUMNS, found["service_tokens"])
    else:
        click.echo("no service tokens; make one: edged service-token add NAME", err=True)


@service_token.command()
@click.argument("token_id")
@grace("rotate_service_token")
@quiet
@talks
def rotate(token_id: str, grace_seconds: float | None, quiet: bool, **where: Any) -> None:
    """Replace the secret of a service token and print the new one, which is shown only once."""
    made = ask("rotate_service_token", {"token_id": token_id, "grace_seconds": grace_seconds}, **where)
    again = f"it is lost, and the old one ends after its grace period; repeat: edged service-token rotate {token_id}"
    show_secret(made, "service_token", quiet=quiet, as_json=where["as_json"], undo=lambda: again)


@service_token.command()
@click.argument("token_id")
@talks
def revoke(token_id: str, **where: Any) -> None:
    """Revoke a service token and the tokens that it made for users, at once and permanently."""
    done = ask("revoke_service_token", {"token_id": token_id}, **where)
    tell(done, f"{done['token_id']} is revoked", where)


@service_token.command("import")
@click.argument("name", default=_VARIABLE)
@_networks
@talks
def import_token(name: str, networks: tuple[str, ...], **where: Any) -> None:
    """Accept a token that other servers already have, so that they need not change; it is called NAME.

    It is read from AUTH_SERVICE_TOKEN or standard input, since arguments are visible in the process list. Only its hash
    is stored. The command may be repeated; exit code 1 if the token was revoked here.
    """
    params = {"service_token": _read(), "name": name, "networks": list(networks) or None}
    done = ask("import_service_token", params, **where)
    told = {"imported": "imported", "known": "was imported before and is unchanged", "revoked": "is revoked"}
    tell(done, f"{done['token_id']} {told[done['status']]}", where)
    if done["status"] == "revoked":
        sys.exit(FAILED)


def _read() -> str:
    """The token's text: the environment, else a pipe."""
    text = os.environ.get(_VARIABLE, "") or ("" if is_terminal() else read_line())
    if not text.strip():
        raise click.UsageError(f"no token: give it in {_VARIABLE} or on standard input")
    return text.strip()
