"""The two databases: `trust` for what must never be lost, `usage` for what only counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from edged.errors import EdgedError
from edged.repeats import Lasting
from edged.store import meta
from edged.store.database import Database, ObserveCommit
from edged.store.migrations import TRUST, USAGE
from edged.store.opening import leave_marker

_log = structlog.get_logger("edged")


class Databases(msgspec.Struct, frozen=True):
    """Both, open."""

    trust: Database
    usage: Database


@asynccontextmanager
async def open_databases(state: Path, observe_commit: ObserveCommit) -> AsyncIterator[Databases]:
    """Open both in the folder `state`; on exit everything accepted is written. Raises StartFailed."""
    trust_file, usage_file = state / "trust.db", state / "usage.db"
    marker = trust_file.with_suffix(".exists")
    async with (
        Database.open(
            trust_file, TRUST, name="trust", observe_commit=observe_commit,
            reserve=trust_file.with_suffix(".reserve"), proofs=(marker, usage_file),
        ) as trust,
        Database.open(
            usage_file, USAGE, name="usage", synchronous="NORMAL", observe_commit=observe_commit, is_expendable=True
        ) as usage,
    ):  # fmt: skip
        leave_marker(marker)
        yield Databases(trust, usage)


def save_mark(trust: Database) -> Callable[[float], Awaitable[None]]:
    """How the clock's high-water mark is saved, Unix seconds; a failure is logged, and the next save tries again."""

    lasting = Lasting()

    async def save(mark: float) -> None:
        try:
            await trust.write(lambda connection: meta.save_high_water(connection, mark))
        except EdgedError as problem:
            if lasting.begins("save", str(problem)):
                _log.warning("clock_mark_not_saved", problem=str(problem))
        else:
            if lasting.ends("save"):
                _log.info("clock_mark_saved_again")

    return save


async def replace_mark(trust: Database, mark: float) -> None:
    """Set the clock's high-water mark, Unix seconds, also to one that is lower. Raises StoreFailed."""
    await trust.write(lambda connection: meta.replace_high_water(connection, mark))
