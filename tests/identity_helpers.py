"""Identities by their texts, for tests."""

from __future__ import annotations

from typing import Any

from edged.access.ledger import Ledger
from edged.credentials.identities import Identity

#: `named("key:key_1")`
named = Identity.parse


def all_named(*texts: str) -> frozenset[Identity]:
    """All of these, as a set."""
    return frozenset(map(named, texts))


def lines_of(ledger: Ledger, member: str = "before") -> dict[Identity, Any]:
    """One member (before, own_before, epoch, second) of every scope's cut-off that has it."""
    lines = ledger.cut_offs.all().items()
    nothing = (None, 0) if member == "epoch" else (None,)
    return {scope: value for scope, line in lines if (value := getattr(line, member)) not in nothing}
