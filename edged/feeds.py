"""Feed[T]: a typed broadcast from a lower layer to higher ones.

The sender never waits. Each reader has a bounded buffer; a reader that falls behind loses the
oldest values and is told so (`Lagged`), so that it can look at the whole state again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Lagged:
    """Stands in the stream for values that this reader was too slow to take."""

    def __repr__(self) -> str:
        return "LAGGED"


LAGGED = Lagged()


class Reader(Generic[T]):
    """One subscription; iterate over it. Yields values, or `LAGGED` where some were lost."""

    def __init__(self, size: int) -> None:
        self._buffer: deque[T] = deque(maxlen=size)
        self._lagged = False
        self._arrived = trio.Event()

    def put(self, value: T) -> None:
        self._lagged = self._lagged or len(self._buffer) == self._buffer.maxlen
        self._buffer.append(value)
        self._arrived.set()

    async def receive(self) -> T | Lagged:
        """The next value; waits for one."""
        while not self._buffer:
            self._arrived = trio.Event()
            await self._arrived.wait()
        if self._lagged:
            self._lagged = False
            return LAGGED
        return self._buffer.popleft()

    # No generator: one that a reader leaves in the middle would be a leak in trio's eyes.
    def __aiter__(self) -> Reader[T]:
        return self

    async def __anext__(self) -> T | Lagged:
        return await self.receive()


class Feed(Generic[T]):
    """Publish values to any number of readers."""

    def __init__(self) -> None:
        self._readers: set[Reader[T]] = set()

    def publish(self, value: T) -> None:
        """Hand a value to every reader; never waits, never fails."""
        for reader in self._readers:
            reader.put(value)

    @contextmanager
    def subscribe(self, size: int = 64) -> Iterator[Reader[T]]:
        """A reader that sees everything published from here on, at most `size` values behind."""
        reader: Reader[T] = Reader(size)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
