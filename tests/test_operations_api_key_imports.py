"""operations/api_key_imports.py on a running daemon: keys that another service made."""

from __future__ import annotations

from pathlib import Path

from daemon_helpers import running_daemon
from patience import fail_after


async def test_an_expired_key_is_imported_and_refused_at_use(tmp_path: Path) -> None:
    """Its secret need be kept nowhere else; the end stays what it was, also where nobody has confirmed the clock."""
    ended = {"source_id": "1", "key": "E" * 32, "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            for status, reason in (("imported", "it has expired"), ("known", "it is known already")):
                (report,) = (await admin.call("import_keys", keys=[ended]))["keys"]
                assert (report["status"], report["reason"]) == (status, reason)
            shown = await admin.call("get_key", key_id=report["key_id"])
            assert (shown["status"], shown["expires_at"]) == ("expired", ended["expires_at"])
            assert not (await client.call("authenticate", token="E" * 32, auth_type="api_key"))["authenticated"]


async def test_an_import_reports_each_key_and_shows_no_secret(tmp_path: Path) -> None:
    """Taken, known, or refused and why; nobody imports a key that may do more than they may; never a secret back."""
    good = {"source_id": "1", "key": "A" * 32, "role": "user", "name": "Old", "created_at": "2999-01-01T00:00:00Z"}
    bad: list[dict[str, object]] = [
        {"key": "short"}, {"key": "x" * 257}, {"key": "tab\t" * 8}, {"key": "\u00e4" * 32}, {"role": "king"},
        {"expires_at": "soon"}, {"created_at": "long ago"},
        {"key": "camera_service_sk_" + "1234567890abcdef" * 4},
    ]  # fmt: skip
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            keys = [good, *({**good, **each, "source_id": str(at)} for at, each in enumerate(bad, start=2)), good]
            report = (await admin.call("import_keys", keys=keys))["keys"]
            assert [item["status"] for item in report] == ["imported", *["refused"] * len(bad), "known"]
            assert all(item["reason"] for item in report[1:])
            assert report[0]["key_id"] == report[-1]["key_id"]
            assert "A" * 32 not in str(report)
            shown = await admin.call("get_key", key_id=report[0]["key_id"])
            assert (shown["name"], shown["role"]) == ("Old", "operator")
            assert not shown["created_at"].startswith("2999")
            assert (await client.call("authenticate", token="A" * 32, auth_type="api_key"))["role"] == "operator"
            for wrong in ([], [good] * 101, [{"source_id": "1", "role": "viewer"}]):
                assert (await admin.ask("import_keys", keys=wrong))["error"]["code"] == -32602
            _, narrow = await daemon.create_key("admin", permissions=["keys:admin"])
            await client.call("authenticate", auth_token=narrow)
            refused = await client.ask("import_keys", keys=[{**good, "key": "B" * 32, "role": "admin"}])
            assert refused["error"]["data"]["reason"] == "permission_denied"
            assert (await admin.call("list_keys", role="admin"))["keys"][0]["name"] == "test admin"
