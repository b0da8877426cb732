"""`edged session`: who is connected, and ending a session; `edged whoami`."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.asking import ask
from edged.cli.options import paged, talks
from edged.cli.output import show_fields, show_json, show_page, tell

_COLUMNS = ("session_id", "transport", "subject", "name", "role", "since", "deadline", "camera")


@click.group()
def session() -> None:
    """Active sessions: WebSockets, pictures and streams."""


@session.command("list")
@paged("list_sessions")
@talks
def list_all(limit: int | None, offset: int | None, **where: Any) -> None:
    """List active sessions with their credential and latest end."""
    found = ask("list_sessions", {"limit": limit, "offset": offset}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_page(_COLUMNS, found["sessions"], found["total"])


@session.command()
@click.argument("session_id")
@talks
def end(session_id: str, **where: Any) -> None:
    """End the session SESSION_ID. Its credential stays valid: to prevent a new session, suspend or revoke that."""
    done = ask("end_session", {"session_id": session_id}, **where)
    tell(done, f"{done['session_id']} is ended", where)


@click.command()
@talks
def whoami(**where: Any) -> None:
    """Show which rights these commands have."""
    found = ask("whoami", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_fields({name: value for name, value in found.items() if value != {}})
