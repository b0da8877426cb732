"""operations/event_ring.py: which events a caller may know of, and cursors that are none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import NOW, Bench

from edged.clock import iso
from edged.errors import InvalidParams
from edged.library.event_ring import Page, Position
from edged.operations.event_ring import _read_position
from edged.operations.pages import write_cursor
from edged.store.events import EventRow, Wanted


class Ring:
    """Three events, of camera0, of a camera that is gone, and of the box; notes what is asked for."""

    def __init__(self) -> None:
        names = (("motion", "camera0"), ("camera.connected", "camera7"), ("system.startup", ""))
        self.rows = [EventRow(at, NOW + at, kind, camera, '{"a": 1}') for at, (kind, camera) in enumerate(names)]
        self.asked: list[tuple[Position | None, Wanted, int]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def list_cameras(self) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset(row.camera for row in self.rows)

    async def read(self, after: Position | None, wanted: Wanted, limit: int) -> Page:
        self.asked.append((after, wanted, limit))
        await trio.lowlevel.checkpoint()
        self.meanwhile()
        found = tuple(row for row in self.rows if wanted.has(row))[-limit:]
        return Page(found, Position("run1", 2), has_gap=False, has_more=True)


class Box:
    """A bench with such a ring."""

    def __init__(self) -> None:
        self.ring = Ring()
        self.bench = Bench(events=self.ring)

    async def read(self, who: Any, **params: Any) -> Any:
        return msgspec.json.decode(msgspec.json.encode(await self.bench.ask(who, "get_events", **params)))

    async def cameras(self, who: Any, **params: Any) -> list[str]:
        return [each["device"] for each in (await self.read(who, **params))["events"]]


@pytest.mark.parametrize(
    ("role", "values", "known"),
    [
        ("admin", {}, ["camera0", "camera7", ""]),
        ("viewer", {}, ["camera0", "camera7", ""]),
        ("viewer", {"camera_access": ("camera7",)}, ["camera7", ""]),
        ("viewer", {"camera_access": ("camera9",)}, [""]),
        # Without system:read those of the box are nobody's business.
        ("viewer", {"permissions": ("camera:read",)}, ["camera0", "camera7"]),
        ("viewer", {"permissions": ("camera:read:camera0",)}, ["camera0"]),
    ],
)
async def test_events_are_of_cameras_that_may_be_seen_and_of_the_box(role: str, values: Any, known: list[str]) -> None:
    box = Box()
    assert await box.cameras(box.bench.caller(role, **values)) == known
    # Nobody else's are even read.
    assert set(box.ring.asked[0][1].cameras) == set(known)


async def test_who_may_see_no_camera_reads_no_events() -> None:
    box = Box()
    assert await box.bench.outcome(box.bench.caller("monitor"), "get_events") == "missing_scope"
    assert box.ring.asked == []


async def test_a_camera_that_is_lost_while_events_are_read_has_none_in_the_page() -> None:
    """Also where that very camera was asked for."""
    for params in ({}, {"device": "camera0"}):
        box = Box()
        caller = box.bench.caller()
        box.ring.meanwhile = partial(box.bench.narrow, caller, "camera7")
        assert "camera0" not in await box.cameras(caller, **params)


@pytest.mark.parametrize(
    ("device", "access", "wanted"),
    [
        ("gate", None, ("camera0",)),
        ("/dev/video0", None, ("camera0",)),
        ("camera1", None, ("camera1",)),
        # It is gone, and its events are here yet.
        ("camera7", None, ("camera7",)),
        ("camera7", ("camera1",), None),
        ("camera0", ("camera1",), None),
        ("camera9", None, None),
        # The name under which those of the box are kept is none of a camera.
        ("", None, None),
    ],
)
async def test_events_of_one_camera_are_for_whoever_may_see_it(
    device: str, access: tuple[str, ...] | None, wanted: tuple[str, ...] | None
) -> None:
    box = Box()
    outcome = await box.bench.outcome(box.bench.caller(camera_access=access), "get_events", device=device)
    assert outcome == ("camera_not_found" if wanted is None else "ok")
    assert [each[1].cameras for each in box.ring.asked] == ([] if wanted is None else [wanted])


async def test_a_page_shows_what_the_ring_says_and_its_cursor_leads_on() -> None:
    box = Box()
    admin = box.bench.caller("admin")
    page = await box.read(admin, limit=1, kinds="system")
    assert page["events"] == [{"time": iso(NOW + 2), "kind": "system.startup", "device": "", "details": {"a": 1}}]
    assert (page["gap"], page["more"]) == (False, True)
    await box.read(admin, since=page["cursor"])
    assert [(after, limit) for after, _, limit in box.ring.asked] == [(None, 1), (Position("run1", 2), 100)]
    assert box.ring.asked[0][1].kinds == ("system",)


@pytest.mark.parametrize(
    "params",
    [
        *({"limit": each} for each in (0, 1001, "x")), *({"kinds": each} for each in ("", ",", "A", "x" * 601)),
        *({"since": each} for each in ("", "x", "W10", "x" * 1025, "\ud800", "é", "\x00")),
        *({"since": write_cursor("get_events", (each, "run"))} for each in (-1, 0.5, 1e300, float(2**53 + 2))),
        {"since": write_cursor("list_recordings", (1, "run"))},
    ],
)  # fmt: skip
async def test_params_that_are_none_are_an_error_and_nothing_is_read(params: dict[str, Any]) -> None:
    box = Box()
    assert await box.bench.outcome(box.bench.caller(), "get_events", **params) == "invalid_params"
    assert box.ring.asked == []


def test_a_cursor_that_is_none_is_called_since_and_says_what_to_give() -> None:
    call = Bench().call(None, "get_events")
    with pytest.raises(InvalidParams, match="since is no cursor of get_events: give the cursor of an earlier reply"):
        _read_position(call, "x")


@given(st.text(max_size=40), st.integers(0, 2**53))
def test_a_cursor_is_the_position_that_it_was_made_of(run: str, number: int) -> None:
    call = Bench().call(None, "get_events")
    assert _read_position(call, write_cursor("get_events", (number, run))) == Position(run, number)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_no_text_is_taken_for_a_position_that_can_hurt(text: str) -> None:
    call = Bench().call(None, "get_events")
    try:
        found = _read_position(call, text)
    except InvalidParams:
        return
    assert 0 <= found.number <= 2**53
