"""Camera slots on disk: which device is `cameraN`. Functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True)
class Slot:
    """`camera<slot>`, what people call it, and the identity fields of the device that it belongs to."""

    slot: int
    label: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)


def load(connection: sqlite3.Connection) -> list[Slot]:
    """Every slot, by number."""
    rows = connection.execute("SELECT slot, label, identity FROM cameras ORDER BY slot")
    return [Slot(slot, label, msgspec.json.decode(identity, type=dict[str, str])) for slot, label, identity in rows]


def save(connection: sqlite3.Connection, slot: Slot) -> None:
    """A slot as it is now, new or changed."""
    connection.execute(
        "INSERT INTO cameras (slot, label, identity) VALUES (?, ?, ?) ON CONFLICT (slot) DO UPDATE"
        " SET label = excluded.label, identity = excluded.identity",
        (slot.slot, slot.label, msgspec.json.encode(dict(slot.identity), order="sorted").decode()),
    )
