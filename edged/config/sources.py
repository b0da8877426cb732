"""Addresses of network cameras: which camera an address names, whatever its credentials. Pure."""

from __future__ import annotations

import hashlib
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

#: What sort of source a camera is: a device on USB, an address in the network, or a picture that edged makes itself.
SourceKind: TypeAlias = Literal["usb", "rtsp", "test"]
#: How an RTSP source sends its pictures; auto: TCP, and UDP where there is no TCP.
RtspTransport: TypeAlias = Literal["auto", "tcp", "udp"]

#: Query parameters that are user names and passwords. Stored identities rest on these words: another list makes every
#: camera that has one of the words that differ a new camera.
_CREDENTIAL_PARTS: Final = (
    "pass",
    "pwd",
    "secret",
    "token",
    "auth",
    "credential",
    "apikey",
    "api_key",
    "jwt",
    "ticket",
)
_CREDENTIAL_NAMES: Final = frozenset({"pw", "psw", "usr", "user", "username", "login", "account", "key", "sig"})
DEFAULT_PORTS: Final = {"rtsp": 554, "rtsps": 322}


def is_network(source: str) -> bool:
    """Whether a camera's source is a network address."""
    return source.startswith(("rtsp://", "rtsps://"))


def identify(source: str) -> str:
    """One short text for each source, whatever user name, password or token it is asked with.

    A digest: of an address that was mistyped, part of a password may stand where a path should.
    """
    text = _canonical(source) if is_network(source) else source
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _canonical(source: str) -> str:
    """Scheme, host, port, path and what is left of the query; the whole text where it cannot be taken apart."""
    try:
        url = urlsplit(source)
        port = url.port or DEFAULT_PORTS[url.scheme]
        query = parse_qsl(url.query, keep_blank_values=True)
    except ValueError:
        return source
    kept = urlencode([(name, value) for name, value in query if not _is_credential(name.lower())])
    return f"{url.scheme}://{url.hostname or ''}:{port}{url.path or '/'}?{kept}"


def _is_credential(name: str) -> bool:
    return name in _CREDENTIAL_NAMES or any(part in name for part in _CREDENTIAL_PARTS)
