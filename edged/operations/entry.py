"""What an HTTP endpoint needs of edged beside operations: who is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from edged.access.gate import Gate
    from edged.operations.services import Services


class Entry(NamedTuple):
    """`root_needs_no_key`: root may administer keys over loopback HTTP without a credential (contract 5.1)."""

    gate: Gate
    root_needs_no_key: bool


def entry_of(services: Services) -> Entry:
    """Of this daemon."""
    return Entry(services.gate, services.root_needs_no_key)
