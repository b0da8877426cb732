"""Which recorded files go, and why; pure.

The oldest go first, and no more than necessary. What is protected never goes, whatever that costs; nothing goes for its
age while the clock is not trusted. A file that is being written is in no index, and so in no plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from edged.store.segments import FIRST, Place, SegmentRow

#: Why a file goes: older than allowed, more of a camera or in all than allowed, or the disk is nearly full.
Reason: TypeAlias = Literal["age", "camera_size", "size", "disk_full"]
DAY_SECONDS: Final = 86400.0
#: Bytes of the gigabyte that disks are sold by.
GIGABYTE: Final = 1_000_000_000
#: The files of a camera behind a place, oldest first, some at a time.
Page: TypeAlias = Callable[[Place], Sequence[SegmentRow]]


class CameraPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What may stay of one camera, in place of the general age and beside the size in all: seconds and bytes, None for
    no limit."""

    max_age: float | None = None
    max_bytes: int | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may stay. `max_age` seconds and `max_bytes` of all cameras, None for no limit; `cameras` with limits of
    their own; `keep_free_bytes` of the file system stay free."""

    max_age: float | None = None
    max_bytes: int | None = None
    cameras: Mapping[str, CameraPolicy] = msgspec.field(default_factory=dict)
    keep_free_bytes: int = 0

    def age_of(self, camera: str) -> float | None:
        """The limit of age of a camera, seconds."""
        own = self.cameras.get(camera)
        return self.max_age if own is None else own.max_age

    def bytes_of(self, camera: str) -> int | None:
        """The limit of size of a camera."""
        own = self.cameras.get(camera)
        return None if own is None else own.max_bytes

    @property
    def has_ages(self) -> bool:
        """Whether anything goes for its age."""
        return self.max_age is not None or any(own.max_age is not None for own in self.cameras.values())

    def is_exceeded(self, sums: Mapping[str, int], free_bytes: int) -> bool:
        """Whether a limit of size or space is; `sums` the bytes of each camera."""
        over = self.max_bytes is not None and sum(sums.values()) > self.max_bytes
        camera_over = any(
            (limit := self.bytes_of(camera)) is not None and size > limit for camera, size in sums.items()
        )
        return over or camera_over or free_bytes < self.keep_free_bytes


class Removal(msgspec.Struct, frozen=True):
    """A file that is to go."""

    row: SegmentRow
    reason: Reason


def list_unprotected(page: Page, spans: Sequence[tuple[float, float]]) -> Iterator[SegmentRow]:
    """The files of a camera, oldest first, that share no time with `spans` (library.spans), when protected recordings
    begin and end; a long one is passed over at once."""
    begins = [begin for begin, _ in spans]
    after = FIRST
    while rows := page(after):
        after = (rows[-1].began, rows[-1].file)
        for row in rows:
            at = bisect_left(begins, row.ended) - 1
            if at < 0 or spans[at][1] <= row.began:
                yield row
            elif spans[at][0] <= row.began and spans[at][1] > rows[-1].began:
                # Whatever begins before its end is protected, too.
                after = (spans[at][1], "")
                break


def plan(
    files: Mapping[str, Iterator[SegmentRow]], sums: Mapping[str, int], policy: Policy, *, free_bytes: int,
    now: float | None, most: int,
) -> list[Removal]:  # fmt: skip
    """At most `most` removals, oldest first.

    `files` of each camera may go, oldest first, and are read as far as necessary; `sums` the bytes of each camera, all
    of its files together; `now` Unix seconds, None while the clock is not trusted.
    """
    plans = _Plan(files, sums, policy, free_bytes)
    # What goes anyhow makes space, before anything goes for space alone.
    for camera in plans.heads:
        while len(plans.removals) < most and (reason := plans.judge_camera(camera, now)) is not None:
            plans.remove(camera, reason)
    while len(plans.removals) < most and plans.left and (reason := plans.judge_all()) is not None:
        plans.remove(min(plans.left, key=lambda camera: plans.place_of(camera)), reason)
    return sorted(plans.removals, key=lambda removal: (removal.row.began, removal.row.file))


class _Plan:
    """What is left while a plan is made; `heads` is the oldest file of each camera that may go, None for no more."""

    def __init__(
        self, files: Mapping[str, Iterator[SegmentRow]], sums: Mapping[str, int], policy: Policy, free_bytes: int
    ) -> None:
        self._files, self._sums, self._policy, self._free = dict(files), dict(sums), policy, free_bytes
        self._total = sum(sums.values())
        self.heads = {camera: next(rows, None) for camera, rows in files.items()}
        self.removals: list[Removal] = []

    @property
    def left(self) -> list[str]:
        """The cameras of which something may go."""
        return [camera for camera, head in self.heads.items() if head is not None]

    def place_of(self, camera: str) -> tuple[float, str]:
        """Where its oldest file stands among those of others."""
        head = self.heads[camera]
        assert head is not None
        return head.began, head.file

    def judge_camera(self, camera: str, now: float | None) -> Reason | None:
        """Why its oldest file goes whatever the others have."""
        head, age, size = self.heads[camera], self._policy.age_of(camera), self._policy.bytes_of(camera)
        if head is None:
            return None
        if now is not None and age is not None and now - head.ended > age:
            return "age"
        return "camera_size" if size is not None and self._sums.get(camera, 0) > size else None

    def judge_all(self) -> Reason | None:
        """Why the oldest file of all goes."""
        if self._policy.max_bytes is not None and self._total > self._policy.max_bytes:
            return "size"
        return "disk_full" if self._free < self._policy.keep_free_bytes else None

    def remove(self, camera: str, reason: Reason) -> None:
        """Its oldest file goes."""
        head = self.heads[camera]
        assert head is not None
        self.removals.append(Removal(head, reason))
        self._sums[camera] = self._sums.get(camera, 0) - head.size
        self._total -= head.size
        self._free += head.size
        self.heads[camera] = next(self._files[camera], None)
