"""What a soak of recordings needs: a camera that outlives everything, an edged under a supervisor, and readers."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
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
    """An edged with its supervisor, which does what systemd does with the package's unit: starts it again at once, or
    five seconds after a failed start, and ends one that has not said for 30 s that it lives."""

    def __init__(self, folder: Path, mediamtx: str, sources: list[str], pre_roll: int) -> None:
        self.folder, self.state, self.runtime = folder, folder / "state", folder / "run"
        self.memory = Path(tempfile.mkdtemp(prefix="edged-soak-", dir="/dev/shm"))
        self.rtsp, self._port = free_port(), free_port()
        self.conf = folder / "conf.d"
        self.conf.mkdir()
        (self.conf / "soak.toml").write_text(
            f'[paths]\nstate = "{self.state}"\nruntime = "{self.runtime}"\n'
            f'[listen]\nmain = ["127.0.0.1:{self._port}"]\ncompat = []\ntokens = []\nlocal = []\n'
            f'[mediamtx]\nbinary = "{mediamtx}"\nrtsp = "127.0.0.1:{self.rtsp}"\nhls = "off"\nwebrtc = "off"\n'
            f'[recording]\npre_roll_folder = "{self.memory}/pre-roll"\n'
            + "".join(
                f'[[camera]]\nname = "soak{number}"\nsource = "{url}"\npre_roll_seconds = {pre_roll}\n'
                for number, url in enumerate(sources)
            )
        )
        self._log = (folder / "edged.log").open("ab")
        self._is_over = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lives_at = 0.0
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notes.bind(str(folder / "notify"))
        self._notes.settimeout(0.02)
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
        environment |= {"NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
        while not self._is_over:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edged", "serve", "--directory", str(self.conf)],
                env=environment, stdout=self._log, stderr=self._log, start_new_session=True,
            )  # fmt: skip
            self._lives_at = time.monotonic()
            while self._process.poll() is None:
                with suppress(TimeoutError):
                    if b"WATCHDOG=1" in self._notes.recv(4096):
                        self._lives_at = time.monotonic()
                if time.monotonic() - self._lives_at > WATCHDOG:
                    for number in (signal.SIGABRT, signal.SIGCONT):
                        os.kill(self._process.pid, number)
                    self._process.wait()
            time.sleep(RESTART + (FAILED_START if self._process.returncode == 1 else 0.0))

    @property
    def pid(self) -> int:
        """edged's; 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def ask(self, method: str, path: str, **body: object) -> Any:
        """A question over the unix socket. Raises Refused."""
        connection = _Unix(self.runtime / "edged.sock")
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
        command = [sys.executable, "-m", "edged", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    @property
    def socket(self) -> tuple[str, str]:
        return "--socket", str(self.runtime / "edged.sock")

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
        for folder in (self.recordings / "open" / camera, self.memory / "pre-roll" / camera):
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

    def close(self) -> None:
        self._is_over = True
        if self._process is not None:
            self._process.terminate()
        self._thread.join(40)
        self._log.close()
        self._notes.close()
        shutil.rmtree(self.memory, ignore_errors=True)
