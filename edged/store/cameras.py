"""Camera slots on disk: which device is `cameraN`. Functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import ClassVar, Literal, TypeAlias

import msgspec

from edged.structs import Discreet

#: How a slot came to be: a device was plugged in, a camera was described, a test picture was.
SlotKind: TypeAlias = Literal["usb", "rtsp", "test"]


class Slot(msgspec.Struct, frozen=True):
    """A camera's number for good: `camera{number}`; `label` is what people call it.

    `identity` for a USB camera: the record of its device (cameras.identity); for one that somebody described `source`,
    a digest of it without credentials. Either may hold `id`, the operator's. Empty in slots of before, which are known
    by their label. `path` at MediaMTX, "" for the slot's own name. `binding`: why that device is this camera, one
    sentence.
    """

    number: int
    identity: dict[str, str]
    label: str
    kind: SlotKind
    path: str = ""
    binding: str = ""

    @property
    def is_retired(self) -> bool:
        """Whether it was a USB camera's that was removed: no device fits it, and its number is not given again."""
        return self.kind == "usb" and not self.identity

    @property
    def name(self) -> str:
        """The camera's name, `camera0`."""
        return f"camera{self.number}"


def load(connection: sqlite3.Connection) -> list[Slot]:
    """Every slot, by number."""
    rows = connection.execute("SELECT number, identity, label, kind, path, binding FROM cameras ORDER BY number")
    return [Slot(row[0], msgspec.json.decode(row[1], type=dict[str, str]), *row[2:]) for row in rows]


def save(connection: sqlite3.Connection, slot: Slot) -> None:
    """A slot as it is now, new or changed."""
    identity = msgspec.json.encode(slot.identity, order="sorted").decode()
    connection.execute(
        "INSERT INTO cameras (number, identity, label, kind, path, binding) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (number) DO UPDATE SET identity = excluded.identity, label = excluded.label,"
        " kind = excluded.kind, path = excluded.path, binding = excluded.binding",
        (slot.number, identity, slot.label, slot.kind, slot.path, slot.binding),
    )


def save_all(connection: sqlite3.Connection, slots: Iterable[Slot]) -> None:
    """Slots as they are now, each new or changed."""
    for slot in slots:
        save(connection, slot)


def put_all_back(connection: sqlite3.Connection, slots: Iterable[tuple[Slot, Slot | None]]) -> None:
    """Each of these, as it is now, becomes what it was before; a new one was not to be made."""
    for now, before in slots:
        if before is None:
            connection.execute("DELETE FROM cameras WHERE number = ?", (now.number,))
        else:
            save(connection, before)


class Added(Discreet, msgspec.Struct, frozen=True):
    """A camera that a call has added. `settings` JSON text, its source with credentials; `address` the literal one."""

    hidden: ClassVar = frozenset({"settings"})

    number: int
    settings: str
    address: str


def load_added(connection: sqlite3.Connection) -> list[Added]:
    """Every added camera, by number."""
    return [Added(*row) for row in connection.execute("SELECT number, settings, address FROM added_cameras ORDER BY 1")]


def save_added(connection: sqlite3.Connection, slot: Slot, added: Added) -> None:
    """An added camera and its slot as they are now, new or changed."""
    save(connection, slot)
    connection.execute(
        "INSERT INTO added_cameras (number, settings, address) VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE"
        " SET settings = excluded.settings, address = excluded.address",
        (added.number, added.settings, added.address),
    )


def forget_added(connection: sqlite3.Connection, slot: Slot, added: Added) -> None:
    """An added camera in a new slot was not to be added; nobody has seen its number."""
    gone = connection.execute(
        "DELETE FROM added_cameras WHERE number = ? AND settings = ?", (added.number, added.settings)
    )
    if gone.rowcount:
        connection.execute("DELETE FROM cameras WHERE number = ?", (slot.number,))


def put_back(connection: sqlite3.Connection, slot: Slot) -> None:
    """There is no added camera in this slot, which is as it was before."""
    remove_added(connection, slot.number)
    save(connection, slot)


def remove_added(connection: sqlite3.Connection, number: int) -> None:
    """An added camera is no more; its slot stays its own."""
    connection.execute("DELETE FROM added_cameras WHERE number = ?", (number,))
