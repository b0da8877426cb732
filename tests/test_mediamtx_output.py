"""What MediaMTX writes: lines in pieces, floods, hostile text, and what they say about a failed start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edged.mediamtx.output import LINE_BYTES, LINES_A_SECOND, TAIL_LINES, Line, Output, diagnose, parse_line


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'{"timestamp":"2026-11-22T06:13:45Z","level":"INF","message":"[RTSP] x"}', Line("info", "[RTSP] x")),
        (b'{"level":"ERR","message":"listen"}', Line("error", "listen")),
        (b'{"level":"WAR","message":"w"}', Line("warning", "w")),
        (b'{"level":"DEB","message":"d"}', Line("debug", "d")),
        (b'{"level":"???","message":"d"}', Line("info", "d")),
        (b'ERR: json: unknown field "foo"', Line("error", 'json: unknown field "foo"', early=True)),
        (b'{"level":"WAR","message":"\\x1b"}', Line("info", '{"level":"WAR","message":"\\x1b"}')),
        (b"[1]", Line("info", "[1]")),
        (b'{"level":[],"message":"d"}', Line("info", '{"level":[],"message":"d"}')),
        (b"\xff plain", Line("info", "\ufffd plain")),
    ],
)
def test_a_line_is_json_or_itself(raw: bytes, line: Line) -> None:
    """Structured lines give level and message, everything else stays as it is."""
    assert parse_line(raw) == line


@given(st.binary())
def test_no_bytes_break_the_reading(raw: bytes) -> None:
    """A hook's or a client's text inside a line cannot stop the drain."""
    assert parse_line(raw).level in {"debug", "info", "warning", "error"}


def test_nested_text_does_not_exhaust_the_parser() -> None:
    """A deep nest of brackets is a line like another."""
    assert parse_line(b"[" * LINE_BYTES).level == "info"


@given(st.lists(st.binary(max_size=40)), st.integers(1, 7))
def test_lines_are_the_same_in_whatever_pieces_they_come(lines: list[bytes], size: int) -> None:
    """Where a read ends says nothing."""
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"\n".join(lines)
    whole, pieces = Output(lambda: 0.0), Output(lambda: 0.0)
    whole.feed(data)
    for start in range(0, len(data), size):
        pieces.feed(data[start : start + size])
    whole.finish()
    pieces.finish()
    assert list(pieces.tail) == list(whole.tail) == [line for line in lines if line.strip()][-TAIL_LINES:]


def test_a_line_without_end_is_cut() -> None:
    """It cannot fill the memory."""
    output = Output(lambda: 0.0)
    for _ in range(100):
        output.feed(b"x" * 65536)
    output.finish()
    assert list(output.tail) == [b"x" * LINE_BYTES]


def test_levels_reach_the_log_and_a_flood_is_counted() -> None:
    """So many lines a second are logged, the others are told as a number when the second is over."""
    now = [0.0]
    output = Output(lambda: now[0])
    with capture_logs() as logs:
        output.feed(b"ERR: broken\n" + b"spam\n" * 1000)
        assert len(logs) == LINES_A_SECOND
        now[0] = 1.0
        output.feed(b"calm\n")
        output.finish()
    assert logs[0]["log_level"] == "error"
    assert logs[0]["text"] == "broken"
    assert [entry["count"] for entry in logs if entry["event"] == "lines_left_out"] == [1001 - LINES_A_SECOND]
    assert logs[-1]["text"] == "calm"


def test_the_end_of_a_flood_is_remembered_even_if_not_logged() -> None:
    """The last lines before a crash are the ones that explain it."""
    output = Output(lambda: 0.0)
    output.feed(b"spam\n" * 1000 + b"ERR: the reason\n")
    assert output.tail[-1] == b"ERR: the reason"


def test_a_taken_port_is_told_from_a_refused_configuration() -> None:
    """Each by MediaMTX's own words; the first error counts, and other lines say nothing."""
    taken = diagnose([Line("info", "x"), Line("error", "listen udp :8189: bind: address already in use")])
    assert taken is not None
    assert (taken.status, taken.port, taken.transport) == ("port_taken", 8189, "udp")
    v6 = diagnose([Line("error", "listen tcp6 [::1]:80: bind: address already in use")])
    assert v6 is not None
    assert (v6.port, v6.transport) == (80, "tcp")
    refused = diagnose([Line("error", 'json: unknown field "moq"', early=True)])
    assert refused is not None
    assert (refused.status, refused.unknown_key) == ("config_refused", "moq")
    address = diagnose([Line("error", "listen tcp 192.0.2.7:1: bind: cannot assign requested address")])
    assert address is not None
    assert (address.status, address.unknown_key) == ("config_refused", "")
    assert diagnose([Line("info", "listen"), Line("error", "it broke")]) is None
