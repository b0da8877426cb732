"""Passwords that were wrong a moment ago are refused without another hash, in the time that one takes.

What is kept of a name, a password and the user's epoch is a keyed hash, whose key dies with the process. A user who is
given another password has another epoch: what was wrong before is compared anew.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Final

import trio

#: For how long a wrong one is remembered, seconds, and how many are.
SECONDS: Final = 60.0
MOST: Final = 4096
#: Whose epoch stands for a user who does not exist.
NOBODY: Final = -1


class WrongPasswords:
    """What was wrong within a minute, and what is being looked at now."""

    def __init__(self, monotonic: Callable[[], float] = trio.current_time) -> None:
        self._now = monotonic
        self._key = secrets.token_bytes(32)
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        self._underway: dict[bytes, trio.Event] = {}

    def mark(self, name: str, password: str, epoch: int) -> bytes:
        """What stands for the three here."""
        who, secret = (text.encode("utf-8", "surrogatepass") for text in (name, password))
        return blake2b(b"%d:%d:%b%b" % (epoch, len(who), who, secret), key=self._key, digest_size=16).digest()

    def knows(self, mark: bytes) -> bool:
        """Whether this was wrong within the last minute."""
        at = self._wrong.get(mark)
        return at is not None and self._now() - at < SECONDS

    def note(self, mark: bytes) -> None:
        """It was wrong just now."""
        self._wrong.pop(mark, None)
        self._wrong[mark] = self._now()
        while len(self._wrong) > MOST or self._now() - next(iter(self._wrong.values())) >= SECONDS:
            self._wrong.popitem(last=False)

    @asynccontextmanager
    async def alone(self, mark: bytes) -> AsyncIterator[None]:
        """The same three are looked at by one at a time: whoever shows them meanwhile may know by then."""
        while (running := self._underway.get(mark)) is not None:
            await running.wait()
        event = self._underway[mark] = trio.Event()
        try:
            yield
        finally:
            del self._underway[mark]
            event.set()
