"""Passwords that edged makes for its own children and for its control of MediaMTX; edged.access.ledger makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


class NewSecret(Protocol):
    """Makes a password for one action on one path of MediaMTX, good for so many uses, None for any number."""

    def __call__(self, path: str, action: str, uses: int | None, /) -> str: ...


#: Makes a password invalid; one that is not valid any more is fine.
DropSecret: TypeAlias = Callable[[str], None]
