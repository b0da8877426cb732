"""`edged camera` and `edged status`: list, add and change cameras; the state of the box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import click

from edged.cli.asking import ask, ask_all
from edged.cli.options import F, ask_password, talks
from edged.cli.output import show_fields, show_json, show_table, tell
from edged.cli.params import option
from edged.cli.stdio import read_line
from edged.cli.words import list_names


def read_schedule(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str] | None:
    """Windows with commas between them."""
    return None if text is None else [window.strip() for window in text.split(",") if window.strip()]


_COLUMNS: Final = ("device", "name", "status", "resolution", "fps", "stream_url")


def _refuse_password(_context: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    """The same URL. Raises UsageError for one with a password: every user of this machine can read an argument."""
    if url is not None and "@" in url:
        raise click.UsageError("give the URL without a password: that of SOURCE is used")
    return url


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--path", help="Name of the stream in URLs, as in rtsp://HOST:8554/entrance."),
    click.option("--id", help="Permanent identifier that lets the camera be recognised when its source changes."),
    option("add_camera", "mode", help="Stream while there is a viewer (on_demand), or always."),
    option("add_camera", "record", help="Record when asked (manual), always, or by schedule."),
    click.option(
        "--schedule",
        callback=read_schedule,
        metavar="HH:MM-HH:MM,…",
        help="With --record schedule: when each day, in local time.",
    ),
    option("add_camera", "pre_roll_seconds", help="Seconds before they are asked for that recordings begin."),
    option("add_camera", "max_age_days", metavar="DAYS", help="Delete older recordings of it; 0: as of all cameras."),
    option("add_camera", "max_size_gb", metavar="GB", help="Delete its oldest recordings above this size; 0: do not."),
    click.option("--size", metavar="WIDTHxHEIGHT", help="Picture size, if edged encodes."),
    option("add_camera", "rate", help="Frames per second."),
    option("add_camera", "bitrate", help="Bits per second."),
    click.option("--encoder", help="Name of the ffmpeg encoder."),
    option("add_camera", "rtsp_transport", help="Transport of the camera's stream."),
    option(
        "add_camera",
        "still_seconds",
        metavar="SECONDS",
        help="Between two pictures of an http source that gives one at a time.",
    ),
    click.option("--audio/--no-audio", default=None, help="Publish the camera's sound, as Opus."),
    click.option(
        "--sub-source",
        callback=_refuse_password,
        metavar="URL",
        help="rtsp:// URL of a smaller stream of the camera; it is read with the user name and password of SOURCE.",
    ),
    click.option("--user", help="User name for the camera; its password is asked for."),
    click.option("--password-stdin", is_flag=True, help="With --user: read the password from standard input."),
)


def _describes(command: F) -> F:
    """Options that describe a camera; the command gets them as `settings`, and user name and password as `login`."""

    @wraps(command)
    def run(*, user: str | None, password_stdin: bool, **given: Any) -> Any:
        names = (
            "path",
            "id",
            "mode",
            "record",
            "schedule",
            "pre_roll_seconds",
            "max_age_days",
            "max_size_gb",
            "size",
            "rate",
            "bitrate",
            "encoder",
            "rtsp_transport",
            "still_seconds",
            "sub_source",
            "audio",
        )
        settings = {name: given.pop(name) for name in names}
        return command(settings=settings, login=(user, password_stdin), **given)

    found = cast(F, run)
    for add_option in reversed(_OPTIONS):
        found = add_option(found)
    return found


@click.group()
def camera() -> None:
    """List, add and change cameras.

    DEVICE is cameraN, a camera's path, its name, or /dev/videoN.
    """


@camera.command("list")
@talks
def list_all(**where: Any) -> None:
    """List all cameras."""
    found = ask_all("get_camera_list", "cameras", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(_COLUMNS, found["cameras"])


@camera.command()
@click.argument("device")
@talks
def show(device: str, **where: Any) -> None:
    """Show one camera with its capabilities and streams."""
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
@click.option("--filename", help="File name; by default the camera and the time.")
@click.option(
    "--at", metavar="TIME", help="Take it out of what was recorded then: ISO 8601 with a zone, or Unix seconds."
)
@click.option(
    "--event", metavar="EVENT_ID", help="The picture of this event: the kept one, else what was recorded then."
)
@option("take_snapshot", "format", help="Picture format.")
@option("take_snapshot", "quality", help="JPEG quality.")
@talks
def snapshot(
    device: str,
    at: str | None,
    event: str | None,
    filename: str | None,
    format: str | None,  # noqa: A002
    quality: int | None,
    **where: Any,
) -> None:
    """Take a picture and store it on the box."""
    params = {"device": resolve(device, where), "filename": filename, "format": format, "quality": quality}
    if at is None and event is None:
        found = ask("take_snapshot", params, **where)
    else:
        found = ask("get_snapshot", {**params, "at": at, "event": event}, **where)
    show_item(found, as_json=where["as_json"])


@camera.command()
@click.argument("name")
@click.argument("source")
@_describes
@talks
def add(name: str, source: str, settings: dict[str, Any], login: tuple[str | None, bool], **where: Any) -> None:
    """Add the camera NAME without a restart. SOURCE is its rtsp:// URL, or push: it publishes to its path itself.

    Arguments are visible to every user of this machine, so SOURCE must not contain a password: use --user, or - as
    SOURCE to read the URL from standard input.
    """
    made = ask("add_camera", {"name": name, "source": _complete(source, *login), **settings}, **where)
    show_item(made, as_json=where["as_json"])


@camera.command("set")
@click.argument("device")
@click.option("--name", help="New name.")
@click.option("--source", help="New rtsp:// URL; - reads it from standard input.")
@_describes
@talks
def change(
    device: str, name: str | None, source: str | None, settings: dict[str, Any], login: tuple[str | None, bool],
    **where: Any,
) -> None:  # fmt: skip
    """Change a camera that was added; its number and rights stay, also with another source."""
    if source is None and login[0] is not None:
        raise click.UsageError("user name and password are part of the source: give --source as well")
    whole = None if source is None else _complete(source, *login)
    params = {"device": resolve(device, where), "name": name, "source": whole, **settings}
    made = ask("update_camera", params, **where)
    show_item(made, as_json=where["as_json"])


@camera.command()
@click.argument("device")
@talks
def remove(device: str, **where: Any) -> None:
    """Remove a camera that was added, or one on USB that is unplugged. Its number is never given to another camera."""
    done = ask("remove_camera", {"device": resolve(device, where)}, **where)
    tell(done, done["message"], where)


@camera.command()
@talks
def devices(**where: Any) -> None:
    """List what is plugged in, which camera it is, and why."""
    found = ask("list_camera_devices", {}, **where)
    if where["as_json"]:
        show_json(found)
        return
    rows = [{**one, "camera": one["camera_id"] or one["state"]} for one in found["devices"]]
    show_table(("port", "node", "name", "camera", "why"), rows)


@camera.command()
@click.argument("port")
@click.argument("device", required=False)
@click.option("--new", "is_new", is_flag=True, help="The device is a camera that was never here before.")
@talks
def bind(port: str, device: str | None, is_new: bool, **where: Any) -> None:
    """Say that the device at PORT is the camera DEVICE, or a new one.

    PORT is as in the list of devices, or a device file. A device that was another camera changes places with that of
    DEVICE.
    """
    if (device is None) is not is_new:
        raise click.UsageError("name the camera that the device is, or say --new")
    done = ask("bind_camera", {"port": port, "device": device and resolve(device, where)}, **where)
    tell(done, done["message"], where)


@camera.command()
@click.argument("port")
@talks
def release(port: str, **where: Any) -> None:
    """Look at PORT again, which was left alone because its contact came and went."""
    done = ask("release_camera_device", {"port": port}, **where)
    tell(done, done["message"], where)


@camera.command()
@click.argument("device")
@click.argument("name")
@talks
def rename(device: str, name: str, **where: Any) -> None:
    """Call the camera DEVICE by the name NAME; its number and rights stay."""
    done = ask("rename_camera", {"device": resolve(device, where), "name": name}, **where)
    tell(done, done["message"], where)


@camera.command()
@click.argument("device")
@talks
def forget(device: str, **where: Any) -> None:
    """Forget the device of a camera that is unplugged and will not come back."""
    done = ask("forget_camera", {"device": resolve(device, where)}, **where)
    tell(done, done["message"], where)


@click.command()
@talks
def status(**where: Any) -> None:
    """Show the state of the box and its problems."""
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
    """The id of the one camera with this name; else what was given, which may be an id, a path or a device file."""
    listed = ask_all("get_camera_list", "cameras", {}, **where)["cameras"]
    labelled = [camera["device"] for camera in listed if camera["name"] == device]
    # A label may be written like another camera's path, which comes first.
    is_name = any(device in list_names(camera)[1:] for camera in listed)
    return labelled[0] if len(labelled) == 1 and not is_name else device


def _complete(source: str, user: str | None, password_stdin: bool) -> str:
    """The whole URL. Raises UsageError for a password on the command line."""
    if source == "-":
        if user is not None:
            raise click.UsageError("the URL on standard input includes the user name: omit --user")
        return read_line().strip()
    scheme, found, rest = source.partition("://")
    if found and "@" in rest:
        raise click.UsageError(
            "every user of this machine can read a password in an argument: give the URL without it and --user NAME,"
            " or - to read the URL from standard input"
        )
    if user is None:
        return source
    try:
        urlsplit(source)
    except ValueError:
        raise click.UsageError("SOURCE is not a URL") from None
    password = ask_password(from_stdin=password_stdin)
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def show_item(item: dict[str, Any], *, as_json: bool) -> None:
    """Print what was done, as JSON or as a line for each member."""
    if as_json:
        show_json(item)
    else:
        show_fields({name: value for name, value in item.items() if value != ""})
