"""How a change that somebody asks for reaches trust.db: by a grant, which is handed down in place of the database.

A part that keeps something in trust.db takes a `Grant` with each change that can be asked for, and does the change in
`work`, to which the grant hands the only way to the disk. In the daemon it is the registrar's (accounts.jobs): it asks
for the right again right before the commit and after it. What edged does by itself is committed by `Upkeep`;
tests/test_trust_writes.py names every place that does so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

from edged.store.database import Database
from edged.store.jobs import Transaction

T = TypeVar("T")


class Commit(Protocol):
    """One transaction."""

    async def __call__(self, write: Transaction[T], *, undo: Transaction[object]) -> T:
        """`undo` takes exactly this back: it is made if the right ended while the commit ran. Raises what the right
        raises, or as Database.write does: then nothing was changed."""


class Grant(Protocol):
    """The right to a change, and the way to make it."""

    async def __call__(self, work: Callable[[Commit], Awaitable[T]]) -> T:
        """Do the work, which awaits nothing but its commit and what is as short; once it has begun it ends, whoever
        hangs up. Raises what the work raises, Overloaded, StoreFailed, and Refused if whoever asked was revoked
        meanwhile: then nothing was changed, or it was changed before that."""


class Upkeep:
    """A grant for what edged does by itself: never for anything that somebody asks for."""

    def __init__(self, db: Database, *, may_stand: bool = False) -> None:
        """`may_stand`: it is part of a denial, for which the disk keeps space."""
        self._db = db
        self._may_stand = may_stand

    async def __call__(self, work: Callable[[Commit], Awaitable[T]]) -> T:
        with trio.CancelScope(shield=True):
            value = await work(self.commit)
        return value  # noqa: RET504 (mypy: the scope above might swallow)

    async def commit(self, write: Transaction[T], *, undo: Transaction[object]) -> T:  # noqa: ARG002
        """Nothing is undone: there is no right that could end."""
        return await self._db.write(write, may_stand=self._may_stand)
