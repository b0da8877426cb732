"""JWTs signed with a shared secret, HS256 (seeds 000 and 001): verify and sign, given secrets and a time.

Size, shape, header and types are checked here before joserfc sees anything: its oldest supported
version has no size limits and signs with an empty key. The algorithm comes from the key that we
hold, never from the header; header members that name or carry keys refuse the token (RFC 8725).
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from edged.credentials.callers import Caller
from edged.credentials.claims import LEEWAY, ClaimsRefused, read_caller
from edged.credentials.decision import Reason
from edged.errors import ConfigError

ALGORITHM: Final = "HS256"
LONGEST_TOKEN = 8 * 1024
SHORTEST_SECRET = 32
#: Printed in the guides that clients copy from: whoever configures one has told everybody.
PUBLISHED_SECRETS = frozenset(
    {
        "your-secret-key-here",
        "your-secret-key",
        "your-secret",
        "your_secret_key",
        "your_secret_key_here",
        "your-secret-key-change-in-production",
    }
)
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\Z")
_HEADER_MEMBERS = {"alg", "typ", "kid", "cty"}
_TYPES = {None, "JWT", "jwt", "at+jwt"}


class TokenRefused(Exception):
    """This text is not a token that any of our secrets signed, or its claims do not hold."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SharedSecret:
    """A named HS256 secret: the UTF-8 bytes of its text, never base64-decoded (contract S0-1)."""

    __slots__ = ("_key", "name")

    def __init__(self, name: str, text: str) -> None:
        """Raises ConfigError for a published sample, or one shorter than 32 bytes."""
        text = text.removesuffix("\n").removesuffix("\r")
        if text in PUBLISHED_SECRETS:
            raise ConfigError(
                f"shared secret {name!r} is a sample printed in a public guide",
                hint="make one of your own: openssl rand -base64 32",
            )
        if len(text.encode()) < SHORTEST_SECRET:
            raise ConfigError(
                f"shared secret {name!r} is shorter than {SHORTEST_SECRET} bytes",
                hint="make a longer one: openssl rand -base64 32",
            )
        self.name = name
        self._key = OctKey.import_key(text.encode())

    def __repr__(self) -> str:
        return f"SharedSecret({self.name!r})"

    @property
    def key(self) -> OctKey:
        return self._key


def verify(text: str, shared_secrets: Sequence[SharedSecret], *, now: float, leeway: float = LEEWAY) -> Caller:
    """A compact JWS → the caller that it speaks for. Raises TokenRefused. `now` is Unix seconds."""
    _check_shape(text)
    for secret in shared_secrets:
        try:
            payload = jws.deserialize_compact(text, secret.key, algorithms=[ALGORITHM]).payload
        except (JoseError, ValueError):
            continue
        try:
            return read_caller(_object(payload, "payload"), text, now=now, leeway=leeway)
        except ClaimsRefused as problem:
            raise TokenRefused(problem.reason, problem.detail) from None
    detail = (
        "no shared secret verifies it"
        if shared_secrets
        else (
            "no shared secret configured: openssl rand -base64 32 > FILE; chmod 600 FILE; "
            "name FILE in [auth.shared_secrets]"
        )
    )
    raise TokenRefused(Reason.BAD_SIGNATURE, detail)


def sign(claims: Mapping[str, object], secret: SharedSecret) -> str:
    """Claims → a compact HS256 JWS with `typ` JWT and no `aud` (contract S0-11)."""
    return jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, dict(claims), secret.key)


def issue_claims(
    user_id: str, *, role: str | None, now: float, expires_in: int, permissions: Sequence[str] | None = None,
    camera_access: Sequence[str] | None = None, extra: Mapping[str, object] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Claims of a new token: `iat` floored, `jti` always, `sub` and `user_id` both (contract S0-24, S0-26, S1-3)."""
    issued = int(now)
    claims: dict[str, object] = dict(extra or {})
    claims |= {"sub": user_id, "user_id": user_id, "iat": issued, "exp": issued + expires_in}
    claims["jti"] = secrets.token_urlsafe(16)
    if role is not None:
        claims["role"] = role
    if permissions is not None:
        claims["permissions"] = list(permissions)
    if camera_access is not None:
        claims["camera_access"] = list(camera_access)
    return claims


def peek_claims(text: str) -> dict[str, object]:
    """The claims of a token that nothing has verified: to name what is being revoked, never to decide by.

    Raises TokenRefused if it is no compact JWS of JSON objects.
    """
    _check_shape(text)
    return _object(_decode(text.split(".")[1]), "payload")


def _check_shape(text: str) -> None:
    if len(text) > LONGEST_TOKEN:
        raise TokenRefused(Reason.MALFORMED, f"longer than {LONGEST_TOKEN} characters")
    if not _COMPACT.match(text):
        raise TokenRefused(Reason.MALFORMED, "not a compact JWS")
    head, _, signature = text.split(".")
    # The last character carries unused bits: other spellings of one signature would be other texts,
    # and a token that is revoked by the hash of its text would come back in the next spelling.
    if base64.urlsafe_b64encode(_decode(signature)).rstrip(b"=") != signature.encode():
        raise TokenRefused(Reason.MALFORMED, "its signature is not canonical base64url")
    header = _object(_decode(head), "header")
    if header.get("alg") != ALGORITHM:
        raise TokenRefused(Reason.ALG_NOT_ALLOWED, "its alg is not the one of our key")
    if unknown := header.keys() - _HEADER_MEMBERS:
        raise TokenRefused(Reason.MALFORMED, f"header member {sorted(unknown)[0][:32]!r} is not accepted")
    if not (header.get("typ") is None or isinstance(header["typ"], str)) or header.get("typ") not in _TYPES:
        raise TokenRefused(Reason.MALFORMED, "typ is not JWT")


def _decode(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise TokenRefused(Reason.MALFORMED, "not base64url") from None


def _object(data: bytes, what: str) -> dict[str, object]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused(Reason.MALFORMED, f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise TokenRefused(Reason.MALFORMED, f"{what} is not a JSON object")
    return value
