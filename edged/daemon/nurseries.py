"""Nurseries as context managers: tasks that run while a block does, so that the order of nesting is the order of the
start and, backwards, of the stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio

Task: TypeAlias = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def tasks(*starters: Task) -> AsyncIterator[None]:
    """These tasks run while the block does, and are cancelled at its end. An exception in one of them ends the block
    and is raised from it."""
    async with trio.open_nursery() as nursery:
        for starter in starters:
            nursery.start_soon(starter)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def started_tasks(*starters: Task) -> AsyncIterator[None]:
    """The same for tasks with a `task_status`: each is started when the one before it has reported `started`, and the
    block begins when all of them have."""
    async with trio.open_nursery() as nursery:
        for starter in starters:
            await nursery.start(starter)
        yield
        nursery.cancel_scope.cancel()
