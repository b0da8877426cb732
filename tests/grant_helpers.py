"""Grants without a registrar, and a change that writes nothing, for parts that stand in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from edged.access.grants import Commit, Grant
from edged.accounts.jobs import keep
from edged.errors import Refused
from edged.store.database import Database
from edged.store.jobs import Transaction

T = TypeVar("T")


async def nothing(commit: Commit) -> None:
    """A change that writes nothing, if it is granted."""
    await commit(keep, undo=keep)


async def at_once(work: Callable[[Commit], Awaitable[T]]) -> T:
    """Everything is granted, and nothing is written."""
    return await work(_commit)


async def _commit(write: Any, *, undo: Any) -> Any:
    await trio.lowlevel.checkpoint()


async def refuse_all(work: Callable[[Commit], Awaitable[T]]) -> T:
    """Whoever asked was revoked meanwhile."""
    await trio.lowlevel.checkpoint()
    raise Refused("revoked")


def ended_meanwhile(db: Database) -> Grant:
    """The right ends while the commit runs: it is made, and taken back before anybody is answered."""

    async def commit(write: Transaction[T], *, undo: Transaction[object]) -> T:
        await db.write(write)
        await db.write(undo)
        raise Refused("revoked")

    async def grant(work: Callable[[Commit], Awaitable[T]]) -> T:
        return await work(commit)

    return grant
