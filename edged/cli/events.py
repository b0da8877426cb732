"""`edged events` and `edged camera event`: what has happened, and reporting it."""

from __future__ import annotations

from typing import Any, Final

import click

from edged.cli.asking import ask
from edged.cli.cameras import camera as camera
from edged.cli.cameras import resolve
from edged.cli.options import talks
from edged.cli.output import show_fields, show_json, show_table
from edged.cli.params import option

_COLUMNS: Final = ("time", "kind", "device", "details")


@click.command()
@click.option("--since", metavar="CURSOR", help="Only what came after this cursor of an earlier list.")
@click.option("--device", help="Only events of this camera.")
@click.option("--kinds", metavar="KIND,…", help="Only these kinds or families: recording.stop, or recording.")
@option("get_events", "limit", help="How many to show: the newest, or with --since the next.")
@talks
def events(since: str | None, device: str | None, kinds: str | None, limit: int | None, **where: Any) -> None:
    """List what happened to cameras, recordings, pictures and the box, oldest first."""
    params = {
        "since": since, "device": None if device is None else resolve(device, where), "kinds": kinds, "limit": limit
    }  # fmt: skip
    found = ask("get_events", params, **where)
    if where["as_json"]:
        show_json(found)
        return
    if found["gap"]:
        click.echo("some events after that cursor are lost", err=True)
    rows = [
        {**row, "details": " ".join(f"{name}={value}" for name, value in row["details"].items())}
        for row in found["events"]
    ]
    show_table(_COLUMNS, rows)
    click.echo(f"next: --since {found['cursor']}" + (" (there are more)" if found["more"] else ""), err=True)


@camera.command("event")
@click.argument("device")
@click.argument("kind")
@click.option("--text", help="What people read of it.")
@option("create_event", "record_seconds", metavar="SECONDS", help="Record the camera for this time.")
@click.option("--no-snapshot", is_flag=True, help="Take no picture.")
@talks
def report(
    device: str, kind: str, text: str | None, record_seconds: float | None, no_snapshot: bool, **where: Any
) -> None:
    """Report an event on a camera, and keep a picture of that moment; for sensors and scripts.

    KIND is a word of your own, such as motion or gate.open.
    """
    params = {
        "device": resolve(device, where), "kind": kind, "text": text, "record_seconds": record_seconds,
        "snapshot": False if no_snapshot else None,
    }  # fmt: skip
    found = ask("create_event", params, **where)
    if where["as_json"]:
        show_json(found)
        return
    recorded, picture = found["recording"] or {}, found["snapshot"] or {}
    show_fields(
        {
            "event_id": found["event_id"], "time": found["time"], "recording": recorded.get("filename"),
            "until": recorded.get("until"), "snapshot": picture.get("filename"),
        }
    )  # fmt: skip
    for problem in found["problems"]:
        click.echo(f"{problem['part']}: {problem['message']}", err=True)
