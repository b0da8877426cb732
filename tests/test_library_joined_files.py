"""library/joined_files.py: whether what ffmpeg made is whole, and how long an index gets, on files of the real one."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.library.fmp4 import read_segment, top_boxes
from edged.library.joined_files import index_bytes, is_whole

pytestmark = pytest.mark.ffmpeg

FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov+default_base_moof")
FORMATS = {"front.mp4": ("-movflags", "+faststart"), "kept.mp4": ("-moov_size", "40000"), "plain.mkv": ()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`segment.mp4` of 6 s with pictures and sound, fragmented, and what is made of it."""
    found = tmp_path_factory.mktemp("files")
    source = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=15", "-f", "lavfi", "-i", "sine", "-t", "6")
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "15", "-c:a", "aac")
    segment = found / "segment.mp4"
    subprocess.run(["ffmpeg", "-v", "error", *source, *encode, *FRAGMENTED, segment], check=True)
    for name, options in FORMATS.items():
        subprocess.run(["ffmpeg", "-v", "error", "-i", segment, "-c", "copy", *options, found / name], check=True)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_to_its_end_is_whole(folder: Path, name: str) -> None:
    assert is_whole(folder / name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_cut_anywhere_is_not(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    assert not is_whole(tmp_path / name)


@pytest.mark.parametrize("name", ["kept.mp4", "plain.mkv"])
def test_what_was_never_closed_is_not_whole(folder: Path, tmp_path: Path, name: str) -> None:
    """ffmpeg writes its index, or its size, last; until then there is a hole, or that it is unknown."""
    data = bytearray((folder / name).read_bytes())
    if name.endswith("mp4"):
        at = data.index(b"moov") - 4
        data[at : at + 40_000] = bytes(40_000)
    else:
        at = data.index(b"\x18\x53\x80\x67") + 4
        data[at : at + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / name).write_bytes(data)
    assert not is_whole(tmp_path / name)


@pytest.mark.parametrize("times", [1, 10, 600])
def test_the_space_for_an_index_is_enough_and_not_far_too_much(folder: Path, times: int) -> None:
    """ffmpeg's own index of these samples, as often as they come."""
    file = io.BytesIO((folder / "segment.mp4").read_bytes())
    segment = read_segment(file)
    with (folder / "front.mp4").open("rb") as made:
        index = next(size for kind, _, size, _ in top_boxes(made) if kind == b"moov")
    space = index_bytes(file, segment.parts, times * float(segment.duration))
    assert times * index < space < 16 * 1024 + 4 * times * index
