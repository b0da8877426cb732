"""The code by which a new box is claimed (contract 10.1): ten characters that nobody misreads, 50 random bits.

The alphabet is Crockford's: 32 digits and capitals without I, L, O and U. Whoever types small letters, or an O where a
0 stands, is understood.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: 5 bits each.
LENGTH: Final = 10
_MEANT: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


def mint_code() -> str:
    """A new one."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def digest(code: str) -> bytes:
    """What is kept of a code, however it was typed: SHA-256. It lives for minutes, so that its 50 bits suffice."""
    meant = code.strip().upper().translate(_MEANT)
    return hashlib.sha256(meant.encode("utf-8", "surrogatepass")).digest()
