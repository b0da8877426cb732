"""Intervals of time that are asked about many times: merged once, then searched."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

#: Two files farther apart than this, seconds, have a gap between them.
GAP_SECONDS: Final = 0.5
#: From the one to before the other, Unix seconds.
Interval: TypeAlias = tuple[float, float]
#: (begin, end), Unix seconds; in order, none touches another.
Spans: TypeAlias = list[tuple[float, float]]


def merge_spans(intervals: Iterable[tuple[float, float]]) -> Spans:
    """What these intervals cover together."""
    merged: Spans = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def is_touched(spans: Spans, begin: float, end: float) -> bool:
    """Whether one of them shares some time with [begin, end)."""
    at = bisect_left(spans, (end,)) - 1
    return at >= 0 and spans[at][1] > begin


def merge(*kinds: Iterable[Interval]) -> Iterator[Interval]:
    """Intervals in order; what follows another within GAP_SECONDS is one with it."""
    begin, end = None, 0.0
    for first, last in sorted(interval for kind in kinds for interval in kind):
        if begin is not None and first - end <= GAP_SECONDS:
            end = max(end, last)
            continue
        if begin is not None:
            yield begin, end
        begin, end = first, last
    if begin is not None:
        yield begin, end
