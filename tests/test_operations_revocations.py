"""operations/revocations.py on a running daemon: what a revocation may name, what it denies, and how it is listed."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from daemon_helpers import SECRET, RunningDaemon, ended, reason_of, running_daemon
from patience import fail_after

from edged.credentials import tokens


def a_token(subject: str = "ann", role: str = "viewer", age: float = 0.0, **claims: object) -> str:
    now = int(time.time() - age)
    said = {"sub": subject, "role": role, "iat": now, "exp": now + 3600, "jti": f"{subject}{age}", **claims}
    return tokens.sign(said, tokens.SharedSecret("test", SECRET))


async def deny(daemon: RunningDaemon, boss: str, **params: object) -> Any:
    reply = await daemon.request("POST", "/api/revocations", key=boss, body=params)
    assert reply.status == 201, reply.body
    return reply.json


@pytest.mark.parametrize("what", ["jti", "token_hash", "subject", "issuer", "before", "subject before", "key_id"])
async def test_a_revocation_by_any_identity_of_a_credential_denies_it(tmp_path: Path, what: str) -> None:
    """Its session closes with 4401, it is refused also after a restart, another one goes on; it is listed."""
    with fail_after(60):
        config = None
        token = a_token(age=100, iss="camera-service")
        other = a_token("bob", age=100) if what != "before" else a_token("bob", age=-5)
        async with running_daemon(tmp_path, cameras=0) as daemon:
            config = daemon.config
            _, boss = await daemon.create_key("admin")
            key_id, secret = await daemon.create_key("viewer")
            credential = secret if what == "key_id" else token
            digest = hashlib.sha256(token.encode()).hexdigest()
            named = {
                "jti": {"jti": "ann100"}, "token_hash": {"token_hash": digest}, "subject": {"subject": "ann"},
                "issuer": {"issuer": "camera-service"}, "before": {"before": "now"},
                "subject before": {"subject": "ann", "before": "now"}, "key_id": {"key_id": key_id},
            }[what]  # fmt: skip
            async with daemon.websocket() as client, daemon.websocket() as bystander:
                await client.call("authenticate", auth_token=credential)
                await bystander.call("authenticate", auth_token=other)
                told = await deny(daemon, boss, **named, reason="lost")
                assert {name: told[name] for name in named if name != "before"} == {
                    name: value for name, value in named.items() if name != "before"
                }
                assert await ended(client) == 4401
                assert (await bystander.call("whoami"))["user_id"] == "bob"
            listed = await daemon.request("GET", "/api/revocations", key=boss)
            (item,) = listed.json["revocations"]
            assert item["reason"] == "lost"
            assert item.keys() - {"at", "reason", "until", "provisional"} == named.keys()
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            assert await reason_of(client, "authenticate", auth_token=credential) == "revoked"
            assert (await client.call("authenticate", auth_token=other))["authenticated"] is True


BAD_REVOCATIONS: tuple[dict[str, object], ...] = (
        {}, {"jti": "a", "subject": "b"}, {"jti": "a", "before": "now"}, {"token_hash": "xyz"}, {"jti": ""},
        {"subject": "a", "issuer": "b", "before": "now"}, {"before": "2099-01-01T00:00:00Z"}, {"before": "soon"},
        {"before": 5}, {"jti": "x" * 257}, {"jti": "a", "reason": "x" * 201},
)  # fmt: skip


async def test_a_revocation_that_names_nothing_or_too_much_denies_nothing(tmp_path: Path) -> None:
    """-32602, and the list stays empty."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for wrong in BAD_REVOCATIONS:
                assert (await admin.ask("revoke", **wrong))["error"]["code"] == -32602, wrong
            assert await admin.call("list_revocations") == {"revocations": [], "total": 0}


async def test_the_right_to_revoke_tokens_does_not_revoke_keys(tmp_path: Path) -> None:
    """That needs keys:admin, too, as revoke_key does; one that does not exist is not found."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            key_id, _ = await daemon.create_key("viewer")
            _, secret = await daemon.create_key("admin", permissions=["tokens:revoke"])
            await client.call("authenticate", auth_token=secret)
            assert await reason_of(client, "revoke", key_id=key_id) == "permission_denied"
            assert (await client.call("revoke", jti="x", reason="test"))["jti"] == "x"
            assert (await admin.ask("revoke", key_id="key_0"))["error"]["code"] == -32010


async def test_revocations_are_listed_in_pages_newest_first(tmp_path: Path) -> None:
    """Lines in time stand among the names."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for params in ({"jti": "1"}, {"before": "2020-01-01"}, {"subject": "x"}):
                await admin.call("revoke", **params)
            listed = await admin.call("list_revocations")
            assert [item.get("subject") or item.get("before") or item["jti"] for item in listed["revocations"]] == [
                "x", "2020-01-01T00:00:00Z", "1"
            ]  # fmt: skip
            page = await admin.call("list_revocations", limit=1, offset=1)
            assert (page["revocations"], page["total"]) == ([listed["revocations"][1]], 3)


async def test_a_caller_may_revoke_its_own_token_and_no_other(tmp_path: Path) -> None:
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


async def test_a_key_id_beside_a_jti_revokes_neither(tmp_path: Path) -> None:
    """Which of the two is meant is not guessed."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer")
            assert (await admin.ask("revoke_token", token=secret, jti="x"))["error"]["code"] == -32602
            assert (await admin.call("get_key", key_id=key_id))["status"] == "active"
            assert (await admin.call("list_revocations"))["total"] == 0
