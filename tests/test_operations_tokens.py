"""operations/tokens.py on a running daemon: issuing tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_helpers import RunningDaemon, ended, make_config, reason_of, running_daemon
from patience import fail_after

from edged.credentials import tokens
from edged.credentials.claims import RESERVED


@pytest.fixture(scope="module")
def folder_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture
async def services_of_all(folder_of_all: Path) -> AsyncIterator[RunningDaemon]:
    """One of which each test asks a little; its key pairs are made once."""
    async with running_daemon(folder_of_all) as daemon:
        yield daemon


async def test_an_issued_token_grants_its_role_until_it_is_revoked(tmp_path: Path) -> None:
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


async def test_an_issued_token_has_the_claims_asked_for_and_names_its_subject(tmp_path: Path) -> None:
    """S2-18, S0-4, S0-11: roles and claims of one's own, shown by whoami and kept by a refresh; issuer and epoch, no
    audience; by a shared secret and by a key pair alike."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            for key in ("HS256", "RS256"):
                extra = {"department": {"level": 3}, "custom_field": [1, "two"], "name": "Ada"}
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


async def test_claims_that_edged_decides_by_cannot_be_set_by_the_caller(services_of_all: RunningDaemon) -> None:
    """Neither a registered name nor one that edged reads; nor a token that edged itself would not read."""
    wrong: list[tuple[dict[str, Any], str]] = [
        *(({"claims": {name: "x"}}, name) for name in sorted(RESERVED)),
        ({"claims": {"name": 1}}, "name is not a string"),
        ({"claims": {"blob": "x" * 9000}}, "longer than 8192"),
        ({"claims": {"deep": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}}, "nested deeper"),
        ({"permissions": ["camera:read"] * 11}, "permissions"),
        ({"roles": ["root"]}, "roles"),
    ]
    with fail_after(30):
        async with services_of_all.local() as admin:
            for params, named in wrong:
                reply = await admin.ask("issue_token", user_id="ada", **params)
                assert reply["error"]["code"] == -32602, named
                assert named in json.dumps(reply["error"])


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
