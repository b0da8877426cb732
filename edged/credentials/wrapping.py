"""Private halves of signing keys in an envelope: JWE (RFC 7516), `dir` with A256GCM, by a key that is not in the file.

A copied state folder then signs nothing. The key of 32 bytes is the SHA-256 of the text that the operator hands over.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from edged.credentials.signing_keys import Jwk
from edged.errors import NOT_JSON, ConfigError

SHORTEST_TEXT: Final = 32
#: Where the text comes from.
CREDENTIAL: Final = "edged.wrapping_key"
_HEADER: Final = {"alg": "dir", "enc": "A256GCM", "cty": "jwk+json"}
_ALGORITHMS: Final = ["dir", "A256GCM"]


class CannotUnwrap(Exception):
    """This private half was not wrapped by this key, or it was changed since."""


class WrappingKey:
    """What private halves are wrapped by."""

    __slots__ = ("_key",)

    def __init__(self, text: str) -> None:
        """`text` without its last line end is what counts. Raises ConfigError if it is shorter than 32 bytes."""
        data = text.removesuffix("\n").removesuffix("\r").encode()
        if len(data) < SHORTEST_TEXT:
            raise ConfigError(
                f"the credential {CREDENTIAL} is shorter than {SHORTEST_TEXT} bytes",
                hint="make a longer one: openssl rand -base64 32",
            )
        from joserfc.jwk import OctKey

        self._key = OctKey.import_key(hashlib.sha256(data).digest())

    def __repr__(self) -> str:
        return "WrappingKey(…)"

    def wrap(self, private: Jwk) -> str:
        """A JWK with private members → a compact JWE; another one each time."""
        from joserfc import jwe

        return jwe.encrypt_compact(dict(_HEADER), msgspec.json.encode(private), self._key, algorithms=_ALGORITHMS)

    def unwrap(self, text: str) -> Jwk:
        """Raises CannotUnwrap."""
        from joserfc import jwe
        from joserfc.errors import JoseError

        try:
            opened = jwe.decrypt_compact(text, self._key, algorithms=_ALGORITHMS).plaintext
            return msgspec.json.decode(opened or b"", type=Jwk)
        except (JoseError, ValueError, *NOT_JSON) as problem:
            raise CannotUnwrap(str(problem)) from None


def is_wrapped(text: str) -> bool:
    """Whether a stored private half is in an envelope; a plain one is a JSON object."""
    return not text.startswith("{")


def write_private(private: Jwk, key: WrappingKey | None) -> str:
    """A private half as it is stored: wrapped where there is a key."""
    return msgspec.json.encode(private).decode() if key is None else key.wrap(private)


def read_private(text: str, key: WrappingKey | None) -> Jwk:
    """A stored private half, wrapped or not. Raises CannotUnwrap."""
    if not is_wrapped(text):
        return msgspec.json.decode(text, type=Jwk)
    if key is None:
        raise CannotUnwrap("there is no wrapping key")
    return key.unwrap(text)
