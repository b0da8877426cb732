"""Daily schedules: windows of local time, as `08:00-18:00`; what a wall clock on the box would show."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

#: Begin and end, minutes from midnight; one that ends before it begins goes over midnight.
Window: TypeAlias = tuple[int, int]

_WINDOW: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)\Z", re.ASCII)
_DAY: Final = 24 * 60
MOST_WINDOWS: Final = 8


def read_windows(texts: Collection[str]) -> tuple[Window, ...]:
    """The windows of a schedule. Raises ValueError that says which text is none."""
    if len(texts) > MOST_WINDOWS:
        raise ValueError(f"schedule has more than {MOST_WINDOWS} windows")
    found = []
    for text in texts:
        match = _WINDOW.match(text)
        if match is None:
            raise ValueError(f"schedule has {text[:20]!r}: a window is HH:MM-HH:MM, as 08:00-18:00 or 22:00-06:00")
        begin = int(match[1]) * 60 + int(match[2])
        end = _DAY if match[3] is None else int(match[3]) * 60 + int(match[4])
        if begin == end or (begin, end) == (0, _DAY):
            raise ValueError(f'schedule has {text}: for the whole day set record = "always"')
        found.append((begin, end))
    return tuple(found)


def is_inside(windows: Iterable[Window], minute: int) -> bool:
    """Whether a minute of the day lies in one of these."""
    return any(
        begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in windows
    )  # fmt: skip
