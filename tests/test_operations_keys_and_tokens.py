"""operations/{api_keys,tokens}.py on the running daemon: what may be handed on, asked, and refused."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import trio
import trio.testing
from daemon_helpers import SECRET, Conversation, RunningDaemon, ended, make_config, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from rtsp_client import RtspReader

from edged.clock import iso
from edged.credentials import tokens
from edged.credentials.callers import Caller, Streams
from edged.credentials.claims import RESERVED
from edged.credentials.roles import CAPABILITIES


@asynccontextmanager
async def keyed(daemon: RunningDaemon, role: str = "admin", **params: object) -> AsyncIterator[Conversation]:
    """A conversation by a new key."""
    _, key = await daemon.create_key(role, **params)
    async with daemon.websocket() as client:
        await client.call("authenticate", auth_token=key)
        yield client


async def reason_of(client: Conversation, method: str, **params: object) -> str:
    """Why a call was refused, as the caller is told."""
    return str((await client.ask(method, **params))["error"]["data"]["reason"])


@pytest.fixture(scope="module")
def folder_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture
async def services_of_all(folder_of_all: Path) -> AsyncIterator[RunningDaemon]:
    """One of which each test asks a little; its key pairs are made once."""
    async with running_daemon(folder_of_all) as daemon:
        yield daemon


async def test_a_narrowed_administrator_hands_on_no_more_than_it_has(tmp_path: Path) -> None:
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


async def test_whoever_is_held_to_one_camera_makes_keys_for_that_camera_only(tmp_path: Path) -> None:
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


async def test_a_key_ends_when_it_says(tmp_path: Path) -> None:
    """expires_at is kept and shown; a past or unreadable one is refused with what to write instead."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, keyed(daemon) as client:
            made = await client.call("create_key", name="k", role="viewer", expires_at="2099-01-31T00:00:00Z")
            assert made["expires_at"] == "2099-01-31T00:00:00Z"
            days = await client.call("create_key", name="k", role="viewer", expires_in_days=1)
            assert days["expires_at"] > made["created_at"]
            for wrong in ("2001-01-01T00:00:00Z", "soon", "2099-01-31T00:00:00+99:99"):
                refused = await client.ask("create_key", name="k", role="viewer", expires_at=wrong)
                assert refused["error"]["code"] == -32602


@pytest.mark.parametrize(
    "params",
    [
        {"name": "", "role": "viewer"},
        {"name": "x" * 101, "role": "viewer"},
        {"name": "x", "role": "king"},
        {"name": "x"},
        {"role": "viewer"},
        {"name": 5, "role": "viewer"},
        {"name": "x", "role": "viewer", "permissions": ["*:x"]},
        {"name": "x", "role": "viewer", "permissions": ["p"] * 65},
        {"name": "x", "role": "viewer", "camera_access": ["c" * 129]},
        {"name": "x", "role": "viewer", "expires_in_days": 0},
        {"name": "x", "role": "viewer", "expires_in_days": True},
        {"name": "x", "role": "viewer", "expires_in_days": 5, "expires_at": "2099-01-31T00:00:00Z"},
    ],
)
async def test_bad_params_make_no_key(tmp_path: Path, params: dict[str, object]) -> None:
    """-32602, and the list of keys is as before."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            assert (await admin.ask("create_key", **params))["error"]["code"] == -32602
            assert (await admin.call("list_keys"))["keys"] == []


async def test_a_list_can_be_narrowed_to_roles_states_and_the_unused(tmp_path: Path) -> None:
    """role, status and unused_days each leave what fits; usage is counted."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            viewer, secret = await daemon.create_key("viewer")
            revoked, _ = await daemon.create_key("operator")
            await daemon.revoke_key(revoked)
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=secret)

            async def ids(**params: object) -> list[str]:
                return [item["key_id"] for item in (await admin.call("list_keys", **params))["keys"]]

            assert await ids() == [viewer, revoked]
            assert await ids(role="user") == [revoked]
            assert await ids(status="active") == [viewer]
            assert await ids(status="revoked") == [revoked]
            assert await ids(unused_days=1) == []
            item = await admin.call("get_key", key_id=viewer)
            assert item["usage_count"] == 1
            assert item["last_used"] is not None
            assert secret not in str(item)


async def test_a_key_may_look_at_and_rotate_itself_alone(tmp_path: Path) -> None:
    """Its own record is shown and its own secret replaced; another's is not."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            mine, old = await daemon.create_key("viewer")
            other, _ = await daemon.create_key("viewer")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=old)
                assert (await client.call("get_key", key_id=mine))["role"] == "viewer"
                assert await reason_of(client, "get_key", key_id=other) == "permission_denied"
                assert await reason_of(client, "rotate_key", key_id=other) == "permission_denied"
                new = await client.call("rotate_key", key_id=mine, grace_seconds=3600)
                assert new["key_id"] == mine
                assert new["api_key"] == new["new_api_key"] != old
                for secret in (old, new["api_key"]):
                    assert (await client.call("authenticate", auth_token=secret))["authenticated"] is True


async def test_rotation_without_grace_ends_the_old_secret(tmp_path: Path) -> None:
    """The new one opens, the old one is expired."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            key_id, old = await daemon.create_key("viewer")
            async with daemon.local() as admin:
                new = (await admin.call("rotate_key", key_id=key_id, grace_seconds=0))["api_key"]
            async with daemon.websocket() as client:
                assert await reason_of(client, "authenticate", auth_token=old) == "expired"
                assert (await client.call("authenticate", auth_token=new))["authenticated"] is True


async def test_an_unknown_key_is_not_found_and_a_revoked_one_is_not_rotated(tmp_path: Path) -> None:
    """-32010 for one, -32020 for the other; revoking again is fine."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for method in ("get_key", "rotate_key", "revoke_key"):
                assert (await admin.ask(method, key_id="key_0000"))["error"]["code"] == -32010
            key_id, _ = await daemon.create_key()
            for _ in range(2):
                assert (await admin.call("revoke_key", key_id=key_id))["message"] == "API key revoked successfully"
            assert (await admin.ask("rotate_key", key_id=key_id))["error"]["code"] == -32020


async def test_an_issued_token_opens_what_its_role_says_until_it_is_revoked(tmp_path: Path) -> None:
    """issue_token → authenticate → revoke_token by jti: closed with 4401, and never good again."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            issued = await admin.call("issue_token", user_id="guest", role="viewer", expires_in=60)
            assert issued["token_type"] == "Bearer"
            async with daemon.websocket() as client:
                answer = await client.call("authenticate", auth_token=issued["token"])
                assert answer["user_id"] == "guest"
                assert (await client.call("get_camera_list"))["total"] == 2
                valid = await client.call("validate_token", token=issued["token"], required_role="admin")
                assert valid["errors"] == ["Required role 'admin' not found"]
                assert await reason_of(client, "issue_token", user_id="x") == "permission_denied"
                assert (await admin.call("revoke_token", jti=issued["jti"])) == {"revoked": True}
                assert await ended(client) == 4401
            async with daemon.websocket() as client:
                assert await reason_of(client, "authenticate", auth_token=issued["token"]) == "revoked"
            assert (await admin.call("validate_token", token=issued["token"]))["errors"] == ["Token is blacklisted"]


async def test_an_issued_token_says_what_it_was_told_to_say_and_whose_it_is(tmp_path: Path) -> None:
    """S2-18, S0-4, S0-11: roles and claims of one's own, shown by whoami and kept by a refresh; issuer and epoch, no
    audience; by a shared secret and by a key pair alike."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            for key in ("HS256", "RS256"):
                extra = {"department": {"floor": 3}, "custom_field": [1, "two"], "name": "Ada"}
                made = await admin.call(
                    "issue_token", user_id="ada", roles=["viewer", "operator"], claims=extra, signing_key=key
                )
                again = await admin.call("refresh_token", token=made["token"])
                for text in (made["token"], again["token"]):
                    claims = tokens.peek_claims(text)
                    assert {name: claims[name] for name in extra} == extra
                    assert (claims["iss"], claims["epoch"], claims["roles"]) == ("edged", 0, ["viewer", "operator"])
                    assert claims.keys() & {"aud", "role"} == set()
                    async with daemon.websocket() as client:
                        assert (await client.call("authenticate", auth_token=text))["role"] == "operator"
                        told = await client.call("whoami")
                        assert (told["username"], told["claims"]) == ("Ada", claims)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        *(({"claims": {name: "x"}}, name) for name in sorted(RESERVED)),
        ({"claims": {"name": 1}}, "name is not a string"),
        ({"claims": {"blob": "x" * 9000}}, "longer than 8192"),
        ({"claims": {"deep": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}}, "nested deeper"),
        ({"permissions": ["camera:read"] * 11}, "permissions"),
        ({"roles": ["root"]}, "roles"),
    ],
)
async def test_what_edged_decides_by_is_nobodys_claim(
    services_of_all: RunningDaemon, params: dict[str, object], named: str
) -> None:
    """Neither a registered name nor one that edged reads; nor a token that edged itself would not read."""
    with fail_after(30):
        async with services_of_all.local() as admin:
            reply = await admin.ask("issue_token", user_id="ada", **params)
            assert reply["error"]["code"] == -32602
            assert named in json.dumps(reply["error"])


async def test_nobody_hands_on_a_role_that_they_do_not_have(services_of_all: RunningDaemon) -> None:
    """`roles` bound like `role`."""
    with fail_after(30):
        async with keyed(services_of_all, permissions=["tokens:issue", "camera:read"]) as client:
            assert await reason_of(client, "issue_token", user_id="x", roles=["viewer", "admin"]) == "permission_denied"


async def test_everybody_may_revoke_their_own_token_and_nobody_anothers(tmp_path: Path) -> None:
    """A viewer's own token ends by its text; somebody else's jti needs tokens:revoke."""
    secret = tokens.SharedSecret("test", SECRET)
    now = int(time.time())
    mine, other = (
        tokens.sign({"sub": name, "role": "viewer", "iat": now, "exp": now + 60, "jti": name}, secret)
        for name in ("mine", "other")
    )
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            await client.call("authenticate", auth_token=mine)
            assert await reason_of(client, "revoke_token", jti="other") == "permission_denied"
            forged = tokens.sign(
                {"sub": "mine", "exp": now + 60, "jti": "other"},
                tokens.SharedSecret("x", "a secret that nobody in here knows"),
            )
            assert await client.call("revoke_token", token=forged) == {"revoked": False}
            assert await client.call("revoke_token", jti="mine") == {"revoked": True}
            assert await ended(client) == 4401
            async with daemon.websocket() as again:
                assert (await again.call("authenticate", auth_token=other))["authenticated"] is True


@pytest.mark.parametrize(
    "params", [{}, {"jti": "a", "token_hash": "b"}, {"token_hash": "xyz"}, {"token": "a.b"}, {"token": "..."}]
)
async def test_a_revocation_names_exactly_one_thing(tmp_path: Path, params: dict[str, str]) -> None:
    """-32602 for none, several, or what is no token at all."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            assert (await admin.ask("revoke_token", **params))["error"]["code"] == -32602


async def test_a_key_beside_a_jti_ends_neither(tmp_path: Path) -> None:
    """Which of the two is meant is not guessed."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer")
            assert (await admin.ask("revoke_token", token=secret, jti="x"))["error"]["code"] == -32602
            assert (await admin.call("get_key", key_id=key_id))["status"] == "active"
            assert (await admin.call("list_revocations"))["total"] == 0


async def test_without_a_shared_secret_a_key_pair_signs_and_hs256_tells_how(tmp_path: Path) -> None:
    """RS256 by default; -32030 with the line that makes a secret for whoever wants HS256."""
    config = make_config(tmp_path, cameras=0)
    config = msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, shared_secrets={}))
    with fail_after(30):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            issued = await admin.call("issue_token", user_id="x")
            assert (await admin.call("validate_token", token=issued["token"]))["payload"]["iss"] == "edged"
            refused = await admin.ask("issue_token", user_id="x", signing_key="HS256")
            assert refused["error"]["code"] == -32030
            assert "openssl rand" in str(refused["error"]["data"])


async def test_validation_says_what_is_missing_or_wrong(tmp_path: Path) -> None:
    """Guide S0's texts: missing permissions, expired, no expiry, a signature of somebody else."""
    secret = tokens.SharedSecret("test", SECRET)
    now = int(time.time())
    base: dict[str, object] = {"sub": "x", "role": "viewer", "permissions": ["camera:read"]}
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:

            async def errors(claims: dict[str, object], **params: object) -> list[str]:
                text = tokens.sign(claims, secret)
                return list((await admin.call("validate_token", token=text, **params))["errors"])

            good = base | {"iat": now, "exp": now + 60}
            assert await errors(good, required_permissions=["camera:read"]) == []
            assert await errors(good, required_permissions=["camera:write"]) == [
                "Missing permissions: ['camera:write']"
            ]
            assert await errors(base | {"exp": now - 5}) == ["Token has expired"]
            assert await errors(base) == ["Missing required claim: exp"]
            assert await errors(good | {"iat": now + 3600}) == ["Token issued in the future"]
            old = await admin.call("validate_token", token=tokens.sign(good | {"iat": now - 40 * 86400}, secret))
            assert old["warnings"] == ["Token is very old", "Suspicious token patterns detected"]
            foreign = tokens.sign(good, tokens.SharedSecret("x", "a secret that nobody in here knows"))
            answer = await admin.call("validate_token", token=foreign)
            assert answer["valid"] is False
            assert answer["errors"][0].startswith("Invalid token: ")


async def test_a_token_that_is_not_valid_shows_no_claims(tmp_path: Path) -> None:
    """Guide S0 returns `False, None, text`: also where nothing is wrong but what was asked of it. Nothing is asked by
    an empty role or list. The gate lets in whom it let in before."""
    secret, now = tokens.SharedSecret("test", SECRET), int(time.time())
    seed_000 = {"sub": "x", "role": "viewer", "permissions": ["camera:read"], "iat": now, "exp": now + 60, "jti": "j"}
    seed_001 = {"user_id": "x", "role": "viewer", "iat": now, "exp": now + 60}
    no_sub = "Missing required claim: sub"
    suspicious = "Suspicious token patterns detected"
    judged: tuple[tuple[dict[str, object], dict[str, object], list[str], list[str]], ...] = (
        (seed_000, {}, [], []),
        (seed_000, {"required_role": "", "required_permissions": []}, [], []),
        (seed_000, {"required_role": "viewer", "required_permissions": ["camera:read"]}, [], []),
        (seed_000, {"required_role": "admin"}, ["Required role 'admin' not found"], []),
        (seed_000, {"required_permissions": ["x", "camera:read"]}, ["Missing permissions: ['x']"], []),
        (seed_001, {}, [], [no_sub, suspicious]),
        (seed_001, {"required_role": "admin"}, ["Required role 'admin' not found"], [no_sub, suspicious]),
        (without(seed_000, "sub"), {}, [no_sub], []),
        (without(seed_000, "exp"), {}, ["Missing required claim: exp"], []),
        (without(seed_000, "iat"), {}, ["Missing required claim: iat"], []),
        (seed_000 | {"nbf": now + 900}, {}, ["Invalid token: The token is not yet valid (nbf)"], []),
        (seed_000 | {"iat": now + 900}, {}, ["Token issued in the future"], []),
    )
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            for claims, params, errors, warnings in judged:
                text = tokens.sign(claims, secret)
                told = await admin.call("validate_token", token=text, **params)
                assert told == {
                    "valid": not errors, "errors": errors, "warnings": warnings, "payload": None if errors else claims,
                }  # fmt: skip
                if claims in (seed_000, seed_001, without(seed_000, "iat")):
                    assert (await client.call("authenticate", auth_token=text))["authenticated"]


def without(claims: dict[str, object], name: str) -> dict[str, object]:
    return {member: value for member, value in claims.items() if member != name}


@pytest.mark.parametrize(
    "odd", ["0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01"]
)
async def test_a_time_before_1970_or_after_9999_is_refused_and_breaks_no_list(tmp_path: Path, odd: str) -> None:
    """Wherever a time can be given it is refused by name, nothing is kept of it, and every list can still be asked."""
    sentence = "lies outside of the years 1970 to 9999"
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, _ = await daemon.create_key("viewer")
            _, key = await daemon.create_key("admin")

            async def refusal(method: str, **params: object) -> str:
                error = (await admin.ask(method, **params))["error"]
                assert error["code"] == -32602, error
                return str(error)

            foreign = {"source_id": "a", "key": "k" * 40, "role": "viewer"}
            for member in ("created_at", "expires_at"):
                report = (await admin.call("import_keys", keys=[{**foreign, member: odd}]))["keys"][0]
                assert (report["status"], report["key_id"]) == ("refused", None)
                assert sentence in report["reason"]
            assert sentence in await refusal("create_key", name="x", role="viewer", expires_at=odd)
            assert sentence in await refusal("update_key", key_id=key_id, expires_at=odd)
            assert sentence in await refusal("revoke", subject="zz", before=odd)
            reply = await daemon.request("POST", "/api/revocations", key=key, body={"subject": "zz", "before": odd})
            assert reply.status == 400
            assert sentence in reply.json["detail"]
            assert len((await admin.call("list_keys"))["keys"]) == 2
            assert (await admin.call("list_revocations"))["total"] == 0


async def test_odd_times_that_stand_in_the_database_break_no_list(tmp_path: Path) -> None:
    """What an earlier version took, or a damaged row says, is told as the nearest time that a calendar has."""
    config = make_config(tmp_path, cameras=0)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            key_id, _ = await daemon.create_key("viewer")
            await admin.call("create_service_token", name="uploads")
            await admin.call("create_user", name="ann", password="a long password", role="viewer")
            await admin.call("revoke", subject="zz", before="2020-01-01T00:00:00Z")
            await admin.call("revoke", jti="gone")
        odd = (-62135646000.0, float("-inf"), float("inf"), 1e300)
        with closing(sqlite3.connect(config.paths.state / "trust.db")) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            times = {
                name: [row[1] for row in db.execute(f"PRAGMA table_info({name})") if row[2] == "REAL"] for name in names
            }
            values = cycle(odd)
            for name in ("api_keys", "service_tokens", "users", "revocations", "cut_offs", "signing_keys"):
                assert times[name], name
                for column in times[name]:
                    db.execute(f"UPDATE {name} SET {column} = ? WHERE {column} IS NOT NULL", (next(values),))
            db.commit()
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            assert [item["key_id"] for item in (await admin.call("list_keys"))["keys"]] == [key_id]
            assert (await admin.call("list_revocations"))["total"] == 2
            for listing in ("list_service_tokens", "list_users", "list_signing_keys", "list_sessions"):
                assert await admin.call(listing), listing


async def test_a_key_that_somebody_is_inside_by_is_in_use(
    tmp_path: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that logged in 90 days ago and has said nothing since stands in no list of unused keys."""
    ahead = 0.0
    monkeypatch.setattr("edged.clock.time", SimpleNamespace(time=lambda: 1_800_000_000.0 + ahead + trio.current_time()))
    async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
        key_id, secret = await daemon.create_key("viewer")
        idle, _ = await daemon.create_key("viewer")

        async def unused(days: float) -> list[str]:
            return [item["key_id"] for item in (await admin.call("list_keys", unused_days=days))["keys"]]

        async with daemon.websocket() as client:
            await client.call("authenticate", auth_token=secret)
            login = await admin.call("get_key", key_id=key_id)
            ahead += 90 * 86400.0
            assert await unused(1) == [idle]
            shown = await admin.call("get_key", key_id=key_id)
            assert (shown["last_used"], shown["usage_count"]) == (iso(1_800_000_000 + ahead), login["usage_count"])
            mock_clock.jump(60)
            await client.call("ping")
        while (await admin.call("list_sessions"))["sessions"][1:]:
            await trio.testing.wait_all_tasks_blocked()
        ahead += 0.5 * 86400
        assert (await admin.call("get_key", key_id=key_id))["last_used"] == iso(1_800_000_060 + 90 * 86400)
        assert await unused(0.6) == [idle]
        ahead += 30 * 86400
        assert set(await unused(30)) == {key_id, idle}


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
@pytest.mark.parametrize("by", ["password", "ticket"])
async def test_a_key_whose_stream_flows_is_in_use(tmp_path: Path, by: str) -> None:
    """Whoever watches by it, or by a ticket of it, uses it until they leave, without another login."""
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            key_id, secret = await daemon.create_key("viewer")
            shown = secret
            if by == "ticket":
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=secret)
                    shown = (await client.call("create_ticket", device="camera0"))["ticket"]
            viewer = RtspReader(daemon.rtsp, "camera0", "anybody", shown)
            try:
                await viewer.play()
                login = await admin.call("get_key", key_id=key_id)
                while (item := await admin.call("get_key", key_id=key_id))["last_used"] <= login["last_used"]:
                    await trio.sleep(0.05)
                assert item["usage_count"] == login["usage_count"]
            finally:
                await viewer.aclose()


async def test_a_replaced_secret_makes_no_new_one(tmp_path: Path) -> None:
    """Whoever found the old secret of a key that was rotated for it cannot take the key over in the grace; also one of
    two that ask at once. The newest may."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            key_id, old = await daemon.create_key("admin")
            path = f"/api/keys/{key_id}/rotate"
            async with daemon.local() as admin:
                new = (await admin.call("rotate_key", key_id=key_id))["api_key"]
            async with daemon.websocket() as thief:
                await thief.call("authenticate", auth_token=old)
                refusal = await thief.ask("rotate_key", key_id=key_id, grace_seconds=0)
                assert refusal["error"]["data"]["reason"] == "invalid_state"
                assert "was replaced" in refusal["error"]["data"]["detail"]
            assert (await daemon.request("POST", path, key=old, body={"grace_seconds": 0})).status == 409
            found = []

            async def rotate() -> None:
                found.append((await daemon.request("POST", path, key=new)).status)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(rotate)
                nursery.start_soon(rotate)
            assert sorted(found) == [200, 409]


@pytest.mark.parametrize("kind", ["key", "service_token"])
async def test_a_second_rotation_keeps_what_the_first_one_promised(tmp_path: Path, kind: str) -> None:
    """Each secret is good for its own grace, also over a restart; after four the next has to wait, or to end them."""
    with fail_after(60):
        secrets: list[str] = []

        async def good(daemon: RunningDaemon) -> list[bool]:
            found = []
            for each in secrets:
                if kind == "key":
                    reply = await daemon.request("GET", "/api/keys", key=each)
                else:
                    shown = {"X-Service-Token": each}
                    reply = await daemon.request("POST", "/v1/files/generate-token?user_id=ann", headers=shown)
                found.append(reply.status == 200)
            return found

        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            given: dict[str, object] = {"role": "admin"} if kind == "key" else {}
            made = await admin.call(f"create_{kind}", **({"name": "k"} | given))
            name = {id_: made[id_] for id_ in ("key_id", "token_id") if id_ in made}
            secrets.append(made["api_key" if kind == "key" else "service_token"])
            for _ in range(4):
                made = await admin.call(f"rotate_{kind}", **name, grace_seconds=600)
                secrets.append(made["api_key" if kind == "key" else "service_token"])
            assert await good(daemon) == [True] * 5
            crowded = await admin.ask(f"rotate_{kind}", **name)
            assert crowded["error"]["data"]["reason"] == "invalid_state"
            assert "grace" in crowded["error"]["data"]["detail"]
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            assert await good(daemon) == [True] * 5
            made = await admin.call(f"rotate_{kind}", **name, grace_seconds=0)
            secrets.append(made["api_key" if kind == "key" else "service_token"])
            assert await good(daemon) == [False] * 5 + [True]
