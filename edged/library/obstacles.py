"""Why nothing is recorded, although somebody wants it: a full disk, one that takes nothing, or a medium that is not
there."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from edged.errors import EdgedError, StorageFull, StoreFailed
from edged.library.medium import MARKER


class Obstacle(msgspec.Struct, frozen=True):
    """The medium is `absent`, or its disk is `full`, or `unwritable`; a sentence and the remedy."""

    kind: Literal["absent", "full", "unwritable"]
    message: str
    remedy: str

    @property
    def error(self) -> EdgedError:
        """What somebody is told whose call it hinders."""
        return (StorageFull if self.kind == "full" else StoreFailed)(self.message, hint=self.remedy)


ABSENT: Final = Obstacle(
    "absent", "the medium for recordings is not there: nothing is recorded",
    "plug it in and mount it: recording goes on by itself then. A new one needs its marker once: touch"
    f" recording.folder/{MARKER}",
)  # fmt: skip
UNWRITABLE: Final = Obstacle(
    "unwritable", "the folder for recordings cannot be written to: nothing is recorded",
    "make recording.folder writable for edged; where it is mounted read-only, look for disk errors: journalctl -k",
)  # fmt: skip
FULL: Final = Obstacle(
    "full", "the disk for recordings is full: nothing is recorded", "delete recordings, or add space"
)
STOPPED: Final = Obstacle(
    "full", "the disk for recordings is full: nothing is recorded, and recording.on_full deletes nothing",
    "delete recordings, add space, or set recording.on_full to oldest",
)  # fmt: skip
ONLY_PROTECTED: Final = Obstacle(
    "full", "the disk for recordings is full, and only protected recordings are left: nothing is recorded",
    "end the protection of some (edged recording unprotect), or add space",
)  # fmt: skip
