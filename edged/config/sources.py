"""Addresses of network cameras: which camera an address names, and how it is shown without its credentials. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

#: Members of a query by which cameras take a user name or a password, in lower case.
_CREDENTIAL_MEMBERS: Final = frozenset(
    {
        "user", "username", "usr", "login", "loginuse", "account", "password", "passwd", "pwd", "pass", "psw",
        "loginpas", "auth", "authbasic", "token", "access_token", "jwt", "ticket", "key", "apikey", "api_key", "secret",
    }
)  # fmt: skip
_DEFAULT_PORTS: Final = {"rtsp": 554, "rtsps": 322}
#: Greedy: a password may hold an unescaped / or @.
_USERINFO: Final = re.compile(r"://[^\s]*@")


def is_network(source: str) -> bool:
    """Whether a camera's source is a network address."""
    return source.startswith(("rtsp://", "rtsps://"))


def identify(source: str) -> str:
    """One short text for each source, whatever user name, password or token it is asked with.

    A digest: of an address that was mistyped, part of a password may stand where a path should.
    """
    text = _canonical(source) if is_network(source) else source
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def show(source: str) -> str:
    """A source for people: no user name, no password, no query member that may be one."""
    if not is_network(source):
        return source
    address, mark, query = _USERINFO.sub("://", source.partition("#")[0]).partition("?")
    kept = [part for part in query.split("&") if part.partition("=")[0].lower() not in _CREDENTIAL_MEMBERS]
    return address + (mark + "&".join(kept) if any(kept) else "")


def _canonical(source: str) -> str:
    """Scheme, host, port, path and what is left of the query; the whole text where it cannot be taken apart."""
    try:
        url = urlsplit(source)
        port = url.port or _DEFAULT_PORTS[url.scheme]
        query = parse_qsl(url.query, keep_blank_values=True)
    except ValueError:
        return source
    kept = urlencode([(name, value) for name, value in query if name.lower() not in _CREDENTIAL_MEMBERS])
    return f"{url.scheme}://{url.hostname or ''}:{port}{url.path or '/'}?{kept}"
