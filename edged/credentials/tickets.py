"""Stream tickets: short texts that open one camera for one thing, for players that can only take a URL.

A ticket stands in URLs, which end in histories and logs: so it is worth little. It opens one path for one action and
lives a minute, and it is never worth more than the credential that asked for it (contract 10.6, 10.12).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Literal

from edged.credentials.callers import Caller, Streams, TokenFacts
from edged.credentials.identities import Identity, Kind

Action = Literal["read", "publish"]

#: Action → what whoever asks for a ticket must be able to do themselves.
CAPABILITIES: Final[Mapping[Action, str]] = MappingProxyType({"read": "stream:read", "publish": "stream:publish"})
#: ffmpeg cuts a password at 127 characters, and a whole RTMP URL at 1024: at most 96 (mediamtx.md 3.5).
PREFIX: Final = "edged_ticket_"
_SHAPE = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}\Z")


def mint() -> tuple[str, bytes]:
    """A new ticket of 256 random bits, 56 characters that need no escaping in a URL; and its digest."""
    text = PREFIX + secrets.token_urlsafe(32)
    return text, digest(text)


def digest(text: str) -> bytes:
    """What a ticket is known by: SHA-256 of its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def is_ticket(text: str) -> bool:
    """Whether text has the issued form."""
    return _SHAPE.match(text) is not None


def ticket_caller(parent: Caller, action: Action, camera: str, made_by: Identity) -> Caller:
    """Who comes with a ticket that `parent` asked for: the parent, held to one action on one camera.

    It answers to every name of its parent, so that what ends the parent ends it, and to `made_by`, the name of all
    tickets of one session. It ends with its parent; the ticket itself ends sooner (access.tickets).
    """
    streams = Streams(
        read=frozenset({camera} if action == "read" else ()), publish=frozenset({camera} if action == "publish" else ())
    )
    return replace(
        parent, method="ticket", roles=frozenset(), capabilities=frozenset(), grants=frozenset(), permissions=(),
        streams=streams, identities=parent.identities | {made_by}, parent=parent,
    )  # fmt: skip


def renewed(held: Caller, fresh: Caller) -> Caller:
    """Who comes with a ticket once its session shows a newer credential; `held` as before where that is no heir.

    It must be the same subject's and may do all that the one before may. What ends the old one goes on ending the
    ticket, but for the replacement of a key's secret: that is what a session shows a newer one for.
    """
    before = held.parent
    if before is None or _owner_of(fresh) != _owner_of(before) or not fresh.covers(before):
        return held
    kept = frozenset(name for name in held.identities if name.kind is not Kind.SECRET)
    return replace(
        fresh, method="ticket", roles=frozenset(), capabilities=frozenset(), grants=frozenset(), permissions=(),
        streams=held.streams, identities=kept | fresh.identities, token=_both(held, fresh), parent=fresh,
    )  # fmt: skip


def _both(held: Caller, fresh: Caller) -> TokenFacts | None:
    """What the newer token says, and whatever ends either of the two."""
    if held.token is None:
        return fresh.token
    token = fresh.token or TokenFacts(claims={})
    return replace(token, issued_by=held.token.issued_by | token.issued_by, shared=held.token.shared | token.shared)


def _owner_of(caller: Caller) -> tuple[str, str]:
    return caller.issuer, caller.subject
