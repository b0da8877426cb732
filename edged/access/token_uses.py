"""How often each token was shown: in memory, for the tokens that were shown last (contract S0-28).

The names are hashes of texts, which tell nothing; as labels of a metric they would grow without end.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import structlog

#: Tokens that are counted at a time; one that is shown again after so many others begins at 1.
MOST: Final = 1024
#: One that is shown more often is worth a warning; and again each time that it was shown so often more.
EXCESSIVE: Final = 1000
_log = structlog.get_logger("gate")


class TokenUses:
    """Counts by SHA-256 of the token's text."""

    def __init__(self) -> None:
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def count(self, token_hash: bytes) -> None:
        """One more, now. Never waits."""
        number = self._counts.get(token_hash, 0) + 1
        self._counts[token_hash] = number
        self._counts.move_to_end(token_hash)
        if len(self._counts) > MOST:
            self._counts.popitem(last=False)
        if number > EXCESSIVE and number % EXCESSIVE == 1:
            _log.warning("token_used_often", credential=token_hash.hex(), uses=number)

    def most_used(self, limit: int) -> dict[str, int]:
        """Hash in hex → uses of the tokens that were shown most often, these first."""
        found = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return {token_hash.hex(): number for token_hash, number in found[:limit]}
