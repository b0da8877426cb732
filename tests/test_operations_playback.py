"""operations/playback.py: a playlist and its segments are links in the name of whoever asked."""

from __future__ import annotations

import re
from io import BytesIO
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from fmp4_helpers import make_segment
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import NOW, Bench, KeptRecordings, make_recording

from edged.clock import iso, iso_exact
from edged.credentials.callers import Caller, Link
from edged.errors import CameraNotFound, EdgedError, InvalidParams, Refused
from edged.library.fmp4 import read_segment
from edged.library.layouts import Fragment, write_layout
from edged.library.playlists import PlayedFile, Playlist
from edged.operations.own_urls import OwnUrls
from edged.operations.playback import _find_life, write_list
from edged.store.segments import LaidOut

LAYOUT = write_layout(read_segment(BytesIO(make_segment())))
BEGIN, END = NOW - 3600, NOW - 3500
SEGMENTS = {camera: f"{camera}/2027-01-15/{int(BEGIN)}-000000.mp4" for camera in ("camera0", "camera7")}


class Box:
    """A bench with one segment of camera0 and one of camera7, which is gone."""

    def __init__(self) -> None:
        self.recordings = KeptRecordings(make_recording(0), make_recording(1, "camera7"))
        self.recordings.index = SimpleNamespace(
            list_begins=self._list_begins, list_layouts=self._list_layouts, files=SimpleNamespace()
        )
        self.lost: Caller | None = None
        self.bench = Bench(recordings=self.recordings, own_urls=OwnUrls("https://box.example", 8002))

    async def _list_begins(self, _camera: str) -> list[float]:
        await self.recordings.read()
        return []

    async def _list_layouts(self, camera: str, *_: Any) -> list[LaidOut]:
        await self.recordings.read()
        if self.lost is not None:
            self.bench.narrow(self.lost, "camera1")
        return [LaidOut(SEGMENTS[camera], BEGIN, 0.6, LAYOUT)] if camera in SEGMENTS else []

    async def link(self, who: Any, **params: Any) -> Any:
        given = {"device": "camera0", "start": BEGIN, "end": END, **params}
        return msgspec.to_builtins(await self.bench.ask(who, "create_playback_link", **given))

    async def list(self, caller: Caller, device: str = "camera0", start: Any = BEGIN, end: Any = END) -> str:
        return await write_list(self.bench.services, caller, "http", device, lambda: (str(start), str(end)))

    def opens(self, url: str) -> bool:
        """Whether this link is good at the gate."""
        parts = urlsplit(url)
        members = parse_qsl(parts.query)
        said = dict(members)
        bound = "&".join(each for each in parts.query.split("&") if each.partition("=")[0] not in ("exp", "by", "sig"))
        return self.bench.gate.is_good(Link(f"{parts.path}?{bound}", said["exp"], said["by"], said["sig"]), "http")


async def test_a_link_names_the_camera_and_the_very_times_and_opens_until_its_end() -> None:
    box = Box()
    made = await box.link(box.bench.caller(), device="gate", ttl=60)
    parts = urlsplit(made["url"])
    assert (parts.netloc, parts.path) == ("box.example", "/api/cameras/camera0/playback.m3u8")
    members = dict(parse_qsl(parts.query))
    assert (members["start"], members["end"]) == (iso_exact(BEGIN), iso_exact(END))
    assert (made["device"], made["growing"], made["expires_at"]) == ("camera0", False, iso(NOW + 60))
    assert made["seconds"] == pytest.approx(0.667, abs=0.01)
    assert box.opens(made["url"])
    assert not box.opens(made["url"].replace("camera0", "camera1"))
    box.bench.time += 60
    assert not box.opens(made["url"])


async def test_each_segment_stands_in_the_list_as_a_link_in_the_name_of_whoever_asked() -> None:
    box = Box()
    caller, other = box.bench.caller(), box.bench.caller()
    text = await box.list(caller)
    urls = {line for line in text.splitlines() if line.startswith("/files/")} | set(re.findall(r'URI="([^"]+)"', text))
    assert {urlsplit(url).path for url in urls} == {f"/files/segments/{SEGMENTS['camera0']}"}
    assert all(map(box.opens, urls))
    box.bench.revoke(other)
    assert all(map(box.opens, urls))
    box.bench.revoke(caller)
    assert not any(map(box.opens, urls))


async def test_a_list_that_is_fetched_again_within_the_hour_is_the_same() -> None:
    """A player compares it; and links are not good for longer each time."""
    box = Box()
    caller = box.bench.caller()
    first = await box.list(caller)
    box.bench.time += 1500
    assert await box.list(caller) == first


PARAMS: list[dict[str, Any]] = [
    {"start": "then"}, {"end": "2027-01-15T08:00:00"}, {"start": END, "end": BEGIN}, {"start": BEGIN, "end": BEGIN},
    {"start": -1}, {"end": 1e300},
]  # fmt: skip


@pytest.mark.parametrize("params", [*PARAMS, {"ttl": 4}, {"ttl": 43_201}, {"end": None}])
async def test_times_that_are_none_make_no_link(params: dict[str, Any]) -> None:
    box = Box()
    given = {"device": "camera0", "start": BEGIN, "end": END, **params}
    assert await box.bench.outcome(box.bench.caller(), "create_playback_link", **given) == "invalid_params"


@pytest.mark.parametrize("params", PARAMS)
async def test_times_that_are_none_make_no_list(params: dict[str, Any]) -> None:
    box = Box()
    with pytest.raises(InvalidParams):
        await box.list(box.bench.caller(), **params)


async def test_a_time_of_which_nothing_is_recorded_is_not_found() -> None:
    box = Box()
    outcome = await box.bench.outcome(
        box.bench.caller(), "create_playback_link", device="camera1", start=BEGIN, end=END
    )
    assert outcome == "not_found"


CAMERAS: list[tuple[str, tuple[str, ...] | None, bool]] = [
    ("camera0", None, True),
    ("gate", None, True),
    # It is gone, and its recordings stay with those who may see it.
    ("camera7", None, True),
    ("camera7", ("camera7",), True),
    ("camera7", ("camera0",), False),
    ("camera0", ("camera1",), False),
    ("camera9", None, False),
    ("camera9", ("camera9",), False),
]


@pytest.mark.parametrize(("device", "access", "is_seen"), CAMERAS)
async def test_only_what_may_be_seen_is_played(device: str, access: tuple[str, ...] | None, is_seen: bool) -> None:
    """By a link and by the list itself; anything else is a camera that is not there."""
    box = Box()
    caller = box.bench.caller(camera_access=access)
    given = {"device": device, "start": BEGIN, "end": END}
    outcome = await box.bench.outcome(caller, "create_playback_link", **given)
    assert outcome == ("ok" if is_seen else "camera_not_found")
    if is_seen:
        assert (await box.list(caller, device)).startswith("#EXTM3U")
    else:
        with pytest.raises(CameraNotFound):
            await box.list(caller, device)


async def test_whether_a_camera_is_there_is_told_before_the_times_are_read() -> None:
    """Else bad times would tell an own camera from a foreign one."""
    box = Box()
    with pytest.raises(CameraNotFound):
        await box.list(box.bench.caller(camera_access=("camera1",)), "camera0", "then")
    narrow = box.bench.caller(camera_access=("camera1",))
    given = {"device": "camera0", "start": "then", "end": END}
    assert await box.bench.outcome(narrow, "create_playback_link", **given) == "camera_not_found"


async def test_a_camera_that_is_lost_while_a_list_is_made_is_not_played() -> None:
    for make in ("link", "list"):
        box = Box()
        box.lost = box.bench.caller()
        with pytest.raises(EdgedError) as caught:
            await getattr(box, make)(box.lost)
        assert isinstance(caught.value, Refused)
        assert caught.value.reason == "camera_denied"


@given(now=st.floats(0, 4e9), seconds=st.floats(0, 1e7))
def test_links_of_segments_outlive_what_plays_and_end_on_the_hour(now: float, seconds: float) -> None:
    """An hour longer than it plays, at most twelve and the rest of one; a link says whole seconds."""
    fragment = Fragment(begin=0.0, seconds=seconds, offset=0, size=1, is_independent=True)
    life = _find_life(Playlist(now, 2.0, (PlayedFile("f", now, 1, (fragment,)),), False, False), now)
    assert min(seconds + 3600, 43_200) - 1 <= life <= 43_200 + 3600 + 1
    assert int(now + life) % 3600 == 0
