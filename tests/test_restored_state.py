"""The whole daemon on a trust database that is older than it was: nobody is let in before somebody confirms it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fork_server
import pytest
import trio
from daemon_helpers import SECRET
from durability_helpers import Box

from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.store import backups
from edged.store.migrations import TRUST

COMMAND = "edged trust confirm-restore"
FILES = ("trust.db", "trust.db-wal", "trust.db-shm")


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """Running, with a shared secret and Prometheus text for whoever asks on loopback."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    box = Box(tmp_path, settings=f'[auth.shared_secrets]\ntest = "{secret}"', command="serve")
    try:
        await box.start()
        yield box
    finally:
        box.kill()


async def run(box: Box, *words: str | Path, code: int = 0) -> str:
    """A command of the box, with its settings; what it printed."""
    log = box.folder / "printed"
    log.unlink(missing_ok=True)
    command = fork_server.start(["-m", "edged", *words, "--directory", box.folder / "conf.d"], os.environ, log)
    ended = await trio.to_thread.run_sync(command.wait)
    printed = log.read_text()
    assert ended == code, printed
    return printed


def copy_by_hand(box: Box) -> Path:
    """cp, while it runs: the file and its log."""
    kept = box.folder / "by hand"
    kept.mkdir()
    for name in FILES[:2]:
        shutil.copy(box.folder / "state" / name, kept / name)
    return kept


def put_back(box: Box, kept: Path) -> None:
    for name in FILES:
        (box.folder / "state" / name).unlink(missing_ok=True)
        if (kept / name).exists():
            shutil.copy(kept / name, box.folder / "state" / name)


async def status(box: Box) -> Any:
    async with box.admin() as admin:
        return await admin.call("get_system_status")


async def test_what_was_revoked_stays_out_when_somebody_puts_an_older_file_in_place(box: Box) -> None:
    """With it everybody: log, status, health, metric and key list say so, and the confirmation ends it."""
    async with box.admin() as admin:
        revoked = await admin.call("create_key", name="leaked", role="admin")
        kept = await admin.call("create_key", name="kept", role="admin")
        token = await admin.call("issue_token", user_id="somebody", role="admin")
        older = copy_by_hand(box)
        await admin.call("revoke_key", key_id=revoked["key_id"])
        await admin.call("revoke_token", jti=token["jti"])
    box.kill()
    put_back(box, older)
    box.log.write_text("")
    await box.start()
    for credential in (revoked["api_key"], token["token"], kept["api_key"]):
        assert not await box.lets_in(credential)
    log = box.log.read_text()
    assert "restored_database_not_confirmed" in log
    assert COMMAND in log
    assert (await box.request("GET", "/.well-known/jwks.json"))[0] == 503, "verifiers elsewhere would trust all of it"
    told = await status(box)
    assert told["status"] == "partial"
    assert "every key and every token of before is refused" in told["message"]
    assert COMMAND in next(each["remedy"] for each in told["problems"] if each["part"] == "restore")
    assert (await box.request("GET", "/health"))[1]["status"] == "degraded"
    async with box.admin() as admin:
        assert {key["status"] for key in (await admin.call("list_keys"))["keys"]} == {"suspended"}
        made = await admin.call("issue_token", user_id="root's own", role="admin")
        assert await box.lets_in(made["token"]), "it was issued since"
        await admin.call("revoke_key", key_id=revoked["key_id"])
        await admin.call("revoke_token", jti=token["jti"])
    # Neither a restart nor the administrator's own token is a confirmation.
    box.kill()
    await box.start()
    assert not await box.lets_in(kept["api_key"])
    async with box.client(made["token"]) as client:
        refused = (await client.ask("confirm_restore"))["error"]["data"]
        assert refused["reason"] == "permission_denied"
        metrics = (await box.request("GET", "/metrics", Authorization=f"Bearer {made['token']}"))[1]
        assert "edged_restore_unconfirmed 1.0" in metrics
    assert "2 keys" not in (printed := await run(box, "trust", "confirm-restore")), printed
    assert "1 keys" in printed
    assert await box.lets_in(kept["api_key"])
    assert not await box.lets_in(revoked["api_key"])
    assert not await box.lets_in(token["token"])
    assert "local:" in next(line for line in box.log.read_text().splitlines() if "restored_database_confirmed" in line)
    assert (await status(box))["status"] == "ready"
    assert (await box.request("GET", "/.well-known/jwks.json"))[0] == 200
    assert "no restored database" in await run(box, "trust", "confirm-restore")
    box.kill()
    await box.start()
    assert await box.lets_in(kept["api_key"])


async def test_nobody_logs_in_by_a_password_of_before(box: Box) -> None:
    """It may have been changed since because somebody knew it."""
    async with box.admin() as admin:
        await admin.call("create_user", name="nina", role="admin", password="a passphrase of before")
        older = copy_by_hand(box)
        await admin.call("set_password", name="nina", password="another passphrase since")
    box.kill()
    put_back(box, older)
    await box.start()
    async with box.client() as client:
        reply = await client.ask("login", username="nina", password="a passphrase of before")
        assert reply["error"]["code"]
    async with box.admin() as admin:
        await admin.call("confirm_restore")
    async with box.client() as client:
        assert (await client.call("login", username="nina", password="a passphrase of before"))["token"]


async def test_a_backup_is_restored_by_the_command_and_confirmed_by_rest(box: Box) -> None:
    """Not beside a running daemon; what stood there is set aside; a backup bears its mark though nothing is behind."""
    state = box.folder / "state"
    async with box.admin() as admin:
        kept = await admin.call("create_key", name="kept", role="viewer")
    assert await box.stop() == 0
    with closing(sqlite3.connect(state / "trust.db")) as connection:
        backup = backups.make(connection, state / "trust.db", len(TRUST))
    await box.start()
    assert "another edged runs" in await run(box, "trust", "restore", backup, code=1)
    assert await box.stop() == 0
    printed = await run(box, "trust", "restore", backup)
    assert COMMAND in printed
    aside = [path for path in state.iterdir() if path.name.startswith("trust-2") and path.suffix == ".db"]
    assert len(aside) == 1
    assert aside[0].name in printed
    await box.start()
    assert not await box.lets_in(kept["api_key"])
    stream = await trio.open_unix_socket(box.folder / "run" / "edged.sock")
    async with stream:
        await stream.send_all(
            b"POST /api/trust/confirm-restore HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        reply = b"".join([part async for part in stream])
    assert reply.startswith(b"HTTP/1.1 200")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["confirmed"] is True
    assert await box.lets_in(kept["api_key"])


async def test_the_refusal_of_a_newer_schema_names_the_command_and_what_comes_after_it(box: Box) -> None:
    state = box.folder / "state"
    assert await box.stop() == 0
    with closing(sqlite3.connect(state / "trust.db")) as connection:
        backup = backups.make(connection, state / "trust.db", len(TRUST))
        connection.execute(f"PRAGMA user_version = {len(TRUST) + 1}")
    printed = await run(box, "serve", code=1)
    assert f"edged trust restore {backup}" in printed
    assert COMMAND in printed


@pytest.mark.parametrize("what", ["nothing", "text", "another program's", "newer"])
async def test_what_is_no_backup_is_not_restored(box: Box, what: str) -> None:
    """Told in a sentence, and the database that there is stays."""
    assert await box.stop() == 0
    file, before = box.folder / "file", (box.folder / "state" / "trust.db").read_bytes()
    if what == "text":
        file.write_text("no database\n" * 400)
    elif what != "nothing":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
            connection.execute(f"PRAGMA user_version = {0 if what != 'newer' else 1000}")
    printed = await run(box, "trust", "restore", file, code=1)
    assert "Traceback" not in printed
    assert str(file) in printed
    assert (box.folder / "state" / "trust.db").read_bytes() == before
    assert not (box.folder / "state" / ".trust.part").exists()


@pytest.mark.parametrize("harm", ["text", "zeros"])
async def test_a_damaged_usage_database_keeps_the_box_from_nothing(box: Box, harm: str) -> None:
    """It is set aside, said, and begun anew; who was let in is."""
    async with box.admin() as admin:
        kept = await admin.call("create_key", name="kept", role="viewer")
    assert await box.stop() == 0
    (box.folder / "state" / "usage.db").write_bytes(b"no database\n" * 900 if harm == "text" else bytes(8192))
    await box.start()
    assert await box.lets_in(kept["api_key"])
    assert "database_set_aside db=usage" in box.log.read_text()


@pytest.mark.parametrize("harm", ["gone", "emptied"])
async def test_a_trust_database_that_vanished_stops_the_start_until_somebody_begins_anew(box: Box, harm: str) -> None:
    """Not a new box without a word: a token that was revoked would be good again."""
    claims = issue_claims("somebody", role="admin", now=time.time() - 5, expires_in=3600)
    token = sign({**claims, "jti": "revoked"}, SharedSecret("test", SECRET))
    assert await box.lets_in(token)
    async with box.admin() as admin:
        await admin.call("revoke_token", token=token)
    assert not await box.lets_in(token)
    assert await box.stop() == 0
    trust = box.folder / "state" / "trust.db"
    trust.unlink()
    if harm == "emptied":
        trust.touch()
    printed = await run(box, "serve", code=1)
    assert "is missing or empty, and there was one" in printed
    assert "edged trust begin-anew" in printed
    assert "the trust database is empty" in await run(box, "trust", "begin-anew", "--yes")
    await box.start()
    assert not await box.lets_in(token), "nobody knows any more that it was revoked, and it is refused all the same"
    async with box.admin() as admin:
        assert (await admin.call("list_keys"))["keys"] == []
        made = await admin.call("create_key", name="first", role="viewer")
    assert await box.lets_in(made["api_key"])
