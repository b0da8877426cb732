"""Downloads from a disk that fails in the middle of them: the answer is broken off, and the log says why."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from durability_helpers import Box, Disk, compile_disk, running_box, until
from patience import fail_after

from edged.web.file_bytes import CHUNK

#: More than the kernel takes of one connection at once.
PICTURE = b"\xff\xd8" + bytes(range(256)) * 64 * 1024 + b"\xff\xd9"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture
async def box(tmp_path: Path, library: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path, Disk(tmp_path, library, files="/snapshots/")) as box:
        yield box


def keep_picture(box: Box) -> Path:
    path = box.folder / "state" / "media" / "snapshots" / "camera0" / "dock.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(PICTURE)
    return path


async def make_key(box: Box) -> str:
    async with box.admin() as admin:
        return str((await admin.call("create_key", name="viewer", role="viewer"))["api_key"])


async def begin(box: Box, key: str, head: str = "") -> tuple[trio.SocketStream, bytes]:
    """Ask for the picture, and take the first bytes of the answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", box.port)
    asked = f"GET /files/snapshots/dock.jpg HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n{head}\r\n"
    await stream.send_all(asked.encode())
    return stream, bytes(await stream.receive_some(CHUNK))


async def read_on(stream: trio.SocketStream) -> bytes:
    """All that comes until the daemon closes the connection."""
    parts = []
    async with stream:
        try:
            async for part in stream:
                parts.append(bytes(part))
        except trio.BrokenResourceError:
            pass
    return b"".join(parts)


def count_open(box: Box, path: Path) -> int:
    """How often the daemon has a file open."""
    links = (Path(f"/proc/{box.pid}/fd")).iterdir()
    return sum(os.path.realpath(link) == str(path) for link in links)


def said(box: Box) -> list[str]:
    """The lines of the log at warning and above."""
    return [line for line in box.log.read_text().splitlines() if " warning " in line or " error " in line]


@pytest.mark.parametrize("how", ["EIO", "truncated", "rewritten"])
async def test_a_file_that_fails_while_it_is_sent_is_broken_off_and_named_in_the_log(box: Box, how: str) -> None:
    """The client sees that the answer is not whole, nothing stays open, and other requests of the daemon go on."""
    assert box.disk is not None
    path, key = keep_picture(box), await make_key(box)
    before = len(said(box))
    with fail_after(60):
        stream, first = await begin(box, key)
        if how == "EIO":
            box.disk.behave(read=errno.EIO, read_from=4 * CHUNK)
        elif how == "truncated":
            path.write_bytes(PICTURE[:CHUNK])
        else:
            path.write_bytes(PICTURE[::-1])
        head, _, body = (first + await read_on(stream)).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert f"content-length: {len(PICTURE)}".encode() in head.lower()
    assert len(body) < len(PICTURE)
    assert PICTURE.startswith(body)
    (line,) = said(box)[before:]
    assert " file_not_read " in line
    assert f"file={path}" in line
    assert "remedy=" in line
    await until(lambda: count_open(box, path) == 0)
    box.disk.behave()
    path.write_bytes(PICTURE)
    stream, first = await begin(box, key, "Connection: close\r\n")
    assert (first + await read_on(stream)).endswith(PICTURE)


async def test_a_file_of_which_nothing_can_be_read_is_an_error_that_the_client_can_read(box: Box) -> None:
    """503 with a sentence, not a connection that breaks; the next request on it is answered."""
    assert box.disk is not None
    path, key = keep_picture(box), await make_key(box)
    before = len(said(box))
    box.disk.behave(read=errno.EIO)
    status, told = await box.request("GET", "/files/snapshots/dock.jpg", x_api_key=key)
    assert (status, told["code"]) == (503, "store_error")
    assert "dock.jpg cannot be read: Input/output error" in told["detail"]
    assert len(said(box)) == before + 1
    await until(lambda: count_open(box, path) == 0)


async def test_a_file_that_is_replaced_while_it_is_sent_is_sent_to_its_end(box: Box) -> None:
    """Another file under the name is another file: of the one that is open nothing has changed."""
    path, key = keep_picture(box), await make_key(box)
    with fail_after(60):
        stream, first = await begin(box, key, "Connection: close\r\n")
        other = path.with_name("other.part")
        other.write_bytes(PICTURE[::-1])
        other.replace(path)
        assert (first + await read_on(stream)).endswith(PICTURE)
