"""`edged serve` itself on a tmpfs or ext4 of its own that is full to its last byte: what is denied is saved."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import SECRET, Conversation
from durability_helpers import Box, Disk, compile_disk, running_box, until
from patience import fail_after

from edged.store.reserve import HEADER, PIECE, SIZE

DISK_BYTES = 8 * 1024 * 1024
#: With a journal, and the rest of what a file system needs for itself.
EXT4_BYTES = 3 * DISK_BYTES


@pytest.fixture(scope="module")
def _may_mount() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: no disk can be made here that is really full")


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Of the file system, unless a test names others."""
    return str(getattr(request, "param", "tmpfs"))


@pytest.fixture
def state(tmp_path: Path, _may_mount: None, kind: str) -> Iterator[Path]:
    """The state folder, on a disk of its own."""
    folder = tmp_path / "state"
    folder.mkdir()
    words: list[str | Path] = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "edged-test"]
    if kind == "ext4":
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("mkfs.ext4 not found: no ext4 can be made (apt-get install e2fsprogs)")
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(EXT4_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        words = ["-o", "loop", image]
    mounted = subprocess.run(["mount", *words, folder], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no {kind} can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
async def box(tmp_path: Path, state: Path) -> AsyncIterator[Box]:
    """Not started; with a shared secret, so that no token hangs on a signing key."""
    assert state.is_mount()
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    box = Box(tmp_path, settings=f'[auth.shared_secrets]\ntest = "{secret}"', command="serve")
    try:
        yield box
    finally:
        box.kill()


def fill(state: Path) -> None:
    """Until not even one byte more fits."""
    with (state / "filler").open("ab", buffering=0) as filler:
        # What is reserved for blocks that are not needed after all comes back with a sync.
        for _ in range(20):
            for step in (65536, 4096, 1):
                with suppress(OSError):
                    while True:
                        filler.write(bytes(step))
            with suppress(OSError):
                os.fsync(filler.fileno())
            if is_full(state):
                return
    raise AssertionError("there is always some space left")


def is_full(state: Path) -> bool:
    probe = state / "probe"
    try:
        probe.write_bytes(b"x")
    except OSError as problem:
        return problem.errno == errno.ENOSPC
    finally:
        probe.unlink(missing_ok=True)
    return False


def reserve_of(state: Path) -> int:
    """Real bytes of it, without its header."""
    return (state / "trust.reserve").stat().st_blocks * 512 - HEADER


async def make_key(admin: Conversation) -> tuple[str, dict[str, object], str]:
    made = await admin.call("create_key", name="k", role="viewer")
    return "revoke_key", {"key_id": made["key_id"]}, made["api_key"]


async def make_token(admin: Conversation) -> tuple[str, dict[str, object], str]:
    made = await admin.call("issue_token", user_id="somebody")
    return "revoke_token", {"jti": made["jti"]}, made["token"]


async def make_user(admin: Conversation) -> tuple[str, dict[str, object], str]:
    await admin.call("create_user", name="nina", role="viewer")
    made = await admin.call("create_key", name="hers", role="viewer", owner="nina")
    return "update_user", {"name": "nina", "disabled": True}, made["api_key"]


async def make_signing_key(admin: Conversation) -> tuple[str, dict[str, object], str]:
    """One that signed; what it takes to go on without it is a new one, which is made at once."""
    keys = (await admin.call("list_signing_keys"))["keys"]
    kid = next(key["kid"] for key in keys if (key["algorithm"], key["state"]) == ("ES256", "current"))
    made = await admin.call("issue_token", user_id="somebody", signing_key="ES256")
    return "retire_signing_key", {"kid": kid, "distrust": True}, made["token"]


async def health(box: Box) -> Any:
    return (await box.request("GET", "/health"))[1]


@pytest.mark.parametrize(
    ("make", "kind"),
    [*((make, "tmpfs") for make in (make_key, make_token, make_user, make_signing_key)), (make_key, "ext4")],
    indirect=["kind"],
)
async def test_what_is_denied_on_a_full_disk_is_saved_and_outlives_a_kill(
    box: Box, state: Path, make: Callable[[Conversation], Awaitable[tuple[str, dict[str, object], str]]]
) -> None:
    """Answered as saved; the start after the kill works on the same full disk, and whoever was denied stays out."""
    await box.start()
    async with box.admin() as admin:
        method, params, credential = await make(admin)
        assert await box.lets_in(credential)
        assert reserve_of(state) >= SIZE
        fill(state)
        reply = await admin.ask("create_key", name="ghost", role="admin")
        assert reply["error"]["data"]["reason"] == "store_error"
        assert "nothing was done" in reply["error"]["data"]["detail"]
        assert reply["error"]["data"]["in_force"] is False
        assert reserve_of(state) >= SIZE, "of what is kept for denials nothing was given for a grant"
        assert "error" not in await admin.ask(method, **params)
    assert await box.pending() == 0
    box.kill()
    await box.start()
    assert not await box.lets_in(credential)
    async with box.admin() as admin:
        assert "ghost" not in {key["name"] for key in (await admin.call("list_keys"))["keys"]}


@pytest.mark.parametrize("kind", ["ext4"], indirect=True)
async def test_what_is_denied_on_a_full_disk_outlives_a_power_cut(box: Box, state: Path, tmp_path: Path) -> None:
    """The start is on what the file system had given to its disk when the reply was there, and on nothing else."""
    await box.start()
    async with box.admin() as admin:
        made = [await make_key(admin) for _ in range(3)]
        _, _, kept = await make_key(admin)
        fill(state)
        for method, params, _ in made:
            await admin.call(method, **params)
        shutil.copyfile(tmp_path / "image", tmp_path / "cut")
    box.kill()
    await trio.run_process(["umount", state])
    await trio.run_process(["mount", "-o", "loop", tmp_path / "cut", state])
    fill(state)
    await box.start()
    assert [secret for _, _, secret in made if await box.lets_in(secret)] == []
    assert await box.lets_in(kept)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"], indirect=True)
async def test_many_are_denied_one_after_another_while_the_disk_stays_full(box: Box, state: Path) -> None:
    """As many as there are pieces at least, though somebody else takes every byte that is left; all outlive a kill."""
    await box.start()
    async with box.admin() as admin:
        made = [await make_key(admin) for _ in range(SIZE // PIECE)]
        fill(state)
        for method, params, _ in made:
            assert "error" not in await admin.ask(method, **params)
            fill(state)
    assert await box.pending() == 0
    box.kill()
    await box.start()
    assert [secret for _, _, secret in made if await box.lets_in(secret)] == []


async def test_without_reserve_a_denial_is_told_as_not_saved_and_saved_once_there_is_space(
    box: Box, state: Path
) -> None:
    """Something else stands in its place: it is left alone, told once with a remedy, and health shows it. When space
    returns the denial is saved, and with nothing in its way the reserve is made."""
    (state / "elsewhere").write_bytes(b"somebody's")
    (state / "trust.reserve").symlink_to(state / "elsewhere")
    await box.start()
    assert (state / "elsewhere").read_bytes() == b"somebody's"
    shown = await health(box)
    assert (shown["status"], shown["denial_room_bytes"]) == ("degraded", 0)
    log = box.log.read_text()
    assert log.count("reserve_short") == 1
    assert "symbolic link" in log
    async with box.admin() as admin:
        method, params, credential = await make_key(admin)
        fill(state)
        # Nor has the log blocks to begin anew in: it holds tables that the file has no space for yet.
        told = (await admin.ask(method, **params))["error"]["data"]
        assert told["in_force"] is True
        assert "in force now, but not saved yet" in told["detail"]
        assert not await box.lets_in(credential)
        (state / "trust.reserve").unlink()
        (state / "filler").unlink()
        await until_pending_nothing(box)
        await admin.call("create_key", name="after", role="viewer")
    await until(lambda: reserve_of(state) >= SIZE)
    # Other parts of the box see only at their next look that there is space again.
    with fail_after(30):
        while (shown := await health(box))["status"] != "healthy":
            await trio.sleep(0.1)
    assert shown["denial_room_bytes"] == SIZE
    assert "reserve_whole" in box.log.read_text()


async def until_pending_nothing(box: Box) -> None:
    with fail_after(90):
        while await box.pending():
            await trio.sleep(0.05)


async def test_after_space_returns_the_reserve_is_there_again(box: Box, state: Path) -> None:
    """With the next commit, in blocks; and not before."""
    await box.start()
    async with box.admin() as admin:
        made = [await make_key(admin) for _ in range(6)]
        fill(state)
        for method, params, _ in made:
            await admin.call(method, **params)
            fill(state)
        assert reserve_of(state) < SIZE
        assert (await health(box))["status"] == "unhealthy"
        assert (await health(box))["denial_room_bytes"] == reserve_of(state)
        (state / "filler").unlink()
        await admin.call("create_key", name="after", role="viewer")
    await until(lambda: reserve_of(state) >= SIZE)
    assert (await health(box))["status"] == "healthy"
    log = box.log.read_text()
    assert log.count("reserve_used") == 1
    assert log.count("reserve_whole") == 1
    assert (state / "trust.reserve").stat().st_mode & 0o777 == 0o600


async def test_a_start_on_a_full_disk_without_any_reserve_says_so_and_serves(box: Box, state: Path) -> None:
    """Once in the log, with what to do; who was let in still is."""
    await box.start()
    async with box.admin() as admin:
        _, _, secret = await make_key(admin)
    box.kill()
    (state / "trust.reserve").unlink()
    fill(state)
    box.log.write_text("")
    await box.start()
    assert await box.lets_in(secret)
    log = box.log.read_text()
    assert log.count("reserve_short") == 1
    assert "free space on the disk" in log
    assert (await health(box))["denial_room_bytes"] == 0


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"], indirect=True)
async def test_a_disk_that_filled_up_while_edged_was_stopped_keeps_it_from_nothing(box: Box, state: Path) -> None:
    """What SQLite needs to open its files comes out of the reserve; who is let in is, what is denied is saved."""
    await box.start()
    async with box.admin() as admin:
        _, _, secret = await make_key(admin)
        made = [await make_key(admin) for _ in range(3)]
    assert await box.stop() == 0
    fill(state)
    await box.start()
    assert await box.lets_in(secret)
    assert 0 < reserve_of(state) < SIZE
    async with box.admin() as admin:
        for method, params, _ in made:
            fill(state)
            await admin.call(method, **params)
    fill(state)
    box.kill()
    await box.start()
    assert await box.lets_in(secret)
    assert [secret for _, _, secret in made if await box.lets_in(secret)] == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc not found: no quota can be made up")
async def test_a_quota_that_is_used_up_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite calls it an error of writing: the reserve is given up all the same, and made anew once there is space."""
    disk = Disk(tmp_path, compile_disk(tmp_path))
    reserve = tmp_path / "state" / "trust.reserve"
    async with running_box(tmp_path, disk, command="serve") as box, box.admin() as admin:
        method, params, secret = await make_key(admin)
        disk.behave(write=errno.EDQUOT)
        told = (await admin.ask(method, **params))["error"]["data"]
        assert (told["in_force"], reserve.stat().st_size) == (True, HEADER)
        disk.behave()
        await until_pending_nothing(box)
        await until(lambda: reserve.stat().st_size == HEADER + SIZE)
        assert not await box.lets_in(secret)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc not found: nobody sees what the loop's thread calls")
async def test_the_loop_touches_neither_the_reserve_nor_the_database(box: Box, state: Path, tmp_path: Path) -> None:
    """Not while the reserve is used and not while it is made anew: that is the store's thread's business."""
    box.disk = Disk(tmp_path, compile_disk(tmp_path), files="/trust.")
    await box.start()
    async with box.admin() as admin:
        method, params, _ = await make_key(admin)
        before = len(box.disk.events())
        fill(state)
        await admin.call(method, **params)
        (state / "filler").unlink()
        await admin.call("create_key", name="after", role="viewer")
        await until(lambda: reserve_of(state) >= SIZE)
    events = box.disk.events()[before:]
    assert [event for event in events if event.kind == "loop"] == []
    assert any(event.kind == "write" for event in events)
