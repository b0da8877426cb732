"""Kept pictures over HTTP: whose they are, ranges, and how a transfer ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trio
from msgspec.structs import replace
from web_helpers import REMOTE, UNIX, Reply, Site

from edged.cameras.model import Camera, Status
from edged.library.snapshots import Snapshots

PICTURE = b"\xff\xd8" + bytes(range(256)) * 800 + b"\xff\xd9"


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    snapshots = Snapshots(tmp_path / "snapshots")
    site = Site(tmp_path, snapshots=snapshots)
    await snapshots.save("dock.jpg", "camera0", PICTURE, "jpg", 1_800_000_000.0)
    await snapshots.save("yard.png", "camera1", b"\x89PNG", "png", 1_800_000_000.0)
    return site


async def test_a_kept_picture_can_be_fetched(site: Site) -> None:
    """Exactly 200, its type, its length, as an attachment; by either header and on the local socket."""
    key = site.key("viewer")[1]
    reply = await site.ask("GET", "/files/snapshots/dock.jpg", key=key)
    assert (reply.status, reply.body) == (200, PICTURE)
    assert reply.headers["content-type"] == "image/jpeg"
    assert reply.headers["content-length"] == str(len(PICTURE))
    assert reply.headers["content-disposition"] == 'attachment; filename="dock.jpg"'
    assert reply.headers["accept-ranges"] == "bytes"
    other = await site.ask("GET", "/files/snapshots/yard.png", headers={"X-API-Key": key})
    assert (other.status, other.headers["content-type"]) == (200, "image/png")
    assert (await site.ask("GET", "/files/snapshots/dock.jpg", peer=UNIX)).status == 200
    assert len(site.admissions) == 0


async def test_a_range_is_206(site: Site) -> None:
    """Players and resumed downloads ask for a part."""
    headers = {"Range": "bytes=2-5"}
    reply = await site.ask("GET", "/files/snapshots/dock.jpg", headers=headers, key=site.key("viewer")[1])
    assert (reply.status, reply.body) == (206, PICTURE[2:6])
    assert reply.headers["content-range"] == f"bytes 2-5/{len(PICTURE)}"


@pytest.mark.parametrize(
    ("asked", "status", "extent"),
    [("bytes=5-2", 400, None), ("bytes=x", 400, None), ("bytes=900000-", 416, f"bytes */{len(PICTURE)}")],
)
async def test_a_bad_range_is_told_in_json(site: Site, asked: str, status: int, extent: str | None) -> None:
    """Every fault has the same members (C-35), also one that the file's own answer would tell in plain text."""
    reply = await site.ask("GET", "/files/snapshots/dock.jpg", headers={"Range": asked}, key=site.key("viewer")[1])
    assert (reply.status, reply.json["code"], reply.json["error"]) == (status, "bad_range", "Bad range")
    assert reply.headers.get("content-range") == extent
    assert reply.complete
    assert len(site.admissions) == 0


async def test_a_range_in_a_foreign_unit_counts_as_not_sent(site: Site) -> None:
    """RFC 9110, 14.2."""
    headers = {"Range": "pages=1-2"}
    reply = await site.ask("GET", "/files/snapshots/dock.jpg", headers=headers, key=site.key("viewer")[1])
    assert (reply.status, reply.body) == (200, PICTURE)


async def test_a_name_without_its_ending_means_the_newest_that_may_be_seen(site: Site) -> None:
    """A newer picture of a foreign camera neither hides nor betrays itself (C-39)."""
    await site.services.snapshots.save("yard.jpg", "camera0", PICTURE, "jpg", 1_800_000_001.0)
    key = site.key("viewer", camera_access=("camera1",))[1]
    reply = await site.ask("GET", "/files/snapshots/yard", key=key)
    assert (reply.status, reply.body) == (200, b"\x89PNG")
    assert reply.headers["content-disposition"] == 'attachment; filename="yard.png"'
    assert (await site.ask("GET", "/files/snapshots/dock", key=key)).status == 404


async def test_head_tells_the_length(site: Site) -> None:
    """Without a byte of the picture."""
    reply = await site.ask("HEAD", "/files/snapshots/dock.jpg", key=site.key("viewer")[1])
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, str(len(PICTURE)), b"")


async def test_a_foreign_cameras_picture_is_not_there(site: Site) -> None:
    """The same words as for a file that does not exist."""
    key = site.key("viewer", camera_access=("camera1",))[1]
    hidden = await site.ask("GET", "/files/snapshots/dock.jpg", key=key)
    absent = await site.ask("GET", "/files/snapshots/gone.jpg", key=key)
    assert hidden.status == absent.status == 404
    assert hidden.body.replace(b"dock", b"gone") == absent.body
    assert (await site.ask("GET", "/files/snapshots/yard.png", key=key)).status == 200


async def test_pictures_of_a_camera_that_is_gone_stay(site: Site) -> None:
    """With whoever may see it, by its name."""
    site.cameras.present = (Camera(name="camera9", label="x", kind="test", status=Status.CONNECTED),)
    assert (await site.ask("GET", "/files/snapshots/dock.jpg", key=site.key("viewer")[1])).status == 200
    mine = site.key("viewer", camera_access=("camera0",))[1]
    assert (await site.ask("GET", "/files/snapshots/dock.jpg", key=mine)).status == 200
    other = site.key("viewer", camera_access=("camera9",))[1]
    assert (await site.ask("GET", "/files/snapshots/dock.jpg", key=other)).status == 404


@pytest.mark.parametrize("name", ["../trust.db", "..", ".part", "a/b.jpg", "/etc/passwd", "a\x00.jpg", "x" * 200, ""])
async def test_a_name_that_is_no_name_is_400(site: Site, name: str) -> None:
    """Nothing outside the folder can be named."""
    reply = await site.ask("GET", f"/files/snapshots/{name}", key=site.key("viewer")[1])
    assert reply.status == 400


async def test_who_may_see_no_camera_gets_no_picture(site: Site) -> None:
    """401 without a credential, 403 for a monitor."""
    assert (await site.ask("GET", "/files/snapshots/dock.jpg")).status == 401
    assert (await site.ask("GET", "/files/snapshots/dock.jpg", key=site.key("monitor")[1])).status == 403


@pytest.mark.parametrize("parts", [0, 1])
async def test_revoking_the_key_cuts_the_transfer_off(site: Site, parts: int) -> None:
    """In the middle of it the answer is left without its end; before it begins it is a 401."""
    key_id, key = site.key("viewer")
    admin = site.key()[1]

    async def revoke(_reply: Reply | None = None) -> None:
        assert (await site.ask("DELETE", f"/api/keys/{key_id}", key=admin, peer=REMOTE)).status == 200

    if parts:
        reply = await site.ask("GET", "/files/snapshots/dock.jpg", key=key, on_part=revoke)
        assert reply.status == 200
        assert not reply.complete
        assert len(reply.body) < len(PICTURE)
    else:
        find = site.services.snapshots.find

        async def find_late(name: str) -> list[Path]:
            await revoke()
            await trio.lowlevel.checkpoint()
            return list(await find(name))

        cast(Any, site.services.snapshots).find = find_late
        reply = await site.ask("GET", "/files/snapshots/dock.jpg", key=key)
        assert (reply.status, reply.json["code"]) == (401, "revoked")
    assert len(site.admissions) == 0


async def test_a_transfer_ends_when_its_credential_may_not_see_the_camera_any_more(site: Site) -> None:
    key_id, key = site.key("viewer")

    async def narrow(_reply: Reply) -> None:
        site.ledger.put_key(replace(site.ledger.keys[key_id], camera_access=("camera1",)))
        await trio.lowlevel.checkpoint()

    reply = await site.ask("GET", "/files/snapshots/dock.jpg", key=key, on_part=narrow)
    assert reply.status == 200
    assert not reply.complete
    assert len(reply.body) < len(PICTURE)
    assert len(site.admissions) == 0
