"""Fragmented MP4 as MediaMTX records it (ISO/IEC 14496-12): what a segment holds, read without decoding anything.

A segment is `ftyp moov (moof mdat)*`; each pair is a *part* of about one second. MediaMTX writes the duration into
`mvhd` when it closes the file, so a segment that a crash has cut says 0 there: the duration always comes from the
samples. A last pair that is not whole is left out. In `moov/udta/mtxi` MediaMTX says which recording process wrote the
segment (`stream`), the segment's number in it, and the wall clock of its first sample.

Only headers are read; a file from anywhere costs at most `MOST_BOXES` reads of at most `LONGEST_HEADER` bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, Final

import msgspec

#: Boxes at the top of a file, and bytes of a `moov` or `moof`.
MOST_BOXES: Final = 200_000
LONGEST_HEADER: Final = 4 * 1024 * 1024
_MOST_SAMPLES: Final = 100_000
_MOST_TRACKS: Final = 16
#: Sample flag: the sample can be decoded only together with others (14496-12, 8.8.3.1).
_NOT_SYNC: Final = 0x10000


class NotASegment(ValueError):
    """The file is no fragmented MP4, or is damaged before its first whole part; the sentence says where."""


class Track(msgspec.Struct, frozen=True):
    """`number` in the file; `kind` is the handler (`vide`, `soun`); `timescale` ticks a second; `default_*` of trex."""

    number: int
    kind: str
    timescale: int
    default_duration: int = 0
    default_flags: int = 0


class Origin(msgspec.Struct, frozen=True):
    """Which run of MediaMTX's recorder wrote the segment, which number it has there, and the time of its first sample:
    Unix nanoseconds by the wall clock of then."""

    stream: bytes
    number: int
    at_ns: int


class Part(msgspec.Struct, frozen=True):
    """One `moof` and its `mdat`: offset and size in bytes, begin and end in seconds from the segment's begin, and the
    seconds at which key frames of the video begin."""

    offset: int
    size: int
    begin: Fraction
    end: Fraction
    keys: tuple[Fraction, ...]


class Segment(msgspec.Struct, frozen=True):
    """The first `header_size` bytes are `ftyp` and `moov`; `size` ends with the last whole part; `is_whole` is False
    where something follows that is no whole part; `is_closed` says that its writer has closed it (mvhd); `codecs` are
    the kinds of its tracks and their codecs, as `avc1mp4a`, with no word on sizes and profiles."""

    header_size: int
    size: int
    tracks: tuple[Track, ...]
    parts: tuple[Part, ...]
    origin: Origin | None
    is_whole: bool
    is_closed: bool
    codecs: bytes = b""

    @property
    def duration(self) -> Fraction:
        """Seconds from the first to the end of the last sample of the longest track."""
        return max((part.end for part in self.parts), default=Fraction(0))


def read_segment(file: BinaryIO) -> Segment:
    """Read the headers of a segment from the beginning of a seekable file. Raises NotASegment, OSError."""
    boxes = top_boxes(file)
    tracks: tuple[Track, ...] = ()
    origin, parts = None, list[Part]()
    header_size = end = 0
    codecs = b""
    moof: tuple[int, int] | None = None
    is_whole, is_closed = True, False
    for kind, offset, size, is_complete in boxes:
        if not is_complete:
            is_whole = False
            break
        if kind == b"moov":
            moov = _read(file, offset, size)
            tracks, origin, is_closed = _read_moov(moov)
            codecs = b"".join(bytes(stsd[12:16]) for stsd in _list_stsd(moov))
            header_size = end = offset + size
        elif kind == b"moof":
            if not tracks:
                raise NotASegment("a part stands before the header (moov)")
            moof = (offset, size)
        elif kind == b"mdat" and moof is not None:
            whole = offset + size - moof[0]
            begin, last, keys = _read_moof(_read(file, *moof), tracks)
            parts.append(Part(moof[0], whole, begin, last, keys))
            moof, end = None, offset + size
    if not tracks:
        raise NotASegment("the file has no header (moov) with a track")
    return Segment(header_size, end, tracks, tuple(parts), origin, is_whole and moof is None, is_closed, codecs)


def top_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int, bool]]:
    """(type, offset, size, whether all of it is there) of each box of the file. Raises NotASegment."""
    file.seek(0, 2)
    length, offset = file.tell(), 0
    for _ in range(MOST_BOXES):
        if offset == length:
            return
        file.seek(offset)
        head = file.read(16)
        if len(head) < 8:
            yield b"", offset, length - offset, False
            return
        size, kind = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        elif size == 0:
            size = length - offset
        if offset == 0 and kind != b"ftyp":
            raise NotASegment("the file does not begin with ftyp")
        if size < 8:
            yield kind, offset, length - offset, False
            return
        yield kind, offset, size, offset + size <= length
        if offset + size > length:
            return
        offset += size
    raise NotASegment(f"the file has more than {MOST_BOXES} boxes")


def _read(file: BinaryIO, offset: int, size: int) -> memoryview:
    """The content of a box, without its head. Raises NotASegment."""
    if size > LONGEST_HEADER:
        raise NotASegment(f"a header at byte {offset} is longer than {LONGEST_HEADER} bytes")
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise NotASegment(f"a header at byte {offset} is cut off")
    return memoryview(data)[8:]


def _inner(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes in a box. Raises NotASegment."""
    offset = 0
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        if size < 8 or offset + size > len(data):
            raise NotASegment(f"a box {kind!r} is longer than the box around it")
        yield kind, data[offset + 8 : offset + size]
        offset += size


def _find(data: memoryview, *path: bytes) -> memoryview | None:
    for name in path:
        found = next((inner for kind, inner in _inner(data) if kind == name), None)
        if found is None:
            return None
        data = found
    return data


def _unpack(form: str, data: memoryview, offset: int = 0) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, offset)
    except struct.error:
        raise NotASegment("a header is shorter than its kind must be") from None


def _read_moov(moov: memoryview) -> tuple[tuple[Track, ...], Origin | None, bool]:
    defaults: dict[int, tuple[int, int]] = {}
    tracks: list[Track] = []
    origin, is_closed = None, False
    for kind, inner in _inner(moov):
        if kind == b"trak":
            tracks.append(_read_trak(inner))
        elif kind == b"mvhd" and len(inner):
            (duration,) = _unpack(">Q", inner, 24) if inner[0] == 1 else _unpack(">I", inner, 16)
            is_closed = duration != 0
        elif kind == b"mvex":
            for name, trex in _inner(inner):
                if name == b"trex":
                    _, number, _, duration, _, flags = _unpack(">IIIIII", trex)
                    defaults[number] = (duration, flags)
        elif kind == b"udta" and (mtxi := _find(inner, b"mtxi")) is not None and len(mtxi) >= 44:
            number, _, at_ns = _unpack(">Qqq", mtxi, 20)
            origin = Origin(bytes(mtxi[4:20]), number, at_ns)
    if not 0 < len(tracks) <= _MOST_TRACKS or len({track.number for track in tracks}) != len(tracks):
        raise NotASegment("the header lists no tracks, too many, or one of them twice")
    listed = tuple(
        Track(track.number, track.kind, track.timescale, *defaults.get(track.number, (0, 0))) for track in tracks
    )
    return listed, origin, is_closed


def _read_trak(trak: memoryview) -> Track:
    tkhd, mdhd, hdlr = _find(trak, b"tkhd"), _find(trak, b"mdia", b"mdhd"), _find(trak, b"mdia", b"hdlr")
    if tkhd is None or mdhd is None or hdlr is None or not len(tkhd) or not len(mdhd) or len(hdlr) < 12:
        raise NotASegment("a track of the header is not whole")
    (number,) = _unpack(">I", tkhd, 20 if tkhd[0] == 1 else 12)
    (timescale,) = _unpack(">I", mdhd, 20 if mdhd[0] == 1 else 12)
    if not timescale:
        raise NotASegment("a track has no timescale")
    return Track(number, bytes(hdlr[8:12]).decode("latin-1"), timescale)


def read_pictures(file: BinaryIO, part: Part, tracks: tuple[Track, ...]) -> tuple[Fraction, ...]:
    """When each picture of a part begins, seconds from the segment's begin. Raises NotASegment, OSError."""
    file.seek(part.offset)
    (size,) = _unpack(">I", memoryview(file.read(4)))
    return _read_moof(_read(file, part.offset, size), tracks, every=True)[2]


def count_samples(file: BinaryIO, part: Part) -> int:
    """How many samples a part has, of all tracks. Raises NotASegment, OSError."""
    file.seek(part.offset)
    (size,) = _unpack(">I", memoryview(file.read(4)))
    return sum(
        _unpack(">I", trun, 4)[0]
        for kind, traf in _inner(_read(file, part.offset, size))
        if kind == b"traf"
        for name, trun in _inner(traf)
        if name == b"trun"
    )


def _read_moof(
    moof: memoryview, tracks: tuple[Track, ...], *, every: bool = False
) -> tuple[Fraction, Fraction, tuple[Fraction, ...]]:
    """(begin, end, begins of key frames, or of every picture), seconds."""
    known = {track.number: track for track in tracks}
    begins, ends, keys = list[Fraction](), list[Fraction](), list[Fraction]()
    for kind, traf in _inner(moof):
        if kind != b"traf":
            continue
        tfhd = _find(traf, b"tfhd")
        track = known.get(_unpack(">I", tfhd, 4)[0]) if tfhd is not None else None
        if tfhd is None or track is None:
            raise NotASegment("a part is of a track that the header does not list")
        begin, end, synced = _read_traf(traf, tfhd, track, every=every)
        begins.append(begin)
        ends.append(end)
        if track.kind == "vide":
            keys += synced
    if not begins:
        raise NotASegment("a part holds no track")
    return min(begins), max(ends), tuple(keys)


def _read_traf(
    traf: memoryview, tfhd: memoryview, track: Track, *, every: bool
) -> tuple[Fraction, Fraction, list[Fraction]]:
    """(begin, end, begins of samples that can be decoded alone, or of every one), seconds."""
    duration, sample_flags = track.default_duration, track.default_flags
    (flags,) = _unpack(">I", tfhd)
    offset = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
    if flags & 0x8:
        (duration,) = _unpack(">I", tfhd, offset)
        offset += 4
    offset += 4 if flags & 0x10 else 0
    if flags & 0x20:
        (sample_flags,) = _unpack(">I", tfhd, offset)
    tfdt = _find(traf, b"tfdt")
    if tfdt is None or not len(tfdt):
        raise NotASegment("a part does not say when it begins (tfdt)")
    (ticks,) = _unpack(">Q" if tfdt[0] == 1 else ">I", tfdt, 4)
    begin, keys = Fraction(ticks, track.timescale), list[Fraction]()
    for kind, trun in _inner(traf):
        if kind == b"trun":
            for length, is_sync in _read_trun(trun, duration, sample_flags):
                if is_sync or every:
                    keys.append(Fraction(ticks, track.timescale))
                ticks += length
    return begin, Fraction(ticks, track.timescale), keys


def _read_trun(trun: memoryview, duration: int, sample_flags: int) -> Iterator[tuple[int, bool]]:
    """(ticks, whether it can be decoded alone) of each sample."""
    flags, count = _unpack(">II", trun)
    flags &= 0xFFFFFF
    if count > _MOST_SAMPLES:
        raise NotASegment(f"a part has more than {_MOST_SAMPLES} samples")
    offset = 8 + (4 if flags & 0x1 else 0)
    first = None
    if flags & 0x4:
        (first,) = _unpack(">I", trun, offset)
        offset += 4
    fields = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
    if offset + 4 * len(fields) * count > len(trun):
        raise NotASegment("a part lists more samples than it holds")
    for number in range(count):
        values = dict(zip(fields, _unpack(f">{len(fields)}I", trun, offset), strict=True))
        offset += 4 * len(fields)
        own = first if first is not None and number == 0 else sample_flags
        yield values.get(0x100, duration), not values.get(0x400, own) & _NOT_SYNC


def read_codecs(header: bytes) -> bytes:
    """What the tracks of a header are encoded with (`stsd`, with its parameter sets): equal where two segments can be
    one file. Raises NotASegment."""
    moovs = (moov for kind, moov in _inner(memoryview(header)) if kind == b"moov")
    return b"".join(bytes(stsd) for moov in moovs for stsd in _list_stsd(moov))


def _list_stsd(moov: memoryview) -> Iterator[memoryview]:
    """What each track is encoded with. Raises NotASegment."""
    for name, trak in _inner(moov):
        if name == b"trak" and (stsd := _find(trak, b"mdia", b"minf", b"stbl", b"stsd")) is not None:
            yield stsd


def shift_part(part: bytes, tracks: tuple[Track, ...], by: Fraction, number: int) -> bytes:
    """A part with its times moved by so many seconds and another sequence number, for a file of several segments.

    Raises NotASegment for a part that does not say its times in 64 bits, which MediaMTX's always do.
    """
    known = {track.number: track for track in tracks}
    (size,) = struct.unpack_from(">I", part)
    changed = bytearray(part)
    inside = memoryview(changed)[8:size]
    for kind, box in _inner(inside):
        if kind == b"mfhd":
            struct.pack_into(">I", box, 4, number)
        elif kind == b"traf":
            tfhd, tfdt = _find(box, b"tfhd"), _find(box, b"tfdt")
            track = known.get(_unpack(">I", tfhd, 4)[0]) if tfhd is not None else None
            if track is None or tfdt is None or len(tfdt) < 12 or tfdt[0] != 1:
                raise NotASegment("a part has no 64-bit time (tfdt), or a track that the header does not list")
            (ticks,) = _unpack(">Q", tfdt, 4)
            struct.pack_into(">Q", tfdt, 4, max(0, ticks + round(by * track.timescale)))
    return bytes(changed)
