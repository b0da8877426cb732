"""Which texts are no shared secret: samples that everybody has read, keys of another kind, too little to guess.

Whoever knows a shared secret signs an administrator's token. A public key, in whichever of its spellings, is known to
everybody; a private one belongs where it came from. joserfc looks at some of that and not in every version, so that
it is judged here, before a library sees it.
"""

from __future__ import annotations

import base64
import re
from binascii import Error as NotBase64
from typing import Final

from edged.credentials import api_keys, service_tokens
from edged.errors import ConfigError

#: Bytes (RFC 7518 3.2: no shorter than the hash).
SHORTEST_SECRET: Final = 32
#: Characters of a random secret hardly ever repeat: 44 in base64 have more than 20 different ones.
FEWEST_CHARACTERS: Final = 8
#: Printed in the guides that clients copy from: whoever configures one has told everybody.
PUBLISHED_SECRETS: Final = frozenset(
    {
        "your-secret-key-here",
        "your-secret-key",
        "your-secret",
        "your_secret_key",
        "your_secret_key_here",
        "your-secret-key-change-in-production",
    }
)
_REMEDY: Final = "make one of your own: openssl rand -base64 32"
#: Any part of one of these tells a key: half of a file that was cut off is no better.
_SPELLINGS: Final[tuple[tuple[str, re.Pattern[bytes]], ...]] = (
    (
        "a key or a certificate in PEM",
        re.compile(rb"-----\s*(BEGIN|END)\b|(BEGIN|END) [A-Z0-9 ]{0,32}(KEY|CERTIFICATE)\b"),
    ),
    ("a key of SSH", re.compile(rb"---- (BEGIN|END) SSH2|openssh-key-v1\0|PuTTY-User-Key-File")),
    ("a key of SSH", re.compile(rb"(^|[\s,])(sk-)?(ssh|ecdsa-sha2)-[\w@.-]+\s+AAAA")),
    ("a key of SSH", re.compile(rb"\A\0\0\0.(sk-)?(ssh|ecdsa-sha2)-", re.DOTALL)),
    ("a JWK", re.compile(rb"\A\s*[\[{]\s*[\"'{]|[\"'](kty|keys)[\"']\s*:")),
)
#: A DER SEQUENCE that begins with another one (SubjectPublicKeyInfo, certificate, encrypted PKCS #8) or with a whole
#: number (PKCS #1, PKCS #8, SEC 1), its length in one byte or in several (X.690 8.1.3): what no text begins with.
_DER: Final = re.compile(
    rb"\x30(?P<short>[\x00-\x7f])(?:\x30[\x03-\x1f]|\x02[\x01-\x7f])|"
    rb"\x30(?P<long>\x81.|\x82..|\x83...)(?:\x30[\x03-\x84]|\x02[\x01-\x7f\x81\x82])",
    re.DOTALL,
)


def check_secret(name: str, text: str) -> None:
    """Raises ConfigError, which names the secret and never shows it, unless `text` may be a shared secret."""
    bare = text.strip().strip("\ufeff\0").strip()
    data = bare.encode()
    problem = (
        _published_as(bare)
        or _kind_of(data)
        or (f"is shorter than {SHORTEST_SECRET} bytes" if len(data) < SHORTEST_SECRET else None)
        or (f"has fewer than {FEWEST_CHARACTERS} different characters" if len(set(bare)) < FEWEST_CHARACTERS else None)
        or ("says the same again and again" if _is_repeated(bare) else None)
    )
    if problem is not None:
        raise ConfigError(f"shared secret {name!r} {problem}", hint=_REMEDY, key=f"auth.shared_secrets.{name}")


def _is_repeated(text: str) -> bool:
    """Whether it is one word of less than the shortest secret, twice or more."""
    return any(text.startswith(text[size:]) for size in range(1, min(SHORTEST_SECRET - 1, len(text) // 2) + 1))


def _published_as(text: str) -> str | None:
    """What it is, if everybody has read it."""
    if text in PUBLISHED_SECRETS:
        return "is a sample printed in a public guide"
    printed = api_keys.published_as(api_keys.digest(text)) or service_tokens.published_as(service_tokens.digest(text))
    return printed and f"is {printed}"


def _kind_of(data: bytes) -> str | None:
    """What key this is the text of: as it stands, or in base64 or hex, as it is where its armour was left out."""
    for spelled in (data, data.replace(b"\0", b""), _from_base64(data), _from_hex(data)):
        for kind, pattern in _SPELLINGS:
            if pattern.search(spelled):
                return f"is {kind}, and no secret"
        if _is_der(spelled):
            return "is a key or a certificate in DER, and no secret"
    return None


def _is_der(data: bytes) -> bool:
    """Whether a key or a certificate starts here; a long one may have been cut off."""
    match = _DER.match(data)
    if match is None:
        return False
    if match["short"] is not None:
        return len(data) == 2 + match["short"][0]
    return len(data) <= 1 + len(match["long"]) + int.from_bytes(match["long"][1:])


def _from_base64(data: bytes) -> bytes:
    """What stands there in either alphabet, with padding or without; b"" if nothing does."""
    packed = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    # Of a text that was cut off the last character may say nothing.
    packed = packed[: len(packed) - (len(packed) % 4 == 1)]
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except NotBase64:
        return b""


def _from_hex(data: bytes) -> bytes:
    """Pairs of digits, with colons or blanks between them or nothing; b"" if it is something else."""
    try:
        return bytes.fromhex(data.decode().replace(":", ""))
    except ValueError:
        return b""
