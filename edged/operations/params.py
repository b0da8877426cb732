"""Params as received → an operation's struct, or a sentence that says what is wrong.

No sentence repeats a value: a secret may have been sent in the wrong member.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from edged.clock import LAST_SECOND, read_iso
from edged.errors import NOT_JSON, InvalidParams


class NoParams(msgspec.Struct, frozen=True):
    """Params of an operation without params; unknown members are ignored (contract C-12)."""


_NO_PARAMS: Final = NoParams()
_BOMS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: How compressed data begins (RFC 1952 2.3.1, RFC 1950 2.2, RFC 8878 3.1.1).
_COMPRESSED: Final[Mapping[bytes, str]] = {
    b"\x1f\x8b": "gzip", b"\x78\x01": "deflate", b"\x78\x9c": "deflate", b"\x78\xda": "deflate",
    b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip
_MOST_NAMES: Final = 12
#: How msgspec's complaints begin and go on, and its words in plain ones.
_ENUM: Final = "Invalid enum value"
_MISSING: Final = "Object missing required field `"
_TOO_LARGE: Final = "Integer value out of range"
_EXPECTED: Final = "Expected `"
_GOT: Final = ", got `"
_LENGTH: Final = " of length "
_BOUNDS: Final[Mapping[str, str]] = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_KINDS: Final[Mapping[str, str]] = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "an object", "null": "null",
}  # fmt: skip
#: Of a whole number in a query string.
_MOST_DIGITS: Final = 18


def read_params(kind: type[msgspec.Struct], params: msgspec.Raw | Mapping[str, object] | None) -> msgspec.Struct:
    """Params as received → the operation's struct; absent, null, {} and [] are equal (contract S1-12).

    Raises InvalidParams naming the member.
    """
    if kind is NoParams:
        return _NO_PARAMS
    try:
        if isinstance(params, msgspec.Raw):
            if bytes(params) in (b"null", b"", b"[]"):
                return msgspec.convert({}, kind)
            return _reader_of(kind)(params)
        return msgspec.convert(params or {}, kind)
    except msgspec.ValidationError as problem:
        if isinstance(params, msgspec.Raw) and bytes(params).lstrip()[:1] == b"[":
            raise InvalidParams(
                "params are passed by name, as an object, and not by position", hint=_name_members(kind)
            ) from None
        raise InvalidParams(_explain_invalid(kind, str(problem))) from None
    except NOT_JSON as problem:
        sentence, hint = explain_unreadable(bytes(params) if isinstance(params, msgspec.Raw) else b"", problem)
        raise InvalidParams(f"params cannot be read: {sentence}", hint=hint) from None


@cache
def _reader_of(kind: type[msgspec.Struct]) -> Callable[[msgspec.Raw], msgspec.Struct]:
    return msgspec.json.Decoder(kind).decode


def parse_member(kind: type[msgspec.Struct], name: str, text: str) -> object:
    """A member of a query string → its value by the type of the params struct: bool, int, float, or the text itself.

    Raises InvalidParams naming the member and its bounds.
    """
    hint = _type_at(kind, name)
    types = list(_alternatives(hint))
    if bool in types:
        if text.lower() not in ("true", "false"):
            raise InvalidParams(f"{name} is neither true nor false")
        return text.lower() == "true"
    if str in types or (int not in types and float not in types):
        return text
    try:
        number = float(text) if float in types else _parse_int(text)
        if not math.isfinite(number):
            raise ValueError
        return msgspec.convert(number, hint)
    except (ValueError, msgspec.ValidationError):
        raise InvalidParams(f"{name} must be {_describe_number(hint)}") from None


def _parse_int(text: str) -> int:
    """Digits only. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError
    return int(text)


def _describe_number(hint: Any) -> str:
    """`a whole number from 1 to 1000`: from the type and its annotation."""
    what = "a number" if float in _alternatives(hint) else "a whole number"
    for meta in _metas(hint):
        what = meta.description or what
        if meta.ge is not None:
            what += f" from {meta.ge}" + ("" if meta.le is None else f" to {meta.le}")
        elif meta.gt is not None:
            what += f" above {meta.gt}" + ("" if meta.le is None else f" up to {meta.le}")
    return what


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    """The annotations of a type, also of those in a union."""
    if get_origin(hint) is Annotated:
        yield from (each for each in get_args(hint)[1:] if isinstance(each, msgspec.Meta))
    for each in get_args(hint) if get_origin(hint) in (Annotated, Union, UnionType) else ():
        yield from _metas(each)


def explain_unreadable(data: bytes, problem: Exception) -> tuple[str, str]:
    """Why bytes are no JSON, and what to do; `problem` is what the decoder said of them."""
    if data.startswith(codecs.BOM_UTF8):
        return "a byte order mark (BOM) stands in front", "send UTF-8 without it"
    for magic, name in _COMPRESSED.items():
        if data.startswith(magic):
            return f"this is compressed ({name})", "send it as it is"
    if data.startswith(_BOMS) or b"\0" in data[:4]:
        return "this is UTF-16 or UTF-32", "send UTF-8"
    if isinstance(problem, RecursionError):
        return "arrays or objects are nested too deeply", ""
    try:
        data.decode()
    except UnicodeDecodeError as wrong:
        return f"byte {wrong.start} is not UTF-8", "send UTF-8"
    if not data.strip():
        return "nothing was sent", "send a JSON object"
    # The message of the decoder has no part of the text.
    return f"this is not JSON: {str(problem).removeprefix('JSON is malformed: ')}", ""


def _name_members(kind: type[msgspec.Struct]) -> str:
    names = kind.__struct_encode_fields__
    shown = ", ".join(names[:_MOST_NAMES])
    return f"its members are {shown}{' and others' if len(names) > _MOST_NAMES else ''}" if names else ""


def _explain_invalid(kind: type[msgspec.Struct], text: str) -> str:
    """The message of msgspec in words; for a member with fixed choices, these instead of the value that was sent."""
    said, _, path = text.rpartition(" - at `") if " - at `" in text else (text, "", "")
    name = path.removesuffix("`").removeprefix("$").removeprefix(".")
    if not said.startswith(_ENUM):
        return _say(said, name) or text
    known = ", ".join(map(str, dict.fromkeys(_choices(_type_at(kind, name)))))
    return f"{name or 'it'} must be one of {known}" if known else f"{name or 'a member'} is none of the known values"


def _say(said: str, name: str) -> str:
    """A complaint of msgspec about the member at a path, "" for the whole, in words; "" for one that is not known."""
    if said.startswith(_MISSING):
        return f"{said.removeprefix(_MISSING).removesuffix('`')} is missing{f' in {name}' if name else ''}"
    if said == _TOO_LARGE:
        return f"{name} is too large a number"
    wanted, _, rest = said.removeprefix(_EXPECTED).partition("`")
    if not said.startswith(_EXPECTED):
        return ""
    name = name or "what was sent"
    if rest.startswith(_GOT):
        kinds = " or ".join(_KINDS.get(each, each) for each in wanted.split(" | "))
        got = rest.removeprefix(_GOT).removesuffix("`")
        return f"{name} must be {kinds}, not {_KINDS.get(got, got)}"
    sign, _, bound = rest.removeprefix(_LENGTH).strip().partition(" ")
    if sign not in _BOUNDS:
        return ""
    amount = f"{_BOUNDS[sign]} {bound.removesuffix('.0')}"
    if not rest.startswith(_LENGTH):
        return f"{name} must be {amount}"
    if amount == "at least 1":
        return f"{name} must not be empty"
    return f"{name} must have {amount} {'characters' if 'str' in wanted else 'entries'}"


def _type_at(kind: Any, path: str) -> Any:
    """The type of the member at a path such as `keys[2].role` or `by_name[...].role`; None where it cannot be told."""
    for part in path.replace("[...]", "[]").split("."):
        name, *levels = part.split("[")
        struct = next((each for each in _alternatives(kind) if _is_struct(each)), None)
        if struct is not None and name:
            fields = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
            kind = get_type_hints(struct, include_extras=True).get(fields.get(name, ""))
        elif name:
            return None
        for _ in levels:
            # Of a list its items, of a map its values.
            inner = [get_args(each)[-1] for each in _alternatives(kind) if get_origin(each) in (list, dict)]
            kind = inner[0] if inner else None
    return kind


def _alternatives(kind: Any) -> Iterator[Any]:
    """The types of a union, each without its annotations."""
    if get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _alternatives(each)
    else:
        yield kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _choices(kind: Any) -> Iterator[object]:
    for each in _alternatives(kind):
        if get_origin(each) is Literal:
            yield from get_args(each)
        elif isinstance(each, type) and issubclass(each, Enum):
            yield from (member.value for member in each)


def read_interval(start: str | float, end: str | float) -> tuple[float, float]:
    """Two times, as `read_moment`. Raises InvalidParams where the end is not behind the start, too."""
    begin, until = read_moment("start", start), read_moment("end", end)
    if until <= begin:
        raise InvalidParams("end must lie behind start", field="end")
    return begin, until


def read_moment(member: str, value: str | float) -> float:
    """ISO 8601 with a zone, or Unix seconds, also as text → Unix seconds. Raises InvalidParams naming the member."""
    if isinstance(value, str):
        # A time without a zone would be UTC here, and local time to whoever wrote it.
        if not _is_number(value):
            seconds = read_time(member, value)
            if not _has_zone(value):
                raise InvalidParams(f"{member} has no time zone", hint="for example 2027-01-31T00:00:00Z", field=member)
            return seconds
        value = float(value)
    if not 0 <= value <= LAST_SECOND:
        raise InvalidParams(f"{member} lies outside of the years 1970 to 9999", field=member)
    return float(value)


def _is_number(text: str) -> bool:
    """Whether a text is digits, with a fraction perhaps."""
    return len(text) <= _MOST_DIGITS and text.isascii() and text.replace(".", "", 1).isdigit()


def _has_zone(text: str) -> bool:
    """Whether an ISO 8601 time ends in a zone."""
    return datetime.fromisoformat(text).tzinfo is not None


def read_time(member: str, text: str) -> float:
    """ISO 8601 → Unix seconds, as `read_iso`. Raises InvalidParams naming the member."""
    try:
        return read_iso(text)
    except ValueError:
        sentence = f"{member} is no ISO 8601 time"
    except OverflowError:
        sentence = f"{member} lies outside of the years 1970 to 9999"
    raise InvalidParams(sentence, hint="for example 2027-01-31T00:00:00Z")
