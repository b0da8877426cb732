"""Seals for recorded files: each closed segment of a camera gets the next number of its series and names the one
before.

A seal stands beside its file before the index knows it, so that a crash leaves it there or not made at all: the number
and the digest that the next one follows come from the files, the index, the heads and the tombstones, whichever goes
farthest. A file that was closed while edged did not run is sealed as recovered. One that has a seal which is not good
is never sealed anew: whoever changed it would be helped.

A tombstone is on the disk before the files that it is about go. Where a full disk takes none, they go all the same, for
that is what makes space, and it is written as soon as it can be.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from edged.clock import Clock
from edged.credentials.seal_signatures import read, sign
from edged.credentials.seals import (
    NOTHING,
    BadSeal,
    DerivedSeal,
    Head,
    Part,
    SegmentSeal,
    Statement,
    Tombstone,
)
from edged.credentials.signing_keys import Jwk, PrivateKey
from edged.errors import EdgedError
from edged.library.burials import bury_runs, merge_tombstones
from edged.library.seal_files import measure, read_seal, write_seal
from edged.library.unsealed import BATCH, BEFORE_ALL, SealKeys, Unsealed, read_seals, row_of
from edged.repeats import Lasting
from edged.store import seals as rows
from edged.store.database import Database
from edged.store.seals import SealRow, StatementRow
from edged.store.segments import SegmentRow

#: Seconds between two heads of a series that grows, and without a new segment until a head ends it.
HEAD_SECONDS: Final = 3600.0
END_SECONDS: Final = 5.0
#: Heads and tombstones of one series; more tombstones are put together.
MOST_STATEMENTS: Final = 1000
#: Seconds until what failed is tried again.
_AGAIN_SECONDS: Final = 5.0
#: Seconds that somebody waits for a segment to be sealed.
_WAIT_SECONDS: Final = 10.0
_log = structlog.get_logger("seals")


class NoKey(Exception):
    """Every key that could sign is distrusted."""


class _Series(msgspec.Struct):
    """Where a camera's series stands: the last number and digest, and up to which number a head covers it."""

    name: str
    number: int
    digest: str
    covered: int
    head_at: float
    grown_at: float = -math.inf


class Sealing:
    """Seals what `note` tells of; `run` must be running."""

    def __init__(
        self, find: Callable[[str], Path], usage: Database, trust: Database, clock: Clock, keys: SealKeys
    ) -> None:
        """`find` says where a file of the index is."""
        self.find, self.usage, self.trust, self.keys = find, usage, trust, keys
        self._clock = clock
        self._series: dict[str, _Series] = {}
        self._closed: dict[str, SegmentRow] = {}
        self._writing: frozenset[str] = frozenset()
        self._begun = trio.Event()
        self._stirred = trio.Event()
        self._sealed = trio.Event()
        # One number at a time; and one file is hashed at a time.
        self._one = trio.Lock()
        self._disk = trio.CapacityLimiter(1)
        #: Tombstones that the disk has not taken yet.
        self._unsaved: list[Tombstone] = []
        self._lasting = Lasting()

    def begin(self) -> None:
        """The index holds what the disk holds."""
        self._begun.set()

    def note(self, closed: Sequence[SegmentRow], writing: Collection[str]) -> None:
        """These files were closed just now, and those of these cameras are being written."""
        self._writing = frozenset(writing)
        # What was closed before edged began is found without a seal.
        if closed and self._begun.is_set():
            self._closed.update((row.file, row) for row in closed)
            self._stirred.set()

    async def run(self) -> None:
        """Seal what is closed; runs until cancelled."""
        await self._begun.wait()
        await self._again(self._adopt)
        await self._again(self._load)
        late = Unsealed(self.usage)
        while True:
            self._stirred = trio.Event()
            is_done = await self._again(partial(self._step, late))
            if is_done and not self._closed and late.is_empty:
                with trio.move_on_after(END_SECONDS / 2 if self._needs_head else math.inf):
                    await self._stirred.wait()

    async def _step(self, late: Unsealed) -> None:
        """One file, and the heads that are due. Raises EdgedError, OSError, NoKey."""
        while self._unsaved:
            await self._save(self._unsaved[0])
            self._unsaved.pop(0)
        for camera, series in list(self._series.items()):
            if series.number > series.covered and self._is_due(camera, series):
                async with self._one:
                    await self._write_head(camera, series)
        # What a crash or a restart left comes first, so that numbers follow the time; of very much, the rest waits.
        found = await late.next(self._closed) if late.is_first or not self._closed else None
        if found is not None:
            await self._seal(found, is_late=True)
            late.pop()
        elif self._closed:
            file, row = next(iter(self._closed.items()))
            await self._seal(row, is_late=False)
            self._closed.pop(file, None)
        self._sealed.set()
        self._sealed = trio.Event()

    # Segments ---------------------------------------------------------------------------------------------------------

    async def _seal(self, row: SegmentRow, *, is_late: bool) -> None:
        async with self._one:
            path = self.find(row.file)
            try:
                if await trio.to_thread.run_sync(read_seal, path, limiter=self._disk) is not None:
                    return
                content = await trio.to_thread.run_sync(measure, path, limiter=self._disk)
            except FileNotFoundError:
                return
            except OSError as problem:
                _log.warning("not_sealed", file=row.file, problem=problem.strerror, remedy="the next start tries again")
                return
            series = await self._find_series(row.camera)
            statement = SegmentSeal(
                camera=row.camera, series=series.name, number=series.number + 1, file=row.file, sha256=content.sha256,
                size=content.size, began=row.began, ended=row.ended, synchronised=self._clock.is_synchronized,
                recovered=row.recovered or is_late, previous=series.digest, sealed=self._clock.now(),
            )  # fmt: skip
            key, public = self._key()
            # The number is taken once the seal stands there, whoever is cancelled meanwhile.
            with trio.CancelScope(shield=True):
                named = await trio.to_thread.run_sync(
                    partial(_sign_beside, path, statement, key, public), limiter=self._disk
                )
                series.number, series.digest = statement.number, named
                series.grown_at = self._clock.monotonic()
                await self.usage.write(partial(rows.insert, rows=[row_of(statement, named, key.kid)]))

    async def _adopt(self) -> None:
        """Take up the seals that stand beside files and are not in the index."""
        after, found, bad = BEFORE_ALL, 0, 0
        while page := await self.usage.read(partial(rows.list_unsealed, after=after, limit=BATCH)):
            after = (page[-1].began, page[-1].file)
            good, wrong = await trio.to_thread.run_sync(read_seals, page, self.find, self.keys, limiter=self._disk)
            if good:
                await self.usage.write(partial(rows.insert, rows=good))
            found, bad = found + len(good), bad + len(wrong)
            for file, why in wrong[:3]:
                _log.warning("seal_not_good", file=file, problem=why, remedy="edged recording verify says more")
        if found or bad:
            _log.info("seals_found", good=found, not_good=bad)

    # Series and heads -------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        for camera in await self.trust.read(rows.load_series):
            async with self._one:
                await self._find_series(camera)

    async def _find_series(self, camera: str) -> _Series:
        if (known := self._series.get(camera)) is not None:
            return known
        name = (await self.trust.read(rows.load_series)).get(camera)
        if name is None:
            made = secrets.token_hex(8)
            name = await self.trust.write(partial(rows.name_series, camera=camera, name=made))
            _log.info("series_begun", camera=camera, series=name)
        head = await self.trust.read(partial(rows.find_last_statement, series=name, kind="head"))
        stone = await self.trust.read(partial(rows.find_last_statement, series=name, kind="tombstone"))
        seal = await self.usage.read(partial(rows.find_last, series=name))
        ends = [(0, NOTHING)]
        for row in (head, stone):
            if row is not None:
                # The first signature that is looked at brings the library.
                ends.append((row.last, await trio.to_thread.run_sync(_digest_of, row)))
        if seal is not None:
            ends.append((seal.number, seal.digest))
        number, last = max(ends)
        covered = 0 if head is None else head.last
        self._series[camera] = _Series(name, number, last, covered, self._clock.monotonic())
        return self._series[camera]

    @property
    def _needs_head(self) -> bool:
        return any(series.number > series.covered for series in self._series.values())

    def _is_due(self, camera: str, series: _Series) -> bool:
        now = self._clock.monotonic()
        has_ended = camera not in self._writing and now - series.grown_at >= END_SECONDS
        waits = any(row.camera == camera for row in self._closed.values())
        return (has_ended and not waits) or now - series.head_at >= HEAD_SECONDS

    async def _write_head(self, camera: str, series: _Series) -> None:
        statement = self._make_head(camera, series.name, series.covered + 1, series.number, series.digest)
        await self._save(statement)
        series.covered, series.head_at = statement.last, self._clock.monotonic()

    def _make_head(self, camera: str, series: str, first: int, last: int, last_digest: str) -> Head:
        return Head(
            camera=camera, series=series, first=first, last=last, digest=last_digest,
            synchronised=self._clock.is_synchronized, sealed=self._clock.now(),
        )  # fmt: skip

    async def _save(self, statement: Head | Tombstone) -> None:
        """A head or tombstone is durable afterwards. Raises NoKey, StoreFailed."""
        text = await self.sign(statement)
        row = StatementRow(
            statement.camera, statement.series, "head" if isinstance(statement, Head) else "tombstone",
            statement.first, statement.last, read(text).kid, statement.sealed, text,
        )  # fmt: skip
        await self.trust.write(partial(rows.save_statement, row=row, most=MOST_STATEMENTS))

    # Deletions --------------------------------------------------------------------------------------------------------

    async def bury(self, going: Sequence[SegmentRow], reasons: Mapping[str, str]) -> None:
        """These files are to be deleted, each for its reason: tombstones say so, durably where the disk takes them."""
        for row in going:
            self._closed.pop(row.file, None)
        async with self._one:
            sealed = await self.usage.read(partial(rows.find, files=[row.file for row in going]))
            segments = {row.file: row for row in going}
            now, is_synchronised = self._clock.now(), self._clock.is_synchronized
            for made in bury_runs(sealed, segments, reasons, now=now, synchronised=is_synchronised):
                before = await self.trust.read(
                    partial(rows.find_statement_before, series=made.series, number=made.first)
                )
                count = await self.trust.read(partial(rows.count_tombstones, series=made.series))
                earlier = None if before is None else (await trio.to_thread.run_sync(read, before.text)).statement
                stone = merge_tombstones(earlier, made, is_crowded=count >= MOST_STATEMENTS)
                try:
                    await self._save(stone)
                except (EdgedError, NoKey) as problem:
                    self._unsaved.append(stone)
                    self._stirred.set()
                    _log.warning("tombstone_waits", camera=stone.camera, first=stone.first, problem=str(problem))

    async def forget(self, files: Collection[str]) -> None:
        """These files are deleted."""
        await self.usage.write(partial(rows.remove, files=files))

    # What is made of segments -----------------------------------------------------------------------------------------

    async def seal_derived(
        self, path: Path, segments: Sequence[SegmentRow], *, name: str = "", began: float | None = None,
        ended: float | None = None,
    ) -> bool:  # fmt: skip
        """Put a seal beside a file that was made of these segments of one camera: a clip, or a joined recording.

        `name` is what it is downloaded as, by default its own; `began` and `ended` Unix seconds, by default those of
        the segments. Returns whether it has one: not where a segment gets none in time, nor where it cannot be written;
        the log says so.
        """
        try:
            found = await self.wait_sealed([row.file for row in segments])
            if not found or len(found) < len(segments) or len({row.series for row in found}) > 1:
                raise BadSeal("not all of its segments are sealed in one series")
            content = await trio.to_thread.run_sync(measure, path)
            statement = DerivedSeal(
                camera=found[0].camera, series=found[0].series, name=name or path.name, sha256=content.sha256,
                size=content.size,
                began=segments[0].began if began is None else began,
                ended=segments[-1].ended if ended is None else ended,
                synchronised=self._clock.is_synchronized, sealed=self._clock.now(),
                parts=tuple(Part(row.number, row.digest) for row in found),
            )  # fmt: skip
            await self._sign_beside(path, statement)
        except (BadSeal, EdgedError, OSError, NoKey) as problem:
            _log.warning("not_sealed", file=str(path), problem=str(problem))
            return False
        return True

    async def wait_sealed(self, files: Sequence[str]) -> list[SealRow]:
        """The seals of these files, by number; those that have none after `_WAIT_SECONDS` are not among them."""
        with trio.move_on_after(_WAIT_SECONDS):
            while any(file in self._closed for file in files):
                await self._sealed.wait()
        return await self.usage.read(partial(rows.find, files=files))

    async def sign(self, statement: Statement) -> bytes:
        """The text of a statement, signed by the key that signs now. Raises NoKey."""
        key, public = self._key()
        return await trio.to_thread.run_sync(sign, statement, key, public)

    def make_head(self, first: int, last: SealRow) -> Head:
        """A head from one number to another one of the same series, for somebody who fetches what lies between."""
        return self._make_head(last.camera, last.series, first, last.number, last.digest)

    @property
    def now(self) -> float:
        """Unix seconds, as statements name them."""
        return self._clock.now()

    async def _sign_beside(self, path: Path, statement: Statement) -> None:
        key, public = self._key()
        await trio.to_thread.run_sync(partial(_sign_beside, path, statement, key, public))

    def _key(self) -> tuple[PrivateKey, Jwk]:
        """Raises NoKey."""
        found = self.keys.sealing_key()
        if found is None:
            raise NoKey("every key that could sign is distrusted")
        return found

    async def _again(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Whether it could be done; if not, the reason is logged once, and some seconds have passed."""
        try:
            await work()
        except (EdgedError, OSError, NoKey, BadSeal) as problem:
            if self._lasting.begins("seal", str(problem)):
                _log.warning("sealing_waits", problem=str(problem))
            await trio.sleep(_AGAIN_SECONDS)
            return False
        if self._lasting.ends("seal"):
            _log.info("sealing_goes_on")
        return True


def _sign_beside(path: Path, statement: Statement, key: PrivateKey, public: Jwk) -> str:
    """Sign it and put it beside a file; its digest. Raises BadSeal, OSError."""
    text = sign(statement, key, public)
    write_seal(path, text)
    return read(text).digest


def _digest_of(row: StatementRow) -> str:
    """The digest of the last seal that a head or tombstone is about."""
    statement = read(row.text).statement
    assert isinstance(statement, (Head, Tombstone)), "nothing else is saved"
    return statement.digest
