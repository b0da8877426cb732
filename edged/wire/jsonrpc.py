"""JSON-RPC 2.0: text → calls, and replies → text. Pure: no I/O, no state, no knowledge of any method.

Ids are kept as the very bytes that the client wrote, so that they come back with their type and spelling
(contract S1-11); params are kept unread until the operation's own struct reads them. Nothing that arrives
raises: what is no request becomes `Invalid` with the code and the sentence to answer it with.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import msgspec

from edged.errors import NOT_JSON
from edged.nesting import PIECE, Steps, commas_in_steps, depth_in_steps, depth_of, finish

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

#: Calls in one batch (contract C-23).
LONGEST_BATCH: Final = 50

#: Stands for a member that was not sent; compared by identity.
ABSENT: Final = msgspec.Raw(b"")
NULL: Final = b"null"


class Call(msgspec.Struct, frozen=True):
    """One request. `id` and `params` are JSON as sent, `ABSENT` if they were not; a notification has no id."""

    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = ABSENT
    id: msgspec.Raw = ABSENT

    @property
    def is_notification(self) -> bool:
        """Whether it wants no answer, not even an error (JSON-RPC 2.0, section 4.1)."""
        return self.id is ABSENT


class Invalid(msgspec.Struct, frozen=True):
    """What arrived is not a request: `code` and `detail` for the answer; `id` as sent if it could be read."""

    code: int
    detail: str
    id: bytes = NULL


class Batch(msgspec.Struct, frozen=True):
    """Requests that came in one array and are answered in one array, in their order."""

    members: tuple[Call | Invalid, ...]


Message: TypeAlias = Call | Batch | Invalid


class _OnlyId(msgspec.Struct):
    """What is looked at of an object that is no request, so that its sender can match the error."""

    id: msgspec.Raw = ABSENT


_decode_call = msgspec.json.Decoder(Call).decode
_decode_id = msgspec.json.Decoder(_OnlyId).decode
_decode_anything = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder(enc_hook=str).encode

#: The deepest nesting of a message that is read; a call of ours needs less than ten.
DEEPEST = 64
#: No shorter text can be nested deeper than that.
_LEAST_DEEP = DEEPEST
#: Brackets of arrays and objects in a message; one of a mebibyte with more would hold the loop for too long.
MOST_BRACKETS: Final = 131072
#: Members of arrays and objects in a message, for the same reason.
MOST_MEMBERS: Final = 65536
#: A message of more bytes should be read in steps; no shorter one has too many members.
LONGEST_AT_ONCE: Final = PIECE
_BLANK = b" \t\r\n"
#: Where the setting allows longer batches than a struct should have fields, all members are made objects.
_MOST_FIELDS = 1024
_ID_STARTS = frozenset(b'"-0123456789n')
_PARAMS_STARTS = frozenset(b"{[n")


def parse(text: bytes, *, longest_batch: int = LONGEST_BATCH, is_judged: bool = False) -> Message:
    """One message, parsed. Never raises, whatever the bytes are. `is_judged`: its depth and members are no question."""
    if len(text) > _LEAST_DEEP and not is_judged:
        if len(text) > LONGEST_AT_ONCE:
            return finish(parse_in_steps(text, longest_batch=longest_batch))
        if text.count(b"[") + text.count(b"{") > DEEPEST:
            # The decoder's own limit of depth differs for what it skips, and between versions of Python.
            problem = _judge_depth(depth_of(text, MOST_BRACKETS))
            if problem is not None:
                return problem
    try:
        call = _decode_call(text)
    except NOT_JSON:
        return _parse_batch(text, longest_batch) if text.lstrip(_BLANK)[:1] == b"[" else _diagnose(text)
    return call if _is_sound(call) else _diagnose(text)


def parse_in_steps(text: bytes, *, longest_batch: int = LONGEST_BATCH) -> Steps[Message]:
    """`parse`, in steps."""
    if text.count(b"[") + text.count(b"{") > DEEPEST:
        problem = _judge_depth((yield from depth_in_steps(text, MOST_BRACKETS)))
        if problem is not None:
            return problem
    if text.count(b",") > MOST_MEMBERS and (yield from commas_in_steps(text)) > MOST_MEMBERS:
        return Invalid(PARSE_ERROR, "too many members in arrays and objects")
    return parse(text, longest_batch=longest_batch, is_judged=True)


def _judge_depth(depth: int | None) -> Invalid | None:
    if depth is None:
        return Invalid(PARSE_ERROR, "too many arrays and objects")
    return Invalid(PARSE_ERROR, "nested too deeply") if depth > DEEPEST else None


def _parse_batch(text: bytes, longest: int) -> Batch | Invalid:
    """An array. No more of its members are made objects of than a batch may hold, and one."""
    try:
        found = _batch_decoder(longest + 1)(text)
    except NOT_JSON:
        return _diagnose(text)
    if not isinstance(found, list):
        found = [member for member in msgspec.structs.astuple(found) if member is not ABSENT]
    if not found:
        return Invalid(INVALID_REQUEST, "a batch holds at least one call")
    if len(found) > longest:
        return Invalid(INVALID_REQUEST, f"a batch holds at most {longest} calls")
    return Batch(tuple(_parse_member(member) for member in found))


@cache
def _batch_decoder(most: int) -> Any:
    """A decoder of arrays to a struct of their first `most` members, unread; what follows is skipped."""
    if most > _MOST_FIELDS:
        return msgspec.json.Decoder(list[msgspec.Raw]).decode
    fields = [(f"member{number}", msgspec.Raw, ABSENT) for number in range(most)]
    return msgspec.json.Decoder(msgspec.defstruct("Members", fields, array_like=True)).decode


def _parse_member(text: msgspec.Raw) -> Call | Invalid:
    try:
        call = _decode_call(text)
    except NOT_JSON:
        return _diagnose(bytes(text))
    return call if _is_sound(call) else _diagnose(bytes(text))


def _is_sound(call: Call) -> bool:
    """Whether the members that were left unread are of a type that JSON-RPC knows."""
    if call.id is not ABSENT:
        written = bytes(call.id)
        if written[0] not in _ID_STARTS or not _is_text(written):
            return False
    return call.params is ABSENT or memoryview(call.params)[0] in _PARAMS_STARTS


def _is_text(written: bytes) -> bool:
    """Whether bytes that will be sent back are UTF-8: the decoder does not look into what it skips."""
    if written.isascii():
        return True
    try:
        written.decode()
    except UnicodeDecodeError:
        return False
    return True


def _diagnose(text: bytes) -> Invalid:
    """Say what is wrong with a message: not JSON at all, or JSON that is no request. Off the fast path."""
    try:
        _decode_anything(text)
        text.decode()
    except RecursionError:
        return Invalid(PARSE_ERROR, "nested too deeply")
    except NOT_JSON:
        has_mark = text.startswith(codecs.BOM_UTF8)
        return Invalid(PARSE_ERROR, f"not JSON{': a byte order mark (BOM) stands in front' if has_mark else ''}")
    try:
        found = bytes(_decode_id(text).id) or NULL
    except NOT_JSON:
        return Invalid(INVALID_REQUEST, "a request is an object")
    if found[0] not in _ID_STARTS:
        return Invalid(INVALID_REQUEST, "id is a string, a number or null")
    try:
        _decode_call(text)
    except NOT_JSON as problem:
        return Invalid(INVALID_REQUEST, str(problem), found)
    return Invalid(INVALID_REQUEST, "params are an object or an array", found)


def encode(value: object) -> bytes:
    """A value → JSON. What JSON has no type for becomes its `str`."""
    return _encode(value)


def reply(request_id: msgspec.Raw | bytes, result: bytes) -> bytes:
    """The answer to a call; `result` is JSON."""
    return b"".join((b'{"jsonrpc":"2.0","id":', request_id, b',"result":', result, b"}"))


def fault(
    request_id: msgspec.Raw | bytes,
    code: int,
    message: str,
    data: object = None,
    *,
    result: bytes | None = None,
) -> bytes:
    """The answer to a call that failed; `data` any value or None, `result` JSON to send beside the error.

    A result beside an error is no JSON-RPC 2.0; five real clients need one (contract C-4).
    """
    error = {"code": code, "message": message} if data is None else {"code": code, "message": message, "data": data}
    beside = b"" if result is None else b',"result":' + result
    return b"".join((b'{"jsonrpc":"2.0","id":', request_id, b',"error":', _encode(error), beside, b"}"))


def notification(method: str, params: bytes) -> bytes:
    """A notification of the server; `params` is JSON."""
    return b"".join((b'{"jsonrpc":"2.0","method":', _encode(method), b',"params":', params, b"}"))


def join(replies: Sequence[bytes]) -> bytes:
    """The answers to the members of a batch → one message."""
    return b"[" + b",".join(replies) + b"]"
