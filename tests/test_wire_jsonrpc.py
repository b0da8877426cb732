"""JSON-RPC text ↔ values: what is a request, what is not, and that nothing that arrives raises."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.wire import jsonrpc
from edged.wire.jsonrpc import ABSENT, Batch, Call, Invalid, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
#: Values under the names that matter, right ones and wrong ones mixed.
ALMOST = st.dictionaries(
    st.sampled_from(["jsonrpc", "id", "method", "params", "other"]), st.just("2.0") | st.just("ping") | JSON, max_size=5
)


def text(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "ping"} | members).encode()


def test_a_request_keeps_id_and_params_as_they_were_written() -> None:
    """What is not ours to read is not touched."""
    call = parse(b'{"jsonrpc":"2.0","id": 1.50 ,"method":"m","params": { "a" : 1 }}')
    assert isinstance(call, Call)
    assert (call.method, bytes(call.id), bytes(call.params)) == ("m", b"1.50", b'{ "a" : 1 }')
    assert not call.is_notification


def test_a_request_without_id_is_a_notification_and_null_is_an_id() -> None:
    """Only a missing id means that nobody waits."""
    without, null = parse(text()), parse(text(id=None))
    assert isinstance(without, Call)
    assert without.is_notification
    assert without.params is ABSENT
    assert isinstance(null, Call)
    assert not null.is_notification


@pytest.mark.parametrize("value", [0, -7, 2**63, 10**30, 1.5, "", "abc", "ü\u2028😀", "5", None])
def test_an_id_comes_back_with_its_type(value: object) -> None:
    """Clients compare ids with ===, so 5 never becomes "5" or 5.0."""
    call = parse(text(id=value))
    assert isinstance(call, Call)
    answer = json.loads(jsonrpc.reply(call.id, b"true"))["id"]
    assert answer == value
    assert type(answer) is type(value)


@pytest.mark.parametrize("value", [True, False, [], {}, [1], {"a": 1}])
def test_an_id_of_another_type_is_an_invalid_request(value: object) -> None:
    """An id is a string, a number or null."""
    assert parse(text(id=value)) == Invalid(-32600, "id is a string, a number or null")


@pytest.mark.parametrize("value", [1, "x", True])
def test_params_of_another_type_are_an_invalid_request_that_names_its_id(value: object) -> None:
    """Params are structured, and the sender can match the error to its call."""
    assert parse(text(id=3, params=value)) == Invalid(-32600, "params are an object or an array", b"3")


@pytest.mark.parametrize("value", [None, {}, [], {"a": [1]}, [1, 2]])
def test_params_may_be_null_an_object_or_an_array(value: object) -> None:
    """Null is what clients with optional params send."""
    call = parse(text(params=value))
    assert isinstance(call, Call)
    assert json.loads(bytes(call.params)) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b'{"jsonrpc":"2.0","method":"m"',
        b'{"a":1}x',
        b"nul",
        b"\xff",
        b'{"jsonrpc":"2.0","id":"\xff"}',
        b'{"jsonrpc":"2.0","method":"\xff","id":1}',
        b'{"jsonrpc":"2.0","method":"m","id":"\xff"}',
        b'{"jsonrpc":1,]',
        b"\xef\xbb\xbf{}",
        b'[{"jsonrpc":"2.0","method":"m"},',
        b"{'a':1}",
        b'{"id":01}',
    ],
)
def test_what_is_not_json_is_a_parse_error_with_id_null(raw: bytes) -> None:
    """Also where the first wrong thing is a wrong type: the whole text is looked at before one is told so."""
    found = parse(raw)
    assert isinstance(found, Invalid)
    assert (found.code, found.id) == (-32700, b"null")


def test_a_byte_order_mark_is_told_as_the_cause() -> None:
    """Whoever looks at the text does not see it."""
    found = parse(b"\xef\xbb\xbf" + text())
    assert isinstance(found, Invalid)
    assert found.detail == "not JSON: a byte order mark (BOM) stands in front"


def test_deep_nesting_is_a_parse_error() -> None:
    """The parser's depth is bounded, and running into it is told like anything else."""
    for raw in (b"[" * 100_000, b'{"jsonrpc":"2.0","method":"m","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        found = parse(raw)
        assert isinstance(found, Invalid)
        assert found.code == -32700


@pytest.mark.parametrize("raw", [b"1", b'"ping"', b"null", b"true"])
def test_json_that_is_no_object_is_an_invalid_request(raw: bytes) -> None:
    """A request is an object."""
    assert parse(raw) == Invalid(-32600, "a request is an object")


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"{}", b"null"),
        (b'{"id":7}', b"7"),
        (b'{"jsonrpc":"2.0","id":"a","method":1}', b'"a"'),
        (b'{"jsonrpc":"1.0","id":2,"method":"m"}', b"2"),
        (b'{"id":2,"method":"m"}', b"2"),
    ],
)
def test_an_object_that_is_no_request_is_answered_under_its_id(raw: bytes, number: bytes) -> None:
    """A client that forgot a member hears so at once and not by its own timeout."""
    found = parse(raw)
    assert isinstance(found, Invalid)
    assert (found.code, found.id) == (-32600, number)
    assert found.detail


def test_a_batch_keeps_order_and_says_which_members_are_invalid() -> None:
    """One bad member does not spoil the others; arrays inside are no requests."""
    found = parse(b"[" + text(id=1) + b',{"foo":"boo"},[],' + text() + b',1,{"jsonrpc":"2.0","method":"m","id":{}}]')
    assert isinstance(found, Batch)
    kinds = [type(member) for member in found.members]
    assert kinds == [Call, Invalid, Invalid, Call, Invalid, Invalid]


def test_an_empty_batch_and_one_too_long_are_one_invalid_request() -> None:
    """At most 50 calls, and at least one."""
    assert parse(b"[]") == Invalid(-32600, "a batch holds at least one call")
    assert isinstance(parse(b"[" + b",".join([text()] * 50) + b"]"), Batch)
    assert parse(b"[" + b",".join([text()] * 51) + b"]") == Invalid(-32600, "a batch holds at most 50 calls")
    assert isinstance(parse(b"[1,2]", longest_batch=1), Invalid)


@given(
    st.binary(max_size=200)
    | ALMOST.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_raise(raw: bytes) -> None:
    """Whatever arrives is a call, a batch, or an Invalid whose answer is legal JSON."""
    found = parse(raw)
    members = found.members if isinstance(found, Batch) else (found,)
    for member in members:
        if isinstance(member, Call):
            number = b"null" if member.is_notification else bytes(member.id)
            assert json.loads(jsonrpc.reply(number, b"1"))["result"] == 1
        else:
            answer = json.loads(jsonrpc.fault(member.id, member.code, member.detail))
            assert answer["error"]["code"] in (-32600, -32700)


@given(ALMOST)
def test_a_call_is_what_the_standard_says_it_is(value: dict[str, object]) -> None:
    """The parser agrees with the sentence of JSON-RPC 2.0, member by member."""
    number, params = value.get("id"), value.get("params")
    legal = (
        value.get("jsonrpc") == "2.0"
        and isinstance(value.get("method"), str)
        and (number is None or (isinstance(number, (str, int, float)) and not isinstance(number, bool)))
        and isinstance(params, (dict, list, type(None)))
    )
    assert isinstance(parse(json.dumps(value).encode()), Call) == legal


def test_answers_are_the_standards() -> None:
    """Result or error, never both unless it is asked for."""
    assert json.loads(jsonrpc.reply(b"1", b'{"a":1}')) == {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}
    assert json.loads(jsonrpc.fault(b'"x"', -1, "no")) == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {"code": -1, "message": "no"},
    }
    both = json.loads(jsonrpc.fault(b"1", -1, "no", {"a": 1}, result=b"null"))
    assert both["error"]["data"] == {"a": 1}
    assert both["result"] is None
    assert json.loads(jsonrpc.notification("it", b"[]")) == {"jsonrpc": "2.0", "method": "it", "params": []}
    assert json.loads(jsonrpc.join([b"1", b"2"])) == [1, 2]


def test_an_error_can_always_be_told() -> None:
    """What JSON has no type for is told as text: the answer to an error is no place to fail."""
    assert json.loads(jsonrpc.encode({"path": Path("/x")})) == {"path": "/x"}
    assert msgspec.json.decode(jsonrpc.encode(float("nan"))) is None


@pytest.mark.parametrize(
    "text", [b"[" * 65, b'{"a":' * 65, b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 64]
)
def test_what_is_nested_too_deeply_is_refused_at_one_depth(text: bytes) -> None:
    """At 65, whichever Python and whichever part of the message: the decoder's own limit varies with both."""
    refused = parse(text)
    assert isinstance(refused, Invalid)
    assert (refused.code, refused.detail) == (-32700, "nested too deeply")


def test_brackets_in_strings_are_text() -> None:
    """A name full of brackets and escaped quotes is nested not at all; neither are many shallow arrays."""
    text = (
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"' + b'[{\\"' * 200 + b'","b":[' + b"[]," * 200 + b"[]]}}"
    )
    assert isinstance(parse(text), Call)


def test_a_message_with_more_members_than_anybody_needs_is_refused_before_it_is_decoded():
    """Brackets and commas in strings are not counted."""
    head = b'{"jsonrpc":"2.0","method":"a","params":{"x":'
    assert parse(head + b"[" + b'"",' * 70000 + b"1]}}") == Invalid(-32700, "too many members in arrays and objects")
    assert parse(head + b"[" + b"[]," * 70000 + b"1]}}") == Invalid(-32700, "too many arrays and objects")
    assert isinstance(parse(head + b'"' + b",[" * 200000 + b'"}}'), Call)


@pytest.mark.parametrize(
    "long", [b'"' + b'\\"' * 40000 + b'"', b"[" * 70 + b'"' + b"x" * 70000, b"[1]" * 30000, b"x" * 70000]
)
def test_a_long_message_is_the_same_message_as_a_short_one(long: bytes) -> None:
    """Read in steps: its call, its batch, or what is wrong with it."""
    for text in (
        b'{"jsonrpc":"2.0","method":"a","id":7,"params":{"x":%b}}' % long,
        b'[{"jsonrpc":"2.0","method":"a"},%b]' % long,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsonrpc, "LONGEST_AT_ONCE", 2**30)
            whole = parse(text)
        assert parse(text) == whole
