"""conf.d/*.toml, then the environment, then systemd's credentials → Config.

Later files win over earlier ones, key by key; [[camera]] entries add up. Every error names the file
and line (or the variable), the key, the nearest key that exists and what to do.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edged.config.addresses import OFF
from edged.config.checks import check_addresses, check_apart, check_demo, check_issuers, check_pre_rolls
from edged.config.conversion import convert, convert_issuers, read_text
from edged.config.listeners import LISTENERS, POLICIES, ListenerPolicy, ListenPolicies
from edged.config.model import SECTIONS, CameraSettings, Config
from edged.config.places import SHOW, Place, error_at, find_line, read_table, unknown_at
from edged.config.secrets import CREDENTIAL, CREDENTIAL_SECRETS
from edged.config.sections import Section, Setting, settings_of

DIRECTORY = Path("/etc/edged/conf.d")
#: Read by the command line, or by programs around edged; never settings.
NOT_SETTINGS = frozenset({"EDGED_CONFIG_DIR"})
#: How editors, dpkg and people end the names of what they put aside.
_BACKUPS = ("~", ".bak", ".orig", ".old", ".swp", ".save", ".tmp", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-bak")
_POLICY = "policy"


class _Draft(msgspec.Struct):
    """What has been read so far, and where each thing stands."""

    values: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    cameras: list[tuple[dict[str, Any], Place]] = msgspec.field(default_factory=list)
    places: dict[tuple[str, str], Place] = msgspec.field(default_factory=dict)


def load(
    directory: Path = DIRECTORY, environ: Mapping[str, str] | None = None, credentials_directory: Path | None = None
) -> Config:
    """All settings. A folder that does not exist holds none. Raises ConfigError, from OSError if it is not to be read.

    `environ` defaults to the process's own; `credentials_directory` is systemd's (systemd.credentials_directory).
    """
    draft = _Draft()
    for path in _entries(directory):
        if not _why_unread(path):
            _read_file(draft, path)
    _read_environment(draft, os.environ if environ is None else environ)
    _find_credentials(draft, credentials_directory)
    sections: dict[str, Any] = {name: _build(draft, name, kind) for name, kind in SECTIONS.items() if name != "camera"}
    check_issuers(sections["auth"], draft.places)
    check_addresses(sections["listen"], sections["mediamtx"], draft.places)
    check_demo(sections["auth"], sections["listen"], draft.places)
    cameras, places = _build_cameras(draft), tuple(str(place) for _, place in draft.cameras)
    return Config(**sections, camera=cameras, camera_places=places)


def find_unread(directory: Path = DIRECTORY) -> dict[Path, str]:
    """What lies in the folder and is not read, with the reason. Raises ConfigError if the folder cannot be read."""
    found = ((path, _why_unread(path)) for path in _entries(directory))
    return {path: why for path, why in found if why}


def _why_unread(path: Path) -> str:
    """Why a file of the folder holds no settings; "" for one that does."""
    name = path.name
    if any(name.endswith(end) for end in (*_BACKUPS, "#")) or (name.startswith(".") and ".toml" in name):
        return "a backup copy or lock file of an editor"
    if name.startswith("."):
        return "its name begins with a dot"
    if path.is_dir():
        return "a folder"
    if path.exists() and not path.is_file():
        # To read a pipe waits for whoever writes into it, for ever; some devices never end.
        return "a pipe, a socket or a device"
    return "" if path.suffix == ".toml" else "its name does not end in .toml"


def _entries(directory: Path) -> list[Path]:
    """glob() would take a folder that may not be read for an empty one."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        raise error_at(
            Place(str(directory)), f"cannot be read ({problem.strerror})", "run this as root or as the user edged"
        ) from problem


def _read_file(draft: _Draft, path: Path) -> None:
    try:
        # With or without a byte order mark, which editors of other systems write.
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except OSError as problem:
        raise error_at(
            Place(str(path)), f"cannot be read ({problem.strerror})", "make it readable for the user that edged runs as"
        ) from problem
    except UnicodeDecodeError:
        raise error_at(Place(str(path)), "is not UTF-8 text", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as problem:
        # The message holds "(at line 3, column 7)" and no value.
        raise error_at(Place(str(path)), f"is not TOML: {problem}", "see https://toml.io") from None
    for name, content in document.items():
        if name == "camera" and isinstance(content, list):
            for index, entry in enumerate(content):
                place = Place(str(path), find_line(text, "camera", index=index))
                draft.cameras.append((read_table(entry, "camera", place), place))
                for key in entry:
                    place_of_key = Place(str(path), find_line(text, "camera", key, index))
                    _check_key("camera", key, place_of_key)
            continue
        place = Place(str(path), find_line(text, name))
        if name not in SECTIONS:
            raise unknown_at(place, name, SECTIONS, "section")
        if name == "camera":
            raise error_at(place, "camera must be an array", "write [[camera]]", key="camera")
        for key, value in read_table(content, name, place).items():
            at = Place(str(path), find_line(text, name, key))
            if (name, key) == ("listen", _POLICY):
                _read_policies(draft, value, path, text, at)
            else:
                _put(draft, name, key, value, at)


def _read_policies(draft: _Draft, content: Any, path: Path, text: str, place: Place) -> None:
    """[listen.policy.NAME]: each is a section of its own, so that later files win key by key."""
    for name, table in read_table(content, f"listen.{_POLICY}", place).items():
        section = f"listen.{_POLICY}.{name}"
        at = Place(str(path), find_line(text, section))
        if section not in POLICIES:
            raise unknown_at(at, name, LISTENERS, "listener", f"listen.{_POLICY}.")
        for key, value in read_table(table, section, at).items():
            _put(draft, section, key, value, Place(str(path), find_line(text, section, key)))


def _read_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    for variable in sorted(name for name in environ if name.startswith("EDGED_") and name not in NOT_SETTINGS):
        name, _, key = variable.removeprefix("EDGED_").lower().partition("_")
        place = Place(f"environment variable {variable}")
        if name == "camera":
            raise error_at(
                place, "cameras cannot be set in the environment", f"write [[camera]] into a file in {DIRECTORY}"
            )
        if name not in SECTIONS:
            from difflib import get_close_matches

            # Other programs may have variables of this prefix; a section with a typing error is no such thing.
            if get_close_matches(name, SECTIONS, cutoff=0.75):
                raise unknown_at(place, name, SECTIONS, "section")
            continue
        if name == "listen" and key.partition("_")[0] == _POLICY:
            listener, _, key = key.removeprefix(_POLICY).removeprefix("_").partition("_")
            if listener not in LISTENERS:
                raise unknown_at(place, listener, LISTENERS, "listener", f"listen.{_POLICY}.")
            name = f"listen.{_POLICY}.{listener}"
        setting = _check_key(name, key, place)
        _put(draft, name, key, read_text(setting, environ[variable], f"{name}.{key}", place), place)


def _find_credentials(draft: _Draft, folder: Path | None) -> None:
    secrets = draft.values.setdefault("auth", {}).setdefault("shared_secrets", {})
    for path in sorted(folder.glob(f"{CREDENTIAL_SECRETS}*")) if folder else ():
        name = path.name.removeprefix(CREDENTIAL_SECRETS)
        secrets.setdefault(name, f"{CREDENTIAL}{path.name.removeprefix('edged.')}")


def _put(draft: _Draft, section: str, key: str, value: Any, place: Place) -> None:
    setting = _check_key(section, key, place)
    if section.startswith("listen") and isinstance(setting.default, tuple) and isinstance(value, str):
        # A list of addresses, paths or networks: one may stand alone.
        value = [] if value == OFF else [value]
    if isinstance(value, dict):
        value = draft.values.get(section, {}).get(key, {}) | value
    draft.values.setdefault(section, {})[key] = value
    draft.places[section, key] = place


def _build(draft: _Draft, name: str, kind: type[Section]) -> Section:
    settings = settings_of(kind)
    values = {}
    for key, value in draft.values.get(name, {}).items():
        place = draft.places.get((name, key), Place("systemd credentials"))
        read = convert_issuers if (name, key) == ("auth", "issuers") else convert
        values[key] = read(value, settings[key], f"{name}.{key}", place)
    if name == "listen":
        policies: dict[str, Any] = {
            listener: _build(draft, f"listen.{_POLICY}.{listener}", ListenerPolicy) for listener in LISTENERS
        }
        values[_POLICY] = ListenPolicies(**policies)
    try:
        return kind(**values)
    except ValueError as problem:
        key = _guilty(kind, values)
        raise error_at(draft.places[name, key], f"[{name}]: {problem}", SHOW, key=f"{name}.{key}") from None


def _guilty(kind: type[Section], values: Mapping[str, Any]) -> str:
    """The one value that the section refuses by itself."""
    for key, value in values.items():
        try:
            kind(**{key: value})
        except ValueError:
            return key
    raise AssertionError("a section refuses single values only")


def _build_cameras(draft: _Draft) -> tuple[CameraSettings, ...]:
    settings = settings_of(CameraSettings)
    cameras: dict[str, CameraSettings] = {}
    for entry, place in draft.cameras:
        values = {key: convert(value, settings[key], f"camera.{key}", place) for key, value in entry.items()}
        for key in ("name", "source"):
            if key not in values:
                raise error_at(place, f"this camera has no {key}", settings[key].help, key=f"camera.{key}")
        try:
            camera = CameraSettings(**values)
        except ValueError as problem:
            raise error_at(place, f"camera: {problem}", SHOW, key="camera") from None
        if camera.name in cameras:
            raise error_at(place, f"two cameras are named {camera.name!r}", "names must be unique", key="camera.name")
        for other in cameras.values():
            check_apart(camera, other, place)
        cameras[camera.name] = camera
        check_pre_rolls(cameras.values(), place)
    return tuple(cameras.values())


def _check_key(section: str, key: str, place: Place) -> Setting:
    settings = settings_of(SECTIONS.get(section) or POLICIES[section])
    if key not in settings:
        raise unknown_at(place, key, settings, "setting", f"{section}.")
    return settings[key]
