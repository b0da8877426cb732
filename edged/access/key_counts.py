"""How many API keys there are of each status, kept up to date: whoever scrapes metrics need not go over all keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter

from edged.credentials.api_keys import KeyRecord


class KeyCounts:
    """Keys come and go by `add`; a key that changes goes as it was and comes as it is."""

    def __init__(self) -> None:
        self._fixed: Counter[str] = Counter()
        # When those end that end at a time, Unix seconds; sorted, unless many came one after another.
        self._ends: list[float] = []
        self._is_sorted = True

    def add(self, record: KeyRecord, by: int, *, rests: bool) -> None:
        """`by`: 1 for one more, -1 for one less; `rests`: it is suspended, or its owner is."""
        if record.revoked_at is not None:
            self._fixed["revoked"] += by
        elif rests:
            self._fixed["suspended"] += by
        elif record.expires_at is None:
            self._fixed["active"] += by
        elif by > 0:
            self._is_sorted = self._is_sorted and (not self._ends or self._ends[-1] <= record.expires_at)
            self._ends.append(record.expires_at)
        else:
            self._sort()
            del self._ends[bisect_left(self._ends, record.expires_at)]

    def rest(self, record: KeyRecord) -> None:
        """A key that was not suspended is from now on."""
        self.add(record, -1, rests=False)
        self.add(record, 1, rests=True)

    def count(self, now: float, *, all_rest: bool) -> Counter[str]:
        """Keys by `Ledger.key_status` at a time, Unix seconds; `all_rest`: all wait but those that are revoked."""
        self._sort()
        expired = bisect_right(self._ends, now)
        counts = self._fixed + Counter(active=len(self._ends) - expired, expired=expired)
        if all_rest:
            revoked = counts.pop("revoked", 0)
            counts = Counter(suspended=counts.total(), revoked=revoked)
        return counts

    def _sort(self) -> None:
        if not self._is_sorted:
            self._ends.sort()
            self._is_sorted = True
