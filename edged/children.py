"""Child processes that cannot outlive this one: spawn, await, stop, kill.

A parent-death signal fires when the *thread* that forked ends, and a library's worker threads end after a few idle
seconds. So children are spawned from the main thread, by a `subprocess.Popen` of one to three milliseconds through
`setpriv --pdeathsig KILL`, and their end is awaited by a pidfd. Each child leads a session of its own: Ctrl-C in a
terminal is ours alone, and the processes of its group are killed when it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import structlog
import trio

from edged.descriptors import is_exhausted
from edged.errors import DependencyFailed, OutOfDescriptors
from edged.landlock import Landlock, try_landlock

#: Seconds between two looks at a child while there is no descriptor by which to await its end.
_LOOK_SECONDS = 0.05
#: Seconds to wait for a killed child; one that hangs in the kernel is left behind and logged.
KILL_SECONDS = 5.0
_log = structlog.get_logger("children")


class Child:
    """A running child. Leave an `async with` block of it and it is killed.

    `stdout` and `stderr` are byte streams, None where the output was not asked for. Their reader must keep reading:
    a full pipe stops the child.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        stdout: trio.lowlevel.FdStream | None,
        stderr: trio.lowlevel.FdStream | None,
    ) -> None:
        self._process = process
        self.name = name
        self.stdout = stdout
        self.stderr = stderr

    @property
    def pid(self) -> int:
        """The child's process id, also the id of its process group and session."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the end; any number of tasks may. Returns the return code."""
        if self._process.returncode is not None:
            await trio.lowlevel.checkpoint()
        while self._process.returncode is None:
            # Not reaped yet, and only this method reaps: the pid is still ours.
            try:
                pidfd = os.pidfd_open(self.pid)
            except OSError as error:
                if not is_exhausted(error):
                    raise
                await trio.sleep(_LOOK_SECONDS)
                if not self._has_ended():
                    continue
            else:
                try:
                    await trio.lowlevel.wait_readable(pidfd)
                finally:
                    os.close(pidfd)
            self._reap()
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); nothing happens if it has ended."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens if it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to its whole process group; nothing happens if it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, grace: float = 5.0, first: signal.Signals = signal.SIGTERM) -> int:
        """Ask with `first`, and after `grace` seconds kill. Returns the return code. Shield it if it must be done."""
        self.send_signal(first)
        with trio.move_on_after(grace):
            return await self.wait()
        _log.warning("child_killed", child=self.name, pid=self.pid, why=f"still there {grace:g} s after {first.name}")
        self.kill()
        return await self.wait()

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(KILL_SECONDS) as patience:
                await self.wait()
            for stream in (self.stdout, self.stderr):
                if stream is not None:
                    await stream.aclose()
        if patience.cancelled_caught:
            _log.error("child_not_ended", child=self.name, pid=self.pid, why="it hangs in the kernel")

    def _has_ended(self) -> bool:
        """Without reaping it."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _reap(self) -> None:
        """Collect a child that ended; while it is unreaped its group id cannot be given to anybody else."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


class Spawn(Protocol):
    """Starts a child: `spawn`, with what holds for all children filled in."""

    def __call__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Child: ...


def find_landlock(landlock: Landlock, environment: Mapping[str, str]) -> Landlock | None:
    """The same if this machine can apply it, which is tried once; else None, and one log line says why."""
    for folder in landlock.refused:
        _log.warning("folder_not_opened", folder=folder, remedy="choose a folder of its own: this one holds secrets")
    if why := try_landlock(landlock, environment.get("PATH", os.defpath)):
        _log.info("children_not_confined", why=why, remedy="install util-linux 2.40 or newer, on Linux 6.2 or newer")
        return None
    return landlock


def spawn(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    landlock: Landlock | None,
    folder: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: bool = True,
    stderr: bool = True,
) -> Child:
    """Start a child, from the main thread; returns at once.

    `arguments[0]` is a path, or a name looked up in `environment["PATH"]`; `environment` is the child's whole one;
    `landlock` what it may open, None for everything that we may; `folder` its working folder; `stdin` a descriptor to
    read from, which stays the caller's to close. Output that is not asked for goes to /dev/null.
    Raises DependencyFailed if the program, or `setpriv`, cannot be found or started; OutOfDescriptors if no descriptor
    is left for it.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are spawned from the main thread: they die with the thread that spawned them")
    path = environment.get("PATH", os.defpath)
    program = _find(arguments[0], path, f"install {Path(arguments[0]).name}, or name its full path in the settings")
    guard = _find("setpriv", path, "install util-linux")
    name = Path(program).name
    with contextlib.ExitStack() as ends:
        output = errors = None
        try:
            output, output_end = _pipe(ends) if stdout else (None, subprocess.DEVNULL)
            errors, errors_end = _pipe(ends) if stderr else (None, subprocess.DEVNULL)
            confined = landlock.options(program) if landlock else []
            process = subprocess.Popen(
                [guard, "--pdeathsig", "KILL", *confined, "--", program, *arguments[1:]],
                stdin=stdin,
                stdout=output_end,
                stderr=errors_end,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            for end in (output, errors):
                if end is not None:
                    os.close(end)
            kind = OutOfDescriptors if is_exhausted(error) else DependencyFailed
            raise kind(f"{name} could not be started: {error.strerror}", program=name) from error
    return Child(process, name, _stream(output), _stream(errors))


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal: its state is T (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    except OSError:
        return False


def _find(program: str, path: str, remedy: str) -> str:
    found = shutil.which(program, path=path)
    if found is None:
        raise DependencyFailed(f"no program {program!r}", hint=remedy, program=program)
    return found


def _pipe(ends: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe; its writing end is closed here once the child has it."""
    reading, writing = os.pipe()
    ends.callback(os.close, writing)
    return reading, writing


def _stream(descriptor: int | None) -> trio.lowlevel.FdStream | None:
    return None if descriptor is None else trio.lowlevel.FdStream(descriptor)
