"""The numbers of cameras: which were given, and which of them the store has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, TypeAlias

from msgspec.structs import replace

from edged.access.grants import Commit
from edged.cameras import identity
from edged.store.cameras import Slot

#: More cameras than this are a device that makes up names, not cameras.
MOST_SLOTS: Final = 128
#: Commits slots that somebody has changed, each with what it was before, None for a new one; raises EdgedError if it
#: cannot.
SaveChanged: TypeAlias = Callable[[Sequence[tuple[Slot, Slot | None]], Commit], Awaitable[None]]


class Slots:
    """Every slot that was given. `load` is called once; `save` commits one slot and raises EdgedError if it cannot."""

    def __init__(self, load: Callable[[], Iterable[Slot]], save: Callable[[Slot], Awaitable[None]]) -> None:
        self._load = load
        self._save = save
        self._given: dict[int, Slot] = {}
        self._stored: dict[int, Slot] = {}

    def load(self) -> None:
        """Take what the store has; called once, at the start."""
        self._stored = {slot.number: slot for slot in self._load()}
        self._given = dict(self._stored)

    def all(self) -> Collection[Slot]:
        """Every slot, in the order in which they were given."""
        return self._given.values()

    @property
    def is_full(self) -> bool:
        """Whether no further device gets a number."""
        return sum(slot.kind == "usb" for slot in self._given.values()) >= MOST_SLOTS

    def first_free(self) -> int:
        """The number for a new camera."""
        return identity.first_free(self._given.values())

    async def give(self, slot: Slot) -> None:
        """Note a slot as it is now; a new one is stored first, so that its number is never another's.

        Raises StoreFailed or Overloaded; the slot stays given.
        """
        self._given[slot.number] = slot
        if slot.number not in self._stored:
            await self.store(slot)

    async def store(self, slot: Slot) -> None:
        """Commit a slot unless the store has it so already. Raises StoreFailed or Overloaded."""
        if self._stored.get(slot.number) != slot:
            await self._save(slot)
            self._stored[slot.number] = slot

    async def retire(self, number: int, may_retire: Callable[[], bool], save: SaveChanged, commit: Commit) -> bool:
        """No device gets this USB camera's slot any more, and no other camera its number; whether that was done.

        `may_retire` is asked before the commit and after it: a device that took the slot meanwhile keeps it.
        Raises StoreFailed or Overloaded.
        """
        slot = self._given[number]
        if not may_retire():
            return False
        retired = replace(slot, identity={})
        await save([(retired, slot)], commit)
        self._stored[number] = retired
        if may_retire():
            self._given[number] = retired
            return True
        await self.store(self._given[number])
        return False

    async def change(self, slots: Sequence[Slot], save: SaveChanged, commit: Commit) -> None:
        """Commit slots that somebody has changed or made; if that fails, nothing has changed.

        Raises what the commit raises.
        """
        changes = [(slot, self._given.get(slot.number)) for slot in slots]
        with ExitStack() as stack:
            for slot in slots:
                stack.enter_context(self.reserved(slot))
            await save(changes, commit)

    @contextmanager
    def reserved(self, slot: Slot) -> Iterator[None]:
        """No other camera gets this number while the block commits the slot; if that fails, nothing has changed."""
        before = self._given.get(slot.number)
        self._given[slot.number] = slot
        try:
            yield
        except BaseException:
            if before is None:
                del self._given[slot.number]
            else:
                self._given[slot.number] = before
            raise
        self._stored[slot.number] = slot
