"""Segments as MediaMTX writes them, made of nothing: boxes with samples of four bytes."""

from __future__ import annotations

import struct
from typing import Final

#: Ticks a second of the made tracks.
HEADER_TICKS: Final = 90_000


def box(kind: bytes, *inner: bytes) -> bytes:
    data = b"".join(inner)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def make_segment(
    *,
    parts: int = 2,
    samples: int = 5,
    ticks: int = 6000,
    key_every: int = 10,
    begin: int = 0,
    declared: int = 1000,
    stream: bytes = b"0123456789abcdef",
    number: int = 0,
    at_ns: int = 1_796_000_000_000_000_000,
    codec: bytes = b"avc1",
) -> bytes:
    """`ftyp moov (moof mdat)*`, one video track: `samples` of `ticks` in each part, a key frame each `key_every`."""
    mvhd = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, declared) + bytes(80))
    tkhd = box(b"tkhd", struct.pack(">IIIII", 3, 0, 0, 1, 0) + bytes(64))
    mdhd = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, HEADER_TICKS, 0, 0))
    hdlr = box(b"hdlr", struct.pack(">II4s", 0, 0, b"vide") + bytes(13))
    stsd = box(b"stsd", struct.pack(">II", 0, 1), box(codec, bytes(20)))
    minf = box(b"minf", box(b"stbl", stsd, box(b"stts", bytes(8))))
    trex = box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 0, 0, 0))
    mtxi = box(b"mtxi", struct.pack(">I", 0), stream, struct.pack(">Qqq", number, 0, at_ns))
    moov = box(
        b"moov", mvhd, box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, minf)), box(b"mvex", trex), box(b"udta", mtxi)
    )
    data = box(b"ftyp", b"mp42", bytes(4)) + moov
    for part in range(parts):
        first = part * samples
        listed = b"".join(
            struct.pack(">III", ticks, 4, 0 if (first + each) % key_every == 0 else 0x10000) for each in range(samples)
        )
        trun = box(b"trun", struct.pack(">III", 0x701, samples, 0), listed)
        tfdt = box(b"tfdt", struct.pack(">IQ", 1 << 24, begin + first * ticks))
        traf = box(b"traf", box(b"tfhd", struct.pack(">II", 0x20000, 1)), tfdt, trun)
        data += box(b"moof", box(b"mfhd", struct.pack(">II", 0, part)), traf) + box(b"mdat", bytes(4 * samples))
    return data
