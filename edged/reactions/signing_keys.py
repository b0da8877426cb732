"""Rotation of the signing keys: the next is made two hours before it is due, and signs once verifiers could fetch it.

Everything that decides is in the trust database, so that a restart in any state goes on from there. While the clock is
not trusted nothing is done: a key signs a little longer, which is harmless, and none is removed by a wrong time.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from edged.access.grants import Grant
from edged.clock import Clock
from edged.credentials.signing_keys import ALGORITHMS, PUBLISHED_SECONDS, Algorithm
from edged.errors import EdgedError
from edged.repeats import Lasting
from edged.signing.keyring import Keyring

#: Seconds between two looks.
LOOK_SECONDS: Final = 60.0
_DAY: Final = 86400.0
_log = structlog.get_logger("keyring")


class Rotation:
    """Sees that no key signs for longer than `days`; 0: nothing is done by itself."""

    def __init__(self, keyring: Keyring, clock: Clock, days: float, grant: Grant) -> None:
        """`grant` is that of edged itself."""
        self._keyring = keyring
        self._grant = grant
        self._clock = clock
        self._seconds = days * _DAY
        self._lasting = Lasting()

    async def run(self) -> None:
        """Look each minute; runs until cancelled."""
        while self._seconds > 0:
            await self.look()
            await trio.sleep(LOOK_SECONDS)
        await trio.sleep_forever()

    async def look(self) -> None:
        """Do what is due now, if anything is. What cannot be done is logged once, and done when it can be."""
        if not self._clock.is_trusted:
            return
        for algorithm in ALGORITHMS:
            try:
                await self._look(algorithm)
                if self._lasting.ends(algorithm):
                    _log.info("rotation_goes_on", algorithm=algorithm)
            except EdgedError as problem:
                # The disk is full, say, or an administrator does the same just now.
                if self._lasting.begins(algorithm, str(problem)):
                    _log.warning("rotation_waits", algorithm=algorithm, problem=str(problem))

    async def _look(self, algorithm: Algorithm) -> None:
        left, waiting = self._left(algorithm), self._keyring.waiting(algorithm)
        if waiting is None:
            if left <= PUBLISHED_SECONDS:
                await self._keyring.create(self._grant, algorithm)
        elif left <= 0 and self._keyring.published_since(waiting) >= PUBLISHED_SECONDS:
            await self._keyring.promote(self._grant, waiting.kid)

    def _left(self, algorithm: Algorithm) -> float:
        """For how many seconds the current key may sign yet.

        A key that was promoted in the future was promoted under a wrong clock: its age is not known, and it is due.
        """
        current = self._keyring.current(algorithm)
        age = self._clock.now() - (current.created_at if current.promoted_at is None else current.promoted_at)
        return self._seconds - age if age >= -_DAY else 0.0
