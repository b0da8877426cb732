"""Guessing costs time (contract C-43, 10.13): whoever shows ten different wrong credentials in a minute has to wait.

What counts is *different* wrong ones, told apart by a keyed hash in memory: a client that shows one bad key or one
mistyped password again and again is never held up. The wait grows from 1 s to 60 s with each further wrong one, and
is never a ban: once it is over, a right answer gets through, and after a quiet minute all is forgotten. A right key or
token gets through at any time.

Counted are the address (an IPv4 address, an IPv6 /64) and, for passwords, the user that was named, whether there is
such a user or not. Who is under attack keeps access from places where they came in within 30 days: there they wait
only for what was wrong under their own name from there, whatever their neighbours behind the same router try. Whoever
may open the unix socket is an administrator, and not counted.

Times are monotonic. What is on disk is written once a minute at most; a crash loses a minute of it.
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Final, Literal, TypeAlias

import msgspec
import structlog
import trio

from edged.credentials.decision import Reason
from edged.credentials.places import place_of
from edged.errors import EdgedError, RateLimited
from edged.repeats import Lasting
from edged.store import limiter as rows
from edged.store.database import Database
from edged.store.limiter import KnownPlace, Offender

Axis: TypeAlias = Literal["address", "subject", "pair"]
#: What a back-off is counted under, for each axis; that of a pair is not kept over a restart.
_COUNTED_AS: Final[Mapping[Axis, str]] = {"address": "address", "subject": "subject", "pair": "subject"}
_FROM: Final[Mapping[Axis, str]] = {
    "address": "from this address (for keys and tokens, not from this machine itself)",
    "subject": "for this user",
    "pair": "for this user from this address",
}

#: Different wrong credentials within GUESS_SECONDS that begin a back-off.
GUESSES: Final = 10
GUESS_SECONDS: Final = 60.0
FIRST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 60.0
#: Addresses, subjects and known places that are kept in mind, each.
MOST: Final = 1000
#: How long a place is known.
KNOWN_SECONDS: Final = 30 * 86400.0
#: Seconds between two writes, at least.
FLUSH_SECONDS: Final = 60.0
#: A known place that comes in daily is written once a day.
_FRESH_SECONDS: Final = 86400.0
#: Refusals of what nobody ever issued. A credential that has expired or was revoked is no guess; tickets, which end
#: with every restart of the box and of which a page of pictures holds many, never count.
GUESSED: Final = frozenset({Reason.UNKNOWN_KEY, Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.ALG_NOT_ALLOWED})
_log = structlog.get_logger("limiter")


class _Guesser(msgspec.Struct):
    """One address or subject: its wrong credentials of late, the last seen last, and its back-off."""

    tries: OrderedDict[bytes, float] = msgspec.field(default_factory=OrderedDict)
    level: int = 0
    until: float = 0.0

    @property
    def last(self) -> float:
        return next(reversed(self.tries.values()), self.until)


class Limiter:
    """Asked before a credential is looked at, told what became of it. Never waits."""

    def __init__(
        self,
        monotonic: Callable[[], float] = trio.current_time,
        throttled: Callable[[str], None] = lambda _axis: None,
        *,
        guesses: int = GUESSES,
        guess_seconds: float = GUESS_SECONDS,
        longest_backoff: float = LONGEST_BACKOFF,
    ) -> None:
        """`throttled(axis)` is told of each refusal."""
        self._now = monotonic
        self._throttled = throttled
        self._guesses = guesses
        self._window = guess_seconds
        self._longest = longest_backoff
        self._key = secrets.token_bytes(32)
        self._lasting = Lasting()
        self._guessers: dict[Axis, dict[str, _Guesser]] = {"address": {}, "subject": {}, "pair": {}}
        self._by_address = self._guessers["address"]
        self._places: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._changed = False

    # --- asked and told -------------------------------------------------------------------------------------------

    def check(self, address: str, subject: str | None = None) -> None:
        """May somebody there try, with this user's name if it is a password? Raises RateLimited.

        `address` as the kernel gives it, "" for the unix socket.
        """
        if not address:
            return
        place, name = place_of(address), None if subject is None else _hidden(subject)
        if name is not None and self._is_known(name, place):
            if (pair := _pair(name, place)) in self._guessers["pair"]:
                self._refuse_early("pair", pair)
            return
        if place in self._by_address:
            self._refuse_early("address", place)
        if name is not None and name in self._guessers["subject"]:
            self._refuse_early("subject", name)

    def failed(self, address: str, subject: str | None, credential: str) -> None:
        """It was wrong. `credential` is told apart from others by a hash whose key nobody has."""
        if not address:
            return
        place, name = place_of(address), None if subject is None else _hidden(subject)
        text = f"{name or ''}\0{credential}"
        mark = blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        self._note("address", place, mark)
        if name is not None:
            self._note("subject", name, mark)
            if self._is_known(name, place):
                self._note("pair", _pair(name, place), mark)

    def succeeded(self, address: str, subject: str) -> None:
        """This user's password was right: from here on the place is known as theirs."""
        if not address:
            return
        place = (_hidden(subject), place_of(address))
        before, now = self._places.pop(place, None), self._now()
        self._places[place] = now
        if before is None or now - before > _FRESH_SECONDS:
            self._changed = True
        while len(self._places) > MOST:
            self._places.popitem(last=False)

    def knows(self, address: str, subject: str) -> bool:
        """Whether this user came in from there within 30 days, or asks on the unix socket."""
        return not address or self._is_known(_hidden(subject), place_of(address))

    # --- kept over a restart --------------------------------------------------------------------------------------

    def load(self, db: Database) -> None:
        """Take up what was written, before anybody asks. Raises StoreFailed."""
        now = self._now()
        for item in db.read_now(rows.load_offenders):
            table = self._guessers["subject" if item.axis == "subject" else "address"]
            table[item.name] = _Guesser(level=item.level, until=now + min(item.wait, self._longest))
        for place in db.read_now(rows.load_places):
            self._places[place.subject, place.address] = now - place.age

    async def run(self, db: Database) -> None:
        """Write once a minute if anything changed, and when cancelled; runs until then."""
        try:
            while True:
                await trio.sleep(FLUSH_SECONDS)
                await self.flush(db)
        finally:
            with trio.CancelScope(shield=True):
                await self.flush(db)

    async def flush(self, db: Database) -> None:
        """Write what there is if it changed; what cannot be written is written the next time. Never EdgedError."""
        if not self._changed:
            return
        self._changed = False
        try:
            await db.write(partial(rows.replace, offenders=self._offenders(), places=self._known_places()))
        except BaseException as problem:
            self._changed = True
            if not isinstance(problem, EdgedError):
                raise
            if self._lasting.begins("save", str(problem)):
                _log.warning("not_saved", problem=str(problem))
        else:
            if self._lasting.ends("save"):
                _log.info("saved_again")

    def _offenders(self) -> list[Offender]:
        now = self._now()
        return [
            Offender(axis, name, guesser.level, max(guesser.until - now, 0.0))
            for axis, table in self._guessers.items()
            if axis != "pair"
            for name, guesser in table.items()
            if guesser.level and not self._is_over(guesser, now)
        ]

    def _known_places(self) -> list[KnownPlace]:
        now = self._now()
        return [
            KnownPlace(subject, address, now - at)
            for (subject, address), at in self._places.items()
            if now - at < KNOWN_SECONDS
        ]

    # --- counting -------------------------------------------------------------------------------------------------

    def _refuse_early(self, axis: Axis, name: str) -> None:
        """Raises RateLimited while this one's back-off lasts."""
        left = self._guessers[axis][name].until - self._now()
        if left > 0:
            self._throttled(_COUNTED_AS[axis])
            raise RateLimited(f"too many wrong credentials {_FROM[axis]}", retry_after_ms=math.ceil(left * 1000))

    def _note(self, axis: Axis, name: str, mark: bytes) -> None:
        table, now = self._guessers[axis], self._now()
        guesser = table.get(name)
        if guesser is None or self._is_over(guesser, now):
            self._drop_mildest(table, now)
            guesser = table[name] = _Guesser()
        again = guesser.tries.pop(mark, None) is not None
        guesser.tries[mark] = now
        if again:
            return
        while len(guesser.tries) > self._guesses or now - next(iter(guesser.tries.values())) >= self._window:
            guesser.tries.popitem(last=False)
        if guesser.level or len(guesser.tries) >= self._guesses:
            guesser.level += 1
            seconds = min(FIRST_BACKOFF * 2.0 ** min(guesser.level - 1, 30), self._longest)
            guesser.until = now + seconds
            self._changed = True
            # A subject is not named: some type their password where the name belongs.
            _log.warning("slowed_down", axis=axis, address=name if axis == "address" else None, seconds=seconds)

    def _is_over(self, guesser: _Guesser, now: float) -> bool:
        """A quiet minute after the last wrong one, and after the back-off, all is forgotten."""
        return now - max(guesser.last, guesser.until) >= self._window

    def _drop_mildest(self, table: dict[str, _Guesser], now: float) -> None:
        """The worst are kept: whoever is over goes first, then who waits the least, then who was quiet longest."""
        if len(table) < MOST:
            return

        def badness(name: str) -> tuple[bool, int, float]:
            guesser = table[name]
            return (not self._is_over(guesser, now), guesser.level, guesser.last)

        for name in sorted(table, key=badness)[: MOST // 10]:
            del table[name]

    def _is_known(self, name: str, place: str) -> bool:
        at = self._places.get((name, place))
        return at is not None and self._now() - at < KNOWN_SECONDS


def _pair(name: str, place: str) -> str:
    return f"{name} {place}"


def _hidden(subject: str) -> str:
    """A user's name as it is kept: of one length, and unreadable, for some type their password there."""
    return blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=16, person=b"edged subject").hexdigest()
