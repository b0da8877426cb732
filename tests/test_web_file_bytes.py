"""The bytes of a file: ranges, conditions, and that it is closed whoever ends its answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from edged.errors import NotFound, StoreFailed
from edged.web.file_bytes import BadRange, open_file, read_range, send_file
from edged.web.requests import ResponseAborted

DATA = bytes(range(256)) * 1024


def descriptors(path: Path) -> int:
    """How often a file is open in this process."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += each.readlink() == path
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "yard.mp4"
    path.write_bytes(DATA)
    return path


class Client:
    """Takes an answer; leaves when `most` bytes have come."""

    def __init__(self, most: float = float("inf")) -> None:
        self.most = most
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""
        self.complete = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], Headers(raw=message["headers"])
            return
        self.body += message["body"]
        self.complete = not message["more_body"]
        if len(self.body) >= self.most:
            raise BrokenPipeError


async def ask(client: Client, path: Path, method: str = "GET", may_go_on: Any = lambda: True, **headers: str) -> Client:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    async with open_file(path, path.name) as file:
        scope = {"type": "http", "method": method, "headers": raw}
        await send_file(file, "attachment", may_go_on, scope, client.send)
    return client


@given(size=st.integers(0, 50), first=st.integers(-1, 60), last=st.integers(-1, 60))
def test_a_range_is_the_bytes_that_it_names(size: int, first: int, last: int) -> None:
    text = f"bytes={'' if first < 0 else first}-{'' if last < 0 else last}"
    numbers = list(range(size))
    if first < 0 and last < 0:
        wanted: list[int] | int = 400
    elif first < 0:
        wanted = numbers[-last:] if last else []
    elif 0 <= last < first:
        wanted = 400
    else:
        wanted = numbers[first:] if last < 0 else numbers[first : last + 1]
    if isinstance(wanted, list) and wanted:
        span = read_range(text, size)
        assert span.is_part
        assert numbers[span.begin : span.end] == wanted
    else:
        with pytest.raises(BadRange) as refused:
            read_range(text, size)
        assert refused.value.status == (wanted or 416)


@given(st.text() | st.from_regex(r"bytes\s*=[0-9, -]*", fullmatch=True))
def test_no_text_is_a_range_outside_of_the_file(text: str) -> None:
    with suppress(BadRange):
        span = read_range(text, 10)
        assert 0 <= span.begin < span.end <= 10


@pytest.mark.parametrize("text", ["pages=1-2", "bytes=0-1,4-5", "bytes", ""])
def test_what_need_not_be_understood_counts_as_not_sent(text: str) -> None:
    """Another unit, and several ranges (RFC 9110, 14.2)."""
    assert read_range(text, 10) == (0, 10, False)


async def test_a_file_that_changed_is_sent_whole(kept: Path) -> None:
    first = await ask(Client(), kept, range="bytes=10-19")
    assert (first.status, first.body) == (206, DATA[10:20])
    for condition in (first.headers["etag"], first.headers["last-modified"]):
        assert (await ask(Client(), kept, range="bytes=10-19", if_range=condition)).status == 206
    kept.write_bytes(DATA + b"more")
    again = await ask(Client(), kept, range="bytes=10-19", if_range=first.headers["etag"])
    assert (again.status, again.body) == (200, DATA + b"more")


async def test_head_has_the_headers_and_no_bytes(kept: Path) -> None:
    answer = await ask(Client(), kept, "HEAD")
    assert (answer.headers["content-length"], answer.body, answer.complete) == (str(len(DATA)), b"", True)
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_an_empty_file_is_an_empty_answer(kept: Path) -> None:
    kept.write_bytes(b"")
    answer = await ask(Client(), kept)
    assert (answer.status, answer.headers["content-length"], answer.complete) == (200, "0", True)


async def test_the_file_of_a_client_that_leaves_half_way_is_closed(kept: Path) -> None:
    with pytest.raises(BrokenPipeError):
        await ask(Client(most=100_000), kept)
    assert descriptors(kept) == 0


async def test_nothing_more_is_sent_from_where_it_may_not_go_on(kept: Path) -> None:
    client = Client()
    with pytest.raises(ResponseAborted):
        await ask(client, kept, may_go_on=lambda: len(client.body) < 100_000)
    assert 100_000 <= len(client.body) < len(DATA)
    assert not client.complete
    assert descriptors(kept) == 0


async def test_a_file_that_became_shorter_is_no_whole_answer(kept: Path) -> None:
    client = Client()

    def shorten() -> bool:
        kept.write_bytes(b"")
        return True

    with pytest.raises(ResponseAborted):
        await ask(client, kept, may_go_on=shorten)
    assert not client.complete
    assert descriptors(kept) == 0


async def test_whoever_may_not_see_it_any_more_is_told_before_the_first_byte(kept: Path) -> None:
    client = Client()
    with pytest.raises(NotFound):
        await ask(client, kept, may_go_on=lambda: False)
    assert client.status == 0
    assert descriptors(kept) == 0


async def test_only_a_file_is_opened(tmp_path: Path) -> None:
    """No folder, no pipe (whose opening would wait), no symbolic link."""
    (tmp_path / "link").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("gone", NotFound), ("pipe", NotFound), ("", NotFound), ("link", StoreFailed)):
        with pytest.raises(kind):
            await ask(Client(), tmp_path / name)
