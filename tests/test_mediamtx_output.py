"""What MediaMTX writes: lines in pieces, floods, hostile text, and what they say about a failed start."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from log_helpers import kept_log
from media_helpers import REAL, eventually, open_hook, open_rtsp, running, supervisor, until
from patience import fail_after
from pictures_helpers import Camera
from structlog.testing import capture_logs

from edged.mediamtx.output import (
    LINE_BYTES,
    LINES_A_MINUTE,
    LINES_A_SECOND,
    TAIL_LINES,
    Line,
    Output,
    diagnose,
    parse_line,
)
from edged.mediamtx.settings import path_conf


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


def test_a_flood_that_goes_on_is_a_line_a_minute_in_the_end() -> None:
    """Whoever connects twenty times a second for ten minutes: what is left out is told once a minute."""
    now = [0.0]
    output = Output(lambda: now[0])
    with capture_logs() as logs:
        for second in range(600):
            now[0] = float(second)
            output.feed(b"spam\n" * 20)
        output.finish()
    told = [entry["count"] for entry in logs if entry["event"] == "lines_left_out"]
    assert len(logs) - len(told) == 10 * LINES_A_MINUTE
    assert told == [20 * 60 - LINES_A_MINUTE] * 10


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


@given(st.integers(0, 2 * LINE_BYTES), st.integers(1, 700), st.sampled_from([b"\n", b""]))
def test_a_secret_is_masked_wherever_it_stands(before: int, piece: int, end: bytes) -> None:
    """Whole or at the limit of a line, in whatever pieces it comes: no half of it is kept or logged."""
    secret = "Zq3-unguessable_path-of-the-hook"
    text = b"x" * before + secret.encode() + b"y" * 50 + end
    with capture_logs() as logs:
        output = Output(lambda: 0.0, secrets=[secret])
        for start in range(0, len(text), piece):
            output.feed(text[start : start + piece])
        output.finish()
    kept = b"".join(output.tail).decode() + "".join(str(entry.get("text", "")) for entry in logs)
    assert not any(letter in kept for letter in set(secret) - set("xy*"))


@pytest.mark.mediamtx
async def test_what_mediamtx_says_of_a_hook_that_fails_does_not_name_its_path(tmp_path: Path) -> None:
    """Its errors hold the whole address that it asked; the log has it without the path."""
    wanted = {"camera0": path_conf(Camera(always_on=True))}

    def hang_up(_question: dict[str, object]) -> bool:
        raise trio.ClosedResourceError

    with fail_after(60), kept_log() as log:
        async with open_hook(hang_up) as hook:
            server = supervisor(hook, tmp_path / "run", str(REAL), wanted_paths=lambda: wanted)
            async with running(server.run):
                state = await until(server, "ready")
                async with open_rtsp(state.rtsp_port, "camera0") as reader:
                    login = "Basic " + base64.b64encode(b"a:b").decode()
                    assert await reader.ask("DESCRIBE", Accept="application/sdp", Authorization=login) == 401
                await eventually(lambda: "failed to authenticate" in log.getvalue())
    address, _, path = hook.url.removeprefix("http://").partition("/")
    assert address in log.getvalue()
    assert path not in log.getvalue()
