"""conf.d/*.toml, then the environment, then systemd's credentials → Config.

Later files win over earlier ones, key by key; [[camera]] entries add up. Every error names the file
and line (or the variable), the key, the nearest key that exists and what to do.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from edged.config.model import (
    ADDRESSES,
    LISTENERS,
    OFF,
    POLICIES,
    SECTIONS,
    UDP_ADDRESSES,
    AuthSettings,
    CameraSettings,
    Config,
    IssuerSettings,
    ListenerPolicy,
    ListenPolicies,
    ListenSettings,
    MediaMTXSettings,
    Section,
    Setting,
    is_loopback,
    overlap,
    parse_address,
    settings_of,
)
from edged.errors import ConfigError

DIRECTORY = Path("/etc/edged/conf.d")
#: Read by the command line, or by programs around edged; never settings.
NOT_SETTINGS = frozenset({"EDGED_CONFIG_DIR"})
_CREDENTIAL = "credential:"
_CREDENTIAL_SECRETS = "edged.shared_secret."
_WRAPPING_KEY = "edged.wrapping_key"
_ISSUER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
#: Each has its series among the metrics.
_MOST_ISSUERS = 8
_LARGEST_SECRET = 64 * 1024
#: How editors, dpkg and people end the names of what they put aside.
_BACKUPS = ("~", ".bak", ".orig", ".old", ".swp", ".save", ".tmp", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-bak")
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KEY = r"""(?:[\w-]+|"[^"\]]*"|'[^'\]]*')"""
_HEADER = re.compile(rf"\s*\[(?P<array>\[?)\s*(?P<path>{_KEY}(?:\s*\.\s*{_KEY})*)\s*\]")
_ASSIGNMENT = re.compile(rf"\s*(?P<path>{_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_PART = re.compile(_KEY)
_POLICY = "policy"
_SHOW = "edged config show lists every setting"


class Place(NamedTuple):
    """Where a value was written: a file with a line (0: unknown), or a variable."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source} line {self.line}" if self.line else self.source


@dataclass
class _Draft:
    """What has been read so far, and where each thing stands."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    cameras: list[tuple[dict[str, Any], Place]] = field(default_factory=list)
    places: dict[tuple[str, str], Place] = field(default_factory=dict)


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
    _check_issuers(sections["auth"], draft)
    _check_addresses(sections["listen"], sections["mediamtx"], draft)
    _check_demo(sections["auth"], sections["listen"], draft)
    cameras, places = _build_cameras(draft), tuple(str(place) for _, place in draft.cameras)
    return Config(**sections, camera=cameras, camera_places=places)


def load_shared_secrets(config: Config, credentials_directory: Path | None = None) -> dict[str, str]:
    """The texts of auth.shared_secrets by name, as they stand in their files. Raises ConfigError.

    A file that others may read is refused; a systemd credential is guarded by systemd.
    """
    return {
        name: _read_secret(name, source, credentials_directory) for name, source in config.auth.shared_secrets.items()
    }


def load_wrapping_key(credentials_directory: Path | None = None) -> str | None:
    """The text of the systemd credential that private keys are wrapped by, None without. Raises ConfigError.

    It is no setting: where it is handed over, it is used.
    """
    path = credentials_directory / _WRAPPING_KEY if credentials_directory else None
    return _read_text(f"credential {_WRAPPING_KEY}", path) if path is not None and path.is_file() else None


def find_unread(directory: Path = DIRECTORY) -> dict[Path, str]:
    """What lies in the folder and is not read, with the reason. Raises ConfigError if the folder cannot be read."""
    found = ((path, _why_unread(path)) for path in _entries(directory))
    return {path: why for path, why in found if why}


def _why_unread(path: Path) -> str:
    """Why a file of the folder holds no settings; "" for one that does."""
    name = path.name
    if any(name.endswith(end) for end in (*_BACKUPS, "#")) or (name.startswith(".") and ".toml" in name):
        return "a copy or lock that an editor or a file manager made"
    if name.startswith("."):
        return "its name begins with a dot"
    if path.is_dir():
        return "a folder"
    return "" if path.suffix == ".toml" else "its name does not end in .toml"


def _entries(directory: Path) -> list[Path]:
    """glob() would take a folder that may not be read for an empty one."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        raise _error(
            Place(str(directory)), f"cannot be read ({problem.strerror})", "ask as root, or as the user edged"
        ) from problem


def _read_file(draft: _Draft, path: Path) -> None:
    try:
        # With or without a byte order mark, which editors of other systems write.
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except OSError as problem:
        raise _error(
            Place(str(path)), f"cannot be read ({problem.strerror})", "make it readable for edged"
        ) from problem
    except UnicodeDecodeError:
        raise _error(Place(str(path)), "is not UTF-8 text", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as problem:
        # The message holds "(at line 3, column 7)" and no value.
        raise _error(Place(str(path)), f"is not TOML: {problem}", "see https://toml.io") from None
    for name, content in document.items():
        if name == "camera" and isinstance(content, list):
            for index, entry in enumerate(content):
                place = Place(str(path), find_line(text, "camera", index=index))
                draft.cameras.append((_table(entry, "camera", place), place))
                for key in entry:
                    place_of_key = Place(str(path), find_line(text, "camera", key, index))
                    _check_key("camera", key, place_of_key)
            continue
        place = Place(str(path), find_line(text, name))
        if name not in SECTIONS:
            raise _unknown(place, name, SECTIONS, "section")
        if name == "camera":
            raise _error(place, "camera is an array", "write [[camera]]", key="camera")
        for key, value in _table(content, name, place).items():
            at = Place(str(path), find_line(text, name, key))
            if (name, key) == ("listen", _POLICY):
                _read_policies(draft, value, path, text, at)
            else:
                _put(draft, name, key, value, at)


def _read_policies(draft: _Draft, content: Any, path: Path, text: str, place: Place) -> None:
    """[listen.policy.NAME]: each is a section of its own, so that later files win key by key."""
    for name, table in _table(content, f"listen.{_POLICY}", place).items():
        section = f"listen.{_POLICY}.{name}"
        at = Place(str(path), find_line(text, section))
        if section not in POLICIES:
            raise _unknown(at, name, LISTENERS, "listener", f"listen.{_POLICY}.")
        for key, value in _table(table, section, at).items():
            _put(draft, section, key, value, Place(str(path), find_line(text, section, key)))


def _read_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    for variable in sorted(name for name in environ if name.startswith("EDGED_") and name not in NOT_SETTINGS):
        name, _, key = variable.removeprefix("EDGED_").lower().partition("_")
        place = Place(f"environment variable {variable}")
        if name == "camera":
            raise _error(
                place, "cameras are not set in the environment", f"write [[camera]] into a file in {DIRECTORY}"
            )
        if name not in SECTIONS:
            # Other programs may have variables of this prefix; a section with a typing error is no such thing.
            if get_close_matches(name, SECTIONS, cutoff=0.75):
                raise _unknown(place, name, SECTIONS, "section")
            continue
        if name == "listen" and key.partition("_")[0] == _POLICY:
            listener, _, key = key.removeprefix(_POLICY).removeprefix("_").partition("_")
            if listener not in LISTENERS:
                raise _unknown(place, listener, LISTENERS, "listener", f"listen.{_POLICY}.")
            name = f"listen.{_POLICY}.{listener}"
        setting = _check_key(name, key, place)
        _put(draft, name, key, _from_text(setting, environ[variable], f"{name}.{key}", place), place)


def _find_credentials(draft: _Draft, folder: Path | None) -> None:
    secrets = draft.values.setdefault("auth", {}).setdefault("shared_secrets", {})
    for path in sorted(folder.glob(f"{_CREDENTIAL_SECRETS}*")) if folder else ():
        name = path.name.removeprefix(_CREDENTIAL_SECRETS)
        secrets.setdefault(name, f"{_CREDENTIAL}{path.name.removeprefix('edged.')}")


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
        convert = _convert_issuers if (name, key) == ("auth", "issuers") else _convert
        values[key] = convert(value, settings[key], f"{name}.{key}", place)
    if name == "listen":
        policies: dict[str, Any] = {
            listener: _build(draft, f"listen.{_POLICY}.{listener}", ListenerPolicy) for listener in LISTENERS
        }
        values[_POLICY] = ListenPolicies(**policies)
    try:
        return kind(**values)
    except ValueError as problem:
        key = _guilty(kind, values)
        raise _error(draft.places[name, key], f"[{name}]: {problem}", _SHOW, key=f"{name}.{key}") from None


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
        values = {key: _convert(value, settings[key], f"camera.{key}", place) for key, value in entry.items()}
        for key in ("name", "source"):
            if key not in values:
                raise _error(place, f"this camera has no {key}", settings[key].help, key=f"camera.{key}")
        try:
            camera = CameraSettings(**values)
        except ValueError as problem:
            raise _error(place, f"camera: {problem}", _SHOW, key="camera") from None
        if camera.name in cameras:
            raise _error(place, f"two cameras are named {camera.name!r}", "give one another name", key="camera.name")
        for other in cameras.values():
            _check_apart(camera, other, place)
        cameras[camera.name] = camera
    return tuple(cameras.values())


def _check_apart(camera: CameraSettings, other: CameraSettings, place: Place) -> None:
    """Raises ConfigError for two cameras of one path, or of one id."""
    for key in ("path", "id"):
        if (value := getattr(camera, key)) and value == getattr(other, key):
            raise _error(
                place, f"cameras {other.name!r} and {camera.name!r} have the same {key}, {value}",
                "give one of them another", key=f"camera.{key}",
            )  # fmt: skip


def _convert_issuers(value: Any, _setting: Setting, key: str, place: Place) -> dict[str, IssuerSettings]:
    """Each issuer's table, so that an error names the issuer and its key."""
    settings = settings_of(IssuerSettings)
    found: dict[str, IssuerSettings] = {}
    for name, entry in _table(value, key, place).items():
        at = f"{key}.{name}"
        if not _ISSUER_NAME.match(name):
            raise _error(place, f"{at} is not a name", "use up to 32 of a-z, 0-9, - and _", key=at)
        for word in _table(entry, at, place):
            if word not in settings:
                raise _unknown(place, word, settings, "setting", f"{at}.")
        if "issuer" not in entry:
            raise _error(place, f"{at} has no issuer", settings["issuer"].help, key=f"{at}.issuer")
        values = {word: _convert(item, settings[word], f"{at}.{word}", place) for word, item in entry.items()}
        try:
            found[name] = IssuerSettings(**values)
        except ValueError as problem:
            raise _error(place, f"{at}: {problem}", _SHOW, key=at) from None
    return found


def _check_issuers(auth: AuthSettings, draft: _Draft) -> None:
    """No two are the same, and none is whom shared secrets or our own keys speak for. Raises ConfigError."""
    place = draft.places.get(("auth", "issuers"), Place("auth.issuers"))
    taken = dict.fromkeys((auth.issuer, *auth.shared_issuers), "this box or a shared secret")
    for name, issuer in auth.issuers.items():
        if other := taken.get(issuer.issuer):
            raise _error(
                place, f"auth.issuers.{name}: {other} speaks for {issuer.issuer!r} already",
                "give each its own iss: see auth.issuer and auth.shared_issuers", key=f"auth.issuers.{name}.issuer",
            )  # fmt: skip
        taken[issuer.issuer] = f"auth.issuers.{name}"
    if len(auth.issuers) > _MOST_ISSUERS:
        raise _error(place, f"there are {len(auth.issuers)} issuers", f"{_MOST_ISSUERS} at most", key="auth.issuers")


def _check_demo(auth: AuthSettings, listen: ListenSettings, draft: _Draft) -> None:
    """A password that everybody knows is for a box that nobody else can reach. Raises ConfigError."""
    if not auth.demo_login:
        return
    for key in LISTENERS:
        for address in getattr(listen, key):
            host = parse_address(address)[0]
            if not is_loopback(host):
                raise _error(
                    draft.places.get(("auth", "demo_login"), Place("auth.demo_login")),
                    f"auth.demo_login: listen.{key} = {address!r} can be reached from elsewhere",
                    "leave it out: edged demo sets it for a box on loopback", key="auth.demo_login",
                )  # fmt: skip


def _check_addresses(listen: ListenSettings, mediamtx: MediaMTXSettings, draft: _Draft) -> None:
    """No two settings name the same address and port. Raises ConfigError with both keys."""
    wanted = [("listen", key, address) for key in LISTENERS for address in getattr(listen, key)]
    if mediamtx.enabled:
        wanted += [("mediamtx", key, getattr(mediamtx, key)) for key in ADDRESSES]
    for number, (section, key, address) in enumerate(wanted):
        for other_section, other_key, other in wanted[:number]:
            if {key, other_key} & UDP_ADDRESSES and not {key, other_key} <= UDP_ADDRESSES:
                continue
            if OFF not in (address, other) and overlap(address, other):
                name, other_name = f"{section}.{key}", f"{other_section}.{other_key}"
                place = next(
                    (found for at in ((section, key), (other_section, other_key)) if (found := draft.places.get(at))),
                    Place(name),
                )
                raise _error(
                    place, f"{name} = {address!r} and {other_name} = {other!r} are the same address",
                    'give each a port of its own, or set one of them to "off"', key=name, other=other_name,
                )  # fmt: skip


def _convert(value: Any, setting: Setting, key: str, place: Place) -> Any:
    try:
        return msgspec.convert(value, setting.annotation, dec_hook=_decode_path)
    except msgspec.ValidationError as problem:
        # The message names types and limits, never the value: a source may hold a password.
        text = re.sub(r" - at .*", "", str(problem)).replace("`", "")
        if text.startswith("Invalid enum value"):
            text = f"must be one of {', '.join(_list_words(setting.annotation))}"
        raise _error(place, f"{key}: {text[:1].lower()}{text[1:]}", f"{key}: {setting.help}", key=key) from None


def _list_words(kind: Any) -> Iterator[str]:
    """The words that a setting takes: those of every Literal in its annotation."""
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
        return
    for part in get_args(kind):
        yield from _list_words(part)


def _decode_path(kind: type, value: Any) -> Any:
    assert kind is Path, "Path is the only type that msgspec does not know itself"
    if not isinstance(value, str):
        raise ValueError(f"Expected str, got {type(value).__name__}")
    path = Path(value)
    if value and not path.is_absolute():
        raise ValueError("Expected an absolute path")
    return path


def _from_text(setting: Setting, text: str, key: str, place: Place) -> Any:
    """The text of a variable → what TOML would have given."""
    default = setting.default
    try:
        if isinstance(default, bool):
            return _WORDS[text.strip().lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (ValueError, KeyError):
        wanted = "true or false" if isinstance(default, bool) else "a number"
        raise _error(place, f"{key}: expected {wanted}", f"{key}: {setting.help}", key=key) from None
    if isinstance(default, tuple):
        return [] if text.strip() == OFF else [item.strip() for item in text.split(",") if item.strip()]
    if isinstance(default, dict):
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        return {name.strip(): value.strip() for name, _, value in pairs}
    return text


def _check_key(section: str, key: str, place: Place) -> Setting:
    settings = settings_of(SECTIONS.get(section) or POLICIES[section])
    if key not in settings:
        raise _unknown(place, key, settings, "setting", f"{section}.")
    return settings[key]


def _table(content: Any, name: str, place: Place) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _error(place, f"{name} is a section", f"write [{name}] and its keys below", key=name)
    return content


def _unknown(place: Place, word: str, known: Iterable[str], what: str, prefix: str = "") -> ConfigError:
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}? {_SHOW}" if near else _SHOW
    return _error(
        place, f"{prefix}{word} is not a {what}", hint, key=f"{prefix}{word}", nearest=near[0] if near else ""
    )


def _error(place: Place, sentence: str, hint: str, **fields: object) -> ConfigError:
    return ConfigError(f"{place}: {sentence}", hint=hint, file=place.source, line=place.line, **fields)


def find_line(text: str, section: str, key: str = "", index: int = 0) -> int:
    """The line (from 1) where a section or a key of it stands in TOML text; 0 if it cannot be told.

    tomllib keeps no positions. A key inside an inline table has the line of that table; `index` counts [[section]].
    """
    wanted = [*section.split("."), *([key] if key else [])]
    at, agreed, seen = 0, 0, -1
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            found = table = _parts(match["path"])
            seen += table == [section] and bool(match["array"])
        elif match := _ASSIGNMENT.match(line):
            found = table + _parts(match["path"])
        else:
            continue
        length = next((i for i, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other),
                      min(len(wanted), len(found)))  # fmt: skip
        # The first of the lines that say the most of it.
        if length > agreed and seen in (-1, index):
            at, agreed = number, length
    return at


def _parts(path: str) -> list[str]:
    """A dotted key of TOML → its parts without quotes."""
    return [part.strip("\"'") for part in _PART.findall(path)]


def _read_secret(name: str, source: str, credentials: Path | None) -> str:
    what = f"shared secret {name!r}"
    if source.startswith(_CREDENTIAL):
        wanted = f"edged.{source.removeprefix(_CREDENTIAL)}"
        if credentials is None or "/" in wanted or not (credentials / wanted).is_file():
            raise ConfigError(
                f"{what} names the systemd credential {wanted}, which was not given",
                hint=f"LoadCredential={wanted}:FILE in the unit hands it over",
                key=f"auth.shared_secrets.{name}",
            )
        return _read_text(what, credentials / wanted)
    path = Path(source)
    if not path.is_absolute():
        raise ConfigError(
            f"{what} is not an absolute path", hint="it names the file that holds the secret, not the secret itself",
            key=f"auth.shared_secrets.{name}",
        )  # fmt: skip
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        make_it = f"make it: (umask 077; openssl rand -base64 32 > {path})"
        is_missing = isinstance(problem, FileNotFoundError)
        raise ConfigError(
            f"{what}: {path}: {problem.strerror}",
            hint=make_it if is_missing else "let the user that runs edged own it, and enter its folder",
            file=str(path),
        ) from None
    if mode & 0o077:
        raise ConfigError(
            f"{what}: {path} may be read by others (mode {mode & 0o777:04o})",
            hint=f"chmod 600 {path}",
            file=str(path),
        )
    return _read_text(what, path)


def _read_text(what: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_SECRET + 1)
        text = data.decode("utf-8")
    except OSError as problem:
        raise ConfigError(
            f"{what}: {path}: {problem.strerror}", hint="let the user that runs edged own it", file=str(path)
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: {path} is not UTF-8 text", hint="openssl rand -base64 32 makes one") from None
    if not text.strip() or len(data) > _LARGEST_SECRET:
        raise ConfigError(f"{what}: {path} is empty or too large", hint="openssl rand -base64 32 makes one")
    return text
