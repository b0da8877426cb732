"""Indexed files that are not known to have a seal: those that have one beside them, and those that have none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from edged.credentials.seal_signatures import is_by, read
from edged.credentials.seals import BadSeal, SegmentSeal
from edged.credentials.signing_keys import Jwk, PrivateKey, SigningKeyRecord, VerifyingKey
from edged.library.seal_files import read_seal
from edged.store import seals as rows
from edged.store.database import Database
from edged.store.seals import SealRow
from edged.store.segments import SegmentRow

#: A place before every file, and files that are looked at in one go.
BEFORE_ALL: Final = (-1e18, "")
BATCH: Final = 200


class SealKeys(Protocol):
    """The keys that sign (signing.keyring)."""

    def sealing_key(self) -> tuple[PrivateKey, Jwk] | None: ...
    def find(self, kid: str) -> VerifyingKey | None: ...
    def get(self, kid: str) -> SigningKeyRecord: ...
    def all(self) -> tuple[SigningKeyRecord, ...]: ...
    def is_distrusted(self, record: SigningKeyRecord) -> bool: ...


class Unsealed:
    """Files in the index that have no seal, oldest first."""

    def __init__(self, usage: Database) -> None:
        self._usage = usage
        self._after = BEFORE_ALL
        self._page: deque[SegmentRow] = deque()
        self._taken = 0
        self.is_empty = False

    @property
    def is_first(self) -> bool:
        """Whether the next one is among the first `BATCH`."""
        return not self.is_empty and self._taken < BATCH

    async def next(self, others: Container[str]) -> SegmentRow | None:
        """The next one that is not among `others`, None when there is none. Raises StoreFailed."""
        while not self._page and not self.is_empty:
            page = await self._usage.read(partial(rows.list_unsealed, after=self._after, limit=BATCH))
            self._page.extend(row for row in page if row.file not in others)
            if page:
                self._after = (page[-1].began, page[-1].file)
            self.is_empty = not page
        return self._page[0] if self._page else None

    def pop(self) -> None:
        """That one is done."""
        self._page.popleft()
        self._taken += 1


def read_seals(
    page: Sequence[SegmentRow], find: Callable[[str], Path], keys: SealKeys
) -> tuple[list[SealRow], list[tuple[str, str]]]:
    """The seals beside files that this box has made, and (file, why not) of those that are no such ones. In a thread.

    `find` says where a file of the index is.
    """
    good: list[SealRow] = []
    bad: list[tuple[str, str]] = []
    for row in page:
        try:
            text = read_seal(find(row.file))
            if text is None:
                continue
            signed = read(text)
            statement, key = signed.statement, keys.find(signed.kid)
            if not isinstance(statement, SegmentSeal) or statement.file != row.file:
                raise BadSeal("it is the seal of something else")
            if key is None or not is_by(signed, key, keys.get(key.kid).public):
                raise BadSeal("no key of this box signed it")
            good.append(row_of(statement, signed.digest, signed.kid))
        except (BadSeal, OSError) as problem:
            bad.append((row.file, str(problem)))
    return good, bad


def row_of(statement: SegmentSeal, digest: str, kid: str) -> SealRow:
    """The seal of a file as the index knows it."""
    return SealRow(
        statement.file, statement.camera, statement.series, statement.number, digest, statement.previous,
        statement.sealed, kid,
    )  # fmt: skip
