"""By which names a revocation hits a caller: texts of a kind and a value, `key:<id>`, `token:<sha256>`.

What others choose, a jti and a subject, is a name only together with who issued it: "" for edged and its
shared secrets, else the `iss` of an outside issuer (`Caller.issuer`). So a token of one can never name another's. The
names of a jti or a subject alone hit those of every issuer (contract 10.18), and only an administrator says them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

#: What a token is named by, itself and nothing else.
TOKENS: Final = ("jti_of:", "token:")
#: What whoever is hit by it is named by as a subject.
SUBJECTS: Final = ("user:", "user_of:")
#: Whom a token may say that it was issued by (`Caller.issued_by`); `subject:` stands in tokens of earlier versions.
MAKERS: Final = ("user:", "subject:", "subject_of:", "key:", "jti_of:", "token:", "signing_key:")


def token_identity(text: str) -> str:
    """A token by its very text."""
    return f"token:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def jti_identity(issuer: str, jti: str) -> str:
    """A token by the jti that this issuer gave it."""
    return f"jti_of:{_escape(issuer)}:{jti}"


def any_jti_identity(jti: str) -> str:
    """The tokens of all issuers that have this jti."""
    return f"jti:{jti}"


def subject_identity(issuer: str, subject: str) -> str:
    """Every token of this issuer's subject."""
    return f"user_of:{_escape(issuer)}:{subject}"


def user_identity(subject: str) -> str:
    """Every token of a subject, whoever issued it (contract 10.18)."""
    return f"user:{subject}"


def issuer_identity(issuer: str) -> str:
    """Every token that says that it is from this issuer."""
    return f"issuer:{issuer}"


def maker_identity(issuer: str, subject: str) -> str:
    """The subject of a token that edged did not issue, as the maker of something."""
    return f"subject_of:{_escape(issuer)}:{subject}"


def split(identity: str) -> tuple[str, str | None, str]:
    """(kind, issuer or None, value) of a name: ("jti_of", "", "x"), ("key", None, "key_1")."""
    kind, _, value = identity.partition(":")
    if not kind.endswith("_of"):
        return kind, None, value
    issuer, _, value = value.partition(":")
    return kind, issuer.replace("%3A", ":").replace("%25", "%"), value


def widen(identities: Iterable[str]) -> frozenset[str]:
    """The names of every issuer that hit one of these, too."""
    return frozenset(any_jti_identity(split(name)[2]) for name in identities if name.startswith("jti_of:"))


def _escape(issuer: str) -> str:
    return issuer.replace("%", "%25").replace(":", "%3A")
