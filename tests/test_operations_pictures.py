"""operations/pictures.py: what is told of a camera without a picture, and to whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from operations_helpers import GATE, Bench
from web_helpers import JPEG, Frames

from edged.cameras.model import Status
from edged.errors import DependencyFailed
from edged.mediamtx.causes import PASSWORD, NoPicture
from edged.mediamtx.frames import LINGER_SECONDS
from edged.operations.pictures import (
    NO_PICTURE,
    check_attached,
    describe_problem,
    explained_to,
    may_know_causes,
    take_jpeg,
    watch_pictures,
)

AWAY = replace(GATE, status=Status.DISCONNECTED, problem="192.0.2.1 does not answer")


def test_only_an_administrator_is_told_the_cause() -> None:
    """It can reveal addresses of the cameras' network."""
    bench = Bench()
    told = {role: may_know_causes(bench.caller(role)) for role in ("monitor", "viewer", "operator", "admin")}
    assert told == {"monitor": False, "viewer": False, "operator": False, "admin": True}
    assert not may_know_causes(None)
    assert describe_problem(AWAY, bench.caller("admin")) == AWAY.problem
    assert describe_problem(AWAY, bench.caller("operator")) == describe_problem(AWAY, None) == NO_PICTURE
    assert describe_problem(GATE, bench.caller("admin")) == describe_problem(GATE, None) == ""


@pytest.mark.parametrize(("role", "hint"), [("admin", AWAY.problem), ("operator", NO_PICTURE)])
def test_a_camera_that_is_away_is_named_with_its_status(role: str, hint: str) -> None:
    caller = Bench().caller(role)
    with pytest.raises(DependencyFailed) as caught:
        check_attached(AWAY, caller)
    assert (caught.value.sentence, caught.value.hint) == ("camera0 is disconnected", hint)
    assert caught.value.fields == {"camera": "camera0"}


def test_a_camera_that_was_unplugged_is_to_be_plugged_in() -> None:
    with pytest.raises(DependencyFailed, match="plug it in, then try again"):
        check_attached(replace(GATE, status=Status.DISCONNECTED), None)


def test_a_camera_whose_source_gave_nothing_last_is_tried_again() -> None:
    """What it has a cause for may be over. Nothing is raised."""
    check_attached(replace(AWAY, status=Status.ERROR, cause="password"), None)
    check_attached(GATE, None)


@pytest.mark.parametrize("role", ["admin", "operator", ""])
def test_a_missing_picture_is_raised_with_its_cause_for_administrators_only(role: str) -> None:
    caller = Bench().caller(role) if role else None
    with pytest.raises(DependencyFailed) as caught, explained_to(caller):
        raise NoPicture("camera0", PASSWORD)
    assert (PASSWORD.sentence in str(caught.value)) == (PASSWORD.remedy in str(caught.value)) == (role == "admin")
    # Nor does the traceback tell it.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_other_errors_go_through_as_they_are() -> None:
    with pytest.raises(DependencyFailed, match="no descriptor"), explained_to(None):
        raise DependencyFailed("no descriptor")


async def test_a_picture_is_taken_at_its_quality_and_the_source_stays_open_for_the_next() -> None:
    asked: list[tuple[Any, ...]] = []

    async def snapshot(camera: Any, *, quality: int | None, linger: float) -> bytes:
        asked.append((camera, quality, linger))
        return JPEG

    bench = Bench(frames=SimpleNamespace(snapshot=snapshot))
    assert await take_jpeg(bench.services, GATE, 70) == JPEG
    assert await take_jpeg(bench.services, GATE, None) == JPEG
    assert asked == [(GATE, 70, LINGER_SECONDS), (GATE, None, LINGER_SECONDS)]
    assert LINGER_SECONDS > 0


async def test_pictures_of_a_camera_are_watched_for_as_long_as_the_block_runs() -> None:
    frames = Frames()
    bench = Bench(frames=frames)
    async with watch_pictures(bench.services, GATE) as reader:
        assert frames.watching == ["camera0"]
        assert (await reader.next(0))[1].startswith(JPEG)
    assert frames.watching == []
