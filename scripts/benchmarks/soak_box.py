"""What a soak of recordings needs: a camera that outlives everything, an edged under a supervisor, and readers."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import os
import pwd
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

#: Pictures a second, and the cameras.
RATE: Final = 15
CAMERAS: Final = ("camera0", "camera1")
#: As in packaging/debian/edged.service: RestartSec=, the pause after a failed start, WatchdogSec=.
RESTART: Final = 0.1
FAILED_START: Final = 5.0
WATCHDOG: Final = 30.0


def free_port() -> int:
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def processes() -> Iterator[tuple[int, int, str, str]]:
    """(pid, parent, state, command line) of every process."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(entry.name), int(fields[1]), fields[0], command


class Pictures:
    """The coded pictures of an H.264 byte stream, by digest, in their order; parameter sets and SEI are left out."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes, *, is_last: bool = False) -> None:
        *units, self._rest = (self._rest + data).split(b"\0\0\1")
        for unit in (*units, self._rest) if is_last else units:
            whole = unit.rstrip(b"\0")
            if whole and whole[0] & 0x1F in (1, 5):
                self.digests.append(hashlib.sha256(whole).digest())


class Source:
    """An RTSP server with two streams of pictures of which no two are the same, and what it has sent."""

    def __init__(self, folder: Path, mediamtx: str) -> None:
        port = free_port()
        self.urls = [f"rtsp://127.0.0.1:{port}/source{number}" for number in range(len(CAMERAS))]
        self._pictures, self._lock = Pictures(), threading.Lock()
        settings = {
            "rtspAddress": f"127.0.0.1:{port}", "rtspTransports": ["tcp"],
            "rtmp": False, "hls": False, "webrtc": False, "srt": False, "moq": False, "api": False,
            "paths": {"all_others": {}},
        }  # fmt: skip
        (folder / "source.json").write_text(json.dumps(settings))
        with (folder / "source.log").open("wb") as log:
            self._server = subprocess.Popen([mediamtx, folder / "source.json"], stdout=log, stderr=log)
            time.sleep(1)
            outputs = [f"[f=rtsp:rtsp_transport=tcp]{url}" for url in self.urls]
            self._publisher = subprocess.Popen(
                [
                    *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi"),
                    *("-i", f"testsrc2=size=320x240:rate={RATE},noise=alls=30:allf=t"),
                    *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(RATE)),
                    *("-x264-params", "sliced-threads=0:slices=1", "-pix_fmt", "yuv420p", "-b:v", "600k"),
                    *("-flags", "+global_header", "-map", "0:v", "-f", "tee"),
                    "|".join([*outputs, "[f=h264:flush_packets=1]pipe\\:1"]),
                ],
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._publisher.stdout is not None
        while data := os.read(self._publisher.stdout.fileno(), 65536):
            with self._lock:
                self._pictures.feed(data)

    @property
    def sent(self) -> int:
        """How many pictures so far."""
        return len(self._pictures.digests)

    def numbers(self) -> dict[bytes, int]:
        """Of each picture sent so far."""
        with self._lock:
            return {digest: number for number, digest in enumerate(self._pictures.digests)}

    def close(self) -> None:
        for process in (self._publisher, self._server):
            process.kill()
            process.wait()


class Reader:
    """Notes which pictures of a path edged's MediaMTX sends, over and over: what had arrived there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.digests: list[bytes] = []
        self._is_over = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            self._process = subprocess.Popen(
                [
                    *("ffmpeg", "-nostdin", "-loglevel", "quiet", "-rtsp_transport", "tcp", "-timeout", "3000000"),
                    *("-fflags", "nobuffer", "-i", self._url, "-map", "0:v", "-c", "copy", "-copyinkf"),
                    *("-flush_packets", "1", "-f", "h264", "pipe:1"),
                ],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert self._process.stdout is not None
            pictures = Pictures()
            pictures.digests = self.digests
            while data := os.read(self._process.stdout.fileno(), 65536):
                pictures.feed(data)
            # The last unit may be half of a picture: it is none.
            self._process.wait()
            time.sleep(0.2)

    def close(self) -> None:
        self._is_over = True
        if self._process is not None:
            self._process.kill()
        self._thread.join(5)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


class Refused(Exception):
    """edged is not there, or has said no."""


class Box:
    """An edged that records two cameras, and what it has on its disk; somebody else starts it again."""

    #: How its command is called.
    edged: tuple[str, ...] = (sys.executable, "-m", "edged")

    def __init__(self, state: Path, runtime: Path, memory: Path, socket_path: Path) -> None:
        """`memory` is the folder of pre-rolls."""
        self.state, self.runtime, self.memory, self.socket_path = state, runtime, memory, socket_path
        self.rtsp = free_port()

    def settings(self, mediamtx: str, sources: list[str], pre_roll: int) -> str:
        """What every box needs, as TOML."""
        server = f'[mediamtx]\nbinary = "{mediamtx}"\nrtsp = "127.0.0.1:{self.rtsp}"\nhls = "off"\nwebrtc = "off"\n'
        return server + "".join(
            f'[[camera]]\nname = "soak{number}"\nsource = "{url}"\npre_roll_seconds = {pre_roll}\n'
            for number, url in enumerate(sources)
        )

    @property
    def pid(self) -> int:
        """edged's; 0 while there is none."""
        raise NotImplementedError

    @property
    def watchdog_ends(self) -> int:
        """How often it was ended because it had not said that it lives."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it."""
        raise NotImplementedError

    def strays(self) -> list[str]:
        """What it has left behind: processes that are no children of it, or are dead and not waited for."""
        mine, found = self.pid, []
        for pid, parent, state, line in processes():
            if state == "Z" and mine and parent == mine:
                found.append(f"zombie {pid}")
            elif self.is_of(pid, line) and mine not in (pid, parent):
                found.append(f"orphan {pid}: {line[:80]}")
        return found

    def is_of(self, pid: int, line: str) -> bool:  # noqa: ARG002
        """Whether a process with this command line was started by an edged of this box, or is one that serves."""
        return str(self.runtime) in line and " serve" not in line and " recording " not in line

    def ask(self, method: str, path: str, **body: object) -> Any:
        """A question over the unix socket. Raises Refused."""
        connection = _Unix(self.socket_path)
        try:
            sent = json.dumps(body) if body else None
            connection.request(method, path, sent, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            raise Refused(f"{method} {path}: {problem}") from problem
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text)

    def patient(self, method: str, path: str, **body: object) -> Any:
        """Ask until it answers: it may just be starting."""
        until = time.monotonic() + 60
        while True:
            try:
                return self.ask(method, path, **body)
            except Refused:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    def run(self, *words: str | Path) -> tuple[int, str]:
        """A command of edged: its code and what it said."""
        command = [*self.edged, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    @property
    def socket(self) -> tuple[str, str]:
        return "--socket", str(self.socket_path)

    @property
    def recordings(self) -> Path:
        return self.state / "media" / "recordings"

    def children(self, name: str) -> list[int]:
        """The pids of edged's children of a program."""
        mine = self.pid
        return [
            pid
            for pid, parent, state, line in processes()
            if mine and parent == mine and state != "Z" and Path(line.split(" ")[0]).name == name
        ]

    def written(self, camera: str) -> dict[Path, int]:
        """Files that MediaMTX writes for a camera, and their sizes."""
        found = {}
        for folder in (self.recordings / "open" / camera, self.memory / camera):
            for path in folder.rglob("*.mp4"):
                with suppress(OSError):
                    found[path] = path.stat().st_size
        return found

    def segments(self, camera: str) -> dict[Path, int]:
        """Closed files of a camera, and their sizes."""
        return {path: path.stat().st_size for path in sorted((self.recordings / camera).rglob("*.mp4"))}

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Of usage.db, as it is on the disk."""
        with tempfile.TemporaryDirectory() as folder:
            for path in self.state.glob("usage.db*"):
                with suppress(FileNotFoundError):
                    shutil.copy(path, folder)
            with closing(sqlite3.connect(Path(folder) / "usage.db")) as connection:
                return list(connection.execute(f"SELECT {', '.join(columns)} FROM {table}"))


class SupervisedBox(Box):
    """An edged of this tree under a supervisor, which does what systemd does with the package's unit: starts it again at
    once, or five seconds after a failed start, and ends one that has not said for `watchdog` seconds that it lives."""

    def __init__(self, folder: Path, mediamtx: str, sources: list[str], pre_roll: int, watchdog: float) -> None:
        self.folder = folder
        # Not in the folder, which may be on a disk: pre-rolls are in memory.
        self._shared = Path(tempfile.mkdtemp(prefix="edged-soak-", dir="/dev/shm"))
        runtime = folder / "run"
        super().__init__(folder / "state", runtime, self._shared / "pre-roll", runtime / "edged.sock")
        self._watchdog = watchdog
        self.conf = folder / "conf.d"
        self.conf.mkdir()
        (self.conf / "soak.toml").write_text(
            f'[paths]\nstate = "{self.state}"\nruntime = "{self.runtime}"\n'
            f'[listen]\nmain = ["127.0.0.1:{free_port()}"]\ncompat = []\ntokens = []\nlocal = []\n'
            f'[recording]\npre_roll_folder = "{self.memory}"\n' + self.settings(mediamtx, sources, pre_roll)
        )
        self._log = (folder / "edged.log").open("ab")
        self._is_over = False
        self._process: subprocess.Popen[bytes] | None = None
        self._hung = 0
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notes.bind(str(folder / "notify"))
        self._notes.settimeout(0.02)
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
        environment |= {"NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": str(int(self._watchdog * 1e6))}
        while not self._is_over:
            self._process = subprocess.Popen(
                [*self.edged, "serve", "--directory", str(self.conf)],
                env=environment, stdout=self._log, stderr=self._log, start_new_session=True,
            )  # fmt: skip
            # Nothing is expected of it until it is ready, or has begun to say that it lives.
            lives_at = math.inf
            while self._process.poll() is None:
                with suppress(TimeoutError):
                    note = self._notes.recv(4096)
                    if b"WATCHDOG=1" in note or b"READY=1" in note:
                        lives_at = time.monotonic()
                if time.monotonic() - lives_at > self._watchdog:
                    self._hung += 1
                    for number in (signal.SIGABRT, signal.SIGCONT):
                        os.kill(self._process.pid, number)
                    self._process.wait()
            time.sleep(RESTART + (FAILED_START if self._process.returncode == 1 else 0.0))

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    @property
    def watchdog_ends(self) -> int:
        return self._hung

    def close(self) -> None:
        self._is_over = True
        if self._process is not None:
            self._process.terminate()
        self._thread.join(40)
        self._log.close()
        self._notes.close()
        shutil.rmtree(self._shared, ignore_errors=True)

    def save_log(self, folder: Path) -> None:
        """What edged said, as a file in another folder."""
        shutil.copy(self.folder / "edged.log", folder)


class UnitBox(Box):
    """The installed package under systemd, with its unit as it is."""

    edged = ("/usr/bin/edged",)
    _UNIT: Final = "edged.service"
    _SETTINGS: Final = Path("/etc/edged/conf.d/soak.toml")

    def __init__(self, mediamtx: str, sources: list[str], pre_roll: int) -> None:
        runtime = Path("/run/edged-work")
        super().__init__(Path("/var/lib/edged"), runtime, runtime / "pre-roll", Path("/run/edged/edged.sock"))
        self._SETTINGS.write_text(self.settings(mediamtx, sources, pre_roll))
        self._user = pwd.getpwnam("edged").pw_uid
        _say("systemctl", "restart", self._UNIT)

    @property
    def pid(self) -> int:
        return int(_say("systemctl", "show", "--value", "-p", "MainPID", self._UNIT) or 0)

    @property
    def watchdog_ends(self) -> int:
        return self._journal().count("Watchdog timeout")

    def is_of(self, pid: int, line: str) -> bool:  # noqa: ARG002
        with suppress(OSError):
            return Path(f"/proc/{pid}").stat().st_uid == self._user
        return False

    def close(self) -> None:
        _say("systemctl", "stop", self._UNIT)

    def save_log(self, folder: Path) -> None:
        (folder / "edged.log").write_text(self._journal())

    def _journal(self) -> str:
        _say("journalctl", "--sync")
        return _say("journalctl", "-u", self._UNIT, "-o", "short-iso")


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
