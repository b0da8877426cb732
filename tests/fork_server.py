"""Programs of edged as processes of their own, without a new start of Python for each.

A server that has imported edged forks a child for each line of its standard input; the child then runs what
`python -m edged …` or a script of tests/ would. Importing edged is most of the CPU of such a process, and some tests
start dozens. So is making its signing keys, which takes another process: a daemon gets ones that were made before
(made_keys.py), and the next ones get others. The child is this process' own: pytest adopts it for the moment in which
the fork in between ends (PR_SET_CHILD_SUBREAPER), and may then signal it and wait for it as for any other.

Not for tests of what happens while Python starts, such as closed standard files and encodings.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import made_keys

from edged.credentials.key_pairs import Algorithm

HERE = Path(__file__).parent
#: What a child needs sooner or later.
MODULES = ("edged.app", "edged.cli.main", "edged.cli.options", "edged.cli.serve", "durability_child")
#: How many key pairs of each algorithm a child is given: what a daemon makes at its start.
KEYS_OF_A_CHILD = 2
_PR_SET_CHILD_SUBREAPER = 36
#: By the library that they preload, or "".
_servers: dict[str, subprocess.Popen[bytes]] = {}
_one_at_a_time = threading.Lock()


class Child:
    """The part of subprocess.Popen that the tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def _ended(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or the number of a signal below 0. Raises TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self._ended(0 if end is None else os.WNOHANG)) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    words: Sequence[str | Path],
    environment: Mapping[str, str],
    log: Path,
    cwd: Path = HERE.parent,
    *,
    preload: str = "",
    new_session: bool = False,
    stdin: str | Path = os.devnull,
    stderr: Path | None = None,
) -> Child:
    """Run `python *words` with this environment; all output is appended to `log`, unless `stderr` takes what is written
    to standard error."""
    server = _servers.get(preload) or _start_server(preload)
    assert server.stdin is not None
    assert server.stdout is not None
    request = {
        "words": [str(word) for word in words],
        "environment": dict(environment),
        "files": [str(stdin), str(log), str(stderr or log)],
        "cwd": str(cwd),
        "preload": preload,
        "new_session": new_session,
    }
    prctl = ctypes.CDLL(None).prctl
    assert prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        server.stdin.write(json.dumps(request).encode() + b"\n")
        server.stdin.flush()
        # Told after the fork in between has ended.
        told = server.stdout.readline()
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert told, "the server of the forks ended"
    return Child(int(told))


def run(
    words: Sequence[str | Path],
    environment: Mapping[str, str],
    cwd: Path = HERE.parent,
    *,
    stdin: bytes = b"",
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """Run `python *words` to its end, from any thread. Raises TimeoutExpired, and then the child is killed."""
    with tempfile.TemporaryDirectory(prefix="edged-run-") as name:
        given, out, err = (Path(name) / each for each in ("in", "out", "err"))
        given.write_bytes(stdin)
        with _one_at_a_time:
            child = start(words, environment, out, cwd, stdin=given, stderr=err)
        try:
            code = child.wait(timeout)
        finally:
            child.kill()
            child.wait()
        return subprocess.CompletedProcess(list(words), code, out.read_bytes(), err.read_bytes())


def _start_server(preload: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    server = subprocess.Popen(
        [sys.executable, str(HERE / "fork_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE.parent,
        env=environ | ({"LD_PRELOAD": preload} if preload else {}),
    )
    _servers[preload] = server
    atexit.register(_stop_server, server)
    return server


def _stop_server(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.stdout.close()
    server.wait()


class Keys:
    """Takes the place of edged.signing.key_maker.make, with keys that were made before; later ones are made by it."""

    def __init__(self) -> None:
        from edged.signing import key_maker

        self._make = key_maker.make
        key_maker.make = self.make
        self._ready: dict[Algorithm, list[Any]] = {}
        self._given: dict[str, list[Any]] = {}

    def give(self) -> None:
        """Before a fork: this child's keys."""
        if not self._ready:
            self._ready = {algorithm: list(made) for algorithm, made in made_keys.load().items()}
        for algorithm, ready in self._ready.items():
            self._given[algorithm] = ready[:KEYS_OF_A_CHILD]
            self._ready[algorithm] = ready[KEYS_OF_A_CHILD:] + self._given[algorithm]

    async def make(self, spawn: Any, algorithms: Sequence[Any]) -> Any:
        """The next of this child's keys, if there is one of each algorithm."""
        if any(algorithms.count(name) > len(self._given.get(name, ())) for name in algorithms):
            return await self._make(spawn, algorithms)
        return [self._given[name].pop(0) for name in algorithms]


def serve() -> None:
    """Fork a child for each line, and print its pid; in a child, return what it is to run."""
    for name in MODULES:
        importlib.import_module(name)
    keys = Keys()
    while line := sys.stdin.buffer.readline():
        keys.give()
        read, write = os.pipe()
        between = os.fork()
        if not between:
            os.close(read)
            child = os.fork()
            if not child:
                os.close(write)
                become(json.loads(line))
                return
            os.write(write, str(child).encode())
            os._exit(0)
        os.close(write)
        pid = os.read(read, 20)
        os.close(read)
        os.waitpid(between, 0)
        os.write(1, pid + b"\n")


def become(request: Any) -> None:
    """Be what was asked for; SystemExit as of a program."""
    if request["new_session"]:
        os.setsid()
    for number, file in enumerate(request["files"]):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT if number else os.O_RDONLY, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    # As in a process that was never another one.
    random.seed()
    if request["preload"]:
        ctypes.CDLL(request["preload"]).start_disk()
    words = request["words"]
    sys.orig_argv = [sys.executable, *words]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve()
