"""operations/effects.py: which rights somebody has, and which words of rights give nothing (contract 7.3, 7.5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import GATE, YARD, Bench
from web_helpers import Cameras

from edged.credentials.callers import Streams
from edged.credentials.roles import CAPABILITIES, compute, expand, has_effect
from edged.operations.effects import list_effective, list_without_effect

CAMERAS: Any = Cameras(GATE, YARD)


def test_whole_rights_and_those_on_one_camera_are_listed_sorted() -> None:
    bench = Bench()
    caller = bench.caller(permissions=("camera:read:camera1", "system:read"))
    assert list_effective(caller) == ["camera:read:camera1", "stream:read:camera1", "system:read"]
    everything = list_effective(bench.caller("admin"))
    assert everything == sorted(everything)
    assert set(everything) <= CAPABILITIES
    # Whoever changes the list that was shown changes no other.
    list_effective(caller).clear()
    assert len(list_effective(caller)) == 3


def test_unknown_permissions_cameras_and_streams_are_named_in_their_order() -> None:
    """`*` and beginnings name no single camera; a name that no path can have is refused elsewhere."""
    idle = list_without_effect(
        ["camera:read", "nope", "raed:cameras"],
        ["camera0", "camera9", "*", "gate", "/dev/video7"],
        CAMERAS,
        Streams(frozenset({"zone", "camera0", "cam*", "*", "no such name"}), frozenset({"attic", "gate"})),
    )
    assert idle == ["nope", "raed:cameras", "camera9", "/dev/video7", "attic", "zone"]


def test_where_nothing_is_said_nothing_is_without_effect() -> None:
    assert list_without_effect(None, None, CAMERAS) == []
    assert list_without_effect([], [], CAMERAS, Streams()) == []


@given(st.lists(st.text(max_size=20) | st.sampled_from(sorted(CAPABILITIES))))
def test_a_permission_is_named_exactly_where_it_gives_nothing(words: list[str]) -> None:
    assert list_without_effect(words, None, CAMERAS) == [word for word in words if not has_effect(word)]


@given(st.text(max_size=20) | st.sampled_from(sorted(CAPABILITIES)).map(lambda name: name[::-1]))
def test_a_word_that_reaches_a_capability_is_never_called_idle(word: str) -> None:
    """Whatever the grammar makes of it."""
    if any(expand([word])):
        assert has_effect(word)


@pytest.mark.parametrize("word", ["nope", "camera", "camera:", "camera:raed", "raed:cameras", "camra:read", "x", ""])
def test_a_word_called_idle_gives_nothing_to_anybody(word: str) -> None:
    """Not even to an administrator."""
    assert not has_effect(word)
    assert compute(frozenset({"admin"}), [word], has_streams=False) == (frozenset(), frozenset())


def test_the_words_of_many_keys_are_looked_at_once_each() -> None:
    """A list of 20,000 keys holds the event loop: what is the same is not computed again."""
    has_effect.cache_clear()
    for _ in range(1000):
        assert has_effect("read:posts")
    assert has_effect.cache_info().misses == 1
