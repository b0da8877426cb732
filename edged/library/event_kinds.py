"""Kinds of events: words with dots between them, whose first one is the family (contract 3b)."""

from __future__ import annotations

import re
from typing import Final

from edged.errors import InvalidParams
from edged.store.events import LOST

#: What a kind may be: up to four words of a-z, 0-9 and _, 64 characters in all.
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,31}(?:\.[a-z0-9_]{1,32}){0,3}\Z", re.ASCII)
_LONGEST: Final = 64
#: Families of what edged finds out by itself: nobody else reports such a kind.
FAMILIES: Final = ("camera", "recording", "snapshot", "system", "mediamtx")
#: The topic of events that somebody has reported, whatever their kind.
REPORTED: Final = "event.created"
#: Kinds of which sessions are notified with the whole state of the camera or the recording.
_TOLD_WITH_STATE: Final = frozenset(
    {
        "camera.connected", "camera.disconnected", "camera.status_change",
        "recording.start", "recording.progress", "recording.stop", "recording.error",
    }
)  # fmt: skip
#: How many kinds a reader may ask for at a time.
MOST_KINDS: Final = 8


def check_kind(kind: str) -> str:
    """The kind of an event that somebody reports. Raises InvalidParams."""
    hint = f"use up to four words of a-z, 0-9 and _ with dots between them, at most {_LONGEST} characters"
    if len(kind) > _LONGEST or _KIND.match(kind) is None:
        raise InvalidParams("kind is no kind of an event", hint=hint, field="kind")
    if (family := kind.partition(".")[0]) in (*FAMILIES, "event"):
        raise InvalidParams(
            f"kind begins with {family}, which is for what edged finds out by itself", hint="use another word",
            field="kind",
        )  # fmt: skip
    return kind


def read_kinds(text: str) -> tuple[str, ...]:
    """Kinds or families, with commas between them; `.*` behind a family may be left out. Raises InvalidParams."""
    kinds = tuple(dict.fromkeys(word.strip().removesuffix(".*") for word in text.split(",") if word.strip()))
    if not kinds or len(kinds) > MOST_KINDS:
        raise InvalidParams(f"kinds are 1 to {MOST_KINDS} words with commas between them", field="kinds")
    for kind in kinds:
        if len(kind) > _LONGEST or _KIND.match(kind) is None:
            hint = "a kind is as recording.stop, a family as recording"
            raise InvalidParams("kinds has what is no kind of an event", hint=hint, field="kinds")
    return kinds


def topic_of(kind: str) -> str | None:
    """The topic of a notification of this event alone; None where sessions are told otherwise, or not at all."""
    if kind in _TOLD_WITH_STATE or kind == LOST:
        return None
    return kind if kind.partition(".")[0] in FAMILIES else REPORTED
