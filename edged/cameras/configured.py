"""Cameras that the settings describe: their sources, how they are to be used, and what cannot be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edged.cameras.model import Kind
from edged.errors import ConfigError

_PROPERTY = re.compile(r"[A-Z][A-Z0-9_]*")
_BETWEEN = re.compile(r",(?=[A-Z][A-Z0-9_]*=)")


@dataclass(frozen=True, slots=True)
class Configured:
    """One `[[camera]]` entry.

    `source`: `test`, `rtsp://…`, `rtsps://…`, or a udev match: `PROPERTY=glob`, several with a comma
    between (all must hold; a glob may hold blanks). `width`, `height` pixels, `rate` frames a second, `bitrate`
    bits a second.
    """

    label: str
    source: str
    always_on: bool = False
    width: int = 640
    height: int = 480
    rate: float = 15.0
    bitrate: int = 1_000_000
    encoder: str = ""

    @property
    def kind(self) -> Kind:
        """What sort of source this is."""
        if self.source == "test":
            return "test"
        return "rtsp" if self.source.startswith(("rtsp://", "rtsps://")) else "usb"

    @property
    def match(self) -> tuple[tuple[str, str], ...]:
        """A udev match as (property, glob) pairs. Raises ConfigError for anything that is none."""
        pairs = [part.partition("=") for part in _BETWEEN.split(self.source)]
        if not all(_PROPERTY.fullmatch(name) and glob for name, _, glob in pairs):
            raise ConfigError(
                f"camera {self.label!r}: its source is neither test, rtsp://… nor PROPERTY=glob",
                hint="`udevadm info /dev/video0` shows a camera's properties, for example ID_SERIAL=Logitech*",
                key="camera.source",
            )
        return tuple((name, glob) for name, _, glob in pairs)

    def fits(self, properties: Mapping[str, str]) -> bool:
        """Whether a udev match fits a device."""
        return all(fnmatchcase(properties.get(name, ""), glob) for name, glob in self.match)


def check(configured: Sequence[Configured]) -> None:
    """Refuse what cannot be. Raises ConfigError naming the camera."""
    seen: set[str] = set()
    for one in configured:
        if one.kind == "usb":
            assert one.match
            continue
        if one.label in seen:
            raise ConfigError(f"two cameras are called {one.label!r}", hint="give each its own name", key="camera.name")
        if one.kind == "test" and (one.label in {"", ".", ".."} or set(one.label) & set("/\0")):
            raise ConfigError(
                f"a test camera cannot be called {one.label!r}", hint="its name must be a file name", key="camera.name"
            )
        seen.add(one.label)
