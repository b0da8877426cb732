"""`edged recording`: begin, end, list, show and delete recordings of the running daemon."""

from __future__ import annotations

from typing import Any, Final

import click

from edged.cli.cameras import resolve, tell
from edged.cli.options import ask, show_fields, show_json, show_table, talks

_COLUMNS: Final = ("filename", "device", "status", "created_time", "duration", "file_size", "gaps")


@click.group()
def recording() -> None:
    """Recordings of the running daemon; FILENAME is as in the list, its ending may be left out."""


@recording.command()
@click.argument("device")
@click.option("--filename", help="Its name; without one it gets the camera's and the time.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Ends by itself.")
@click.option("--format", type=click.Choice(["fmp4", "mp4", "mkv"]), help="Of the file (fmp4).")
@talks
def start(device: str, filename: str | None, duration: float | None, format: str | None, **where: Any) -> None:  # noqa: A002
    """Begin to record a camera. One that is away is recorded as soon as it returns."""
    params = {"device": resolve(device, where), "filename": filename, "duration": duration, "format": format}
    tell(ask("start_recording", params, **where), as_json=where["as_json"])


@recording.command()
@click.argument("device")
@talks
def stop(device: str, **where: Any) -> None:
    """End the recording of a camera."""
    tell(ask("stop_recording", {"device": resolve(device, where)}, **where), as_json=where["as_json"])


@recording.command()
@click.argument("device")
@talks
def status(device: str, **where: Any) -> None:
    """Show the running recording of a camera."""
    found = ask("get_recording_status", {"device": resolve(device, where)}, **where)
    if where["as_json"]:
        show_json(found)
    elif found is None:
        click.echo("not recording")
    else:
        show_fields(found)


@recording.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many of the newest.")
@talks
def list_all(limit: int, offset: int, **where: Any) -> None:
    """Show recordings, newest first."""
    found = ask("list_recordings", {"limit": limit, "offset": offset}, **where)
    if where["as_json"]:
        show_json(found)
        return
    show_table(_COLUMNS, found["files"])
    if len(found["files"]) < found["total"]:
        click.echo(f"{len(found['files'])} of {found['total']}; --offset {offset + limit} shows the next", err=True)


@recording.command()
@click.argument("filename")
@talks
def show(filename: str, **where: Any) -> None:
    """Show one recording."""
    found = ask("get_recording_info", {"filename": filename}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_fields(found)


@recording.command()
@click.argument("filename")
@talks
def delete(filename: str, **where: Any) -> None:
    """Delete a recording and its bytes, for good."""
    tell(ask("delete_recording", {"filename": filename}, **where), as_json=where["as_json"])
