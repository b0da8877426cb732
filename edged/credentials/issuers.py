"""Outside issuers: whose keys verify which tokens, how a key set of theirs is read, and what its tokens may do at most.

An issuer is trusted by its record, which the settings hold: its `iss`, its algorithms, for whom its tokens must be,
and a role above which none of them rises. Its keys come as a JWK set (RFC 7517) or a PEM file; of a set every key is
judged alone, and one that is weak, private, symmetric or ambiguous is left out and named.
"""

from __future__ import annotations

import base64
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

import msgspec

from edged.credentials.callers import Caller, Streams
from edged.credentials.claims import Trust
from edged.credentials.identities import Identity
from edged.credentials.plain_json import NotPlain, read_object
from edged.credentials.role_claims import OWN, RoleClaim
from edged.credentials.roles import ROLES
from edged.credentials.signing_keys import COORDINATES, Jwk, VerifyingKey, complete, public_part, read_key

OutsideAlgorithm: TypeAlias = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384"]
#: What an outside issuer may sign with: what every joserfc verifies alike, and nothing symmetric.
OUTSIDE_ALGORITHMS: Final[tuple[OutsideAlgorithm, ...]] = get_args(OutsideAlgorithm)
#: Bytes of a key set or a PEM file.
LARGEST_SET: Final = 256 * 1024
#: Keys of one issuer that are held; a token without a kid is tried with each of its algorithm.
MOST_KEYS: Final = 16
#: Keys in a set that are looked at: more would hold the loop.
MOST_LISTED: Final = 64
WEAKEST_RSA: Final = 2048
#: A longer one costs more for each token than a box can spare.
LONGEST_RSA: Final = 8192
_LARGEST_EXPONENT: Final = 2**32
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_CURVES: Final[Mapping[str, str]] = {"P-256": "ES256", "P-384": "ES384"}
_NAME = re.compile(r"[!-~]{1,128}\Z")
_BASE64 = re.compile(r"[A-Za-z0-9_-]+\Z")
_PEM = re.compile(r"\s*-----BEGIN (RSA )?PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END (RSA )?PUBLIC KEY-----\s*\Z")


class KeysRefused(Exception):
    """There is no key in this that could be relied on; the text says why, and names nothing secret."""


class IssuerRecord(msgspec.Struct, frozen=True):
    """What the settings say of an outside issuer.

    `name` is its name here, `issuer` its `iss`; "" is for tokens that name no issuer. `ceiling` is a role: its
    capabilities are the most that a token may have. Without `audiences` a token must name no audience, else one of
    these: one that is meant for another service is not taken (RFC 8725 3.9). `roles` says where they name roles, and
    by which words.
    """

    name: str
    issuer: str
    algorithms: tuple[OutsideAlgorithm, ...]
    audiences: frozenset[str] = frozenset()
    ceiling: str = "viewer"
    roles: RoleClaim = OWN

    @property
    def identity(self) -> str:
        """By what its tokens' subjects and jtis are told from others' (Caller.issuer)."""
        return self.issuer or f"auth.issuers.{self.name}"

    @property
    def trust(self) -> Trust:
        """Whom its tokens may name as issuer, and for whom they must be."""
        return Trust(
            frozenset({self.issuer} if self.issuer else ()), self.audiences,
            needs_issuer=bool(self.issuer), needs_audience=bool(self.audiences),
        )  # fmt: skip


class OutsideIssuer(Protocol):
    """A record with the keys that are held for it; reading them never waits and never fetches."""

    @property
    def record(self) -> IssuerRecord: ...

    def find(self, kid: str) -> Sequence[VerifyingKey]:
        """The keys of this name, or those that have none; all of them where the token names none ("")."""

    def ask(self) -> None:
        """A token that would do otherwise names a key that is not held: have its issuer looked at, when it is time."""


class KeySet(NamedTuple):
    """The keys that may be relied on, and of the others why not."""

    keys: tuple[VerifyingKey, ...]
    refused: tuple[str, ...] = ()


class _Unfit(Exception):
    """This one key is not taken."""


def find_keys(keys: Sequence[VerifyingKey], kid: str) -> Sequence[VerifyingKey]:
    """Those of this name, else those without a name; all of them if `kid` is ""."""
    if not kid:
        return keys
    return [key for key in keys if key.kid == kid] or [key for key in keys if not key.kid]


def read_key_set(data: bytes, record: IssuerRecord) -> KeySet:
    """A JWK set → its keys for the algorithms of this record, at most `MOST_KEYS`. Raises KeysRefused if none is left.

    Keys for encryption are passed over. Two different keys of one name and algorithm are both refused: nobody could
    say which of them a token means.
    """
    if len(data) > LARGEST_SET:
        raise KeysRefused(f"the key set is longer than {LARGEST_SET} bytes")
    try:
        listed = read_object(data, "the key set").get("keys")
    except NotPlain as problem:
        raise KeysRefused(str(problem)) from None
    if not isinstance(listed, list):
        raise KeysRefused("the key set has no list of keys")
    if len(listed) > MOST_LISTED:
        raise KeysRefused(f"the key set has {len(listed)} keys, more than {MOST_LISTED}")
    found: list[tuple[VerifyingKey, Jwk]] = []
    refused: list[str] = []
    for number, jwk in enumerate(listed, 1):
        try:
            if isinstance(jwk, dict) and _is_for_others(jwk):
                continue
            key, public = _read_jwk(jwk, record)
        except _Unfit as problem:
            refused.append(f"key {number}: {problem}")
            continue
        if all((known.kid, same) != (key.kid, public) for known, same in found):
            found.append((key, public))
    names = Counter((key.kid, key.algorithm) for key, _ in found if key.kid)
    refused += [f"{count} different keys are named {kid!r}" for (kid, _), count in names.items() if count > 1]
    keys = [key for key, _ in found if names[key.kid, key.algorithm] <= 1]
    if len(keys) > MOST_KEYS:
        refused.append(f"{len(keys) - MOST_KEYS} keys more than {MOST_KEYS}")
    if not keys:
        raise KeysRefused(f"the key set has no key that can be used{': ' if refused else ''}{'; '.join(refused[:4])}")
    return KeySet(tuple(keys[:MOST_KEYS]), tuple(refused))


def read_public_key(data: bytes, record: IssuerRecord) -> KeySet:
    """A public key in PEM (RFC 7468, or PKCS #1) → that key, without a name. Raises KeysRefused."""
    text = data[: LARGEST_SET + 1].decode("ascii", "replace")
    if "PRIVATE KEY" in text:
        raise KeysRefused("it holds a private key; its public half is wanted: openssl pkey -in FILE -pubout")
    if "BEGIN CERTIFICATE" in text:
        raise KeysRefused("it holds a certificate; its key is wanted: openssl x509 -in FILE -pubkey -noout")
    if len(data) > LARGEST_SET or not _PEM.match(text):
        raise KeysRefused("it is not one public key in PEM: -----BEGIN PUBLIC KEY-----")
    from edged.credentials.jose import ECKey, JoseError, RSAKey

    for kind in (RSAKey, ECKey):
        try:
            with warnings.catch_warnings():
                # A weak key is refused below, with its bits.
                warnings.simplefilter("ignore")
                jwk = kind.import_key(data).as_dict(private=False)
            return KeySet((_read_jwk({name: jwk[name] for name in jwk if name != "kid"}, record)[0],))
        except _Unfit as problem:
            raise KeysRefused(str(problem)) from None
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    raise KeysRefused("it is not a public RSA or EC key")


def limit(caller: Caller, record: IssuerRecord, twins: frozenset[Identity] = frozenset()) -> Caller:
    """The caller with nothing above the issuer's ceiling; `twins` are further names of its token.

    A role above the ceiling counts as the ceiling; names of roles that edged does not know stay, and give nothing.
    """
    most = ROLES[record.ceiling]
    streams = caller.streams
    if streams is not None:
        streams = Streams(
            read=streams.read if "stream:read" in most else frozenset(),
            publish=streams.publish if "stream:publish" in most else frozenset(),
        )
    roles = {role for role in caller.roles if role not in ROLES or ROLES[role] <= most}
    if any(most < ROLES[role] for role in caller.roles & ROLES.keys()):
        roles.add(record.ceiling)
    return replace(
        caller,
        method="jwt_federated",
        roles=frozenset(roles),
        capabilities=caller.capabilities & most,
        grants=frozenset(grant for grant in caller.grants if ":".join(grant.split(":")[:2]) in most),
        streams=streams,
        identities=caller.identities | twins,
    )


def _is_for_others(jwk: Mapping[str, object]) -> bool:
    """Whether it says that it verifies no signatures: an issuer's keys for encryption stand in the same set."""
    operations = jwk.get("key_ops")
    return jwk.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations)


def _read_jwk(jwk: object, record: IssuerRecord) -> tuple[VerifyingKey, Jwk]:
    """The key, and its public members. Raises _Unfit."""
    if not isinstance(jwk, dict):
        raise _Unfit("is no object")
    if any(name in jwk for name in _PRIVATE):
        raise _Unfit("has private members, so that it is known to others")
    kid = jwk.get("kid", "")
    if "kid" in jwk and not (isinstance(kid, str) and _NAME.match(kid)):
        raise _Unfit("has a kid that is not 1 to 128 printable characters")
    algorithm = _algorithm_of(jwk, record)
    public = complete(public_part(jwk))
    from edged.credentials.jose import JoseError

    try:
        key = read_key(public)
    except (JoseError, ValueError, TypeError, KeyError):
        raise _Unfit("is not a valid key") from None
    return VerifyingKey(kid, algorithm, key, record.trust), public


def _algorithm_of(jwk: Mapping[str, object], record: IssuerRecord) -> OutsideAlgorithm:
    """The one algorithm that this key verifies: what it says itself, else the record's first that fits it."""
    kind = jwk.get("kty")
    if kind == "RSA":
        _check_rsa(jwk)
        fitting = [name for name in record.algorithms if name[:2] in ("RS", "PS")]
    elif kind == "EC":
        _check_curve(jwk)
        fitting = [name for name in record.algorithms if name == _CURVES[str(jwk["crv"])]]
    else:
        raise _Unfit(f"is of the kind {str(kind)[:16]!r}, neither RSA nor EC")
    if "alg" in jwk:
        fitting = [name for name in fitting if name == jwk["alg"]]
    if not fitting:
        raise _Unfit(f"fits none of {', '.join(record.algorithms)}")
    return fitting[0]


def _check_rsa(jwk: Mapping[str, object]) -> None:
    modulus, exponent = (int.from_bytes(_decode(jwk.get(name))) for name in ("n", "e"))
    if not WEAKEST_RSA <= modulus.bit_length() <= LONGEST_RSA:
        raise _Unfit(f"has {modulus.bit_length()} bits, not {WEAKEST_RSA} to {LONGEST_RSA}")
    if not 3 <= exponent <= _LARGEST_EXPONENT or not exponent & modulus & 1:
        raise _Unfit("has a weak exponent or modulus")


def _check_curve(jwk: Mapping[str, object]) -> None:
    curve = jwk.get("crv")
    if not isinstance(curve, str) or curve not in _CURVES:
        raise _Unfit(f"is on the curve {str(curve)[:16]!r}, neither P-256 nor P-384")
    # Some libraries leave leading zeros away.
    if any(len(_decode(jwk.get(name))) > COORDINATES[curve] for name in ("x", "y")):
        raise _Unfit("has a coordinate that is too long")


def _decode(value: object) -> bytes:
    """base64url without padding. Raises _Unfit."""
    if not isinstance(value, str) or len(value) > LONGEST_RSA or not _BASE64.match(value) or len(value) % 4 == 1:
        raise _Unfit("has a member that is no base64url")
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
