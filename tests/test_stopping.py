"""Start and stop of a real `edged serve`: in order, on every signal, after every failure, and nothing is left."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fork_server
import pytest
import trio
from daemon_helpers import SECRET, ended, free_port, talk
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused

from edged.store.folders import LOCK

ROOT = Path(__file__).parent.parent
HAS_MEDIA = shutil.which("mediamtx") is not None and shutil.which("ffmpeg") is not None
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@dataclass
class Box:
    """A settings folder, and the daemons that run on it."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    media: bool = False

    @property
    def conf(self) -> Path:
        return self.folder / "conf.d"

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "edged.sock"

    def write(self, extra: str = "") -> Box:
        """Settings of a box on loopback; the same ports however often it is started."""
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        self.conf.mkdir(exist_ok=True)
        self.ports = {name: free_port() for name in ("main", "compat", "local", "rtsp", "hls", "webrtc")}
        self.ports["webrtc_udp"] = free_port(socket.SOCK_DGRAM)
        listen = "\n".join(f'{name} = ["127.0.0.1:{self.ports[name]}"]' for name in ("main", "compat", "local"))
        media = "\n".join(
            f'{name} = "127.0.0.1:{self.ports[name]}"' for name in ("rtsp", "hls", "webrtc", "webrtc_udp")
        )
        (self.conf / "box.toml").write_text(
            f"""
            [paths]
            state = "{self.folder}/state"
            runtime = "{self.folder}/run"
            [listen]
            {listen}
            [mediamtx]
            enabled = {str(self.media).lower()}
            {media}
            [auth.shared_secrets]
            clients = "{secret}"
            [[camera]]
            name = "one"
            source = "test"
            size = "320x240"
            [[camera]]
            name = "two"
            source = "test"
            size = "320x240"
            {"mode = 'always'" if self.media else ""}
            {extra}
            """
        )
        return self

    @contextmanager
    def serve(self, *before: str, terminal: bool = False, forked: bool = True) -> Iterator[Daemon]:
        """`edged serve` as a child of ours, in a terminal of its own or in none; killed at the end if need be.

        `forked`: it is a fork that has imported edged, where neither a terminal nor a program `before` is asked for.
        """
        with (self.folder / "log").open("ab") as log:
            begins = log.tell()
            # Another user cannot write where this run's coverage is gathered: it would end with a traceback of its own.
            left_out = ("EDGED_", "COVERAGE_") if before else ("EDGED_",)
            environ = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
            master = slave = -1
            if terminal:
                master, slave = pty.openpty()
                before = (*before, "setsid", "--ctty")
            words = ["-m", "edged", "serve", "--directory", str(self.conf)]
            process: subprocess.Popen[bytes] | fork_server.Child
            if forked and not before:
                process = fork_server.start(words, environ, self.folder / "log", new_session=True)
            else:
                process = subprocess.Popen(
                    [*before, sys.executable, *words],
                    cwd=ROOT,
                    env=environ,
                    stdin=slave if terminal else subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=not terminal,
                )
            if terminal:
                os.close(slave)
            daemon = Daemon(self, process, begins, master)
            try:
                yield daemon
            finally:
                daemon.clean_up()


@dataclass
class Daemon:
    """A running `edged serve`."""

    box: Box
    process: subprocess.Popen[bytes] | fork_server.Child
    begins: int
    terminal: int = -1
    #: (pid, start time) of every child that was ever seen.
    seen: set[tuple[int, str]] = field(default_factory=set)

    @property
    def log(self) -> str:
        return (self.box.folder / "log").read_bytes()[self.begins :].decode()

    def children(self) -> set[tuple[int, str]]:
        """The processes below it now, by pid and start time."""
        found: set[tuple[int, str]] = set()
        parents = {self.process.pid}
        table = [each for each in map(read_stat, Path("/proc").iterdir()) if each]
        while True:
            more = {(pid, began) for pid, parent, began in table if parent in parents} - found
            if not more:
                break
            found |= more
            parents |= {pid for pid, _ in more}
        self.seen |= found
        return found

    def left(self) -> list[str]:
        """Children that are still there, as people can read them."""
        return [
            name_of(pid) for pid, began in self.seen if (stat := read_stat(Path(f"/proc/{pid}"))) and stat[2] == began
        ]

    def wait_ready(self) -> None:
        """Until it says that it listens on its last listener."""
        self.wait_log(r"listening listener=unix")

    def wait_log(self, pattern: str) -> None:
        """Until a line matches."""
        wait_until(lambda: re.search(pattern, self.log) or self.process.poll() is not None)
        assert re.search(pattern, self.log), self.log

    def wait_end(self) -> int:
        """Its exit code."""
        return self.process.wait(timeout=60)

    def call(self, method: str, **params: object) -> Any:
        """One call over its unix socket."""
        return trio.run(self._call, method, params)

    async def _call(self, method: str, params: dict[str, object]) -> Any:
        with fail_after(60):
            async with talk(await trio.open_unix_socket(str(self.box.socket))) as client:
                return await client.call(method, **params)

    def wait_media(self) -> None:
        """Until MediaMTX is ready."""
        wait_until(lambda: self.call("get_system_status")["mediamtx"]["status"] == "ready")

    def clean_up(self) -> None:
        """Nothing of it survives the test, however that ended."""
        with suppress(OSError):
            self.children()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid, began in self.seen:
            if (stat := read_stat(Path(f"/proc/{pid}"))) and stat[2] == began:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.terminal >= 0:
            os.close(self.terminal)


def read_stat(folder: Path) -> tuple[int, int, str] | None:
    """(pid, parent, start time) of a process; None for what is none, or a zombie."""
    try:
        text = (folder / "stat").read_text()
    except OSError:
        return None
    pid, rest = int(text.split(" ", 1)[0]), text.rpartition(")")[2].split()
    return None if rest[0] in "ZX" else (pid, int(rest[1]), rest[19])


def name_of(pid: int) -> str:
    try:
        return f"{pid} " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    except OSError:
        return str(pid)


def wait_until(fact: Callable[[], object], seconds: float = 60) -> None:
    """Raises AssertionError if it does not come true."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, media=HAS_MEDIA).write()


def order_of(log: str, *patterns: str) -> list[int]:
    """Where each pattern first stands in the log."""
    found = [re.search(pattern, log) for pattern in patterns]
    assert all(found), log
    return [match.start() for match in found if match]


def assert_stopped_well(daemon: Daemon, first: str) -> None:
    """Exit code 0, everything said in order, nobody left, no socket file, no traceback."""
    assert daemon.wait_end() == 0, daemon.log
    log = daemon.log
    wanted = [first, r"edged: stopping", *([r"mediamtx: stopped"] if daemon.box.media else []), r"edged: stopped"]
    places = order_of(log, *wanted)
    assert places == sorted(places), log
    assert log.rstrip().endswith("edged: stopped"), log
    assert "Traceback" not in log
    assert " error " not in log, log
    wait_until(lambda: not daemon.left(), 2)
    assert not daemon.box.socket.exists()
    stays = {each for each in (daemon.box.folder / "run").rglob("*") if each.is_file() or each.is_socket()}
    assert {each.name for each in stays} <= {LOCK}, "nothing but the file that is locked stays in the runtime folder"


# Signals -----------------------------------------------------------------------------------------------------------


def begin(daemon: Daemon) -> None:
    """Until everything runs that there is: MediaMTX, and the publisher that always does."""
    daemon.wait_ready()
    if daemon.box.media:
        daemon.wait_media()
        wait_until(lambda: any("ffmpeg" in name_of(pid) for pid, _ in daemon.children()))
        assert any("mediamtx" in name_of(pid) for pid, _ in daemon.seen)


def test_sigterm_stops_everything_in_order(box: Box) -> None:
    """A WebSocket is told 1001, then the publishers, MediaMTX and edged end; exit code 0."""
    with box.serve() as daemon:
        begin(daemon)

        async def watch() -> int:
            with fail_after(60):
                stream = await trio.open_tcp_stream("127.0.0.1", box.ports["main"])
                async with talk(stream) as client:
                    assert await client.call("ping") == "pong"
                    daemon.process.terminate()
                    return await ended(client)

        assert trio.run(watch) == 1001
        assert_stopped_well(daemon, "signal name=SIGTERM")


def test_ctrl_c_in_a_terminal_is_edgeds_alone(box: Box) -> None:
    """The terminal signals the whole foreground group; the children are not in it and end when edged says so."""
    with box.serve(terminal=True) as daemon:
        begin(daemon)
        os.write(daemon.terminal, b"\x03")
        assert_stopped_well(daemon, "signal name=SIGINT")
        assert "mediamtx: waiting" not in daemon.log, "it did not die by itself"
        assert "publisher: failed" not in daemon.log


def test_an_impatient_ctrl_c_changes_nothing(box: Box) -> None:
    """Two at once, and more while it stops: the same order, the same exit code."""
    with box.serve(terminal=True) as daemon:
        begin(daemon)
        os.write(daemon.terminal, b"\x03")
        os.write(daemon.terminal, b"\x03")
        while daemon.process.poll() is None:
            with suppress(OSError):
                os.write(daemon.terminal, b"\x03")
            time.sleep(0.01)
        assert_stopped_well(daemon, "signal name=SIGINT")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("sign", ["edged: starting", "revocations: loaded", "mediamtx: starting", "listening"])
def test_a_signal_while_it_starts_ends_it_cleanly(box: Box, number: signal.Signals, sign: str) -> None:
    """Whatever it had begun is ended; no traceback, nobody left, no socket file."""
    if "mediamtx" in sign and not HAS_MEDIA:
        pytest.skip("mediamtx not found")
    with box.serve() as daemon:
        wait_until(lambda: daemon.children() or sign in daemon.log)
        while sign not in daemon.log:
            daemon.children()
        daemon.process.send_signal(number)
        while daemon.process.poll() is None:
            daemon.children()
        assert daemon.wait_end() == 0, daemon.log
        assert "Traceback" not in daemon.log
        wait_until(lambda: not daemon.left(), 2)
        assert not box.socket.exists()


def test_a_call_in_progress_is_answered_before_the_end(box: Box) -> None:
    """Two seconds are left to whoever waits for an answer; no new connection is taken meanwhile."""
    with box.serve() as daemon:
        begin(daemon)

        async def ask() -> None:
            with fail_after(60):
                async with talk(await trio.open_unix_socket(str(box.socket))) as client:
                    asked = {
                        "jsonrpc": "2.0",
                        "id": 1,
                        "method": "create_key",
                        "params": {"name": "x", "role": "viewer"},
                    }
                    await client.connection.send_message(json.dumps(asked))
                    daemon.process.terminate()
                    assert json.loads(await client.connection.get_message())["result"]["key_id"]
                    assert await ended(client) == 1001

        trio.run(ask)
        assert_stopped_well(daemon, "signal name=SIGTERM")
    with box.serve() as daemon:
        daemon.wait_ready()
        assert [key["name"] for key in daemon.call("list_keys")["keys"]] == ["x"], "what was answered is kept"


# Failed starts -----------------------------------------------------------------------------------------------------


def assert_failed(daemon: Daemon, *words: str) -> None:
    """Not 0, one line that names the thing and the remedy, no traceback, nobody left, no socket file."""
    while daemon.process.poll() is None:
        daemon.children()
        time.sleep(0.005)
    log = daemon.log
    assert daemon.wait_end() not in (0, None), log
    assert "Traceback" not in log, log
    told = [line for line in log.splitlines() if " error " in line or line.startswith("edged: ")]
    assert len(told) == 1, log
    for word in words:
        assert word in told[0], told[0]
    wait_until(lambda: not daemon.left(), 2)
    assert not daemon.box.socket.exists()


@pytest.mark.parametrize("name", ["main", "compat", "local"])
def test_a_taken_port_is_named(box: Box, name: str) -> None:
    """Which address, and what to do; MediaMTX is not left running."""
    with socket.create_server(("127.0.0.1", box.ports[name])), box.serve() as daemon:
        assert_failed(daemon, f"127.0.0.1:{box.ports[name]}", "another program listens there", "[listen]")


def test_a_second_edged_on_the_same_box_does_not_disturb_the_first(box: Box) -> None:
    """It is refused before it has touched anything: the first one's socket, database and MediaMTX go on."""
    with box.serve() as first:
        begin(first)
        before = {path: path.stat().st_mtime_ns for path in (box.folder / "run").iterdir()}
        children = first.children()
        with box.serve() as second:
            assert second.wait_end() == 1
            assert "Traceback" not in second.log
            assert "another edged runs on" in second.log, second.log
            assert "mediamtx: starting" not in second.log
        assert {path: path.stat().st_mtime_ns for path in (box.folder / "run").iterdir()} == before
        assert first.children() == children
        assert first.call("ping") == "pong"


def test_a_second_edged_on_the_same_state_folder_is_refused(box: Box, tmp_path: Path) -> None:
    """Other ports do not make it another box: two daemons would not know of each other's revocations."""
    with box.serve() as first:
        first.wait_ready()
        other = Box(tmp_path / "other")
        other.folder.mkdir()
        other.write()
        text = (other.conf / "box.toml").read_text()
        (other.conf / "box.toml").write_text(text.replace(f"{other.folder}/state", f"{box.folder}/state"))
        with other.serve() as second:
            assert_failed(second, f"{box.folder}/state", "another edged", "[paths]")
        assert first.call("ping") == "pong"


@pytest.mark.parametrize("name", ["trust", "usage"])
def test_a_newer_database_is_named_with_both_versions(box: Box, name: str) -> None:
    """Which file, which version it has, which one is known, and what to do."""
    with box.serve() as daemon:
        daemon.wait_ready()
        daemon.process.terminate()
        daemon.wait_end()
    with sqlite3.connect(box.folder / "state" / f"{name}.db") as connection:
        connection.execute("PRAGMA user_version = 4711")
    connection.close()
    with box.serve() as daemon:
        assert_failed(daemon, f"{name}.db", "4711", "install the edged that wrote it")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[listen\n", ("wrong.toml", "is not TOML", "line 1")),
        ("[listen]\nmian = []\n", ("wrong.toml line 2", "listen.mian", "did you mean listen.main")),
        ('[listen]\nmain = ["127.0.0.1:99999"]\n', ("127.0.0.1:99999",)),
        ("[limits]\nbatch = 'x'\n", ("wrong.toml line 2", "limits.batch")),
        ('[auth.shared_secrets]\na = "/nowhere/secret"\n', ("/nowhere/secret", "No such file", "make it")),
    ],
    ids=["no TOML", "unknown key", "no port", "wrong type", "no secret"],
)
def test_a_wrong_setting_is_named(box: Box, text: str, words: tuple[str, ...]) -> None:
    """File, line and key, and what would be right."""
    (box.conf / "wrong.toml").write_text(text)
    with box.serve() as daemon:
        assert_failed(daemon, *words)


def test_a_secret_that_others_may_read_is_refused(box: Box) -> None:
    """With the command that mends it, and without a word of the secret."""
    (box.folder / "secret").chmod(0o644)
    with box.serve() as daemon:
        assert_failed(daemon, f"{box.folder}/secret", "0644", "chmod 600")
        assert SECRET not in daemon.log


def test_a_state_folder_that_cannot_be_written_is_named() -> None:
    """As a user who may not write there."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    if not can_read_code():
        pytest.skip("nobody else may read this source tree")
    # Not below pytest's own folder, which is closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        box = Box(folder).write()
        state, run = folder / "state", folder / "run"
        state.mkdir(mode=0o755)
        run.mkdir()
        for path in (run, folder / "secret"):
            os.chown(path, NOBODY, NOBODY)
        with box.serve(*AS_NOBODY) as daemon:
            assert_failed(daemon, f"{state}", "Permission denied", "writable for the user")


def test_a_secret_that_cannot_be_reached_is_not_called_missing() -> None:
    """Whoever followed that advice would overwrite a secret that is there."""
    if os.geteuid() != 0 or not can_read_code():
        pytest.skip("needs root, to become somebody who can read this source tree only")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        box = Box(folder).write()
        (folder / "safe").mkdir(mode=0o700)
        (folder / "secret").rename(folder / "safe" / "secret")
        settings = box.conf / "box.toml"
        settings.write_text(settings.read_text().replace(f"{folder}/secret", f"{folder}/safe/secret"))
        with box.serve(*AS_NOBODY) as daemon:
            assert_failed(
                daemon, f"{folder}/safe/secret", "Permission denied", "chown it to the user that edged runs as"
            )


def can_read_code() -> bool:
    """Whether a stranger can run this Python and import edged."""
    line = [*AS_NOBODY, sys.executable, "-c", "import edged.app"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, check=False).returncode == 0


# Sudden death ------------------------------------------------------------------------------------------------------


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
def test_kill_9_leaves_no_child_and_the_next_start_works_at_once(tmp_path: Path) -> None:
    """MediaMTX, publishers and the ffmpeg of a live picture are gone within 2 s while viewers watch."""
    box = Box(tmp_path, media=True).write()
    with box.serve() as daemon:
        begin(daemon)
        key = daemon.call("create_key", name="x", role="viewer")["api_key"]
        seen, stop = threading.Event(), threading.Event()
        viewer = threading.Thread(target=watch_picture, args=(box.ports["main"], key, seen, stop))
        viewer.start()
        try:
            trio.run(watch_rtsp, box.ports["rtsp"], key)
            assert seen.wait(60)
            names = [name_of(pid) for pid, _ in daemon.children()]
            assert sum("ffmpeg" in name for name in names) >= 3, names
            daemon.process.kill()
            daemon.process.wait()
            killed = time.monotonic()
            # The promise is 2 s; a busy machine may look late, and says when it found them gone.
            wait_until(lambda: not daemon.left(), 2)
            print(f"all children gone {1000 * (time.monotonic() - killed):.0f} ms after kill -9")
        finally:
            stop.set()
            viewer.join()
        assert box.socket.exists(), "a stale one is there, as after any crash"
    with box.serve() as daemon:
        begin(daemon)
        assert daemon.call("list_keys")["keys"][0]["name"] == "x"
        daemon.process.terminate()
        assert_stopped_well(daemon, "signal name=SIGTERM")


def watch_picture(port: int, key: str, seen: threading.Event, stop: threading.Event, camera: int = 0) -> None:
    """Read live.mjpeg until it ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"/api/cameras/camera{camera}/live.mjpeg", headers={"X-API-Key": key})
        with connection.getresponse() as response:
            while not stop.is_set() and (data := response.read1(65536)):
                if b"\xff\xd8" in data:
                    seen.set()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


async def watch_rtsp(port: int, key: str) -> None:
    """See one packet of the camera that publishes on demand."""
    with fail_after(60):
        viewer = RtspReader(port, "camera0", "viewer", key)
        await viewer.play()
        await viewer.wait_packet()
        await viewer.aclose()


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
def test_no_stream_outlives_the_edged_that_let_it_in(tmp_path: Path) -> None:
    """A killed edged takes MediaMTX and its streams along, so the next one knows of everybody who is inside."""
    box = Box(tmp_path, media=True).write()

    async def watch(end_it: Callable[[], None]) -> None:
        with fail_after(60):
            viewer = RtspReader(box.ports["rtsp"], "camera0", "viewer", key)
            try:
                await viewer.play()
                await viewer.wait_packet()
                # In a thread: a call in this process runs a loop of its own.
                await trio.to_thread.run_sync(end_it)
                await viewer.wait_end()
            finally:
                await viewer.aclose()

    with box.serve() as daemon:
        begin(daemon)
        made = daemon.call("create_key", name="x", role="viewer")
        key = made["api_key"]
        trio.run(watch, daemon.process.kill)
        daemon.process.wait()
    with box.serve() as daemon:
        begin(daemon)
        trio.run(watch, lambda: daemon.call("revoke_key", key_id=made["key_id"]))
        with pytest.raises(RtspRefused):
            trio.run(watch, lambda: None)
        assert next(each for each in daemon.call("get_streams") if each["name"] == "camera0")["readers"] == 0


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
def test_a_stop_while_viewers_watch_ends_their_streams(tmp_path: Path) -> None:
    """The live picture and the RTSP stream end, and the exit code is 0."""
    box = Box(tmp_path, media=True).write()
    with box.serve() as daemon:
        begin(daemon)
        key = daemon.call("create_key", name="x", role="viewer")["api_key"]
        seen = threading.Event()
        viewer = threading.Thread(target=watch_picture, args=(box.ports["main"], key, seen, threading.Event(), 1))
        viewer.start()
        assert seen.wait(60)

        async def watch() -> None:
            with fail_after(60):
                reader = RtspReader(box.ports["rtsp"], "camera0", "viewer", key)
                await reader.play()
                await reader.wait_packet()
                daemon.children()
                daemon.process.terminate()
                await reader.wait_end()
                await reader.aclose()

        trio.run(watch)
        viewer.join(30)
        assert not viewer.is_alive()
        assert_stopped_well(daemon, "signal name=SIGTERM")
