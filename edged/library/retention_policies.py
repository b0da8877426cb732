"""Where the policy of retention comes from: the settings, those of each camera, and what an administrator has set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Commit, Grant
from edged.library.retention import DAY_SECONDS, GIGABYTE, CameraPolicy, Policy
from edged.store import retention
from edged.store.database import Database
from edged.store.retention import RetentionSetting

_log = structlog.get_logger("recordings")


class RetentionPolicies:
    """`policy` is the one in force. What an administrator has set holds, else the settings."""

    def __init__(self, trust: Database, settings: Policy) -> None:
        self._trust = trust
        self._settings = settings
        self._cameras: Mapping[str, CameraPolicy] = {}
        self._is_saved = True
        #: The limits of cameras are known: before that nothing goes by the general ones.
        self.known = trio.Event()
        #: "" for what holds for all cameras.
        self._set: dict[str, RetentionSetting] = {}
        self.policy = settings

    def load(self) -> None:
        """Take up what an administrator has set, and the limits that cameras had last: one that is not plugged in is
        not known before it is."""
        self._set = self._trust.read_now(retention.load)
        self._cameras = {
            camera: CameraPolicy(max_age=age, max_bytes=size)
            for camera, (age, size) in self._trust.read_now(retention.load_limits).items()
        }
        self._merge()

    def set_cameras(self, cameras: Mapping[str, CameraPolicy | None]) -> None:
        """From here on these cameras have settings of their own, or (None) none; an age of None is the general one."""
        found = {camera: limits for camera, limits in self._cameras.items() if camera not in cameras}
        found |= {camera: limits for camera, limits in cameras.items() if limits is not None}
        self.known.set()
        if found != self._cameras:
            self._cameras, self._is_saved = found, False
            self._merge()

    async def save(self) -> None:
        """Note the limits of cameras, if they have changed. Raises StoreFailed."""
        if not self._is_saved:
            limits = {camera: (each.max_age, each.max_bytes) for camera, each in self._cameras.items()}
            await self._trust.write(partial(retention.save_limits, limits=limits))
            self._is_saved = True

    async def set_policy(self, camera: str, setting: RetentionSetting, grant: Grant) -> None:
        """Keep the recordings of a camera ("" for all cameras) by this instead of the settings: durable when this
        returns. One of a camera that is not enabled takes back what was set before. Raises what the grant raises."""
        await grant(partial(self._set_policy, camera, setting))

    async def _set_policy(self, camera: str, setting: RetentionSetting, commit: Commit) -> None:
        kept = None if camera and not setting.enabled else setting
        undo = partial(retention.save, camera=camera, setting=self._set.get(camera))
        await commit(partial(retention.save, camera=camera, setting=kept), undo=undo)
        self._set.pop(camera, None)
        if kept is not None:
            self._set[camera] = kept
        self._merge()
        _log.info("retention_changed", camera=camera or "all", **msgspec.structs.asdict(setting))

    def _merge(self) -> None:
        self.policy = merge(self._settings, self._cameras, self._set)


def merge(settings: Policy, cameras: Mapping[str, CameraPolicy], given: Mapping[str, RetentionSetting]) -> Policy:
    """The policy in force. `given`: what was set, by camera, "" for all."""
    policy = settings
    if (general := given.get("")) is not None:
        limits = read(general)
        policy = replace(policy, max_age=limits.max_age, max_bytes=limits.max_bytes)
    own = {
        camera: limits if limits.max_age is not None else replace(limits, max_age=policy.max_age)
        for camera, limits in cameras.items()
    }
    own |= {camera: read(setting) for camera, setting in given.items() if camera}
    return replace(policy, cameras=own)


def read(setting: RetentionSetting) -> CameraPolicy:
    """The limits that a setting names."""
    by_age = setting.enabled and setting.policy_type == "age"
    by_size = setting.enabled and setting.policy_type == "size"
    return CameraPolicy(
        max_age=setting.max_age_days * DAY_SECONDS if by_age else None,
        max_bytes=int(setting.max_size_gb * GIGABYTE) if by_size else None,
    )
