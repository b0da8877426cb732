"""Replies to HTTP/1.1 requests that no application answers: refusals as JSON, whole and ready to send."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import msgspec

_SLUGS = {400: "bad_request", 403: "address_denied", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
          413: "too_large", 426: "upgrade_required", 429: "rate_limited", 431: "head_too_large", 500: "internal",
          501: "unsupported", 503: "overloaded"}  # fmt: skip
_WORDS = {400: "Bad request", 403: "Address denied", 404: "Not found", 405: "Method not allowed",
          408: "Request timeout", 413: "Request too large", 426: "Upgrade required", 429: "Too many connections",
          431: "Request head too large", 500: "Internal error", 501: "Not implemented",
          503: "Service unavailable"}  # fmt: skip


def fault_body(status: int, detail: str) -> bytes:
    """The JSON body of a refusal (contract C-35)."""
    return msgspec.json.encode(
        {"error": _WORDS.get(status, "Error"), "detail": detail, "code": _SLUGS.get(status, "error")}
    )


def fault_bytes(status: int, detail: str, *extra: tuple[bytes, bytes]) -> bytes:
    """A whole refusal that ends its connection; needs nothing of h11, which may not have understood the request."""
    body = fault_body(status, detail)
    lines = [b"HTTP/1.1 %d %s" % (status, _WORDS.get(status, "Error").encode()), b"Date: " + date_header()]
    lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close"]
    lines += [name + b": " + value for name, value in extra]
    return b"\r\n".join([*lines, b"", body])


def date_header() -> bytes:
    """The value of `Date`, formatted once a second."""
    return _date_of(int(time.time()))


@lru_cache(maxsize=1)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@lru_cache(maxsize=64)
def reason_of(status: int) -> bytes:
    """The reason phrase of a status, b"" for one that has none."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
