"""`edged revocation`: what is denied, and denying more."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.made import and_what_it_made, tell_made
from edged.cli.options import ask, show_json, show_table, talks
from edged.cli.streams import is_terminal

_KINDS = ("jti", "token_hash", "key_id", "subject", "issuer", "before")


@click.group()
def revocation() -> None:
    """What the running daemon denies."""


@revocation.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), help="So many, the newest first (100).")
@click.option("--offset", type=click.IntRange(min=0), help="Leave out so many of the newest.")
@talks
def list_all(limit: int | None, offset: int | None, **where: Any) -> None:
    """Show every token, key, subject, issuer and time that is denied."""
    found = ask("list_revocations", {"limit": limit, "offset": offset}, **where)
    if where["as_json"]:
        show_json(found)
        return
    rows = [{**item, "what": _describe(item)} for item in found["revocations"]]
    show_table(("at", "what", "until", "reason"), rows)
    if found["total"] > len(rows):
        click.echo(f"{len(rows)} of {found['total']}: see --limit and --offset", err=True)


@revocation.command()
@click.option("--jti", help="The token with this jti.")
@click.option("--token-hash", metavar="SHA256", help="The token whose text has this SHA-256, in hex.")
@click.option("--key", "key_id", metavar="KEY_ID", help="This API key.")
@click.option("--subject", help="Every token that says that it is of this subject.")
@click.option("--issuer", help="Every token that says that it is from this issuer.")
@click.option("--before", metavar="TIME", help="Tokens issued up to then (ISO 8601 or now); of all, or of the above.")
@click.option("--reason", help="Why, for the list.")
@and_what_it_made
@click.option("--yes", is_flag=True, help="Do not ask, where many may be meant: a revocation is never taken back.")
@talks
def add(
    jti: str | None, token_hash: str | None, key_id: str | None, subject: str | None, issuer: str | None,
    before: str | None, reason: str | None, include_made: bool, yes: bool, **where: Any,
) -> None:  # fmt: skip
    """Deny something, at once; what it opened is ended. --before goes alone or with --subject, --issuer or both; a
    --jti or --subject is that of every issuer, or of the --issuer beside it.

    For a subject, an issuer or a time it says what that will end and asks, unless --yes is given.
    """
    if (subject or (issuer and not jti) or before) and not yes:
        _confirm(subject, issuer, before, where)
    params = {
        "jti": jti, "token_hash": token_hash, "key_id": key_id, "subject": subject, "issuer": issuer,
        "before": before, "reason": reason, "include_made": include_made,
    }  # fmt: skip
    done = ask("revoke", params, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"denied: {_describe(done)}")
        tell_made(done, where)


def _confirm(subject: str | None, issuer: str | None, before: str | None, where: dict[str, Any]) -> None:
    """Say what will end, and ask. Raises UsageError without a terminal to ask on, Abort for a no."""
    quietly = {**where, "as_json": False}
    sessions = ask("list_sessions", {"limit": 1000}, **quietly)["sessions"]
    lines = []
    if subject:
        inside = sum(item["subject"] == subject for item in sessions)
        keys = ask("list_keys", {"owner": subject}, **quietly)["keys"]
        whose = f" of the issuer {issuer!r}" if issuer else ""
        lines.append(f"every token of the subject {subject!r}{whose}; sessions now: {inside}")
        if not before:
            lines.append("their login, for good")
        if keys and not before:
            lines.append(f"their keys are suspended: {', '.join(item['key_id'] for item in keys)}")
    elif issuer:
        lines.append(f"every token that says it is from {issuer!r}")
    else:
        lines.append(f"every token of everybody that was issued up to {before}; sessions now: {len(sessions)}")
    if before and (subject or issuer):
        lines.append(f"but only those that were issued up to {before}")
    click.echo("This ends at once, and cannot be taken back:\n" + "\n".join(f"  {line}" for line in lines), err=True)
    if not is_terminal():
        raise click.UsageError("there is no terminal to confirm it on: --yes does it without asking")
    click.confirm("Go on?", abort=True, err=True)


def _describe(item: dict[str, Any]) -> str:
    """`subject ann, before 2027-…`; of all tokens before a time it is the time alone."""
    text = ", ".join(f"{kind} {item[kind]}" for kind in _KINDS if item.get(kind))
    return f"{text} (provisional: nobody vouches for the clock yet)" if item.get("provisional") else text
