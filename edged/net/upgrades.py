"""The handshake that opens a WebSocket (RFC 6455 4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from websockets.utils import accept_key

#: Subprotocols that edged speaks; the client's first of these is chosen.
SUBPROTOCOLS = ("jsonrpc-2.0", "camera-v1")


def refuse_upgrade(
    headers: Mapping[str, str], method: bytes, path: str, paths: frozenset[str]
) -> tuple[int, str] | None:
    """Why an upgrade is refused: status and detail; None if it is answered 101 (RFC 6455 4.2.1).

    `paths` are those where this listener opens WebSockets; without /ws it says what it says of any unknown path.
    """
    if path not in paths:
        return 404, "a WebSocket opens at /ws" if "/ws" in paths else "there is nothing at this path"
    if method != b"GET":
        return 405, "a WebSocket is opened by GET"
    if "upgrade" not in {token.strip().lower() for token in headers.get("connection", "").split(",")}:
        return 400, "the Connection header must say Upgrade"
    if headers.get("sec-websocket-version") != "13":
        return 426, "Sec-WebSocket-Version must be 13"
    try:
        key = base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    return None if len(key) == 16 else (400, "Sec-WebSocket-Key must be 16 bytes in base64")


def choose_subprotocol(offered: str | None) -> str | None:
    """The first of the client's subprotocols that edged speaks."""
    return next((name for each in (offered or "").split(",") if (name := each.strip()) in SUBPROTOCOLS), None)


def upgrade_headers(key: str, subprotocol: str | None) -> list[tuple[bytes, bytes]]:
    """The headers of the 101."""
    found = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    found.append((b"sec-websocket-accept", accept_key(key).encode()))
    if subprotocol:
        found.append((b"sec-websocket-protocol", subprotocol.encode()))
    return found
