"""library/playlists.py: the text of a list by the rules of RFC 8216, and what it names."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import patience
import pytest
import trio
from fmp4_helpers import make_segment
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import fail_after

from edged.errors import InvalidParams, NotFound
from edged.library import playlists, removed_files
from edged.library.fmp4 import read_segment
from edged.library.layouts import write_layout
from edged.library.playlists import Playlist, find_playlist, write_playlist
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.store import segments
from edged.store.database import Database
from edged.store.migrations import USAGE
from edged.store.segments import SegmentRow

NOW = 1_796_000_000.0
#: Ten seconds: parts of one second, each of which begins with a key frame.
SEGMENT = make_segment(parts=10, samples=10, ticks=9000, key_every=10)
LAYOUT = write_layout(read_segment(BytesIO(SEGMENT)))


class Entry(NamedTuple):
    """One media segment of a list: what it fetches, and when it was."""

    seconds: float
    size: int
    offset: int
    url: str
    header: str
    at: float
    number: int


def read_list(text: str) -> list[Entry]:
    """The media segments of a list. Fails for what breaks a rule of RFC 8216 or rfc8216bis."""
    lines = text.split("\n")
    assert lines.pop() == ""
    assert lines[0] == "#EXTM3U"
    tags = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
    # EXT-X-MAP beside other segments than I-frames needs 6 (7).
    assert int(tags["#EXT-X-VERSION"]) >= 6
    assert lines.count("#EXT-X-ENDLIST") <= 1
    if "#EXT-X-ENDLIST" in lines:
        assert lines[-1] == "#EXT-X-ENDLIST"
    else:
        assert "#EXT-X-PLAYLIST-TYPE" not in tags, "EVENT and VOD may lose nothing"
    target = int(tags["#EXT-X-TARGETDURATION"])
    found: list[Entry] = []
    header, at, number, is_cut = "", 0.0, int(tags.get("#EXT-X-DISCONTINUITY-SEQUENCE", "0")), True
    pending: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name == "#EXT-X-DISCONTINUITY":
            number, header, is_cut = number + 1, "", True
        elif name == "#EXT-X-MAP":
            assert is_cut, "a map changes where timestamps begin anew"
            header, is_cut = value, False
        elif name == "#EXT-X-PROGRAM-DATE-TIME":
            at = datetime.fromisoformat(value).timestamp()
        elif not line.startswith("#"):
            size, _, offset = pending.pop("#EXT-X-BYTERANGE").partition("@")
            seconds = float(pending.pop("#EXTINF").removesuffix(","))
            assert header, "each segment has a map"
            assert int(seconds + 0.5) <= target
            found.append(Entry(seconds, int(size), int(offset), line, header, at, number))
            at += seconds
        else:
            pending[name] = value
    # Of one file the pieces follow one another.
    for before, after in pairwise(found):
        if before.number == after.number:
            assert (before.url, before.offset + before.size) == (after.url, after.offset)
    return found


class Box:
    """Segments of camera0 in a real index, and what of them are files."""

    def __init__(self, root: Path, usage: Database) -> None:
        self.usage, self.active = usage, dict[str, object]()
        self.index = RecordingIndex(RecordingFiles(root), usage)
        self.root = root

    async def put(self, begins: Sequence[float], layout: bytes | None = LAYOUT) -> None:
        rows = [SegmentRow(f"camera0/2026-11-29/{int(b)}-0.mp4", "camera0", b, 10.0, len(SEGMENT), layout=layout)
                for b in begins]  # fmt: skip
        await self.usage.write(partial(segments.insert, rows=rows))

    async def remove(self, begins: Sequence[float]) -> None:
        """As retention does."""
        rows = [row for row in await self.index.list_between("camera0", 0, NOW + 1000) if row.began in begins]
        await self.index.remove(rows, {row.file: "age" for row in rows})

    async def find(self, begin: float, end: float) -> Playlist:
        services = SimpleNamespace(index=self.index, active=self.active)
        return await find_playlist(services, "camera0", NOW + begin, NOW + end, NOW)  # type: ignore[arg-type]

    async def list(self, begin: float, end: float) -> list[Entry]:
        return read_list(write_playlist(await self.find(begin, end), lambda file: f"/files/segments/{file}?sig=x"))

    def write_open(self, begin: float) -> None:
        path = self.root / "open" / "camera0" / "x" / f"{int(NOW + begin)}-000000.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    with fail_after(30):
        async with Database.open(tmp_path / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage:
            yield Box(tmp_path / "recordings", usage)


async def test_each_file_is_a_discontinuity_with_its_header_and_its_time(box: Box) -> None:
    await box.put([NOW - 3000, NOW - 2990, NOW - 2900])
    found = await box.list(-3600, -600)
    assert [entry.seconds for entry in found] == [4.0, 4.0, 2.0] * 3
    assert [entry.number for entry in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # The gap is seen in the times, and nowhere else.
    begins = (-3000, -2990, -2900)
    assert [entry.at for entry in found] == [NOW + at + offset for at in begins for offset in (0, 4, 8)]
    assert {entry.header.partition("URI=")[2].split('"')[1] for entry in found} == {entry.url for entry in found}
    header = len(SEGMENT) - sum(entry.size for entry in found[:3])
    assert all(entry.header.endswith(f'BYTERANGE="{header}@0"') for entry in found)
    assert found[0].offset == header


async def test_it_begins_at_the_key_frame_before_and_tells_a_player_where_to_start(box: Box) -> None:
    await box.put([NOW - 3000, NOW - 2990])
    playlist = await box.find(-2994.5, -2985)
    text = write_playlist(playlist, str)
    assert [(entry.at - NOW, entry.seconds) for entry in read_list(text)] == [
        (-2996, 4.0), (-2992, 2.0), (-2990, 4.0), (-2986, 4.0)
    ]  # fmt: skip
    assert "#EXT-X-START:TIME-OFFSET=1.500,PRECISE=YES" in text
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in text
    # In a gap it begins with what follows; a file of which a blink is left is left out.
    assert [entry.at - NOW for entry in await box.list(-3300, -2999)] == [-3000]
    assert [entry.at - NOW for entry in await box.list(-2990.01, -2989)] == [-2990]
    assert "TIME-OFFSET=0.000" in write_playlist(await box.find(-3300, -2999), str)


OTHER = write_layout(read_segment(BytesIO(make_segment(parts=10, samples=10, ticks=9000, key_every=10, codec=b"hvc1"))))
EARLIER = b"\x01" + LAYOUT[1:17] + LAYOUT[21:]


async def test_a_list_ends_where_the_codecs_change_and_says_where_to_go_on(box: Box) -> None:
    """Also one that would grow; files of which nothing is known are of those around them."""
    await box.put([NOW - 3000])
    await box.put([NOW - 2990], EARLIER)
    await box.put([NOW - 2980])
    await box.put([NOW - 2970, NOW - 2960], OTHER)
    first = await box.find(-3600, -600)
    assert [file.began - NOW for file in first.files] == [-3000, -2990, -2980]
    assert first.changed_at == NOW - 2970
    second = await box.find(-2970, -600)
    assert ([file.began - NOW for file in second.files], second.changed_at) == ([-2970, -2960], None)
    box.active["camera0"] = object()
    text = write_playlist(await box.find(-3600, 600), str)
    assert text.endswith("#EXT-X-ENDLIST\n")
    assert len({entry.url for entry in read_list(text)}) == 3


async def test_a_long_time_has_longer_pieces(box: Box) -> None:
    await box.put([NOW - 90_000 + 10 * each for each in range(1000)])
    assert {entry.seconds for entry in await box.list(-90_000, -3600)} == {10.0}
    assert {entry.seconds for entry in await box.list(-90_000, -89_000)} == {2.0, 4.0}


async def test_a_list_of_a_time_that_is_over_is_whole(box: Box) -> None:
    await box.put([NOW - 3000])
    text = write_playlist(await box.find(-3600, -600), str)
    assert "#EXT-X-PLAYLIST-TYPE:VOD\n" in text
    assert text.endswith("#EXT-X-ENDLIST\n")


async def test_a_list_of_now_grows_by_what_is_closed_until_it_is_whole(box: Box) -> None:
    """Each text begins with the one before, but for its end."""
    await box.put([NOW - 30])
    box.write_open(-20)
    first = write_playlist(await box.find(-600, -5), str)
    assert "#EXT-X-PLAYLIST-TYPE" not in first
    assert "#EXT-X-ENDLIST" not in first
    # Else a player would begin at the end.
    assert "#EXT-X-START:TIME-OFFSET=0.000" in first
    await box.put([NOW - 20])
    second = write_playlist(await box.find(-600, -5), str)
    assert second.startswith(first)
    assert len(read_list(second)) > len(read_list(first))
    next((box.root / "open").rglob("*.mp4")).unlink()
    assert write_playlist(await box.find(-600, -5), str) == second + "#EXT-X-ENDLIST\n"


def number(text: str) -> dict[int, Entry]:
    """The media segments of a list by their numbers, each with that of its discontinuity (RFC 8216, 6.2.2)."""
    first = int(text.partition("#EXT-X-MEDIA-SEQUENCE:")[2].partition("\n")[0])
    return dict(enumerate(read_list(text), first))


@given(data=st.data())
@settings(max_examples=patience.times(40, least=10))
def test_a_list_that_grows_counts_what_retention_deletes_at_its_begin(data: st.DataObject) -> None:
    """At whatever fetch of the same URL: a number and its discontinuity mean the same piece, and the order stays."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with Database.open(Path(folder) / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage:
                box = Box(Path(folder) / "recordings", usage)
                box.active["camera0"] = object()
                begin = data.draw(st.sampled_from([-600.0, -594.5, -581.0]))
                there = [-600.0 + 10 * each for each in range(data.draw(st.integers(4, 8)))]
                at = there[-1]
                await box.put([NOW + each for each in there])
                known: dict[int, Entry] = {}
                for _ in range(data.draw(st.integers(1, 4))):
                    now = number(write_playlist(await box.find(begin, 600), str))
                    assert all(known.get(each, entry) == entry for each, entry in now.items())
                    assert not known or min(known) <= min(now) <= max(known) + 1 <= max(now) + 1
                    known |= now
                    count = data.draw(st.integers(0, len(there) - 1))
                    gone, there = there[:count], there[count:]
                    if data.draw(st.booleans()) and len(there) > 2:
                        gone.append(there.pop(1))
                    await box.remove([NOW + each for each in gone])
                    for _ in range(data.draw(st.integers(0, 2))):
                        there.append(at := at + data.draw(st.sampled_from([10.0, 25.0])))
                        await box.put([NOW + at])

    trio.run(play)


async def test_of_a_camera_whose_lists_nobody_asks_for_nothing_is_remembered(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = [NOW - 600 + 10 * each for each in range(6)]
    await box.put(begins)
    await box.remove(begins[:1])
    await box.list(-600, -300)
    await box.remove(begins[1:2])
    assert box.index.removed.list_between("camera0", 0, NOW) == []
    box.active["camera0"] = object()
    await box.list(-600, 600)
    await box.remove(begins[2:3])
    assert len(box.index.removed.list_between("camera0", 0, NOW)) == 1
    monkeypatch.setattr(removed_files, "_WATCHED_SECONDS", -1.0)
    await box.remove(begins[3:4])
    assert box.index.removed.list_between("camera0", 0, NOW) == []


async def test_no_more_files_are_remembered_than_a_list_may_have(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed_files, "_MOST", 2)
    begins = [NOW - 600 + 10 * each for each in range(6)]
    await box.put(begins)
    box.active["camera0"] = object()
    await box.list(-600, 600)
    await box.remove(begins[:4])
    assert [row.began for row in box.index.removed.list_between("camera0", 0, NOW)] == begins[2:4]


async def test_a_list_that_reaches_into_what_is_recorded_grows(box: Box) -> None:
    """Also where the pieces of the recording are in memory yet."""
    await box.put([NOW - 30])
    assert not (await box.find(-600, 600)).is_growing
    box.active["camera0"] = object()
    assert (await box.find(-600, 600)).is_growing
    assert not (await box.find(-600, -25)).is_growing


async def test_where_nothing_is_recorded_is_an_error_that_says_when_to_ask_again(box: Box) -> None:
    with pytest.raises(NotFound) as caught:
        await box.find(-600, -300)
    assert "get_timeline" in caught.value.hint
    box.write_open(-20)
    with pytest.raises(NotFound) as caught:
        await box.find(-600, 600)
    assert "closed after a minute" in caught.value.hint


async def test_too_many_files_are_refused_with_the_time_up_to_which_there_are_not(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playlists, "MOST_FILES", 5)
    await box.put([NOW - 3000 + 10 * each for each in range(6)])
    with pytest.raises(InvalidParams) as caught:
        await box.find(-3600, -600)
    end = datetime.fromisoformat(caught.value.hint.split()[2].rstrip(",")).timestamp()
    assert len({entry.url for entry in await box.list(-3600, end - NOW)}) == 5


async def test_files_that_were_indexed_before_layouts_are_read_once(box: Box) -> None:
    await box.put([NOW - 3000, NOW - 2990], layout=None)
    kept = box.root / "camera0" / "2026-11-29"
    kept.mkdir(parents=True)
    path = kept / f"{int(NOW) - 3000}-0.mp4"
    path.write_bytes(SEGMENT)
    (kept / f"{int(NOW) - 2990}-0.mp4").write_bytes(b"no segment")
    found = await box.list(-3600, -600)
    assert [entry.at - NOW for entry in found] == [-3000, -2996, -2992]
    path.unlink()
    assert await box.list(-3600, -600) == found
