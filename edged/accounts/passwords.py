"""Passwords are hashed and compared here: argon2id, one at a time, each in a thread, behind a short queue.

A hash is made expensive on purpose: tens of MiB and a tenth of a second. So one is worked on at a time, the others wait
their turn, and whoever finds the queue full is refused at once: guesses cannot take the memory and the cores of a
small box. The loop goes on meanwhile, argon2 lets go of the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.credentials.passwords import MINIMUM_COST, MOST_PASSES, Cost, prepare, read_cost
from edged.errors import InvalidParams, RateLimited

#: Those who may wait while one is being served.
QUEUE: Final = 8
#: Of these from one place, and for one name: whoever guesses leaves room for others.
SHARE: Final = QUEUE // 2
#: What one hash should take at least, in seconds of a core.
AIM_SECONDS: Final = 0.1
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
#: mallopt(3): blocks from this size on are mapped, and given back to the system when they are freed.
_M_MMAP_THRESHOLD: Final = -3
_MAPPED_BYTES: Final = 1 << 20
_log = structlog.get_logger("passwords")
T = TypeVar("T")


class Hasher(Protocol):
    """What hashes; called in a thread, one call at a time."""

    def hash(self, secret: bytes, cost: Cost) -> str: ...
    def verify(self, phc: str, secret: bytes) -> bool: ...


class Argon2:
    """argon2id by argon2-cffi, which is loaded with the first password: a box that has no users pays nothing."""

    def __init__(self) -> None:
        # Without this, glibc keeps the 19 MiB of each thread that ever hashed (measured: 95 MiB after six; malloc_trim
        # gives nothing back of a thread's arena). Every libc without mallopt is left as it is.
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)

    def hash(self, secret: bytes, cost: Cost) -> str:
        """A new PHC string with a salt of its own."""
        from argon2 import low_level

        made = low_level.hash_secret(
            secret, secrets.token_bytes(_SALT_BYTES), cost.passes, cost.memory_kib, cost.lanes, _HASH_BYTES,
            low_level.Type.ID,
        )  # fmt: skip
        return made.decode("ascii")

    def verify(self, phc: str, secret: bytes) -> bool:
        """Whether this hash is of this password."""
        from argon2 import low_level
        from argon2.exceptions import VerificationError

        try:
            return bool(low_level.verify_secret(phc.encode("ascii"), secret, low_level.Type.ID))
        except VerificationError:
            return False


class _Turn(msgspec.Struct, frozen=True, eq=False):
    """Somebody who waits, and among whom they are counted."""

    shares: Sequence[str]
    called: trio.Event


class Verified(msgspec.Struct, frozen=True):
    """`rehashed` is what to store from now on, where the stored hash was cheaper than today's; None: nothing."""

    good: bool
    rehashed: str | None = None


class Passwords:
    """Hashes and compares for everybody who has a password to set or to check."""

    def __init__(
        self,
        *,
        cost: Cost | None = None,
        at_least: int = MINIMUM_COST.passes,
        queue: int = QUEUE,
        make_hasher: Callable[[], Hasher] = Argon2,
        measure: Callable[[], float] = time.thread_time,
    ) -> None:
        """`cost` None: at the first use passes are added to MINIMUM_COST until a hash takes AIM_SECONDS by `measure`,
        the time that this thread had of a core: a busy box measures what an idle one does. `at_least` so many they are,
        however long that takes; MOST_PASSES at most."""
        self._cost = cost
        self._queue = queue
        self._make_hasher = make_hasher
        self._measure = measure
        self._hasher: Hasher | None = None
        self._dummy = ""
        self._at_least = min(max(at_least, MINIMUM_COST.passes), MOST_PASSES) if cost is None else 0
        self._thread = trio.CapacityLimiter(1)
        self._busy = False
        self._known: deque[_Turn] = deque()
        self._others: deque[_Turn] = deque()
        self._last_seconds = AIM_SECONDS

    @property
    def usual_seconds(self) -> float:
        """How long the last hash took."""
        return self._last_seconds

    def heed(self, phc: str) -> None:
        """Say of each stored hash that it is there: nobody's is made cheaper to guess by a box that measures less
        today, and whoever does not exist takes as long as whoever does."""
        cost = read_cost(phc)
        if cost is not None and cost.passes > max(self._at_least, self._cost.passes if self._cost else 0):
            self._at_least = min(cost.passes, MOST_PASSES)

    async def hash(self, text: str) -> str:
        """A PHC string to store. Whether somebody may choose this text is credentials.passwords' question.

        Only for whoever was found to be allowed to set a password: they go before everybody who tries to log in, whose
        queue strangers can fill. Raises InvalidParams for a text that cannot be a password, RateLimited when too many
        wait.
        """
        secret = prepare(text)
        if secret is None:
            raise InvalidParams("this cannot be a password: it is empty, too long or not Unicode")
        return await self._take_turn(lambda hasher, cost: hasher.hash(secret, cost), (), is_known=True)

    async def verify(self, phc: str | None, text: str, *, shares: Sequence[str], is_known: bool = False) -> Verified:
        """Whether `text` is the password that `phc` was made of; None, nobody's, takes as long and is never good.

        `is_known`: somebody who came in from there before (access.limiter), and goes before everybody else: strangers
        who guess do not hold them up. `shares` are what they are counted by, as the place and the name: so many of each
        may wait. Raises RateLimited when too many wait.
        """
        # What cannot be a password is compared as if it could: how long it takes says nothing of the user.
        secret = prepare(text)
        return await self._take_turn(lambda hasher, cost: self._compare(hasher, cost, phc, secret), shares, is_known)

    async def _take_turn(self, work: Callable[[Hasher, Cost], T], shares: Sequence[str], is_known: bool = False) -> T:
        """Wait in the queue and run `work` in a thread. A caller that is cancelled leaves the queue; one whose turn
        it is gets to the end of its hash first."""
        lane = self._known if is_known else self._others
        most = max(1, self._queue * SHARE // QUEUE)
        crowd = max((sum(share in each.shares for each in lane) for share in shares), default=0)
        if len(lane) >= self._queue or crowd >= most:
            raise RateLimited(
                f"{len(lane)} passwords wait to be looked at, {crowd} of them from here or for this user",
                retry_after_ms=math.ceil(self._last_seconds * 1000) * (len(lane) + 1),
            )
        turn = _Turn(shares, trio.Event())
        lane.append(turn)
        self._call_next()
        try:
            await turn.called.wait()
            return await trio.to_thread.run_sync(self._run, work, limiter=self._thread)
        finally:
            if turn.called.is_set():
                self._busy = False
            else:
                lane.remove(turn)
            self._call_next()

    def _call_next(self) -> None:
        lane = self._known or self._others
        if lane and not self._busy:
            self._busy = True
            lane.popleft().called.set()

    def _run(self, work: Callable[[Hasher, Cost], T]) -> T:
        """In a thread, alone."""
        if self._hasher is None:
            self._hasher = self._make_hasher()
        cost = self._settle(self._hasher)
        began = time.monotonic()
        try:
            return work(self._hasher, cost)
        finally:
            self._last_seconds = time.monotonic() - began

    def _settle(self, hasher: Hasher) -> Cost:
        """The cost of a hash made now, and a dummy at that cost."""
        cost = self._cost
        if cost is None:
            cost = self._calibrate(hasher)
        if self._at_least > cost.passes:
            cost = replace(cost, passes=self._at_least)
        if cost != self._cost or not self._dummy:
            self._cost = cost
            self._dummy = hasher.hash(secrets.token_bytes(_SALT_BYTES), cost)
        return cost

    def _calibrate(self, hasher: Hasher) -> Cost:
        """MINIMUM_COST, with more passes where the box is fast, or where that many were asked for."""
        hasher.hash(b"warm", Cost(8, 1))  # the first call loads the library
        began = self._measure()
        hasher.hash(b"measured", MINIMUM_COST)
        a_pass = max((self._measure() - began) / MINIMUM_COST.passes, 1e-6)
        passes = min(max(math.ceil(AIM_SECONDS / a_pass), self._at_least), MOST_PASSES)
        _log.info("calibrated", memory_kib=MINIMUM_COST.memory_kib, passes=passes, pass_ms=round(a_pass * 1000, 1))
        return replace(MINIMUM_COST, passes=passes)

    def _compare(self, hasher: Hasher, cost: Cost, phc: str | None, secret: bytes | None) -> Verified:
        stored = read_cost(phc) if phc is not None else None
        if phc is None or stored is None or secret is None:
            hasher.verify(self._dummy, secret or b"-")
            return Verified(good=False)
        good = hasher.verify(phc, secret)
        if stored.covers(cost):
            return Verified(good)
        if good:
            return Verified(good, hasher.hash(secret, cost))
        if stored.passes < cost.passes:
            # A wrong guess at an old, cheaper hash takes no less than one at nobody's.
            hasher.hash(secret, replace(cost, passes=cost.passes - stored.passes))
        return Verified(good)
