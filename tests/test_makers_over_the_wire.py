"""The running daemon: what a revoked token or key has made, and a partner whose tokens have the jtis of edged's own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from daemon_helpers import Conversation, RunningDaemon, running_daemon
from issuer_helpers import Authority, Company, key_server, respond
from patience import fail_after
from test_issuers_over_the_wire import bearer, enters, enters_soon, trusting
from test_users_over_the_wire import add, claims_of, log_in

from edged.config.model import IssuerSettings


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


async def make_with(daemon: RunningDaemon, credential: str) -> tuple[str, str]:
    """(a token, an API key's id) that were made with this credential."""
    async with daemon.websocket() as client:
        await client.call("authenticate", auth_token=credential)
        issued = await client.call("issue_token", user_id="guest", role="admin")
        key = await client.call("create_key", name="made", role="viewer", owner=None)
    return str(issued["token"]), str(key["key_id"])


async def status_of(admin: Conversation, key_id: str) -> str:
    return str((await admin.call("get_key", key_id=key_id))["status"])


@pytest.mark.parametrize("how", ["jti", "token_hash", "token", "refreshed"])
@pytest.mark.parametrize("include_made", [False, True])
async def test_what_a_login_made_ends_with_its_token(tmp_path: Path, how: str, include_made: bool) -> None:
    """The token that it issued always does, by whatever name the login's is revoked; its key only if that is asked."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            await add(daemon, "ann", "admin")
            login = await log_in(daemon)
            token, key_id = await make_with(daemon, login)
            second, _ = await make_with(daemon, token)
            bystander = await log_in(daemon)
            claims = claims_of(login)
            if how == "refreshed":
                # Another member of its family.
                async with daemon.websocket() as client:
                    claims = claims_of((await client.call("refresh_token", token=login))["token"])
                how = "jti"
            if how == "token":
                done = await admin.call("revoke_token", token=login, include_made=include_made)
            elif how == "jti":
                done = await admin.call("revoke", jti=claims["jti"], include_made=include_made)
            else:
                hashed = hashlib.sha256(login.encode()).hexdigest()
                done = await admin.call("revoke", token_hash=hashed, include_made=include_made)
            assert not await enters(daemon, token)
            assert not await enters(daemon, second)
            assert await enters(daemon, bystander)
            assert await status_of(admin, key_id) == ("revoked" if include_made else "active")
            assert ("also_revoked" in done) == include_made
            if include_made:
                assert key_id in done["also_revoked"]


async def test_what_a_key_made_ends_with_it_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Over HTTP; its tokens end always, the keys that it or its tokens made with include_made, and who made a key is
    told with it."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("admin")
            token, first = await make_with(daemon, secret)
            _, second = await make_with(daemon, token)
            other, _ = await daemon.create_key("viewer")
            service = await admin.call("create_service_token", name="root's")
            assert (await admin.call("get_key", key_id=first))["made_by"] == [f"key:{key_id}"]
            assert f"key:{key_id}" in (await admin.call("get_key", key_id=second))["made_by"]
            _, root = await daemon.create_key("admin")
            wrong = await daemon.request("DELETE", f"/api/keys/{key_id}?include_made=maybe", key=root)
            assert wrong.status == 400
            reply = await daemon.request("DELETE", f"/api/keys/{key_id}", key=root)
            assert (reply.status, "also_revoked" in reply.json) == (200, False)
            assert not await enters(daemon, token)
            assert [await status_of(admin, each) for each in (first, second)] == ["active", "active"]
            reply = await daemon.request("DELETE", f"/api/keys/{key_id}?include_made=true", key=root)
            assert sorted(reply.json["also_revoked"]) == sorted([first, second])
            assert [await status_of(admin, each) for each in (first, second, other)] == ["revoked", "revoked", "active"]
            listed = (await admin.call("list_service_tokens"))["service_tokens"]
            assert [item["status"] for item in listed if item["token_id"] == service["token_id"]] == ["active"]


async def test_a_partner_s_token_with_the_jti_of_edged_s_own_ends_itself(tmp_path: Path, authority: Authority) -> None:
    """It is a viewer's, and its holder may revoke it: edged's administrator of the same jti goes on, and so does
    another partner's token; an administrator names one issuer's, or all."""
    ours, theirs = Company().add("a"), Company(issuer="https://other.example").add("b")
    with fail_after(80):
        async with key_server(lambda _head: respond(ours.jwks()), authority.context("localhost")) as one, \
                key_server(lambda _head: respond(theirs.jwks()), authority.context("localhost")) as two:  # fmt: skip
            config = trusting(
                tmp_path, cameras=0,
                company=IssuerSettings(issuer=ours.issuer, jwks=f"https://localhost:{one.port}/a", ceiling="viewer"),
                other=IssuerSettings(issuer=theirs.issuer, jwks=f"https://localhost:{two.port}/b", ceiling="viewer"),
            )  # fmt: skip
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                issued = await admin.call("issue_token", user_id="ann", role="admin")
                jti, own = issued["jti"], issued["token"]
                partners = [ours.sign("a", role="viewer", jti=jti, n=number) for number in range(4)]
                other = theirs.sign("b", role="viewer", jti=jti)
                for text in (*partners, other):
                    await enters_soon(daemon, text)
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=partners[0])
                    sessions = (await client.call("list_sessions"))["sessions"]
                    assert {item["name"] for item in sessions} <= {"ann"}
                    assert (await client.call("revoke_token", jti=jti))["revoked"]
                assert not await enters(daemon, partners[1])
                assert await enters(daemon, own)
                assert await enters(daemon, other)
                reply = await daemon.request(
                    "POST", "/oauth/revoke", headers={**bearer(other), "Content-Type": "application/json"}, body={}
                )
                assert reply.status == 400
                assert (await admin.call("revoke_token", token=other))["revoked"]
                assert not await enters(daemon, other)
                assert await enters(daemon, own)
                listed = (await admin.call("list_revocations"))["revocations"]
                assert {item["issuer"] for item in listed if item.get("jti") == jti} == {ours.issuer, theirs.issuer}
                wrong = await admin.ask("revoke", jti=jti, issuer="https://nobody.example")
                assert "nobody is trusted" in str(wrong["error"])
                await admin.call("revoke", jti=jti)
                assert not await enters(daemon, own)
