"""The MediaMTX that edged runs: found, configured, started, and started again when it ends (one run: server_run.py).

The configuration file is written anew before each start and never changed afterwards: MediaMTX would read it again,
forget what its API was told since, and end (with code 0) on any error in it. While it runs, only its API is used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
import trio
from msgspec.structs import replace

from edged.children import Spawn
from edged.config.model import MediaMTXSettings
from edged.errors import EdgedError
from edged.feeds import Feed
from edged.mediamtx.client import ControlApi
from edged.mediamtx.ports import pick_ports
from edged.mediamtx.secrets import DropSecret, NewSecret
from edged.mediamtx.server_run import SCRIPT, TIMING, RunEnd, ServerRun, Start, Timing
from edged.mediamtx.server_state import ServerState
from edged.mediamtx.settings import PathConf, Version, find_binary, parse_version, render, show_version
from edged.restarts import Restarts

CONFIG_NAME = "mediamtx.json"
GET_IT = f"run {SCRIPT}, or name the program under [mediamtx] binary"
_log = structlog.get_logger("mediamtx")


class Supervisor:
    """Keeps one MediaMTX running.

    `hook_url` gives the address that MediaMTX asks (it must be listening by then), `spawn` starts it, `search_path` is
    the PATH variable that the program is looked for in, `folder` is for its configuration file and its working folder,
    `wanted_paths` the paths to start with. `states` publishes every change of `state`.
    """

    def __init__(
        self,
        settings: MediaMTXSettings,
        *,
        hook_url: Callable[[], str],
        new_secret: NewSecret,
        drop_secret: DropSecret,
        spawn: Spawn,
        search_path: str,
        folder: Path,
        wanted_paths: Callable[[], Mapping[str, PathConf]] = dict,
        timing: Timing = TIMING,
    ) -> None:
        self._settings = settings
        self._hook_url = hook_url
        self._new_secret = new_secret
        self._drop_secret = drop_secret
        self._spawn = spawn
        self._search_path = search_path
        self._folder = folder
        self._wanted_paths = wanted_paths
        self._timing = timing
        self._refused_keys: set[str] = set()
        self._run: ServerRun | None = None
        self.states: Feed[ServerState] = Feed()
        self.state = ServerState("starting") if settings.enabled else _off()

    @property
    def client(self) -> ControlApi | None:
        """The control API while MediaMTX is ready, else None."""
        return self._run.client if self._run else None

    def suspect(self) -> None:
        """Somebody could not reach it: check its health now. Returns at once."""
        if self._run is not None:
            self._run.suspect()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start MediaMTX, and again whenever it ends; until cancelled, then stop it. Returns at once if it is off."""
        task_status.started()
        if not self._settings.enabled:
            return
        restarts = Restarts(self._timing.first_pause, self._timing.longest_pause, self._timing.good_after)
        try:
            while True:
                end = await self._run_once()
                self._enter(end.state)
                if end.state.status in ("missing", "refused_version"):
                    await trio.sleep(self._timing.look_again)
                elif not end.again_at_once:
                    await trio.sleep(restarts.note(end.healthy_seconds))
        finally:
            self._enter(ServerState("stopped"))

    async def _run_once(self) -> RunEnd:
        """From the search for the program to the end of its process."""
        binary = find_binary(self._settings.binary, self._search_path)
        if binary.path is None:
            return RunEnd(ServerState("missing", f"no MediaMTX at {', '.join(binary.searched)}", GET_IT))
        secret = self._new_secret("", "api", None)
        try:
            version = await self._read_version(binary.path)
            if problem := self._judge_version(version, binary.path):
                return RunEnd(problem)
            assert version is not None
            settings, api_port = pick_ports(self._settings)
            config = self._write_config(settings, api_port, version)
            start = Start(binary.path, config, self._settings, settings, api_port, secret, self._hook_url(), version)
            self._run = ServerRun(start, self._spawn, self._folder, self._timing, self._enter)
            end = await self._run.attend()
        except (OSError, EdgedError) as error:
            return RunEnd(ServerState("waiting", f"MediaMTX could not be started: {error}", getattr(error, "hint", "")))
        finally:
            self._run = None
            self._drop_secret(secret)
            with contextlib.suppress(OSError):
                (self._folder / CONFIG_NAME).unlink()
        if end.refused_key and end.refused_key not in self._refused_keys:
            self._refused_keys.add(end.refused_key)
            return RunEnd(replace(end.state, remedy=""), again_at_once=True)
        return end

    async def _read_version(self, binary: str) -> Version | None:
        """Ask the program; None if its answer holds no version. Raises DependencyFailed if it cannot be run."""
        async with self._spawn([binary, "--version"], stderr=False) as child:
            said = bytearray()
            with trio.move_on_after(self._timing.ready_within):
                while len(said) < 4096 and (data := await child.stdout.receive_some(4096)):  # type: ignore[union-attr]
                    said += data
        return parse_version(said.decode("utf-8", "replace"))

    def _judge_version(self, version: Version | None, binary: str) -> ServerState | None:
        least = self._settings.minimum_version
        if version is None:
            return ServerState("refused_version", f"{binary} does not say its version", GET_IT)
        if version < (parse_version(least) or (0, 0, 0)):
            detail = f"{binary} is version {show_version(version)}, at least {least} is needed"
            return ServerState("refused_version", detail, GET_IT, version=show_version(version))
        return None

    def _write_config(self, settings: MediaMTXSettings, api_port: int, version: Version) -> Path:
        """A new file that only this user can read: it names the hook's address."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / CONFIG_NAME
        path.unlink(missing_ok=True)
        text = render(
            settings,
            hook_url=self._hook_url(),
            api_address=f"127.0.0.1:{api_port}",
            paths=self._wanted_paths(),
            version=version,
            leave_out=self._refused_keys,
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return path

    def _enter(self, state: ServerState) -> None:
        """Make a state known; the same again is no news."""
        if state == self.state:
            return
        self.state = state
        event = state.status if state.answers else "not_answering"
        known = {"version": state.version, "pid": state.pid, "detail": state.detail, "remedy": state.remedy}
        write = _log.info if state.is_good else _log.warning
        write(event, **{name: value for name, value in known.items() if value})
        self.states.publish(state)


def _off() -> ServerState:
    return ServerState("off", "MediaMTX is switched off", "set enabled = true under [mediamtx]")
