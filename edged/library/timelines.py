"""What there is of a camera between two times: what is recorded, what is missing, and what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec
import trio

from edged.library.event_ring import EventRing
from edged.library.recordings import Recordings
from edged.library.spans import GAP_SECONDS, Interval, merge
from edged.store.events import EventRow, Wanted
from edged.store.recordings import RecordingRecord

#: Files of one page: three days and a half, at one a minute.
MOST_FILES: Final = 5000
#: Seconds after which a recording that runs must show what was recorded: pieces of two seconds wait in memory.
SETTLE_SECONDS: Final = 10.0
#: A time, Unix seconds, and the number of the last event of that time which was shown; -1 for none.
Place: TypeAlias = tuple[float, int]


class Span(msgspec.Struct, frozen=True):
    """A camera is recorded from `begin` to `end`, Unix seconds; `is_growing`: it is being recorded now."""

    begin: float
    end: float
    is_growing: bool = False


class Timeline(msgspec.Struct, frozen=True):
    """From `begin` to before `end`, Unix seconds. `gaps`: a recording has nothing there. `following`: where it goes on;
    None behind the last."""

    begin: float
    end: float
    spans: Sequence[Span]
    gaps: Sequence[Interval]
    events: Sequence[EventRow]
    following: Place | None


async def read_timeline(
    recordings: Recordings, events: EventRing, camera: str, begin: Place, end: float, *, now: float, limit: int
) -> Timeline:
    """The first page from a place on, with at most `limit` spans and so many events. Raises StoreFailed.

    What lies in two pages is cut: it ends in the one where it begins in the other.
    """
    first = begin[0]
    # In this order: a file that is closed meanwhile is found by both.
    growing = [at for at in await recordings.index.list_begins(camera) if at < now]
    closed, stop = await recordings.index.list_spans(camera, first, end, MOST_FILES)
    # Those that lie far behind the page were no help, and many.
    spans = list(merge(closed[: limit + 1], ((at, max(at, now)) for at in growing)))
    if len(spans) > limit:
        stop = min(stop, spans[limit][0])
    found = await events.list_between(Wanted((camera,)), begin, stop, limit + 1)
    following = None if stop == end else (stop, -1)
    if len(found) > limit:
        found = found[:limit]
        stop = found[-1].at
        following = (stop, found[-1].number)
    records = await recordings.list_between(camera, first, stop)
    arrange = partial(_arrange, spans, records, (first, stop), now=now, newest=max(growing, default=None))
    shown, gaps = await trio.to_thread.run_sync(arrange)
    return Timeline(first, stop, shown, gaps, found, following)


def _arrange(
    spans: Sequence[Interval], records: Sequence[RecordingRecord], within: Interval, *, now: float, newest: float | None
) -> tuple[list[Span], list[Interval]]:
    """(spans, gaps) of a page. `newest`: when the newest file began that is being written."""
    inside = list(clip(spans, *within))
    shown = [Span(b, e, is_growing=e == now and newest is not None and b <= newest) for b, e in inside]
    return shown, find_gaps(inside, records, *within, now)


def clip(intervals: Iterable[Interval], begin: float, end: float) -> Iterator[Interval]:
    """What of them lies between two times."""
    return ((max(b, begin), min(e, end)) for b, e in intervals if max(b, begin) < min(e, end))


def find_gaps(
    spans: Sequence[Interval], records: Iterable[RecordingRecord], begin: float, end: float, now: float
) -> list[Interval]:
    """Where recordings have nothing, between two times; `spans` are in order. None is shorter than GAP_SECONDS but at
    these times, where it may be a part of a longer one."""
    asked = merge(
        (record.began, now - SETTLE_SECONDS if record.ended is None else min(record.ended, now)) for record in records
    )
    found = []
    for first, last in clip(asked, begin, end):
        at = first
        for b, e in (*(span for span in spans if span[1] > first and span[0] < last), (last, last)):
            if b - at > GAP_SECONDS or (b > at and (at == begin or b == end)):
                found.append((at, b))
            at = max(at, e)
    return found
