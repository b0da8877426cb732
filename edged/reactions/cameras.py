"""What changes of a camera goes to all that read or publish it; what they learn of its source goes to the camera."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from edged.cameras.model import Camera, CameraChanged
from edged.cameras.registry import Registry
from edged.cameras.reports import Report
from edged.feeds import Reader
from edged.mediamtx.conditions import Condition, Conditions
from edged.mediamtx.paths import Paths
from edged.mediamtx.source_checks import SourceChecks
from edged.mediamtx.sources import CameraSource


class TakesSources(Protocol):
    """Publishers, frames, conditions, source checks."""

    def set_sources(self, sources: Iterable[CameraSource]) -> None: ...


async def follow(
    changes: Reader[CameraChanged], cameras: Registry, paths: Paths, conditions: Conditions, publishers: TakesSources,
    *others: TakesSources,
) -> None:  # fmt: skip
    """Keep MediaMTX's paths, and all readers of sources, as the cameras are; runs until cancelled.

    A path exists for every known camera, also for one that is unplugged: its viewers get "no stream"
    rather than "no such path", and come back by themselves. Only what is plugged in is read, whatever came of it last.
    """
    while True:
        apply(cameras.all(), paths, conditions, publishers, *others)
        report(cameras, conditions)
        await changes.receive()


async def follow_sources(
    news: Reader[str], cameras: Registry, conditions: Conditions, source_checks: SourceChecks
) -> None:
    """Show what is learned of the cameras' sources; runs until cancelled."""
    while True:
        await news.receive()
        report(cameras, conditions)
        source_checks.reschedule()


def apply(
    known: tuple[Camera, ...], paths: Paths, conditions: TakesSources, publishers: TakesSources, *others: TakesSources
) -> None:
    """Tell MediaMTX's side which cameras there are. Smaller streams have paths and publishers, and nothing else asks
    for them: pictures are those of the camera, and a stream that nobody watches is not checked."""
    paths.set_wanted(with_subs(known))
    present = tuple(camera for camera in known if camera.is_attached)
    for streams in (conditions, publishers):
        streams.set_sources(with_subs(present))
    for other in others:
        other.set_sources(present)


def with_subs(cameras: tuple[Camera, ...]) -> tuple[Camera, ...]:
    """These, and their smaller streams."""
    return (*cameras, *(camera.sub for camera in cameras if camera.sub is not None))


def report(cameras: Registry, conditions: Conditions) -> None:
    """Make every camera what its condition says; nothing happens where it is so already."""
    for camera in cameras.all():
        cameras.report(camera.name, read_condition(conditions.find(camera.name)))


def read_condition(condition: Condition) -> Report:
    """A source's condition as the cameras' side understands it."""
    cause, figures = condition.cause, condition.figures
    return Report(
        cause=cause.slug if cause else "",
        problem=str(cause) if cause else "",
        is_unreachable=cause is not None and cause.is_unreachable,
        width=figures.width,
        height=figures.height,
        rate=figures.rate,
        video_codec=figures.video,
        audio_codec=figures.audio,
    )
