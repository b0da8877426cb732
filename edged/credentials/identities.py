"""Identities: by what a revocation hits a caller. Each is a kind and a value, as `key` and `key_1`.

Others choose a jti and a subject, so these name something only together with their issuer: "" for edged and its
shared secrets, else the `iss` of an outside issuer (`Caller.issuer`). A token of one issuer can never name another's.
The kinds `jti` and `user` hit those of every issuer (contract 10.18); only an administrator says them.

The text form, `kind:value`, stands in the database, in the claim `issued_by` and in answers; in memory an identity is
packed bytes: a revocation of a token by its SHA-256 takes 33 of them and not 70 characters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NoReturn

#: Set in the first byte where the value is hex of the bytes that follow.
_IS_HEX: Final = 0x80


class Kind(Enum):
    """What is named; the value is what stands before the colon of the text form."""

    #: One token, by the SHA-256 of its text.
    TOKEN = "token"  # noqa: S105
    #: One token, by the jti that its issuer gave it.
    JTI = "jti_of"
    #: The tokens of all issuers that have this jti.
    ANY_JTI = "jti"
    #: The tokens of one issuer's subject.
    SUBJECT = "user_of"
    #: The tokens of a subject, whoever issued them; also a user as the maker of something.
    USER = "user"
    #: The tokens that say that they are from this issuer.
    ISSUER = "issuer"
    #: The subject of a token that edged did not issue, as the maker of something.
    MAKER = "subject_of"
    #: The same without its issuer, as earlier versions wrote it.
    OLD_MAKER = "subject"
    #: An API key, and one secret of it.
    KEY = "key"
    SECRET = "secret"  # noqa: S105
    #: A service token, and one secret of it.
    SERVICE_TOKEN = "service"  # noqa: S105
    SERVICE_SECRET = "service_secret"  # noqa: S105
    #: Everything that one of edged's key pairs signed.
    SIGNING_KEY = "signing_key"
    #: All tokens that came of one by refreshing.
    FAMILY = "family"
    #: All tickets of one session.
    TICKETS = "tickets"
    #: Every token: only as the scope of a cut-off.
    ALL = "all"
    #: A text of no kind that is known here, whole.
    UNKNOWN = ""

    def __init__(self, _text: str) -> None:
        #: The first byte of a packed identity, in memory only.
        self.code = len(type(self).__members__) + 1
        self.first = bytes((self.code,))
        self.first_of_hex = bytes((self.code | _IS_HEX,))


#: By what a token is named, itself and nothing else.
TOKENS: Final = (Kind.JTI, Kind.TOKEN)
#: By what a token is named as its subject's.
SUBJECTS: Final = (Kind.USER, Kind.SUBJECT)
#: What hits tokens by whose they are: only then the gate looks at what a token says of that.
SCOPES: Final = (*SUBJECTS, Kind.ISSUER)
#: By whom a token may say that it was issued (`Caller.issued_by`).
MAKERS: Final = (Kind.USER, Kind.OLD_MAKER, Kind.MAKER, Kind.KEY, Kind.JTI, Kind.TOKEN, Kind.SIGNING_KEY)
_OF_ISSUER: Final = (Kind.JTI, Kind.SUBJECT, Kind.MAKER)
_BY_CODE: Final = {kind.code: kind for kind in Kind}
_BY_TEXT: Final = {kind.value: kind for kind in Kind if kind.value}
#: Half of a SHA-256 and all of it.
_HEX: Final = re.compile(r"(?:[0-9a-f]{32}){1,2}\Z")


class Identity(bytes):
    """One identity: immutable, hashed once, equal to another exactly if their text forms are equal.

    Its `str` is the text form; the bytes mean nothing outside this process.
    """

    __slots__ = ()

    def __new__(cls, kind: Kind, value: str) -> Identity:
        if not len(value) % 32 and _HEX.match(value):
            return bytes.__new__(cls, kind.first_of_hex + bytes.fromhex(value))
        return bytes.__new__(cls, kind.first + value.encode("utf-8", "surrogatepass"))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """An identity by its text form; of the kind UNKNOWN if it is none that is known here."""
        word, colon, value = text.partition(":")
        kind = _BY_TEXT.get(word)
        if kind is None or bool(colon) is (kind is Kind.ALL):
            return cls(Kind.UNKNOWN, text)
        return cls(kind, value)

    @classmethod
    def _of_digest(cls, kind: Kind, digest: bytes) -> Identity:
        """`digest`: 16 or 32 bytes, as `_HEX`."""
        return bytes.__new__(cls, kind.first_of_hex + digest)

    @classmethod
    def of_token(cls, text: str) -> Identity:
        """A token by its very text."""
        return cls._of_digest(Kind.TOKEN, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

    @classmethod
    def of_token_hash(cls, token_hash: str) -> Identity:
        """A token by the SHA-256 of its text, 64 hex digits in lower case."""
        return cls(Kind.TOKEN, token_hash)

    @classmethod
    def of_jti(cls, issuer: str, jti: str) -> Identity:
        """A token by the jti that this issuer gave it."""
        return cls(Kind.JTI, f"{_escape(issuer)}:{jti}")

    @classmethod
    def of_any_jti(cls, jti: str) -> Identity:
        """The tokens of all issuers that have this jti."""
        return cls(Kind.ANY_JTI, jti)

    @classmethod
    def of_subject(cls, issuer: str, subject: str) -> Identity:
        """Every token of this issuer's subject."""
        return cls(Kind.SUBJECT, f"{_escape(issuer)}:{subject}")

    @classmethod
    def of_user(cls, subject: str) -> Identity:
        """Every token of a subject, whoever issued it (contract 10.18)."""
        return cls(Kind.USER, subject)

    @classmethod
    def of_issuer(cls, issuer: str) -> Identity:
        """Every token that says that it is from this issuer."""
        return cls(Kind.ISSUER, issuer)

    @classmethod
    def of_maker(cls, issuer: str, subject: str) -> Identity:
        """The subject of a token that edged did not issue, as the maker of something."""
        return cls(Kind.MAKER, f"{_escape(issuer)}:{subject}")

    @classmethod
    def of_key(cls, key_id: str) -> Identity:
        """Everything that an API key opened, by any of its secrets."""
        return cls(Kind.KEY, key_id)

    @classmethod
    def of_secret(cls, key_digest: bytes) -> Identity:
        """What one secret of an API key opened; `key_digest` is its SHA-256."""
        return cls._of_digest(Kind.SECRET, key_digest[:16])

    @classmethod
    def of_service_token(cls, token_id: str) -> Identity:
        """Everything that a service token opened, by any of its secrets."""
        return cls(Kind.SERVICE_TOKEN, token_id)

    @classmethod
    def of_service_secret(cls, token_digest: bytes) -> Identity:
        """What one secret of a service token opened; `token_digest` is its SHA-256."""
        return cls._of_digest(Kind.SERVICE_SECRET, token_digest[:16])

    @classmethod
    def of_signing_key(cls, kid: str) -> Identity:
        """Everything that this key pair of edged's signed."""
        return cls(Kind.SIGNING_KEY, kid)

    @classmethod
    def of_family(cls, name: str) -> Identity:
        """All tokens that came of one by refreshing; `name` is that token's (credentials.refreshes.name_of)."""
        return cls(Kind.FAMILY, name)

    @classmethod
    def of_tickets(cls, session_id: str) -> Identity:
        """All tickets that one session has made."""
        return cls(Kind.TICKETS, session_id)

    @property
    def kind(self) -> Kind:
        """What is named."""
        return _BY_CODE[self[0] & ~_IS_HEX]

    @property
    def value(self) -> str:
        """Everything after the colon of the text form."""
        return self[1:].hex() if self[0] & _IS_HEX else self[1:].decode("utf-8", "surrogatepass")

    @property
    def issuer(self) -> str | None:
        """The issuer that the name is bound to; None for kinds without one."""
        if self.kind not in _OF_ISSUER:
            return None
        return self.value.partition(":")[0].replace("%3A", ":").replace("%25", "%")

    @property
    def name(self) -> str:
        """The value without the issuer: a jti, a subject, an id."""
        return self.value.partition(":")[2] if self.kind in _OF_ISSUER else self.value

    def __str__(self) -> str:
        kind = self.kind
        if kind is Kind.ALL or kind is Kind.UNKNOWN:
            return kind.value or self.value
        return f"{kind.value}:{self.value}"

    def __repr__(self) -> str:
        return f"Identity({str(self)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity leaves this process as its text only")


#: The scope of every token.
ALL: Final = Identity(Kind.ALL, "")


def parse_all(texts: Iterable[str]) -> frozenset[Identity]:
    """The identities of these texts."""
    return frozenset(map(Identity.parse, texts))


def format_all(identities: Iterable[Identity]) -> list[str]:
    """The texts of these identities, sorted."""
    return sorted(map(str, identities))


def widen(identities: Iterable[Identity]) -> frozenset[Identity]:
    """The names of every issuer that hit one of these, too."""
    return frozenset(Identity.of_any_jti(each.name) for each in identities if each.kind is Kind.JTI)


def _escape(issuer: str) -> str:
    return issuer.replace("%", "%25").replace(":", "%3A") if issuer else ""
