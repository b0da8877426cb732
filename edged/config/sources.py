"""Addresses of network cameras: which camera an address names, whatever its credentials. Pure."""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from edged.urls import opens

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
    kept = urlencode([(name, value) for name, value in query if not opens(name)])
    return f"{url.scheme}://{url.hostname or ''}:{port}{url.path or '/'}?{kept}"
