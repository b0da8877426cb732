"""What the two dialects make of errors, results and names of cameras (contract 0, 4b)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_helpers import Row, Rows, Shot, camera, row

from edged import errors
from edged.credentials.callers import ApiKey, Caller, Token
from edged.credentials.decision import Reason, outside_reason
from edged.rpc import dialects
from edged.rpc.dialects import FAULTS, V1, V2, Presenter, View, present, view_of

ADMIN = Caller(method="api_key", subject="a", roles=frozenset({"admin"}), capabilities=frozenset())
VIEWER = Caller(method="api_key", subject="v", roles=frozenset({"viewer"}), capabilities=frozenset())
IN_V1, IN_V2, ADMINS = view_of(V1, VIEWER), view_of(V2, VIEWER), view_of(V2, ADMIN)


def told(problem: errors.EdgedError, dialect: dialects.Dialect, **given: Any) -> Any:
    return json.loads(dialects.fault(problem, **given).encode(b"1", dialect))


@pytest.mark.parametrize(
    ("token", "auth_token", "auth_type", "expected"),
    [
        ("t", None, None, V1),
        ("t", None, "jwt", V1),
        (None, "t", None, V2),
        (None, "t", "jwt", V2),
        ("t", "t", None, V2),
        ("t", "t", "jwt", V1),
        (None, None, "jwt", None),
        (None, None, None, None),
    ],
)
def test_the_first_authenticate_says_which_dialect(
    token: str | None, auth_token: str | None, auth_type: str | None, expected: object
) -> None:
    """token is v1, auth_token v2; both are v2 unless auth_type is there."""
    assert dialects.of_authenticate(token, auth_token, auth_type) is expected


def test_the_listener_says_it_before() -> None:
    """Only 8080 speaks v1 unasked."""
    assert dialects.of_listener("compat") is V1
    assert {dialects.of_listener(name) for name in ("main", "local", "unix")} == {V2}


@pytest.mark.parametrize(
    ("problem", "v1", "v2"),
    [
        (
            errors.InvalidParams("no device"),
            (-32602, "Invalid params: no device"),
            (-32602, "Invalid params: no device"),
        ),
        (errors.UnknownMethod("x"), (-32601, "Method not found"), (-32601, "Method not found")),
        (
            errors.Refused("missing"),
            (-32001, "Authentication required"),
            (-32001, "Authentication failed or token expired"),
        ),
        (
            errors.Refused("bad_signature"),
            (-32001, "Authentication failed"),
            (-32001, "Authentication failed or token expired"),
        ),
        (
            errors.Refused("expired"),
            (-32001, "Authentication failed"),
            (-32001, "Authentication failed or token expired"),
        ),
        (
            errors.Refused("revoked"),
            (-32001, "Authentication failed"),
            (-32001, "Authentication failed or token expired"),
        ),
        (errors.Refused("missing_scope"), (-32003, "Insufficient permissions"), (-32002, "Permission denied")),
        (errors.Refused("camera_denied"), (-32004, "Camera not found"), (-32010, "Not found")),
        (errors.CameraNotFound("camera9"), (-32004, "Camera not found"), (-32010, "Not found")),
        (errors.NotFound("x"), (-32010, "Not found"), (-32010, "Not found")),
        (errors.RateLimited("x", retry_after_ms=5), (-32002, "Rate limit exceeded"), (-32040, "Rate limited")),
        (errors.InvalidState("x", resource="key"), (-32005, "Invalid state"), (-32020, "Invalid state")),
        (
            errors.InvalidState("x", resource="recording"),
            (-32005, "Recording already in progress"),
            (-32020, "Invalid state"),
        ),
        (errors.DependencyFailed("x"), (-32006, "MediaMTX service unavailable"), (-32050, "Dependency failed")),
        (errors.Unsupported("x"), (-32008, "Camera capability not supported"), (-32030, "Unsupported")),
        (errors.StoreFailed("x"), (-32603, "Internal error"), (-32603, "Internal error")),
        (errors.Overloaded("x"), (-32603, "Internal error"), (-32603, "Internal error")),
        (errors.StartFailed("x"), (-32603, "Internal error"), (-32603, "Internal error")),
    ],
)
def test_codes_and_messages_are_the_tables(problem: errors.EdgedError, v1: Any, v2: Any) -> None:
    """Contract 4b, both columns; v1 has a result beside the error and v2 has not."""
    old, new = told(problem, V1), told(problem, V2)
    assert (old["error"]["code"], old["error"]["message"]) == v1
    assert (new["error"]["code"], new["error"]["message"]) == v2
    assert old["result"] is None
    assert "result" not in new


def test_error_data_tells_both_codes_and_what_to_do() -> None:
    """The same members always, whatever went wrong (contract C-5)."""
    denied = told(errors.Refused("missing_scope", required="camera:write", have="viewer"), V2)["error"]["data"]
    assert denied == {
        "required": "camera:write",
        "have": "viewer",
        "reason": "permission_denied",
        "code_v1": -32003,
        "code_v2": -32002,
        "required_role": "operator",
        "have_role": "viewer",
        "hint": "use a credential that has the required capability",
    }
    missing = told(errors.CameraNotFound("camera9"), V2)["error"]["data"]
    assert missing | {"resource": "camera", "id": "camera9", "reason": "not_found"} == missing
    assert missing["hint"] == "get_camera_list names them"
    assert told(errors.RateLimited("x", retry_after_ms=5), V2)["error"]["data"]["retry_after_ms"] == 5
    assert told(errors.StoreFailed("x"), V1)["error"]["data"]["reason"] == "store_error"


def test_a_refusal_never_tells_the_exact_reason() -> None:
    """What is wrong with a credential is for the log: outside there are four words (contract 10.20). That it came by
    another site's page is no fault of a credential."""
    for reason in Reason:
        text = json.dumps(told(errors.Refused(str(reason), "the signature is off by one"), V2))
        assert "off by one" not in text
        assert outside_reason(reason) in {
            "auth_required",
            "auth_failed",
            "expired",
            "revoked",
            "permission_denied",
            "origin_denied",
            "camera_not_found",
        }
    assert (
        outside_reason("unknown_key")
        == outside_reason("bad_signature")
        == outside_reason("role_denied")
        == "auth_failed"
    )


def test_a_camera_that_may_not_be_seen_reads_like_one_that_is_not_there() -> None:
    """No field tells them apart by what was required of it."""
    data = told(errors.Refused("camera_denied", required="camera:read", have="viewer"), V2)["error"]["data"]
    assert (data["reason"], data["required"], data["have"]) == ("not_found", None, None)


def test_a_session_that_lost_its_credential_is_told_why() -> None:
    """After an expiry "no credential" would send the client looking in the wrong place."""
    data = told(errors.Refused("missing"), V2, lost="expired")["error"]["data"]
    assert data["reason"] == "expired"
    assert "new token" in data["hint"]


def test_long_texts_of_the_client_do_not_come_back_whole() -> None:
    """An error names the thing, it does not echo a megabyte."""
    assert len(json.dumps(told(errors.CameraNotFound("x" * 100_000), V2))) < 2000


def test_every_slug_of_the_family_has_a_row() -> None:
    """A new error class without a row would be told as an internal error; these two never reach a client."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgedError)]
    told = {kind.slug for kind in kinds} - {"config", "start", "refused"}
    assert len(told) > 8
    assert told <= FAULTS.keys()


def test_the_soft_refusal_tells_tokens_from_keys() -> None:
    """Guide S1's troubleshooting table goes by this text."""
    assert dialects.authentication_text(Token("x")) == "Invalid or expired JWT token"
    assert dialects.authentication_text(ApiKey("x")) == "Invalid or expired API key"


@pytest.mark.parametrize(
    ("view", "device", "path"),
    [(IN_V1, "/dev/video4", "/dev/video4"), (IN_V2, "camera0", "camera0"), (ADMINS, "camera0", "/dev/video4")],
)
def test_device_files_are_for_v1_and_administrators(view: View, device: str, path: str) -> None:
    """Scripts of v1 hard-code them; elsewhere they are nobody's business (contract C-7)."""
    shown = present(row(camera(0), "box"), view, lambda _device: pytest.fail("the row has it"))
    assert (shown.device, shown.device_path, shown.camera_id) == (device, path, "camera0")


@pytest.mark.parametrize("view", [IN_V1, IN_V2, ADMINS])
def test_a_camera_without_a_device_file_is_called_by_its_name(view: View) -> None:
    """device_path is never empty, so that clients that key their list by it have one key a camera."""
    shown = present(row(camera(1, node=None), "box"), view, lambda _device: None)
    assert (shown.device, shown.device_path) == ("camera1", "camera1")


def test_a_result_without_device_path_is_looked_up() -> None:
    """take_snapshot says camera0 and v1 hears /dev/video4."""
    shot = Shot(success=True, device="camera0")
    assert present(shot, IN_V1, {"camera0": "/dev/video4"}.get).device == "/dev/video4"
    assert present(shot, IN_V2, {"camera0": "/dev/video4"}.get) is shot


class Begun(msgspec.Struct, frozen=True):
    device_path: str


class Started(msgspec.Struct, frozen=True):
    device: str
    recording: Begun


@pytest.mark.parametrize(("view", "path"), [(IN_V1, "/dev/video4"), (IN_V2, "camera0"), (ADMINS, "/dev/video4")])
def test_a_nested_device_path_is_the_list_s(view: View, path: str) -> None:
    """Clients key their recordings by that of start_recording, and find the row of their list by it."""
    found = Started("camera0", Begun("camera0"))
    assert present(found, view, {"camera0": "/dev/video4"}.get).recording.device_path == path
    assert present(found, view, lambda _device: None).recording.device_path == "camera0"


def test_what_holds_no_camera_is_left_alone() -> None:
    """No copy is made of what does not change."""
    for value in ("pong", None, 5, [1, 2], {"device": "camera0"}, ("a",), Rows((), 0, 0)):
        assert present(value, IN_V1, lambda _device: "/dev/video4") is value


class Deep(msgspec.Struct, frozen=True):
    items: list[Rows]


@given(st.lists(st.integers(0, 9), max_size=5), st.sampled_from([IN_V1, IN_V2, ADMINS]))
def test_cameras_are_renamed_wherever_they_stand(numbers: list[int], view: View) -> None:
    """In lists, in structs, in lists of structs, in a bare array."""
    rows = tuple(row(camera(number, node=f"/dev/video{number}"), "box") for number in numbers)
    shown = present([Deep([Rows(rows, 0, 0)])], view, lambda _device: None)
    for number, item in zip(numbers, shown[0].items[0].cameras, strict=True):
        assert item.device == (f"/dev/video{number}" if view is IN_V1 else f"camera{number}")
        assert item.device_path == (f"camera{number}" if view is IN_V2 else f"/dev/video{number}")


def test_the_list_is_written_once_for_each_view() -> None:
    """The identical result gives the identical text, and each view its own."""
    presenter = Presenter(lambda _device: None)
    rows = Rows((row(camera(0), "box"),), 1, 1)
    texts = [presenter.encode("get_camera_list", rows, view) for view in (IN_V1, IN_V2, ADMINS)]
    assert len(set(texts)) == 3
    assert all(
        presenter.encode("get_camera_list", rows, view) is text
        for view, text in zip((IN_V1, IN_V2, ADMINS), texts, strict=True)
    )


def test_only_named_results_are_kept_and_only_so_many() -> None:
    """A reply that holds a secret is not kept, and old lists go."""
    presenter = Presenter(lambda _device: None, size=2)
    lists = [Rows((), number, 0) for number in range(3)]
    first = presenter.encode("get_camera_list", lists[0], IN_V1)
    for item in lists[1:]:
        presenter.encode("get_camera_list", item, IN_V1)
    again = presenter.encode("get_camera_list", lists[0], IN_V1)
    assert again == first
    assert again is not first
    secret = Shot(success=True, device="camera0")
    assert presenter.encode("create_key", secret, IN_V1) is not presenter.encode("create_key", secret, IN_V1)


def test_a_row_is_a_row() -> None:
    """The helper's row has the fields that the real one promises."""
    assert {"device", "device_path", "camera_id", "status", "name", "stream_url"} <= set(Row.__struct_fields__)
