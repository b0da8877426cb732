"""Costly work that several ask for at once: done once for all of them, few at a time, and few that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from edged.errors import Overloaded

T = TypeVar("T")


class _Work(Generic[T]):
    """Work that somebody does: `results` has its one result, or `failure` says why there is none."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.results: list[T] = []
        self.failure: Exception | None = None


class Shared(Generic[T]):
    """Work by key: whoever asks for what somebody does already gets the same result."""

    def __init__(self, what: str, *, at_once: int, waiting: int) -> None:
        """`what` names the work in errors; `at_once` are done at a time, of all keys together, and so many more wait
        for their turn."""
        self._what, self._waiting = what, waiting
        self._turns = trio.CapacityLimiter(at_once)
        self._works: dict[Hashable, _Work[T]] = {}

    async def share(self, key: Hashable, do: Callable[[], Awaitable[T]]) -> T:
        """The result of `do`, or of the same work of another caller that has not ended yet. Raises Overloaded where too
        many wait, and what the work raises.

        The work is done in the task of whoever asked first; if that one leaves, another one who waits does it anew.
        """
        while (work := self._works.get(key)) is not None:
            await work.done.wait()
            if work.failure is not None:
                raise work.failure
            if work.results:
                return work.results[0]
        if self._turns.statistics().tasks_waiting >= self._waiting:
            raise Overloaded(f"too many wait for {self._what}", hint="try again later")
        work = self._works[key] = _Work()
        try:
            async with self._turns:
                result = await do()
            work.results.append(result)
        except Exception as problem:
            work.failure = problem
            raise
        finally:
            del self._works[key]
            work.done.set()
        return result
