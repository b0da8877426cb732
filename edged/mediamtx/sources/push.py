"""Cameras that publish to their path at MediaMTX themselves: OBS, drones, phones. Whatever comes is what there is."""

from __future__ import annotations

from typing import ClassVar

from edged.mediamtx import causes
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.sources.base import CameraSource, Kind


class Push(Kind):
    """A path that somebody with the right stream:publish sends to, over any protocol that is on."""

    is_pushed: ClassVar[bool] = True
    never: ClassVar[Cause] = causes.NO_PUBLISHER

    def picture_of(self, source: CameraSource) -> tuple[object, ...]:
        return (source.kind, source.path)

    def sets_key_frames(self, source: CameraSource) -> bool:  # noqa: ARG002
        return True

    def find_idle_fault(self, source: CameraSource) -> Cause | None:  # noqa: ARG002
        return causes.NO_PUBLISHER

    def read(self, source: CameraSource, rate: float) -> list[str]:  # noqa: ARG002
        raise NoPicture(source.name, causes.NO_PUBLISHER)
