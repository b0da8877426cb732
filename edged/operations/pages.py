"""Lists: pages by `limit` and `cursor`, and long ones made in parts, between which other tasks run (contract 3).

A cursor names the place of the last row that was shown, so that rows that are made or removed meanwhile shift
nothing: rows that exist all the time are shown once. A cursor is opaque, belongs to one list, and is stored nowhere.
"""

from __future__ import annotations

import base64
import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from time import perf_counter
from typing import Annotated, Final, Generic, TypeAlias, TypeVar

import msgspec
import trio
from msgspec import UNSET, UnsetType

from edged.errors import NOT_JSON, InvalidParams
from edged.operations.catalogue import OperationCall

Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]
Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
#: The position of a row in its list: a number and a text, together unique.
Place: TypeAlias = tuple[float, str]
R = TypeVar("R")
#: Reads rows from the disk that may not be in memory: behind a place (None: from the first shown), at most so many, in
#: the order of the list.
Load: TypeAlias = Callable[[Place | None, int], Awaitable[Sequence[R]]]
T = TypeVar("T")

#: A place before every other.
FIRST: Final[Place] = (-math.inf, "")
#: Seconds after which other tasks run.
TURN_SECONDS: Final = 0.005
#: Rows that are encoded at a time; a longer list is returned as JSON.
_PART: Final = 200
#: Rows that are read from the disk at a time.
_READ: Final = 500


class PageParams(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` rows, behind those of the reply whose `next_cursor` is given as `cursor`. Without both, all
    rows."""

    limit: Limit | None = None
    cursor: Cursor | None = None


#: The rows of a list; of a long one their JSON.
Rows: TypeAlias = list[T] | msgspec.Raw
#: The `cursor` of the next page; absent at the end.
NextCursor: TypeAlias = str | UnsetType


async def make_page(
    call: OperationCall,
    rows: Sequence[R],
    place: Callable[[R], Place],
    show: Callable[[R], T],
    *,
    limit: int | None,
    cursor: str | None,
    offset: int = 0,
    is_wanted: Callable[[R], bool] = lambda _row: True,
    newest_first: bool = False,
    load: Load[R] | None = None,
) -> tuple[Rows[T], NextCursor]:
    """One page of `rows`, which are sorted by `place`, and its next cursor; `show` makes a row of the reply.

    `load` reads rows that are on disk only; one that is in `rows` as well is shown once. The capability of the
    operation is checked again after each pause. Raises Refused, InvalidParams for a cursor of another list, and what
    `load` raises.
    """
    # Sorting many rows has taken its time.
    await trio.lowlevel.checkpoint()
    turn, made = _Turn(call), _Parts[T]()
    last: R | None = None
    next_cursor: NextCursor = UNSET
    after = None if cursor is None else read_cursor(call.operation.name, cursor)
    merged = _Merged(_follow(rows, place, after, newest_first), load, place, after, newest_first, turn.resume)
    while (row := await merged.next()) is not None:
        if is_wanted(row):
            if offset:
                offset -= 1
            elif limit is not None and made.count == limit:
                assert last is not None, "a limit is one row at least"
                next_cursor = write_cursor(call.operation.name, place(last))
                break
            else:
                made.add(show(row))
                last = row
        await turn.pause()
    shown = made.close()
    # What encodes and sends the reply begins with a turn of its own.
    await turn.pause()
    return shown, next_cursor


async def show_rows(call: OperationCall, rows: Iterable[R], show: Callable[[R], T]) -> list[T]:
    """All rows as `show` makes them; other tasks run meanwhile. Raises Refused if the caller loses the right."""
    turn, shown = _Turn(call), []
    for row in rows:
        shown.append(show(row))
        await turn.pause()
    return shown


def sort_rows(rows: Iterable[R], number: str, place: Callable[[R], Place]) -> list[R]:
    """Rows sorted by `place`, whose number is their attribute `number`. The text is made for equal numbers only."""
    ordered = sorted(rows, key=attrgetter(number))
    numbers = list(map(attrgetter(number), ordered))
    first = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[first]:
            if at - first > 1:
                ordered[first:at] = sorted(ordered[first:at], key=place)
            first = at
    return ordered


def _follow(rows: Sequence[R], place: Callable[[R], Place], after: Place | None, newest_first: bool) -> Iterator[R]:
    """The rows behind a place."""
    if newest_first:
        end = len(rows) if after is None else bisect_left(rows, after, key=place)
        return (rows[at] for at in range(end - 1, -1, -1))
    return (rows[at] for at in range(0 if after is None else bisect_right(rows, after, key=place), len(rows)))


def write_cursor(name: str, place: Place) -> str:
    """The cursor of the list `name` behind this place."""
    return base64.urlsafe_b64encode(msgspec.json.encode((name, *place))).rstrip(b"=").decode()


def read_cursor(name: str, text: str) -> Place:
    """The place of a cursor. Raises InvalidParams for what is no cursor of this list."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        wanted, number, rest = msgspec.json.decode(data, type=tuple[str, float, str])
    except (ValueError, *NOT_JSON):
        wanted = ""
    if wanted != name:
        raise InvalidParams("cursor is none of this list", hint="give the next_cursor of the reply before, or none")
    return number, rest


class _Merged(Generic[R]):
    """Rows in memory and rows from the disk in one order."""

    def __init__(
        self, rows: Iterator[R], load: Load[R] | None, place: Callable[[R], Place], after: Place | None,
        newest_first: bool, resume: Callable[[], None],
    ) -> None:  # fmt: skip
        self._rows = rows
        self._load = load
        self._place = place
        self._after = after
        self._newest_first = newest_first
        self._resume = resume
        self._head = next(rows, None)
        self._read: deque[R] = deque()

    async def next(self) -> R | None:
        """The next row; None behind the last. Raises as `load` and `resume` do."""
        if not self._read and self._load is not None:
            page = await self._load(self._after, _READ)
            self._resume()
            if len(page) < _READ:
                self._load = None
            else:
                self._after = self._place(page[-1])
            self._read.extend(page)
        head = self._head
        if not self._read:
            self._head = next(self._rows, None)
            return head
        if head is None:
            return self._read.popleft()
        mine, its = self._place(head), self._place(self._read[0])
        if mine != its and (its < mine) is not self._newest_first:
            return self._read.popleft()
        if mine == its:
            # It came to the disk since the rows in memory were gathered.
            self._read.popleft()
        self._head = next(self._rows, None)
        return head


class _Turn:
    """Lets other tasks run each TURN_SECONDS."""

    def __init__(self, call: OperationCall) -> None:
        self._authority = call.authority(call.operation.capability)
        self._until = perf_counter() + TURN_SECONDS

    async def pause(self) -> None:
        """Raises Refused if the caller has lost the right."""
        if perf_counter() < self._until:
            return
        await trio.lowlevel.checkpoint()
        self.resume()

    def resume(self) -> None:
        """Other tasks have run. Raises Refused if the caller may not go on."""
        self._authority.check()
        self._until = perf_counter() + TURN_SECONDS


class _Parts(Generic[T]):
    """The rows of a reply; each _PART of them becomes JSON at once."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[T] = []
        self._texts: list[bytes] = []

    def add(self, row: T) -> None:
        self.count += 1
        self._rows.append(row)
        if len(self._rows) == _PART:
            self._write()

    def close(self) -> Rows[T]:
        """All rows."""
        if not self._texts:
            return self._rows
        if self._rows:
            self._write()
        return msgspec.Raw(b"[%b]" % b",".join(self._texts))

    def _write(self) -> None:
        self._texts.append(msgspec.json.encode(self._rows)[1:-1])
        self._rows = []
