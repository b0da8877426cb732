"""What was told is on the disk, and what is denied stays denied while the disk is slow, full or broken.

A whole edged runs as a child whose database lies on a disk that logs, delays or fails (durability_disk.c): a page cache
survives a kill, so that a kill alone would prove nothing about a power cut.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import ended
from durability_helpers import Box, Disk, Event, Platter, compile_disk, read_file, running_box, until

from edged.credentials.api_keys import digest

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc not found: the disk that fails cannot be built (apt-get install gcc)"
)
WAL = "trust.db-wal"
#: Seconds that a sync takes on the slow disk, at least.
SLOW = 2.0
#: What the loop's thread may compute between two turns, seconds.
LONGEST = 0.05


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture
async def box(tmp_path: Path, library: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path, Disk(tmp_path, library)) as box:
        yield box


def disk_of(box: Box) -> Disk:
    assert box.disk is not None
    return box.disk


async def make_key(box: Box, role: str = "viewer") -> tuple[str, str]:
    async with box.admin() as admin:
        made = await admin.call("create_key", name="a key", role=role)
    return made["key_id"], made["api_key"]


def is_saved(box: Box, key_id: str) -> bool:
    """Whether another program reads this revocation, both halves of it."""
    found = read_file(
        box.database,
        "SELECT r.identity, k.revoked_at IS NOT NULL FROM api_keys k LEFT JOIN revocations r"
        " ON r.identity = 'key:' || k.key_id WHERE k.key_id = ?",
        key_id,
    )
    assert found in ([(None, 0)], [(f"key:{key_id}", 1)]), "never between"
    return found[0][0] is not None


def is_suspended(box: Box, key_id: str) -> bool:
    """Whether another program reads that this key is suspended."""
    return read_file(box.database, "SELECT suspended_at IS NOT NULL FROM api_keys WHERE key_id = ?", key_id) == [(1,)]


def assert_loop_waits_for_no_disk(box: Box, before: int) -> None:
    """Since so many events: not one call of the loop's own thread that writes, syncs or reads the database."""
    assert [event for event in disk_of(box).events()[before:] if event.kind == "loop"] == []


def is_reply(event: Event, serial: int) -> bool:
    return event.kind == "send" and f'"id":{serial},'.encode() in event.data and b'"result"' in event.data


async def test_no_byte_of_a_reply_goes_out_before_the_sync_of_its_commit_returned(box: Box) -> None:
    """In the order of the system calls: the WAL is written, its sync returns, and then the reply is sent."""
    async with box.admin() as admin:
        for _ in range(10):
            made = await admin.call("create_key", name="a key", role="viewer")
            await admin.call("rotate_key", key_id=made["key_id"])
            await admin.call("revoke_key", key_id=made["key_id"])
        calls = admin.serial
    replies, written, dirty, began_clean = 0, False, True, False
    serial = 0
    for event in disk_of(box).events():
        if event.kind == "write" and event.name == WAL:
            written, dirty, began_clean = True, True, False
        elif event.kind == "sync-begin" and event.name == WAL:
            began_clean = True
        elif event.kind == "sync-end" and event.name == WAL:
            dirty = not (event.number == 0 and began_clean)
        elif is_reply(event, serial + 1):
            assert written, f"reply {serial + 1} without a write"
            assert not dirty, f"reply {serial + 1} before the sync"
            serial, replies, written = serial + 1, replies + 1, False
    assert replies == calls == 30


async def test_a_power_cut_right_after_a_reply_loses_nothing_of_it(box: Box, tmp_path: Path) -> None:
    """The disk as the syncs before each reply left it, without all that was not synced, or with any part of it."""
    chance = random.Random(5)
    promises: list[dict[int, tuple[str, str]]] = [{}, {}]

    async def ask(number: int) -> None:
        async with box.admin() as admin:
            # No two conversations have the same ids, so that the log tells their replies apart.
            admin.serial = 1000 * number
            for _ in range(8):
                made = await admin.call("create_key", name=f"of {number}", role="viewer")
                promises[number][admin.serial] = (made["key_id"], digest(made["api_key"]).hex())
                made = await admin.call("rotate_key", key_id=made["key_id"])
                promises[number][admin.serial] = (made["key_id"], digest(made["api_key"]).hex())
                await admin.call("revoke_key", key_id=made["key_id"])
                promises[number][admin.serial] = (made["key_id"], "revoked")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 0)
        nursery.start_soon(ask, 1)
    expected = {**promises[0], **promises[1]}
    platter, told, cuts = Platter(), {}, 0
    for event in disk_of(box).events():
        platter.happen(event)
        for serial in [serial for serial in expected if is_reply(event, serial)]:
            key_id, fact = expected.pop(serial)
            told[key_id] = fact
            for which, luck in (("nothing", None), ("some", chance)):
                cuts += 1
                folder = tmp_path / f"power-{cuts}-{which}"
                platter.lay_out(folder, luck)
                assert_promises_kept(folder / "trust.db", told)
    assert not expected
    assert cuts == 2 * 2 * 8 * 3


def assert_promises_kept(path: Path, told: dict[str, str]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for key_id, fact in told.items():
            ((found, revoked_at),) = connection.execute(
                "SELECT digest, revoked_at FROM api_keys WHERE key_id = ?", (key_id,)
            )
            if fact == "revoked":
                denied = connection.execute("SELECT 1 FROM revocations WHERE identity = ?", (f"key:{key_id}",))
                assert denied.fetchall() == [(1,)]
                assert revoked_at is not None
            else:
                # The next step of this key may be on the disk before its reply is out.
                assert found.hex() == fact or revoked_at is not None or fact in _previous(connection, key_id)


def _previous(connection: sqlite3.Connection, key_id: str) -> list[str]:
    rows = connection.execute("SELECT previous_digest FROM api_keys WHERE key_id = ?", (key_id,)).fetchall()
    return [row[0].hex() for row in rows if row[0] is not None]


async def test_a_slow_disk_delays_the_reply_and_nothing_else(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    """A sync of 2 s: the key is refused and its session closed at once, others are answered, the reply comes after."""
    key_id, secret = await make_key(box)
    before = len(disk_of(box).events())
    async with box.client(secret) as inside, box.admin() as admin, box.admin() as other:
        disk_of(box).behave(hold=True)
        box.forget_gaps()
        began = trio.current_time()
        replies: list[Any] = []

        async def revoke() -> None:
            replies.append(await admin.ask("revoke_key", key_id=key_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(revoke)
            assert await ended(inside) == 4401
            assert not await box.lets_in(secret)
            assert await other.call("ping") == "pong"
            new = [event for event in disk_of(box).events()[before:] if event.name == WAL]
            # The disk is not through with it, so nobody may have been told.
            assert "sync-end" not in {event.kind for event in new}
            await trio.sleep_until(began + SLOW)
            assert await other.call("ping") == "pong"
            assert not await box.lets_in(secret)
            assert replies == []
            disk_of(box).behave()
        assert replies[0]["result"]["key_id"] == key_id
        assert is_saved(box, key_id)
        whole, own = box.longest_gaps()
    with capfd.disabled():
        print(f"\nlongest gap of the loop beside a sync of {SLOW:g} s: {whole * 1e3:.1f} ms, {own * 1e3:.1f} computing")
    assert_loop_waits_for_no_disk(box, before)
    assert own < LONGEST


@pytest.mark.parametrize(
    ("how", "number", "method"),
    [
        pytest.param("sync", errno.EIO, "revoke_key", id="sync fails"),
        pytest.param("sync", errno.ENOSPC, "revoke_key", id="sync finds no space"),
        pytest.param("write", errno.ENOSPC, "revoke_key", id="full"),
        pytest.param("write", errno.EROFS, "revoke_key", id="read-only"),
        pytest.param("sync", errno.EIO, "suspend_key", id="sync fails under a suspension"),
        pytest.param("write", errno.ENOSPC, "suspend_key", id="full under a suspension"),
    ],
)
async def test_what_is_denied_stays_denied_while_the_disk_fails_and_is_saved_when_it_heals(
    box: Box, capfd: pytest.CaptureFixture[str], how: str, number: int, method: str
) -> None:
    """The caller hears store_error; the key stays refused; nobody need ask again for it to be saved; it stays saved."""
    key_id, secret = await make_key(box)
    before = len(disk_of(box).events())
    is_there = is_saved if method == "revoke_key" else is_suspended
    async with box.client(secret) as inside, box.admin() as admin:
        disk_of(box).behave(sync=number if how == "sync" else 0, write=number if how == "write" else 0)
        box.forget_gaps()
        reply = await admin.ask(method, key_id=key_id)
        assert reply["error"]["data"]["reason"] == "store_error"
        assert await ended(inside) == 4401
        # Still failing: again, and a little later, it is still so.
        assert (await admin.ask(method, key_id=key_id))["error"]["data"]["reason"] == "store_error"
        assert not await box.lets_in(secret)
        await trio.sleep(1.5)
        assert not await box.lets_in(secret)
        whole, own = box.longest_gaps()
        disk_of(box).behave()
        await until(lambda: is_there(box, key_id))
    assert_loop_waits_for_no_disk(box, before)
    box.kill()
    box.disk = None
    await box.start()
    assert not await box.lets_in(secret)
    assert is_there(box, key_id)
    with capfd.disabled():
        print(f"\nlongest gap of the loop on a failing disk: {whole * 1e3:.1f} ms, {own * 1e3:.1f} computing")
    assert own < LONGEST


@pytest.mark.parametrize("method", ["create_key", "rotate_key"])
@pytest.mark.parametrize(
    ("how", "number"),
    [("sync", errno.EIO), ("write", errno.ENOSPC)],
    ids=["sync fails", "full"],
)
async def test_what_could_not_be_granted_was_not_granted_also_after_a_kill(
    box: Box, how: str, number: int, method: str
) -> None:
    """store_error: no new key, the old secret as it was; and the same after kill and restart.

    A commit whose sync failed stands whole in the WAL. Left there, the next start would take the key away from whoever
    holds the only secret that was ever told.
    """
    key_id, secret = await make_key(box)
    params = {"name": "ghost", "role": "admin"} if method == "create_key" else {"key_id": key_id, "grace_seconds": 0}
    async with box.admin() as admin:
        disk_of(box).behave(sync=number if how == "sync" else 0, write=number if how == "write" else 0)
        reply = await admin.ask(method, **params)
        assert reply["error"]["data"]["reason"] == "store_error"
        assert [key["key_id"] for key in (await admin.call("list_keys"))["keys"]] == [key_id]
    assert await box.lets_in(secret)
    box.kill()
    box.disk = None
    await box.start()
    async with box.admin() as admin:
        assert [key["key_id"] for key in (await admin.call("list_keys"))["keys"]] == [key_id]
    assert await box.lets_in(secret)


async def test_a_revocation_that_the_disk_refused_until_the_end_is_named_in_the_log(box: Box) -> None:
    """Stopped while the disk fails: the next start does not know it, so the log must."""
    key_id, _ = await make_key(box)
    disk_of(box).behave(sync=errno.EIO)
    async with box.admin() as admin:
        await admin.ask("revoke_key", key_id=key_id)
    await box.stop()
    (last,) = [line for line in box.log.read_text().splitlines() if " denials_lost " in line]
    assert key_id in last


async def test_a_limit_of_the_kernel_is_a_full_disk(tmp_path: Path) -> None:
    """No file may grow any more (RLIMIT_FSIZE, without any preloading): nothing is granted; what is denied goes to the
    log's beginning, once all that it holds is in the file itself."""
    async with running_box(tmp_path) as box:
        key_id, secret = await make_key(box)
        for _ in range(8):
            await make_key(box)
        size = (tmp_path / "state" / WAL).stat().st_size
        assert box.log.stat().st_size < size, "only the WAL is to meet the limit"
        unlimited = resource.prlimit(box.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(box.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
        async with box.admin() as admin:
            told = (await admin.ask("create_key", name="ghost", role="admin"))["error"]["data"]
            assert (told["reason"], told["in_force"]) == ("store_error", False)
            await admin.call("revoke_key", key_id=key_id)
            assert not await box.lets_in(secret)
            assert is_saved(box, key_id)
            resource.prlimit(box.pid, resource.RLIMIT_FSIZE, unlimited)
        box.kill()
        await box.start()
        assert not await box.lets_in(secret)


async def test_the_disk_of_these_tests_is_under_the_database(box: Box) -> None:
    """Else none of the above would show anything."""
    await make_key(box)
    kinds = {event.kind for event in disk_of(box).events() if event.name == WAL}
    assert {"write", "sync-begin", "sync-end"} <= kinds
    assert any(event.kind == "send" for event in disk_of(box).events())
    assert any(event.kind == "loop" for event in disk_of(box).events()), "at the start the loop reads by itself"
    assert os.environ.get("LD_PRELOAD") is None, "and under nothing of the test itself"
