"""Camera slots on disk: which device is `cameraN`. Functions of a connection."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

import msgspec


@dataclass(frozen=True, slots=True)
class Slot:
    """A camera's number for good: `camera{number}`; `label` is what people call it, `kind` usb, rtsp or test.

    `identity` for a USB camera: `model`, `serial`, `port`, `part` (all text); empty for a configured one,
    which is known by its label.
    """

    number: int
    identity: dict[str, str]
    label: str
    kind: Literal["usb", "rtsp", "test"]

    @property
    def name(self) -> str:
        """The camera's name and MediaMTX path, `camera0`."""
        return f"camera{self.number}"


def load(connection: sqlite3.Connection) -> list[Slot]:
    """Every slot, by number."""
    rows = connection.execute("SELECT number, identity, label, kind FROM cameras ORDER BY number")
    return [Slot(row[0], msgspec.json.decode(row[1], type=dict[str, str]), row[2], row[3]) for row in rows]


def save(connection: sqlite3.Connection, slot: Slot) -> None:
    """A slot as it is now, new or changed."""
    connection.execute(
        "INSERT INTO cameras (number, identity, label, kind) VALUES (?, ?, ?, ?) ON CONFLICT (number) DO UPDATE"
        " SET identity = excluded.identity, label = excluded.label, kind = excluded.kind",
        (slot.number, msgspec.json.encode(slot.identity, order="sorted").decode(), slot.label, slot.kind),
    )
