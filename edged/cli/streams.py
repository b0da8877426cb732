"""`edged stream`: streams, their addresses, and tickets for players."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.asking import ask
from edged.cli.cameras import resolve
from edged.cli.options import talks
from edged.cli.output import show_fields, show_json, show_secret, show_table
from edged.cli.params import option

_COLUMNS = ("name", "source", "ready", "readers", "bytes_sent")


@click.group()
def stream() -> None:
    """Streams, their addresses, and tickets.

    DEVICE is cameraN, a camera's path, its name, or /dev/videoN.
    """


@stream.command("list")
@talks
def list_all(**where: Any) -> None:
    """List the streams of MediaMTX with the number of their readers."""
    found: Any = ask("get_streams", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(_COLUMNS, [{**item, "ready": "yes" if item["ready"] else "no"} for item in found])


@stream.command()
@click.argument("device")
@talks
def url(device: str, **where: Any) -> None:
    """Show where a camera can be watched. A player needs a key, a token or a ticket as well."""
    found = ask("get_stream_url", {"device": resolve(device, where)}, **where)
    if where["as_json"]:
        show_json(found)
        return
    found |= {"available": "yes" if found["available"] else "no"}
    show_fields({name: value for name, value in found.items() if name not in ("streams", "stream_url") and value != ""}
                | found["streams"])  # fmt: skip


@stream.command()
@click.argument("device")
@option("create_ticket", "action", help="What the ticket allows.")
@option("create_ticket", "ttl", metavar="SECONDS", help="How long it can be used to open the stream.")
@click.option("--quiet", "-q", is_flag=True, help="Print the URL alone.")
@talks
def ticket(device: str, action: str | None, ttl: int | None, quiet: bool, **where: Any) -> None:
    """Make a URL that opens one camera, for a player that takes nothing but a URL.

    Whoever has the URL can use it until it expires. A stream that was opened with it goes on.
    """
    made = ask("create_ticket", {"device": resolve(device, where), "action": action, "ttl": ttl}, **where)
    shown = made if where["as_json"] or quiet else {
        "ticket": made["ticket"], "expires_at": made["expires_at"], **made["urls"]
    }  # fmt: skip
    expires = f"it expires at {made['expires_at']}"
    show_secret(shown, "url" if quiet else "ticket", quiet=quiet, as_json=where["as_json"], undo=lambda: expires)
