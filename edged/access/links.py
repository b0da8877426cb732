"""The signed links that are good now: a key of this process, and by whom links were made.

Nothing is kept for a single link, so a list may have one in each row. Key and makers are in memory only: a restart ends
every link, as it ends tickets.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import msgspec

from edged.credentials.callers import Caller, Link
from edged.credentials.identities import Identity
from edged.credentials.links import (
    KEY_BYTES,
    MAKER_BYTES,
    is_signed,
    link_caller,
    maker_of,
    parse,
    query_writer,
)
from edged.errors import Overloaded, RateLimited

#: Credentials by which links that are good were made, in all and of one account.
MOST: Final = 4096
MOST_OF_ONE: Final = 64
_By: TypeAlias = tuple[str, str, frozenset[Identity]]


class _Maker(msgspec.Struct):
    """By whom links were made, and when the last of them ends, Unix seconds."""

    caller: Caller
    by: _By
    ends: int


class OpenLink(NamedTuple):
    """A link that edged wrote: who comes with it, and when it ends, Unix seconds."""

    caller: Caller
    ends: int


class Links:
    """Makes links and finds who made them; used by the gate."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives Unix seconds, which never run backwards far (edged.clock)."""
        self._now = now
        self._key = secrets.token_bytes(KEY_BYTES)
        self._makers: dict[str, _Maker] = {}
        self._names: dict[_By, str] = {}
        self._of: Counter[str] = Counter()

    def signer(self, caller: Caller, seconds: float) -> Callable[[str], str]:
        """A function: a target (credentials.links) → the query of a new link to it. The gate has been asked before.

        Raises RateLimited, Overloaded where links by too many credentials are open.
        """
        maker = maker_of(caller)
        expires = int(self._now() + seconds)
        name = self._name_of(maker, expires)
        return query_writer(self._key, expires, name)

    def find(self, link: Link) -> OpenLink | None:
        """A link that edged wrote for this target, ended or not; None for every other."""
        said = parse(link)
        maker = None if said is None else self._makers.get(said.maker)
        if said is None or maker is None or not is_signed(self._key, link.target, said):
            return None
        return OpenLink(link_caller(maker.caller), said.expires)

    def has_ended(self, link: OpenLink) -> bool:
        """Whether its time is over."""
        return self._now() >= link.ends

    def _name_of(self, maker: Caller, ends: int) -> str:
        by = (maker.method, maker.credential_id, maker.identities)
        name = self._names.get(by)
        if name is not None:
            known = self._makers[name]
            known.caller, known.ends = maker, max(known.ends, ends)
            return name
        self._forget_ended()
        if self._of[maker.account] >= MOST_OF_ONE:
            raise RateLimited(f"links by {MOST_OF_ONE} of your credentials are open", retry_after_ms=60_000)
        if len(self._makers) >= MOST:
            raise Overloaded("links by too many credentials are open", hint="try again in some minutes")
        name = secrets.token_urlsafe(MAKER_BYTES)
        self._makers[name] = _Maker(maker, by, ends)
        self._names[by] = name
        self._of[maker.account] += 1
        return name

    def _forget_ended(self) -> None:
        now = self._now()
        for name in [name for name, each in self._makers.items() if each.ends <= now]:
            maker = self._makers.pop(name)
            del self._names[maker.by]
            self._of[maker.caller.account] -= 1
        self._of = +self._of
