"""A value of TOML, or the text of a variable, becomes what its setting is declared to be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from edged.config.addresses import OFF
from edged.config.authentication import IssuerSettings
from edged.config.places import SHOW, Place, error_at, read_table, unknown_at
from edged.config.sections import Setting, settings_of

_ISSUER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def convert(value: Any, setting: Setting, key: str, place: Place) -> Any:
    try:
        return msgspec.convert(value, setting.annotation, dec_hook=_decode_path)
    except msgspec.ValidationError as problem:
        # The message names types and limits, never the value: a source may hold a password.
        text = re.sub(r" - at .*", "", str(problem)).replace("`", "")
        if text.startswith("Invalid enum value"):
            text = f"must be one of {', '.join(_list_words(setting.annotation))}"
        raise error_at(place, f"{key}: {text[:1].lower()}{text[1:]}", f"{key}: {setting.help}", key=key) from None


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


def read_text(setting: Setting, text: str, key: str, place: Place) -> Any:
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
        raise error_at(place, f"{key}: expected {wanted}", f"{key}: {setting.help}", key=key) from None
    if isinstance(default, tuple):
        return [] if text.strip() == OFF else [item.strip() for item in text.split(",") if item.strip()]
    if isinstance(default, dict):
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        return {name.strip(): value.strip() for name, _, value in pairs}
    return text


def convert_issuers(value: Any, _setting: Setting, key: str, place: Place) -> dict[str, IssuerSettings]:
    """Each issuer's table, so that an error names the issuer and its key."""
    settings = settings_of(IssuerSettings)
    found: dict[str, IssuerSettings] = {}
    for name, entry in read_table(value, key, place).items():
        at = f"{key}.{name}"
        if not _ISSUER_NAME.match(name):
            raise error_at(place, f"{at} is not a valid name", "use up to 32 characters of a-z, 0-9, - and _", key=at)
        for word in read_table(entry, at, place):
            if word not in settings:
                raise unknown_at(place, word, settings, "setting", f"{at}.")
        if "issuer" not in entry:
            raise error_at(place, f"{at} has no issuer", settings["issuer"].help, key=f"{at}.issuer")
        values = {word: convert(item, settings[word], f"{at}.{word}", place) for word, item in entry.items()}
        try:
            found[name] = IssuerSettings(**values)
        except ValueError as problem:
            raise error_at(place, f"{at}: {problem}", SHOW, key=at) from None
    return found
