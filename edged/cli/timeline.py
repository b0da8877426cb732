"""`edged camera timeline` and `edged camera playback`: when a camera is recorded, and playing that."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.asking import ask
from edged.cli.cameras import resolve
from edged.cli.events import camera
from edged.cli.options import quiet as with_quiet
from edged.cli.options import talks
from edged.cli.output import show_json, show_secret, show_table
from edged.cli.params import option


@camera.command("timeline")
@click.argument("device")
@click.option(
    "--start", metavar="TIME", help="From when: ISO 8601 with a zone, or Unix seconds; by default a day before the end."
)
@click.option("--end", metavar="TIME", help="Until when; by default until now.")
@talks
def show_timeline(device: str, start: str | None, end: str | None, **where: Any) -> None:
    """List when a camera is recorded, what is missing of its recordings, and its events."""
    params: dict[str, object] = {"device": resolve(device, where), "start": start, "end": end}
    found = ask("get_timeline", params, **where)
    first = found
    while "next_cursor" in found:
        found = ask("get_timeline", {**params, "cursor": found["next_cursor"]}, **where)
        _join(first["spans"], found["spans"])
        _join(first["gaps"], found["gaps"])
        first["events"] += found["events"]
        first["end"] = found["end"]
    first.pop("next_cursor", None)
    if where["as_json"]:
        show_json(first)
        return
    rows: list[tuple[str, str, str]] = [
        *((row["start"], row["end"], _describe(row)) for row in first["spans"]),
        *((row["start"], row["end"], "missing") for row in first["gaps"]),
        *((row["time"], "", row["kind"]) for row in first["events"]),
    ]
    names = ("start", "end", "what")
    show_table(names, [dict(zip(names, row, strict=True)) for row in sorted(rows)])


def _describe(span: dict[str, Any]) -> str:
    return "recorded, and goes on" if span.get("growing") else "recorded"


def _join(rows: list[dict[str, Any]], following: list[dict[str, Any]]) -> None:
    """The rows of the next page, the first of which may go on where the last one was cut."""
    if rows and following and rows[-1]["end"] == following[0]["start"]:
        following[0] = {**following[0], "start": rows.pop()["start"]}
    rows += following


@camera.command()
@click.argument("device")
@click.option("--start", required=True, metavar="TIME", help="From when: ISO 8601 with a zone, or Unix seconds.")
@click.option("--end", required=True, metavar="TIME", help="Until when.")
@option("create_playback_link", "ttl", metavar="SECONDS", help="How long the player can fetch the list.")
@with_quiet
@talks
def playback(device: str, start: str, end: str, ttl: int | None, *, quiet: bool, **where: Any) -> None:
    """Make a URL that plays what is recorded of a camera, for a player of HLS.

    Whoever has the URL can use it until it expires.
    """
    params = {"device": resolve(device, where), "start": start, "end": end, "ttl": ttl}
    made = ask("create_playback_link", params, **where)
    if "continues_at" in made and not quiet:
        click.echo(f"the codecs change: what follows is played with --start {made['continues_at']}", err=True)
    if made["growing"] and not quiet:
        click.echo("the camera is being recorded: the list grows", err=True)
    expires = f"it expires at {made['expires_at']}"
    show_secret(made, "url", quiet=quiet, as_json=where["as_json"], undo=lambda: expires)
