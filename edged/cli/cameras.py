"""`edged camera` and `edged status`: which cameras there are and how the box is doing; adding and changing cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import click

from edged.cli.options import F, ask, ask_password, show_fields, show_json, show_table, talks
from edged.cli.streams import read_line
from edged.cli.words import list_names

_COLUMNS: Final = ("device", "name", "status", "resolution", "fps", "stream_url")
_MODES: Final = click.Choice(["on_demand", "always"])
_TRANSPORTS: Final = click.Choice(["auto", "tcp", "udp"])

_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--path", help="The name of its stream, as in rtsp://HOST:8554/front_door."),
    click.option("--id", help="By which it is recognised when its source has changed."),
    click.option("--mode", type=_MODES, help="Stream while somebody watches (on_demand), or always."),
    click.option("--size", metavar="WIDTHxHEIGHT", help="Of the stream that edged makes."),
    click.option("--rate", type=click.FloatRange(min=0, min_open=True, max=240), help="Frames a second."),
    click.option("--bitrate", type=click.IntRange(min=10_000), help="Bits a second."),
    click.option("--encoder", help="ffmpeg's name of one."),
    click.option("--rtsp-transport", type=_TRANSPORTS, help="How the camera sends (auto)."),
    click.option("--user", help="The camera's user name; its password is asked for."),
    click.option("--password-stdin", is_flag=True, help="With --user: read the password from standard input."),
)


def _describes(command: F) -> F:
    """Options that describe a camera; the command gets them as `settings`, and user name and password as `login`."""

    @wraps(command)
    def run(*, user: str | None, password_stdin: bool, **given: Any) -> Any:
        names = ("path", "id", "mode", "size", "rate", "bitrate", "encoder", "rtsp_transport")
        settings = {name: given.pop(name) for name in names}
        return command(settings=settings, login=(user, password_stdin), **given)

    found = cast(F, run)
    for option in reversed(_OPTIONS):
        found = option(found)
    return found


@click.group()
def camera() -> None:
    """Cameras of the running daemon; DEVICE is cameraN, its path, its label, or /dev/videoN."""


@camera.command("list")
@talks
def list_all(**where: Any) -> None:
    """Show every camera."""
    found = ask("get_camera_list", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(_COLUMNS, found["cameras"])


@camera.command()
@click.argument("device")
@talks
def show(device: str, **where: Any) -> None:
    """Show one camera in full."""
    found = ask("get_camera_status", {"device": resolve(device, where)}, **where)
    if where["as_json"]:
        show_json(found)
        return
    streams = found.pop("streams", {})
    for group in ("capabilities", "metrics"):
        found |= found.pop(group, {})
    show_fields({name: value for name, value in found.items() if value not in ("", [])} | streams)


@camera.command()
@click.argument("device")
@click.option("--filename", help="Its name; without one it gets the camera's and the time.")
@click.option("--format", type=click.Choice(["jpg", "jpeg", "png"]), help="Of the picture (jpg).")
@click.option("--quality", type=click.IntRange(1, 100), help="1 to 100.")
@talks
def snapshot(device: str, filename: str | None, format: str | None, quality: int | None, **where: Any) -> None:  # noqa: A002
    """Take a picture and keep it on the box."""
    params = {"device": resolve(device, where), "filename": filename, "format": format, "quality": quality}
    tell(ask("take_snapshot", params, **where), as_json=where["as_json"])


@camera.command()
@click.argument("name")
@click.argument("source")
@_describes
@talks
def add(name: str, source: str, settings: dict[str, Any], login: tuple[str | None, bool], **where: Any) -> None:
    """Add a network camera: what people call it, and its rtsp:// URL. It is there at once.

    A password does not belong on a command line, which every user of this machine can read: give --user, or - as
    SOURCE to read the whole URL from standard input.
    """
    made = ask("add_camera", {"name": name, "source": _complete(source, *login), **settings}, **where)
    tell(made, as_json=where["as_json"])


@camera.command("set")
@click.argument("device")
@click.option("--name", help="What people call it.")
@click.option("--source", help="Its rtsp:// URL; - reads it from standard input.")
@_describes
@talks
def change(
    device: str, name: str | None, source: str | None, settings: dict[str, Any], login: tuple[str | None, bool],
    **where: Any,
) -> None:  # fmt: skip
    """Change a camera that was added. It stays the same one, also at another source."""
    if source is None and login[0] is not None:
        raise click.UsageError("a user name and password are part of the source: give --source as well")
    whole = None if source is None else _complete(source, *login)
    params = {"device": resolve(device, where), "name": name, "source": whole, **settings}
    made = ask("update_camera", params, **where)
    tell(made, as_json=where["as_json"])


@camera.command()
@click.argument("device")
@talks
def remove(device: str, **where: Any) -> None:
    """Remove a camera that was added. Nobody else ever gets its number."""
    done = ask("remove_camera", {"device": resolve(device, where)}, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(done["message"])


@click.command()
@talks
def status(**where: Any) -> None:
    """Show how the box is doing."""
    found = ask("get_system_status", {}, **where)
    if where["as_json"]:
        show_json(found)
        return
    media, clock = found.pop("mediamtx"), found.pop("clock")
    problems = found.pop("problems", [])
    found["mediamtx"] = " ".join(filter(None, (media["status"], media["version"], media["detail"])))
    found["clock"] = "synchronized" if clock.get("synchronized") else "not synchronized"
    show_fields(found)
    for problem in problems:
        click.echo(f"{problem['part']}: {problem['message']}: {problem['remedy']}".removesuffix(": "))


def resolve(device: str, where: Mapping[str, Any]) -> str:
    """The id of the one camera with this label; else what was given, which may be an id, a path or a device file."""
    listed = ask("get_camera_list", {}, **where)["cameras"]
    labelled = [camera["device"] for camera in listed if camera["name"] == device]
    # A label may be written like another camera's path, which comes first.
    is_name = any(device in list_names(camera)[1:] for camera in listed)
    return labelled[0] if len(labelled) == 1 and not is_name else device


def _complete(source: str, user: str | None, password_stdin: bool) -> str:
    """The whole URL. Raises UsageError for a password on the command line."""
    if source == "-":
        if user is not None:
            raise click.UsageError("standard input holds the whole URL: leave --user out")
        return read_line().strip()
    scheme, found, rest = source.partition("://")
    if found and "@" in rest:
        raise click.UsageError(
            "every user of this machine can read a password on a command line: give the URL without it and --user NAME,"
            " or - to read the URL from standard input"
        )
    if user is None:
        return source
    try:
        urlsplit(source)
    except ValueError:
        raise click.UsageError("SOURCE is no URL") from None
    password = ask_password(from_stdin=password_stdin)
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def tell(item: dict[str, Any], *, as_json: bool) -> None:
    """Print what was done, as JSON or as a line for each member."""
    if as_json:
        show_json(item)
    else:
        show_fields({name: value for name, value in item.items() if value != ""})
