"""`edged events`: what has happened."""

from __future__ import annotations

from typing import Any, Final

import click

from edged.cli.asking import ask
from edged.cli.cameras import resolve
from edged.cli.options import talks
from edged.cli.output import show_json, show_table
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
