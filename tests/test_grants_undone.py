"""A right that ends while the commit runs: what was written is taken back exactly, and memory never had it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import make_config
from entry_helpers import make_entry
from grant_helpers import ended_meanwhile
from keyring_helpers import opened as opened_keyring
from patience import fail_after
from test_library_recordings import opened as opened_recordings
from test_library_recordings import start

from edged.access.grants import Upkeep
from edged.daemon.cameras import build_cameras
from edged.errors import Refused
from edged.metrics import Metrics
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.retention import RetentionSetting

TABLES = ("signing_keys", "cameras", "added_cameras", "recordings", "meta")


async def look(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row but the count of commits."""

    def load(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
        found = {table: [tuple(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in TABLES}
        return found | {"meta": [row for row in found["meta"] if row[0] != "commits"]}

    return await db.read(load)


async def check(db: Database, memory: Callable[[], object], *changes: Callable[..., Awaitable[object]]) -> None:
    """None of these changes anything for whoever was revoked meanwhile."""
    before, seen = await look(db), memory()
    for change in changes:
        with pytest.raises(Refused):
            await change(ended_meanwhile(db))
        assert await look(db) == before
        assert memory() == seen


async def test_signing_keys_are_as_before(tmp_path: Path) -> None:
    async with opened_keyring(tmp_path / "trust.db") as bench:
        keyring = bench.keyring
        await check(bench.db, keyring.all, partial(keyring.create, algorithm="ES256"))
        kid = (await keyring.create(bench.grant, "ES256")).kid
        await check(
            bench.db, keyring.all,
            partial(keyring.promote, kid=kid, force=True), partial(keyring.retire, kid=kid),
        )  # fmt: skip
        await keyring.promote(bench.grant, kid, force=True)
        assert (await bench.sign()).count(".") == 2


async def test_recordings_and_the_retention_policy_are_as_before(tmp_path: Path) -> None:
    async with opened_recordings(tmp_path) as box:
        recordings = box.recordings
        db = recordings._trust

        def memory() -> object:
            return (dict(recordings.active), recordings.sweep.policies.policy, set(box.recorded))

        async def begin(grant: object) -> None:
            await start(box, grant=grant)

        by_age = RetentionSetting("age", enabled=True, max_age_days=1.0)
        await check(db, memory, begin, partial(recordings.sweep.policies.set_policy, "", by_age))
        await start(box)
        await recordings.sweep.policies.set_policy("", by_age, box.grant)
        await check(
            db, memory, partial(recordings.stop, "camera0"),
            partial(recordings.sweep.policies.set_policy, "", RetentionSetting("manual", enabled=True)),
        )  # fmt: skip
        await box.write()
        box.now += 1
        measured = await recordings.stop("camera0", box.grant)
        await check(
            db, memory, partial(recordings.delete, measured.record, "request"),
            partial(recordings.sweep.protect, measured.record, True),
        )  # fmt: skip
        assert (await recordings.measure(measured.record)).files == measured.files


async def test_added_cameras_are_as_before(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1)
    with fail_after(20):
        async with Database.open(tmp_path / "trust.db", TRUST, name="trust") as db, trio.open_nursery() as nursery:
            registry = build_cameras(config, db, Metrics({}))
            await nursery.start(registry.run)
            gate = make_entry("gate", "rtsp://192.0.2.9/1")
            await check(db, registry.all, partial(registry.describe, gate))
            added = await registry.describe(gate, Upkeep(db))
            assert added.name == "camera1", "the number was nobody's"
            await check(
                db, registry.all,
                partial(registry.describe, make_entry("yard", "rtsp://192.0.2.9/1", number=1)),
                partial(registry.remove, 1),
            )  # fmt: skip
            await registry.remove(1, Upkeep(db))
            await check(db, registry.all, partial(registry.describe, gate))
            nursery.cancel_scope.cancel()
