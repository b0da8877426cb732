"""JWTs: verify and sign, given keys and a time. HS256 by shared secrets (guides S0 and S1), RS256 and ES256 by our own
key pairs; and verify what outside issuers sign, by their records.

Everything that can be judged without a key is judged here, before a library sees the token: size, shape, spelling,
header (token_headers), UTF-8, JSON, nesting, members that stand twice. msgspec and joserfc take the last of two equal
members, and the oldest joserfc has no size limits and signs with an empty key. Which key and which algorithm verify a
token is what we know of the key, never what the header says; the header can only name a key that we hold, or refuse
itself (RFC 8725).
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from edged.credentials.callers import Caller, Method, Signer
from edged.credentials.claims import LEEWAY, SEED_TRUST, ClaimsRefused, Trust, check_trust, read_caller, read_epoch
from edged.credentials.decision import Reason
from edged.credentials.identities import Identity
from edged.credentials.issuers import OUTSIDE_ALGORITHMS, IssuerRecord, OutsideIssuer, limit
from edged.credentials.plain_json import NotPlain, read_object
from edged.credentials.secret_texts import check_secret
from edged.credentials.signing_keys import VerifyingKey, lower, mirrored
from edged.credentials.token_headers import TokenHeader, read_header

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

ALGORITHM: Final = "HS256"
#: Characters of a token, wherever it is shown; over HTTP it may be longer, for an identity provider that lists groups.
LONGEST_TOKEN: Final = 8 * 1024
LONGEST_OVER_HTTP: Final = 12 * 1024
#: Where a longer token may be shown. MediaMTX's protocols have less room, and a WebSocket could not be sure of it.
_HTTP: Final = frozenset({"http", "uds"})
#: Bytes of base64url; a longer header is read each time that it comes.
_LONGEST_REMEMBERED: Final = 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\Z")
#: Characters of a stranger's words that a log line repeats.
_SHOWN: Final = 64
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
#: What base64 may end in, by its length modulo 4: the unused bits of the last character are zero (RFC 4648 3.5).
_ENDS: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_ALGORITHMS: Final = frozenset({ALGORITHM, *OUTSIDE_ALGORITHMS})


class TokenRefused(Exception):
    """This text is not a token that any of our secrets signed, or its claims do not hold.

    `method` says whose it claims to be: an outside issuer's, or ours.
    """

    def __init__(self, reason: Reason, detail: str, method: Method = "jwt_local") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.method = method


class SharedSecret:
    """A named HS256 secret: the UTF-8 bytes of its text, never base64-decoded (contract S0-1)."""

    __slots__ = ("_key", "name", "trust")
    algorithm: Final = ALGORITHM
    #: Tokens that it signs name no key: those of the guides do not.
    kid: Final = ""

    def __init__(self, name: str, text: str, trust: Trust = SEED_TRUST) -> None:
        """`trust`: which issuers and audiences its tokens may name.

        Raises ConfigError for what is no secret: a published sample, a key of another kind, too little to guess.
        """
        check_secret(name, text)
        text = text.removesuffix("\n").removesuffix("\r")
        self.name = name
        self.trust = trust
        self._key = text.encode()

    def __repr__(self) -> str:
        return f"SharedSecret({self.name!r})"

    @property
    def key(self) -> bytes:
        return self._key


class SignsTokens(Protocol):
    """A SharedSecret, or the private half of a key pair."""

    @property
    def kid(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def key(self) -> bytes | RSAKey | ECKey: ...


#: kid → the key pair's public half, None if none of ours has this name; never waits, never fetches.
FindKey: TypeAlias = Callable[[str], VerifyingKey | None]
#: `iss`, "" for a token without one → the outside issuer with its keys, None if none is trusted by it.
FindIssuer: TypeAlias = Callable[[str], OutsideIssuer | None]


def longest_over(transport: str) -> int:
    """Characters that a token may have where it is shown this way (contract 7.1)."""
    return LONGEST_OVER_HTTP if transport in _HTTP else LONGEST_TOKEN


def verify(
    text: str, shared_secrets: Sequence[SharedSecret], *, now: float, find_key: FindKey, find_issuer: FindIssuer,
    own: str, leeway: float = LEEWAY, past: float = 0.0, longest: int = LONGEST_TOKEN,
) -> Caller:  # fmt: skip
    """A compact JWS → the caller that it speaks for. Raises TokenRefused. `now` is Unix seconds.

    `own` is what tokens by our key pairs say as `iss`: no other issuer's token is ours, whatever its kid says.

    One that we could have signed may have ended up to `past` seconds ago: for a refresh. `longest`: its characters.

    A token that says that it is an outside issuer's is that issuer's or nobody's: neither our key pairs nor our shared
    secrets are asked, whatever its kid says. One that names no issuer is ours if a key pair of ours or HS256 could have
    signed it, and only then of the one outside issuer, if any, that is trusted without a name.
    """
    token = _open(text)
    kid = token.header.kid
    named = token.claims.get("iss", "")
    outside = find_issuer(named) if isinstance(named, str) else None
    if outside is not None and (named or not (token.header.alg == ALGORITHM or find_key(kid))):
        try:
            _check_form(token, text, longest)
            return _read_outside(token, text, outside, now=now, leeway=leeway)
        except (TokenRefused, ClaimsRefused) as problem:
            raise TokenRefused(problem.reason, problem.detail, "jwt_federated") from None
    is_strange = token.header.alg != ALGORITHM and find_key(kid) is None and not _is_ours(token, own)
    _check_form(token, text, longest, "jwt_federated" if is_strange else "jwt_local")
    if is_strange:
        raise _stranger(token)
    if kid and not _KID.match(kid):
        raise TokenRefused(Reason.MALFORMED, "kid is not a short name of letters, digits, _ and -")
    key = find_key(kid) if kid else None
    if key is None:
        secret = _check_shared(token, shared_secrets)
        trust, signer = secret.trust, Signer(ALGORITHM, secret.name)
    else:
        _check_pair(token, key)
        trust, signer = key.trust, Signer(key.algorithm, kid)
    try:
        check_trust(token.claims, trust)
        return read_caller(
            token.claims, text, now=now, issuer="", leeway=leeway,
            signed_by=Identity.of_signing_key(kid) if key else None,
            epoch=read_epoch(token.claims, trust), may_open_files=key is not None and key.algorithm == "RS256",
            signer=signer, past=past,
        )  # fmt: skip
    except ClaimsRefused as problem:
        raise TokenRefused(problem.reason, problem.detail) from None


def sign(claims: Mapping[str, object], key: SignsTokens) -> str:
    """Claims → a compact JWS with `typ` JWT. By a shared secret it names no key and must carry no `aud` (S0-11)."""
    header = {"typ": "JWT", "alg": key.algorithm, **({"kid": key.kid} if key.kid else {})}
    material = key.key
    if isinstance(material, bytes):
        # As joserfc writes it, to the byte: a successor that is told again is signed again (accounts.refreshes).
        signed = ".".join(_encode(_write(part)) for part in (header, claims))
        return f"{signed}.{_encode(_mac(material, signed.encode()))}"
    from edged.credentials import jose

    text = jose.sign(header, claims, material)
    if key.algorithm != "ES256":
        return text
    signed, _, signature = text.rpartition(".")
    return f"{signed}.{_encode(lower(base64.urlsafe_b64decode(signature + '==')))}"


def issue_claims(
    user_id: str, *, role: str | None, now: float, expires_in: int, permissions: Sequence[str] | None = None,
    camera_access: Sequence[str] | None = None, extra: Mapping[str, object] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Claims of a new token: `iat` rounded down, always `jti`, `sub` and `user_id` (contract S0-24, S0-26, S1-3)."""
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


def peek_claims(text: str, longest: int = LONGEST_TOKEN) -> dict[str, object]:
    """The claims of a token that nothing has verified: to name what is being revoked, never to decide by.

    Raises TokenRefused if it is no compact JWS of JSON objects.
    """
    if len(text) > longest:
        raise TokenRefused(Reason.MALFORMED, f"longer than {longest} characters")
    token = _open(text)
    _check_form(token, text, longest)
    return token.claims


class _Opened(NamedTuple):
    """A token in its parts; nothing of it is verified. `signed` is what the signature is over."""

    header: TokenHeader
    claims: dict[str, object]
    signed: bytes
    signature: bytes


def _open(text: str) -> _Opened:
    """A compact JWS of two JSON objects, in its parts; `_check_form` says whether it may be a token. Raises
    TokenRefused."""
    if len(text) > LONGEST_OVER_HTTP:
        raise TokenRefused(Reason.MALFORMED, f"longer than {LONGEST_OVER_HTTP} characters")
    if not _COMPACT.match(text):
        raise TokenRefused(Reason.MALFORMED, "not a compact JWS")
    data = text.encode()
    head, body, tail = data.translate(_TO_BASE64).split(b".")
    signature = _decode(tail)
    header = _read_known_header(head) if len(head) <= _LONGEST_REMEMBERED else _read_header(head)
    try:
        claims = _object(_decode(body), "payload")
    except TokenRefused:
        if header.fault is not None:
            raise TokenRefused(*header.fault) from None
        raise
    return _Opened(header, claims, data[: -len(tail) - 1], signature)


def _check_form(token: _Opened, text: str, longest: int, method: Method = "jwt_local") -> None:
    """Raises TokenRefused for what its header says, or its length, whoever signed it."""
    if token.header.fault is not None:
        raise TokenRefused(*token.header.fault, method)
    if len(text) > longest:
        raise TokenRefused(Reason.MALFORMED, f"longer than {longest} characters, the most where it was shown", method)


def _is_ours(token: _Opened, own: str) -> bool:
    """Whether it says that it is edged's own, or says nothing of whose it is."""
    named = token.claims.get("iss")
    return named == own or (named is None and not token.header.names_key)


def _stranger(token: _Opened) -> TokenRefused:
    """The refusal of a token which no key of ours signed, and no shared secret could have."""
    named = token.claims.get("iss")
    said = f"by iss {named[:_SHOWN]!r}" if isinstance(named, str) else "without an iss that is a text"
    detail = f"nobody is trusted {said} to sign with {token.header.alg}"
    return TokenRefused(Reason.UNTRUSTED_ISSUER, detail, "jwt_federated")


def _check_shared(token: _Opened, shared_secrets: Sequence[SharedSecret]) -> SharedSecret:
    """The shared secret that signed it. Raises TokenRefused."""
    if token.header.alg != ALGORITHM:
        if token.header.names_key:
            raise TokenRefused(Reason.UNKNOWN_KEY, "no key of ours has its kid")
        raise TokenRefused(Reason.ALG_NOT_ALLOWED, "its alg is not the one of our key")
    for secret in shared_secrets:
        if hmac.compare_digest(_mac(secret.key, token.signed), token.signature):
            return secret
    detail = (
        "no shared secret verifies it"
        if shared_secrets
        else (
            "no shared secret configured: openssl rand -base64 32 > FILE; chmod 600 FILE; "
            "name FILE in [auth.shared_secrets]"
        )
    )
    raise TokenRefused(Reason.BAD_SIGNATURE, detail)


def _read_outside(token: _Opened, text: str, issuer: OutsideIssuer, *, now: float, leeway: float) -> Caller:
    """Raises TokenRefused or ClaimsRefused unless this issuer signed it and may say what it says."""
    record, algorithm = issuer.record, token.header.alg
    if algorithm not in record.algorithms:
        raise TokenRefused(Reason.ALG_NOT_ALLOWED, f"its alg is not one of issuer {record.name}")
    found = issuer.find(token.header.kid)
    if not found:
        if _would_do(token, text, record, now=now, leeway=leeway):
            issuer.ask()
        raise TokenRefused(Reason.UNKNOWN_KEY, f"no key of issuer {record.name} has its kid, or none is known yet")
    fitting = [key for key in found if key.algorithm == algorithm]
    if not fitting:
        raise TokenRefused(Reason.ALG_NOT_ALLOWED, f"its alg is not the one of the key of issuer {record.name}")
    if not any(key.key is not None and _is_signed(token, key.key, algorithm) for key in fitting):
        raise TokenRefused(Reason.BAD_SIGNATURE, f"no key of issuer {record.name} signed it")
    check_trust(token.claims, fitting[0].trust)
    twin = f"{token.signed.decode()}.{_encode(mirrored(token.signature, algorithm))}"
    # Others write either spelling of a signature: a revocation of one is one of both.
    twins = frozenset({Identity.of_token(twin)})
    caller = read_caller(token.claims, text, now=now, leeway=leeway, roles_of=record.roles.read, issuer=record.identity)
    return limit(caller, record, twins)


def _would_do(token: _Opened, text: str, record: IssuerRecord, *, now: float, leeway: float) -> bool:
    """Whether a signature is all that is missing: no other token is a reason to look for a key of its name."""
    try:
        check_trust(token.claims, record.trust)
        read_caller(token.claims, text, now=now, leeway=leeway, roles_of=record.roles.read, issuer=record.identity)
    except ClaimsRefused:
        return False
    return True


def _check_pair(token: _Opened, key: VerifyingKey) -> None:
    """Raises TokenRefused unless this key of ours signed it."""
    if token.header.alg != key.algorithm:
        raise TokenRefused(Reason.ALG_NOT_ALLOWED, "its alg is not the one of the key that it names")
    if not key.takes_signature(token.signature):
        raise TokenRefused(Reason.MALFORMED, "its signature is not in the spelling that we write")
    # One that has signed nothing needs no library to say so.
    if key.key is None or not _is_signed(token, key.key, key.algorithm):
        raise TokenRefused(Reason.BAD_SIGNATURE, "the key that it names did not sign it")


def _is_signed(token: _Opened, key: RSAKey | ECKey, algorithm: str) -> bool:
    """The library's part: bytes, signature and key, by the algorithm of the key. It never sees the token."""
    from edged.credentials import jose

    return jose.verify(algorithm, token.signed, token.signature, key)


def _mac(secret: bytes, signed: bytes) -> bytes:
    """The signature of HS256 (RFC 7518 3.2): the standard library's, for which nothing has to be loaded."""
    return hmac.digest(secret, signed, "sha256")


def _read_header(head: bytes) -> TokenHeader:
    """Raises TokenRefused for what is no JSON object in base64url."""
    return read_header(_object(_decode(head), "header"), _ALGORITHMS)


#: A box sees few different ones.
_read_known_header = lru_cache(maxsize=64)(_read_header)


def _decode(part: bytes) -> bytes:
    """base64 without padding, of the alphabet only, in its one spelling. Raises TokenRefused.

    Another spelling would be another text, as which a token that is revoked by the hash of its text could come back.
    """
    odd = len(part) % 4
    if odd and part[-1] not in _ENDS[odd]:
        raise TokenRefused(Reason.MALFORMED, "not canonical base64url")
    return a2b_base64(part + b"=" * (-odd % 4))


def _encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _write(part: Mapping[str, object]) -> bytes:
    return json.dumps(dict(part), ensure_ascii=False, separators=(",", ":")).encode()


def _object(data: bytes, what: str) -> dict[str, object]:
    """One JSON object. Raises TokenRefused."""
    try:
        return read_object(data, what)
    except NotPlain as problem:
        raise TokenRefused(Reason.MALFORMED, str(problem)) from None
