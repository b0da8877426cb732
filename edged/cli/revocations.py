"""`edged revocation`: list revocations, and revoke tokens, keys, subjects and issuers."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.asking import ask, ask_all
from edged.cli.options import include_made, paged, talks
from edged.cli.output import show_json, show_page, tell, tell_made
from edged.cli.stdio import is_terminal

_KINDS = ("jti", "token_hash", "key_id", "subject", "issuer", "before")


@click.group()
def revocation() -> None:
    """Revocations that are in force."""


@revocation.command("list")
@paged("list_revocations")
@talks
def list_all(limit: int | None, offset: int | None, **where: Any) -> None:
    """List revoked tokens, keys, subjects, issuers and times."""
    found = ask("list_revocations", {"limit": limit, "offset": offset}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        rows = [{**item, "what": _describe(item)} for item in found["revocations"]]
        show_page(("at", "what", "until", "reason"), rows, found["total"])


@revocation.command()
@click.option("--jti", help="The token with this jti.")
@click.option("--token-hash", metavar="SHA256", help="The token whose text has this SHA-256, in hex.")
@click.option("--key", "key_id", metavar="KEY_ID", help="This API key.")
@click.option("--subject", help="All tokens of this subject (sub).")
@click.option("--issuer", help="All tokens of this issuer (iss).")
@click.option("--before", metavar="TIME", help="Tokens issued up to this time (ISO 8601 or now): all, or of the above.")
@click.option("--reason", help="A note for the list.")
@include_made
@click.option("--yes", is_flag=True, help="Do not ask for confirmation. A revocation cannot be undone.")
@talks
def add(
    jti: str | None, token_hash: str | None, key_id: str | None, subject: str | None, issuer: str | None,
    before: str | None, reason: str | None, include_made: bool, yes: bool, **where: Any,
) -> None:  # fmt: skip
    """Revoke something at once, and end what it opened. --before is used alone or with --subject, --issuer or both; a
    --jti or --subject is that of every issuer, or of the --issuer beside it.

    For a subject, an issuer or a time it shows what will end and asks for confirmation, unless --yes is given.
    """
    if (subject or (issuer and not jti) or before) and not yes:
        _confirm(subject, issuer, before, where)
    params = {
        "jti": jti, "token_hash": token_hash, "key_id": key_id, "subject": subject, "issuer": issuer,
        "before": before, "reason": reason, "include_made": include_made,
    }  # fmt: skip
    done = ask("revoke", params, **where)
    tell(done, f"revoked: {_describe(done)}", where)
    tell_made(done, where)


def _confirm(subject: str | None, issuer: str | None, before: str | None, where: dict[str, Any]) -> None:
    """Say what will end, and ask. Raises UsageError without a terminal to ask on, Abort for a no."""
    quietly = {**where, "as_json": False}
    sessions = ask_all("list_sessions", "sessions", {}, **quietly)["sessions"]
    lines = []
    if subject:
        inside = sum(item["subject"] == subject for item in sessions)
        keys = ask_all("list_keys", "keys", {"owner": subject}, **quietly)["keys"]
        whose = f" of the issuer {issuer!r}" if issuer else ""
        lines.append(f"every token of the subject {subject!r}{whose}; active sessions: {inside}")
        if not before:
            lines.append("their login, permanently")
        if keys and not before:
            lines.append(f"their keys are suspended: {', '.join(item['key_id'] for item in keys)}")
    elif issuer:
        lines.append(f"every token of the issuer {issuer!r}")
    else:
        lines.append(f"every token that was issued up to {before}; active sessions: {len(sessions)}")
    if before and (subject or issuer):
        lines.append(f"but only those that were issued up to {before}")
    click.echo("This takes effect at once and cannot be undone:\n" + "\n".join(f"  {line}" for line in lines), err=True)
    if not is_terminal():
        raise click.UsageError("there is no terminal to confirm it on: --yes does it without asking")
    click.confirm("Continue?", abort=True, err=True)


def _describe(item: dict[str, Any]) -> str:
    """`subject ann, before 2027-…`; of all tokens before a time it is the time alone."""
    text = ", ".join(f"{kind} {item[kind]}" for kind in _KINDS if item.get(kind))
    return f"{text} (provisional: the clock is not synchronised yet)" if item.get("provisional") else text
