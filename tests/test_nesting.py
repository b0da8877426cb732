"""The depth of JSON text: right for every text, and found in one pass."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged import nesting
from edged.nesting import commas_in_steps, depth_in_steps, depth_of, finish

MOST = 1000


def depth_by_hand(text: bytes) -> int:
    """The same, one character after another, as far as a parser reads: to a backslash outside of a string."""
    depth = deepest = at = 0
    in_string = False
    while at < len(text):
        char = text[at : at + 1]
        if char == b"\\":
            if not in_string:
                break
            at += 1
        elif char == b'"':
            in_string = not in_string
        elif not in_string and char in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not in_string and char in b"]}":
            depth -= 1
        at += 1
    return deepest


def height_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(height_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(height_of, value), default=0)
    return 0


def commas_in(value: object) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return max(len(inner) - 1, 0) + sum(map(commas_in, inner))


TEXTS = st.text(alphabet='[]{}"\\a,:', max_size=12)
VALUES = st.recursive(
    st.none() | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)

PARTS = st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b'\\"', b"\\\\", b"x", b" ", b","]), max_size=60)


@given(VALUES)
def test_the_depth_of_json_is_the_height_of_its_value(value):
    """Brackets and quotes inside strings and names count for nothing."""
    assert depth_of(json.dumps(value).encode(), MOST) == height_of(value)


@given(VALUES)
def test_the_commas_of_json_are_those_between_members(value):
    """Those in strings and names are not counted."""
    assert finish(commas_in_steps(json.dumps(value).encode())) == commas_in(value)


@given(PARTS, st.integers(1, 9))
def test_a_text_in_pieces_is_the_same_text(parts, size):
    """Wherever it is cut: in a string, between two backslashes, before an escaped quote."""
    text = b"".join(parts)
    whole = depth_of(text, MOST), finish(commas_in_steps(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "PIECE", size)
        assert (depth_of(text, MOST), finish(commas_in_steps(text))) == whole


@pytest.mark.parametrize("unit", [b'\\"', b"\\\\", b'","', b",[]", b'"[",', b"x", b'\\\\\\"'])
def test_no_step_looks_at_more_than_a_piece(unit, monkeypatch):
    """A mebibyte in sixteen steps, whatever is in it."""
    sizes, reduce = [], nesting._reduce

    def reduce_and_note(piece, deleted):
        sizes.append(len(piece))
        return reduce(piece, deleted)

    monkeypatch.setattr(nesting, "_reduce", reduce_and_note)
    text = b'["' + unit * (2**20 // len(unit))
    for steps in (depth_in_steps(text, 2**20), commas_in_steps(text)):
        sizes.clear()
        for number, _step in enumerate(steps, start=1):
            assert len(sizes) == number
        assert sum(sizes) == len(text)
        assert max(sizes) <= nesting.PIECE + 1


@given(PARTS)
def test_the_depth_of_broken_json_is_at_least_what_a_parser_reaches(parts):
    """An unclosed string reaches to the end; brackets that close nothing are no error here."""
    text = b"".join(parts)
    found = depth_of(text, MOST)
    assert found is not None
    assert found >= depth_by_hand(text)


@pytest.mark.parametrize("text", [b"[]" * 501, b"[" * 1001, b'"[",[' * 600])
def test_too_many_brackets_have_no_depth(text):
    """They are refused without being looked at."""
    assert depth_of(text, MOST) is None


def test_text_without_brackets_is_flat():
    """Whatever its length and its quotes."""
    assert depth_of(b'"a\\"b\\\\",' * 10_000, MOST) == 0
    assert depth_of(b"", MOST) == 0
