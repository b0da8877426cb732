"""Which recorded files go, and why; pure.

The oldest go first. A file that is protected or still being written never goes, whatever that costs; nothing goes for
its age while the clock is not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

#: Why a file goes: older than allowed, more of a camera or in all than allowed, or the disk is nearly full.
Reason: TypeAlias = Literal["age", "camera_size", "size", "disk_full"]
DAY_SECONDS = 86400.0
#: Bytes of the gigabyte that disks are sold by.
GIGABYTE = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may stay. `max_age` seconds and `max_bytes` of all cameras, `camera_bytes` by camera, None for no limit;
    `keep_free_bytes` of the file system stay free."""

    max_age: float | None = None
    max_bytes: int | None = None
    camera_bytes: Mapping[str, int] = field(default_factory=dict)
    keep_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A closed segment; `ended` Unix seconds, `size` bytes."""

    file: str
    camera: str
    ended: float
    size: int
    is_protected: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that is to go."""

    file: str
    reason: Reason


def plan(
    files: Iterable[KeptFile], sums: Mapping[str, int], policy: Policy, *, free_bytes: int, now: float | None
) -> list[Removal]:
    """The removals, oldest first.

    `files` are the oldest files, oldest first, not necessarily all of them; `sums` the bytes of each camera, all of its
    files together; `now` Unix seconds, None while the clock is not trusted.
    """
    left = dict(sums)
    total, free = sum(left.values()), free_bytes
    removals: list[Removal] = []
    for kept in files:
        reason = _judge(kept, left, total, free, policy, now)
        if kept.is_protected or reason is None:
            continue
        removals.append(Removal(kept.file, reason))
        left[kept.camera] = left.get(kept.camera, 0) - kept.size
        total -= kept.size
        free += kept.size
    return removals


def _judge(
    kept: KeptFile, left: Mapping[str, int], total: int, free: int, policy: Policy, now: float | None
) -> Reason | None:
    if now is not None and policy.max_age is not None and now - kept.ended > policy.max_age:
        return "age"
    limit = policy.camera_bytes.get(kept.camera)
    if limit is not None and left.get(kept.camera, 0) > limit:
        return "camera_size"
    if policy.max_bytes is not None and total > policy.max_bytes:
        return "size"
    return "disk_full" if free < policy.keep_free_bytes else None
