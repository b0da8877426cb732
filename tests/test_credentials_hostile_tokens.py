"""A corpus of hostile tokens: every class is refused with its own reason, and nothing is fetched or opened for any.

Each case is one step away from a token that is taken (the first test shows those), and is signed as well as its class
allows: a case that would be refused for something else would prove nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from gate_helpers import LOCAL, make_gate, verify
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_helpers import all_named, named
from patience import times

from edged.access.admissions import Admissions
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.clock import Clock
from edged.config.model import IssuerSettings
from edged.credentials.callers import Streams, Token
from edged.credentials.claims import Trust
from edged.credentials.decision import Reason
from edged.credentials.identities import ALL, Kind
from edged.credentials.issuers import IssuerRecord, limit
from edged.credentials.plain_json import DEEPEST
from edged.credentials.roles import ROLES
from edged.credentials.secret_texts import PUBLISHED_SECRETS
from edged.credentials.signing_keys import VerifyingKey, read_key
from edged.credentials.tokens import LONGEST_TOKEN, SharedSecret, TokenRefused
from edged.errors import Refused
from edged.signing.issuers import Issuers

NOW = 2_000_000_000
TEXT = "c2hhcmVkIHNlY3JldCBvZiB0aGUgY29ycHVzIG9mIHRva2Vucw=="
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_RSA = rsa.generate_private_key(65537, 2048)
OTHER_EC = ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


Signer = Callable[[bytes], bytes]


def hs(key: bytes | str = TEXT, digest: str = "sha256") -> Signer:
    return lambda data: hmac.digest(key.encode() if isinstance(key, str) else key, data, digest)


def rs(key: rsa.RSAPrivateKey = RSA, digest: hashes.HashAlgorithm | None = None) -> Signer:
    return lambda data: key.sign(data, padding.PKCS1v15(), digest or hashes.SHA256())


def ps(key: rsa.RSAPrivateKey = RSA) -> Signer:
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return lambda data: key.sign(data, salted, hashes.SHA256())


def es(key: ec.EllipticCurvePrivateKey = EC, *, high: bool = False) -> Signer:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        low = min(s, ORDER - s)
        return r.to_bytes(32) + (ORDER - low if high else low).to_bytes(32)

    return sign


def craft(header: object, payload: object, signer: Signer) -> str:
    signed = f"{b64(raw(header))}.{b64(raw(payload))}"
    return f"{signed}.{b64(signer(signed.encode()))}"


def jwk_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public JWK, by hand."""
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        parts = {"n": numbers.n.to_bytes(256), "e": numbers.e.to_bytes(3)}
        return {"kty": "RSA", **{name: b64(value) for name, value in parts.items()}}
    return {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}


HS = {"alg": "HS256", "typ": "JWT"}
RS = {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
ES = {"alg": "ES256", "typ": "JWT", "kid": "key-2"}
CLAIMS: dict[str, Any] = {"sub": "ann", "role": "viewer", "exp": NOW + 600, "iat": NOW, "jti": "one"}
OWN = CLAIMS | {"iss": "edged"}
#: The three kinds of token that are taken: header, claims, signer.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], Signer]] = {
    "shared": (HS, CLAIMS, hs()),
    "rsa": (RS, OWN, rs()),
    "ec": (ES, OWN, es()),
}
OURS = Trust(frozenset({"edged"}), frozenset(), needs_issuer=True, own="edged")
KEYS = {
    "key-1": VerifyingKey("key-1", "RS256", read_key(jwk_of(RSA)), OURS),
    "key-2": VerifyingKey("key-2", "ES256", read_key(jwk_of(EC)), OURS),
}


def with_header(**members: object) -> list[str]:
    """Each kind of token, well signed, with these members in its header."""
    return [craft({**header, **members}, claims, sign) for header, claims, sign in KINDS.values()]


def with_claims(**members: object) -> list[str]:
    """Each kind of token, well signed, with these members among its claims; None takes one away."""
    changed = [
        (header, {name: value for name, value in {**claims, **members}.items() if value is not None}, sign)
        for header, claims, sign in KINDS.values()
    ]
    return [craft(*parts) for parts in changed]


def with_payload(*payloads: bytes) -> list[str]:
    """Each kind of token, well signed, over these very bytes."""
    return [craft(header, payload, sign) for header, _, sign in KINDS.values() for payload in payloads]


def each(member: str, *values: object) -> list[str]:
    return [text for value in values for text in with_claims(**{member: value})]


def pem(key: Any, kind: str = "SubjectPublicKeyInfo", encoding: str = "PEM") -> bytes:
    public = serialization.PublicFormat
    form = {"SubjectPublicKeyInfo": public.SubjectPublicKeyInfo, "PKCS1": public.PKCS1, "OpenSSH": public.OpenSSH}
    return bytes(key.public_key().public_bytes(getattr(serialization.Encoding, encoding), form[kind]))


def public_forms(key: Any) -> list[bytes]:
    """Everything that somebody might take for the HMAC secret when the public key is known."""
    spki = pem(key)
    forms = [
        spki, spki.strip(), spki.replace(b"\n", b"\r\n"), b"".join(spki.splitlines()[1:-1]),
        pem(key, encoding="DER"), pem(key, "OpenSSH", "OpenSSH"), json.dumps(jwk_of(key)).encode(),
        json.dumps(jwk_of(key), separators=(",", ":")).encode(), b64(pem(key, encoding="DER")).encode(),
    ]  # fmt: skip
    return forms + ([pem(key, "PKCS1")] if isinstance(key, rsa.RSAPrivateKey) else [])


def private_forms(key: Any) -> list[bytes]:
    plain = serialization.NoEncryption()
    return [
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain),
    ]


GOOD = {name: craft(*parts) for name, parts in KINDS.items()}
DUPLICATES = [
    b'"exp":%d,"exp":%d' % (NOW + 600, NOW + 601), b'"exp":1,"exp":%d' % (NOW + 600), b'"exp":%d,"exp":1' % (NOW + 600),
    b'"exp":%d,"\\u0065xp":%d' % (NOW + 600, NOW + 600), b'"exp":%d,"role":"viewer","role":"admin"' % (NOW + 600),
    b'"exp":%d,"sub":"eve"' % (NOW + 600), b'"exp":%d,"deep":{"a":1,"a":1}' % (NOW + 600),
    b'"exp":%d,"deep":[[{"a":1,"b":2,"a":1}]]' % (NOW + 600),
]  # fmt: skip


def swap_last(text: str, part: int) -> str:
    """The same token with other unused bits in the last character of a part."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    parts = text.split(".")
    last = alphabet.index(parts[part][-1])
    parts[part] = parts[part][:-1] + alphabet[last + 1]
    return ".".join(parts)


def ending(length: int) -> dict[str, Any]:
    """Claims whose JSON has a length that leaves unused bits: `length` modulo 3."""
    for pad in range(3):
        claims = CLAIMS | {"pad": "x" * pad}
        if len(json.dumps(claims)) % 3 == length:
            return claims
    raise AssertionError


def resign(text: str, part: int, sign: Signer) -> str:
    """The token with a part in another spelling, signed anew over that spelling."""
    head, body, _ = swap_last(text, part).split(".")
    return f"{head}.{body}.{b64(sign(f'{head}.{body}'.encode()))}"


def signature_of(kind: str, signature: bytes) -> str:
    return f"{GOOD[kind].rpartition('.')[0]}.{b64(signature)}"


def flattened(text: str) -> str:
    head, body, tail = text.split(".")
    return json.dumps({"protected": head, "payload": body, "signature": tail})


PADDED = craft(HS, ending(1), hs())
NESTED = json.dumps({"sub": "ann", "role": "viewer", "exp": NOW + 600})[:-1]
M, A, S, U, E = (
    Reason.MALFORMED, Reason.ALG_NOT_ALLOWED, Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY, Reason.EXPIRED
)  # fmt: skip
KID_TRICKS = [
    "../../../../dev/null", "/dev/null", "/proc/self/environ", "file:///etc/passwd", "key-1.pem", "key-1\x00", "key-1 ",
    " key-1", "key-1\n", "key-1' OR '1'='1", "x' UNION SELECT 'secret", "http://127.0.0.1/key", "//evil.example/key",
    "key-1;id", "$(id)", "|id", "${jndi:ldap://evil.example/x}", "%2e%2e%2f", "ключ-1", "key-¹", "", "k" * 65, "*", "%",
    0, 1, None, True, ["key-1"], {"kid": "key-1"},
]  # fmt: skip

#: Class → the reason, and its cases.
CORPUS: dict[str, tuple[Reason, list[str]]] = {
    "alg none": (A, [
        text for alg in ("none", "None", "NONE", "nOnE", "none ")
        for text in (craft({"alg": alg, "typ": "JWT"}, CLAIMS, lambda _: b""), craft({"alg": alg}, CLAIMS, hs()),
                     craft({**RS, "alg": alg}, OWN, lambda _: b""))
    ]),
    "alg left out": (A, [
        craft({"typ": "JWT"}, CLAIMS, hs()), craft({"kid": "key-1"}, OWN, rs()), craft({}, OWN, es()),
    ]),
    "alg of another type": (A, [
        craft({"alg": alg}, CLAIMS, hs()) for alg in (None, True, 0, 256, ["HS256"], [], {}, {"HS256": 1}, 1.5)
    ]),
    "alg in another spelling": (A, [
        craft({"alg": alg}, CLAIMS, hs()) for alg in ("hs256", "Hs256", "HS256 ", " HS256", "HS-256", "HS256\x00", "")
    ]),
    "alg of the same family": (A, [
        craft({"alg": "HS384"}, CLAIMS, hs(digest="sha384")), craft({"alg": "HS512"}, CLAIMS, hs(digest="sha512")),
        craft({**RS, "alg": "RS384"}, OWN, rs(digest=hashes.SHA384())),
        craft({**RS, "alg": "RS512"}, OWN, rs(digest=hashes.SHA512())), craft({**RS, "alg": "PS256"}, OWN, ps()),
    ]),
    "alg that we never use": (A, [
        craft({"alg": alg, "kid": "key-1"}, OWN, rs())
        for alg in ("EdDSA", "Ed25519", "ES384", "ES512", "ES256K", "PS512", "A128KW", "dir", "RSA1_5", "RSA-OAEP")
    ]),
    "RSA public key as HMAC secret, with its kid": (A, [
        craft({**RS, "alg": "HS256"}, OWN, hs(form)) for form in public_forms(RSA)
    ]),
    "RSA public key as HMAC secret, without a kid": (S, [craft(HS, CLAIMS, hs(form)) for form in public_forms(RSA)]),
    "EC public key as HMAC secret, with its kid": (A, [
        craft({**ES, "alg": "HS256"}, OWN, hs(form)) for form in public_forms(EC)
    ]),
    "EC public key as HMAC secret, without a kid": (S, [craft(HS, CLAIMS, hs(form)) for form in public_forms(EC)]),
    "private key as HMAC secret": (S, [
        craft(HS, CLAIMS, hs(form)) for key in (RSA, EC) for form in private_forms(key)
    ]),
    "shared secret under a key pair's kid": (A, [
        craft({**HS, "kid": "key-1"}, OWN, hs()), craft({**HS, "kid": "key-2"}, OWN, hs()),
    ]),
    "key of another kind": (A, [
        craft({**RS, "kid": "key-2"}, OWN, rs()), craft({**ES, "kid": "key-1"}, OWN, es()),
        craft({**RS, "kid": "key-2"}, OWN, hs()), craft({**ES, "kid": "key-1"}, OWN, hs()),
    ]),
    "key pair without a kid": (A, [
        craft({"alg": "RS256"}, OWN, rs()), craft({"alg": "ES256"}, OWN, es()),
        craft({"alg": "RS256", "typ": "JWT"}, OWN, hs()),
    ]),
    "kid that nobody has": (U, [
        craft({**header, "kid": kid}, OWN, sign)
        for kid in ("key-0", "key-3", "key-999", "KEY-1", "key_1", "key-01", "1", "-1")
        for header, sign in ((RS, rs()), (ES, es()))
    ]),
    "kid as a path, a query, a command or another type": (M, [
        craft({**header, "kid": kid}, claims, sign) for kid in KID_TRICKS for header, claims, sign in KINDS.values()
    ]),
    "kid of an empty file": (M, [craft({**HS, "kid": kid}, CLAIMS, hs(b"")) for kid in ("/dev/null", "../empty", "")]),
    "empty HMAC key": (S, [craft(HS, CLAIMS, hs(b"")), craft({**HS, "kid": "any"}, CLAIMS, hs(b""))]),
    "zeros as HMAC key": (S, [craft(HS, CLAIMS, hs(bytes(size))) for size in (1, 65, 256)]),
    "published or guessable secret": (S, [
        craft(HS, CLAIMS, hs(word)) for word in (*sorted(PUBLISHED_SECRETS), "secret", "password", "edged", "changeme")
    ]),
    "shared secret in another spelling": (S, [
        craft(HS, CLAIMS, hs(form)) for form in (
            base64.b64decode(TEXT), TEXT + "\n", TEXT[:-1], TEXT + " ", TEXT.lower(), TEXT.encode("utf-16"),
            TEXT.encode().hex(),
        )
    ]),
    "jku": (M, [text for url in ("https://evil.example/jwks.json", "http://127.0.0.1:3000/jwks-path", "file:///x", "")
                for text in with_header(jku=url)]),
    "jwk": (M, [
        craft({"alg": "RS256", "jwk": jwk_of(OTHER_RSA)}, OWN, rs(OTHER_RSA)),
        craft({**RS, "jwk": jwk_of(OTHER_RSA)}, OWN, rs(OTHER_RSA)),
        craft({**ES, "jwk": jwk_of(OTHER_EC)}, OWN, es(OTHER_EC)),
        craft({**HS, "jwk": {"kty": "oct", "k": b64(b"k" * 32)}}, CLAIMS, hs(b"k" * 32)), *with_header(jwk={}),
    ]),
    "x5u": (M, [text for url in ("https://evil.example/cert.pem", "file:///etc/ssl/x.pem")
                for text in with_header(x5u=url)]),
    "x5c": (M, [text for chain in ([b64(pem(OTHER_RSA, encoding="DER"))], [], "x") for text in with_header(x5c=chain)]),
    "crit": (M, [text for crit in (["exp"], ["b64"], [], "exp", ["http://example.com/x"], None)
                 for text in with_header(crit=crit)]),
    "unencoded payload": (M, [*with_header(b64=False), *with_header(b64=True), *with_header(b64=False, crit=["b64"])]),
    "compressed payload": (M, with_header(zip="DEF")),
    "members of an encrypted token": (M, [*with_header(enc="A256GCM"), *with_header(epk={}), *with_header(p2c=10**9)]),
    "members beside one that decides": (M, [*with_header(foo="x", crit=["foo"]), *with_header(x5t="x", x5c=["x"])]),
    "other type of token": (M, [
        text for typ in cast(tuple[Any, ...], (
            "dpop+jwt", "JOSE", "JWE", "secevent+jwt", "", "JWT ", "application/jose", "text/jwt",
            "application/application/jwt", "application/jwt;q=1", 1, None, True, ["JWT"], {},
        ))
        for text in with_header(typ=typ)
    ]),
    "header that is no object": (M, [
        craft(header, CLAIMS, hs()) for header in (b"null", b"[]", b'"HS256"', b"1", b"true", b"[{}]", b"{", b"}", b" ")
    ]),
    "header member twice": (M, [
        craft(header, OWN, sign) for sign in (hs(), rs()) for header in (
            b'{"alg":"none","alg":"HS256"}', b'{"alg":"HS256","alg":"none"}', b'{"alg":"HS256","alg":"HS256"}',
            b'{"alg":"RS256","kid":"key-9","kid":"key-1"}', b'{"alg":"HS256","\\u0061lg":"RS256","kid":"key-1"}',
            b'{"alg":"HS256","typ":"JWT","typ":"JWT"}',
        )
    ]),
    "claim twice": (M, with_payload(*(b'{"iss":"edged","sub":"ann","role":"viewer",' + twice + b"}"
                                      for twice in DUPLICATES[:4] + DUPLICATES[6:]),
                                    b'{"iss":"edged","role":"viewer","sub":"ann",' + DUPLICATES[5] + b"}",
                                    b'{"iss":"edged","sub":"ann",' + DUPLICATES[4] + b"}")),
    "payload that is no object": (M, with_payload(b"null", b"[]", b'"ann"', b"5", b"true", b"[{}]")),
    "payload that is no JSON": (M, with_payload(
        b"{", b"ann", b"{'sub':'ann'}", b'{"sub":"ann",}', b'{"sub":"ann"} x', b'{"sub":"ann"}{}', b'{"sub":"ann"}\x00',
        b'{/**/"sub":"ann"}', b'{"sub":"a\nb"}', b'{sub:"ann"}', b'{"exp":01}', b'{"exp":+1}', b'{"exp":.5}',
        b'{"exp":0x10}',
    )),
    "numbers that are none": (M, with_payload(*(NESTED.encode() + b',"x":' + number + b"}" for number in (
        b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 5000,
    )))),
    "deep nesting in the payload": (M, with_payload(*(
        NESTED.encode() + b',"x":' + b"[" * deep + b"]" * deep + b"}" for deep in (DEEPEST, 100, 1000, 2500)
    ), b"[" * 5000, b'{"a":' * 1000, NESTED.encode() + b',"x":' + b'[{"a":' * 9 + b"1" + b"}]" * 9 + b"}")),
    "deep nesting in the header": (M, [
        craft(b"[" * 5000, CLAIMS, hs()), craft(b'{"alg":' * 800, CLAIMS, hs()),
        craft(b'{"alg":"HS256","typ":' + b"[" * 500 + b"]" * 500 + b"}", CLAIMS, hs()),
    ]),
    "payload that is not UTF-8": (M, with_payload(
        *(NESTED.encode() + b',"x":"' + bad + b'"}' for bad in (
            b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80", b"\xe2\x82",
        )), json.dumps(OWN).encode("utf-16"),
        json.dumps(OWN).encode("utf-32"), json.dumps(OWN).encode("utf-8-sig"), json.dumps(OWN).encode("utf-16-be"),
    )),
    "header that is not UTF-8": (M, [
        craft(header, CLAIMS, hs()) for header in (
            b'{"alg":"HS256","typ":"\xff"}', json.dumps(HS).encode("utf-16"), json.dumps(HS).encode("utf-8-sig"),
        )
    ]),
    "half a surrogate pair": (M, with_payload(*(NESTED.encode() + b',"x":"' + half + b'"}' for half in (
        b"\\ud800", b"\\udfff", b"\\ud83d", b"\\ude00\\ud83d", b"a\\ud800b",
    )))),
    "no expiry": (Reason.NO_EXPIRY, [
        *with_claims(exp=None),
        *(craft(header, claims | {"exp": None}, sign) for header, claims, sign in KINDS.values()),
    ]),
    "expired": (E, each("exp", NOW, NOW - 1, NOW - 0.5, 0, -1, -NOW, -(2**53), 1e-9)),
    "exp out of range": (M, each("exp", 2**53 + 1, 2**63, 2**64, 10**20, 10**400, -(10**400), 1e300, -1e300)),
    "exp of another type": (M, each("exp", str(NOW + 600), "", True, False, [NOW + 600], {}, "never", "2099-01-01")),
    "from the future": (Reason.NOT_YET_VALID, [
        *each("iat", NOW + 61, NOW + 86400, 2**53), *each("nbf", NOW + 61, NOW + 61.5, NOW + 86400, 2**53),
    ]),
    "iat or nbf of another type": (M, [
        *each("iat", "now", True, [], {}, 10**400), *each("nbf", "now", True, [], {}, 1e300),
    ]),
    "subject of another type": (M, [*each("sub", 5, True, ["ann"], {"id": 1}, 1.5), *each("user_id", 5, ["ann"], {})]),
    "no subject": (M, [*with_claims(sub=None), *each("sub", "")]),
    "two subjects": (M, each("user_id", "eve", "Ann", "ann ", "\u0430nn")),
    "subject that cannot be shown": (M, each("sub", "a\x00b", "a\nb", "a\x1b[31mb", "a\x7f", "a\u202eb", "x" * 257)),
    "role of another type": (M, [*each("role", 1, True, ["admin"], {}), *each("roles", "admin", [1], [None], {}, 5)]),
    "unknown role": (Reason.ROLE_DENIED, [
        *each("role", "root", "superadmin", "Admin", "ADMIN", "admin ", "", "*", "service"), *with_claims(role=None),
    ]),
    "permissions of another type": (M, each("permissions", "*", 5, True, {}, [5], [None], [["*"]], [{"a": 1}])),
    "too many or too long permissions": (M, each("permissions", ["camera:read"] * 65, ["c" * 129])),
    "scope of another type": (M, each("scope", ["camera:read", 5], [None], [["camera:read"]], 5, True, {})),
    "cameras of another type": (M, each("camera_access", "*", 5, True, {}, [5], [None], [["*"]], ["c" * 129])),
    "streams of another type": (M, [
        *each("mediamtx_permissions", 5, True, "[]"), *each("stream_access", 5, "x", True),
    ]),
    "jti of another type": (M, each("jti", 5, True, ["one"], {}, "x" * 257, "a\x00")),
    "other issuer": (Reason.UNTRUSTED_ISSUER, [
        *each("iss", "https://evil.example", "edged ", "Edged", "", "edge", "*"),
        craft(RS, OWN | {"iss": "camera-service"}, rs()), craft(RS, CLAIMS, rs()), craft(ES, CLAIMS, es()),
    ]),
    "issuer of another type": (M, each("iss", ["edged"], 5, True, {})),
    "other audience": (Reason.BAD_AUDIENCE, [
        *each("aud", "somebody-else", "", [], ["a", "b"], "*", ["*"]),
        craft(RS, OWN | {"aud": "camera-clients"}, rs()), craft(ES, OWN | {"aud": ["camera-clients"]}, es()),
    ]),
    "audience of another type": (M, each("aud", 5, True, {}, [5], [None], ["camera-clients", 5])),
    "cut short": (M, [
        GOOD[kind][:length] for kind in KINDS for length in (40, 60, GOOD[kind].index(".") + 1, GOOD[kind].rindex("."))
    ]),
    "too few or too many parts": (M, [
        "", ".", "..", "...", "a.b", "a.b.c.d", "a.b.c.d.e", GOOD["shared"] + ".", "." + GOOD["shared"],
        GOOD["shared"].replace(".", ""), GOOD["shared"] + "." + GOOD["shared"], "..".join(GOOD["shared"].split(".")),
    ]),
    "oversized": (M, [
        *with_claims(pad="x" * LONGEST_TOKEN), "x" * (LONGEST_TOKEN + 1), ".".join(["A" * 4000] * 3),
        GOOD["rsa"] + "A" * LONGEST_TOKEN, "." * 10_000_000,
    ]),
    "second spelling of base64": (M, [
        resign(PADDED, 1, hs()), swap_last(PADDED, 2), swap_last(GOOD["rsa"], 2), swap_last(GOOD["ec"], 2),
        *(resign(craft(header, claims, sign), 0, sign) for header, claims, sign in KINDS.values()
          if len(json.dumps(header)) % 3),
    ]),
    "characters that are no base64url": (M, [
        *(PADDED.replace(".", pad + ".") + pad for pad in ("=", "==")), PADDED + "\n", PADDED + " ", " " + PADDED,
        PADDED.replace(".", "\n."), PADDED.replace(".", ".\t"), "Bearer " + PADDED, PADDED + "\x00", PADDED[:-1] + "+",
        PADDED[:-1] + "/", PADDED.replace(".", "\u3002"), PADDED + "\u200b", PADDED + "\ud800", f"{PADDED}~",
    ]),
    "not compact": (M, [
        flattened(GOOD["shared"]), flattened(GOOD["rsa"]), json.dumps({"signatures": []}), json.dumps(OWN),
        json.dumps(GOOD["shared"]),
    ]),
    "encrypted": (M, ["eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..MTIz.MTIz.MTIz", "a.b.c.d.e",
                      ".".join([b64(raw({"alg": "RSA1_5", "enc": "A128CBC-HS256"}))] * 5)]),
    "no signature": (S, [f"{text.rpartition('.')[0]}." for text in GOOD.values()]),
    "signature of something else": (S, [
        signature_of("shared", hs()(b"x")), signature_of("rsa", rs()(b"x")), signature_of("ec", es()(b"x")),
        signature_of("shared", unb64(PADDED.rpartition(".")[2])),
    ]),
    "claims changed after signing": (S, [
        ".".join([text.split(".")[0], b64(raw(OWN | {"role": "admin"})), text.split(".")[2]]) for text in GOOD.values()
    ]),
    "header changed after signing": (S, [
        ".".join([b64(raw({**KINDS[kind][0], "typ": "at+jwt"})), *text.split(".")[1:]]) for kind, text in GOOD.items()
    ]),
    "one bit of the signature": (S, [
        signature_of(kind, bytes([*tail[:at], tail[at] ^ 1, *tail[at + 1:]])) for kind in KINDS
        for tail in [unb64(GOOD[kind].rpartition(".")[2])] for at in (0, len(tail) // 2 - 1, len(tail) - 1)
    ]),
    "signature of another length": (S, [
        signature_of(kind, change(unb64(GOOD[kind].rpartition(".")[2]))) for kind in KINDS
        for change in (
            lambda tail: tail[:-1], lambda tail: tail + b"\0", lambda tail: b"\0" + tail[:32], lambda _: b"\0",
        )
    ]),
    "blank signature": (S, [
        signature_of("shared", bytes(32)), signature_of("rsa", bytes(256)), signature_of("rsa", bytes(255) + b"\1"),
        signature_of("rsa", b"\xff" * 256), signature_of("ec", bytes(64)),
        signature_of("ec", bytes(31) + b"\1" + bytes(32)), signature_of("ec", bytes(63) + b"\1"),
        signature_of("ec", ORDER.to_bytes(32) + bytes(32)), signature_of("ec", b"\xff" * 32 + bytes(32)),
    ]),
    "second form of an ES256 signature": (M, [
        craft(ES, OWN | {"jti": str(number)}, es(high=True)) for number in range(5)
    ]),
    "another key pair under our kid": (S, [craft(RS, OWN, rs(OTHER_RSA)), craft(ES, OWN, es(OTHER_EC))]),
    "another shared secret": (S, [
        craft(HS, CLAIMS, hs("k" * 40)), craft({**HS, "kid": "theirs"}, CLAIMS, hs("k" * 40)),
    ]),
    "a token in a token": (M, [craft({**HS, "cty": "JWT"}, GOOD["shared"].encode(), hs()),
                               craft(HS, json.dumps(GOOD["shared"]).encode(), hs())]),
}  # fmt: skip


@dataclass
class Watched:
    """What the interpreter says that it reaches for: sockets, names, URLs, files, programs."""

    events: list[str]
    watching: bool = False


@pytest.fixture(scope="module")
def reached() -> Watched:
    """An audit hook cannot be taken off again, so it looks at a switch."""
    watched = Watched([])

    def hook(event: str, _arguments: object) -> None:
        if watched.watching and event.startswith(("socket.", "urllib.", "http.", "open", "subprocess.", "os.system")):
            watched.events.append(event)

    sys.addaudithook(hook)
    return watched


#: Two outside issuers with key sets (one of them has our very kid), and one that is trusted without a name.
THEIR_RSA, THEIR_EC, GIVEN_RSA, TWIN_RSA = (
    rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()),
    rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048),
)  # fmt: skip
COMPANY = IssuerRecord("company", "https://login.example.com/", ("RS256", "ES256"), frozenset({"edged", "box-7"}))
PARTNER = IssuerRecord("partner", "partner", ("RS256",), ceiling="operator")
NAMELESS = IssuerRecord("nameless", "", ("RS256",), ceiling="admin")


def trusting(*issuers: tuple[IssuerRecord, list[tuple[str, str, Any]]]) -> Issuers:
    """Outside issuers as the daemon holds them, with these keys; their task does not run, so nothing is fetched."""
    nothing: Any = None
    settings = {
        record.name: IssuerSettings(
            issuer=record.issuer, algorithms=record.algorithms, audience=tuple(record.audiences),
            ceiling=cast(Any, record.ceiling), key="/nowhere.pem",
        )
        for record, _ in issuers
    }  # fmt: skip
    held = Issuers(settings, nothing, nothing)
    for record, keys in issuers:
        issuer = held.find(record.issuer)
        assert issuer is not None
        issuer.keys = tuple(
            VerifyingKey(kid, algorithm, read_key(jwk_of(key)), record.trust) for kid, algorithm, key in keys
        )
    return held


OUTSIDE = trusting(
    (COMPANY, [("key-1", "RS256", TWIN_RSA), ("their/rsa=", "RS256", THEIR_RSA), ("ec.1", "ES256", THEIR_EC)]),
    (PARTNER, [("only", "RS256", OTHER_RSA)]),
    (NAMELESS, [("", "RS256", GIVEN_RSA)]),
)


def by(algorithm: str, kid: str | None = None) -> dict[str, Any]:
    """The header of others: no typ, and a kid of theirs or none."""
    return {"alg": algorithm} | ({} if kid is None else {"kid": kid})


TRS, TES = by("RS256", "their/rsa="), {"alg": "ES256", "typ": "JWT", "kid": "ec.1"}
THEIRS = CLAIMS | {"iss": COMPANY.issuer, "aud": "edged"}
PARTNERS = CLAIMS | {"iss": "partner"}
#: Each kind of token of an outside issuer that is taken.
OUTSIDE_KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], Signer]] = {
    "their rsa": (TRS, THEIRS, rs(THEIR_RSA)),
    "their ec": (TES, THEIRS, es(THEIR_EC)),
    "their other ec": (TES, THEIRS, es(THEIR_EC, high=True)),
    "their key of our name": (by("RS256", "key-1"), THEIRS, rs(TWIN_RSA)),
    "without a kid": (by("RS256"), THEIRS, rs(THEIR_RSA)),
    "partner": (by("RS256", "only"), PARTNERS, rs(OTHER_RSA)),
    "nameless": (by("RS256"), CLAIMS, rs(GIVEN_RSA)),
    "nameless with a kid": (by("RS256", "whatever"), CLAIMS, rs(GIVEN_RSA)),
}


def theirs(**members: object) -> list[str]:
    """Each kind of token of outside issuers, well signed, with these claims; None takes one away."""
    return [
        craft(header, {name: value for name, value in {**claims, **members}.items() if value is not None}, sign)
        for header, claims, sign in OUTSIDE_KINDS.values()
    ]


B = Reason.BAD_AUDIENCE
OUTSIDE_CORPUS: dict[str, tuple[Reason, list[str]]] = {
    "outside: another issuer's key": (S, [
        craft(by("RS256"), THEIRS, rs(OTHER_RSA)), craft(by("RS256", "their/rsa="), THEIRS, rs(OTHER_RSA)),
        craft(by("RS256", "only"), PARTNERS, rs(THEIR_RSA)), craft(by("RS256"), PARTNERS, rs(GIVEN_RSA)),
        craft(by("RS256"), CLAIMS, rs(THEIR_RSA)), craft(by("RS256"), CLAIMS, rs(OTHER_RSA)),
        craft(TES, THEIRS, es(OTHER_EC)),
    ]),
    "outside: another key of the same issuer under a kid": (S, [
        craft(TRS, THEIRS, rs(TWIN_RSA)), craft(by("RS256", "key-1"), THEIRS, rs(THEIR_RSA)),
    ]),
    "outside: our keys and secrets under a foreign iss": (S, [
        craft(by("RS256", "key-1"), THEIRS, rs()), craft(by("RS256"), THEIRS, rs()),
        craft(by("ES256"), THEIRS, es()), craft(by("RS256"), PARTNERS, rs()),
    ]),
    "outside: their keys under our iss": (S, [
        craft(RS, OWN, rs(THEIR_RSA)), craft(RS, OWN, rs(TWIN_RSA)), craft(ES, OWN, es(THEIR_EC)),
        craft(RS, OWN | {"aud": "edged"}, rs(TWIN_RSA)),
    ]),
    "outside: their keys under our iss and their kid": (U, [
        craft(by("RS256", "only"), OWN, rs(OTHER_RSA)), craft(by("RS256", "ours"), OWN, rs(GIVEN_RSA)),
    ]),
    "outside: their kid as it could be none of ours": (M, [
        craft(TRS, OWN, rs(THEIR_RSA)), craft(TES, OWN, es(THEIR_EC)), craft(by("RS256", "../key"), OWN, rs(THEIR_RSA)),
    ]),
    "outside: iss of somebody whom nobody trusts": (Reason.UNTRUSTED_ISSUER, [
        craft(header, CLAIMS | {"iss": iss}, sign)
        for iss in ("nobody", "https://evil.example/", "camera-service", "x" * 900)
        for header, sign in (
            (by("RS256", "../key"), rs(THEIR_RSA)), (by("RS256"), rs(THEIR_RSA)), (by("ES256", "ec.1"), es(THEIR_EC)),
            (by("RS512", "only"), rs(OTHER_RSA, hashes.SHA512())), (by("RS256", "key-9"), rs()),
        )
    ]),
    "outside: nameless, under the kid of ours": (S, [craft(RS, CLAIMS, rs(GIVEN_RSA))]),
    "outside: alg not of the record": (A, [
        craft(by("HS256"), THEIRS, hs()), craft({**HS, "kid": "key-1"}, THEIRS, hs()),
        craft(by("RS384", "only"), PARTNERS, rs(OTHER_RSA, hashes.SHA384())),
        craft(by("RS512"), PARTNERS, rs(OTHER_RSA, hashes.SHA512())),
        craft(by("PS256", "their/rsa="), THEIRS, ps(THEIR_RSA)), craft(by("PS256"), PARTNERS, ps(OTHER_RSA)),
        craft(by("ES256", "only"), PARTNERS, es(THEIR_EC)), craft(by("ES256"), CLAIMS, es(THEIR_EC)),
        craft(by("ES384"), THEIRS, es(THEIR_EC)), craft(by("RS384"), CLAIMS, rs(GIVEN_RSA, hashes.SHA384())),
    ]),
    "outside: alg of another key of the record": (A, [
        craft(by("ES256", "their/rsa="), THEIRS, es(THEIR_EC)),
        craft(by("RS256", "ec.1"), THEIRS, rs(THEIR_RSA)),
    ]),
    "outside: alg none and public keys as HMAC secrets": (A, [
        *(craft({"alg": alg, "kid": "their/rsa="}, THEIRS, lambda _: b"") for alg in ("none", "None", "NONE")),
        *(craft(by("HS256", "their/rsa="), THEIRS, hs(form)) for form in public_forms(THEIR_RSA)),
        *(craft(by("HS256"), PARTNERS, hs(form)) for form in public_forms(OTHER_RSA)),
    ]),
    "outside: nameless public key as HMAC secret": (S, [
        craft(by("HS256"), CLAIMS, hs(form)) for form in public_forms(GIVEN_RSA)
    ]),
    "outside: unknown kid": (U, [
        craft(by("RS256", kid), claims, rs(key)) for claims, key in ((THEIRS, THEIR_RSA), (PARTNERS, OTHER_RSA))
        for kid in ("key-2", "Key-1", "their/rsa", "../../dev/null", "http://127.0.0.1/k", "*", "'OR'1'='1", "ONLY")
    ]),
    "outside: kid of another issuer": (U, [
        craft(by("RS256", "their/rsa="), PARTNERS, rs(THEIR_RSA)),
        craft(by("RS256", "only"), THEIRS, rs(OTHER_RSA)),
    ]),
    "outside: kid that cannot be one": (M, [
        craft({"alg": "RS256", "kid": kid}, claims, sign)
        for kid in ("", "a b", "k\x00", "é", "k" * 129, 5, None, ["only"])
        for name, (_, claims, sign) in OUTSIDE_KINDS.items() if name in ("their rsa", "partner", "nameless")
    ]),
    "outside: iss in another spelling": (Reason.UNTRUSTED_ISSUER, [
        craft(TRS | {"kid": "only"}, THEIRS | {"iss": iss}, rs(THEIR_RSA)) for iss in (
            "https://login.example.com", "HTTPS://login.example.com/", "https://login.example.com/ ", "example.com",
            "https://login.example.com//", "Partner", "partner ", "company", "*",
        )
    ]),
    "outside: iss named and empty": (Reason.UNTRUSTED_ISSUER, [
        craft(by("RS256"), CLAIMS | {"iss": ""}, rs(GIVEN_RSA)),
    ]),
    "outside: iss of another type": (Reason.UNTRUSTED_ISSUER, [
        craft(header, CLAIMS | {"iss": iss}, rs(key)) for iss in (["partner"], 5, True, {"partner": 1}, 1.5)
        for key in (GIVEN_RSA, OTHER_RSA) for header in (by("RS256"), by("RS256", "only"))
    ]),
    "outside: no iss, and a kid that nobody has": (Reason.UNTRUSTED_ISSUER, [
        craft(by("RS256", kid), CLAIMS | {"iss": None}, rs(key))
        for kid in ("only", "other") for key in (GIVEN_RSA, OTHER_RSA)
    ]),
    "outside: iss null, and no kid": (A, [
        craft(by("RS256"), CLAIMS | {"iss": None}, rs(key)) for key in (GIVEN_RSA, OTHER_RSA)
    ]),
    "outside: no audience where one must be named": (B, [
        craft(header, {name: value for name, value in claims.items() if name != "aud"}, sign)
        for header, claims, sign in list(OUTSIDE_KINDS.values())[:5]
    ]),
    "outside: another audience": (B, theirs(aud="somebody-else") + theirs(aud=["a", "b"]) + theirs(aud=[]) + [
        craft(by("RS256", "only"), PARTNERS | {"aud": "edged"}, rs(OTHER_RSA)),
        craft(by("RS256"), CLAIMS | {"aud": "edged"}, rs(GIVEN_RSA)),
    ]),
    "outside: audience of another type": (M, [*theirs(aud=5), *theirs(aud=["edged", 5]), *theirs(aud={"edged": 1})]),
    "outside: no expiry": (Reason.NO_EXPIRY, theirs(exp=None)),
    "outside: expired": (E, [*theirs(exp=NOW), *theirs(exp=NOW - 299), *theirs(exp=0)]),
    "outside: from the future": (Reason.NOT_YET_VALID, [*theirs(iat=NOW + 61), *theirs(nbf=NOW + 61)]),
    "outside: header that names its own key": (M, [
        craft({**header, **extra}, claims, sign) for header, claims, sign in OUTSIDE_KINDS.values()
        for extra in cast(list[dict[str, Any]], [
            {"jku": "https://evil.example/jwks.json"}, {"jwk": jwk_of(THEIR_RSA)}, {"x5u": "https://evil.example/c"},
            {"x5c": []}, {"crit": ["exp"]},
        ])
    ]),
    "outside: claim twice": (M, [
        craft(TRS, b'{"iss":"partner","iss":"https://login.example.com/","sub":"ann","role":"viewer","exp":%d}'
              % (NOW + 600), rs(THEIR_RSA)),
        craft(by("RS256"), b'{"sub":"ann","role":"viewer","exp":%d,"\\u0069ss":"partner","iss":"edged"}'
              % (NOW + 600), rs(OTHER_RSA)),
    ]),
    "outside: unknown role": (Reason.ROLE_DENIED, theirs(role="root")),
    "outside: no signature": (S, sorted({f"{text.rpartition('.')[0]}." for text in theirs()})),
}  # fmt: skip
CORPUS |= OUTSIDE_CORPUS

#: Tokens of which one came of the other by refreshing: to revoke one is to revoke all.
FAMILIES = {
    "root": all_named("jti_of::root", "jti_of::root's child", "jti_of::root's grandchild"),
    "child": all_named("jti_of::child's parent", "jti_of::child", "jti_of::child's child"),
    "hash": all_named("jti_of::hash's parent", f"token:{hashlib.sha256(b'somebody else has it').hexdigest()}"),
    "key": all_named("jti_of::key's child", "signing_key:key-9"),
}  # fmt: skip
#: The last line "now" for this subject: what edged itself issued before it says less.
EPOCH = 5
CORPUS |= {
    "revoked family": (Reason.REVOKED, [
        craft(header, claims | {"jti": name.name, "iat": NOW + 5}, sign)
        for header, claims, sign in KINDS.values() for family in FAMILIES.values() for name in sorted(family)
        if name.kind is Kind.JTI
    ]),
    "own, from before a line": (Reason.REVOKED, [
        craft(header, {**OWN, "sub": "eve", "iat": NOW + 5, "epoch": epoch}, sign)
        for header, _, sign in (KINDS["rsa"], KINDS["ec"]) for epoch in (EPOCH - 1, 0, -1, -(2**63))
    ]),
    "own, issued by who is gone": (Reason.REVOKED, [
        craft(header, {**OWN, "epoch": EPOCH, "issued_by": names}, sign)
        for header, _, sign in (KINDS["rsa"], KINDS["ec"])
        for names in (["key:gone"], ["subject:gone"], ["user:gone"], ["user:ann", "key:gone"], ["key:gone"] * 8)
    ]),
    "own, issued by what is nobody": (M, [
        craft(header, {**OWN, "epoch": EPOCH, "issued_by": names}, sign)
        for header, _, sign in (KINDS["rsa"], KINDS["ec"])
        for names in (
            "user:ann", {}, {"user": "ann"}, 5, True, [5], [None], [["user:ann"]], ["ann"], ["User:ann"], [""],
            ["jti:gone"], ["user:ann", 5], ["user:ann"] * 33, [f"key:{n}" for n in range(1000)],
        )
    ]),
    "own, of an epoch that is none": (Reason.REVOKED, [
        craft(header, {**OWN, "sub": "eve", "iat": NOW + 5, "epoch": epoch}, sign)
        for header, _, sign in (KINDS["rsa"], KINDS["ec"]) for epoch in ("9", 9.0, True, None, [9], {"epoch": 9})
    ]),
}  # fmt: skip


#: What names an unknown kid of a trusted issuer, and would not be taken whoever had signed it.
NEWER_MISFITS = [
    *(
        craft(by("RS256", "new"), {name: value for name, value in (THEIRS | more).items() if value is not None}, sign)
        for sign in (rs(THEIR_RSA), rs(OTHER_RSA)) for more in (
            {"exp": NOW}, {"exp": None}, {"exp": "soon"}, {"iat": NOW + 61}, {"nbf": NOW + 61}, {"aud": None},
            {"aud": "somebody-else"}, {"aud": 5}, {"sub": None}, {"sub": 5}, {"user_id": "eve"}, {"role": "root"},
            {"role": None}, {"permissions": "*"}, {"jti": 5},
        )
    ),
    *(craft({"alg": alg, "kid": "new"}, THEIRS, hs()) for alg in ("HS256", "RS384", "PS256")),
    craft(by("ES256", "new"), PARTNERS, es(THEIR_EC)),
]  # fmt: skip


class Uncounted:
    def auth_failed(self, *_: object) -> None: ...
    def credential_used(self, *_: object) -> None: ...


@pytest.fixture
def gate() -> Gate:
    clock = Clock(system=lambda: float(NOW), monotonic=time.monotonic)
    ledger = Ledger()
    deny_some(ledger)
    return make_gate(
        ledger, Admissions(monotonic=time.monotonic), clock, Uncounted(),
        shared_secrets=[SharedSecret("other", "another secret that signed none of it"), SharedSecret("corpus", TEXT)],
        find_key=KEYS.get, issuers=OUTSIDE,
    )  # fmt: skip


def deny_some(ledger: Ledger) -> None:
    """What the corpus takes for revoked."""
    ledger.deny([named("jti:gone"), named("key:gone"), named("user:gone"), named(f"token:{DENIED_HASH}")])
    for name, names in FAMILIES.items():
        ledger.denials.join(named(f"family:{name}"), NOW, NOW + 9999, names)
    denied = next(name for name in FAMILIES["hash"] if name.kind is Kind.TOKEN)
    ledger.deny([named("jti:root"), named("jti:child"), denied, named("signing_key:key-9")])
    ledger.cut_offs.draw(named("user:eve"), NOW - 10**9, None, EPOCH)


DENIED = craft(HS, CLAIMS | {"jti": "two"}, hs())
DENIED_HASH = hashlib.sha256(DENIED.encode()).hexdigest()


def reason_of(gate: Gate, text: str) -> str:
    """Why the gate refuses a token; "" if it does not."""
    try:
        gate.authenticate(Token(text), LOCAL, "ws")
    except Refused as problem:
        return problem.reason
    return ""


#: Members of a header that only give a hint, in spellings of real identity providers.
HINTS: list[dict[str, object]] = [
    {"x5t": "dGh1bWI"},
    {"x5t#S256": "dGh1bWI"},
    {"x5t": None, "x5t#S256": 5},
    {"nonce": "AQABAAAAAA"},
    {"cty": "JWT"},
    {"cty": ["x"]},
    {"pi.atm": "1"},
    {"ver": "1.0", "org.example": {"a": [1]}},
    {"Alg": "none"},
    {"ALG": "HS512"},
    {"kid ": "x"},
    {"": "x"},
    {"iss": "partner"},
    {"url": "https://evil.example"},
    {"typ": "AT+JWT"},
    {"typ": "Jwt"},
    {"typ": "application/at+jwt"},
    {"typ": "APPLICATION/JWT"},
    {"typ": "application/JWT"},
]


def test_what_the_corpus_is_one_step_away_from_is_taken(gate: Gate) -> None:
    """Every kind of token, with and without what is optional: without this the corpus would prove nothing."""
    for text in (*GOOD.values(), PADDED, *with_header(typ="at+jwt"), craft(by("HS256"), CLAIMS, hs())):
        assert reason_of(gate, text) == ""
    for hint in HINTS:
        assert [reason_of(gate, text) for text in with_header(**hint)] == [""] * 3
    assert reason_of(gate, craft({**HS, "kid": "theirs"}, CLAIMS, hs())) == ""
    ours: list[dict[str, object]] = [
        {"iss": "camera-service"},
        {"aud": "camera-clients"},
        {"aud": ["a", "camera-clients"]},
    ]
    for extra in ours:
        assert reason_of(gate, craft(HS, CLAIMS | extra, hs())) == ""
    good: list[dict[str, Any]] = [
        {"exp": 2**53},
        {"exp": NOW + 0.5},
        {"iat": NOW + 59},
        {"nbf": NOW + 60},
        {"user_id": "ann"},
    ]
    for extra in good:
        assert [reason_of(gate, text) for text in with_claims(**extra)] == [""] * 3
    deep = b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1)
    flat = b'"' + b"[{" * 200 + b'"'
    for value in (deep, flat, b'"\\ud83d\\ude00"', b'[{"a":1},{"a":1}]', b'"\xc3\xa4"', b"1e300"):
        payload = b'{"iss":"edged","sub":"ann","role":"viewer","exp":%d,"x":%s}' % (NOW + 600, value)
        for kind in ("rsa", "ec"):
            assert reason_of(gate, craft(KINDS[kind][0], payload, KINDS[kind][2])) == ""


def test_what_the_outside_corpus_is_one_step_away_from_is_taken(gate: Gate) -> None:
    """Every kind of token of outside issuers, also with the audience in a list, and said to be whose it is."""
    for header, claims, sign in OUTSIDE_KINDS.values():
        caller = gate.authenticate(Token(craft(header, claims, sign)), LOCAL, "ws")
        assert (caller.method, caller.subject, caller.role) == ("jwt_federated", "ann", "viewer")
        assert caller.claims.get("iss") == claims.get("iss")
    assert reason_of(gate, craft(TRS, THEIRS | {"aud": ["x", "box-7"]}, rs(THEIR_RSA))) == ""
    assert reason_of(gate, craft({**HS, "kid": "theirs"}, CLAIMS, hs())) == ""


@pytest.mark.parametrize(
    ("role", "permissions", "kind", "capabilities", "found"),
    [
        ("admin", None, "their rsa", {"camera:read", "stream:read", "system:read"}, "viewer"),
        ("viewer", None, "their rsa", {"camera:read", "stream:read", "system:read"}, "viewer"),
        ("monitor", None, "their rsa", {"system:read"}, "none"),
        (None, ["*", "keys:admin", "camera:write"], "their rsa", {"camera:read", "stream:read"}, "none"),
        ("admin", ["keys:admin", "users:admin"], "their rsa", set(), "viewer"),
        ("admin", None, "partner", {"camera:read", "stream:read", "system:read", "camera:write"}, "operator"),
        ("user", None, "partner", {"camera:read", "stream:read", "system:read", "camera:write"}, "operator"),
        ("admin", ["camera:write"], "partner", {"camera:write"}, "operator"),
        ("admin", ["keys:admin"], "nameless", {"keys:admin"}, "admin"),
    ],
)
def test_no_token_of_an_outside_issuer_rises_above_its_ceiling(
    gate: Gate, role: str | None, permissions: list[str] | None, kind: str, capabilities: set[str], found: str
) -> None:
    """Neither by a role, nor by permissions, nor by a role's mere name."""
    header, claims, sign = OUTSIDE_KINDS[kind]
    said = {name: value for name, value in {"role": role, "permissions": permissions}.items() if value is not None}
    claims = {name: value for name, value in claims.items() if name != "role"} | said
    caller = gate.authenticate(Token(craft(header, claims, sign)), LOCAL, "ws")
    assert (set(caller.capabilities), caller.role) == (capabilities, found)


def test_single_grants_and_streams_stay_below_the_ceiling(gate: Gate) -> None:
    """For one camera, and by name of a stream: what the ceiling does not hold is not there."""
    grants = ["camera:read:camera0", "camera:delete:camera0", "camera:write:camera1"]
    streams = [{"action": "read", "path": "camera0"}, {"action": "publish", "path": "camera0"}]
    extra = {"role": "admin", "permissions": grants, "mediamtx_permissions": streams}
    viewer = gate.authenticate(Token(craft(TRS, THEIRS | extra, rs(THEIR_RSA))), LOCAL, "ws")
    assert viewer.grants == {"camera:read:camera0"}
    assert viewer.streams == Streams(read=frozenset({"camera0"}))
    nameless = gate.authenticate(Token(craft(by("RS256"), CLAIMS | extra, rs(GIVEN_RSA))), LOCAL, "ws")
    assert nameless.grants == set(grants)
    assert nameless.streams == Streams(frozenset({"camera0"}), frozenset({"camera0"}))
    monitor = limit(nameless, IssuerRecord("x", "x", ("RS256",), ceiling="monitor"))
    assert (monitor.streams, monitor.grants, monitor.role) == (Streams(), frozenset(), "monitor")


@pytest.mark.parametrize("kind", OUTSIDE_KINDS)
def test_a_revocation_hits_tokens_of_outside_issuers(gate: Gate, kind: str) -> None:
    """By jti, subject, issuer, the hash of either spelling, and everything before a time; not by a kid of ours."""
    header, claims, sign = OUTSIDE_KINDS[kind]
    text = craft(header, claims | {"jti": kind}, sign)
    assert reason_of(gate, craft(header, claims | {"jti": "gone"}, sign)) == "revoked"
    gate._ledger.deny([named("signing_key:key-1"), named("signing_key:only"), named("signing_key:their/rsa=")])
    assert reason_of(gate, text) == ""
    if header["alg"] == "ES256":
        signed, _, tail = text.rpartition(".")
        r, s = unb64(tail)[:32], int.from_bytes(unb64(tail)[32:])
        twin = f"{signed}.{b64(r + (ORDER - s).to_bytes(32))}"
        assert reason_of(gate, twin) == ""
        gate._ledger.deny([named(f"token:{hashlib.sha256(twin.encode()).hexdigest()}")])
        assert reason_of(gate, twin) == reason_of(gate, text) == "revoked"
    else:
        gate._ledger.deny([named(f"token:{hashlib.sha256(text.encode()).hexdigest()}")])
        assert reason_of(gate, text) == "revoked"
    after = craft(header, claims | {"jti": "later", "iat": NOW + 1}, sign)
    if issuer := claims.get("iss"):
        gate._ledger.cut_offs.draw(named(f"issuer:{issuer}"), NOW)
        assert reason_of(gate, craft(header, claims | {"jti": "x"}, sign)) == "revoked"
        assert reason_of(gate, after) == ""
        gate._ledger.deny([named(f"issuer:{issuer}")])
        assert reason_of(gate, after) == "revoked"
    else:
        gate._ledger.cut_offs.draw(ALL, NOW)
        assert reason_of(gate, craft(header, claims | {"jti": "x"}, sign)) == "revoked"
        assert reason_of(gate, after) == ""
        gate._ledger.deny([named("user:ann")])
        assert reason_of(gate, after) == "revoked"


def test_a_token_that_claims_an_epoch_is_not_ours_for_that(gate: Gate) -> None:
    """An outside issuer's tokens are foreign ones, whatever else they say."""
    for header, claims, sign in OUTSIDE_KINDS.values():
        caller = gate.authenticate(Token(craft(header, claims | {"epoch": 10**9}, sign)), LOCAL, "ws")
        assert caller.epoch is None


def test_what_an_outside_key_verified_is_verified_anew_once_it_is_not_trusted(gate: Gate) -> None:
    """The gate remembers good tokens; a key that its issuer withdraws takes that away too."""
    outside = trusting((PARTNER, [("only", "RS256", OTHER_RSA)]))
    gate._tokens._issuers = outside
    text = craft(*OUTSIDE_KINDS["partner"])
    assert reason_of(gate, text) == ""
    outside.find("partner").keys = ()  # type: ignore[union-attr]
    assert reason_of(gate, text) == ""
    outside.version += 1
    assert reason_of(gate, text) == "unknown_key"


def test_an_unknown_kid_raises_a_flag_and_nothing_else(gate: Gate, reached: Watched) -> None:
    """The gate asks nobody: what would do but for its kid makes the task of that issuer look, and of no other."""
    company, partner = (OUTSIDE.find(record.issuer) for record in (COMPANY, PARTNER))
    assert company is not None
    assert partner is not None
    company.asked, partner.asked = trio.Event(), trio.Event()
    reached.events.clear()
    reached.watching = True
    try:
        for header, claims in ((RS, OWN), (by("RS256"), THEIRS), (by("RS256", "ec.1"), THEIRS), (by("HS256"), THEIRS)):
            reason_of(gate, craft(header | {"typ": "JWT"}, claims, rs(OTHER_RSA)))
        for text in NEWER_MISFITS:
            assert reason_of(gate, text) in ("unknown_key", "alg_not_allowed")
        assert not company.asked.is_set()
        assert reason_of(gate, craft(by("RS256", "new"), THEIRS, rs(THEIR_RSA))) == "unknown_key"
    finally:
        reached.watching = False
    assert company.asked.is_set()
    assert not partner.asked.is_set()
    assert reached.events == []


KIDS = st.sampled_from(["key-1", "key-2", "only", "their/rsa=", "ec.1", "other", ""])
ISSUERS = st.sampled_from(["edged", COMPANY.issuer, "partner", "nobody", None])
SIGNERS: dict[str, tuple[str, Signer]] = {
    "ours rsa": ("RS256", rs()), "ours ec": ("ES256", es()), "shared": ("HS256", hs()),
    "company rsa": ("RS256", rs(THEIR_RSA)), "company twin": ("RS256", rs(TWIN_RSA)),
    "company ec": ("ES256", es(THEIR_EC)), "partner": ("RS256", rs(OTHER_RSA)), "nameless": ("RS256", rs(GIVEN_RSA)),
}  # fmt: skip
#: Who may sign what says that it is from whom: the whole of it.
MAY = {
    ("edged", "ours rsa"), ("edged", "ours ec"), ("edged", "shared"), (None, "shared"), ("partner", "partner"),
    (None, "nameless"), *((COMPANY.issuer, name) for name in ("company rsa", "company twin", "company ec")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("iss", "says"),
    [
        ("https://evil", "nobody is trusted by iss 'https://evil' to sign with RS256"),
        (
            "e\n\x1b[31m\u202e" + "x" * 900,
            f"nobody is trusted by iss 'e\\n\\x1b[31m\\u202e{'x' * 56}' to sign with RS256",
        ),
        (5, "nobody is trusted without an iss that is a text to sign with RS256"),
        (None, "nobody is trusted without an iss that is a text to sign with RS256"),
    ],
)
def test_a_stranger_s_token_is_told_as_one(iss: object, says: str) -> None:
    """The log names the iss, short and printable, so that an operator sees whom to trust or whom to ask; it is counted
    as an outside issuer's, and not as a key of ours that went missing."""
    with pytest.raises(TokenRefused) as caught:
        verify(
            craft(by("RS256", "7"), CLAIMS | {"iss": iss}, rs(OTHER_RSA)), [], now=NOW, find_key=KEYS.get, own="edged"
        )
    told = caught.value
    assert (told.reason, told.detail, told.method) == (Reason.UNTRUSTED_ISSUER, says, "jwt_federated")
    with pytest.raises(TokenRefused) as caught:
        verify(craft(by("RS256", "7"), OWN, rs(OTHER_RSA)), [], now=NOW, find_key=KEYS.get, own="edged")
    assert (caught.value.reason, caught.value.method) == (Reason.UNKNOWN_KEY, "jwt_local")


@given(kid=KIDS, issuer=ISSUERS, signer=st.sampled_from(sorted(SIGNERS)), role=st.sampled_from(["admin", "viewer"]))
@settings(max_examples=times(300, least=25))
def test_a_kid_never_decides_whose_a_token_is(kid: str, issuer: str | None, signer: str, role: str) -> None:
    """Every mixture of kid, iss and the key that really signed: taken only if that key signs for that issuer, and then
    within the rights of that issuer."""
    algorithm, sign = SIGNERS[signer]
    header = {"alg": algorithm} | ({"kid": kid} if kid else {})
    claims = (
        CLAIMS
        | {"role": role}
        | ({"iss": issuer} if issuer else {})
        | ({"aud": "edged"} if issuer == COMPANY.issuer else {})
    )
    trust = Trust(frozenset({"edged"}), own="edged")
    try:
        caller = verify(
            craft(header, claims, sign), [SharedSecret("corpus", TEXT, trust)], now=NOW, find_key=KEYS.get,
            find_issuer=OUTSIDE.find, own="edged",
        )  # fmt: skip
    except TokenRefused:
        return
    assert (issuer, signer) in MAY
    outside = issuer in (COMPANY.issuer, "partner") or signer == "nameless"
    assert (caller.method == "jwt_federated") == outside
    if outside:
        most = OUTSIDE.find(issuer or "").record.ceiling  # type: ignore[union-attr]
        assert caller.capabilities <= ROLES[most]


def test_the_corpus_is_large_and_its_cases_differ() -> None:
    """40 classes and 300 cases at least, no case twice in a class."""
    assert len(CORPUS) >= 40
    assert sum(len(cases) for _, cases in CORPUS.values()) >= 300
    assert all(cases for _, cases in CORPUS.values())
    # RSA and HMAC signatures are the same each time, so that a doubled case would show here.
    assert [name for name, (_, cases) in CORPUS.items() if len(set(cases)) != len(cases)] == []


@pytest.mark.parametrize("name", CORPUS)
def test_every_case_is_refused_for_its_own_reason(gate: Gate, reached: Watched, name: str) -> None:
    """Through the gate, as any endpoint asks it; and nothing was fetched, opened or run for it."""
    reason, cases = CORPUS[name]
    reason_of(gate, GOOD["rsa"])
    reached.events.clear()
    reached.watching = True
    try:
        found = [reason_of(gate, text) for text in cases]
    finally:
        reached.watching = False
    wrong = {text[:400]: told for text, told in zip(cases, found, strict=True) if told != reason}
    assert wrong == {}
    assert reached.events == []


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_hostile_is_refreshed(gate: Gate, reached: Watched, name: str) -> None:
    """Asked to refresh it, the gate refuses for the same reason, also what it refuses for its end alone: but for what
    ended just now, and would be good otherwise."""
    reason, cases = CORPUS[name]
    reached.events.clear()
    wrong = {}
    for text in cases:
        reached.watching = True
        try:
            caller = gate.enter_refresh(text, "ws", 300.0)
            told = f"taken, {NOW - (caller.expires or 0)} s after its end"
        except Refused as problem:
            told = problem.reason
        finally:
            reached.watching = False
        if told != reason and not (name == "expired" and told.startswith("taken, ") and told < "taken, 2"):
            wrong[text[:400]] = told
    assert wrong == {}
    assert reached.events == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_ended_a_while_ago_is_not_refreshed(gate: Gate, kind: str) -> None:
    """To the second; and what is revoked, or will be valid later only, has no grace at all."""
    header, claims, sign = KINDS[kind]

    def told(**members: object) -> str:
        try:
            gate.enter_refresh(craft(header, claims | members, sign), "ws", 300.0)
        except Refused as problem:
            return problem.reason
        return ""

    assert [told(exp=NOW - left) for left in (0, 299, 299.5, 300, 301, 10**9)] == ["", "", "", *["expired"] * 3]
    assert told(exp=NOW - 5, jti="gone") == told(exp=NOW - 5, jti="root's child") == "revoked"
    assert told(exp=NOW + 600, nbf=NOW + 61) == told(exp=NOW + 900, iat=NOW + 61) == "not_yet_valid"
    assert reason_of(gate, craft(header, claims | {"exp": NOW - 5}, sign)) == "expired"


def test_the_watch_sees_what_it_watches_for(reached: Watched, tmp_path: Any) -> None:
    """The hook that counts nothing above does count."""
    reached.events.clear()
    reached.watching = True
    try:
        (tmp_path / "file").write_text("x")
    finally:
        reached.watching = False
    assert "open" in reached.events


@pytest.mark.parametrize("kind", KINDS)
def test_a_revoked_token_stays_revoked_in_every_spelling(gate: Gate, kind: str) -> None:
    """By its jti, by the hash of its text, and with everything that its key signed; before expiry is looked at."""
    header, claims, sign = KINDS[kind]
    assert reason_of(gate, craft(header, claims | {"jti": "gone"}, sign)) == "revoked"
    assert reason_of(gate, DENIED) == "revoked"
    for spelled in (swap_last(DENIED, 2), DENIED + "=", f"{DENIED}\n"):
        assert reason_of(gate, spelled) == "malformed"
    if kind != "shared":
        assert reason_of(gate, craft(header, claims | {"jti": "three"}, sign)) == ""
        gate._ledger.deny([named(f"signing_key:{header['kid']}")])
        assert reason_of(gate, craft(header, claims | {"jti": "three"}, sign)) == "revoked"
        assert reason_of(gate, craft(header, claims | {"jti": "four"}, sign)) == "revoked"


def test_without_key_pairs_no_kid_is_known(gate: Gate) -> None:
    """The same good tokens at a gate that holds other keys."""
    gate._tokens._find_key = {"key-1": KEYS["key-2"]}.get
    assert reason_of(gate, GOOD["rsa"]) == "alg_not_allowed"
    assert reason_of(gate, GOOD["ec"]) == "unknown_key"
