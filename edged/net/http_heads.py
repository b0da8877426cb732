"""Heads of HTTP/1.1 requests: limits, targets, the Host, and the ASGI scope that is made of them. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

import h11

from edged.credentials.callers import Peer
from edged.net.handlers import Scope

Headers = list[tuple[bytes, bytes]]
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
#: Where h11's sentences begin to quote what was sent.
_PRINTED_BYTES = re.compile(r":? (?:bytearray\()?b['\"]")


class HeadTooLarge(Exception):
    """The request's head is longer than the limit, or has too many lines; the text says which."""


class BadHead(Exception):
    """The request's head breaks RFC 9112; the text says how."""


class Target(NamedTuple):
    """A request's target: `path` decoded, `raw` and `query` as sent, `authority` (host and port) of a whole URL."""

    path: str
    raw: bytes
    query: bytes
    authority: bytes | None = None


def explain(problem: h11.RemoteProtocolError) -> str:
    """What is wrong with a request, without the client's bytes that h11 quotes."""
    return _PRINTED_BYTES.split(str(problem))[0]


def host_of(value: bytes) -> str | None:
    """The host in a Host header, without its port; None if it is not one."""
    found = _HOST.fullmatch(value.decode("latin-1"))
    return found[1] if found else None


def target_of(target: bytes) -> Target:
    """The parts of a request's target, a path or a whole http:// URL (RFC 9112 3.2). Raises BadHead for any other."""
    authority = None
    if not target.startswith(b"/"):
        if target == b"*":
            return Target("*", b"*", b"")
        scheme, mark, rest = target.partition(b"://")
        if not mark or scheme.lower() != b"http":
            raise BadHead("the request's target must be a path, or an http:// URL")
        at = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        authority, target = rest[:at], rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]
        if host_of(authority) is None:
            raise BadHead("the URL in the request's target names no host that there can be")
    raw, _, query = target.partition(b"?")
    path = raw.decode("ascii", "replace")
    return Target(unquote(path) if "%" in path else path, raw, query, authority)


def headers_of(request: h11.Request, target: Target) -> Headers:
    """The request's headers; the authority of a whole URL replaces Host (RFC 9112 3.2.2)."""
    if target.authority is None:
        return list(request.headers)
    return [(b"host", target.authority), *(pair for pair in request.headers if pair[0] != b"host")]


def make_scope(request: h11.Request, target: Target, headers: Headers, peer: Peer) -> Scope:
    """The ASGI scope; `edged.peer` is the client."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": target.path,
        "raw_path": target.raw,
        "query_string": target.query,
        "root_path": "",
        "headers": headers,
        "client": (peer.address, peer.port) if peer.address else None,
        "server": (peer.host, None),
        "edged.peer": peer,
    }
