"""What is known of sources: the newest word, told once; when they are looked at again; what a stream's figures are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import structlog.testing
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from patience import fail_after
from pictures_helpers import Camera, Spawner, write_script

from edged.mediamtx import causes, source_checks
from edged.mediamtx.causes import CAUSES, NoPicture
from edged.mediamtx.conditions import Condition, Conditions
from edged.mediamtx.figures import Figures, RateMeter, read_size
from edged.mediamtx.source_checks import CHECK_SECONDS, LONGEST_PAUSE_SECONDS, SourceChecks, next_check
from edged.mediamtx.sources import CameraSource

GATE = Camera(kind="rtsp", url="rtsp://127.0.0.1:1/x", width=0, height=0, rate=0.0)
_WORDS = st.one_of(
    st.sampled_from(CAUSES).map(lambda cause: ("fails", cause)),
    st.sampled_from(["publisher", "reader", "check"]).map(lambda witness: ("works", witness)),
)


@given(st.lists(_WORDS, max_size=30))
def test_a_cause_is_logged_when_it_is_new_and_when_it_is_over(words: list[tuple[str, object]]) -> None:
    """However often it is met: as many lines as there are changes, and as many changes for whoever follows."""
    conditions = Conditions()
    seen: list[str] = []
    with structlog.testing.capture_logs() as logs, conditions.changes.subscribe(1000) as news:
        for what, word in words:
            if what == "fails":
                conditions.fails("camera0", word)  # type: ignore[arg-type]
            else:
                conditions.works("camera0", word)  # type: ignore[arg-type]
            known = conditions.find("camera0")
            state = known.cause.slug if known.cause else f"works {known.works}"
            assert (known.cause is None) == (known.works is True)
            if not seen or seen[-1] != state:
                seen.append(state)
        told = len(news._buffer)
    first = 1 if seen and seen[0] == "works True" else 0
    assert len(logs) == len(seen) - first
    assert told == len(seen)


def test_only_who_would_see_it_can_say_that_a_cause_is_over() -> None:
    """Packets are no picture, and a picture of the source says nothing of its encoder."""
    conditions = Conditions()
    conditions.fails("camera0", causes.KEY_FRAMES)
    conditions.works("camera0", "check")
    assert conditions.find("camera0").cause is causes.KEY_FRAMES
    conditions.works("camera0", "reader")
    assert conditions.find("camera0").works
    conditions.fails("camera0", causes.ENCODER)
    conditions.works("camera0", "reader")
    assert conditions.find("camera0").cause is causes.ENCODER
    conditions.works("camera0", "publisher")
    assert conditions.find("camera0").cause is None
    conditions.fails("camera0", causes.SERVER)
    conditions.forgive("camera0", causes.ENCODER)
    assert conditions.find("camera0").works is False
    conditions.forgive("camera0", causes.SERVER)
    assert conditions.find("camera0").works is None


def test_of_another_source_nothing_is_known() -> None:
    """A camera that went, or has another address, begins anew; its restarts are still counted."""
    conditions = Conditions()
    conditions.set_sources([GATE])
    conditions.fails("camera0", causes.REFUSED)
    conditions.restarted("camera0")
    conditions.set_sources([dataclasses.replace(GATE, width=640, rate=25.0)])
    assert conditions.find("camera0").cause is causes.REFUSED
    conditions.set_sources([dataclasses.replace(GATE, url="rtsp://127.0.0.1:2/x")])
    assert conditions.find("camera0") == Condition(restarts=1)
    conditions.fails("camera0", causes.REFUSED)
    conditions.set_sources([])
    assert conditions.all() == {}


@given(st.integers(0, 40), st.sampled_from(CAUSES), st.sampled_from(["usb", "rtsp", "test"]))
def test_a_failed_source_is_checked_again_with_growing_pauses(failures: int, cause: causes.Cause, kind: str) -> None:
    """Each twice the one before, never later than the longest; what only a publisher can tell is left to it."""
    source = Camera(kind=kind)  # type: ignore[arg-type]
    known = Condition(works=False, cause=cause)
    pause, later = next_check(source, known, failures), next_check(source, known, failures + 1)
    if cause.is_ours:
        assert pause is None
        return
    assert pause is not None
    assert 0 < pause <= LONGEST_PAUSE_SECONDS
    assert later == min(2 * pause, LONGEST_PAUSE_SECONDS)


def test_a_source_that_works_is_checked_each_minute_if_it_is_in_the_network() -> None:
    """A network camera now and then; a USB camera's light does not go on for it."""
    works = Condition(works=True)
    assert next_check(GATE, works, 0) == CHECK_SECONDS
    assert next_check(GATE, works, 1) == source_checks.PAUSE_SECONDS
    assert next_check(Camera(kind="usb"), works, 0) is None
    assert next_check(Camera(kind="test"), Condition(), 0) is None


class Pictures:
    """Stands for frames: takes pictures as it is told to."""

    def __init__(self) -> None:
        self.running: frozenset[str] = frozenset()
        self.asked = 0
        self.cause: causes.Cause | None = causes.BUSY
        self.conditions = Conditions()

    async def snapshot(self, source: CameraSource) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.cause is not None:
            raise NoPicture(source.name, self.cause)
        self.conditions.works(source.name, "reader")
        return b""


async def test_one_failed_check_of_a_camera_that_worked_is_repeated_before_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is no news, the second is; a look that finds packets ends it."""
    monkeypatch.setattr(source_checks, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(source_checks, "CHECK_SECONDS", 0.05)
    state = tmp_path / "state"
    state.write_text("echo 'Connection refused' >&2; exit 1")
    script = write_script(tmp_path, f". {state}")
    spawn, conditions = Spawner(), Conditions()
    conditions.works("camera0", "reader")
    checks = SourceChecks(spawn, script, cast(Any, Pictures()), conditions, lambda _path: False, folder=tmp_path)
    checks.set_sources([GATE])
    with fail_after(30), conditions.changes.subscribe() as news:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checks.run)
            assert await news.receive() == "camera0"
            assert conditions.find("camera0").cause == replace(causes.REFUSED, exact="Connection refused")
            assert len(spawn.started) == 2
            state.write_text("printf 'frame=4\\nout_time_us=1\\nprogress=end\\n'; exit 0")
            while not conditions.find("camera0").works:
                await news.receive()
            nursery.cancel_scope.cancel()


async def test_a_stream_whose_clock_stands_still_does_not_delay_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ffmpeg would read for ever: that packets come is enough."""
    monkeypatch.setattr(source_checks, "MEASURED_SECONDS", 0.1)
    monkeypatch.setattr(source_checks, "_GRACE_SECONDS", 0.1)
    report = "printf 'frame=9\\nout_time_us=0\\nprogress=continue\\n'"
    spawn, conditions = Spawner(), Conditions()
    script = write_script(tmp_path, f"{report}; exec sleep 60")
    checks = SourceChecks(spawn, script, cast(Any, Pictures()), conditions, lambda _path: False, folder=tmp_path)
    checks.set_sources([GATE])
    with fail_after(20), conditions.changes.subscribe() as news:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checks.run)
            await news.receive()
            assert conditions.find("camera0").works
            assert not spawn.alive
            nursery.cancel_scope.cancel()


async def test_a_failing_usb_camera_is_tried_by_a_picture_and_one_in_use_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure that somebody met starts the checks, a picture ends them."""
    monkeypatch.setattr(source_checks, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(source_checks, "_BUSY_PAUSE_SECONDS", 0.02)
    pictures = Pictures()
    conditions = pictures.conditions
    published = True
    checks = SourceChecks(Spawner(), lambda: "/bin/false", cast(Any, pictures), conditions, lambda _path: published)
    checks.set_sources([Camera(kind="usb", node="/dev/video0")])
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checks.run)
            await trio.sleep(0.1)
            conditions.fails("camera0", causes.BUSY)
            checks.reschedule()
            await trio.sleep(0.2)
            assert pictures.asked == 0
            published = False
            while pictures.asked < 2:
                await trio.sleep(0.01)
            pictures.cause = None
            while not conditions.find("camera0").works:
                await trio.sleep(0.01)
            count = pictures.asked
            await trio.sleep(0.2)
            assert pictures.asked == count
            nursery.cancel_scope.cancel()


# --- figures ---


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("  Stream #0:0: Video: h264 (Main), yuv420p(progressive), 320x240 [SAR 1:1 DAR 4:3], 10 tbr", (320, 240)),
        ("  Stream #0:0: Video: hevc, yuv420p(tv), 2560x1440, 15 fps, 15 tbr, 90k tbn", (2560, 1440)),
        ("  Stream #0:1: Audio: aac, 44100 Hz, mono", None),
        ("  Stream #0:0: Video: h264, none, 90k tbn", None),
    ],
)
def test_the_size_stands_in_ffmpegs_line(line: str, size: tuple[int, int] | None) -> None:
    """Whatever the codec, and only where there is one."""
    assert read_size(line) == size


@given(st.text(max_size=200))
def test_any_line_can_be_asked_for_a_size(line: str) -> None:
    """A size of two positive numbers, or none."""
    found = read_size(f"Stream #0:0: Video: {line}")
    assert found is None or min(found) >= 0


@given(st.integers(1, 60), st.integers(1, 7))
def test_the_rate_is_measured_however_the_report_is_cut(rate: int, step: int) -> None:
    """Frames a second between the first report and the last."""
    report = b"".join(
        b"frame=%d\nfps=0.0\nout_time_us=%d\nprogress=continue\n" % (rate * second, second * 1_000_000)
        for second in range(1, 6)
    )
    meter = RateMeter()
    for at in range(0, len(report), step):
        meter.feed(report[at : at + step])
    assert meter.packets == rate * 5
    assert meter.rate == pytest.approx(rate)


@given(st.binary(max_size=400))
def test_a_report_that_makes_no_sense_has_no_rate(data: bytes) -> None:
    """Nothing is raised, and nothing grows without limit."""
    meter = RateMeter()
    meter.feed(data)
    meter.feed(b"x" * 100_000)
    assert len(meter._rest) <= 256
    assert meter.rate >= 0


def test_figures_that_are_nearly_the_same_are_no_news() -> None:
    """No two measurements of a rate are equal; a size is."""
    known = Figures(640, 480, 10.0)
    assert known.updated(Figures(0, 0, 10.8)) == known
    assert known.updated(Figures(0, 0, 15.0)).rate == 15.0
    assert known.updated(Figures(1280, 720, 0.0)) == Figures(1280, 720, 10.0)


def test_the_rate_of_a_stream_that_was_passed_on_at_once_is_told_at_its_end() -> None:
    """After a long analysis ffmpeg 7 has everything already, and reports once."""
    meter = RateMeter()
    meter.feed(b"frame=22\nout_time_us=4200000\nprogress=end\n")
    assert meter.rate == 5.0
    brief = RateMeter()
    brief.feed(b"frame=2\nout_time_us=400000\nprogress=end\n")
    assert brief.rate == 0
