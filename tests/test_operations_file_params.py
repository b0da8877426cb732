"""operations/file_params.py: pages of kept files, and whose files a caller may see."""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from operations_helpers import GATE, Bench, refused

from edged.credentials.callers import Resource
from edged.errors import InvalidParams
from edged.operations.catalogue import OperationCall
from edged.operations.file_params import (
    FilePageParams,
    confirmation,
    cut_page,
    grant_on,
    keep_seen,
    may,
    read_after,
    resource_of,
)
from edged.operations.pages import Place, write_cursor


def opened(name: str = "list_recordings") -> tuple[Bench, OperationCall]:
    bench = Bench()
    return bench, bench.call(bench.caller("operator"), name)


def place(number: int) -> Place:
    """Newest first."""
    return float(-number), f"id{number}"


@given(total=st.integers(0, 40), limit=st.integers(1, 15))
def test_pages_by_cursor_are_all_rows_once_in_order(total: int, limit: int) -> None:
    """Where more follow there is a cursor, and none behind the last; no page is longer than its limit."""
    _, call = opened()
    rows, found, cursor, pages = list(range(total)), list[int](), None, 0
    while True:
        pages += 1
        params = FilePageParams(limit=limit, cursor=cursor)
        after = read_after(call, params)
        behind = rows if after is None else [row for row in rows if place(row) < after]
        page, following = cut_page(call, params, behind[: limit + 1], place)
        assert len(page) <= limit
        found += page
        if following is UNSET:
            break
        assert isinstance(following, str)
        assert len(page) == limit
        cursor = following
    assert found == rows
    assert pages == max(1, math.ceil(total / limit))


def test_rows_of_cameras_that_may_be_seen_now_are_kept_in_their_order() -> None:
    """Each camera is judged once, however many rows it has."""
    bench, call = opened()
    assert call.session.caller is not None
    rows = [(number, f"camera{number % 3}") for number in range(9)]
    assert keep_seen(call, rows, itemgetter(1)) == rows
    bench.narrow(call.session.caller, "camera1", "camera2")
    asked, judge = list[str](), bench.gate.judge

    def count(*given: Any) -> Any:
        asked.append(given[2].camera)
        return judge(*given)

    bench.gate.judge = count  # type: ignore[method-assign, assignment]
    assert keep_seen(call, rows, itemgetter(1)) == [row for row in rows if row[1] != "camera0"]
    assert sorted(asked) == ["camera0", "camera1", "camera2"]


def test_a_cursor_of_another_list_is_none_of_this_one() -> None:
    _, call = opened()
    with pytest.raises(InvalidParams, match="cursor is none of this list"):
        read_after(call, FilePageParams(cursor=write_cursor("list_snapshots", (1.0, "x"))))
    assert read_after(call, FilePageParams(cursor=write_cursor("list_recordings", (1.0, "x")))) == (1.0, "x")
    assert read_after(call, FilePageParams()) is None


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"offset": 10**9}, {"cursor": ""}])
@pytest.mark.parametrize("name", ["list_recordings", "list_snapshots"])
async def test_a_page_has_its_bounds(name: str, params: dict[str, Any]) -> None:
    bench, _ = opened()
    assert await bench.outcome(bench.caller(), name, **params) == "invalid_params"


def test_a_camera_that_is_gone_keeps_its_name_and_its_files_stay_with_those_who_may_see_it() -> None:
    bench, _ = opened()
    assert resource_of(bench.services, "gate") == Resource("camera0", GATE.names, "gate")
    assert resource_of(bench.services, "camera7") == Resource.of_camera("camera7")
    for values, sees in (({}, True), ({"camera_access": ("camera7",)}, True), ({"camera_access": ("camera0",)}, False)):
        assert may(bench.services, bench.caller(**values), "camera:read", "camera7") is sees  # type: ignore[arg-type]
    assert not may(bench.services, None, "camera:read", "camera0")
    assert not may(bench.services, bench.caller(), "camera:delete", "camera0")


def test_a_confirmation_asks_each_time_for_the_right_on_that_camera() -> None:
    """Not for the capability alone: whoever lost the camera meanwhile may not go on."""
    bench, call = opened()
    caller = call.session.caller
    assert caller is not None
    confirm = confirmation(call, "camera:write", "camera0")
    confirm()
    with refused("missing_scope"):
        confirmation(call, "camera:delete", "camera0")()
    bench.narrow(caller, "camera1")
    call.session.caller = bench.gate.current(caller)
    with refused("camera_denied"):
        confirm()
    confirmation(call, "camera:write", "camera1")()
    bench.revoke(caller)
    with refused("revoked"):
        confirmation(call, "camera:write", "camera1")()


@pytest.mark.parametrize("change", ["narrow", "revoke"])
async def test_a_change_of_a_camera_is_granted_only_while_the_right_lasts(change: str) -> None:
    """It ends between the question and the commit: nothing is written."""
    bench, call = opened()
    caller = call.session.caller
    assert caller is not None
    grant = grant_on(call, "camera:write", "camera0")

    async def work(commit: Any) -> None:
        await commit(None, undo=None)

    await grant(work)
    assert bench.registrar.commits == 1
    if change == "narrow":
        bench.narrow(caller, "camera1")
    else:
        bench.revoke(caller)
    with refused("camera_denied" if change == "narrow" else "revoked"):
        await grant(work)
    assert bench.registrar.commits == 1
