"""library/pictures.py and the lists of library/snapshots.py."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edged.errors import NotFound
from edged.library.pictures import read_size
from edged.library.snapshots import Snapshots


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(["JPEG", "PNG"]))
def test_the_size_of_a_picture_is_read_from_its_head(width: int, height: int, form: str) -> None:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, form)
    assert read_size(file.getvalue()[:4096]) == (width, height)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\0"]))
def test_any_other_bytes_have_no_size_or_a_plain_one(data: bytes, head: bytes) -> None:
    size = read_size(head + data)
    assert size is None or all(0 <= number < 1 << 32 for number in size)


async def test_snapshots_are_listed_newest_first_and_in_parts(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for number in range(5):
        saved = await snapshots.save(f"p{number}", f"camera{number % 2}", b"x" * number, format="jpg", now=0)
        os.utime(saved.path, (1000 + number, 1000 + number))
    (tmp_path / "camera0" / "notes.txt").write_text("no picture")
    (tmp_path / "camera2").symlink_to(tmp_path / "camera0")
    found, total = await snapshots.list_page(lambda _camera: True, limit=2, offset=1)
    assert ([picture.filename for picture in found], total) == (["p3.jpg", "p2.jpg"], 5)
    found, total = await snapshots.list_page(lambda camera: camera == "camera1", limit=10, offset=0)
    assert ([picture.filename for picture in found], total) == (["p3.jpg", "p1.jpg"], 2)
    assert await snapshots.measure(lambda _camera: True) == 0 + 1 + 2 + 3 + 4


async def test_a_snapshot_is_deleted_once(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    saved = await snapshots.save("p", "camera0", b"x", format="png", now=0)
    assert (await snapshots.describe(saved.path))[1] is None
    await snapshots.delete(saved.path)
    with pytest.raises(NotFound):
        await snapshots.delete(saved.path)
    assert await snapshots.list_page(lambda _camera: True, limit=2, offset=0) == ([], 0)
