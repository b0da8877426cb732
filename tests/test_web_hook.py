"""MediaMTX's question as bytes: always an answer, never an exception."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edged.operations.streams import Answer, StreamRequest
from edged.web.mediamtx_hook import make_answer

ASKED = {
    "ip": "127.0.0.1", "user": "u", "password": "p", "token": "t", "action": "read", "path": "camera0",
    "protocol": "rtsp", "id": "5a1c7a40-1111-2222-3333-444455556666", "query": "token=x", "userAgent": "ffmpeg",
}  # fmt: skip


def test_a_yes_is_204_without_a_body() -> None:
    """Every member that MediaMTX sends arrives; MediaMTX does not read the body of a yes."""
    seen: list[StreamRequest] = []

    def admit(question: StreamRequest) -> Answer:
        seen.append(question)
        return Answer(True)

    assert make_answer(admit)(json.dumps(ASKED).encode()) == (204, b"")
    assert {name: getattr(seen[0], name) for name in ASKED} == ASKED


def test_a_no_is_401_with_a_short_ascii_reason() -> None:
    """MediaMTX copies the body into its log."""
    answer = make_answer(lambda _question: Answer(False, "unknown_key"))
    assert answer(json.dumps(ASKED).encode()) == (401, b"unknown_key")
    long = make_answer(lambda _question: Answer(False, "é" + "x" * 1000))
    status, body = long(b"{}")
    assert (status, len(body)) == (401, 64)
    assert body.isascii()


def test_what_is_left_out_is_empty() -> None:
    """`id` may be null, members may be missing, and newer ones are passed over."""
    seen: list[StreamRequest] = []

    def take(question: StreamRequest) -> Answer:
        seen.append(question)
        return Answer(True)

    answer = make_answer(take)
    assert answer(b'{"action": "api", "id": null, "new": [1]}')[0] == 204
    assert (seen[0].id, seen[0].path, seen[0].action) == (None, "", "api")


def test_a_mistake_of_ours_is_a_no() -> None:
    """It fails closed, and MediaMTX gets its answer."""

    def admit(question: StreamRequest) -> Answer:
        raise ZeroDivisionError

    status, body = make_answer(admit)(json.dumps(ASKED).encode())
    assert (status, body.isascii()) == (500, True)


QUESTIONS = st.dictionaries(
    st.sampled_from(sorted(ASKED)), st.none() | st.integers() | st.text(max_size=20) | st.lists(st.integers())
)


@given(st.binary(max_size=300) | st.builds(lambda value: json.dumps(value).encode(), QUESTIONS))
def test_any_body_has_an_answer(body: bytes) -> None:
    """Unreadable is 400, readable goes to the gate; nothing else happens."""
    assert make_answer(lambda _question: Answer(True))(body)[0] in (204, 400)


def test_deep_nesting_is_only_unreadable() -> None:
    """A body of brackets does not reach Python's recursion limit as an exception."""
    assert make_answer(lambda _question: Answer(True))(b'{"x":' + b"[" * 100_000)[0] == 400
