"""Cameras that somebody described: their sources, how they are to be used, and which slot is theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edged.cameras.model import Kind, Transport
from edged.config.model import CameraSettings
from edged.config.sources import identify, is_network
from edged.errors import ConfigError
from edged.store.cameras import Slot

#: What the identity of a described camera's slot is made of: the operator's id, and the digest of its source.
ID, SOURCE = "id", "source"

_PROPERTY = re.compile(r"[A-Z][A-Z0-9_]*")
_BETWEEN = re.compile(r",(?=[A-Z][A-Z0-9_]*=)")


@dataclass(frozen=True, slots=True)
class Configured:
    """One `[[camera]]` entry, or one camera that a call has added.

    `source`: `test`, `rtsp://…`, `rtsps://…`, or a udev match: `PROPERTY=glob`, several with a comma
    between (all must hold; a glob may hold blanks). `width`, `height` pixels, `rate` frames a second, `bitrate`
    bits a second. `id` is the operator's, "" for none; `path` its path at MediaMTX, "" for its slot's name; `place`
    the file and line where it stands; `transport` how an RTSP source sends; `stand_in` the device file that a test
    picture can be asked for by. Of an added camera `number` is its slot and `address` the literal address that its host
    name stands for.
    """

    label: str
    source: str
    always_on: bool = False
    width: int = 640
    height: int = 480
    rate: float = 15.0
    bitrate: int = 1_000_000
    encoder: str = ""
    id: str = ""
    path: str = ""
    place: str = ""
    number: int | None = None
    address: str = ""
    transport: Transport = "auto"
    stand_in: str = ""

    @property
    def kind(self) -> Kind:
        """What sort of source this is."""
        if self.source == "test":
            return "test"
        return "rtsp" if is_network(self.source) else "usb"

    @property
    def identity(self) -> dict[str, str]:
        """By which its slot is found again: the id first, then the source, whatever its credentials."""
        own = {ID: self.id} if self.id else {}
        return own if self.kind == "usb" else {**own, SOURCE: identify(self.source)}

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


def of_settings(settings: CameraSettings, place: str = "") -> Configured:
    """A camera's settings as the registry knows them; `place` is the file and line where they stand."""
    return Configured(
        label=settings.name,
        source=settings.source,
        always_on=settings.mode == "always",
        width=settings.width,
        height=settings.height,
        rate=settings.rate,
        bitrate=settings.bitrate,
        encoder=settings.encoder,
        transport=settings.rtsp_transport,
        id=settings.id,
        path=settings.path,
        place=place,
    )


def to_settings(one: Configured) -> CameraSettings:
    """What `of_settings` reads, the source with credentials. Raises ValueError for what no settings may say."""
    return CameraSettings(
        name=one.label,
        source=one.source,
        mode="always" if one.always_on else "on_demand",
        size=f"{one.width}x{one.height}",
        rate=one.rate,
        bitrate=one.bitrate,
        encoder=one.encoder,
        rtsp_transport=one.transport,
        path=one.path,
        id=one.id,
    )


def check(configured: Sequence[Configured]) -> None:
    """Refuse what cannot be. Raises ConfigError naming the camera."""
    labels: set[str] = set()
    for one in configured:
        if one.kind == "usb":
            assert one.match
            continue
        if one.label in labels:
            raise ConfigError(f"two cameras are called {one.label!r}", hint="give each its own name", key="camera.name")
        if one.kind == "test" and (one.label in {"", ".", ".."} or set(one.label) & set("/\0")):
            raise ConfigError(
                f"a test camera cannot be called {one.label!r}", hint="its name must be a file name", key="camera.name"
            )
        labels.add(one.label)


def recognise(wanted: Sequence[Configured], slots: Iterable[Slot]) -> list[Slot | None]:
    """Which slot is whose, None for a camera that is new. `slots`: those that may be taken; USB ones are passed over.

    By the operator's id; else by the source, unless the slot has another id; else, for a slot of before there were
    identities, by the label. Test pictures all have one source: a label tells them apart, and where one entry and one
    slot are left over the entry was renamed.
    """
    free = [slot for slot in slots if slot.kind != "usb"]
    found: list[Slot | None] = [None] * len(wanted)

    def take(at: int, slot: Slot | None) -> None:
        if slot is not None:
            found[at] = slot
            free.remove(slot)

    def left() -> list[tuple[int, Configured]]:
        return [(at, one) for at, one in enumerate(wanted) if found[at] is None]

    for at, one in left():
        if one.id:
            take(at, next((slot for slot in free if slot.identity.get(ID) == one.id), None))
    for is_named in (True, False):
        for at, one in left():
            same = [slot for slot in free if _has_source(slot, one) and (slot.label == one.label or not is_named)]
            if is_named or one.kind != "test":
                take(at, same[0] if same else None)
    for at, one in left():
        take(at, next((slot for slot in free if not slot.identity and slot.label == one.label), None))
    tests = [(at, one) for at, one in left() if one.kind == "test"]
    if len(tests) == 1:
        ((at, one),) = tests
        same = [slot for slot in free if _has_source(slot, one)]
        take(at, same[0] if len(same) == 1 else None)
    return found


def _has_source(slot: Slot, one: Configured) -> bool:
    if slot.identity.get(SOURCE) != one.identity[SOURCE]:
        return False
    return not one.id or slot.identity.get(ID, one.id) == one.id
