"""One family of errors: a slug, a sentence and fields; no knowledge of any transport.

An endpoint translates an error into its own code by one table keyed by `slug` and never reads the
sentence. The sentence says what happened and to which thing, `hint` what to do next. Neither
may hold a secret.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

import msgspec

#: What msgspec raises for bytes that are no JSON of the wanted type. For bytes that are no UTF-8 older versions
#: (0.19, Debian 13's) raise UnicodeDecodeError, which is no MsgspecError.
NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
#: Where the files of a box lie that say something of how it is set up. Settings and programs are everybody's alike.
_PRIVATE_PATH = re.compile(r"(?<![\w/.])/(?:var|run|tmp|srv|home|root|media|mnt|opt)/[^\s\"'<>|;,:()]*")


def without_paths(text: str) -> str:
    """A sentence for somebody who is not on the box: no name of a file in a folder of its own."""
    return _PRIVATE_PATH.sub("a file of the box", text)


class EdgedError(Exception):
    """Something that a caller can be told.

    `fields` are JSON values that describe the thing concerned, for example `camera="camera0"`.
    """

    slug: ClassVar[str] = "internal"

    def __init__(self, sentence: str, *, hint: str = "", **fields: object) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.sentence}: {self.hint}" if self.hint else self.sentence


class InvalidParams(EdgedError):
    """A member of the params is missing, of the wrong type or out of range."""

    slug = "invalid_params"


class UnknownMethod(EdgedError):
    """No operation has this name."""

    slug = "unknown_method"


class Refused(EdgedError):
    """The gate said no; `reason` is the exact one (credentials.decision.Reason), for log and metric.

    What a caller is told is coarser (contract 10.20) and is the endpoint's business.
    """

    slug = "refused"

    def __init__(self, reason: str, sentence: str = "", *, hint: str = "", **fields: object) -> None:
        super().__init__(sentence or f"refused: {reason}", hint=hint, **fields)
        self.reason = reason


class Denied(Refused):
    """The gate said no, or an operation did, and the sentence is for the caller: it says which right is missing and
    nothing of the credential that the caller does not know."""


class NotFound(EdgedError):
    """The thing named does not exist, or the caller may not know that it does."""

    slug = "not_found"


class CameraNotFound(NotFound):
    """No camera of this name is known to this caller."""

    slug = "camera_not_found"

    def __init__(self, device: str) -> None:
        super().__init__(f"no camera {device!r}", hint="get_camera_list names them", resource="camera", id=device)


class InvalidState(EdgedError):
    """The thing exists but is not in a state in which this can be done."""

    slug = "invalid_state"


class StorageFull(EdgedError):
    """The disk has no space for it."""

    slug = "storage"


class RateLimited(EdgedError):
    """Too many at once or in a row; `retry_after_ms` says when to come back."""

    slug = "rate_limited"

    def __init__(self, sentence: str, *, retry_after_ms: int) -> None:
        super().__init__(sentence, hint="try again later", retry_after_ms=retry_after_ms)
        self.retry_after_ms = retry_after_ms


class DependencyFailed(EdgedError):
    """MediaMTX, ffmpeg or a camera did not do its part."""

    slug = "dependency_failed"


class OutOfDescriptors(DependencyFailed):
    """This process, or the machine, has no descriptor left: says nothing about the dependency."""


class Unsupported(EdgedError):
    """This box, or this build, cannot do it."""

    slug = "unsupported"


class NotBuilt(Unsupported):
    """This version cannot do it; a later one will."""

    slug = "not_built"


class StoreFailed(EdgedError):
    """A commit failed. The field `in_force` says what is so all the same: True for a denial, which is in force and lost
    by a restart unless it is saved before (architecture 5); False where nothing was done."""

    slug = "store_error"


class Overloaded(EdgedError):
    """A bounded queue is full; nothing was done, unless `in_force` is True: see StoreFailed."""

    slug = "overloaded"


class ConfigError(EdgedError):
    """A setting is wrong: the sentence names file and key, the hint the remedy."""

    slug = "config"


class StartFailed(EdgedError):
    """The daemon cannot start: a port is taken, a database is newer than this program, ..."""

    slug = "start"
