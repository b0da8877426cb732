"""Intervals of time that are asked about many times: merged once, then searched."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TypeAlias

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
