"""`edged revocation`: what is denied, and denying more."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, show_json, show_table, talks

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
@talks
def add(
    jti: str | None, token_hash: str | None, key_id: str | None, subject: str | None, issuer: str | None,
    before: str | None, reason: str | None, **where: Any,
) -> None:  # fmt: skip
    """Deny something, at once; what it opened is ended. --before goes alone or with --subject or --issuer."""
    params = {
        "jti": jti, "token_hash": token_hash, "key_id": key_id, "subject": subject, "issuer": issuer,
        "before": before, "reason": reason,
    }  # fmt: skip
    done = ask("revoke", params, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"denied: {_describe(done)}")


def _describe(item: dict[str, Any]) -> str:
    """`subject ann, before 2027-…`; of all tokens before a time it is the time alone."""
    text = ", ".join(f"{kind} {item[kind]}" for kind in _KINDS if item.get(kind))
    return f"{text} (provisional: nobody vouches for the clock yet)" if item.get("provisional") else text
