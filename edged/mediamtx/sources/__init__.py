"""The kinds of source, one module each. A new kind is a module here, a row of KINDS, and what settings say of it
(edged/config/sources.py, cameras.py); nothing else in this package asks which kind a source is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edged.config.sources import SourceKind
from edged.mediamtx.sources.base import CameraSource, Kind
from edged.mediamtx.sources.http import Http
from edged.mediamtx.sources.push import Push
from edged.mediamtx.sources.rpi import Rpi
from edged.mediamtx.sources.rtsp import Rtsp
from edged.mediamtx.sources.test_picture import TestPicture
from edged.mediamtx.sources.usb import Usb

__all__ = ["KINDS", "CameraSource", "Kind", "kind_of", "picture_of", "sets_key_frames"]

KINDS: Final[Mapping[SourceKind, Kind]] = MappingProxyType(
    {"usb": Usb(), "rtsp": Rtsp(), "http": Http(), "push": Push(), "rpi": Rpi(), "test": TestPicture()}
)


def kind_of(source: CameraSource) -> Kind:
    """What its kind has to say of a source."""
    return KINDS[source.kind]


def sets_key_frames(source: CameraSource) -> bool:
    """Kind.sets_key_frames of a source."""
    return kind_of(source).sets_key_frames(source)


def picture_of(source: CameraSource) -> tuple[object, ...]:
    """Kind.picture_of of a source."""
    return kind_of(source).picture_of(source)
