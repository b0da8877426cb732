"""What publishers, picture readers and source checks know of each camera's source; the latest report counts.

A cause is logged when it is new and when it is over, not each time that it is met again. Whoever follows `changes`
asks `find` for the present state: the feed says only of which camera something is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec
import structlog
from msgspec.structs import replace

from edged.feeds import Feed
from edged.mediamtx.causes import Cause
from edged.mediamtx.figures import UNKNOWN_FIGURES, Figures
from edged.mediamtx.sources import CameraSource, picture_of

#: Who says it: the camera's publisher, a reader of pictures, a check of the source.
Witness: TypeAlias = Literal["publisher", "reader", "check"]
_log = structlog.get_logger("sources")


class Condition(msgspec.Struct, frozen=True):
    """A source as it is known: `works` is None until it was tried; `cause` says why it does not.

    `figures` are those of the stream where it tells them; `restarts` counts the publisher's failures since the start.
    """

    works: bool | None = None
    cause: Cause | None = None
    figures: Figures = UNKNOWN_FIGURES
    restarts: int = 0


UNSEEN: Final = Condition()


class Conditions:
    """The condition of every source, by camera."""

    def __init__(self) -> None:
        self.changes: Feed[str] = Feed()
        self._known: dict[str, Condition] = {}
        self._pictures: dict[str, tuple[object, ...]] = {}

    def find(self, camera: str) -> Condition:
        """What is known of a camera's source."""
        return self._known.get(camera, UNSEEN)

    def all(self) -> Mapping[str, Condition]:
        """Every source of which something is known."""
        return self._known

    def set_sources(self, sources: Iterable[CameraSource]) -> None:
        """These are there; of one that went, or is another now, nothing is known."""
        pictures = {source.name: picture_of(source) for source in sources}
        for name in [name for name in self._known if self._pictures.get(name) != pictures.get(name)]:
            old = self._known.pop(name)
            if name in pictures:
                self._known[name] = Condition(restarts=old.restarts)
        self._pictures = pictures

    def works(self, camera: str, witness: Witness, figures: Figures = UNKNOWN_FIGURES) -> None:
        """Something came from it: packets (publisher, check) or a picture (reader)."""
        known = self.find(camera)
        cause = known.cause
        if cause is not None and not _is_over(cause, witness):
            return
        if cause is not None:
            _log.info("picture_again", camera=camera, cause=cause.slug)
        self._set(camera, replace(known, works=True, cause=None, figures=known.figures.updated(figures)))

    def fails(self, camera: str, cause: Cause) -> None:
        """It gives no picture."""
        known = self.find(camera)
        if known.cause is None or known.cause.slug != cause.slug:
            _log.warning(
                "no_picture", camera=camera, cause=cause.slug, why=cause.sentence, remedy=cause.remedy,
                exact=cause.exact or None,
            )  # fmt: skip
            self._set(camera, replace(known, works=False, cause=cause))

    def forgive(self, camera: str, cause: Cause) -> None:
        """Whatever had that cause may be over; nothing is known until it is tried."""
        known = self.find(camera)
        if known.cause is not None and known.cause.slug == cause.slug:
            self._set(camera, replace(known, works=None, cause=None))

    def restarted(self, camera: str) -> None:
        """Its publisher failed and is started again."""
        known = self.find(camera)
        self._known[camera] = replace(known, restarts=known.restarts + 1)

    def _set(self, camera: str, condition: Condition) -> None:
        if self._known.get(camera) != condition:
            self._known[camera] = condition
            self.changes.publish(camera)


def _is_over(cause: Cause, witness: Witness) -> bool:
    """Whether a witness that something came shows that a cause is over."""
    if cause.is_ours:
        # The source was good all the time.
        return witness == "publisher"
    return witness == "reader" or not cause.needs_picture
