"""`edged key`: make, import, list, show, change, rotate, suspend, resume and revoke API keys."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edged.cli.asking import ask, ask_all
from edged.cli.foreign_keys import KeyFile
from edged.cli.options import F, grace, include_made, quiet, role, talks
from edged.cli.output import (
    FAILED,
    errors_shown,
    show_json,
    show_rights,
    show_secret,
    show_table,
    tell,
    tell_made,
)
from edged.cli.params import PARAMS, option
from edged.cli.rights import changes_rights, gives_rights, list_lifted, list_limits
from edged.cli.words import list_capabilities, summarise

_COLUMNS = ("key_id", "name", "role", "may", "owner", "status", "created_at", "expires_at", "last_used", "usage_count")
#: Keys that the daemon takes with one call.
_MOST_IMPORTED = PARAMS["import_keys"]["keys"]["max_items"]


def _lasts(operation: str) -> Callable[[F], F]:
    """When a key expires, and whose it is."""
    days = option(operation, "expires_in_days", help="Days until it expires.")
    at = click.option("--expires-at", metavar="TIME", help="When it expires (ISO 8601).")
    owner = click.option("--owner", metavar="USER", help="Owner: the key can do no more than this user may.")
    return lambda command: days(at(owner(command)))


@click.group()
def key() -> None:
    """API keys and their rights."""


@key.command()
@click.argument("name")
@role("create_key", required=True, help="Role of the key")
@_lasts("create_key")
@gives_rights(elsewhere=False)
@quiet
@talks
def create(
    name: str, role: str, expires_in_days: float | None, expires_at: str | None, rights: dict[str, object],
    owner: str | None, quiet: bool, **where: Any,
) -> None:  # fmt: skip
    """Make an API key called NAME and print its secret, which is shown only once."""
    params = {
        "name": name,
        "role": role,
        "expires_in_days": expires_in_days,
        "expires_at": expires_at,
        "owner": owner,
        **rights,
    }
    made = ask("create_key", params, **where)

    def undo() -> str:
        ask("revoke_key", {"key_id": made["key_id"]}, **where)
        return f"{made['key_id']} is revoked again"

    may = {"effective_permissions": list_capabilities(made["role"])}
    shown = made if where["as_json"] else {**may, **made, **list_limits(rights)}
    show_secret(shown, "api_key", quiet=quiet, as_json=where["as_json"], undo=undo)


@key.command("list")
@role("list_keys", help="Only keys of this role")
@option("list_keys", "status", help="Only keys in this state.")
@option("list_keys", "unused_days", metavar="DAYS", help="Only keys that were not used for so long.")
@click.option("--owner", metavar="USER", help="Only keys of this user.")
@talks
def list_all(
    role: str | None, status: str | None, unused_days: float | None, owner: str | None, **where: Any
) -> None:  # fmt: skip
    """List all keys, without their secrets."""
    wanted = {"role": role, "status": status, "unused_days": unused_days, "owner": owner}
    found = ask_all("list_keys", "keys", wanted, **where)
    if where["as_json"]:
        show_json(found)
    elif found["keys"]:
        show_table(_COLUMNS, [{**item, "may": summarise(item)} for item in found["keys"]])
    else:
        click.echo("no keys; make one: edged key create NAME --role viewer", err=True)


@key.command()
@click.argument("key_id")
@talks
def show(key_id: str, **where: Any) -> None:
    """Show one key: permissions, expiry, and how often and when it was last used."""
    _show_key(ask("get_key", {"key_id": key_id}, **where), where)


@key.command()
@click.argument("key_id")
@click.option("--name", help="New name.")
@role("update_key", help="New role")
@_lasts("update_key")
@click.option("--no-expiry", is_flag=True, help="The key does not expire any more.")
@changes_rights(elsewhere=False)
@click.option("--no-owner", is_flag=True, help="The key has no owner any more.")
@talks
def update(
    key_id: str, name: str | None, role: str | None, expires_in_days: float | None, expires_at: str | None,
    no_expiry: bool, rights: dict[str, object], lifted: dict[str, bool], owner: str | None, no_owner: bool,
    **where: Any,
) -> None:  # fmt: skip
    """Change a key, with effect on the next call of its sessions. What is not given stays as it is."""
    params = {
        "key_id": key_id,
        "name": name,
        "role": role,
        "expires_in_days": expires_in_days,
        "expires_at": expires_at,
        "owner": owner,
        **rights,
    }
    if no_expiry and expires_in_days is not None:
        raise click.UsageError("--no-expiry contradicts --expires-in-days")
    nulls = list_lifted(params, {**lifted, "expires_at": no_expiry, "owner": no_owner})
    _show_key(ask("update_key", params, nulls=nulls, **where), where)


@key.command()
@click.argument("key_id")
@talks
def suspend(key_id: str, **where: Any) -> None:
    """Refuse a key until it is resumed, and end everything that it opened, at once."""
    _tell(ask("suspend_key", {"key_id": key_id}, **where), "is suspended", where)


@key.command()
@click.argument("key_id")
@talks
def resume(key_id: str, **where: Any) -> None:
    """Accept a suspended key again."""
    _tell(ask("resume_key", {"key_id": key_id}, **where), "is active", where)


@key.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@talks
def import_keys(file: Path, **where: Any) -> None:
    """Import the keys in another service's api-keys.json, and remove them from FILE once they are stored.

    The keys continue to work unchanged; edged stores only their hashes. Keys that cannot be imported stay in FILE; then
    the exit code is 1. The command may be repeated.
    """
    with errors_shown(as_json=where["as_json"]), KeyFile.open(file) as found:
        keys = list(found.keys)
        report: list[dict[str, Any]] = []
        for at in range(0, len(keys), _MOST_IMPORTED):
            report += ask("import_keys", {"keys": keys[at : at + _MOST_IMPORTED]}, **where)["keys"]
        taken = {item["source_id"] for item in report if item["status"] != "refused"}
        report += found.unusable
        left = found.take_out(taken | found.ended)
    if where["as_json"]:
        show_json({"keys": report, "left_in_file": left})
    else:
        if report:
            show_table(("source_id", "status", "key_id", "reason"), report)
        counted = Counter(item["status"] for item in report)
        click.echo(", ".join(f"{number} {status}" for status, number in counted.items()) or "no keys", err=True)
        if any(item["status"] == "no key" for item in report):
            click.echo("A record without its key cannot be imported: make a new key with edged key create.",
                       err=True)  # fmt: skip
        click.echo(f"{file}: {left} left" if left else f"{file}: emptied", err=True)
    if left:
        sys.exit(FAILED)


@key.command()
@click.argument("key_id")
@grace("rotate_key")
@quiet
@talks
def rotate(key_id: str, grace_seconds: float | None, quiet: bool, **where: Any) -> None:
    """Replace the secret of a key and print the new one, which is shown only once."""
    made = ask("rotate_key", {"key_id": key_id, "grace_seconds": grace_seconds}, **where)
    # The reply has the secret under two names (contract 5.1); people need it once.
    shown = made if where["as_json"] else {name: value for name, value in made.items() if name != "new_api_key"}
    again = f"it is lost, and the old one ends after its grace period; repeat: edged key rotate {key_id}"
    show_secret(shown, "api_key", quiet=quiet, as_json=where["as_json"], undo=lambda: again)


@key.command()
@click.argument("key_id")
@include_made
@talks
def revoke(key_id: str, include_made: bool, **where: Any) -> None:
    """Revoke a key and the tokens that it issued, and end what it opened, at once and permanently."""
    done = ask("revoke_key", {"key_id": key_id, "include_made": include_made}, **where)
    _tell(done, "is revoked", where)
    tell_made(done, where)


def _tell(done: dict[str, Any], what: str, where: dict[str, Any]) -> None:
    tell(done, f"{done['key_id']} {what}", where)


def _show_key(item: dict[str, Any], where: dict[str, Any]) -> None:
    if where["as_json"]:
        show_json(item)
        return
    show_rights(item)
