"""Cameras at the ribbon of a Raspberry Pi, which MediaMTX reads itself (its source rpiCamera), where it can.

What has to be there is looked at before anything is tried, and named: MediaMTX would try again each five seconds, and
say in its own log what is wrong (docs/mediamtx.md 4).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar, Final

import msgspec
from msgspec.structs import replace

from edged.mediamtx import causes
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.sources.base import CameraSource, Kind

#: Where MediaMTX unpacks its helper.
_SHM: Final = "/dev/shm"  # noqa: S108 (only its mount options are looked at)
_ARM: Final = frozenset({"aarch64", "armv6l", "armv7l", "armv8l"})


class Machine(msgspec.Struct, frozen=True):
    """What of this machine matters: its processor as uname(2) names it, the device tree's model, whether the system is
    Raspberry Pi OS, and the mount options of /dev/shm, where MediaMTX unpacks its helper and executes it."""

    processor: str
    model: str
    is_raspberry_pi_os: bool
    shm_options: str


@cache
def look(root: Path = Path("/")) -> Machine:
    """This machine, which stays what it is. Reads four small files."""
    mounts = [line.split(" ") for line in _read(root / "proc/mounts").splitlines()]
    options = next((fields[3] for fields in reversed(mounts) if len(fields) > 3 and fields[1] == _SHM), "")
    is_pi_os = (root / "etc/rpi-issue").exists() or "ID=raspbian" in _read(root / "etc/os-release")
    return Machine(platform.machine(), _read(root / "proc/device-tree/model").rstrip("\0\n"), is_pi_os, options)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""


def find_missing(machine: Machine) -> Cause | None:
    """What this machine lacks for a camera at the ribbon, None if nothing that can be seen from outside."""
    lacks = remedy = ""
    if machine.processor not in _ARM:
        lacks = f"this machine is no Raspberry Pi (its processor is {machine.processor or 'unknown'}, not ARM)"
        remedy = "connect the camera to a Raspberry Pi, or use one by USB or in the network"
    elif "Raspberry Pi" not in machine.model:
        lacks = f"this machine is no Raspberry Pi ({machine.model or 'it does not say its model'})"
        remedy = "connect the camera to a Raspberry Pi, or use one by USB or in the network"
    elif not machine.is_raspberry_pi_os:
        lacks = "the system is not Raspberry Pi OS, whose libcamera MediaMTX needs"
        remedy = "install Raspberry Pi OS, or read the camera as a USB or network camera"
    elif "noexec" in machine.shm_options.split(","):
        lacks = f"{_SHM} is mounted noexec, and MediaMTX executes its camera helper there"
        remedy = f"mount {_SHM} without noexec"
    return replace(causes.NO_HARDWARE, sentence=lacks, remedy=remedy) if lacks else None


class Rpi(Kind):
    """`rpi:0` is the first camera, `rpi:1` the second. MediaMTX encodes by the hardware where there is one."""

    is_pushed: ClassVar[bool] = True
    is_read_by_mediamtx: ClassVar[bool] = True
    #: libcamera and the encoder start in some seconds.
    arrival: ClassVar[float] = 8.0
    never: ClassVar[Cause] = causes.NO_MEDIAMTX_PICTURE

    def picture_of(self, source: CameraSource) -> tuple[object, ...]:
        return (source.kind, source.path, source.ribbon, source.width, source.height, source.rate, source.bitrate)

    def find_idle_fault(self, source: CameraSource) -> Cause | None:  # noqa: ARG002
        return find_missing(look())

    def path_keys(self, source: CameraSource) -> Mapping[str, object]:
        if find_missing(look()) is not None:
            return {"source": "publisher"}
        return {
            "source": "rpiCamera",
            "sourceOnDemand": not source.always_on,
            "rpiCameraCamID": source.ribbon,
            "rpiCameraWidth": source.width,
            "rpiCameraHeight": source.height,
            "rpiCameraFPS": source.rate,
            "rpiCameraBitrate": source.bitrate,
            # Two seconds at most until a new viewer has a picture.
            "rpiCameraIDRPeriod": max(1, round(2 * source.rate)),
        }

    def read(self, source: CameraSource, rate: float) -> list[str]:  # noqa: ARG002
        raise NoPicture(source.name, find_missing(look()) or causes.NO_MEDIAMTX_PICTURE)
