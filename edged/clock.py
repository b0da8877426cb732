"""What time it is, and whether to believe it (contract 10.9).

A Pi has no clock chip, a time server can lie, and anybody with root can set the clock. So the time that the services
goes by is the system clock with two corrections:

* A lower limit, the *high-water mark*: `now()` never runs behind it, so what has expired stays expired, also after a
  start in 1970. It is kept on disk, and rises by monotonic time that passed, or to a synchronised clock; never by a
  jump that nobody has confirmed.
* Once the clock has been synchronised in this run, jumps while it is not are *not followed*: the time is carried on
  by the monotonic clock until the clock is synchronised again. A mistaken visit to 2099 then does not even happen.
  Before that there is nothing better than the system clock, and it is followed wherever it goes, above the mark: a
  box without network goes by the time that somebody set by hand, and a wrong one is forgotten with the next.

What a clock says while it is *synchronised* is believed, also if it is 2099: whatever ends before then has ended, and
stays so after the time server is mended, for nobody can know which of the two was the lie. The clock is then behind
its mark and not trusted, log, status and metric say so, and root lowers the mark (`edged clock reset`). Credentials
without an expiry depend on none of this. Nothing is ever deleted because of the time.

`is_trusted` says whether the time told rests on a synchronised clock of this run, or on root's word. What cannot be
taken back (pruning revocations) must ask it first. Deadlines of live things are monotonic and belong to whoever holds
them; they are made anew when `corrections` rises, which a jump that nobody has confirmed never does.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import trio

#: A difference between system clock and monotonic time that changes by more than this, seconds, is a jump.
JUMP_SECONDS: Final = 1.0
#: A synchronised clock that is so much behind the mark, seconds, and the mark contradict each other.
BEHIND_SECONDS: Final = 60.0
#: The first and the last second that a calendar of four-digit years knows, Unix seconds.
_FIRST_SECOND: Final = -62135596800.0
LAST_SECOND: Final = 253402300799.0
#: random(4): a name that the kernel makes anew at each start of the machine.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: By how much the seconds of a boot may run fast, as a share of them: the kernel steers no clock by more (adjtimex(2)).
_FAST: Final = 0.0005


def wall_time() -> float:
    """The system clock, Unix seconds."""
    return time.time()


def iso(seconds: float) -> str:
    """Unix seconds → `2026-11-22T10:30:00Z` (contract S1-22); never raises.

    What lies behind the year 9999 is its last second; what lies before the year 1, and what is no number, the first of
    that: one odd time in the database must not cost the whole list that it stands in.
    """
    # In this order nan, with which every comparison is False, ends as the first second.
    return _iso(int(max(_FIRST_SECOND, min(seconds, LAST_SECOND))))


def iso_exact(seconds: float) -> str:
    """As `iso`, to the nearest millisecond: `2026-11-22T10:30:00.250Z`."""
    whole, thousandths = divmod(round(max(0.0, min(seconds, LAST_SECOND)) * 1000), 1000)
    return f"{iso(whole)[:-1]}.{thousandths:03d}Z"


def iso_or_none(seconds: float | None) -> str | None:
    """`iso` of what may not have happened, or have no end."""
    return None if seconds is None else iso(seconds)


def read_iso(text: str) -> float:
    """ISO 8601 → Unix seconds; UTC unless it says otherwise.

    Raises ValueError if it is no time, OverflowError if it lies outside of the years 1970 to 9999 (UTC): `iso` has a
    text for every time that is taken.
    """
    try:
        when = datetime.fromisoformat(text)
    except OverflowError:
        raise ValueError("no ISO 8601 time") from None
    when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    if when.year < 1970:
        raise OverflowError("before the year 1970")
    return when.timestamp()


@lru_cache(maxsize=128)
def _iso(seconds: int) -> str:
    """Remembered, because whatever is told within a second is told with the same one."""
    # Not strftime: its %Y has no leading zeros here.
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat() + "Z"


class Boot:
    """This start of the machine, by a name, and the seconds since, sleep included: whatever sets a clock moves neither.

    Where the kernel does not tell its name this process counts as a boot of its own.
    """

    def __init__(self, name: str | None = None, seconds: Callable[[], float] | None = None) -> None:
        start = 0.0
        if name is None:
            try:
                name = _BOOT_ID.read_text("ascii").strip()
            except (OSError, ValueError):
                name, start = str(uuid.uuid4()), time.clock_gettime(time.CLOCK_BOOTTIME)
        self.name = name
        self._seconds = seconds or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - start)

    def seconds(self) -> float:
        """Since it began."""
        return self._seconds()

    def since(self, second: float) -> float:
        """How many seconds ago this second of it was, at the least: the clock that counts them may run fast."""
        return max(0.0, self._seconds() - second) * (1.0 - _FAST)


class Clock:
    """Now, as Unix seconds, with a lower limit; and monotonic seconds for deadlines.

    `load()` gives the stored high-water mark (Unix seconds, 0.0 if none); `synchronized()` says
    whether the system clock follows a time server; `jumped(seconds)` is told of every jump of the system clock, of one
    backward with a negative number.
    """

    def __init__(
        self,
        load: Callable[[], float] = lambda: 0.0,
        *,
        system: Callable[[], float] = wall_time,
        monotonic: Callable[[], float] = trio.current_time,
        synchronized: Callable[[], bool] = lambda: True,
        jumped: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._system = system
        self._ask = synchronized
        self._jumped = jumped
        self.monotonic = monotonic
        #: How often the time told was set right by a synchronised clock or by root: deadlines are then made anew.
        self.corrections = 0
        # What was so at the last look. Times of the system clock are kept as what to add to the monotonic one.
        self._at = monotonic()
        self._offset = system() - self._at
        self._synchronized = synchronized()
        self._mark = load()
        # The offset that is held to while nobody confirms another; None: the system clock is followed.
        self._held: float | None = None
        if self._synchronized:
            self._mark = max(self._mark, self._at + self._offset)

    def now(self) -> float:
        """Unix seconds; never less than the high-water mark."""
        system, at = self._system(), self.monotonic()
        if not -JUMP_SECONDS < system - at - self._offset < JUMP_SECONDS:
            self.look()
        # As `_tell`, in so many words: this is asked several times for each credential that comes in.
        told = system if self._held is None else at + self._held
        lowest = self._mark if self._synchronized else self._mark + (at - self._at)
        return told if told > lowest else lowest

    def certain(self) -> float:
        """The time that somebody has confirmed, Unix seconds: `now` of a trusted one. What a jump made of another one,
        and a mark that a time server contradicts, do not count."""
        now, at = self.now(), self.monotonic()
        if self.is_trusted:
            return now
        confirmed = self._confirmed(at)
        return self._lowest(at) if confirmed is None else confirmed

    def high_water(self) -> float:
        """The mark to store, Unix seconds; it never falls but by `reset`."""
        self.look()
        return self._mark

    def look(self) -> None:
        """Look at the system clock anew. `now` does so when it sees a jump; somebody must every few seconds,
        for a clock that is synchronised, or is so no more, without any jump."""
        at = self.monotonic()
        offset = self._system() - at
        if abs(offset - self._offset) > JUMP_SECONDS:
            self._jumped(offset - self._offset)
        told, confirmed = self._tell(at + self._offset, at), self._synchronized or self._held is not None
        if self._synchronized:
            # A jump may be what took the clock out of step: until now it went on as before.
            self._mark, self._held = max(self._mark, at + self._offset), self._offset
        else:
            self._mark += at - self._at
        self._at, self._offset, self._synchronized = at, offset, self._ask()
        if self._synchronized:
            self._mark, self._held = max(self._mark, at + offset), None
            # Deadlines made while nobody had confirmed the time were guesses, whatever it says now.
            if not confirmed or abs(self._tell(at + offset, at) - told) > JUMP_SECONDS:
                self.corrections += 1

    def reset(self) -> None:
        """Root's word: the system clock is right, whatever the mark says; it is believed from here on."""
        self.look()
        self._mark = self._at + self._offset
        self._held = None if self._synchronized else self._offset
        self.corrections += 1

    @property
    def system(self) -> float:
        """What the system clock says, Unix seconds."""
        return self._system()

    @property
    def is_synchronized(self) -> bool:
        """Whether the system clock followed a time server at the last look."""
        return self._synchronized

    @property
    def is_trusted(self) -> bool:
        """Whether the time told rests on a synchronised clock of this run, or on root's word."""
        return (self._synchronized or self._held is not None) and not self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether a clock that is confirmed says that the mark lies in the future: one of them is wrong."""
        at = self.monotonic()
        confirmed = self._confirmed(at)
        return confirmed is not None and confirmed < self._lowest(at) - BEHIND_SECONDS

    @property
    def lag(self) -> float:
        """By how many seconds the system clock is behind the mark, synchronised or not; 0 if it is not."""
        return max(0.0, self._lowest(self.monotonic()) - self._system())

    def _confirmed(self, at: float) -> float | None:
        if self._synchronized:
            return at + self._offset
        return None if self._held is None else at + self._held

    def _tell(self, system: float, at: float) -> float:
        return max(system if self._held is None else at + self._held, self._lowest(at))

    def _lowest(self, at: float) -> float:
        # While a synchronised clock is behind the mark, the mark waits for it.
        return self._mark if self._synchronized else self._mark + (at - self._at)
