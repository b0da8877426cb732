"""operations/camera_names.py: cameras in rights are named by id from the moment at which the right is given."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from operations_helpers import GATE, YARD
from web_helpers import Cameras

from edged.operations.camera_names import paths_of, resolve_rights, to_id

#: As above, and two cameras of one label.
TWINS = (replace(YARD, name="camera2", label="Twin"), replace(YARD, name="camera3", label="Twin"))
CAMERAS: Any = Cameras(GATE, YARD, *(replace(each, path=each.name) for each in TWINS))


class Streams(msgspec.Struct, frozen=True):
    read: list[str] = []
    publish: list[str] = []


class Params(msgspec.Struct, frozen=True):
    name: str = "a key"
    camera_access: list[str] | msgspec.UnsetType | None = UNSET
    permissions: list[str] | None = None
    streams: Streams | msgspec.UnsetType | None = UNSET


class Plain(msgspec.Struct, frozen=True):
    name: str = "gate"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("camera0", "camera0"),
        ("gate", "camera0"),
        ("/dev/video0", "camera0"),
        ("Gate", "camera0"),
        ("Yard", "camera1"),
        # Nobody is meant by a label that two cameras have, and nobody by what no camera has.
        ("Twin", "Twin"),
        ("nowhere", "nowhere"),
        ("GATE", "GATE"),
        ("", ""),
        ("*", "*"),
    ],
)
def test_a_name_is_resolved_where_exactly_one_camera_has_it(name: str, found: str) -> None:
    assert to_id(name, CAMERAS) == found


@pytest.mark.parametrize("label", ["*", "cam*", "camera5", "camera1", "gate", "/dev/video7", "/dev/video0"])
def test_a_label_never_takes_over_what_names_cameras_otherwise(label: str) -> None:
    """All cameras, those that begin so, an id, a path, a device file, each also while no camera has it: whoever gives a
    right by that does not mean a camera that somebody called so. A USB camera brings its label along."""
    cameras: Any = Cameras(GATE, YARD, replace(YARD, name="camera4", path="camera4", label=label))
    found = cameras.find(label)
    assert to_id(label, cameras) == (label if found is None else found.name)
    assert to_id(label, cameras) != "camera4"


def test_every_right_names_cameras_by_id() -> None:
    resolved = resolve_rights(
        Params(
            camera_access=["gate", "Yard", "nowhere"],
            permissions=["camera:read:gate", "stream:read:/dev/video0", "camera:read", "keys:admin:gate", "gate"],
            streams=Streams(["gate", "cam*", "*"], ["Gate"]),
        ),
        CAMERAS,
    )
    assert resolved == Params(
        camera_access=["camera0", "camera1", "nowhere"],
        permissions=["camera:read:camera0", "stream:read:camera0", "camera:read", "keys:admin:gate", "gate"],
        streams=Streams(["camera0", "cam*", "*"], ["camera0"]),
    )


def test_two_names_of_one_camera_become_one_and_a_list_without_any_keeps_its_length() -> None:
    """Its limits are still to be checked: the same name a thousand times is not made a short list."""
    assert resolve_rights(Params(camera_access=["gate", "camera0", "/dev/video0"]), CAMERAS).camera_access == [
        "camera0"
    ]
    many = Params(camera_access=["camera0"] * 1000)
    assert resolve_rights(many, CAMERAS) is many


@pytest.mark.parametrize(
    "params",
    [
        Plain(),
        Params(),
        Params(camera_access=None, streams=None),
        Params(camera_access=[], permissions=[], streams=Streams()),
        Params(camera_access=["camera0"], permissions=["camera:read:camera1"], streams=Streams(["camera0"])),
    ],
)
def test_params_in_which_nothing_changes_are_the_same_object(params: Any) -> None:
    """None and absent stay what they are: all cameras are not made none."""
    assert resolve_rights(params, CAMERAS) is params


@given(st.lists(st.sampled_from(["gate", "Gate", "camera0", "camera1", "Yard", "Twin", "*", "cam*", "x", ""])))
def test_what_was_resolved_once_stays_as_it_is(names: list[str]) -> None:
    """A right that is read, changed and given again means the same cameras."""
    once = resolve_rights(Params(camera_access=list(names), streams=Streams(list(names))), CAMERAS)
    assert resolve_rights(once, CAMERAS) is once


@given(st.lists(st.sampled_from(["gate", "Gate", "camera0", "camera1", "Yard", "Twin", "*", "x"])))
def test_resolving_neither_adds_nor_takes_a_camera(names: list[str]) -> None:
    resolved = resolve_rights(Params(camera_access=list(names)), CAMERAS).camera_access
    assert set(resolved) == {to_id(name, CAMERAS) for name in names}  # type: ignore[arg-type]


def test_only_cameras_whose_path_is_another_name_are_in_the_table_of_paths() -> None:
    assert paths_of(CAMERAS) == {"camera0": "gate"}
