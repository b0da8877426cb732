"""SIGHUP: the settings are read again, and those that can change without a restart are applied.

These are cameras, the log level, and where calls may add cameras. Of all others that differ the log says that they need
a restart. Settings that cannot be read change nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from typing import Final

import msgspec
import structlog
import trio

from edged import logs, systemd
from edged.cameras.registry import Registry
from edged.config.model import SECTIONS, Config, settings_of
from edged.daemon.cameras import read_cameras
from edged.errors import EdgedError

_log = structlog.get_logger("edged")

#: What is applied: sections with all of their keys, and single keys.
APPLIED_SECTIONS: Final = frozenset({"camera", "sources"})
APPLIED_KEYS: Final = frozenset({"log.level"})

#: Reads the settings as the start did. Raises ConfigError.
Load = Callable[[], Config]


def differing(before: Config, after: Config) -> list[str]:
    """The keys, as `section.key`, whose values differ; of cameras `camera` alone. Values are never shown."""
    found = ["camera"] if before.camera != after.camera else []
    for section, kind in SECTIONS.items():
        if section != "camera":
            one, other = getattr(before, section), getattr(after, section)
            found += [f"{section}.{key}" for key in settings_of(kind) if getattr(one, key) != getattr(other, key)]
    return found


def is_applied(key: str) -> bool:
    """Whether another value of this key takes effect without a restart."""
    return key in APPLIED_KEYS or key.partition(".")[0] in APPLIED_SECTIONS


class Reload:
    """Applies new settings. `config`: those of the start; `status()` is what systemd shows of a daemon that serves."""

    def __init__(self, config: Config, load: Load, cameras: Registry, status: Callable[[], str]) -> None:
        self._in_force = config
        self._load = load
        self._cameras = cameras
        self._status = status

    async def follow(self, early: Collection[int] = ()) -> None:
        """Read the settings again on each SIGHUP, also on one of `early`, which came during the start; runs until
        cancelled."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            if signal.SIGHUP in early:
                await self.reload()
            async for _ in signals:
                await self.reload()

    async def reload(self) -> bool:
        """Read the settings again and apply what can be applied; whether that was done."""
        systemd.notify_reloading()
        complaint = ""
        try:
            await self._apply(await trio.to_thread.run_sync(self._load))
        except EdgedError as problem:
            _log.error("settings_not_applied", problem=str(problem), in_force="those of before")
            complaint = f"; the settings were not applied: {problem}"
        systemd.notify(f"READY=1\nSTATUS={self._status()}{complaint}")
        return not complaint

    async def _apply(self, config: Config) -> None:
        before = self._in_force
        changed = differing(before, config)
        self._cameras.addresses.allow(config.sources.also_allowed)
        try:
            # Also where none differs: one that could not be shown or stored then is tried again.
            await self._cameras.configure(read_cameras(config))
        except EdgedError:
            self._cameras.addresses.allow(before.sources.also_allowed)
            raise
        if config.log.level != before.log.level:
            logs.configure(config.log.level)
        applied = {section: getattr(config, section) for section in (*APPLIED_SECTIONS, "camera_places", "log")}
        self._in_force = msgspec.structs.replace(before, **applied)
        _log.info("settings_read_again", applied=[key for key in changed if is_applied(key)] or "nothing new")
        if waiting := [key for key in changed if not is_applied(key)]:
            _log.warning("settings_need_restart", keys=waiting, remedy="systemctl restart edged")
