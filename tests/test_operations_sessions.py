"""operations/sessions.py on a running daemon: active sessions are listed and ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from daemon_helpers import SECRET, ended, reason_of, running_daemon
from msgspec.structs import replace
from operations_helpers import Bench
from patience import fail_after

from edged.credentials import tokens
from edged.operations import sessions
from edged.operations.pages import make_page


def a_token(subject: str = "ann", role: str = "viewer", age: float = 0.0, **claims: object) -> str:
    now = int(time.time() - age)
    said = {"sub": subject, "role": role, "iat": now, "exp": now + 3600, "jti": f"{subject}{age}", **claims}
    return tokens.sign(said, tokens.SharedSecret("test", SECRET))


async def test_sessions_are_listed_without_secrets_and_each_caller_sees_its_own(tmp_path: Path) -> None:
    """Transport, subject, key or jti, since, deadline; an administrator sees all, others their own; in pages."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer", expires_in_days=1)
            token = a_token()
            async with daemon.websocket() as keyed, daemon.websocket() as tokened:
                mine = (await keyed.call("authenticate", auth_token=secret))["session_id"]
                theirs = (await tokened.call("authenticate", auth_token=token))["session_id"]
                listed = await admin.call("list_sessions")
                assert listed["total"] == 3
                assert secret not in str(listed)
                assert token not in str(listed)
                found = {item["session_id"]: item for item in listed["sessions"]}
                assert found[mine]["key_id"] == key_id
                assert found[mine]["deadline"] > found[mine]["since"]
                assert (found[theirs]["jti"], found[theirs]["subject"]) == ("ann0.0", "ann")
                assert {item["transport"] for item in found.values()} == {"ws", "uds"}
                own = await tokened.call("list_sessions")
                assert [item["session_id"] for item in own["sessions"]] == [theirs]
                page = await admin.call("list_sessions", limit=1, offset=1)
                assert (page["sessions"], page["total"]) == ([listed["sessions"][1]], 3)
                over_http = await daemon.request("GET", "/api/sessions?limit=5", key=secret)
                assert [item["session_id"] for item in over_http.json["sessions"]] == [mine]


async def test_ending_a_session_leaves_its_credential_valid(tmp_path: Path) -> None:
    """By an administrator, by another session of the same key, by itself; not by a stranger, who learns nothing."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, secret = await daemon.create_key("viewer")
            _, boss = await daemon.create_key("admin")
            for way in ("admin", "http", "own", "self"):
                async with daemon.websocket() as client, daemon.websocket() as other:
                    mine = (await client.call("authenticate", auth_token=secret))["session_id"]
                    await other.call("authenticate", auth_token=secret if way == "own" else a_token())
                    if way == "admin":
                        for name in (mine, "session_0"):
                            assert await reason_of(other, "end_session", session_id=name) == "permission_denied"
                        assert (await admin.call("end_session", session_id=mine))["session_id"] == mine
                    elif way == "http":
                        assert (await daemon.request("DELETE", f"/api/sessions/{mine}", key=boss)).status == 200
                        assert (await daemon.request("DELETE", f"/api/sessions/{mine}", key=boss)).status == 404
                    else:
                        await (other if way == "own" else client).call("end_session", session_id=mine)
                    assert await ended(client) == 4401
                    reason = client.connection.closed
                    assert reason is not None
                    assert reason.reason == "session ended"
            async with daemon.websocket() as client:
                assert (await client.call("authenticate", auth_token=secret))["authenticated"] is True


async def test_a_token_is_not_taken_for_a_key_or_a_user_of_its_name(tmp_path: Path) -> None:
    """Whoever is called like a key's subject, or like root's, sees none of their sessions."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer")
            root = (await admin.call("whoami"))["user_id"]
            async with daemon.websocket() as keyed:
                await keyed.call("authenticate", auth_token=secret)
                for name in (f"key:{key_id}", root):
                    async with daemon.websocket() as client:
                        await client.call("authenticate", auth_token=a_token(name))
                        assert (await client.call("list_sessions"))["total"] == 1


async def test_whoever_may_see_all_sessions_no_more_when_the_list_is_made_gets_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of an administrator whose key is a viewer's meanwhile: such a caller sees its own, by the next call."""
    bench = Bench()
    boss, other = bench.caller("admin"), bench.caller("viewer")
    for caller in (boss, other):
        bench.gate.admit(caller, "ws", lambda _cause, _by: None)
    session = bench.session(boss)
    assert (await bench.ask(session, "list_sessions")).total == 2

    async def make_slowly(*given: Any, **options: Any) -> Any:
        page = await make_page(*given, **options)
        bench.ledger.put_key(replace(bench.ledger.keys[boss.credential_id], role="viewer"))
        return page

    monkeypatch.setattr(sessions, "make_page", make_slowly)
    assert await bench.outcome(session, "list_sessions") == "missing_scope"
    monkeypatch.undo()
    assert (await bench.ask(session, "list_sessions")).total == 1
