"""`edged signing-key`: the key pairs that sign tokens."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, show_fields, show_json, show_table, talks

_COLUMNS = ("kid", "algorithm", "state", "published", "created_at", "promotable_at", "promoted_at", "needed_until")


@click.group("signing-key")
def signing_key() -> None:
    """Key pairs of the running daemon that sign tokens for other servers.

    To rotate: create, wait two hours while verifiers fetch the JWKS, promote.
    """


@signing_key.command("list")
@talks
def list_all(**where: Any) -> None:
    """Show all key pairs; nothing private."""
    found = ask("list_signing_keys", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(_COLUMNS, found["keys"])


@signing_key.command()
@click.argument("algorithm", type=click.Choice(["RS256", "ES256"]))
@talks
def create(algorithm: str, **where: Any) -> None:
    """Make the next key of ALGORITHM and publish it; it signs once it is promoted."""
    _show(ask("create_signing_key", {"algorithm": algorithm}, **where), as_json=where["as_json"])


@signing_key.command()
@click.argument("kid")
@click.option("--force", is_flag=True, help="Although verifiers may not know it yet.")
@talks
def promote(kid: str, force: bool, **where: Any) -> None:
    """Let the next key KID sign from now on; what the one before signed stays good."""
    _show(ask("promote_signing_key", {"kid": kid, "force": force or None}, **where), as_json=where["as_json"])


@signing_key.command()
@click.argument("kid")
@click.option("--distrust", is_flag=True, help="It leaked: refuse all that it signed, and let another take over now.")
@talks
def retire(kid: str, distrust: bool, **where: Any) -> None:
    """Give up the next key KID; or with --distrust any."""
    _show(ask("retire_signing_key", {"kid": kid, "distrust": distrust or None}, **where), as_json=where["as_json"])


def _show(item: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(item)
    else:
        show_fields(item)
