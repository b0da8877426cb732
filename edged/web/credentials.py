"""The credential that an HTTP request shows, or whether it may go without one.

No decision is made here; the gate makes it. Sources in order (contract 5): under /v1/files X-Service-Token; then
Authorization: Bearer with a token or an API key, X-API-Key, and on the unix socket the user that the kernel names.
A few routes take Authorization: Basic as well, after all of these (`Route.takes_basic`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Container
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers

from edged.credentials import relays
from edged.credentials.callers import (
    ApiKey,
    Credential,
    LocalUser,
    NoCredential,
    Peer,
    ServiceToken,
    Token,
    parse_credential,
)

#: The uid that the kernel shows for a user without a mapping in our namespace (contract 10.2).
_NOBODY: Final = 65534
_CREDENTIALS: Final = ("authorization", "x-api-key", "x-service-token")
_PORT: Final = re.compile(r":[0-9]*\Z")


def read_credential(headers: Headers, peer: Peer) -> Credential:
    """What the request presents. A credential shown on the unix socket counts before the socket's own user."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return parse_credential(text.strip())
    if key := headers.get("x-api-key"):
        return parse_credential(key.strip(), "api_key")
    if peer.is_local_socket and not _shows_credential(headers):
        return LocalUser(_NOBODY if peer.uid is None else peer.uid)
    return NoCredential()


def read_basic(headers: Headers) -> Credential:
    """What the request presents by Basic (RFC 7617): the password is a token or an API key, the user name is free.

    OAuth clients percent-encode both (RFC 6749 2.3.1); no token and no key of edged's holds a `%`.
    """
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return NoCredential()
    try:
        pair = base64.b64decode(text.strip(), validate=True).decode()
    except ValueError:
        # A credential was shown, and it cannot be anybody's.
        return ApiKey(text.strip())
    return parse_credential(unquote(pair.partition(":")[2]).strip())


def is_cross_origin(headers: Headers) -> bool:
    """Whether a page of another origin sent this through its visitor's browser, which adds credentials kept by Basic.

    Another port of the same host is another origin, though a browser shows it the same password.
    """
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if any(said not in ("none", "same-origin") for said in headers.getlist("sec-fetch-site")):
        return True
    host = hosts[0].strip().lower() if len(hosts) == 1 else None
    return any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in origins)


def text_of(credential: Credential) -> str:
    """The text of a token or an API key; "" for whatever else there is."""
    if isinstance(credential, ApiKey):
        return credential.secret
    return credential.text if isinstance(credential, Token) else ""


def read_service_token(headers: Headers, peer: Peer) -> ServiceToken | None:
    """What the request presents as a service token, good or not; None if it has no such header.

    A header that stands twice counts as a wrong token.
    """
    said = headers.getlist("x-service-token")
    return ServiceToken(said[0] if len(said) == 1 else "", peer.address) if said else None


def may_go_without(method: str, headers: Headers, peer: Peer) -> bool:
    """Whether this request may count as local root's, if its socket is owned by uid 0 (contract 5.1, a and c to e).

    A POST must say that it is JSON: a web page can send every other kind across origins. One that carries no body and
    no type at all is let through, as `curl -X POST …/rotate` sends it; a browser adds Origin to that.
    """
    if _shows_credential(headers) or peer.proxy or not is_direct(headers, peer):
        return False
    return method != "POST" or is_json(headers) or ("content-type" not in headers and not has_body(headers))


def is_direct(headers: Headers, peer: Peer) -> bool:
    """Whether a program on this machine sent this: no browser, no proxy, no host name that DNS could rebind."""
    # A relay that adds no header speaks HTTP/1.0 more often than not; no program of our own does.
    return not peer.is_http10 and relays.is_direct(peer.address, headers.keys(), headers.getlist("host"))


def is_own_page(headers: Headers, names: Container[str]) -> bool:
    """Whether this was not sent by a page of another site through its visitor's browser (contract 10.14).

    The Host must be one that no foreign DNS can point at us: an IP address, localhost, or one of `names`, in lower
    case this machine's own; an Origin must be the very same, and a browser that says where a request comes from must
    say so.
    """
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or len(origins) > 1:
        return False
    host = hosts[0].strip().lower()
    name = _PORT.sub("", host).removesuffix(".")
    if not (name == "localhost" or name in names or _is_address(name)):
        return False
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    return not origins or origins[0].lower() in (f"http://{host}", f"https://{host}")


def is_json(headers: Headers) -> bool:
    """Whether Content-Type is JSON."""
    return media_type(headers) == "application/json"


def media_type(headers: Headers) -> str:
    """Content-Type without parameters, in lower case; "" if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def has_body(headers: Headers) -> bool:
    """Whether a body follows the head."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"


def _shows_credential(headers: Headers) -> bool:
    return any(name in headers for name in _CREDENTIALS)


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
