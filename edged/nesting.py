"""How deep JSON text is nested and how much is in it, in one linear pass, before a decoder makes objects of it.

Everything here runs in bytes methods, a few nanoseconds a byte, whatever the text: an unclosed string or a run of
backslashes costs no more than any other text of its length.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

_ALL: Final = frozenset(range(256))
_NO_BRACKETS: Final = bytes(_ALL - set(b'[]{}"'))
_NO_COMMAS: Final = bytes(_ALL - set(b',"'))
#: As signed bytes: +1 for what opens, -1 for what closes.
_STEPS: Final = bytes({0x5B: 1, 0x7B: 1, 0x5D: 0xFF, 0x7D: 0xFF}.get(byte, 0) for byte in range(256))


def depth_of(text: bytes, most: int) -> int | None:
    """How many arrays and objects lie in one another at the deepest place of a JSON text; None for too many of them.

    An unclosed string reaches to the end. `most` bounds the brackets that are looked at one by one, and the quotes of
    strings that hold brackets.
    """
    text = _reduce(text, _NO_BRACKETS)
    if text.count(b'"') > most:
        return None
    text = _outside(text)
    return None if len(text) > most else max(accumulate(memoryview(text.translate(_STEPS)).cast("b"), initial=0))


def commas_of(text: bytes) -> int:
    """How many commas stand outside of the strings of a JSON text: one less than the members of its only array."""
    return len(_outside(_reduce(text, _NO_COMMAS)))


def _reduce(text: bytes, deleted: bytes) -> bytes:
    """The text without these bytes, and without escapes; the quotes in it still begin and end its strings."""
    if b"\\" in text:
        # Both replacements go from left to right, as a parser reads: an escaped backslash escapes nothing.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes side by side change nothing for what stands elsewhere; without them there is at most one between marks.
    return text.translate(None, deleted).replace(b'""', b"")


def _outside(text: bytes) -> bytes:
    return b"".join(text.split(b'"')[::2]) if b'"' in text else text
