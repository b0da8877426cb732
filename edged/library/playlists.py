"""A time of a camera as an HLS playlist over its segments (RFC 8216): nothing is copied or encoded.

Each file of MediaMTX's begins its timestamps anew and has its own header, so each is a discontinuity with its own
EXT-X-MAP; a file of another size is nothing special then. Where a camera gains or loses its sound, or changes its
codec, the list ends: hls.js and ffmpeg stop there, or show nothing at all. The index knows where a player can begin
within a file (layouts), so that it need not be opened for a list.

A list that can still grow has no type and no end: what is closed later is appended, what retention deletes is taken
away from its begin and counted (RFC 8216, 6.2.2), and what lies between stays as it is, with the same links. A file
that goes out of the midst stays named, as the RFC wants it, and is not found. Every other list is VOD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Final, NamedTuple

import msgspec
import structlog
import trio

from edged.clock import iso_exact
from edged.errors import EdgedError, InvalidParams, NotFound
from edged.library.fmp4 import NotASegment, read_segment
from edged.library.layouts import FRAGMENT_SECONDS, LONG_SECONDS, Fragment, read_layout, write_layout
from edged.library.recording_files import RecordingFiles
from edged.library.recordings import Recordings
from edged.library.timelines import SETTLE_SECONDS
from edged.store.segments import LaidOut

#: Files of one playlist: three days and a half, at one a minute.
MOST_FILES: Final = 5000
#: About so many fragments a playlist has at most: those of a long time are longer, up to a whole file.
_FRAGMENTS: Final = 5000
_LONGEST_FRAGMENT: Final = 60.0
#: Seconds behind its end in which a list that has grown may be fetched again, and must be what it was.
_REMEMBERED: Final = 120.0
#: A file that ends so soon after the begin is left out, where another one follows.
_EDGE_SECONDS: Final = 0.1
#: Files that are read in one go of a thread, where the index does not know how they are laid out.
_BATCH: Final = 20
_log = structlog.get_logger("recordings")


class PlayedFile(NamedTuple):
    """What is played of a segment: `file` is its path below the folder of recordings, `began` Unix seconds, its header
    the first `header_size` bytes; `codecs` as of its layout."""

    file: str
    began: float
    header_size: int
    fragments: Sequence[Fragment]
    codecs: int | None = None


class Playlist(msgspec.Struct, frozen=True):
    """What a list names, in order. `begin` Unix seconds, `fragment_seconds` how long a fragment is about.

    `is_growing`: more is coming; `is_live`: it is, or was until just now. Of what it had named before, `lost_files` and
    `lost_fragments` were deleted at its begin. `changed_at`: when what it does not have begins, since its codecs are
    others, Unix seconds; None where there is no such thing.
    """

    begin: float
    fragment_seconds: float
    files: Sequence[PlayedFile]
    is_growing: bool
    is_live: bool
    lost_files: int = 0
    lost_fragments: int = 0
    changed_at: float | None = None

    @property
    def seconds(self) -> float:
        """What it plays."""
        return sum(fragment.seconds for file in self.files for fragment in file.fragments)


async def find_playlist(recordings: Recordings, camera: str, begin: float, end: float, now: float) -> Playlist:
    """What there is of a camera from the key frame at or before `begin` until `end`, Unix seconds.

    Raises InvalidParams for a time of too many files, NotFound where nothing is recorded, StoreFailed.
    """
    index = recordings.index
    # In this order: what is closed meanwhile is in the list, and the list says that more may come.
    is_recording = any(at < end for at in await index.list_begins(camera)) or (
        camera in recordings.active and end > now - SETTLE_SECONDS
    )
    rows = await index.list_layouts(camera, begin, end, MOST_FILES + 1)
    if len(rows) > MOST_FILES:
        raise InvalidParams(
            f"there are more than {MOST_FILES} files between start and end",
            hint=f"end at {iso_exact(rows[MOST_FILES].began)}, and ask for what follows by another list", field="end",
        )  # fmt: skip
    known = await _read_unknown(index.files, [row for row in rows if row.layout is None])
    if known:
        try:
            await index.save_layouts(known)
        except EdgedError as problem:
            _log.warning("layouts_not_saved", files=len(known), problem=str(problem))
    is_live = is_recording or end > now - _REMEMBERED
    removed: list[LaidOut] = []
    if is_live:
        index.removed.watch(camera)
        # After the index, so that what is deleted meanwhile is in one of them.
        removed = index.removed.list_between(camera, begin, end)
    seconds = min(max(FRAGMENT_SECONDS, (end - begin) / _FRAGMENTS), _LONGEST_FRAGMENT)
    files = await trio.to_thread.run_sync(_choose, _merge(rows, removed), known, (begin, end), seconds)
    files, changed_at = _cut(files)
    gone = {row.file for row in removed}
    lost = list(takewhile(lambda file: file.file in gone, files))
    files = files[len(lost) :]
    if not files:
        hint = "the first file is closed after a minute" if is_recording else "get_timeline says when"
        raise NotFound(f"nothing of {camera} is recorded in this time", hint=hint, resource="file")
    return Playlist(
        begin, seconds, files, is_recording and changed_at is None, is_live, len(lost),
        sum(len(file.fragments) for file in lost), changed_at,
    )  # fmt: skip


def _cut(files: list[PlayedFile]) -> tuple[list[PlayedFile], float | None]:
    """(those of the codecs of the first one; when the next one began, if there is one)."""
    codecs = None
    for number, file in enumerate(files):
        if codecs is not None and file.codecs not in (codecs, None):
            return files[:number], file.began
        codecs = codecs if file.codecs is None else file.codecs
    return files, None


def _merge(rows: Sequence[LaidOut], removed: Sequence[LaidOut]) -> Sequence[LaidOut]:
    """In the order of the index; each file once."""
    if not removed:
        return rows
    return sorted({row.file: row for row in (*rows, *removed)}.values(), key=lambda row: (row.began, row.file))


def _choose(
    rows: Sequence[LaidOut], known: Mapping[str, bytes], within: tuple[float, float], seconds: float
) -> list[PlayedFile]:
    found = []
    begin, end = within
    for number, row in enumerate(rows):
        if number + 1 < len(rows) and row.began + row.duration - begin < _EDGE_SECONDS:
            continue
        data = row.layout or known.get(row.file, b"")
        layout = read_layout(data, begin - row.began, end - row.began, seconds)
        if layout is not None and layout.fragments:
            found.append(PlayedFile(row.file, row.began, layout.header_size, layout.fragments, layout.codecs))
    return found


async def _read_unknown(files: RecordingFiles, rows: Sequence[LaidOut]) -> dict[str, bytes]:
    """File → its layout, read from the file; a file that is gone or damaged has none."""
    found: dict[str, bytes] = {}
    for at in range(0, len(rows), _BATCH):
        found |= await trio.to_thread.run_sync(partial(_read_layouts, files, rows[at : at + _BATCH]))
    return found


def _read_layouts(files: RecordingFiles, rows: Sequence[LaidOut]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for row in rows:
        try:
            with files.find(row.file).open("rb") as data:
                found[row.file] = write_layout(read_segment(data))
        except (OSError, NotASegment) as problem:
            # Deleted just now, or damaged: it is not in the list.
            _log.warning("recording_not_played", file=row.file, problem=str(problem))
    return found


def write_playlist(playlist: Playlist, url_of: Callable[[str], str]) -> str:
    """The text of a playlist; `url_of(file)` names a segment's bytes."""
    fragments = [fragment for file in playlist.files for fragment in file.fragments]
    longest = max((fragment.seconds for fragment in fragments), default=1.0)
    # The target of a list that grows may not change.
    target = max(int(longest + 0.5), math.ceil(playlist.fragment_seconds + LONG_SECONDS) if playlist.is_live else 1)
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", f"#EXT-X-TARGETDURATION:{target}",
             f"#EXT-X-MEDIA-SEQUENCE:{playlist.lost_fragments}"]  # fmt: skip
    # Of the type EVENT nothing may ever be taken away.
    lines.append(
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{playlist.lost_files}" if playlist.is_live else "#EXT-X-PLAYLIST-TYPE:VOD"
    )
    if not playlist.is_live and all(fragment.is_independent for fragment in fragments):
        lines.append("#EXT-X-INDEPENDENT-SEGMENTS")
    if playlist.files:
        first = playlist.files[0]
        offset = max(0.0, playlist.begin - first.began - first.fragments[0].begin)
        # A player of a list that grows would begin at its end.
        lines.append(f"#EXT-X-START:TIME-OFFSET={offset:.3f},PRECISE=YES")
    for number, file in enumerate(playlist.files):
        url = url_of(file.file)
        if number:
            lines.append("#EXT-X-DISCONTINUITY")
        lines.append(f'#EXT-X-MAP:URI="{url}",BYTERANGE="{file.header_size}@0"')
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{iso_exact(file.began + file.fragments[0].begin)}")
        for fragment in file.fragments:
            lines += (f"#EXTINF:{fragment.seconds:.6f},", f"#EXT-X-BYTERANGE:{fragment.size}@{fragment.offset}", url)
    if not playlist.is_growing:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join((*lines, ""))
