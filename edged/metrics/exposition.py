"""What renders the metrics: prometheus_client, with its own figures of the process.

It is imported with the first scrape: a box that nobody scrapes does not carry it around (2 MB).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


class Collects(Protocol):
    """edged.metrics.Metrics."""

    def collect(self) -> Iterator[Any]: ...


class _Collector(Collector):
    """It, as the library knows a collector."""

    def __init__(self, metrics: Collects) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        return self._metrics.collect()


def make_renderer(metrics: Collects) -> Callable[[str], tuple[bytes, str]]:
    """Accept → the exposition and its Content-Type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    ProcessCollector(registry=registry)
    return partial(_render, registry)


def _render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
