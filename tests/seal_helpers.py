"""A box that seals, without MediaMTX: real databases, real keys, and small segments in a real folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from fmp4_helpers import make_segment
from patience import fail_after

from edged.clock import Clock
from edged.credentials.identities import Identity
from edged.credentials.signing_keys import Algorithm, Jwk, generate
from edged.library import sealing as module
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.sealing import Sealing
from edged.signing.keyring import Keyring
from edged.store.database import Database
from edged.store.migrations import TRUST, USAGE
from edged.store.segments import SegmentRow

NOW = 1_796_000_000.0
#: Making RSA keys takes long, and none is used here.
_RSA = generate("RS256")


@dataclass
class SealingBox:
    """What a test works with; `written` counts segments, which begin a minute apart."""

    root: Path
    trust: Database
    usage: Database
    keyring: Keyring
    sealing: Sealing
    index: RecordingIndex
    time: list[float] = field(default_factory=lambda: [NOW])
    denied: set[Identity] = field(default_factory=set)
    written: int = 0

    async def record(self, count: int = 1, camera: str = "camera0", *, wait: bool = True) -> list[SegmentRow]:
        """Segments that MediaMTX closes one after the other, sealed when this returns."""
        closed: list[SegmentRow] = []
        for _ in range(count):
            write_open(self.root, camera, NOW + 60 * self.written)
            self.written += 1
            self.time[0] = NOW + 60 * self.written
            closed += (await self.index.look()).closed
        if wait:
            await self.until_sealed([row.file for row in closed])
        return closed

    async def until_sealed(self, files: list[str]) -> None:
        while any(not (self.root / f"{file}.seal").exists() for file in files) or self.sealing._closed:
            await trio.sleep(0.005)

    async def until_head(self, count: int = 1) -> None:
        """Until the trust database has so many heads that cover all."""
        while await self.statements("head") < count or self.sealing._needs_head:
            self.sealing._stirred.set()
            await trio.sleep(0.005)

    async def statements(self, kind: str) -> int:
        query = "SELECT count(*) FROM statements WHERE kind = ?"
        return int(await self.trust.read(lambda connection: connection.execute(query, (kind,)).fetchone()[0]))


def write_open(root: Path, camera: str, began: float, **how: Any) -> None:
    """A closed file where MediaMTX leaves it; each has other bytes."""
    path = root / "open" / camera / "x" / f"{int(began)}-000000.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_segment(at_ns=int(began) * 10**9, number=int(began), **how))


async def make_keys(algorithms: Sequence[Algorithm]) -> list[Jwk]:
    """New ones of ES256; the RSA key is the same each time."""
    return [generate(each) if each == "ES256" else _RSA for each in algorithms]


@asynccontextmanager
async def sealing_box(
    folder: Path, *, written: int = 0, ends: float = 0.0, denied: set[Identity] | None = None
) -> AsyncIterator[SealingBox]:
    """Started on what is in a folder already; the block sees it looked through. `ends`: seconds until a head."""
    denied = set() if denied is None else denied
    before, module.END_SECONDS = module.END_SECONDS, ends  # type: ignore[misc]
    try:
        with fail_after(60):
            async with (
                Database.open(folder / "trust.db", TRUST, name="trust") as trust,
                Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage,
                trio.open_nursery() as nursery,
            ):
                time = [NOW + 60 * written]
                clock = Clock(system=lambda: time[0], synchronized=lambda: True)
                keyring = Keyring(
                    trust, clock, is_denied=denied.__contains__,
                    make=make_keys,
                    was_restored=False,
                )  # fmt: skip
                keyring.load()
                await keyring.ensure()
                files = RecordingFiles(folder / "recordings")
                sealing = Sealing(files.find, usage, trust, clock, keyring)
                index = RecordingIndex(files, usage, sealing=sealing)
                await index.prepare()
                await index.look()
                await index.reconcile()
                nursery.start_soon(sealing.run)
                yield SealingBox(files.root, trust, usage, keyring, sealing, index, time, denied, written)
                nursery.cancel_scope.cancel()
    finally:
        module.END_SECONDS = before  # type: ignore[misc]
