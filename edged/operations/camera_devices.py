"""Which device is which camera: names, what is plugged in, and what a person says where nobody can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
import structlog

from edged.access.asking import asked_by
from edged.cameras.bindings import DeviceNotFound
from edged.cameras.device_facts import DeviceFacts
from edged.cameras.model import Camera
from edged.config.cameras import CameraSettings
from edged.errors import InvalidParams, InvalidState
from edged.operations.added_cameras import find_added, unnamed_others
from edged.operations.catalogue import (
    DeviceParams,
    NoParams,
    OperationCall,
    camera_resource,
    find_camera,
    operation,
)
from edged.operations.rest import get, post

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Port = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_log = structlog.get_logger("cameras")


class RenameCameraParams(msgspec.Struct, frozen=True):
    """A camera, and what people are to call it."""

    device: str
    name: _Name


class BindCameraParams(msgspec.Struct, frozen=True):
    """`port` is where the device is plugged in, as list_camera_devices names it, or its node (`/dev/video0`); `device`
    the camera that it is, absent for a new one."""

    port: _Port
    device: str | None = None


class ReleaseParams(msgspec.Struct, frozen=True):
    """`port` as list_camera_devices names it, or the node (`/dev/video0`)."""

    port: _Port


class ReleasedDevice(msgspec.Struct, frozen=True):
    port: str
    released: bool
    message: str


class RenamedCamera(msgspec.Struct, frozen=True):
    device: str
    camera_id: str
    name: str
    message: str


class BoundCamera(msgspec.Struct, frozen=True):
    """`binding`: why the device is this camera; `node` its device file."""

    device: str
    camera_id: str
    name: str
    port: str
    node: str
    binding: str
    message: str


class ForgottenCamera(msgspec.Struct, frozen=True):
    device: str
    forgotten: bool
    message: str


class CameraDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a device that may give pictures. `camera_id`: the camera that it is, "" for none; `why` explains the
    state in one sentence; `candidates`: the cameras that a waiting device may be."""

    port: str
    node: str
    name: str
    serial: str
    state: str
    camera_id: str
    why: str
    candidates: tuple[str, ...]


class CameraDevices(msgspec.Struct, frozen=True):
    devices: tuple[CameraDevice, ...]
    total: int


@operation("system:admin", rest=get("/api/camera-devices"), counted_as="added_cameras")
def list_camera_devices(call: OperationCall, params: NoParams) -> CameraDevices:
    """What is plugged in at which port, which camera it is, and why; also devices that wait or are no cameras."""
    found = tuple(_list_seen(call))
    return CameraDevices(found, len(found))


@operation(
    "system:admin",
    on_camera=True,
    rest=post("/api/cameras/{device}/rename", source="body"),
    counted_as="added_cameras",
)
async def rename_camera(call: OperationCall, params: RenameCameraParams) -> RenamedCamera:
    """Give a camera another name; its number, and with it rights and URLs, stays."""
    camera, name = call.camera, _read_name(params.name)
    number = _number(camera)
    one = call.services.cameras.described.get(number)
    if camera.kind != "usb":
        one = find_added(call)

    def is_unchanged() -> None:
        if call.services.cameras.described.get(number) != one:
            raise InvalidState(f"{camera.name} was changed meanwhile", hint="ask again", camera=camera.name)

    with unnamed_others(call):
        now = await call.services.cameras.rename(number, name, call.grant("system:admin", is_unchanged))
    _log.info("camera_renamed", camera=now.name, label=now.label, before=camera.label, **asked_by())
    return RenamedCamera(now.name, now.name, now.label, f"{now.name} is called {now.label}")


@operation("system:admin", rest=post("/api/camera-devices/bind", source="body"), counted_as="added_cameras")
async def bind_camera(call: OperationCall, params: BindCameraParams) -> BoundCamera:
    """Say which camera a device is that waits, or that was taken for another one; or that it is a new camera."""
    services = call.services
    found = services.cameras.find_device(params.port)
    camera = None if params.device is None else find_camera("system:admin", params.device, services, call.session)
    # A device that was another camera changes places: the caller has both, or it is not found.
    if not _may_see(call, found):
        raise DeviceNotFound(params.port)
    number = None if camera is None else _number(camera)

    def is_unchanged() -> None:
        if services.cameras.find_device(params.port) != found:
            raise InvalidState(f"what is plugged in at {params.port} has changed", hint="ask list_camera_devices again")

    now = await services.cameras.bind(params.port, number, call.grant("system:admin", is_unchanged))
    _log.info("camera_bound_by_hand", camera=now.name, port=found.port, node=found.node, **asked_by())
    return BoundCamera(
        now.name, now.name, now.label, found.port, found.node, now.binding,
        f"the device at {found.port} is {now.name} ({now.label})",
    )  # fmt: skip


@operation("system:admin", rest=post("/api/camera-devices/release", source="body"), counted_as="added_cameras")
def release_camera_device(call: OperationCall, params: ReleaseParams) -> ReleasedDevice:
    """Look at a port again that was left alone because its contact came and went: it is mended."""
    found = [one for one in call.services.cameras.devices() if params.port in (one.port, one.node)]
    if not all(_may_see(call, one) for one in found):
        raise DeviceNotFound(params.port)
    call.services.cameras.release_port(params.port)
    _log.info("camera_port_released", port=params.port, **asked_by())
    return ReleasedDevice(params.port, released=True, message=f"the port {params.port} is looked at again")


@operation("system:admin", on_camera=True, rest=post("/api/cameras/{device}/forget"), counted_as="added_cameras")
async def forget_camera(call: OperationCall, params: DeviceParams) -> ForgottenCamera:
    """Forget the device of a camera that is unplugged and will not come back. Its number is never another camera's; the
    device, plugged in again, is a new camera."""
    camera = call.camera
    if camera.kind != "usb":
        raise InvalidState(
            f"{camera.name} ({camera.label}) is described, and no device is stored for it",
            hint="remove_camera removes one that was added", camera=camera.name,
        )  # fmt: skip
    await call.services.cameras.remove(_number(camera), call.grant("system:admin"))
    _log.info("camera_forgotten", camera=camera.name, label=camera.label, **asked_by())
    return ForgottenCamera(camera.name, forgotten=True, message=f"{camera.name} ({camera.label}) is forgotten")


def _number(camera: Camera) -> int:
    return int(camera.name.removeprefix("camera"))


def _read_name(name: str) -> str:
    """Raises InvalidParams for what is no name of a camera in the settings either."""
    try:
        return msgspec.convert({"name": name, "source": "ID_BUS=usb"}, CameraSettings).name
    except msgspec.ValidationError as problem:
        raise InvalidParams(str(problem).replace("`", "")) from None


def _list_seen(call: OperationCall) -> Iterator[CameraDevice]:
    """The devices, but for those that are only cameras which the caller may not see."""
    for one in call.services.cameras.devices():
        if _may_see(call, one):
            yield CameraDevice(
                port=one.port, node=one.node, name=one.name, serial=one.serial, state=one.state,
                camera_id="" if one.camera is None else f"camera{one.camera}", why=one.why,
                candidates=tuple(f"camera{number}" for number in one.candidates if _may_manage(call, number)),
            )  # fmt: skip


def _may_see(call: OperationCall, one: DeviceFacts) -> bool:
    if one.camera is not None:
        return _may_manage(call, one.camera)
    return not one.candidates or any(_may_manage(call, number) for number in one.candidates)


def _may_manage(call: OperationCall, number: int) -> bool:
    camera = call.services.cameras.find(f"camera{number}")
    if camera is None:
        return False
    return call.services.gate.judge(call.session.caller, "system:admin", camera_resource(camera)).allowed
