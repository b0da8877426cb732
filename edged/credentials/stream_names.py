"""How rights name streams: by the path's name, by how it begins (`cam*`), or all of them (`*`) (contract 7.5, C-32).

MediaMTX reads a token's list otherwise: a path is a name, `""` is all, and `~` begins a regular expression that is
anchored nowhere. A beginning is written for it as an anchored one of one shape, and that shape alone is read back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

ALL: Final = "*"
#: What MediaMTX takes for the name of a path.
_CHARACTERS: Final = r"[0-9A-Za-z_\-/.]*"
_NAME: Final = re.compile(_CHARACTERS + r"\Z")
_SHAPE: Final = re.compile(r"~\^(?P<begins>(?:[0-9A-Za-z_\-/]|\\\.)+)" + re.escape(_CHARACTERS) + r"\$\Z")


def is_name(text: str) -> bool:
    """Whether a path of MediaMTX can have this name."""
    return text != "" and _NAME.match(text) is not None


def is_grant(text: str) -> bool:
    """Whether rights may name streams so: one of them, those that begin so, or all."""
    return text == ALL or is_name(text) or beginning_of(text) != ""


def beginning_of(text: str) -> str:
    """`cam*` → `cam`; "" for everything else, `*` and the name of one path among it."""
    begins = text[:-1]
    return begins if text.endswith(ALL) and is_name(begins) else ""


@lru_cache(maxsize=256)
def beginnings(named: frozenset[str]) -> tuple[str, ...]:
    """Those of these rights that name streams by how they begin; rights are asked far more often than made."""
    return tuple(sorted({begins for begins in map(beginning_of, named) if begins}))


def reaches(named: frozenset[str], names: Iterable[str]) -> bool:
    """Whether a stream that has one of `names` is within these rights."""
    if ALL in named or not named.isdisjoint(names):
        return True
    begins = beginnings(named)
    return bool(begins) and any(name.startswith(begins) and is_name(name) for name in names)


def covers(named: frozenset[str], wanted: str) -> bool:
    """Whether everything that `wanted` names, which may be a beginning or all, is within these rights."""
    if ALL in named or wanted in named:
        return True
    begins = beginnings(named)
    asked = beginning_of(wanted) or wanted
    return bool(begins) and asked.startswith(begins) and is_name(asked)


def common(named: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    """What is within both: of two beginnings that meet, one begins with the other."""
    both = {each for each in named if covers(others, each)} | {each for each in others if covers(named, each)}
    return frozenset({ALL}) if ALL in both else frozenset(both)


def without_beginnings(names: Iterable[str]) -> frozenset[str]:
    """Names of something else, as of cameras, which stand for nothing but themselves."""
    return frozenset(name for name in names if not beginning_of(name))


def to_mediamtx(text: str) -> str:
    """As the `path` of an entry in the list that MediaMTX reads."""
    if text == ALL:
        return ""
    # Of the characters of a name only the dot means something else there.
    begins = beginning_of(text).replace(".", r"\.")
    return f"~^{begins}{_CHARACTERS}$" if begins else text


def from_mediamtx(path: str) -> str:
    """The `path` of an entry in a list → as rights name it; "" for what is no grant here: every other expression,
    and `""`, which an empty variable would write. `*` is all; beside it a `*` is a character that no path has."""
    if path.startswith("~"):
        match = _SHAPE.match(path)
        return match["begins"].replace("\\", "") + ALL if match else ""
    return "" if beginning_of(path) else path


def from_map(path: str) -> str:
    """The same of an entry in a map: it says a beginning as `cam*`, and no expression."""
    return "" if path.startswith("~") else path
