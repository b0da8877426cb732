"""Lists, stream rights and replaced secrets as JSON text in a column; NULL where there is none."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from edged.credentials.callers import Streams
from edged.credentials.identities import Identity, format_all, parse_all
from edged.credentials.rotation import Replaced

# An identity that is bound as it is would be a blob, which equals no text.
sqlite3.register_adapter(Identity, str)


def write_texts(texts: Sequence[str] | None) -> str | None:
    """A list of texts, in its order."""
    return None if texts is None else msgspec.json.encode(texts).decode()


def read_texts(text: str | None) -> tuple[str, ...] | None:
    """What `write_texts` wrote."""
    return None if text is None else msgspec.json.decode(text, type=tuple[str, ...])


def write_identities(identities: frozenset[Identity]) -> str | None:
    """The texts of whoever made something, sorted; NULL for none."""
    return msgspec.json.encode(format_all(identities)).decode() if identities else None


@lru_cache(maxsize=256)
def read_identities(text: str | None) -> frozenset[Identity]:
    """What `write_identities` wrote; the same set for the same text, because many rows have few makers."""
    return frozenset() if text is None else parse_all(msgspec.json.decode(text, type=list[str]))


def write_streams(streams: Streams | None) -> str | None:
    """Stream rights, sorted."""
    if streams is None:
        return None
    return msgspec.json.encode({"read": sorted(streams.read), "publish": sorted(streams.publish)}).decode()


def read_streams(text: str | None) -> Streams | None:
    """What `write_streams` wrote."""
    return None if text is None else msgspec.json.decode(text, type=Streams)


def write_replaced(secrets: Sequence[Replaced]) -> str | None:
    """Digests in hex, each with its end in Unix seconds."""
    return msgspec.json.encode([(each.digest.hex(), each.until) for each in secrets]).decode() if secrets else None


def read_replaced(text: str | None) -> tuple[Replaced, ...]:
    """What `write_replaced` wrote."""
    found = [] if text is None else msgspec.json.decode(text, type=list[tuple[str, float]])
    return tuple(Replaced(bytes.fromhex(digest), until) for digest, until in found)
