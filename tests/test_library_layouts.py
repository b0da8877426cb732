"""library/layouts.py: where a player can begin in a segment."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from itertools import pairwise

import pytest
from fmp4_helpers import make_segment
from hypothesis import given
from hypothesis import strategies as st

from edged.library.fmp4 import Part, Segment, Track, read_segment
from edged.library.layouts import (
    FRAGMENT_SECONDS,
    LONG_SECONDS,
    LONGEST_SECONDS,
    Layout,
    read_layout,
    write_layout,
)

VIDEO, SOUND = Track(1, "vide", 90_000), Track(2, "soun", 48_000)
#: Of a part: milliseconds, bytes, and where in it a key frame is, in milliseconds; None for none.
PARTS = st.lists(
    st.tuples(st.integers(1, 3000), st.integers(8, 10**6), st.none() | st.integers(0, 3000)), min_size=1, max_size=90
)


def make(parts: list[tuple[int, int, int | None]], *tracks: Track) -> Segment:
    found, at, offset = [], Fraction(0), 700
    for length, size, key in parts:
        end = at + Fraction(length, 1000)
        keys = () if key is None else (at + Fraction(key, 1000),)
        found.append(Part(offset, size, at, end, keys))
        at, offset = end, offset + size
    return Segment(650, offset, tracks or (VIDEO,), tuple(found), None, is_whole=True, is_closed=True)


def layout_of(segment: Segment) -> Layout:
    layout = read_layout(write_layout(segment))
    assert layout is not None
    return layout


@given(PARTS, st.booleans())
def test_fragments_hold_every_part_once_and_none_is_too_long(
    parts: list[tuple[int, int, int | None]], has_sound: bool
) -> None:
    segment = make(parts, *((VIDEO, SOUND) if has_sound else (VIDEO,)))
    layout = layout_of(segment)
    assert layout.header_size == 650
    at, offset = 0.0, 700
    begins = {float(part.begin): part for part in segment.parts}
    for fragment in layout.fragments:
        assert fragment.offset == offset
        assert abs(fragment.begin - at) < 1e-5
        part = next(part for begin, part in begins.items() if abs(begin - fragment.begin) < 1e-5)
        assert part.offset == fragment.offset
        assert fragment.is_independent == (bool(part.keys) and part.keys[0] - part.begin < Fraction(1, 10))
        longest = max(float(each.end - each.begin) for each in segment.parts)
        assert fragment.seconds <= LONGEST_SECONDS + longest
        at, offset = fragment.end, offset + fragment.size
    assert offset == segment.size
    assert abs(at - float(segment.duration)) < 1e-5


@given(PARTS, st.floats(-10, 200), st.floats(0.001, 200), st.sampled_from([4.0, 17.3, 60.0]))
def test_what_is_chosen_holds_the_time_that_was_asked_for(
    parts: list[tuple[int, int, int | None]], begin: float, length: float, seconds: float
) -> None:
    segment = make(parts)
    layout = layout_of(segment)
    end = begin + length
    chosen = read_layout(write_layout(segment), begin, end, seconds)
    assert chosen is not None
    found = chosen.fragments
    for before, after in pairwise(found):
        assert before.offset + before.size == after.offset
        assert abs(before.end - after.begin) < 1e-5
    whole = layout.fragments[-1].end
    if end <= 0:
        assert found == []
        return
    assert found[0].begin <= max(begin, 0) + 1e-6
    assert found[-1].end >= min(end, whole) - 1e-5
    assert found[-1].begin < end
    assert all(fragment.seconds <= max(seconds, LONGEST_SECONDS + 3.1) for fragment in found)
    # It begins with the last key frame before, if there is one.
    usable = [each.begin for each in layout.fragments if each.is_independent and each.begin <= begin]
    assert found[0].begin == (usable[-1] if usable else layout.fragments[0].begin)


def test_parts_that_begin_with_key_frames_are_cut_after_four_seconds() -> None:
    parts = [(1000, 100, 0 if number % 2 == 0 else None) for number in range(9)]
    found = layout_of(make(parts)).fragments
    assert [(each.begin, each.seconds, each.is_independent) for each in found] == [
        (0.0, FRAGMENT_SECONDS, True), (4.0, FRAGMENT_SECONDS, True), (8.0, 1.0, True)
    ]  # fmt: skip


def test_where_key_frames_lie_within_parts_a_fragment_is_longer() -> None:
    """MediaMTX cuts by duration: a fragment then begins with a part in which there is a key frame, at last with any."""
    parts: list[tuple[int, int, int | None]] = [(1000, 100, 0)]
    parts += [(1000, 100, 500 if number % 3 == 0 else None) for number in range(1, 30)]
    found = layout_of(make(parts)).fragments
    assert [each.begin for each in found] == [0.0, 12.0, 24.0]
    assert [each.is_independent for each in found] == [True, False, False]
    assert LONG_SECONDS < found[0].seconds < LONGEST_SECONDS
    none = layout_of(make([(1000, 100, 0), *[(1000, 100, None)] * 29])).fragments
    assert [each.begin for each in none] == [0.0, LONGEST_SECONDS]


def test_sound_can_be_begun_anywhere() -> None:
    found = layout_of(make([(1000, 10, None)] * 9, SOUND)).fragments
    assert [each.begin for each in found] == [0.0, 4.0, 8.0]
    assert all(each.is_independent for each in found)


def test_a_file_is_laid_out_as_it_is() -> None:
    data = make_segment(parts=40, samples=10, key_every=20)
    layout = layout_of(read_segment(BytesIO(data)))
    assert data[layout.header_size + 4 : layout.header_size + 8] == b"moof"
    for fragment in layout.fragments:
        assert data[fragment.offset + 4 : fragment.offset + 8] == b"moof"
    assert sum(fragment.size for fragment in layout.fragments) == len(data) - layout.header_size


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02" + bytes(16), b"\x03" + bytes(40), bytes(200)])
def test_what_is_no_layout_is_none(data: bytes) -> None:
    assert read_layout(data) is None


def test_files_of_the_same_tracks_and_codecs_are_told_from_others() -> None:
    def codecs_of(**made: bytes) -> int | None:
        return layout_of(read_segment(BytesIO(make_segment(**made)))).codecs  # type: ignore[arg-type]

    assert codecs_of() == codecs_of(stream=b"fedcba9876543210")
    assert codecs_of() != codecs_of(codec=b"hvc1")


def test_what_an_earlier_version_has_kept_is_read_without_its_codecs() -> None:
    data = write_layout(make([(1000, 5000, 0), (4000, 6000, 0)]))
    earlier = read_layout(b"\x01" + data[1:17] + data[21:])
    assert earlier == layout_of(make([(1000, 5000, 0), (4000, 6000, 0)]))._replace(codecs=None)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_layout_or_none(data: bytes) -> None:
    """Nothing is raised."""
    read_layout(data)


def test_a_segment_without_parts_has_none() -> None:
    assert write_layout(make([])) == b""


def test_what_does_not_fit_is_none() -> None:
    assert write_layout(make([(1000, 1 << 33, 0)])) == b""
