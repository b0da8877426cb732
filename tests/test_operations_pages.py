"""Lists in pages by limit and cursor, and long lists in parts, between which other tasks run (contract 3)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, running_daemon
from gate_helpers import LOCAL
from patience import fail_after
from services_helpers import running_services
from trust_helpers import TrustStack

from edged import operations
from edged.access.authority import EDGED
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import ApiKey, LocalUser, Peer
from edged.errors import Refused
from edged.operations.caller_sessions import Session
from edged.operations.pages import read_cursor, sort_rows, write_cursor
from edged.operations.services import Services
from edged.store import api_keys, recordings
from edged.store.recordings import RecordingRecord

MANY = 20_000
CATALOGUE = operations.gather()


class Box:
    """Services with an administrator's session."""

    def __init__(self, trust: TrustStack, services: Services) -> None:
        self.trust = trust
        self.services = services
        self.session = Session(Peer("unix", uid=0), "uds")
        self.session.caller = trust.gate.authenticate(LocalUser(0), LOCAL, "uds")

    async def put_keys(self, number: int) -> list[str]:
        """So many keys, two of each second; their ids in the order of the list."""
        records = []
        for at in range(number):
            key_id, _, digest = mint()
            created_at = float(1_700_000_000 + at // 2)
            records.append(KeyRecord(key_id=key_id, digest=digest, name="key", role="viewer", created_at=created_at))
        await self.trust.db.write(partial(api_keys.import_all, records=records))
        for record in records:
            self.services.ledger.put_key(record)
        return [record.key_id for record in sorted(records, key=lambda each: (each.created_at, each.key_id))]

    async def list_keys(self, **params: object) -> Any:
        """The reply as a client reads it."""
        made = await CATALOGUE.call("list_keys", params, self.services, self.session)
        return msgspec.json.decode(msgspec.json.encode(made))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Box]:
    with fail_after(60):
        async with running_services(folder) as (trust, services):
            yield Box(trust, services)


def ids(reply: Any) -> list[str]:
    return [item["key_id"] for item in reply["keys"]]


async def test_without_a_limit_all_of_20000_keys_come_while_other_tasks_run(tmp_path: Path) -> None:
    """In the order of their making, in one reply without next_cursor."""
    async with opened(tmp_path) as box:
        made = await box.put_keys(MANY)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            reply = await box.list_keys()
            nursery.cancel_scope.cancel()
        assert ids(reply) == made
        assert reply.keys() == {"keys"}
        assert turns > 3


async def test_pages_of_20000_keys_show_each_once_while_keys_are_made_and_revoked(tmp_path: Path) -> None:
    """What is there from the first page to the last is shown once, at its place; what is made later may be shown."""
    async with opened(tmp_path) as box:
        made = await box.put_keys(MANY)
        seen, cursor, new, gone = list[Any](), dict[str, Any](), set[Any](), set[Any]()
        for page in range(1000):
            reply = await box.list_keys(status="active", limit=1000, **cursor)
            assert len(reply["keys"]) <= 1000
            seen += ids(reply)
            if "next_cursor" not in reply:
                break
            cursor = {"cursor": reply["next_cursor"]}
            record, _ = await box.services.api_keys.create(EDGED, name="new", role="viewer")
            new.add(record.key_id)
            # The row that the cursor names, one that was shown, and one that is yet to come.
            for key_id in {seen[-1], seen[-3], made[-1 - page]}:
                gone.add(key_id)
                await box.services.api_keys.revoke(key_id, by="")
        assert len(seen) == len(set(seen))
        kept = {key_id: None for key_id in made if key_id not in gone}
        assert [key_id for key_id in seen if key_id in kept] == list(kept)
        assert new & set(seen)


async def test_a_filter_goes_with_each_page(tmp_path: Path) -> None:
    """The cursor holds none; a page is full of what is wanted, not of what was looked at."""
    async with opened(tmp_path) as box:
        made = await box.put_keys(50)
        for key_id in made[::5]:
            box.services.ledger.put_key(msgspec.structs.replace(box.services.ledger.keys[key_id], role="admin"))
        first = await box.list_keys(role="admin", limit=6)
        rest = await box.list_keys(role="admin", limit=6, cursor=first["next_cursor"])
        assert ids(first) + ids(rest) == made[::5]
        assert "next_cursor" not in rest


async def test_whoever_is_revoked_in_the_middle_of_a_long_list_gets_none(tmp_path: Path) -> None:
    """The right is asked for again after each pause."""
    async with opened(tmp_path) as box:
        await box.put_keys(MANY)
        record, secret = await box.services.api_keys.create(EDGED, name="boss", role="admin")
        box.session.caller = box.trust.gate.authenticate(ApiKey(secret), LOCAL, "http")

        async def list_all() -> None:
            with pytest.raises(Refused) as caught:
                await box.list_keys()
            assert caught.value.reason == "revoked"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(list_all)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(box.services.api_keys.revoke, record.key_id, "")


#: List → the member of its reply, and by what its rows differ.
LISTS = {
    "list_keys": ("keys", "key_id"),
    "list_users": ("users", "name"),
    "list_service_tokens": ("service_tokens", "token_id"),
    "list_signing_keys": ("keys", "kid"),
    "list_sessions": ("sessions", "session_id"),
    "list_revocations": ("revocations", "jti"),
    "get_camera_list": ("cameras", "camera_id"),
    "list_snapshots": ("files", "filename"),
}


async def furnish(daemon: RunningDaemon, admin: Conversation) -> None:
    """Five of everything; of pictures two of one moment."""
    snapshots = daemon.config.snapshots.folder / "camera0"
    snapshots.mkdir(parents=True)
    for at in range(5):
        (snapshots / f"p{at}.jpg").write_bytes(b"picture")
        os.utime(snapshots / f"p{at}.jpg", (1000.0 + at // 2, 1000.0 + at // 2))
    for at in range(5):
        await admin.call("create_key", name=f"key {at}", role="viewer")
        await admin.call("create_user", name=f"user{at}", role="viewer")
        await admin.call("create_service_token", name=f"token {at}")
        await admin.call("revoke", jti=f"jti-{at}")
    for algorithm in ("RS256", "ES256"):
        await admin.call("create_signing_key", algorithm=algorithm)


@asynccontextmanager
async def furnished(folder: Path) -> AsyncIterator[tuple[RunningDaemon, Conversation]]:
    with fail_after(60):
        async with running_daemon(folder, cameras=5) as daemon, daemon.local() as admin:
            await furnish(daemon, admin)
            async with daemon.websocket() as one, daemon.websocket() as two:
                for other in (one, two):
                    _, secret = await daemon.create_key("viewer")
                    await other.call("authenticate", auth_token=secret)
                yield daemon, admin


async def test_every_list_comes_in_pages_over_json_rpc_and_http(tmp_path: Path) -> None:
    """Page after page what the whole list shows, and over HTTP the same with ?limit= and ?cursor=."""
    async with furnished(tmp_path) as (daemon, admin):
        _, key = await daemon.create_key("admin")
        paths = {name: CATALOGUE.operations[name].rest.path for name in LISTS}  # type: ignore[union-attr]
        for name, (member, identity) in LISTS.items():
            whole = [item[identity] for item in (await admin.call(name))[member]]
            assert len(whole) > 2, name
            found, cursor = [], ""
            while True:
                reply = await admin.call(name, limit=2, **({"cursor": cursor} if cursor else {}))
                target = f"{paths[name]}?limit=2" + (f"&cursor={cursor}" if cursor else "")
                told = (await daemon.request("GET", target, key=key)).json
                if name != "list_sessions":  # a request over HTTP is a session of its own
                    assert [item[identity] for item in told[member]] == [item[identity] for item in reply[member]]
                    assert told.get("next_cursor") == reply.get("next_cursor")
                found += [item[identity] for item in reply[member]]
                assert len(reply[member]) <= 2
                if "next_cursor" not in reply:
                    break
                cursor = reply["next_cursor"]
            assert found == whole, name


async def test_a_cursor_of_another_list_and_what_is_none_are_refused(tmp_path: Path) -> None:
    """400 and -32602, with what to send; a limit outside of 1 to 1000 as well."""
    async with furnished(tmp_path) as (daemon, admin):
        other = (await admin.call("list_users", limit=1))["next_cursor"]
        _, key = await daemon.create_key("admin")
        for cursor in (other, "x", "é", "bGlzdA", "A" * 1024):
            reply = await admin.ask("list_keys", cursor=cursor)
            assert reply["error"]["code"] == -32602, cursor
            assert "next_cursor" in reply["error"]["data"]["hint"]
        for query in (f"cursor={other}", "cursor=x", "limit=0", "limit=1001", "limit=x", "limit=1&limit=2"):
            told = await daemon.request("GET", f"/api/keys?{query}", key=key)
            assert (told.status, told.json["code"]) == (400, "invalid_params"), query


async def test_pages_of_recordings_go_on_behind_one_that_was_deleted(tmp_path: Path) -> None:
    """Newest first, by the beginning and then the id; `total` counts all of them."""
    made = [("a", 1.0), ("b", 2.0), ("c", 2.0), ("d", 2.0), ("e", 3.0)]
    async with opened(tmp_path) as box:
        for name, began in made:
            record = RecordingRecord(
                recording_id=name, filename=f"{name}.mp4", camera="camera0", format="mp4", began=began, ended=9.0
            )
            await box.trust.db.write(partial(recordings.insert, record=record))
        after, seen = None, list[Any]()
        while True:
            page = partial(recordings.list_page, cameras=["camera0"], limit=1, offset=0, after=after)
            found, total = await box.trust.db.read(page)
            if not found:
                break
            assert total == len(made) - len(seen)
            seen.append(found[0].recording_id)
            after = found[0].began, found[0].recording_id
            await box.trust.db.write(partial(recordings.delete, recording_ids=[seen[-1]], at=9.0, reason="request"))
        assert seen == ["e", "d", "c", "b", "a"]


@pytest.mark.parametrize("times", [[], [1.0], [3.0, 1.0, 2.0], [2.0, 1.0, 2.0, 1.0, 2.0], [1.0] * 7])
def test_rows_of_one_moment_are_sorted_by_their_text(times: list[float]) -> None:
    """The order is total, whatever order the rows come in."""
    rows = [SimpleNamespace(at=at, name=f"{7 - number}") for number, at in enumerate(times)]
    place = attrgetter("at", "name")
    assert sort_rows(rows, "at", place) == sorted(rows, key=place)


def test_a_cursor_keeps_the_place_exactly() -> None:
    """Floats that differ in the last bit are different places."""
    places = [(0.1 + 0.2, "a"), (0.3, "a"), (1_700_000_000.123456, "key_1"), (0.0, "ä/?&")]
    for one, other in pairwise(places):
        assert read_cursor("list", write_cursor("list", one)) == one
        assert write_cursor("list", one) != write_cursor("list", other)
