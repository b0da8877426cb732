"""The cameras' part of the composition root: settings and stored cameras → the registry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count

import msgspec
import structlog
from msgspec.structs import replace

from edged.access.grants import Commit, Upkeep
from edged.cameras.addresses import Addresses
from edged.cameras.entries import CameraEntry
from edged.cameras.fixed import AddedSlot
from edged.cameras.hotplug import HotplugCounts
from edged.cameras.registry import Registry
from edged.config.model import CameraSettings, Config
from edged.errors import NOT_JSON
from edged.metrics import Metrics
from edged.store import cameras as store
from edged.store.cameras import Added, Slot
from edged.store.database import Database

_log = structlog.get_logger("cameras")


def build_cameras(config: Config, trust: Database, metrics: Metrics) -> Registry:
    """The registry over the settings' cameras and those that calls have added. Raises ConfigError."""

    async def save(slot: Slot) -> None:
        await trust.write(lambda connection: store.save(connection, slot))

    async def save_added(now: AddedSlot, before: AddedSlot | None, commit: Commit) -> None:
        row = _row(now)
        await commit(
            partial(store.save_added, slot=now.slot, added=row),
            undo=partial(store.forget_added, slot=now.slot, added=row) if before is None
            else partial(store.save_added, slot=before.slot, added=_row(before)) if before.one is not None
            else partial(store.put_back, slot=before.slot),
        )  # fmt: skip

    async def remove_added(now: AddedSlot, commit: Commit) -> None:
        undo = partial(store.save_added, slot=now.slot, added=_row(now))
        await commit(partial(store.remove_added, number=now.slot.number), undo=undo)

    async def save_changed(changes: Sequence[tuple[Slot, Slot | None]], commit: Commit) -> None:
        now = [slot for slot, _ in changes]
        await commit(partial(store.save_all, slots=now), undo=partial(store.put_all_back, slots=changes))

    return Registry(
        partial(trust.read_now, store.load), save, read_cameras(config),
        state=config.paths.state, resynced=metrics.udev_resynced,
        counts=HotplugCounts(metrics.hotplug_event, metrics.hotplug_ready),
        added=read_added(trust.read_now(store.load_added)), save_added=save_added, remove_added=remove_added,
        save_changed=save_changed, upkeep=Upkeep(trust),
        addresses=Addresses(config.sources.also_allowed),
    )  # fmt: skip


def _row(now: AddedSlot) -> Added:
    assert now.one is not None, "there is an added camera"
    return Added(now.slot.number, msgspec.json.encode(now.one.settings).decode(), now.one.address)


def read_cameras(config: Config) -> list[CameraEntry]:
    """The `[[camera]]` entries as the registry knows them; test pictures stand in for /dev/video0 and so on."""
    places = config.camera_places or ("",) * len(config.camera)
    found = [CameraEntry(settings, place) for settings, place in zip(config.camera, places, strict=True)]
    numbers = count()
    return [replace(one, stand_in=f"/dev/video{next(numbers)}") if one.kind == "test" else one for one in found]


def read_added(stored: list[Added]) -> list[CameraEntry]:
    """Stored cameras as the registry knows them; one that a later edged wrote, and we cannot read, is passed over."""
    found = []
    for added in stored:
        try:
            settings = msgspec.json.decode(added.settings, type=CameraSettings)
        except NOT_JSON as problem:
            _log.error("added_camera_not_read", camera=f"camera{added.number}", problem=type(problem).__name__)
            continue
        found.append(CameraEntry(settings, number=added.number, address=added.address))
    return found
