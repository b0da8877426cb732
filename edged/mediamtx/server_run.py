"""One run of MediaMTX: from the start of its process to the end.

- Its output is read until the pipe ends, also while it stops: with a full pipe it accepts no new session, and its
  health answers stay good.
- It is ready when it answers /v3/info, and healthy while its RTSP listener and /v3/paths/list answer (health.py). An
  answer that takes long is told at once (`ServerState.answers`); a second health check that fails ends the run.
- Its exit code says nothing: MediaMTX ends with 0 when it cannot read its configuration again.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.children import Child, Spawn
from edged.config.addresses import OFF
from edged.config.model import ADDRESSES, MediaMTXSettings
from edged.errors import DependencyFailed, OutOfDescriptors
from edged.mediamtx.addresses import reach
from edged.mediamtx.client import ControlApi
from edged.mediamtx.health import Health, is_own_shortage
from edged.mediamtx.output import TAIL_LINES, Drain, Output, diagnose, parse_line
from edged.mediamtx.ports import find_holder
from edged.mediamtx.server_state import ServerState, ServerStatus, describe_end, describe_taken
from edged.mediamtx.settings import (
    OPTIONAL,
    USER,
    Version,
    parse_version,
    port_of,
    protocols,
    show_version,
)
from edged.repeats import Lasting
from edged.restarts import FIRST_PAUSE, GOOD_SECONDS, LONGEST_PAUSE

#: The Debian package brings the script along; in a checkout it is in scripts/.
_SHIPPED = Path("/usr/share/edged/scripts/get-mediamtx")
SCRIPT = f"sudo {_SHIPPED}" if _SHIPPED.exists() else "scripts/get-mediamtx"
_LOG_REMEDY = "its log lines say more"
_log = structlog.get_logger("mediamtx")

#: Makes a state known to everybody; the same again is no news.
Enter: TypeAlias = Callable[[ServerState], None]


class Timing(msgspec.Struct, frozen=True):
    """Seconds. An answer of the API may wait for the hook, for which MediaMTX waits 10 s itself; the RTSP listener asks
    nobody about OPTIONS. An answer that takes longer than `slow_after` is told. One that hangs ends within
    `hung_grace`: what it has not written by then, it does not write.
    """

    ready_poll: float = 0.02
    ready_within: float = 20.0
    health_every: float = 5.0
    listener_within: float = 4.0
    health_within: float = 12.0
    slow_after: float = 3.0
    stop_grace: float = 15.0
    hung_grace: float = 2.0
    first_pause: float = FIRST_PAUSE
    longest_pause: float = LONGEST_PAUSE
    good_after: float = GOOD_SECONDS
    look_again: float = 30.0


TIMING: Final = Timing()


class RunEnd(msgspec.Struct, frozen=True):
    """How a run ended: the state until the next, seconds since it was ready, whether to start again without a pause.

    `refused_key`: a key of the configuration (settings.OPTIONAL) that this version does not know.
    """

    state: ServerState
    healthy_seconds: float = 0.0
    again_at_once: bool = False
    refused_key: str = ""


class Start(msgspec.Struct, frozen=True):
    """What one run is started with. `asked` are the settings as they were given, `settings` those with the ports that
    were picked; `secret` is the password for the control API, `hook_url` the address that MediaMTX asks."""

    binary: str
    config: Path
    asked: MediaMTXSettings
    settings: MediaMTXSettings
    api_port: int
    secret: str
    hook_url: str
    version: Version

    def state(self, status: ServerStatus, pid: int | None, detail: str = "", remedy: str = "") -> ServerState:
        """A state of this run, with version, addresses and ports while it runs."""
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


class ServerRun:
    """One MediaMTX process and what is known of it. `client` is its control API while it is ready, else None."""

    def __init__(self, start: Start, spawn: Spawn, folder: Path, timing: Timing, enter: Enter) -> None:
        """`spawn` starts it with the working folder `folder`; `enter` makes its states known."""
        self._start = start
        self._spawn = spawn
        self._folder = folder
        self._timing = timing
        self._tell = enter
        self._lasting = Lasting()
        self._state = start.state("starting", None)
        self._suspected = trio.Event()
        self._ready_at: float | None = None
        self._client = ControlApi("127.0.0.1", start.api_port, USER, start.secret, protocols=protocols(start.settings))
        self._health = Health(self._client, None if start.settings.rtsp == OFF else reach(start.settings.rtsp))
        self.client: ControlApi | None = None

    def suspect(self) -> None:
        """Somebody could not reach it: check its health now. Returns at once."""
        self._suspected.set()

    async def attend(self) -> RunEnd:
        """Start the process, watch it, and return how it ended; when cancelled, stop it.

        Raises DependencyFailed, OutOfDescriptors, OSError if it cannot be started.
        """
        tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        child = self._spawn([self._start.binary, str(self._start.config)], folder=self._folder)
        async with child, trio.open_nursery() as readers:
            self._enter(self._start.state("starting", child.pid))
            streams = [stream for stream in (child.stdout, child.stderr) if stream is not None]
            # MediaMTX writes the whole address of the hook into its errors; its path must stay unknown.
            hidden = (urlsplit(self._start.hook_url).path.strip("/"),)
            is_noise = self._health.is_own_line
            outputs = [Output(trio.current_time, tail, is_noise=is_noise, secrets=hidden) for _ in streams]
            drains = [Drain(stream, output) for stream, output in zip(streams, outputs, strict=True)]
            for drain in drains:
                readers.start_soon(drain.run)
            reason = ""
            try:
                reason = await _first_of(
                    lambda: _watch_end(child), lambda: self._watch_health(child.pid), lambda: _watch_output(drains)
                )
            finally:
                self.client = None
                with trio.CancelScope(shield=True):
                    grace = self._timing.hung_grace if reason else self._timing.stop_grace
                    code = await child.stop(grace, signal.SIGINT)
                    for drain in drains:
                        drain.finish_within(1.0)
        if reason:
            return self._end(self._start.state("unhealthy", None, reason, _LOG_REMEDY))
        if self._ready_at is not None:
            return self._end(self._start.state("waiting", None, describe_end(code, map(parse_line, tail))))
        return await self._explain(code, tail)

    async def _watch_health(self, pid: int) -> str:
        """Until it is unhealthy; returns why."""
        if unready := await self._await_ready():
            return unready
        self._ready_at = trio.current_time()
        self.client = self._client
        ready = self._start.state("ready", pid, *self._advise())
        self._enter(ready)
        failures = 0
        while True:
            self._suspected = trio.Event()
            if failures:
                # A suspicion does not shorten this pause: a restart needs two checks at two moments.
                await trio.sleep(self._timing.health_every / 5)
            else:
                with trio.move_on_after(self._timing.health_every):
                    await self._suspected.wait()
            problem = await self._check(ready)
            if problem is None:
                continue
            if not problem:
                failures = 0
                self._enter(ready)
                continue
            failures += 1
            self._enter(replace(ready, answers=False, detail=problem, remedy=_LOG_REMEDY))
            _log.warning("health_check_failed", why=problem, times=failures)
            if failures == 2:
                return problem

    async def _check(self, ready: ServerState) -> str | None:
        """What is wrong with it, "" if nothing is, None if that cannot be known for want of our own resources."""
        slow = f"it has not answered for {self._timing.slow_after:g} s"
        problem: str | None = ""

        async def tell_slow() -> None:
            await trio.sleep(self._timing.slow_after)
            if self._state.answers:
                self._enter(replace(ready, answers=False, detail=slow, remedy="it is started again if that lasts"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_slow)
            try:
                await self._health.check(self._timing.listener_within, self._timing.health_within)
            except DependencyFailed as error:
                problem = None if is_own_shortage(error) else str(error)
                if problem is None and self._lasting.begins("check", str(error)):
                    _log.warning("health_not_checked", why=str(error))
            nursery.cancel_scope.cancel()
        if problem is not None and self._lasting.ends("check"):
            _log.info("health_checked_again")
        return problem

    async def _await_ready(self) -> str:
        """ "" when it answers, else why it did not within `ready_within`."""
        why = "it did not start to answer"
        with trio.move_on_after(self._timing.ready_within) as patience:
            while True:
                try:
                    await self._client.info()
                    return ""
                except OutOfDescriptors as error:
                    why, patience.deadline = str(error), trio.current_time() + self._timing.ready_within
                except DependencyFailed as error:
                    why = str(error)
                await trio.sleep(self._timing.ready_poll)
        return f"not ready after {self._timing.ready_within:g} s: {why}"

    async def _explain(self, code: int, tail: deque[bytes]) -> RunEnd:
        """It ended before it was ready: the state that says why, by its own lines."""
        start = self._start
        found = diagnose(map(parse_line, tail))
        if found is None:
            return RunEnd(start.state("waiting", None, describe_end(code, map(parse_line, tail))))
        if found.status == "port_taken":
            if found.port not in {port_of(getattr(start.asked, name)) for name in ADDRESSES}:
                # Somebody took a free port between our picking it and MediaMTX's listening.
                return RunEnd(start.state("waiting", None, found.line), again_at_once=True)
            holder = await trio.to_thread.run_sync(find_holder, found.port, found.transport, abandon_on_cancel=True)
            return RunEnd(start.state("port_taken", None, *describe_taken(found, holder)))
        remedy = f"correct the addresses under [mediamtx], or install the recommended version with {SCRIPT}"
        state = start.state("config_refused", None, f"MediaMTX refused its configuration: {found.line}", remedy)
        return RunEnd(state, refused_key=found.unknown_key if found.unknown_key in OPTIONAL else "")

    def _advise(self) -> tuple[str, str]:
        """Detail and remedy of a version that works but is not the recommended one or newer."""
        version, recommended = self._start.version, self._start.asked.recommended
        if version >= (parse_version(recommended) or (0, 0, 0)):
            return "", ""
        return f"version {show_version(version)} is older than the recommended {recommended}", f"run {SCRIPT}"

    def _end(self, state: ServerState) -> RunEnd:
        return RunEnd(state, 0.0 if self._ready_at is None else trio.current_time() - self._ready_at)

    def _enter(self, state: ServerState) -> None:
        self._state = state
        self._tell(state)


async def _watch_end(child: Child) -> str:
    await child.wait()
    return ""


async def _watch_output(drains: list[Drain]) -> str:
    """A child whose output nobody reads accepts no new session, and no health check shows it."""
    await _first_of(*[lambda drain=drain: _wait_for(drain.ended) for drain in drains])
    await trio.sleep(1.0)
    return "its output ended while it ran"


async def _wait_for(event: trio.Event) -> str:
    await event.wait()
    return ""


async def _first_of(*tasks: Callable[[], Awaitable[str]]) -> str:
    """Run all, return what the first to end returned, cancel the others."""
    result = ""

    async with trio.open_nursery() as nursery:

        async def run(task: Callable[[], Awaitable[str]]) -> None:
            nonlocal result
            returned = await task()
            if not nursery.cancel_scope.cancel_called:
                result = returned
            nursery.cancel_scope.cancel()

        for task in tasks:
            nursery.start_soon(run, task)
    return result
