"""Grants without a registrar, and a change that writes nothing, for parts that stand in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from edged.access.grants import Commit
from edged.accounts.jobs import keep
from edged.errors import Refused

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
