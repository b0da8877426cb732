"""Identities by their texts, for tests."""

from __future__ import annotations

from edged.credentials.identities import Identity

#: `named("key:key_1")`
named = Identity.parse


def all_named(*texts: str) -> frozenset[Identity]:
    """All of these, as a set."""
    return frozenset(map(named, texts))
