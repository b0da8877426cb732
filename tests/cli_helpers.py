"""Run a command in this process and see what a shell would; and a real daemon to ask, as a child."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fork_server
import msgspec
import pytest

from edged.cli.main import main

SECRET = "a shared secret for the command line, long enough"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


class Shell:
    """Runs `edged` commands with an environment of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in [name for name in os.environ if name.startswith("EDGED_")]:
            monkeypatch.delenv(name)
        monkeypatch.delenv("CAMERA_SERVICE_JWT_TOKEN", raising=False)
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        monkeypatch.setenv("EDGED_CONFIG_DIR", str(directory))

    def setenv(self, name: str, value: str) -> None:
        self._monkeypatch.setenv(name, value)

    def run(self, *arguments: str, stdin: str = "") -> Ran:
        """One command line; its standard input is a pipe that holds `stdin`."""
        reading, writing = os.pipe()
        os.write(writing, stdin.encode())
        os.close(writing)
        self._capsys.readouterr()
        with os.fdopen(reading) as pipe:
            self._monkeypatch.setattr("sys.stdin", pipe)
            code: object = 0
            try:
                main.main(args=list(arguments), prog_name="edged")
            except SystemExit as leaving:
                code = leaving.code
        said = self._capsys.readouterr()
        return Ran(int(code or 0), said.out, said.err)


def write_config(folder: Path) -> Path:
    """Settings of a box that opens nothing but its unix socket; returns their folder."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    directory = folder / "conf.d"
    directory.mkdir()
    (directory / "box.toml").write_text(
        f"""
        [paths]
        state = "{folder}/state"
        runtime = "{folder}/run"
        [listen]
        main = []
        compat = []
        local = []
        tokens = []
        [mediamtx]
        enabled = false
        [auth]
        demo_login = true
        [auth.shared_secrets]
        clients = "{secret}"
        [[camera]]
        name = "Front dock"
        source = "test"
        """
    )
    return directory


@contextmanager
def running_daemon(folder: Path) -> Iterator[Path]:
    """`edged serve` as a child until the block ends; gives its settings folder once its socket answers."""
    directory = write_config(folder)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    daemon = fork_server.start(["-m", "edged", "serve", "--directory", directory], environ, folder / "log")
    try:
        wait_for_socket(folder / "run" / "edged.sock", daemon, folder / "log")
        yield directory
        daemon.terminate()
        assert daemon.wait(timeout=30) == 0, (folder / "log").read_text()
    finally:
        daemon.kill()
        daemon.wait()


def wait_for_socket(path: Path, daemon: subprocess.Popen[bytes] | fork_server.Child, log: Path) -> None:
    """Until something accepts connections there; AssertionError with the log if the daemon ends or stays silent."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert daemon.poll() is None, log.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                time.sleep(0.05)
            else:
                return
    raise AssertionError(f"no socket after {_START_SECONDS} s: {log.read_text()}")
