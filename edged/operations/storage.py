"""What the disk holds, and what of it is kept (contract 3)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from edged.errors import CameraNotFound, InvalidParams
from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.file_params import check_sees_all, confirmation, may, sight_of
from edged.operations.health import find_overdue
from edged.operations.rest import get, post, put
from edged.store.retention import RetentionSetting

#: In the metrics.
_COUNTED_AS: Final = "recordings"
_Days: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=3650)]
_Device: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Gigabytes: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]


class StorageInfo(msgspec.Struct, frozen=True):
    """Bytes of the disk that holds recordings; `usage_percentage` 0 to 100. Low: the oldest recordings are deleted.
    Critical: nothing is recorded. `state` is ok, low, full, unwritable or absent (the medium: there are no bytes then),
    `message` why, "" while all is well."""

    total_space: int
    used_space: int
    available_space: int
    usage_percentage: float
    recordings_size: int
    snapshots_size: int
    low_space_warning: bool
    critical_space_warning: bool
    state: Literal["ok", "low", "full", "absent", "unwritable"]
    message: str


class RetentionParams(msgspec.Struct, frozen=True):
    """What is limited: the age of recordings, their size in all, or nothing but the free space of the disk; of all
    cameras, or of `device` in place of what holds for all. Not `enabled`, of one: what holds for all holds again."""

    policy_type: Literal["age", "size", "manual"]
    enabled: bool
    device: _Device | None = None
    max_age_days: _Days | None = None
    max_size_gb: _Gigabytes | None = None


class RetentionState(msgspec.Struct, frozen=True):
    """The policy in force; 0 is no limit. `device` is "" for what holds for all cameras."""

    policy_type: str
    enabled: bool
    max_age_days: float
    max_size_gb: float
    message: str
    success: bool
    device: str


class CleanupReport(msgspec.Struct, frozen=True):
    """What was deleted now; `space_freed` bytes."""

    cleanup_executed: bool
    files_deleted: int
    space_freed: int
    message: str


@operation("system:admin", rest=get("/api/storage"), counted_as=_COUNTED_AS)
async def get_storage_info(call: OperationCall, params: NoParams) -> StorageInfo:
    """The disk that holds recordings, and what recordings and snapshots take of it, of the cameras that the caller may
    see."""
    recordings = call.services.recordings
    sees = sight_of(call.services, call.session.caller)
    obstacle, overdue = recordings.obstacle, find_overdue(call.services, sees)
    is_absent = obstacle is not None and obstacle.kind == "absent"
    free, total = (0, 0) if is_absent else await recordings.index.free()
    sums = await recordings.index.sums()
    used = max(0, total - free)
    is_low = recordings.sweep.is_short(free, total)
    return StorageInfo(
        total_space=total,
        used_space=used,
        available_space=free,
        usage_percentage=round(100 * used / total, 2) if total else 0.0,
        recordings_size=sum(size for camera, (_, size) in sums.items() if sees(camera)),
        snapshots_size=await call.services.snapshots.measure(sees),
        low_space_warning=is_low,
        critical_space_warning=obstacle is not None,
        state=obstacle.kind if obstacle is not None else "low" if is_low else "ok",
        message="; ".join(each.message for each in (obstacle, overdue) if each is not None),
    )


@operation("system:admin", rest=put("/api/storage/retention"), counted_as=_COUNTED_AS)
async def set_retention_policy(call: OperationCall, params: RetentionParams) -> RetentionState:
    """Limit what recordings may be kept, of all cameras or of one, in place of the settings. Free space is kept
    whatever the policy says."""
    if params.device is None:
        check_sees_all(call)
        device, confirm = "", lambda: check_sees_all(call)
    else:
        device = await _find_camera(call, params.device)
        confirm = confirmation(call, "camera:read", device)
    wanted = {"age": ("max_age_days", params.max_age_days), "size": ("max_size_gb", params.max_size_gb)}
    name, value = wanted.get(params.policy_type, ("", 0.0))
    if params.enabled and name and value is None:
        raise InvalidParams(f"a policy by {params.policy_type} needs {name}", field=name)
    # A number by which this policy does not go is no limit.
    limits = {"max_age_days": 0.0, "max_size_gb": 0.0} | ({name: value} if name and value is not None else {})
    setting = RetentionSetting(params.policy_type, params.enabled, **limits)
    policies = call.services.recordings.sweep.policies
    await policies.set_policy(device, setting, call.grant("system:admin", confirm))
    return RetentionState(
        policy_type=setting.policy_type,
        enabled=setting.enabled,
        max_age_days=setting.max_age_days,
        max_size_gb=setting.max_size_gb,
        message=describe(setting, device),
        success=True,
        device=device,
    )


@operation("system:admin", rest=post("/api/storage/cleanup"), counted_as=_COUNTED_AS)
async def cleanup_old_files(call: OperationCall, params: NoParams) -> CleanupReport:
    """Delete now what the retention policy does not keep, instead of within some seconds."""
    check_sees_all(call)
    files, freed = await call.services.recordings.sweep.clean_up()
    return CleanupReport(True, files, freed, f"{files} files, {freed} bytes deleted")


def describe(setting: RetentionSetting, device: str = "") -> str:
    """The policy in a sentence."""
    of = f" of {device}" if device else ""
    if device and not setting.enabled:
        return f"recordings{of} are kept as those of all cameras"
    if not setting.enabled or setting.policy_type == "manual":
        return f"recordings{of} are deleted for lack of space only"
    if setting.policy_type == "age":
        return f"recordings{of} older than {setting.max_age_days:g} days are deleted"
    return f"the oldest recordings{of} are deleted above {setting.max_size_gb:g} GB"


async def _find_camera(call: OperationCall, device: str) -> str:
    """The id of a camera that the caller may see; one that is gone has one while there are recordings of it.

    Raises CameraNotFound.
    """
    services = call.services
    known = services.cameras.find(device)
    name = device if known is None else known.name
    if not may(services, call.session.caller, "camera:read", name):
        raise CameraNotFound(device)
    if known is None and name not in await services.recordings.list_cameras():
        raise CameraNotFound(device)
    return name
