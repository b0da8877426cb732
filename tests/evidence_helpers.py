"""A folder of evidence, made of small files: three keys after one another, one of them distrusted later; a tombstone, a
head over all, an archive of keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from edged.cli.verification import verify
from edged.credentials.evidence import Verdict
from edged.credentials.seal_signatures import read, sign, split, thumbprint_of
from edged.credentials.seals import (
    NOTHING,
    ArchivedKey,
    Head,
    KeyArchive,
    SegmentSeal,
    Statement,
    Tombstone,
)
from edged.credentials.signing_keys import Jwk, PrivateKey, generate, public_part, read_key

BEGAN: Final = 1_796_000_000.0
#: Numbers of the series, those that were deleted, and the last number that each key sealed.
COUNT: Final = 24
DELETED: Final = (5, 6)
LAST_OF: Final = {"key-2": 8, "key-4": 14, "key-6": COUNT}
DISTRUSTED: Final = "key-4"


def time_of(number: int) -> float:
    """When a segment begins; it is sealed a minute and a second later."""
    return BEGAN + 60.0 * number


class Key:
    """A key pair under a name."""

    def __init__(self, kid: str) -> None:
        pair = generate("ES256")
        self.kid = kid
        self.public: Jwk = public_part(pair)
        self.private = PrivateKey(kid, "ES256", read_key(pair))
        self.thumbprint = thumbprint_of(self.public["x"], self.public["y"])

    def sign(self, statement: Statement) -> bytes:
        return sign(statement, self.private, self.public)


@dataclass
class Box:
    """Who seals. Two boxes differ in their keys; whoever forges may give them the same names and series."""

    series: str = "0123456789abcdef"
    keys: Mapping[str, Key] = field(default_factory=lambda: {kid: Key(kid) for kid in LAST_OF})

    @property
    def current(self) -> Key:
        return self.keys["key-6"]

    def archive(self) -> bytes:
        first, entries = BEGAN, []
        for kid, last in LAST_OF.items():
            ends = time_of(last) + 90.0
            entries.append(
                ArchivedKey(
                    kid, self.keys[kid].public["x"], self.keys[kid].public["y"], first,
                    None if kid == self.current.kid else ends, ends if kid == DISTRUSTED else None,
                )
            )  # fmt: skip
            first = ends
        return self.current.sign(KeyArchive(sealed=time_of(COUNT) + 100.0, keys=tuple(entries)))


def key_at(number: int) -> str:
    return next(kid for kid, last in LAST_OF.items() if number <= last)


@dataclass
class Folder:
    """The folder of a box; every change is undone at the end of `changed`."""

    root: Path
    box: Box
    seals: dict[int, SegmentSeal] = field(default_factory=dict)
    _before: dict[Path, bytes | None] = field(default_factory=dict)

    def make(self) -> Folder:
        """Write all of it."""
        previous = NOTHING
        for number in range(1, COUNT + 1):
            data = hashlib.sha256(f"{self.box.current.thumbprint} {number}".encode()).digest() * 8
            seal = SegmentSeal(
                camera="camera0", series=self.box.series, number=number,
                file=f"camera0/2026-11-30/{int(time_of(number))}-000000.mp4", sha256=hashlib.sha256(data).hexdigest(),
                size=len(data), began=time_of(number), ended=time_of(number + 1), synchronised=True, recovered=False,
                previous=previous, sealed=time_of(number + 1) + 1.0,
            )  # fmt: skip
            text = self.box.keys[key_at(number)].sign(seal)
            previous = read(text).digest
            self.seals[number] = seal
            self.file(number).parent.mkdir(parents=True, exist_ok=True)
            self.file(number).write_bytes(data)
            self.seal(number).write_bytes(text)
        first, last = DELETED
        stone = Tombstone(
            camera="camera0", series=self.box.series, first=first, last=last, previous=self.seals[first].previous,
            digest=self.seals[last + 1].previous, began=time_of(first), ended=time_of(last + 1), reason="age",
            since=time_of(COUNT), deleted=time_of(COUNT), synchronised=True, sealed=time_of(COUNT + 1) + 2.0,
        )  # fmt: skip
        for number in range(first, last + 1):
            self.file(number).unlink()
            self.seal(number).unlink()
        self.statements.write_bytes(self.box.current.sign(stone) + self.box.current.sign(self.head(previous)))
        self.archive.write_bytes(self.box.archive())
        return self

    def head(self, digest: str, last: int = COUNT) -> Head:
        return Head(
            camera="camera0", series=self.box.series, first=1, last=last, digest=digest, synchronised=True,
            sealed=time_of(COUNT + 1) + 3.0,
        )  # fmt: skip

    @property
    def statements(self) -> Path:
        return self.root / "camera0.statements"

    @property
    def archive(self) -> Path:
        return self.root / "keys.statements"

    def read_statements(self) -> list[Any]:
        return [read(text).statement for text in split(self.statements.read_bytes())]

    def file(self, number: int) -> Path:
        return self.root / self.seals[number].file

    def seal(self, number: int) -> Path:
        return self.root / f"{self.seals[number].file}.seal"

    def numbers(self) -> list[int]:
        return [number for number in self.seals if not DELETED[0] <= number <= DELETED[1]]

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Whatever `write` and `remove` do in the block is undone."""
        try:
            yield
        finally:
            for path, data in self._before.items():
                if data is None:
                    path.unlink()
                else:
                    path.write_bytes(data)
            self._before.clear()

    def write(self, path: Path, data: bytes) -> None:
        self._keep(path)
        path.write_bytes(data)

    def remove(self, path: Path) -> None:
        self._keep(path)
        path.unlink()

    def flip(self, path: Path, bit: int) -> None:
        """Change one bit of a file, counted around its end."""
        data = bytearray(path.read_bytes())
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        self.write(path, bytes(data))

    def resign(self, number: int, key: Key, **changes: Any) -> None:
        """Replace the seal of a segment by one that somebody else signs."""
        self.write(self.seal(number), key.sign(replace(self.seals[number], **changes)))

    def verify(self, *, knows: bool = True, **range_: float | None) -> Verdict:
        known = frozenset({self.box.current.thumbprint}) if knows else None
        return verify([self.root], known=known, **range_)

    def _keep(self, path: Path) -> None:
        if path not in self._before:
            self._before[path] = path.read_bytes() if path.exists() else None


#: A change of a folder; the numbers or names of files of which the first problem must tell one.
Manipulation = Callable[[Folder, Any], set[Any]]
