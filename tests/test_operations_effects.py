"""RPC and REST take words that give nothing (contract 7.3, 7.5), and their replies name these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.roles import CAPABILITIES, compute, expand, has_effect


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
