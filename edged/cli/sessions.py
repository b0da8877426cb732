"""`edged session`: who is inside now, and putting one out."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, show_json, show_table, talks

_COLUMNS = ("session_id", "transport", "subject", "name", "role", "since", "deadline", "camera")


@click.group()
def session() -> None:
    """Who is inside the running daemon now."""


@session.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), help="So many, the latest first (100).")
@click.option("--offset", type=click.IntRange(min=0), help="Leave out so many of the latest.")
@talks
def list_all(limit: int | None, offset: int | None, **where: Any) -> None:
    """Show every WebSocket, picture and stream, by which credential and until when."""
    found = ask("list_sessions", {"limit": limit, "offset": offset}, **where)
    if where["as_json"]:
        show_json(found)
        return
    show_table(_COLUMNS, found["sessions"])
    if found["total"] > len(found["sessions"]):
        click.echo(f"{len(found['sessions'])} of {found['total']}: see --limit and --offset", err=True)


@session.command()
@click.argument("session_id")
@talks
def end(session_id: str, **where: Any) -> None:
    """Put out SESSION_ID. Its credential stays good: to keep it out, suspend or revoke that."""
    done = ask("end_session", {"session_id": session_id}, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"{done['session_id']} is ended")
