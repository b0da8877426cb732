"""A whole edged as a child that may be killed, on a disk that logs, delays or fails; and what a power cut leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fork_server
import trio
from daemon_helpers import Conversation, free_port, talk
from patience import fail_after

HERE = Path(__file__).parent
CHILD = HERE / "durability_child.py"


def compile_disk(folder: Path) -> Path:
    """durability_disk.c as something to preload."""
    library = folder / "disk.so"
    source = HERE / "durability_disk.c"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
    )
    return library


@dataclass(frozen=True)
class Event:
    """A line of the disk's log."""

    kind: str
    name: str
    number: int = 0
    data: bytes = b""


class Disk:
    """The disk of one child: what it does now, and what has happened on it."""

    def __init__(self, folder: Path, library: Path, files: str = "/trust.db") -> None:
        self._control = folder / "disk-control"
        self._control.write_bytes(bytes(24))
        self.log = folder / "disk-log"
        self.log.touch()
        self.environment = {
            "LD_PRELOAD": str(library),
            "EDGED_DISK_FILES": files,
            "EDGED_DISK_CONTROL": str(self._control),
            "EDGED_DISK_LOG": str(self.log),
        }

    def behave(
        self,
        *,
        hold: bool = False,
        delay: float = 0.0,
        sync: int = 0,
        write: int = 0,
        read: int = 0,
        read_from: int = 0,
    ) -> None:
        """From here on a sync takes `delay` seconds more, and while `hold` lasts does not return.

        `sync`, `write` and `read` are the errno of what fails, 0 of none; a read fails that names an offset, from the
        offset `read_from` on.
        """
        with self._control.open("r+b") as control:
            control.write(struct.pack("iiiiii", hold, round(delay * 1000), sync, write, read, read_from))

    def events(self) -> list[Event]:
        """Everything so far, in order."""
        return list(_read_log(self.log.read_text().splitlines()))


def _read_log(lines: Iterable[str]) -> Iterator[Event]:
    for line in lines:
        kind, *rest = line.split(" ")
        match kind:
            case "write":
                yield Event(kind, rest[0], int(rest[1]), bytes.fromhex(rest[2]))
            case "send":
                yield Event(kind, "", int(rest[0]), bytes.fromhex(rest[1]))
            case "truncate" | "sync-end":
                yield Event(kind, rest[0], int(rest[1]))
            case _:
                yield Event(kind, rest[0])


@dataclass
class Platter:
    """What is on a disk for certain: writes count once a sync that began after them has returned."""

    kept: dict[str, bytearray] = field(default_factory=dict)
    _waiting: dict[str, list[Event]] = field(default_factory=dict)
    _syncing: dict[str, int] = field(default_factory=dict)

    def happen(self, event: Event) -> None:
        """Follow the log."""
        # The shared memory beside a WAL is made anew by whoever opens it first.
        if event.kind == "send" or event.name.endswith("-shm"):
            return
        waiting = self._waiting.setdefault(event.name, [])
        if event.kind in ("write", "truncate"):
            waiting.append(event)
        elif event.kind == "sync-begin":
            self._syncing[event.name] = len(waiting)
        elif event.kind == "sync-end" and event.number == 0:
            covered = self._syncing.pop(event.name)
            for each in waiting[:covered]:
                _apply(self.kept.setdefault(event.name, bytearray()), each)
            del waiting[:covered]
        elif event.kind == "unlink":
            self.kept.pop(event.name, None)
            waiting.clear()

    def lay_out(self, folder: Path, chance: random.Random | None = None) -> None:
        """The files as a power cut leaves them now: with none of what was not synced, or any part of it by `chance`."""
        folder.mkdir()
        for name in self.kept.keys() | (self._waiting.keys() if chance else set()):
            content = bytearray(self.kept.get(name, b""))
            for event in self._waiting.get(name, ()):
                if chance is not None and chance.random() < 0.5:
                    _apply(content, event)
            (folder / name).write_bytes(content)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del content[event.number :]
        content.extend(bytes(event.number - len(content)))
    else:
        content.extend(bytes(max(0, event.number - len(content))))
        content[event.number : event.number + len(event.data)] = event.data


def read_file(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What another program reads, over a connection of its own that ends here."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query, values).fetchall()


class Box:
    """Settings, state and the child itself; it is started and killed any number of times."""

    def __init__(
        self, folder: Path, disk: Disk | None = None, settings: str = "", command: str = "", media: str = ""
    ) -> None:
        """`settings` is more TOML, `media` that of a MediaMTX, which there is not without it; `command` "serve" starts
        `edged serve` itself, with nothing beside its loop."""
        self.folder, self.disk, self._command = folder, disk, command
        self.port = free_port()
        self.database = folder / "state" / "trust.db"
        self.log = folder / "log"
        self._gaps = folder / "gaps"
        self._settings = folder / "conf.d"
        self._settings.mkdir()
        (self._settings / "box.toml").write_text(
            f"""
            [paths]
            state = "{folder}/state"
            runtime = "{folder}/run"
            [listen]
            main = ["127.0.0.1:{self.port}"]
            compat = []
            local = []
            tokens = []
            [mediamtx]
            {media or "enabled = false"}
            {settings}
            """
        )
        self._child: fork_server.Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    async def start(self) -> None:
        """Until it serves."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
        if self.disk is not None:
            environ |= self.disk.environment
        self.forget_gaps()
        preload = environ.get("LD_PRELOAD", "")
        self._child = fork_server.start(self._words(), environ, self.log, preload=preload)
        with fail_after(60):
            while True:
                assert self._child.poll() is None, self.log.read_text()
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", self.port)).aclose()
                except OSError:
                    await trio.sleep(0.02)
                else:
                    return

    def _words(self) -> list[str]:
        if self._command:
            return ["-m", "edged", self._command, "--directory", str(self._settings)]
        return [str(CHILD), "serve", str(self._settings), str(self._gaps)]

    def kill(self) -> None:
        """As the power button does to a process: nothing of it runs any more when this returns."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
            self._child = None

    async def stop(self) -> int:
        """In order; its exit code."""
        assert self._child is not None
        self._child.terminate()
        code = await trio.to_thread.run_sync(self._child.wait)
        self._child = None
        return code

    def forget_gaps(self) -> None:
        """Measure the loop anew from here."""
        if not self._gaps.exists():
            self._gaps.write_bytes(bytes(16))
        with self._gaps.open("r+b") as shared:
            shared.write(bytes(16))

    def longest_gaps(self) -> tuple[float, float]:
        """Seconds for which the loop did not turn at most, and for which its thread computed between two turns."""
        whole, own = struct.unpack("dd", self._gaps.read_bytes())
        return whole, own

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Conversation]:
        """Over the unix socket."""
        stream = await trio.open_unix_socket(self.folder / "run" / "edged.sock")
        async with talk(stream) as conversation:
            yield conversation

    @asynccontextmanager
    async def client(self, secret: str = "") -> AsyncIterator[Conversation]:
        """Over TCP, entered with a key where one is given."""
        async with talk(await trio.open_tcp_stream("127.0.0.1", self.port)) as conversation:
            if secret:
                await conversation.call("authenticate", auth_token=secret)
            yield conversation

    async def lets_in(self, secret: str) -> bool:
        """Whether a new connection may enter with this key or token."""
        async with self.client() as stranger:
            reply = await stranger.ask("authenticate", auth_token=secret)
        return bool(reply.get("result", {}).get("authenticated"))

    async def request(
        self, method: str, path: str, *, body: object = None, form: str = "", **headers: str
    ) -> tuple[int, Any]:
        """One HTTP exchange over TCP: status, and what the body says (JSON, or text). In header names `_` is `-`."""
        sent = {"Host": "localhost", "Connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        data = form.encode()
        if form:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        sent["Content-Length"] = str(len(data))
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
            reply = b"".join([part async for part in stream])
        start, _, text = reply.partition(b"\r\n\r\n")
        shown = text.decode()
        return int(start.split()[1]), json.loads(shown) if b"application/json" in start else shown

    async def pending(self) -> int:
        """How many denials a restart would undo, as it says itself."""
        return int((await self.request("GET", "/health/ready"))[1]["denials_owed"])


@asynccontextmanager
async def running_box(folder: Path, disk: Disk | None = None, **options: str) -> AsyncIterator[Box]:
    """A box that serves; nothing of it is left at the end, however it ends."""
    box = Box(folder, disk, **options)
    try:
        await box.start()
        yield box
    finally:
        box.kill()


async def until(fact: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another process brings about."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it never came true"
        await trio.sleep(0.01)
