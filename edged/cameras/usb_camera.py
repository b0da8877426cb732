"""The camera behind a node of a USB device, as it is shown. Pure."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from edged.cameras.model import Camera, Status
from edged.cameras.parts import Part
from edged.cameras.probe import choose
from edged.config.model import CameraSettings
from edged.store.cameras import Slot

#: How a camera that no settings describe is used: only the defaults of these count.
_DEFAULTS: Final = CameraSettings(name="USB", source="ID_BUS=usb")


def unplugged(camera: Camera) -> Camera:
    """The camera while nothing is plugged in."""
    return replace(camera, status=Status.DISCONNECTED, node=None, problem="", cause="")


def usb_camera(slot: Slot, part: Part, settings: CameraSettings | None) -> Camera:
    """The camera behind a node: asked and connected, or in trouble."""
    wanted, found = settings or _DEFAULTS, part.found
    modes = found.modes if found else ()
    mode, rate = choose(modes, wanted.width, wanted.height, wanted.rate) or (None, wanted.rate)
    return Camera(
        name=slot.name,
        label=slot.label,
        kind="usb",
        status=Status.CONNECTED if found else Status.ERROR,
        node=part.node.node,
        always_on=wanted.is_always_on,
        record_always=wanted.record == "always",
        schedule=wanted.windows,
        pre_roll=wanted.pre_roll_seconds,
        max_age_days=wanted.max_age_days,
        max_size_gb=wanted.max_size_gb,
        pixel_format=mode.pixel_format if mode else "",
        width=mode.width if mode else wanted.width,
        height=mode.height if mode else wanted.height,
        rate=rate,
        bitrate=wanted.bitrate,
        encoder=wanted.encoder,
        modes=modes,
        problem=part.problem,
        path=slot.path,
        binding=slot.binding,
    )
