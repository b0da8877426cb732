"""The cameras' part of the composition root: settings and stored cameras → the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

import msgspec
import structlog

from edged.cameras.addresses import Addresses
from edged.cameras.entries import CameraEntry
from edged.cameras.registry import Registry
from edged.cameras.watch import ResyncCause
from edged.config.model import CameraSettings, Config
from edged.store import cameras as store
from edged.store.cameras import Added, Slot
from edged.store.database import Database

_log = structlog.get_logger("cameras")


def build_cameras(config: Config, trust: Database, resynced: Callable[[ResyncCause], None]) -> Registry:
    """The registry over the settings' cameras and those that calls have added. Raises ConfigError."""

    async def save(slot: Slot) -> None:
        await trust.write(lambda connection: store.save(connection, slot))

    async def save_added(slot: Slot, one: CameraEntry) -> None:
        added = Added(slot.number, msgspec.json.encode(one.settings).decode(), one.address)
        await trust.write(lambda connection: store.save_added(connection, slot, added))

    async def remove_added(number: int) -> None:
        await trust.write(lambda connection: store.remove_added(connection, number))

    return Registry(
        partial(trust.read_now, store.load), save, read_cameras(config),
        state=config.paths.state, resynced=resynced,
        added=read_added(trust.read_now(store.load_added)), save_added=save_added, remove_added=remove_added,
        addresses=Addresses(config.sources.also_allowed),
    )  # fmt: skip


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
        except (msgspec.ValidationError, msgspec.DecodeError) as problem:
            _log.error("added_camera_not_read", camera=f"camera{added.number}", problem=type(problem).__name__)
            continue
        found.append(CameraEntry(settings, number=added.number, address=added.address))
    return found
