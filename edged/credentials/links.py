"""Signed links: URLs of one file, or of one playlist, for whoever can send no header (contract 10.25). Pure.

The query of a link says until when it is good (`exp`, Unix seconds), who made it (`by`, a name that means something to
this process alone) and that edged wrote it (`sig`, HMAC-SHA256 over these and the target).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from edged.credentials.callers import Caller, Link, Streams

#: What whoever comes with a link may do, if whoever made it may.
CAPABILITY: Final = "camera:read"
KEY_BYTES: Final = 32
#: Bytes of a maker's name.
MAKER_BYTES: Final = 9
#: HMAC-SHA256 by its definition (RFC 2104): the block of SHA-256, and its two pads as tables for bytes.translate.
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
#: A path in which nothing is to be escaped.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~/-]*\Z", re.ASCII)
_EXPIRES: Final = re.compile(r"[0-9]{1,11}\Z", re.ASCII)
_MAKER: Final = re.compile(r"[A-Za-z0-9_-]{12}\Z", re.ASCII)
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z", re.ASCII)


class Signed(NamedTuple):
    """What a link says: `expires` Unix seconds, the name of its maker, and its signature."""

    expires: int
    maker: str
    signature: bytes


def parse(link: Link) -> Signed | None:
    """What a link that was shown says; None for what edged never writes."""
    if not (_EXPIRES.match(link.expires) and _MAKER.match(link.maker) and _SIGNATURE.match(link.signature)):
        return None
    try:
        signature = base64.b64decode(link.signature + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    # The last character has two bits that say nothing: only one spelling is edged's.
    return Signed(int(link.expires), link.maker, signature) if _spell(signature) == link.signature else None


def sign(key: bytes, target: str, expires: int, maker: str) -> bytes:
    """The signature of a link to a target (`target_of`)."""
    return hmac.digest(key, _front(expires, maker) + target.encode("utf-8", "surrogatepass"), hashlib.sha256)


def query_writer(key: bytes, expires: int, maker: str) -> Callable[[str], str]:
    """A function: a target → the query of a link to it, as `sign` and `write_query` make it.

    What all links of a list have in common is hashed once (RFC 2104, section 4): a link takes a third of the time.
    """
    inner = hashlib.sha256(key.ljust(_BLOCK_BYTES, b"\0").translate(_INNER) + _front(expires, maker))
    outer = hashlib.sha256(key.ljust(_BLOCK_BYTES, b"\0").translate(_OUTER))
    front = f"exp={expires}&by={maker}&sig="

    def write(target: str) -> str:
        within = inner.copy()
        within.update(target.encode("utf-8", "surrogatepass"))
        whole = outer.copy()
        whole.update(within.digest())
        return front + _spell(whole.digest())

    return write


def _front(expires: int, maker: str) -> bytes:
    """What is signed before the target. Neither number nor name has a line end, and the target stands last: no two
    links are one text."""
    return f"edged link\n{expires}\n{maker}\n".encode()


def is_signed(key: bytes, target: str, said: Signed) -> bool:
    """Whether the signature is that of this link, compared in constant time."""
    return hmac.compare_digest(said.signature, sign(key, target, said.expires, said.maker))


def target_of(path: str, members: Sequence[tuple[str, str]]) -> str:
    """What a link is bound to: the path as it is decoded, and the members of the query that say what is asked for."""
    text = path if _PLAIN.match(path) else quote(path, errors="surrogatepass")
    return f"{text}?{urlencode(members, errors='surrogatepass')}" if members else f"{text}?"


def write_query(signed: Signed) -> str:
    """The members of a link's query."""
    return f"exp={signed.expires}&by={signed.maker}&sig={_spell(signed.signature)}"


def link_caller(maker: Caller) -> Caller:
    """Who comes with a link: its maker, held to reading what the link names. What ends the maker ends the link."""
    return replace(
        maker, method="ticket", roles=frozenset(), capabilities=frozenset({CAPABILITY}), grants=frozenset(),
        permissions=(), streams=Streams(), parent=maker,
    )  # fmt: skip


def maker_of(caller: Caller) -> Caller:
    """Whose link it is that a caller makes: a link makes others in the name of whoever made it."""
    return caller if caller.parent is None else maker_of(caller.parent)


def _spell(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
