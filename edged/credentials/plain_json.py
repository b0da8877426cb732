"""JSON text that everybody reads alike: what a token or a key set is made of.

msgspec and the standard library take the last of two equal members, endless numbers and half characters; another
verifier takes the first, or none. What two readers could take for two things is refused here.
"""

from __future__ import annotations

import json
from typing import Final

from edged.nesting import depth_of

#: How deep objects and lists may lie in each other.
DEEPEST: Final = 16
#: Brackets of objects and lists: sixty times what real key sets and tokens hold.
MOST_BRACKETS: Final = 8192


class NotPlain(ValueError):
    """This is not JSON that everybody reads alike; the text says why."""


def read_object(data: bytes, what: str) -> dict[str, object]:
    """UTF-8 JSON text of one object, read in the one way in which everybody reads it. Raises NotPlain.

    `what` begins the text of the error.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NotPlain(f"{what} is not UTF-8") from None
    # Counted generously first; strings may hold brackets, so that only the second look is exact.
    if data.count(b"{") + data.count(b"[") > DEEPEST:
        depth = depth_of(data, MOST_BRACKETS)
        if depth is None:
            raise NotPlain(f"{what} has too many objects and lists")
        if depth > DEEPEST:
            raise NotPlain(f"{what} is nested deeper than {DEEPEST}")
    try:
        value = _READER.decode(text)
        if "\\u" in text:
            # Half a surrogate pair is a character that no log, list or other verifier can take.
            json.dumps(value, ensure_ascii=False).encode()
    except NotPlain as problem:
        raise NotPlain(f"{what}: {problem}") from None
    except ValueError:
        raise NotPlain(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise NotPlain(f"{what} is not a JSON object")
    return value


def _take_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotPlain("a member stands twice")
    return found


def _take_constant(name: str) -> float:
    raise NotPlain(f"{name} is no JSON")


def _take_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise NotPlain("a number is out of range")
    return value


_READER: Final = json.JSONDecoder(
    object_pairs_hook=_take_pairs, parse_constant=_take_constant, parse_float=_take_float, strict=True
)
