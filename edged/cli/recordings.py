"""`edged recording`: start, stop, list, show and delete recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from edged.cli.asking import ask
from edged.cli.cameras import resolve, show_item
from edged.cli.downloads import fetch
from edged.cli.evidence import fetch_evidence, fetch_seal
from edged.cli.kept_files import add_file_commands
from edged.cli.options import talks
from edged.cli.output import show_fields, show_json, tell
from edged.cli.params import option
from edged.cli.verify_command import verify

_COLUMNS: Final = ("filename", "device", "status", "created_time", "duration", "file_size", "gaps", "protected")


@click.group()
def recording() -> None:
    """Record cameras, and manage recordings.

    FILENAME is as in the list; its extension may be omitted.
    """


@recording.command()
@click.argument("device")
@click.option("--filename", help="File name; by default the camera and the time.")
@option("start_recording", "duration", metavar="SECONDS", help="Stop after this time.")
@option("start_recording", "format", help="File format.")
@talks
def start(device: str, filename: str | None, duration: float | None, format: str | None, **where: Any) -> None:  # noqa: A002
    """Start recording a camera. If it is not connected, recording starts when it is."""
    params = {"device": resolve(device, where), "filename": filename, "duration": duration, "format": format}
    show_item(ask("start_recording", params, **where), as_json=where["as_json"])


@recording.command()
@click.argument("device")
@talks
def stop(device: str, **where: Any) -> None:
    """Stop the recording of a camera."""
    show_item(ask("stop_recording", {"device": resolve(device, where)}, **where), as_json=where["as_json"])


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


@recording.command()
@click.argument("device")
@click.argument("start")
@click.argument("end")
@click.option("--filename", help="File name; by default the camera and the time.")
@talks
def clip(device: str, start: str, end: str, filename: str | None, **where: Any) -> None:
    """Keep what was recorded from START to END as a recording of its own.

    Times are ISO 8601 with a zone (2027-01-31T10:00:00Z) or Unix seconds.
    """
    params = {"device": resolve(device, where), "start": start, "end": end, "filename": filename}
    found = ask("create_clip", params, **where)
    missing = [f"{each['start_time']} to {each['end_time']}" for each in found["missing"]]
    shown = found if where["as_json"] else {**found, "missing": ", ".join(missing)}
    show_item(shown, as_json=where["as_json"])


@recording.command()
@click.argument("filename")
@talks
def protect(filename: str, **where: Any) -> None:
    """Keep a recording: neither retention nor a caller deletes it."""
    show_item(ask("protect_recording", {"filename": filename}, **where), as_json=where["as_json"])


@recording.command()
@click.argument("filename")
@talks
def unprotect(filename: str, **where: Any) -> None:
    """End the protection of a recording."""
    show_item(ask("unprotect_recording", {"filename": filename}, **where), as_json=where["as_json"])


@recording.command()
@click.argument("filename")
@click.option(
    "--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="File to write; by default its name, here."
)
@click.option(
    "--evidence", is_flag=True, help="A folder instead, with its segments and all that proves them (recording verify)."
)
@click.option("--seal", "with_seal", is_flag=True, help="Also the seal of the file, as FILE.seal.")
@talks
def download(filename: str, target: Path | None, *, evidence: bool, with_seal: bool, **where: Any) -> None:
    """Copy a recording from the daemon into a file, which must not exist."""
    if evidence and with_seal:
        raise click.UsageError("--evidence has the seals of all segments: leave out --seal")
    if evidence:
        done = fetch_evidence(filename, target or Path(f"{filename}.evidence"), **where)
        unsealed = f", {done['unsealed']} of them without a seal" if done["unsealed"] else ""
        tell(done, f"{done['folder']}: {done['segments']} segments, {done['file_size']} bytes{unsealed}", where)
        return
    found = ask("get_recording_info", {"filename": filename}, **where)
    target = target or Path(found["filename"])
    size = fetch(found["download_url"], target, **where)
    done = {"filename": str(target), "file_size": size}
    if with_seal:
        done["seal"] = fetch_seal(filename, target, **where)
    tell(done, f"{target}: {size} bytes", where)


add_file_commands(recording, "recording", "recordings", _COLUMNS)
recording.add_command(verify)
