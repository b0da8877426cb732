"""`edged key`: make, import, list, show, change, rotate, suspend, resume and revoke API keys."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from edged.cli.foreign_keys import KeyFile
from edged.cli.made import and_what_it_made, tell_made
from edged.cli.options import FAILED, ask, errors_shown, show_json, show_rights, show_secret, show_table, talks
from edged.cli.rights import ROLES, changes_rights, gives_rights, list_lifted, list_limits
from edged.cli.words import list_capabilities, summarise

_COLUMNS = ("key_id", "name", "role", "may", "owner", "status", "created_at", "expires_at", "last_used", "usage_count")
_STATES = click.Choice(["active", "expired", "suspended", "revoked"])
#: Keys of another service that the daemon takes with one call.
_MOST_IMPORTED = 100
#: What the daemon takes.
_MOST_DAYS = 36500
_expires_at = click.option("--expires-at", metavar="TIME", help="When it ends (ISO 8601).")
_owner = click.option("--owner", metavar="USER", help="Whose it is: it can do no more than they may.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="Print the secret alone, for scripts to capture.")


class _Days(click.FloatRange):
    """Days. JSON has no nan: it would go out as nothing at all, which is a key without an end, or a list of all."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        days = super().convert(value, param, ctx)
        if days != days:
            self.fail(f"{value!r} is no number of days", param, ctx)
        return days


@click.group()
def key() -> None:
    """API keys of the running daemon."""


@key.command()
@click.argument("name")
@click.option("--role", type=ROLES, required=True, help="What the key may do; user is operator.")
@click.option("--expires-in-days", type=_Days(0, _MOST_DAYS, min_open=True), help="When it ends, from now; else never.")
@_expires_at
@gives_rights
@_owner
@_quiet
@talks
def create(
    name: str, role: str, expires_in_days: float | None, expires_at: str | None, rights: dict[str, object],
    owner: str | None, quiet: bool, **where: Any,
) -> None:  # fmt: skip
    """Make an API key called NAME and print its secret, this one time."""
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
@click.option("--role", type=ROLES, help="Only keys of this role.")
@click.option("--status", type=_STATES, help="Only keys in this state.")
@click.option("--unused-days", type=_Days(0, _MOST_DAYS), help="Only keys unused for so long.")
@click.option("--owner", metavar="USER", help="Only keys of this user.")
@talks
def list_all(
    role: str | None, status: str | None, unused_days: float | None, owner: str | None, **where: Any
) -> None:  # fmt: skip
    """Show all keys; their secrets are known to nobody any more."""
    found = ask("list_keys", {"role": role, "status": status, "unused_days": unused_days, "owner": owner}, **where)
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
    """Show one key: what it may do, when it ends, how often and when last it was used."""
    _show_key(ask("get_key", {"key_id": key_id}, **where), where)


@key.command()
@click.argument("key_id")
@click.option("--name", help="What it is called.")
@click.option("--role", type=ROLES, help="What it may do; user is operator.")
@click.option("--expires-in-days", type=_Days(0, _MOST_DAYS, min_open=True), help="When it ends, from now.")
@_expires_at
@click.option("--no-expiry", is_flag=True, help="It has no end.")
@changes_rights
@_owner
@click.option("--no-owner", is_flag=True, help="It is nobody's.")
@talks
def update(
    key_id: str, name: str | None, role: str | None, expires_in_days: float | None, expires_at: str | None,
    no_expiry: bool, rights: dict[str, object], lifted: dict[str, bool], owner: str | None, no_owner: bool,
    **where: Any,
) -> None:  # fmt: skip
    """Change what a key is called and may do; its sessions feel it with their next call. What is left out stays."""
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
        raise click.UsageError("--no-expiry says the contrary of --expires-in-days")
    nulls = list_lifted(params, {**lifted, "expires_at": no_expiry, "owner": no_owner})
    _show_key(ask("update_key", params, nulls=nulls, **where), where)


@key.command()
@click.argument("key_id")
@talks
def suspend(key_id: str, **where: Any) -> None:
    """Refuse a key and end everything that it opened, at once, until it is resumed."""
    _tell(ask("suspend_key", {"key_id": key_id}, **where), "is suspended", where)


@key.command()
@click.argument("key_id")
@talks
def resume(key_id: str, **where: Any) -> None:
    """Let a suspended key in again."""
    _tell(ask("resume_key", {"key_id": key_id}, **where), "is good again", where)


@key.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@talks
def import_keys(file: Path, **where: Any) -> None:
    """Accept the keys in another service's api-keys.json, and take them out of FILE once they are safe.

    The keys go on working as they are; edged keeps their hashes only. What cannot be taken stays in FILE. Exit code 1
    if there was any of that. It may be done again.
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
            click.echo("Where there is no key in the file nobody can take it over: make a new one, edged key create.",
                       err=True)  # fmt: skip
        click.echo(f"{file}: {left} left" if left else f"{file}: emptied", err=True)
    if left:
        sys.exit(FAILED)


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
    again = f"nobody has it, and the old one ends when its grace does; edged key rotate {key_id} makes another"
    show_secret(shown, "api_key", quiet=quiet, as_json=where["as_json"], undo=lambda: again)


@key.command()
@click.argument("key_id")
@and_what_it_made
@talks
def revoke(key_id: str, include_made: bool, **where: Any) -> None:
    """End a key, everything that it opened and the tokens that it issued, at once and for good."""
    done = ask("revoke_key", {"key_id": key_id, "include_made": include_made}, **where)
    _tell(done, "is revoked", where)
    tell_made(done, where)


def _tell(done: dict[str, Any], what: str, where: dict[str, Any]) -> None:
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"{done['key_id']} {what}")


def _show_key(item: dict[str, Any], where: dict[str, Any]) -> None:
    if where["as_json"]:
        show_json(item)
        return
    show_rights(item)
