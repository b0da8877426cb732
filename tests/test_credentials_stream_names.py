"""credentials/stream_names.py: rights that name streams by how they begin, against regular expressions as the model."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials import stream_names
from edged.credentials.callers import Caller, Resource, Streams
from edged.credentials.claims import read_caller, write_streams
from edged.credentials.decision import decide
from edged.credentials.users import narrow

#: What contract C-32 says that `cam*` is.
CAM = r"~^cam[0-9A-Za-z_\-/.]*$"
NAMES = st.text("ab0A_-/.", min_size=1, max_size=4)
ODD = st.text("ab*~^$ .\n\\+ü", max_size=5)
GRANTS = st.one_of(NAMES, NAMES.map(lambda name: f"{name}*"), st.just("*"))
PATHS = st.one_of(NAMES, st.builds(lambda name, more: name + more, NAMES, ODD), ODD)


def model(grant: str) -> re.Pattern[str]:
    """The streams that a right names, as an expression of Python."""
    if grant == "*":
        return re.compile(r".*\Z", re.DOTALL)
    begins = grant.removesuffix("*")
    return re.compile(re.escape(begins) + (r"[0-9A-Za-z_\-/.]*\Z" if begins != grant else r"\Z"))


def holder(read: frozenset[str], publish: frozenset[str] = frozenset()) -> Caller:
    return Caller("jwt_local", "ann", frozenset(), frozenset(), streams=Streams(read, publish))


def may(caller: Caller, path: str, capability: str = "stream:read") -> bool:
    return decide(caller, capability, Resource.of_camera(path), now=0.0).allowed


@given(st.frozensets(GRANTS, max_size=4), PATHS)
def test_a_stream_is_reached_if_the_model_s_expression_matches_it(grants: frozenset[str], path: str) -> None:
    """By `decide`, for reading and for publishing, each by its own names."""
    expected = any(model(grant).match(path) for grant in grants)
    assert may(holder(grants), path) == may(holder(frozenset(), grants), path, "stream:publish") == expected
    assert not may(holder(grants), path, "stream:publish")


@given(st.frozensets(GRANTS, max_size=4), GRANTS, PATHS)
def test_what_is_covered_reaches_nothing_more(grants: frozenset[str], wanted: str, path: str) -> None:
    """Nobody hands on a right that opens a stream which theirs does not; and what they hold themselves they may."""
    if holder(grants).covers(holder(frozenset({wanted}))):
        assert may(holder(grants), path) or not may(holder(frozenset({wanted})), path)
    assert all(holder(grants).covers(holder(frozenset({grant}))) for grant in grants)
    if "*" not in wanted:
        assert holder(grants).covers(holder(frozenset({wanted}))) == may(holder(grants), wanted)


@given(st.frozensets(GRANTS, max_size=4), st.frozensets(GRANTS, max_size=4), PATHS)
def test_who_is_held_to_another_s_rights_reaches_what_both_do(
    mine: frozenset[str], theirs: frozenset[str], path: str
) -> None:
    """A key and its owner, a user before and after a change."""
    both = narrow(holder(mine), holder(theirs))
    assert may(both, path) == (may(holder(mine), path) and may(holder(theirs), path))
    assert holder(mine).covers(both)
    assert holder(theirs).covers(both)


@given(st.frozensets(GRANTS, max_size=4), PATHS)
def test_a_token_says_the_same_to_mediamtx_and_to_us(grants: frozenset[str], path: str) -> None:
    """The list as MediaMTX reads it, the same list and the map read back."""
    claims = write_streams(Streams(read=grants))
    listed = claims["mediamtx_permissions"]
    assert isinstance(listed, list)

    def admits(entry: str) -> bool:
        # mediamtx 1.20.1: "" is every path, ~ an expression that is searched for, and anything else the name itself.
        # Go's $ is the end of the text, Python's also stands before a last line end.
        if entry.startswith("~"):
            return re.search(entry[1:].removesuffix("$") + r"\Z", path) is not None
        return entry in ("", path)

    assert any(admits(entry["path"]) for entry in listed) == may(holder(grants), path)
    base: dict[str, object] = {"sub": "ann", "exp": 1e9}
    whole = read_caller({**base, **claims}, "x", issuer="", now=0.0)
    assert whole.streams == Streams(read=grants)
    alone = read_caller({**base, "mediamtx_permissions": listed}, "x", issuer="", now=0.0)
    # Where only the list is, `""` is no grant: an empty text must not become all.
    assert alone.streams == Streams(read=grants - {"*"})


@given(st.one_of(ODD, ODD.map(lambda text: f"~{text}"), ODD.map(lambda text: CAM.replace("cam", text))))
def test_any_other_expression_in_a_list_is_no_grant(path: str) -> None:
    """Exactly the shape that is written is read: what comes of it writes the same again."""
    found = stream_names.from_mediamtx(path)
    if path.startswith("~") and found:
        assert stream_names.to_mediamtx(found) == path
    elif path.startswith("~"):
        assert found == ""


@pytest.mark.parametrize(
    "path",
    ["~.*", "~^cam", "~cam[0-9A-Za-z_\\-/.]*$", CAM + "|.*", "~^cam.*$", CAM.removesuffix("$"), CAM + "\n",
     "~^c.m[0-9A-Za-z_\\-/.]*$", "~^[0-9A-Za-z_\\-/.]*$", "~^(cam|x)[0-9A-Za-z_\\-/.]*$",
     "~^a$|^cam[0-9A-Za-z_\\-/.]*$", "~^cam\\[0-9A-Za-z_\\-/.]*$", "cam*", "", "~"],
)  # fmt: skip
def test_an_expression_of_somebody_else_s_is_refused(path: str) -> None:
    """Wider ones, unanchored ones, such as only look the same; and what MediaMTX would take for a name."""
    assert stream_names.from_mediamtx(path) == ""


def test_cam_is_written_as_the_contract_says() -> None:
    """C-32; a dot in a name is a dot."""
    assert stream_names.to_mediamtx("cam*") == CAM
    assert stream_names.from_mediamtx(CAM) == "cam*"
    assert stream_names.to_mediamtx("a.b*") == r"~^a\.b[0-9A-Za-z_\-/.]*$"
    assert [stream_names.to_mediamtx(text) for text in ("*", "cam")] == ["", "cam"]


def test_a_beginning_covers_longer_ones_and_names_and_never_the_other_way() -> None:
    """`cam*`: camera0, camera*, itself; not all, not another, and no name covers a beginning."""
    cam = frozenset({"cam*"})
    covered = {"cam*", "camera*", "camera0", "cam", "cam/x.1"}
    wanted = (*covered, "ca*", "*", "xcam", "xcam*", "c", "cam x")
    assert {text for text in wanted if stream_names.covers(cam, text)} == covered
    for held in ({"camera*"}, {"camera0"}, {"cam"}, set()):
        assert not stream_names.covers(frozenset(held), "cam*")


def test_cameras_are_no_beginnings() -> None:
    """Whoever is held to cameras of certain names hands on no `cam*`, whatever their list says, nor does a role of one
    camera; one without a list does, for what their role may."""
    read = frozenset({"stream:read"})
    named = Caller("api_key", "a", frozenset(), read, cameras=frozenset({"cam*", "camera0"}))
    single = Caller("api_key", "b", frozenset(), frozenset(), grants=frozenset({"stream:read:cam*"}))
    free = Caller("api_key", "c", frozenset(), read)
    wanted = holder(frozenset({"cam*"}))
    assert [each.covers(wanted) for each in (named, single, free)] == [False, False, True]
    assert not free.covers(holder(frozenset(), frozenset({"cam*"})))
    assert narrow(wanted, named).streams == Streams(read=frozenset({"camera0"}))
    assert narrow(wanted, free).streams == Streams(read=frozenset({"cam*"}))
    assert not may(named, "camera1")
