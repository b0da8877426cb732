"""MediaMTX's paths are those of our cameras: a plan (pure), and the loop that carries it out.

MediaMTX keeps what its API was told in memory only. So the paths stand in the file that it is started with, and are
compared with what it has after every start and every change of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import msgspec
import structlog
import trio

from edged.errors import DependencyFailed
from edged.mediamtx.client import ControlApi, PathState
from edged.mediamtx.process import Supervisor
from edged.mediamtx.settings import ALL_OTHERS, OTHERS_CONF, PathConf, path_conf
from edged.mediamtx.sources import CameraSource
from edged.repeats import Lasting

#: Seconds until a failed converge is tried again.
RETRY_SECONDS = 1.0
_log = structlog.get_logger("paths")


class Step(msgspec.Struct, frozen=True):
    """One thing to do; `conf` is empty for a removal."""

    do: Literal["replace", "delete"]
    name: str
    conf: PathConf


def plan(
    wanted: Mapping[str, PathConf], present: Mapping[str, PathConf], handed_on: Collection[str] = ()
) -> list[Step]:
    """The steps from `present` (merged with MediaMTX's defaults) to `wanted`; none if all is well.

    Removals come first. Paths in `handed_on` belong to another camera now: they are removed and made anew, which ends
    their readers.
    """
    steps = [Step("delete", name, {}) for name in sorted(present.keys() - (wanted.keys() - set(handed_on)))]
    for name, conf in wanted.items():
        there = None if name in handed_on else present.get(name)
        if there is None or any(there.get(key) != value for key, value in conf.items()):
            steps.append(Step("replace", name, conf))
    return steps


class Paths:
    """The paths that should be, and the task that makes it so. Give `wanted` to the supervisor as `wanted_paths`."""

    def __init__(
        self,
        record_path: Callable[[str], str] = lambda _camera: "",
        memory_path: Callable[[str], str] = lambda _camera: "",
    ) -> None:
        """`record_path(camera)` is where MediaMTX records a camera to, its `recordPath`; "" for never. `memory_path`
        the same for one that is held in memory."""
        self._record_path, self._memory_path = record_path, memory_path
        self._lasting = Lasting()
        self._sources: tuple[CameraSource, ...] = ()
        self._recorded: frozenset[str] = frozenset()
        self._wanted: dict[str, PathConf] = {ALL_OTHERS: OTHERS_CONF}
        #: Which camera has each path, as it should be, and as MediaMTX was told last.
        self._owners: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._changed = trio.Event()
        self._server: Supervisor | None = None
        self.converged = False

    def wanted(self) -> Mapping[str, PathConf]:
        """Name → configuration, as it should be."""
        return self._wanted

    def set_wanted(self, sources: Iterable[CameraSource]) -> None:
        """From here on there is one path for each of these, and one for all others. Returns at once."""
        self._sources = tuple(sources)
        self._apply()

    def set_recorded(self, cameras: Collection[str]) -> None:
        """From here on MediaMTX records these cameras, and no others. Returns at once."""
        self._recorded = frozenset(cameras)
        self._apply()

    def find_path(self, camera: str) -> str | None:
        """The path of a camera."""
        return next((source.path for source in self._sources if source.name == camera), None)

    def _apply(self) -> None:
        wanted: dict[str, PathConf] = {
            source.path: path_conf(
                source,
                (self._memory_path if source.is_held_in_memory else self._record_path)(source.name),
                is_recorded=source.name in self._recorded,
            )
            for source in self._sources
        }
        wanted[ALL_OTHERS] = OTHERS_CONF
        owners = {source.path: source.name for source in self._sources}
        if (wanted, owners) != (self._wanted, self._owners):
            self._wanted, self._owners = wanted, owners
            self._poke()

    async def list(self) -> list[PathState]:
        """Every path as it is now; none while MediaMTX is not ready. Raises DependencyFailed if it does not answer."""
        client = self._server.client if self._server else None
        if client is None:
            await trio.lowlevel.checkpoint()
            return []
        return await client.list_paths()

    async def run(self, server: Supervisor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Converge after every start of MediaMTX and every change; runs until cancelled."""
        self._server = server
        async with trio.open_nursery() as nursery:
            with server.states.subscribe() as states:
                nursery.start_soon(self._converge_on_change, server)
                task_status.started()
                while True:
                    await states.receive()
                    self._poke()

    async def _converge_on_change(self, server: Supervisor) -> None:
        while True:
            self._changed = trio.Event()
            client = server.client
            self.converged = client is not None and await self._converge(client)
            with trio.move_on_after(RETRY_SECONDS if client and not self.converged else float("inf")):
                await self._changed.wait()

    async def _converge(self, client: ControlApi) -> bool:
        """Carry the plan out; False if MediaMTX failed meanwhile."""
        wanted, owners = self._wanted, self._owners
        handed_on = {path for path, owner in owners.items() if self._told.get(path, owner) != owner}
        try:
            for step in plan(wanted, await client.list_path_configs(), handed_on):
                if step.do == "delete":
                    await client.delete_path(step.name)
                    self._told.pop(step.name, None)
                else:
                    await client.replace_path(step.name, step.conf)
                    self._told[step.name] = owners.get(step.name, "")
                _log.info(f"path_{step.do}d", path=step.name)
        except DependencyFailed as error:
            if self._lasting.begins("set", str(error)):
                _log.warning("paths_not_set", why=str(error), next="it is tried again until it works")
            return False
        if self._lasting.ends("set"):
            _log.info("paths_set_again")
        self._told = dict(owners)
        return wanted is self._wanted

    def _poke(self) -> None:
        self.converged = False
        self._changed.set()
