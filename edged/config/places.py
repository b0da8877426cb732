"""Where a setting was written, and errors that say so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from edged.errors import ConfigError

_KEY = r"""(?:[\w-]+|"[^"\]]*"|'[^'\]]*')"""
_HEADER = re.compile(rf"\s*\[(?P<array>\[?)\s*(?P<path>{_KEY}(?:\s*\.\s*{_KEY})*)\s*\]")
_ASSIGNMENT = re.compile(rf"\s*(?P<path>{_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_PART = re.compile(_KEY)
#: The remedy where a key or a section is not known.
SHOW = "edged config show lists every setting"


class Place(NamedTuple):
    """Where a value was written: a file with a line (0: unknown), or a variable."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source} line {self.line}" if self.line else self.source


def error_at(place: Place, sentence: str, hint: str, **fields: object) -> ConfigError:
    return ConfigError(f"{place}: {sentence}", hint=hint, file=place.source, line=place.line, **fields)


def unknown_at(place: Place, word: str, known: Iterable[str], what: str, prefix: str = "") -> ConfigError:
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}? {SHOW}" if near else SHOW
    return error_at(
        place, f"{prefix}{word} is not a {what}", hint, key=f"{prefix}{word}", nearest=near[0] if near else ""
    )


def read_table(content: Any, name: str, place: Place) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise error_at(place, f"{name} is a section", f"write [{name}] and its keys below", key=name)
    return content


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
