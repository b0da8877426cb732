"""What is no JSON, from wherever it comes, is refused with a sentence and never a traceback (edged.errors.NOT_JSON)."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edged.credentials.callers import NoCredential
from edged.credentials.seal_signatures import read_thumbprints
from edged.credentials.seals import BadSeal
from edged.daemon.cameras import read_added
from edged.errors import NOT_JSON, DependencyFailed, InvalidParams
from edged.mediamtx.client import _decode
from edged.operations.pages import read_cursor
from edged.rpc.credentials import presented
from edged.store.cameras import Added
from edged.web.bodies import parse_object
from edged.wire.jsonrpc import PARSE_ERROR, Call, Invalid, parse

EDGED = Path(__file__).parent.parent / "edged"
#: No UTF-8 in a value, in a name, and at the begin; no JSON; too deep for a decoder.
UNREADABLE = [b'{"a":"\x82"}', b'{"\x82":1}', b"\xff\xfe", b"{", b"", b"[" * 100_000]


@pytest.mark.parametrize("data", UNREADABLE)
@pytest.mark.parametrize(
    ("read", "refusal"),
    [
        (read_thumbprints, BadSeal),
        (lambda data: _decode(data, dict[str, object], "/v3/paths/list"), DependencyFailed),
        (parse_object, InvalidParams),
        (lambda data: read_cursor("keys", data.decode("latin-1")), InvalidParams),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_with_a_sentence(
    read: Callable[[bytes], object], refusal: type[Exception], data: bytes
) -> None:
    with pytest.raises(refusal, match=r"\w+ \w+"):
        read(data)


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_call_that_is_no_json_is_a_parse_error(data: bytes) -> None:
    answer = parse(data)
    assert isinstance(answer, Invalid)
    assert answer.code == PARSE_ERROR


@pytest.mark.parametrize("data", UNREADABLE)
def test_params_that_are_no_json_hold_no_credential(data: bytes) -> None:
    call = Call(jsonrpc="2.0", method="authenticate", params=msgspec.Raw(data), id=msgspec.Raw(b"1"))
    assert isinstance(presented(call), NoCredential)


def test_a_stored_camera_that_is_no_json_is_passed_over() -> None:
    assert read_added([Added(7, "usb-1", "{")]) == []


def test_a_decoder_of_any_version_raises_nothing_else() -> None:
    for data in UNREADABLE:
        with pytest.raises(NOT_JSON):
            msgspec.json.decode(data, type=dict[str, object])


def test_only_this_tuple_is_caught_where_json_is_decoded() -> None:
    """`except msgspec.DecodeError` misses text that is no UTF-8, with the version of Debian 13."""
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in EDGED.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        if {"DecodeError", "MsgspecError"} & {one.attr for one in ast.walk(node.type) if isinstance(one, ast.Attribute)}
    ]
    assert not wrong
