"""The kinds of source: one table of the settings, one module each, and nothing else that asks for a kind."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from edged.config import sources as settings
from edged.config.cameras import CameraSettings
from edged.config.sources import SourceKind, is_network, kind_of
from edged.mediamtx import causes
from edged.mediamtx.ffmpeg import Complaints, find_ffmpeg
from edged.mediamtx.figures import Figures, figures_of_tracks
from edged.mediamtx.sources import KINDS

_PACKAGE = Path(settings.__file__).parents[1] / "mediamtx"


def test_each_kind_of_the_settings_has_a_module() -> None:
    assert set(KINDS) == set(settings.KINDS) == set(get_args(SourceKind))
    modules = [type(kind).__module__ for kind in KINDS.values()]
    assert len(set(modules)) == len(modules)
    assert all(module.startswith("edged.mediamtx.sources.") for module in modules)


def test_outside_of_the_folder_nothing_in_mediamtx_asks_for_a_kind() -> None:
    asked = [
        f"{file.name}: {line.strip()}"
        for file in _PACKAGE.glob("*.py")
        for line in file.read_text().splitlines()
        if re.search(r"\.kind\b", line)
    ]
    assert asked == []


@pytest.mark.parametrize(
    ("source", "kind", "by_address"),
    [
        ("rtsp://h/x", "rtsp", True), ("rtsps://u:p@h/x", "rtsp", True), ("test", "test", False),
        ("ID_SERIAL=A", "usb", False), ("tests", "usb", False), ("rtsp", "usb", False), ("", "usb", False),
        ("rtspx://h/x", "usb", False), ("rpi:0", "rpi", False), ("rpi", "usb", False),
    ],
)  # fmt: skip
def test_a_source_is_of_one_kind(source: str, kind: str, by_address: bool) -> None:
    assert (kind_of(source), is_network(source)) == (kind, by_address)


@pytest.mark.parametrize("source", ["", "tests", "rtsp", "rtspx://h/x", "gopher://h/x"])
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)):
        CameraSettings(name="gate", source=source)


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        ([], Figures()),
        ([("H264", 640, 480)], Figures(640, 480, video="H264", audio="none")),
        ([("Opus", 0, 0), ("H265", 320, 240)], Figures(320, 240, video="H265", audio="Opus")),
        ([("MPEG-4 Audio", 0, 0)], Figures(audio="AAC")),
        ([("Generic", 0, 0)], Figures(audio="none")),
    ],
)
def test_what_is_published_is_told_by_its_tracks(tracks: list[tuple[str, int, int]], expected: Figures) -> None:
    assert figures_of_tracks(tracks) == expected


@pytest.mark.ffmpeg
def test_a_hardware_encoder_that_is_not_there_is_named() -> None:
    """What the machine lacks, and what to set: a real ffmpeg's words where no device of that kind is."""
    made = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10", "-frames:v", "1", "-c:v", "h264_v4l2m2m")
    asked = [find_ffmpeg(), "-hide_banner", "-loglevel", "level+error", *made, "-f", "null", "-"]
    complaints = Complaints(may_redirect=False)
    complaints.feed(subprocess.run(asked, capture_output=True, check=False).stderr)
    complaints.finish()
    cause = complaints.explain(causes.UNKNOWN, network=False)
    assert cause.slug == "encoder"
    assert "/dev/video11" in cause.sentence
    assert 'set encoder = ""' in cause.remedy
