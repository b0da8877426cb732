"""What proves a recording to somebody who has nothing else of the box: seals, heads, tombstones, and keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, pairwise
from typing import Final

import msgspec
import trio
from msgspec.structs import replace

from edged.credentials.identities import Identity
from edged.credentials.seal_signatures import ALGORITHM, read
from edged.credentials.seals import ArchivedKey, KeyArchive, Tombstone
from edged.library.seal_files import read_seal
from edged.library.sealing import NoKey, Sealing
from edged.store import seals as rows
from edged.store.seals import SealRow
from edged.store.segments import SegmentRow

__all__ = ["EvidencePage", "NoKey", "collect_page", "make_archive"]

#: Tombstones of one page, and seals of segments that are not of the recording and only complete the chain.
_MOST: Final = 300


class EvidencePage(msgspec.Struct, frozen=True):
    """Files with the texts of their seals ("" for one that has none), and signed statements one after another."""

    segments: tuple[tuple[SegmentRow, str], ...]
    statements: bytes


async def collect_page(sealing: Sealing, page: Sequence[SegmentRow], before: SegmentRow | None) -> EvidencePage:
    """What proves these files of one camera; `before` is the last one of the page before.

    The heads are made now, so that they cover these files and no more. Raises NoKey, StoreFailed.
    """
    sealed = await sealing.wait_sealed([row.file for row in page])
    earlier = await sealing.usage.read(partial(rows.find, files=[before.file])) if before is not None else []
    texts = await trio.to_thread.run_sync(_read_texts, sealing, [row.file for row in page])
    statements = b""
    for series, found in groupby(sealed, key=lambda row: row.series):
        numbers = list(found)
        previous = next((row.number for row in earlier if row.series == series), None)
        statements += await _bridge(sealing, numbers, previous)
    return EvidencePage(tuple((row, texts.get(row.file, b"").decode(errors="replace")) for row in page), statements)


async def make_archive(sealing: Sealing) -> bytes:
    """The archive of the public halves of every key that ever signed, by the one that signs now. Raises NoKey,
    StoreFailed."""
    times: dict[str, list[float]] = {}
    for kid, first, last in (
        *await sealing.usage.read(rows.list_key_times),
        *await sealing.trust.read(rows.list_statement_key_times),
    ):
        times.setdefault(kid, []).extend((first, last))
    entries: list[ArchivedKey] = []
    for record in sealing.keys.all():
        if record.algorithm != ALGORITHM or (record.promoted_at is None and record.kid not in times):
            continue
        signed = times.get(record.kid, [])
        begins = [*signed, *([] if record.promoted_at is None else [record.promoted_at])]
        ends = [*signed, *([] if record.retired_at is None else [record.retired_at])]
        distrusted = None
        if sealing.keys.is_distrusted(record):
            identity = str(Identity.of_signing_key(record.kid))
            since = await sealing.trust.read(partial(rows.find_distrust, identity=identity))
            # In force, and not on the disk yet.
            distrusted = sealing.now if since is None else since
        entries.append(
            ArchivedKey(
                record.kid, record.public["x"], record.public["y"], min(begins),
                None if record.state == "current" else max(ends), distrusted,
            )
        )  # fmt: skip
    return await sealing.sign(KeyArchive(sealed=sealing.now, keys=tuple(entries)))


async def _bridge(sealing: Sealing, numbers: Sequence[SealRow], previous: int | None) -> bytes:
    """Heads over these numbers of one series, and whatever there is for those between; `previous` is the number at the
    end of the page before."""
    series, last = numbers[0].series, numbers[-1].number
    low = numbers[0].number if previous is None or previous >= numbers[0].number else previous + 1
    stones = await sealing.trust.read(
        partial(rows.list_statements, series=series, kind="tombstone", first=low, last=last, limit=_MOST)
    )
    texts: list[bytes] = []
    for stone in stones:
        text, statement = stone.text, read(stone.text).statement
        if sealing.keys.is_distrusted(sealing.keys.get(stone.kid)) and isinstance(statement, Tombstone):
            text = await sealing.sign(replace(statement, sealed=sealing.now))
        texts.append(text)
    there = {row.number: row for row in numbers}
    others: list[SealRow] = []
    for first, end in _gaps(low, sorted(there)):
        found = partial(rows.list_numbers, series=series, first=first, last=end, limit=_MOST)
        others += await sealing.usage.read(found)
    read_texts = await trio.to_thread.run_sync(_read_texts, sealing, [row.file for row in others[:_MOST]])
    for row in others[:_MOST]:
        if text := read_texts.get(row.file, b""):
            there[row.number] = row
            texts.append(text)
    for begin, at in _runs(low, sorted(there), [(stone.first, stone.last) for stone in stones]):
        texts.append(await sealing.sign(sealing.make_head(begin, there[at])))
    return b"".join(texts)


def _gaps(low: int, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From `low` on, the numbers that are not among these, up to the last of them."""
    for before, after in pairwise((low - 1, *numbers)):
        if after > before + 1:
            yield before + 1, after - 1


def _runs(low: int, numbers: Sequence[int], stones: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(first, last) of the spans without a number that is neither there nor deleted; each ends with one that is there.

    >>> list(_runs(1, [3, 4, 8, 20], [(1, 2), (5, 7)]))
    [(1, 8), (20, 20)]
    """
    deleted = sorted(stones)
    begin = low
    for before, after in pairwise((low - 1, *numbers)):
        at = before + 1
        for first, last in deleted:
            if first <= at <= last:
                at = last + 1
        if at < after:
            if before >= begin:
                yield begin, before
            begin = after
    yield begin, numbers[-1]


def _read_texts(sealing: Sealing, files: Iterable[str]) -> dict[str, bytes]:
    """File → the text of its seal, where it has one. In a thread."""
    texts: dict[str, bytes] = {}
    for file in files:
        with suppress(OSError):
            if (text := read_seal(sealing.find(file))) is not None:
                texts[file] = text
    return texts
