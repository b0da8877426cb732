"""Revoked API keys and service tokens in memory: by 8 bytes of each secret's digest, and by id; 24 bytes each.

What else is known of them stands in the database. The gate needs no more than to tell a revoked secret from an unknown
one, and that what a key issued ends with it.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import Final

_LENGTH: Final = 20
#: Ids of the usual form, one behind the other.
_IDS: Final = re.compile(r"(?:[a-z]{3}_[0-9a-f]{16})*\Z")


class Revoked:
    """Credentials whose ids are `prefix`, three letters and `_`, and 16 hex digits; any other id is kept as it is, at
    the cost of a text.

    Whoever asks has looked among the valid secrets first. A secret that is neither is taken for a revoked one by chance
    once in 2**64 / n times, and is refused in either case.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        # Sorted; the id of the secret at the same place; the ids, sorted.
        self._secrets, self._owners, self._ids = array("Q"), array("Q"), array("Q")
        # Ids of another form, by secret; all of them.
        self._others: dict[int, str] = {}
        self._other_ids: set[str] = set()

    def __len__(self) -> int:
        """How many credentials."""
        return len(self._ids) + len(self._other_ids)

    def __contains__(self, credential_id: str) -> bool:
        number = self._number(credential_id)
        if number is None:
            return credential_id in self._other_ids
        place = bisect_left(self._ids, number)
        return place < len(self._ids) and self._ids[place] == number

    def find(self, digest: bytes) -> str | None:
        """The id of the credential that has, or had, a secret of this digest; None if none is known to."""
        secret = _shorten(digest)
        place = bisect_left(self._secrets, secret)
        if place < len(self._secrets) and self._secrets[place] == secret:
            return f"{self._prefix}{self._owners[place]:016x}"
        return self._others.get(secret)

    def load(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Fill an empty one with these, (id, digest of its newest secret) of each, at a start: a tenth of the time of
        one by one."""
        names = "".join([credential_id for credential_id, _ in rows])
        is_usual = len(names) == len(rows) * _LENGTH and names.count(self._prefix) == len(rows) and _IDS.match(names)
        if not is_usual:
            for credential_id, digest in rows:
                self.add(credential_id, [digest])
            return
        ids = bytes.fromhex(names.replace(self._prefix, ""))
        self._fill([digest[:8] + ids[8 * at : 8 * at + 8] for at, (_, digest) in enumerate(rows)])
        self._ids = array("Q", sorted(self._owners))

    def add(self, credential_id: str, digests: Iterable[bytes]) -> None:
        """One that is revoked from now on, with the digests of all its secrets."""
        number = self._number(credential_id)
        if number is None:
            self._other_ids.add(credential_id)
            self._others |= {_shorten(digest): credential_id for digest in digests}
            return
        if credential_id not in self:
            self._ids.insert(bisect_left(self._ids, number), number)
        for digest in digests:
            if self.find(digest) is None:
                place = bisect_left(self._secrets, _shorten(digest))
                self._secrets.insert(place, _shorten(digest))
                self._owners.insert(place, number)

    def forget(self, credential_ids: Collection[str]) -> None:
        """These are unknown from now on."""
        gone = {self._number(each) for each in credential_ids}
        pairs = zip(self._secrets, self._owners, strict=True)
        self._fill([_pack(secret) + _pack(owner) for secret, owner in pairs if owner not in gone])
        self._ids = array("Q", [number for number in self._ids if number not in gone])
        self._other_ids.difference_update(credential_ids)
        self._others = {secret: owner for secret, owner in self._others.items() if owner in self._other_ids}

    def _fill(self, pairs: list[bytes]) -> None:
        """`pairs`: 8 bytes of a digest and 8 of an id each, which sort as the numbers that they are."""
        pairs.sort()
        whole = array("Q", b"".join(pairs))
        if sys.byteorder == "little":
            whole.byteswap()
        self._secrets, self._owners = whole[::2], whole[1::2]

    def _number(self, credential_id: str) -> int | None:
        """What the id is kept as; None for one of another form."""
        if len(credential_id) != _LENGTH or not credential_id.startswith(self._prefix) or not _IDS.match(credential_id):
            return None
        return int(credential_id[-16:], 16)


def _shorten(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _pack(number: int) -> bytes:
    return number.to_bytes(8, "big")
