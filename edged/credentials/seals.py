"""Statements that a box signs about its recordings: what each says, and its one spelling. Pure (docs/seals.md).

A statement is lines of UTF-8 text, `edged-KIND 1` and then `name value` in a fixed order. It is no JSON, so that none
can pass as the claims of a token at anyone who trusts the same keys. Times are Unix seconds with three decimals; a
digest is a SHA-256 in lower-case hex. Whatever is read is spelled again and compared: a statement has one spelling.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

VERSION: Final = 1
#: Stands for what there is not: the digest before the first segment, the end of a key that signs still.
NOTHING: Final = "-"
#: Bytes of a statement, and lines that name segments or keys.
LONGEST_STATEMENT: Final = 4 * 1024 * 1024
MOST_LINES: Final = 40_000
_LONGEST_NAME: Final = 255
_HIGHEST: Final = 2**53
_LATEST: Final = 1e11
_HEX: Final = frozenset("0123456789abcdef")
_DIGITS: Final = frozenset("0123456789")
_BASE64URL: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_FILE: Final = _BASE64URL | frozenset("/.")


class BadSeal(ValueError):
    """This is no statement of this format, or its signature does not fit; the sentence says why."""


class Content(NamedTuple):
    """What a file holds."""

    sha256: str
    size: int


class SegmentSeal(msgspec.Struct, frozen=True, kw_only=True):
    """One closed segment.

    `series` is the run of numbers that it belongs to, one per camera; `number` from 1; `file` its path below the folder
    of recordings; `began` and `ended` of its first and last sample; `synchronised` whether the clock followed a time
    server when it was sealed; `recovered`: its writer did not close it, or edged did not run then; `previous` the
    digest of the seal before (`-` for the first); `sealed` when.
    """

    camera: str
    series: str
    number: int
    file: str
    sha256: str
    size: int
    began: float
    ended: float
    synchronised: bool
    recovered: bool
    previous: str
    sealed: float


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A series has the numbers `first` to `last`, and `digest` is that of the last one's seal."""

    camera: str
    series: str
    first: int
    last: int
    digest: str
    synchronised: bool
    sealed: float


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """The segments `first` to `last` were deleted between `since` and `deleted`, for `reason`.

    `previous` is the digest of the seal before `first`, `digest` that of the seal of `last`, so that the chain goes on;
    `began` and `ended` are those of the first and the last of them.
    """

    camera: str
    series: str
    first: int
    last: int
    previous: str
    digest: str
    began: float
    ended: float
    reason: str
    since: float
    deleted: float
    synchronised: bool
    sealed: float


class Part(NamedTuple):
    """A segment that a file was made of: its number, and the digest of its seal."""

    number: int
    digest: str


class DerivedSeal(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was made of segments: a clip, or a recording as one file."""

    camera: str
    series: str
    name: str
    sha256: str
    size: int
    began: float
    ended: float
    synchronised: bool
    sealed: float
    parts: tuple[Part, ...]


class ArchivedKey(NamedTuple):
    """The public half of a key, as `x` and `y` of its JWK (RFC 7518 6.2.1).

    It signed from `first` to `last` (None: it signs still), and is distrusted since `distrusted`, if it is.
    """

    kid: str
    x: str
    y: str
    first: float
    last: float | None
    distrusted: float | None


class KeyArchive(msgspec.Struct, frozen=True, kw_only=True):
    """Every key that the box ever signed seals with, by the one that signs now."""

    sealed: float
    keys: tuple[ArchivedKey, ...]


Statement: TypeAlias = SegmentSeal | Head | Tombstone | DerivedSeal | KeyArchive


class _Codec(NamedTuple):
    """`read` raises ValueError for what is not allowed; what it lets through too much `write` spells otherwise."""

    read: Callable[[str], Any]
    write: Callable[[Any], str]


def _text(is_good: Callable[[str], bool]) -> _Codec:
    def check(value: str) -> str:
        if not is_good(value):
            raise ValueError(value[:40])
        return value

    return _Codec(check, check)


def _number(lowest: int) -> _Codec:
    def read(text: str) -> int:
        if not 0 < len(text) <= 16 or not _DIGITS.issuperset(text):
            raise ValueError(text[:40])
        return check(int(text))

    def check(value: int) -> int:
        if not lowest <= value <= _HIGHEST:
            raise ValueError(value)
        return value

    return _Codec(read, lambda value: str(check(value)))


def _write_time(value: float) -> str:
    if not -_LATEST < value < _LATEST:
        raise ValueError(value)
    # A zero has no sign.
    return f"{round(value, 3) + 0.0:.3f}"


def _read_time(text: str) -> float:
    if len(text) > 20 or not math.isfinite(value := float(text)):
        raise ValueError(text[:40])
    return value


def _word(true: str, false: str) -> _Codec:
    words = {true: True, false: False}
    return _Codec(lambda text: words[text], lambda value: true if value else false)


def _is_hex(size: int) -> Callable[[str], bool]:
    return lambda text: len(text) == size and _HEX.issuperset(text)


def is_camera(text: str) -> bool:
    """Whether this is the name of a camera: `camera` and up to six digits."""
    digits = text.removeprefix("camera")
    return digits != text and 0 < len(digits) <= 6 and _DIGITS.issuperset(digits)


def is_file(text: str) -> bool:
    """Whether this is `CAMERA/DAY/NAME`, in letters that need no care anywhere."""
    parts = text.split("/")
    return (
        len(text) <= _LONGEST_NAME
        and _FILE.issuperset(text)
        and len(parts) == 3
        and is_camera(parts[0])
        and all(part and part[0] not in ".-" for part in parts)
    )


def is_name(text: str) -> bool:
    """Whether this is one plain file name."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and "/" not in text and text.strip() == text


def is_kid(text: str) -> bool:
    """Whether this is a name that edged gives its keys: `key-<n>`."""
    digits = text.removeprefix("key-")
    return digits != text and 0 < len(digits) <= 12 and _DIGITS.issuperset(digits)


def is_reason(text: str) -> bool:
    """Whether this is a word for why something was deleted: lower-case letters, digits and underscores."""
    return 0 < len(text) <= 32 and text.isascii() and text.replace("_", "").isalnum() and text == text.lower()


_is_digest = _is_hex(64)
_CAMERA, _SERIES, _DIGEST = _text(is_camera), _text(_is_hex(16)), _text(_is_digest)
_PREVIOUS = _text(lambda text: text == NOTHING or _is_digest(text))
_TIME: Final = _Codec(_read_time, _write_time)
_COUNT, _SIZE = _number(1), _number(0)
_CLOCK: Final = _word("synchronised", "unsynchronised")
_COORDINATE = _text(lambda text: len(text) == 43 and _BASE64URL.issuperset(text))
_MAYBE_TIME: Final = _Codec(
    lambda text: None if text == NOTHING else _read_time(text),
    lambda value: NOTHING if value is None else _write_time(value),
)


class _Form(NamedTuple):
    """`lines` are (word, codec) of the members in order; the last member may be a tuple, a line `repeated` for each."""

    kind: str
    lines: tuple[tuple[str, _Codec], ...]
    repeated: str = ""
    item: Callable[..., Any] = tuple
    columns: tuple[_Codec, ...] = ()


_RANGE: Final = (("camera", _CAMERA), ("series", _SERIES), ("first", _COUNT), ("last", _COUNT))
_WHEN: Final = (("clock", _CLOCK), ("sealed", _TIME))
_FORMS: Final[Mapping[type, _Form]] = {
    SegmentSeal: _Form("seal", (
        ("camera", _CAMERA), ("series", _SERIES), ("number", _COUNT), ("file", _text(is_file)), ("sha256", _DIGEST),
        ("size", _SIZE), ("began", _TIME), ("ended", _TIME), ("clock", _CLOCK), ("recovered", _word("yes", "no")),
        ("previous", _PREVIOUS), ("sealed", _TIME),
    )),
    Head: _Form("head", (*_RANGE, ("digest", _DIGEST), *_WHEN)),
    Tombstone: _Form("tombstone", (
        *_RANGE, ("previous", _PREVIOUS), ("digest", _DIGEST), ("began", _TIME), ("ended", _TIME),
        ("reason", _text(is_reason)), ("since", _TIME), ("deleted", _TIME), *_WHEN,
    )),
    DerivedSeal: _Form("derived", (
        ("camera", _CAMERA), ("series", _SERIES), ("name", _text(is_name)), ("sha256", _DIGEST), ("size", _SIZE),
        ("began", _TIME), ("ended", _TIME), *_WHEN,
    ), "segment", Part, (_COUNT, _DIGEST)),
    KeyArchive: _Form("keys", (("sealed", _TIME),), "key", ArchivedKey, (
        _text(is_kid), _COORDINATE, _COORDINATE, _TIME, _MAYBE_TIME, _MAYBE_TIME,
    )),
}  # fmt: skip
_KINDS: Final = {f"edged-{form.kind} {VERSION}": made for made, form in _FORMS.items()}


def build(statement: Statement) -> bytes:
    """Its one spelling. Raises BadSeal for a member that it cannot have."""
    form = _FORMS[type(statement)]
    names = type(statement).__struct_fields__
    lines = [f"edged-{form.kind} {VERSION}"]
    try:
        for (word, codec), name in zip(form.lines, names, strict=False):
            lines.append(f"{word} {codec.write(getattr(statement, name))}")
        for item in getattr(statement, names[-1]) if form.repeated else ():
            cells = [codec.write(cell) for codec, cell in zip(form.columns, item, strict=True)]
            lines.append(" ".join((form.repeated, *cells)))
    except (ValueError, KeyError, TypeError) as problem:
        raise BadSeal(f"a {form.kind} cannot say {problem}") from None
    _check_order(statement)
    return ("\n".join(lines) + "\n").encode()


def parse(data: bytes) -> Statement:
    """What a statement says; `build` of it gives the same bytes. Raises BadSeal."""
    if len(data) > LONGEST_STATEMENT:
        raise BadSeal(f"it is longer than {LONGEST_STATEMENT} bytes")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise BadSeal("it is no text") from None
    made = _KINDS.get(lines[0])
    if made is None or lines.pop() != "":
        raise BadSeal(f"it does not begin as a statement of version {VERSION}, or does not end with a line")
    form = _FORMS[made]
    head, rest = lines[1 : 1 + len(form.lines)], lines[1 + len(form.lines) :]
    if len(head) < len(form.lines) or len(rest) > (MOST_LINES if form.repeated else 0):
        raise BadSeal(f"a {form.kind} has not so many lines")
    values: list[Any] = []
    try:
        for line, (word, codec) in zip(head, form.lines, strict=True):
            said, _, value = line.partition(" ")
            if said != word:
                raise BadSeal(f"a line of a {form.kind} is not {word}")
            values.append(codec.read(value))
        if form.repeated:
            values.append(tuple(_read_item(form, line) for line in rest))
    except (ValueError, KeyError) as problem:
        raise problem if isinstance(problem, BadSeal) else BadSeal(f"a {form.kind} cannot say {problem}") from None
    statement = cast("Statement", made(**dict(zip(cast("Any", made).__struct_fields__, values, strict=True))))
    if build(statement) != data:
        raise BadSeal(f"the {form.kind} is not spelled as edged spells it")
    return statement


def digest(payload: bytes) -> str:
    """What names a statement: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(payload).hexdigest()


def _read_item(form: _Form, line: str) -> Any:
    word, *cells = line.split(" ")
    if word != form.repeated or len(cells) != len(form.columns):
        raise BadSeal(f"a line of a {form.kind} is not {form.repeated}")
    return form.item(*(codec.read(cell) for codec, cell in zip(form.columns, cells, strict=True)))


def _check_order(statement: Statement) -> None:
    """Raises BadSeal for an interval that ends before it begins."""
    if isinstance(statement, (Head, Tombstone)) and statement.last < statement.first:
        raise BadSeal("its last number is before its first")
    if isinstance(statement, SegmentSeal) and (
        not statement.file.startswith(f"{statement.camera}/")
        or (statement.number == 1) != (statement.previous == NOTHING)
    ):
        raise BadSeal("its file is of another camera, or it names no segment before")
