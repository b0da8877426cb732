"""Params that cannot be read say why, by which name, and which words there are; they never repeat what was sent."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import nullcontext
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged import operations
from edged.errors import InvalidParams
from edged.nesting import finish
from edged.operations.catalogue import NoParams
from edged.operations.params import read_params
from edged.web.bodies import judge, parse_form


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct):
    size: Literal["small", "large"] = "small"


class Params(msgspec.Struct, rename={"kind_": "kind"}):
    device: str
    role: Annotated[Literal["viewer", "admin"], msgspec.Meta(description="a role")] | None = None
    roles: Annotated[list[Literal["viewer", "admin"]], msgspec.Meta(max_length=4)] | msgspec.UnsetType = msgspec.UNSET
    kind_: Colour = Colour.RED
    inner: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    level: Literal[1, 2] = 1


class Bounds(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=4)] = "x"
    share: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    seconds: Annotated[float, msgspec.Meta(gt=0, le=2592000)] = 1.0
    on: bool = False
    held: list[Params] = []


def complaint(kind: type[msgspec.Struct], params: msgspec.Raw | dict[str, Any]) -> str:
    """What is said of these params, "" of good ones."""
    try:
        read_params(kind, params)
    except InvalidParams as problem:
        return str(problem)
    return ""


def sentence(data: bytes | dict[str, Any]) -> str:
    """What is said of these params."""
    with pytest.raises(InvalidParams) as caught:
        read_params(Params, msgspec.Raw(data) if isinstance(data, bytes) else data)
    return str(caught.value)


TEXT = b'{"device":"SECRET"}'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xef\xbb\xbf" + TEXT, "a byte order mark (BOM) stands in front: send UTF-8 without it"),
        (TEXT.decode().encode("utf-16"), "UTF-16"),
        (TEXT.decode().encode("utf-16-le"), "UTF-16"),
        (TEXT.decode().encode("utf-32"), "UTF-32"),
        (gzip.compress(TEXT), "compressed (gzip)"),
        (zlib.compress(TEXT), "compressed (deflate)"),
        ('{"device":"SECRÉT"}'.encode("latin-1"), "byte 15 is not UTF-8"),
        (b'{"device":"SECRET"', "truncated"),
        (b'{"device":"SECRET",}', "(byte 19)"),
        (b'{"device" "SECRET"}', "(byte 10)"),
        (b"{'device':'SECRET'}", "(byte 1)"),
        (b'{"device":"SECRET"} x', "(byte 21)"),
        (b"device=SECRET", "not JSON"),
        (b"  ", "nothing was sent"),
        (b'{"x":' + b"[" * 100000, "nested too deeply"),
    ],
)
def test_params_that_cannot_be_read_say_why(data: bytes, why: str) -> None:
    """The place is told, never the text."""
    said = sentence(data)
    assert said.startswith("params cannot be read: ")
    assert why in said
    assert "SECR" not in said


@given(st.binary(max_size=60).map(lambda data: b'{"device":"' + data + b"SECRET"))
def test_no_sentence_repeats_what_was_sent(data: bytes) -> None:
    """Whatever it is."""
    assert "SECRET" not in complaint(Params, msgspec.Raw(data))


def test_params_by_position_are_told_to_come_by_name() -> None:
    """With the names that there are, as they are on the wire."""
    said = sentence(b' ["camera0"]')
    assert "by name" in said
    assert "its members are device, role, roles, kind, inner, many, named, level" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"role": "SECRET"}, "role must be one of viewer, admin"),
        ({"roles": ["viewer", "SECRET"]}, "roles[1] must be one of viewer, admin"),
        ({"kind": "SECRET"}, "kind must be one of red, blue"),
        ({"inner": {"size": "SECRET"}}, "inner.size must be one of small, large"),
        ({"many": [{"size": "SECRET"}]}, "many[0].size must be one of small, large"),
        ({"named": {"a": {"size": "SECRET"}}}, "named[...].size must be one of small, large"),
        ({"level": 7}, "level must be one of 1, 2"),
    ],
)
def test_a_word_that_is_none_of_the_known_ones_is_answered_with_these(given: dict[str, Any], said: str) -> None:
    """As JSON, and as members of a path and a query."""
    params = {"device": "camera0", **given}
    assert sentence(json.dumps(params).encode()) == said
    assert sentence(params) == said


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Params, {"device": 1}, "device must be a text, not a whole number"),
        (Params, {}, "device is missing"),
        (Params, {"many": [{}, 7]}, "many[1] must be an object, not a whole number"),
        (Params, {"roles": ["viewer"] * 5}, "roles must have at most 4 entries"),
        (Params, {"role": []}, "role must be a text or null, not a list"),
        (Bounds, {"name": ""}, "name must not be empty"),
        (Bounds, {"name": "xxxxx"}, "name must have at most 4 characters"),
        (Bounds, {"share": 101}, "share must be at most 100"),
        (Bounds, {"share": 0}, "share must be at least 1"),
        (Bounds, {"seconds": 0}, "seconds must be more than 0"),
        (Bounds, {"seconds": 1.5e9}, "seconds must be at most 2592000"),
        (Bounds, {"on": "yes"}, "on must be true or false, not a text"),
        (Bounds, {"held": [{}]}, "device is missing in held[0]"),
    ],
)
def test_what_is_wrong_is_told_in_words(kind: type[msgspec.Struct], given: dict[str, Any], said: str) -> None:
    """The member, what it must be, and what was sent instead: its type, never its value."""
    params = given if "device" in given or not given or kind is Bounds else {"device": "camera0", **given}
    assert complaint(kind, msgspec.Raw(json.dumps(params).encode())) == said


def test_no_operation_complains_in_another_language_than_words() -> None:
    """Whatever is sent to whichever member of whichever operation."""
    odd = ["", "x" * 5000, -1, 10**12, 2**70, 1.5, True, None, [], ["x"] * 2000, [1], [{"a": 1}], {}, {"a": 1}, 1e308]
    told = 0
    for operation in operations.gather().operations.values():
        fields = msgspec.structs.fields(operation.params)
        for field in fields:
            for value in odd:
                given = {each.encode_name: "x" for each in fields if each.required} | {field.encode_name: value}
                said = complaint(operation.params, msgspec.Raw(json.dumps(given).encode()))
                assert not set(said) & set("`$<>"), said
                told += bool(said)
    assert told > 1000


def test_every_choice_of_every_operation_is_told() -> None:
    """A wrong word gets the right ones, wherever an operation takes only some."""
    told = 0
    for operation in operations.gather().operations.values():
        fields = msgspec.structs.fields(operation.params)
        for field in fields:
            given = {each.encode_name: "x" for each in fields if each.required} | {field.encode_name: "no such word"}
            said = complaint(operation.params, given)
            assert "Invalid enum" not in said
            told += said.startswith(f"{field.encode_name} must be one of")
    assert told >= 3


def test_operations_without_params_take_everything() -> None:
    """Also by position (contract C-12)."""
    assert read_params(NoParams, msgspec.Raw(b"[1]")) == NoParams()


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (b"a=" + b"%" * 40000, "longer than 32768 bytes"),
        (b"a=1&" * 20, "more than 16 members"),
        (b"a=\xff", "not percent-encoded ASCII"),
    ],
)
def test_a_form_that_cannot_be_read_says_why(form: bytes, why: str) -> None:
    """Before the library takes its time for it."""
    with pytest.raises(InvalidParams, match=why):
        parse_form(form)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"x":' + b"[" * 65 + b"]" * 65 + b"}", "nested too deeply"),
        (b'{"x":[' + b"[]," * 4096 + b"1]}", "too many arrays and objects"),
        (b'{"x":[' + b"1," * 16385 + b"1]}", "more than 16384 members"),
        (b'{"x":["' + b'\\"' * 40000 + b'"' + b",1" * 16385 + b"]}", "more than 16384 members"),
        (b'{"x":"' + b"[," * 20000 + b'"}', ""),
        (b"[" * 64 + b"]" * 64, ""),
    ],
)
def test_a_body_with_too_much_in_it_is_refused_before_it_is_decoded(body: bytes, why: str) -> None:
    """Brackets and commas in strings are not counted."""
    with pytest.raises(InvalidParams, match=why) if why else nullcontext():
        finish(judge(body))
