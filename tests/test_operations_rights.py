"""operations/rights.py on a running daemon: no caller can grant more than it has."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from daemon_helpers import SECRET, Conversation, RunningDaemon, reason_of, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after

from edged.credentials import tokens
from edged.credentials.callers import Caller, Streams
from edged.credentials.roles import CAPABILITIES


async def test_no_caller_can_give_a_key_more_than_it_may_do_itself(tmp_path: Path) -> None:
    """A narrow administrator of keys narrows and renames any, and makes none stronger than itself, itself neither."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            mine, secret = await daemon.create_key("admin", permissions=["keys:admin"])
            strong, _ = await daemon.create_key("admin", expires_in_days=5)
            weak, _ = await daemon.create_key("viewer", permissions=[])
            await client.call("authenticate", auth_token=secret)
            for key_id, change in (
                (weak, {"permissions": None}), (weak, {"role": "admin", "permissions": ["camera:read"]}),
                (mine, {"permissions": None}), (mine, {"permissions": ["keys:admin", "users:admin"]}),
                (weak, {"streams": {"read": ["*"]}}), (weak, {"streams": {"publish": ["camera0"]}}),
                (strong, {"expires_at": None}), (strong, {"expires_in_days": 6}),
            ):  # fmt: skip
                assert await reason_of(client, "update_key", key_id=key_id, **change) == "permission_denied", change
            assert await reason_of(client, "create_key", name="eye", role="admin", permissions=["keys:admin"],
                                   streams={"read": ["*"]}) == "permission_denied"  # fmt: skip
            await client.call("update_key", key_id=strong, name="renamed", role="viewer", expires_in_days=1)
            same = await client.call("update_key", key_id=weak, role="admin", permissions=["keys:admin"])
            assert same["permissions"] == ["keys:admin"]
            await client.call("suspend_key", key_id=strong)
            assert await reason_of(client, "resume_key", key_id=strong) == "permission_denied"


@asynccontextmanager
async def keyed(daemon: RunningDaemon, role: str = "admin", **params: object) -> AsyncIterator[Conversation]:
    """A conversation by a new key."""
    _, key = await daemon.create_key(role, **params)
    async with daemon.websocket() as client:
        await client.call("authenticate", auth_token=key)
        yield client


@pytest.fixture(scope="module")
def folder_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture
async def services_of_all(folder_of_all: Path) -> AsyncIterator[RunningDaemon]:
    """One of which each test asks a little; its key pairs are made once."""
    async with running_daemon(folder_of_all) as daemon:
        yield daemon


async def test_an_administrator_with_fewer_permissions_grants_no_more_than_these(tmp_path: Path) -> None:
    """A key for keys:admin alone makes such keys, and neither makes nor takes over a stronger one."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            strong, _ = await daemon.create_key("admin")
            async with keyed(daemon, permissions=["keys:admin"]) as client:
                assert (await client.call("list_keys"))["keys"]
                same = await client.call("create_key", name="same", role="admin", permissions=["keys:admin"])
                assert same["api_key"].startswith("camera_service_sk_")
                for role in ("viewer", "admin"):
                    assert await reason_of(client, "create_key", name="more", role=role) == "permission_denied"
                assert await reason_of(client, "rotate_key", key_id=strong) == "permission_denied"


async def test_a_key_limited_to_one_camera_creates_keys_for_that_camera_only(tmp_path: Path) -> None:
    """camera_access of the maker bounds the key that is made."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, keyed(daemon, camera_access=["camera0"]) as client:
            made = await client.call("create_key", name="one", role="viewer", camera_access=["camera0"])
            assert made["role"] == "viewer"
            for cameras in (None, ["camera1"], ["*"]):
                given_params = {"name": "more", "role": "viewer"} | ({"camera_access": cameras} if cameras else {})
                assert await reason_of(client, "create_key", **given_params) == "permission_denied"


@given(
    st.frozensets(st.sampled_from(sorted(CAPABILITIES))),
    st.frozensets(st.sampled_from(sorted(CAPABILITIES))),
    st.none() | st.frozensets(st.sampled_from(["camera0", "camera1"])),
    st.none() | st.frozensets(st.sampled_from(["camera0", "camera1"])),
)
def test_covering_is_never_more(
    mine: frozenset[str], theirs: frozenset[str], my_cameras: frozenset[str] | None, cameras: frozenset[str] | None
) -> None:
    """Who covers another has each of its capabilities and each of its cameras."""
    one = Caller("api_key", "one", frozenset(), mine, cameras=my_cameras)
    other = Caller("api_key", "other", frozenset(), theirs, cameras=cameras)
    if one.covers(other):
        assert theirs <= mine
        assert my_cameras is None or (cameras is not None and cameras <= my_cameras)
    assert one.covers(one)


def test_streams_that_are_named_stay_named() -> None:
    """A caller held to certain streams covers nobody who is not held to the same."""
    held = Caller("jwt_local", "one", frozenset(), frozenset(), streams=Streams(frozenset({"camera0"})))
    free = Caller("jwt_local", "two", frozenset(), frozenset({"stream:read"}))
    assert not held.covers(free)
    assert free.covers(held)


async def test_a_caller_cannot_issue_a_role_that_it_does_not_have(services_of_all: RunningDaemon) -> None:
    """`roles` bound like `role`."""
    with fail_after(30):
        async with keyed(services_of_all, permissions=["tokens:issue", "camera:read"]) as client:
            assert await reason_of(client, "issue_token", user_id="x", roles=["viewer", "admin"]) == "permission_denied"


CAM = r"~^cam[0-9A-Za-z_\-/.]*$"


async def reason(client: Conversation, method: str, **params: object) -> str:
    """Why a call fails; "" if it does not."""
    reply = await client.ask(method, **params)
    return str(reply["error"]["data"]["reason"]) if "error" in reply else ""


async def test_a_beginning_is_given_to_keys_users_and_tokens_and_shown_as_it_was(tmp_path: Path) -> None:
    """In a token it is what MediaMTX can read, too. What is neither a name, nor a beginning, nor all, is refused."""
    streams = {"read": ["cam*", "dock"], "publish": ["a/b-*"]}
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key = (await admin.call("create_key", name="k", role="viewer", streams=streams))["key_id"]
            assert (await admin.call("get_key", key_id=key))["streams"] == streams
            await admin.call("update_key", key_id=key, streams={"read": ["x*"]})
            assert (await admin.call("get_key", key_id=key))["streams"] == {"read": ["x*"], "publish": []}
            await admin.call("create_user", name="ann", role="viewer", streams=streams)
            assert (await admin.call("get_user", name="ann"))["streams"] == streams
            text = (await admin.call("issue_token", user_id="bob", streams=streams))["token"]
            claims = (await admin.call("validate_token", token=text))["payload"]
            assert claims["stream_access"] == streams
            assert claims["mediamtx_permissions"] == [
                {"action": "read", "path": CAM}, {"action": "read", "path": "dock"},
                {"action": "publish", "path": r"~^a/b-[0-9A-Za-z_\-/.]*$"},
            ]  # fmt: skip
            for odd in ("**", "*cam", "c*m", "cam**", "cam* ", "cam.*$", "~^cam", CAM, "ü*", "", "x" * 129 + "*"):
                for method, more in (
                    ("create_key", {"name": "k", "role": "viewer"}), ("update_key", {"key_id": key}),
                    ("issue_token", {"user_id": "bob"}), ("update_user", {"name": "ann"}),
                ):  # fmt: skip
                    assert await reason(admin, method, **more, streams={"read": [odd]}) == "invalid_params", odd


async def test_nobody_hands_on_a_wider_beginning_than_theirs(tmp_path: Path) -> None:
    """`cam*` gives `camera*`, `camera0` and itself; not `ca*`, not all, nothing else, and not to publish."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            made = await admin.call("create_key", name="k", role="admin", streams={"read": ["cam*"]})
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=made["api_key"])
                for read, publish, found in (
                    ("cam*", [], ""), ("camera*", [], ""), ("camera0", [], ""), ("ca*", [], "permission_denied"),
                    ("*", [], "permission_denied"), ("dock", [], "permission_denied"),
                    ("cam*", ["cam*"], "permission_denied"),
                ):  # fmt: skip
                    streams = {"read": [read], "publish": publish}
                    for method, more in (
                        ("issue_token", {"user_id": "bob"}), ("create_key", {"name": "x", "role": "viewer"}),
                    ):  # fmt: skip
                        assert await reason(client, method, **more, streams=streams) == found


async def test_a_beginning_opens_the_cameras_that_begin_so(tmp_path: Path) -> None:
    """By a key, by a token of edged's, and by one that others signed with the map or with MediaMTX's own expression."""
    secret, now = tokens.SharedSecret("test", SECRET), int(time.time())
    claims = {"sub": "bob", "role": "viewer", "iat": now, "exp": now + 60, "jti": "x"}
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:

            async def opens(credential: str) -> bool:
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=credential)
                    return await reason(client, "create_ticket", device="camera0") == ""

            for begins, opened in (("cam*", True), ("camera0*", True), ("camera00*", False), ("dock*", False)):
                streams = {"read": [begins]}
                key = await admin.call("create_key", name="k", role="viewer", streams=streams)
                token = await admin.call("issue_token", user_id="bob", role="viewer", streams=streams)
                listed = [{"action": "read", "path": CAM.replace("cam", begins[:-1])}]
                for credential in (
                    key["api_key"], token["token"], tokens.sign({**claims, "stream_access": streams}, secret),
                    tokens.sign({**claims, "mediamtx_permissions": streams}, secret),
                    tokens.sign({**claims, "mediamtx_permissions": listed}, secret),
                ):  # fmt: skip
                    assert await opens(credential) is opened
            for path in ("cam*", "~^cam", "~.*", CAM.removesuffix("$")):
                listed = [{"action": "read", "path": path}]
                assert not await opens(tokens.sign({**claims, "mediamtx_permissions": listed}, secret))
