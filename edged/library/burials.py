"""Which tombstones say that files were deleted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from msgspec.structs import replace

from edged.credentials.seals import Statement, Tombstone, is_reason
from edged.store.seals import SealRow
from edged.store.segments import SegmentRow

_DAY: Final = 86400.0
#: The reason of a tombstone for files that went for more than one.
SEVERAL: Final = "several"
#: Of one whose reason is no plain word: no word may keep a file from being deleted.
OTHER: Final = "other"


def bury_runs(
    sealed: Sequence[SealRow], segments: Mapping[str, SegmentRow], reasons: Mapping[str, str], *, now: float,
    synchronised: bool,
) -> Iterator[Tombstone]:  # fmt: skip
    """One tombstone for each run of numbers that go for one reason. `sealed` by series and number."""
    numbered = enumerate(sealed)
    for _, run in groupby(numbered, lambda item: (item[1].series, reasons[item[1].file], item[1].number - item[0])):
        found = [row for _, row in run]
        first, last = found[0], found[-1]
        reason = reasons[first.file]
        yield Tombstone(
            camera=first.camera, series=first.series, first=first.number, last=last.number, previous=first.previous,
            digest=last.digest, began=segments[first.file].began, ended=segments[last.file].ended,
            reason=reason if is_reason(reason) else OTHER, since=now, deleted=now, synchronised=synchronised,
            sealed=now,
        )  # fmt: skip


def merge_tombstones(before: Statement | None, made: Tombstone, *, is_crowded: bool) -> Tombstone:
    """A new tombstone together with the one right before it, if both are of one reason and day (UTC); where there are
    too many, also if they are not."""
    if not isinstance(before, Tombstone) or before.last != made.first - 1:
        return made
    is_alike = before.reason == made.reason and before.since // _DAY == made.since // _DAY
    if not is_alike and not is_crowded:
        return made
    return replace(
        made, first=before.first, previous=before.previous, began=before.began, since=before.since,
        reason=made.reason if before.reason == made.reason else SEVERAL,
    )  # fmt: skip
