"""library/fmp4.py: what a segment holds, and no bytes that make the reader do anything but refuse."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from fractions import Fraction

import pytest
from fmp4_helpers import HEADER_TICKS, make_segment
from hypothesis import example, given
from hypothesis import strategies as st

from edged.library.fmp4 import NotASegment, Segment, read_codecs, read_segment, shift_part


def read(data: bytes) -> Segment:
    return read_segment(io.BytesIO(data))


def test_duration_and_key_frames_come_from_the_samples() -> None:
    """The duration in the header is 0 where the writer was killed."""
    segment = read(make_segment(parts=3, samples=10, ticks=9000, key_every=15, declared=0))
    assert segment.duration == Fraction(3 * 10 * 9000, HEADER_TICKS)
    assert [key for part in segment.parts for key in part.keys] == [Fraction(0), Fraction(15 * 9000, HEADER_TICKS)]
    assert (segment.is_closed, segment.is_whole, len(segment.parts)) == (False, True, 3)
    assert read(make_segment(declared=1)).is_closed


def test_the_recorder_and_the_number_of_a_segment_are_read() -> None:
    origin = read(make_segment(stream=b"s" * 16, number=7, at_ns=1_796_000_000_123_456_789)).origin
    assert origin is not None
    assert (origin.stream, origin.number, origin.at_ns) == (b"s" * 16, 7, 1_796_000_000_123_456_789)


def test_a_file_that_was_cut_anywhere_gives_its_whole_parts() -> None:
    data = make_segment(parts=4)
    whole = read(data)
    for length in range(len(data)):
        if length < whole.header_size:
            with pytest.raises(NotASegment):
                read(data[:length])
            continue
        cut = read(data[:length])
        assert cut.parts == whole.parts[: len(cut.parts)]
        assert cut.size <= length
        assert cut.is_whole == (cut.size == length)
        missing = whole.parts[len(cut.parts)]
        assert missing.offset + missing.size > length


@given(st.integers(0, 5), st.integers(1, 20), st.integers(1, 90_000), st.integers(0, 1_000_000))
def test_joined_segments_follow_each_other(parts: int, samples: int, ticks: int, first: int) -> None:
    """Each part of the second begins where the first ended, and sequence numbers rise."""
    one = make_segment(parts=3, samples=5, ticks=3000)
    two = make_segment(parts=parts, samples=samples, ticks=ticks, begin=first)
    head, tail = read(one), read(two)
    joined = bytearray(one)
    for number, part in enumerate(tail.parts, len(head.parts)):
        joined += shift_part(two[part.offset : part.offset + part.size], tail.tracks, head.duration, number)
    both = read(bytes(joined))
    assert len(both.parts) == 3 + parts
    for before, after in zip(tail.parts, both.parts[3:], strict=True):
        assert (after.begin, after.end) == (before.begin + head.duration, before.end + head.duration)
        assert after.size == before.size


def test_codecs_are_equal_whatever_else_the_header_says() -> None:
    one, two = make_segment(number=1, declared=5), make_segment(number=2, declared=0)
    other = make_segment(codec=b"hvc1")
    assert read_codecs(one[: read(one).header_size]) == read_codecs(two[: read(two).header_size])
    assert read_codecs(one[: read(one).header_size]) != read_codecs(other[: read(other).header_size])


@given(st.binary(max_size=400))
@example(struct.pack(">I4s", 8, b"ftyp") + struct.pack(">I4sQ", 1, b"moov", 1 << 63))
@example(struct.pack(">I4s", 8, b"ftyp") + struct.pack(">I4s", 0, b"moov"))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(NotASegment, match=r"."):
        read(data)


@given(st.data())
def test_a_damaged_segment_is_refused_or_read(data: st.DataObject) -> None:
    """Bytes changed anywhere: never another exception, never a part outside of the file."""
    damaged = bytearray(make_segment(parts=2, samples=4))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        segment = read(bytes(damaged))
    except NotASegment:
        return
    assert all(part.offset >= 0 and part.offset + part.size <= len(damaged) for part in segment.parts)
    for part in segment.parts:
        with suppress(NotASegment):
            shift_part(bytes(damaged[part.offset : part.offset + part.size]), segment.tracks, Fraction(1), 1)
