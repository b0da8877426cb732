"""MediaMTX as our child: found, configured, started, watched, restarted, stopped.

Rules and reasons:
- The configuration file is written anew before each start and never touched afterwards: MediaMTX would read it again,
  forget what it was told since, and end (with code 0) on any error in it. While it runs, only its API is used.
- Its output is read until the pipe ends, also while it stops: a full pipe hangs new sessions while health stays green.
- Ready is an answer of /v3/info; healthy is one of the RTSP listener and one of /v3/paths/list (health.py). A look that
  takes long is told at once (`answers`); a second one that fails ends it.
- An exit is never trusted for its code: MediaMTX ends with 0 when a reload fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

import structlog
import trio

from edged.children import Child, Spawn
from edged.config.addresses import OFF
from edged.config.model import ADDRESSES, MediaMTXSettings
from edged.errors import DependencyFailed, EdgedError, OutOfDescriptors
from edged.feeds import Feed
from edged.mediamtx.addresses import reach
from edged.mediamtx.client import Client
from edged.mediamtx.health import Health, is_own_shortage
from edged.mediamtx.output import TAIL_LINES, Diagnosis, Output, diagnose, parse_line
from edged.mediamtx.ports import find_holder, pick_ports
from edged.mediamtx.settings import (
    OPTIONAL,
    USER,
    PathConf,
    Version,
    find_binary,
    parse_version,
    port_of,
    protocols,
    render,
    show_version,
)

Status = Literal[
    "missing", "refused_version", "starting", "ready", "port_taken", "config_refused", "unhealthy", "waiting",
    "stopped", "off",
]  # fmt: skip

CONFIG_NAME = "mediamtx.json"
#: The Debian package brings the script along; a checkout has it where it stands.
_SHIPPED = Path("/usr/share/edged/scripts/get-mediamtx")
_SCRIPT = f"sudo {_SHIPPED}" if _SHIPPED.exists() else "scripts/get-mediamtx"
GET_IT = f"run {_SCRIPT}, or name the program under [mediamtx] binary"
_log = structlog.get_logger("mediamtx")


@dataclass(frozen=True, slots=True)
class ServerState:
    """How MediaMTX is. `detail` says what happened, `remedy` what to do; ports are None where off or unknown.

    `answers` is False while one that is ready does not answer a look at its health. `addresses` are those of the
    protocols that are on (`rtsp` → `127.0.0.2:8554`), with the ports that were picked.
    """

    status: Status
    detail: str = ""
    remedy: str = ""
    version: str = ""
    pid: int | None = None
    rtsp_port: int | None = None
    hls_port: int | None = None
    webrtc_port: int | None = None
    rtmp_port: int | None = None
    srt_port: int | None = None
    answers: bool = True
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A health answer may wait for the hook, for which MediaMTX waits 10 s itself; one that takes longer than
    `slow_after` is told.
    """

    ready_poll: float = 0.02
    ready_within: float = 20.0
    health_every: float = 5.0
    health_within: float = 12.0
    slow_after: float = 3.0
    stop_grace: float = 15.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    healthy_after: float = 10.0
    look_again: float = 30.0


class NewSecret(Protocol):
    """Makes a password for one child: (path, action, uses; None for as many as it likes)."""

    def __call__(self, path: str, action: str, uses: int | None, /) -> str: ...


class Supervisor:
    """Keeps one MediaMTX running.

    `hook_url` gives the address that MediaMTX asks (it must be listening by then), `spawn` starts it,
    `search_path` is the PATH variable that the program is looked for in, `folder` is for its configuration file and
    its working folder, `wanted_paths` the paths to start with.
    `client` is the control API while MediaMTX is ready, else None; `states` tells every change of `state`.
    """

    def __init__(
        self,
        settings: MediaMTXSettings,
        *,
        hook_url: Callable[[], str],
        new_secret: NewSecret,
        drop_secret: Callable[[str], None],
        spawn: Spawn,
        search_path: str,
        folder: Path,
        wanted_paths: Callable[[], Mapping[str, PathConf]] = dict,
        timing: Timing = Timing(),
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
        self.client: Client | None = None
        self.states: Feed[ServerState] = Feed()
        self.state = ServerState("starting") if settings.enabled else _off()
        self._suspected = trio.Event()

    def suspect(self) -> None:
        """Somebody could not reach it: look at its health now. Returns at once."""
        self._suspected.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start MediaMTX, again and again as it takes; until cancelled, then stop it. Returns at once if it is off."""
        task_status.started()
        if not self._settings.enabled:
            return
        pause = self._timing.first_pause
        try:
            while True:
                life = await self._live_once()
                self._enter(life.state)
                if life.state.status in ("missing", "refused_version"):
                    await trio.sleep(self._timing.look_again)
                elif not life.again_at_once:
                    if life.healthy_seconds >= self._timing.healthy_after:
                        pause = self._timing.first_pause
                    await trio.sleep(pause)
                    pause = min(2 * pause, self._timing.longest_pause)
        finally:
            self._enter(ServerState("stopped"))

    async def _live_once(self) -> _Life:
        """One life, from the search for the program to its end."""
        binary = find_binary(self._settings.binary, self._search_path)
        if binary.path is None:
            return _Life(ServerState("missing", f"no MediaMTX at {', '.join(binary.searched)}", GET_IT))
        version: Version | None = None
        secret = self._new_secret("", "api", None)
        try:
            version = await self._read_version(binary.path)
            if problem := self._judge_version(version, binary.path):
                return _Life(problem)
            assert version is not None
            settings, api_port = pick_ports(self._settings)
            config = self._write_config(settings, api_port, version)
            start = _Start(binary.path, config, settings, api_port, secret, version)
            return await self._attend(start)
        except (OSError, EdgedError) as error:
            return _Life(ServerState("waiting", f"MediaMTX could not be started: {error}", getattr(error, "hint", "")))
        finally:
            self._drop_secret(secret)
            with contextlib.suppress(OSError):
                (self._folder / CONFIG_NAME).unlink()

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

    async def _attend(self, start: _Start) -> _Life:
        """From spawn to the end of the child; its output is read to the end, also when we are cancelled."""
        client = Client("127.0.0.1", start.api_port, USER, start.secret, protocols=protocols(start.settings))
        health = Health(client, None if start.settings.rtsp == OFF else reach(start.settings.rtsp))
        tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        ready_at: list[float] = []
        child = self._spawn([start.binary, str(start.config)], folder=self._folder)
        async with child, trio.open_nursery() as readers:
            self._enter(start.state("starting", child.pid))
            streams = [stream for stream in (child.stdout, child.stderr) if stream is not None]
            # MediaMTX writes the whole address of the hook into its errors; its path is what strangers must not know.
            hidden = (urlsplit(self._hook_url()).path.strip("/"),)
            outputs = [Output(trio.current_time, tail, is_noise=health.is_own_line, secrets=hidden) for _ in streams]
            drains = [_Drain(stream, output) for stream, output in zip(streams, outputs, strict=True)]
            for drain in drains:
                readers.start_soon(drain.run)
            try:
                reason = await _first_of(
                    lambda: self._watch_end(child),
                    lambda: self._watch_health(client, health, start, child.pid, ready_at),
                    lambda: _watch_output(drains),
                )
            finally:
                self.client = None
                with trio.CancelScope(shield=True):
                    code = await child.stop(self._timing.stop_grace, signal.SIGINT)
                    for drain in drains:
                        drain.finish_within(1.0)
        if reason:
            return _Life(start.state("unhealthy", None, reason, "its log lines say more"), _since(ready_at))
        if ready_at:
            return _Life(start.state("waiting", None, _describe_end(code, tail)), _since(ready_at))
        return await self._explain(start, code, tail)

    async def _watch_end(self, child: Child) -> str:
        await child.wait()
        return ""

    async def _watch_health(
        self, client: Client, health: Health, start: _Start, pid: int, ready_at: list[float]
    ) -> str:
        """Until it is unhealthy; returns why. Notes in `ready_at` when it became ready."""
        if unready := await self._await_ready(client):
            return unready
        ready_at.append(trio.current_time())
        self.client = client
        ready = start.state("ready", pid, *_advise(start.version, self._settings.recommended))
        self._enter(ready)
        failures = 0
        while True:
            self._suspected = trio.Event()
            if failures:
                # Nobody's suspicion shortens this pause: a restart needs two looks at two moments.
                await trio.sleep(self._timing.health_every / 5)
            else:
                with trio.move_on_after(self._timing.health_every):
                    await self._suspected.wait()
            problem = await self._look(health, ready)
            if problem is None:
                continue
            if not problem:
                failures = 0
                self._enter(ready)
                continue
            failures += 1
            self._enter(replace(ready, answers=False, detail=problem, remedy="its log lines say more"))
            _log.warning("health_check_failed", why=problem, times=failures)
            if failures == 2:
                return problem

    async def _look(self, health: Health, ready: ServerState) -> str | None:
        """What is wrong with it, "" if nothing is, None if that cannot be known for want of our own resources."""
        slow = f"it has not answered for {self._timing.slow_after:g} s"
        problem: str | None = ""

        async def tell_slow() -> None:
            await trio.sleep(self._timing.slow_after)
            if self.state.answers:
                self._enter(replace(ready, answers=False, detail=slow, remedy="it is started again if that lasts"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_slow)
            try:
                await health.look(self._timing.health_within)
            except DependencyFailed as error:
                problem = None if is_own_shortage(error) else str(error)
                if problem is None:
                    _log.warning("health_not_checked", why=str(error))
            nursery.cancel_scope.cancel()
        return problem

    async def _await_ready(self, client: Client) -> str:
        """ "" when it answers, else why not."""
        why = "it did not start to answer"
        with trio.move_on_after(self._timing.ready_within) as patience:
            while True:
                try:
                    await client.info()
                    return ""
                except OutOfDescriptors as error:
                    why, patience.deadline = str(error), trio.current_time() + self._timing.ready_within
                except DependencyFailed as error:
                    why = str(error)
                await trio.sleep(self._timing.ready_poll)
        return f"not ready after {self._timing.ready_within:g} s: {why}"

    async def _explain(self, start: _Start, code: int, tail: deque[bytes]) -> _Life:
        """It ended before it was ready: the state that says why, by its own lines."""
        found = diagnose(map(parse_line, tail))
        if found is None:
            return _Life(start.state("waiting", None, _describe_end(code, tail)))
        if found.status == "port_taken":
            if found.port not in {port_of(getattr(self._settings, name)) for name in ADDRESSES}:
                # Somebody took a free port between our picking it and MediaMTX's listening.
                return _Life(start.state("waiting", None, found.line), again_at_once=True)
            holder = await trio.to_thread.run_sync(find_holder, found.port, found.transport, abandon_on_cancel=True)
            return _Life(start.state("port_taken", None, *_describe_taken(found, holder)))
        if found.unknown_key in OPTIONAL - self._refused_keys:
            self._refused_keys.add(found.unknown_key)
            return _Life(start.state("config_refused", None, found.line), again_at_once=True)
        remedy = f"correct the addresses under [mediamtx], or install the recommended version with {_SCRIPT}"
        return _Life(start.state("config_refused", None, f"MediaMTX refused its configuration: {found.line}", remedy))

    def _enter(self, state: ServerState) -> None:
        """Make a state known; the same again is no news."""
        if state == self.state:
            return
        self.state = state
        is_good = state.status in ("starting", "ready", "stopped") and state.answers
        event = state.status if state.answers else "not_answering"
        known = {"version": state.version, "pid": state.pid, "detail": state.detail, "remedy": state.remedy}
        (_log.info if is_good else _log.warning)(event, **{name: value for name, value in known.items() if value})
        self.states.publish(state)


@dataclass(frozen=True, slots=True)
class _Life:
    """How a life ended: the state until the next one, seconds since it was ready, whether to go on without a pause."""

    state: ServerState
    healthy_seconds: float = 0.0
    again_at_once: bool = False


@dataclass(frozen=True, slots=True)
class _Start:
    """What one start was made of."""

    binary: str
    config: Path
    settings: MediaMTXSettings
    api_port: int
    secret: str
    version: Version

    def state(self, status: Status, pid: int | None, detail: str = "", remedy: str = "") -> ServerState:
        state = ServerState(status, detail, remedy, show_version(self.version), pid)
        if status not in ("starting", "ready"):
            return state
        return replace(
            state,
            rtsp_port=port_of(self.settings.rtsp),
            hls_port=port_of(self.settings.hls),
            webrtc_port=port_of(self.settings.webrtc),
            rtmp_port=port_of(self.settings.rtmp),
            srt_port=port_of(self.settings.srt),
            addresses={name: getattr(self.settings, name) for name in protocols(self.settings)},
        )


class _Drain:
    """Reads one stream to its end whatever is cancelled around it, for it must be read as long as the child lives."""

    def __init__(self, stream: trio.lowlevel.FdStream, output: Output) -> None:
        self._stream = stream
        self._output = output
        self._scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()

    async def run(self) -> None:
        try:
            with self._scope:
                while data := await self._stream.receive_some(65536):
                    self._output.feed(data)
        except (OSError, trio.BrokenResourceError) as error:
            _log.error("output_lost", why=str(error))
        finally:
            self._output.finish()
            self.ended.set()

    def finish_within(self, seconds: float) -> None:
        """The child has ended: nobody but a stray grandchild can still hold the pipe."""
        self._scope.deadline = trio.current_time() + seconds


async def _watch_output(drains: list[_Drain]) -> str:
    """A child whose output nobody reads would hang, unseen by any health check: do not wait for that."""
    await _first_of(*[lambda drain=drain: _told(drain.ended) for drain in drains])
    await trio.sleep(1.0)
    return "its output ended while it ran"


async def _told(event: trio.Event) -> str:
    await event.wait()
    return ""


async def _first_of(*tasks: Callable[[], Awaitable[str]]) -> str:
    """Run all, return what the first to end returned, cancel the others."""
    result = ""

    async with trio.open_nursery() as nursery:

        async def run(task: Callable[[], Awaitable[str]]) -> None:
            nonlocal result
            told = await task()
            if not nursery.cancel_scope.cancel_called:
                result = told
            nursery.cancel_scope.cancel()

        for task in tasks:
            nursery.start_soon(run, task)
    return result


def _since(ready_at: list[float]) -> float:
    return trio.current_time() - ready_at[0] if ready_at else 0.0


def _advise(version: Version, recommended: str) -> tuple[str, str]:
    """Detail and remedy of a version that works but is not the recommended one or newer."""
    if version >= (parse_version(recommended) or (0, 0, 0)):
        return "", ""
    return f"version {show_version(version)} is older than the recommended {recommended}", f"run {_SCRIPT}"


def _describe_end(code: int, raw: deque[bytes]) -> str:
    tail = [parse_line(line) for line in raw]
    last = next((line.text for line in reversed(tail) if line.level == "error"), tail[-1].text if tail else "")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"MediaMTX {how}" + (f": {last}" if last else "")


def _describe_taken(found: Diagnosis, holder: str) -> tuple[str, str]:
    port = f"port {found.port}/{found.transport}"
    remedy = f"stop it, or set another address than {port} under [mediamtx]"
    return f"{port} is taken by {holder or 'another process'}", remedy


def _off() -> ServerState:
    return ServerState("off", "MediaMTX is switched off", "set enabled = true under [mediamtx]")
