"""Add, change and remove cameras of the network; streams of other cameras go on (contract 10.23).

A camera of a settings file is changed in that file only. A source is shown without its credentials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from edged.access.asking import asked_by
from edged.cameras.entries import CameraEntry
from edged.cameras.model import Camera
from edged.config.cameras import CameraSettings, complain_of_pre_rolls
from edged.config.schedules import MOST_WINDOWS
from edged.config.sources import KINDS, RtspTransport
from edged.errors import InvalidParams, InvalidState
from edged.operations.catalogue import DeviceParams, OperationCall, operation
from edged.operations.file_params import check_sees_all, current_caller
from edged.operations.rest import create, delete, patch
from edged.urls import MASK, mask_url

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Source = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_SubSource = Annotated[str, msgspec.Meta(max_length=1024)]
_Optional = Annotated[str, msgspec.Meta(max_length=64)]
_Mode = Literal["on_demand", "always"]
_Record = Literal["manual", "always", "schedule"]
_Schedule = Annotated[list[Annotated[str, msgspec.Meta(max_length=11)]], msgspec.Meta(max_length=MOST_WINDOWS)]
_PreRoll = Annotated[int, msgspec.Meta(ge=0, le=30)]
_StillSeconds = Annotated[float, msgspec.Meta(ge=0.1, le=5)]
_Days = Annotated[float, msgspec.Meta(ge=0, le=3650)]
_Gigabytes = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
_log = structlog.get_logger("cameras")


class CameraMembers(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a camera besides its name and source, each as in a `[[camera]]` of the settings."""

    path: _Optional | UnsetType = UNSET
    id: _Optional | UnsetType = UNSET
    mode: _Mode | UnsetType = UNSET
    record: _Record | UnsetType = UNSET
    schedule: _Schedule | UnsetType = UNSET
    pre_roll_seconds: _PreRoll | UnsetType = UNSET
    max_age_days: _Days | UnsetType = UNSET
    max_size_gb: _Gigabytes | UnsetType = UNSET
    size: _Optional | UnsetType = UNSET
    rate: float | UnsetType = UNSET
    bitrate: int | UnsetType = UNSET
    encoder: _Optional | UnsetType = UNSET
    rtsp_transport: RtspTransport | UnsetType = UNSET
    still_seconds: _StillSeconds | UnsetType = UNSET
    sub_source: _SubSource | UnsetType = UNSET
    audio: bool | UnsetType = UNSET


#: Members of the params that are settings of the same name.
_SETTINGS: Final = ("name", "source", *CameraMembers.__struct_fields__)


class AddCameraParams(CameraMembers, frozen=True, kw_only=True):
    """A network camera or one that is published, each member as in a `[[camera]]` of the settings (etc/defaults.toml).

    `source` is an rtsp://, rtsps://, http:// or https:// URL, or push. `path` names its stream, `id`
    lets it be recognised at another source.
    """

    name: _Text
    source: _Source


class UpdateCameraParams(CameraMembers, frozen=True, kw_only=True):
    """Members that are given change, the others stay. The camera keeps its id, also at another source."""

    device: str
    name: _Text | UnsetType = UNSET
    source: _Source | UnsetType = UNSET


class AddedCamera(msgspec.Struct, frozen=True):
    """The settings of an added camera; `source` without credentials, `stream_name` its path at MediaMTX."""

    device: str
    camera_id: str
    stream_name: str
    name: str
    source: str
    path: str
    id: str
    mode: str
    record: str
    schedule: list[str]
    pre_roll_seconds: int
    max_age_days: float
    max_size_gb: float
    size: str
    rate: float
    bitrate: int
    encoder: str
    rtsp_transport: str
    still_seconds: float
    sub_source: str
    audio: bool


class RemovedCamera(msgspec.Struct, frozen=True):
    device: str
    removed: bool
    message: str


@operation("system:admin", rest=create("/api/cameras"), counted_as="added_cameras")
async def add_camera(call: OperationCall, params: AddCameraParams) -> AddedCamera:
    """Add a camera of the network: stored, then shown and streamed, without a restart. Its host name is resolved and
    checked first."""
    check_sees_all(call)  # it would not see the new one, and hear what others are called
    one = _read({name: value for name in _SETTINGS if (value := getattr(params, name)) is not UNSET})
    _refuse_pre_roll(call, one)
    camera = await call.services.cameras.describe(one, call.grant("system:admin", partial(check_sees_all, call)))
    _log.info("camera_added", camera=camera.name, label=camera.label, **asked_by())
    return _show(call, camera)


@operation("system:admin", on_camera=True, rest=patch("/api/cameras/{device}"), counted_as="added_cameras")
async def update_camera(call: OperationCall, params: UpdateCameraParams) -> AddedCamera:
    """Change an added camera. It keeps its number, and with it rights and URLs."""
    before = find_added(call)
    changes = {name: value for name in _SETTINGS if (value := getattr(params, name)) is not UNSET}
    held = before.settings
    for name in ("source", "sub_source"):
        if changes.get(name) and changes[name] == mask_url(getattr(held, name)):
            del changes[name]  # as it was shown, sent back
    if not changes:
        raise InvalidParams("nothing to change", hint=f"give one of {', '.join(_SETTINGS)}")
    one = _read({name: getattr(held, name) for name in _SETTINGS} | changes, number=before.number)
    _refuse_pre_roll(call, one)

    def is_unchanged() -> None:
        if call.services.cameras.described.get(before.number or 0) != before:
            raise InvalidState(f"{call.camera.name} was changed meanwhile", hint="ask again", camera=call.camera.name)

    with unnamed_others(call):
        camera = await call.services.cameras.describe(one, call.grant("system:admin", is_unchanged))
    _log.info("camera_updated", camera=camera.name, changed=sorted(changes), **asked_by())
    return _show(call, camera)


@operation("system:admin", on_camera=True, rest=delete("/api/cameras/{device}"), counted_as="added_cameras")
async def remove_camera(call: OperationCall, params: DeviceParams) -> RemovedCamera:
    """Remove an added camera, or a USB camera that is unplugged: its number is never another camera's."""
    camera = call.camera
    if not camera.is_unplugged:
        find_added(call)
    await call.services.cameras.remove(int(camera.name.removeprefix("camera")), call.grant("system:admin"))
    _log.info("camera_removed", camera=camera.name, label=camera.label, **asked_by())
    return RemovedCamera(camera.name, removed=True, message=f"{camera.name} ({camera.label}) is removed")


@contextmanager
def unnamed_others(call: OperationCall) -> Iterator[None]:
    """Another camera is in the way: named to those only who may see all cameras."""
    try:
        yield
    except InvalidState as problem:
        caller = current_caller(call)
        if problem.fields.get("camera") == call.camera.name or (caller is not None and caller.cameras is None):
            raise
        raise InvalidState("another camera has this name, path, source or id already", hint="choose another") from None


def _refuse_pre_roll(call: OperationCall, one: CameraEntry) -> None:
    """Raises InvalidParams, with the figure, if the pre-rolls of all cameras need more memory than there is."""
    described = call.services.cameras.described.items()
    others = [entry for number, entry in described if one.number is None or number != one.number]
    if complaint := complain_of_pre_rolls(entry.settings for entry in (*others, one)):
        raise InvalidParams(complaint, field="pre_roll_seconds", hint="lower pre_roll_seconds or bitrate")


def find_added(call: OperationCall) -> CameraEntry:
    """The entry of the camera that the call names, if it was added by a call. Raises InvalidState that says where else
    it is described."""
    camera = call.camera
    one = call.services.cameras.described.get(int(camera.name.removeprefix("camera")))
    if one is not None and one.number is not None:
        return one
    if one is not None and one.place:
        raise InvalidState(
            f"{camera.name} ({camera.label}) stands in {one.place}",
            hint="change it there, then: systemctl reload edged",
            camera=camera.name, place=one.place,
        )  # fmt: skip
    where = "is a camera of this box" if one is None else "stands in the settings"
    raise InvalidState(
        f"{camera.name} ({camera.label}) {where} and was not added by a call",
        hint="how it is used says a [[camera]] in a settings file, see etc/defaults.toml",
        camera=camera.name,
    )


def _read(values: dict[str, Any], number: int | None = None) -> CameraEntry:
    """Settings of such a camera, checked. Raises InvalidParams, whose text never has the source."""
    try:
        settings = msgspec.convert(values, CameraSettings)
    except msgspec.ValidationError as problem:
        raise InvalidParams(str(problem).replace("`", "")) from None
    if MASK in settings.source or MASK in settings.sub_source:
        raise InvalidParams(f"source has {MASK} where a password was", hint="give the whole URL")
    if not KINDS[settings.kind].may_be_added:
        raise InvalidParams(
            "source is no rtsp://, rtsps://, http:// or https:// URL, and not push",
            hint="another kind of camera is a [[camera]] in a settings file",
        )
    return CameraEntry(settings, number=number)


def _show(call: OperationCall, camera: Camera) -> AddedCamera:
    one = call.services.cameras.described[int(camera.name.removeprefix("camera"))]
    held = one.settings
    return AddedCamera(
        device=camera.name,
        camera_id=camera.name,
        stream_name=camera.path,
        name=held.name,
        source=mask_url(held.source),
        path=held.path,
        id=held.id,
        mode=held.mode,
        record=held.record,
        schedule=list(held.schedule),
        pre_roll_seconds=held.pre_roll_seconds,
        max_age_days=held.max_age_days,
        max_size_gb=held.max_size_gb,
        size=held.size,
        rate=held.rate,
        bitrate=held.bitrate,
        encoder=held.encoder,
        rtsp_transport=held.rtsp_transport,
        still_seconds=held.still_seconds,
        sub_source=mask_url(held.sub_source),
        audio=held.audio,
    )
