"""Counters and histograms with a closed table of label sets, exported from 0 on.

prometheus_client's own children cost seven times as much for each increment (a lock) and for their construction, and
one that appears later is exported later; its registry and text formats are used. It is imported with the first scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily


class Cell:
    """One counter value of one label set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by


class CounterTable:
    """A counter with a closed table of label sets. `counts[labels].inc()` where they are known to be legal."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], legal: Iterable[tuple[str, ...]]) -> None:
        self.name = name
        self._help = help_text
        self._labels = tuple(labels)
        self.counts: dict[tuple[str, ...], Cell] = {labels: Cell() for labels in legal}

    def find(self, labels: tuple[str, ...]) -> Cell:
        """The cell of these labels, or of the nearest legal ones: earlier labels weigh more."""
        return self.counts.get(labels) or self.counts[nearest(labels, self.counts)]

    def collect(self) -> CounterMetricFamily:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self._help, labels=self._labels)
        for labels, cell in self.counts.items():
            family.add_metric(labels, cell.value)
        return family


class HistogramTable:
    """A histogram of seconds with a closed table of label values."""

    def __init__(self, name: str, help_text: str, label: str, legal: Iterable[str], buckets: Sequence[float]) -> None:
        self._name, self._help, self._label = name, help_text, label
        self._buckets = tuple(buckets)
        self._counts = {value: [0] * (len(self._buckets) + 1) for value in legal}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def observe(self, value: str, seconds: float) -> None:
        """Note one; an unknown label value counts under the first."""
        key = value if value in self._counts else next(iter(self._counts))
        self._counts[key][bisect_left(self._buckets, seconds)] += 1
        self._sums[key] += seconds

    def collect(self) -> HistogramMetricFamily:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self._name, self._help, labels=[self._label])
        bounds = [*map(str, self._buckets), "+Inf"]
        for value, counts in self._counts.items():
            total, rising = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                rising.append((bound, float(total)))
            family.add_metric([value], buckets=rising, sum_value=self._sums[value])
        return family


def nearest(labels: tuple[str, ...], legal: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The legal label set that agrees with most of `labels`, the earlier ones first; ties: the first in the table."""
    return max(legal, key=lambda known: tuple(a == b for a, b in zip(known, labels, strict=False)))
