"""operations/api_key_secrets.py on a running daemon: rotation, and for how long the previous secret is good."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from daemon_helpers import RunningDaemon, reason_of, running_daemon
from patience import fail_after


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


async def test_a_replaced_secret_cannot_rotate_its_key(tmp_path: Path) -> None:
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
async def test_a_second_rotation_does_not_shorten_the_grace_of_the_first(tmp_path: Path, kind: str) -> None:
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
