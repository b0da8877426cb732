"""operations/catalogue.py: what may be declared, and what becomes of a call before and after the operation runs."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import CATALOGUE, Bench, refused

from edged import operations
from edged.credentials.roles import CAPABILITIES
from edged.errors import CameraNotFound, EdgedError, InvalidParams, InvalidState, NotBuilt, Refused, UnknownMethod
from edged.operations import not_built
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import Catalogue, DeviceParams, NoParams, OperationCall, find_camera, operation
from edged.operations.rest import get


class LoudParams(msgspec.Struct, frozen=True):
    volume: int = 0


@operation("camera:read")
def look(call: OperationCall, params: LoudParams) -> int:
    """Answers from memory."""
    if params.volume > 10:
        raise InvalidState("too loud")
    return params.volume


@operation("camera:read", name="look_later", rest=get("/api/looks"), counted_as="look", no_command="for tests")
async def look_slowly(call: OperationCall, params: LoudParams) -> int:
    """Waits."""
    await trio.lowlevel.checkpoint()
    if params.volume > 10:
        raise InvalidState("too loud")
    return params.volume


@operation("camera:read", on_camera=True)
def look_at(call: OperationCall, params: DeviceParams) -> str:
    """Of one camera."""
    return call.camera.name


@operation("none")
def greet(call: OperationCall, params: NoParams) -> str | None:
    """Of everybody."""
    return None if call.session.caller is None else call.session.caller.role


@operation("camera:read")
def look_for_a_camera(call: OperationCall, params: NoParams) -> str:
    """Declared without `on_camera`, and asks for one all the same."""
    return call.camera.name


DECLARED: tuple[Any, ...] = (look, look_slowly, look_at, greet, look_for_a_camera)
HERE = Catalogue(each.__operation__ for each in DECLARED)


async def ask(bench: Bench, who: Any, name: str, /, **params: Any) -> Any:
    session = who if isinstance(who, Session) else bench.session(who)
    return await HERE.call(name, params, bench.services, session)


def test_a_declaration_says_what_the_function_and_its_decorator_say() -> None:
    declared = HERE.find("look_later")
    assert (declared.name, declared.capability, declared.params) == ("look_later", "camera:read", LoudParams)
    assert (declared.waits, declared.on_camera, declared.summary) == (True, False, "Waits.")
    assert (declared.rest, declared.counted_as, declared.no_command) == (get("/api/looks"), "look", "for tests")
    assert (HERE.find("look").waits, HERE.find("look").counted_as) == (False, "look")


@given(st.text(max_size=20) | st.sampled_from(sorted(CAPABILITIES)).map(str.upper))
def test_only_a_known_capability_can_be_declared(word: str) -> None:
    """Default deny at the start: a misspelled capability is no operation that nobody may call, or everybody."""
    if word in CAPABILITIES or word in ("none", "self"):
        return

    @operation(word)
    def misspelled(call: OperationCall, params: NoParams) -> None:
        """Is not gathered."""

    with pytest.raises(ValueError, match="names no known capability"):
        Catalogue([misspelled.__operation__])  # type: ignore[attr-defined]


def test_two_operations_of_one_name_are_refused_at_the_start() -> None:
    declared = HERE.find("look")
    with pytest.raises(ValueError, match="two operations are named 'look'"):
        Catalogue([declared, declared])


def test_the_table_of_operations_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        HERE.operations["look"] = HERE.find("greet")  # type: ignore[index]


def test_a_name_that_no_operation_has_is_unknown_or_not_built_yet() -> None:
    with pytest.raises(UnknownMethod) as caught:
        HERE.find("x" * 1000)
    assert len(str(caught.value)) < 300
    with pytest.raises(NotBuilt):
        HERE.find(sorted(not_built.METHODS)[0])


@pytest.mark.parametrize("name", ["look", "look_later"])
async def test_each_outcome_of_a_call_is_counted_once(name: str) -> None:
    """Of an operation that waits and of one that does not; also what the gate and the params refuse."""
    bench = Bench()
    caller, other = bench.caller(), bench.caller("monitor")
    assert await ask(bench, caller, name, volume=3) == 3
    with pytest.raises(InvalidState):
        await ask(bench, caller, name, volume=11)
    with pytest.raises(InvalidParams):
        await ask(bench, caller, name, volume="high")
    with refused("missing_scope"):
        await ask(bench, other, name)
    assert bench.counts.answered == [(name, each) for each in ("ok", "invalid_state", "invalid_params", "refused")]


async def test_params_are_read_before_anybody_is_asked_for_a_right() -> None:
    """They say nothing of the box; the gate counts no refusal for a call that is none."""
    bench = Bench()
    with pytest.raises(InvalidParams):
        await ask(bench, None, "look", volume="high")
    assert bench.counts.failed == []


async def test_a_call_goes_by_the_rights_that_a_key_has_now() -> None:
    """Not by those that it had when its session authenticated."""
    bench = Bench()
    caller = bench.caller()
    session = bench.session(caller)
    assert await ask(bench, session, "look_at", device="camera0") == "camera0"
    bench.narrow(caller, "camera1")
    with pytest.raises(CameraNotFound):
        await ask(bench, session, "look_at", device="camera0")
    assert session.caller is not None
    assert session.caller.cameras == frozenset({"camera1"})


async def test_an_operation_for_everybody_has_no_caller_where_nobody_came() -> None:
    bench = Bench()
    assert await ask(bench, None, "greet") is None
    assert await ask(bench, bench.caller("operator"), "greet") == "operator"


@pytest.mark.parametrize("device", ["camera0", "gate", "/dev/video0"])
async def test_a_camera_is_found_by_each_of_its_names(device: str) -> None:
    bench = Bench()
    assert await ask(bench, bench.caller(), "look_at", device=device) == "camera0"


@pytest.mark.parametrize(
    ("role", "values", "device", "outcome"),
    [
        ("viewer", {}, "camera9", "camera_not_found"),
        # One that may not be seen is not told from one that is not there.
        ("viewer", {"camera_access": ("camera1",)}, "camera0", "camera_not_found"),
        ("viewer", {"camera_access": ("camera1",)}, "camera9", "camera_not_found"),
        ("viewer", {"permissions": ("camera:read:camera1",)}, "camera0", "camera_not_found"),
        # Whoever may see none is told so, whatever they name.
        ("monitor", {}, "camera0", "missing_scope"),
        ("monitor", {}, "camera9", "missing_scope"),
        ("viewer", {"permissions": ("camera:read:camera1",)}, "camera1", "ok"),
    ],
)
async def test_a_camera_that_a_caller_may_not_see_is_not_found(
    role: str, values: dict[str, Any], device: str, outcome: str
) -> None:
    bench = Bench()
    session = bench.session(bench.caller(role, **values))
    with pytest.raises(EdgedError) if outcome != "ok" else nullcontext() as caught:
        assert find_camera("camera:read", device, bench.services, session).name == device
    if caught is not None:
        problem = caught.value
        assert outcome == (problem.reason if isinstance(problem, Refused) else problem.slug)
        assert isinstance(problem, Refused) or str(problem) == f"no camera {device!r}: get_camera_list names them"


async def test_nobody_is_told_whether_there_is_a_camera() -> None:
    bench = Bench()
    for device in ("camera0", "camera9"):
        with refused("missing"):
            await ask(bench, None, "look_at", device=device)


async def test_an_operation_that_was_not_declared_on_camera_has_none() -> None:
    """A mistake of ours fails where it is made, and shows no camera."""
    bench = Bench()
    with pytest.raises(AssertionError, match="look_for_a_camera is not declared on_camera"):
        await ask(bench, bench.caller(), "look_for_a_camera")


def test_a_right_of_a_call_asks_for_the_capability_and_every_further_rule() -> None:
    """Each time that it is checked (access.authority)."""
    bench = Bench()
    caller = bench.caller()
    asked: list[int] = []
    authority = bench.call(caller, "get_camera_list").authority("camera:read", lambda: asked.append(1))
    authority.check()
    assert asked == [1]
    bench.revoke(caller)
    with refused("revoked"):
        authority.check()
    assert asked == [1]


def test_every_declared_operation_is_gathered() -> None:
    """A module that is left out of `gather` would be an operation that no table and no endpoint knows."""
    declared = {
        value.__operation__.name
        for module in pkgutil.iter_modules(operations.__path__)
        for value in vars(importlib.import_module(f"edged.operations.{module.name}")).values()
        if hasattr(value, "__operation__")
    }
    assert declared == set(CATALOGUE.operations)
