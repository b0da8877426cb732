"""How deep JSON text is nested and how much is in it, in one linear pass, before a decoder makes objects of it.

Everything here runs in bytes methods, a few nanoseconds a byte, whatever the text: an unclosed string or a run of
backslashes costs no more than any other text of its length. Those of a mebibyte would hold the event loop for more
than 10 ms all the same, so that a long text is looked at in steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import accumulate
from typing import Final, TypeAlias, TypeVar, cast

T = TypeVar("T")
#: Work in steps: each `next` is one, between two of them others may run, and the last returns the result.
Steps: TypeAlias = Generator[None, None, T]

#: Bytes of a text that are looked at in one step: about a millisecond of work, whatever they are.
PIECE: Final = 65536

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
    if len(text) > PIECE:
        return finish(depth_in_steps(text, most))
    reduced = _reduce(text, _NO_BRACKETS)
    if reduced.count(b'"') > most:
        return None
    outside = b"".join(reduced.split(b'"')[::2])
    return None if len(outside) > most else _deepest(outside, 0)


def depth_in_steps(text: bytes, most: int) -> Steps[int | None]:
    """`depth_of`, in steps of PIECE bytes."""
    strings = _Strings(_NO_BRACKETS)
    depth = deepest = brackets = 0
    for piece in _pieces(text):
        outside = strings.skip(piece)
        brackets += len(outside)
        if brackets > most or strings.quotes > most:
            return None
        deepest = max(deepest, _deepest(outside, depth))
        depth += 2 * (outside.count(b"[") + outside.count(b"{")) - len(outside)
        yield
    return deepest


def commas_in_steps(text: bytes) -> Steps[int]:
    """How many commas stand outside of the strings of a JSON text: one less than the members of its only array."""
    strings, commas = _Strings(_NO_COMMAS), 0
    for piece in _pieces(text):
        commas += len(strings.skip(piece))
        yield
    return commas


def finish(steps: Steps[T]) -> T:
    """All steps at once: what they come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces of PIECE bytes, or one more: none ends between a backslash and what this escapes."""
    if len(text) <= PIECE:
        yield text
        return
    at = 0
    while at < len(text):
        piece = text[at : at + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = text[at : at + PIECE + 1]
        yield piece
        at += len(piece)


class _Strings:
    """Skips the strings of a text that is given piece by piece, and the bytes in `deleted`.

    `quotes` counts those of strings that hold something else than `deleted`.
    """

    __slots__ = ("_deleted", "_is_open", "quotes")

    def __init__(self, deleted: bytes) -> None:
        self._deleted = deleted
        self._is_open = False  # a string has begun in an earlier piece
        self.quotes = 0

    def skip(self, piece: bytes) -> bytes:
        """What stands outside of strings in the next piece."""
        reduced = _reduce(piece, self._deleted)
        number = reduced.count(b'"')
        self.quotes += number
        if not number:
            return b"" if self._is_open else reduced
        found = b"".join(reduced.split(b'"')[1 if self._is_open else 0 :: 2])
        self._is_open ^= number % 2 == 1
        return found


def _deepest(brackets: bytes, depth: int) -> int:
    return max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b"), initial=depth))


def _reduce(text: bytes, deleted: bytes) -> bytes:
    """The text without these bytes, and without escapes; the quotes in it still begin and end its strings."""
    if b"\\" in text:
        # Both replacements go from left to right, as a parser reads: an escaped backslash escapes nothing.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes side by side change nothing for what stands elsewhere; without them there is at most one between marks.
    return text.translate(None, deleted).replace(b'""', b"")
