"""The body of MediaMTX's authentication request → status and body of the reply (mediamtx.md 3.1).

MediaMTX waits for it before it serves a viewer, so it never waits and never raises: what it cannot read is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from edged.errors import NOT_JSON
from edged.operations.streams import Answer, StreamRequest

_YES: Final = (204, b"")
_UNREADABLE: Final = (400, b"not a request of MediaMTX")
_FAILED: Final = (500, b"edged failed to answer")
_LONGEST_REASON: Final = 64
_log = structlog.get_logger("hook")


def make_answer(
    admit: Callable[[StreamRequest], Answer], count: Callable[[str, bool], None] = lambda _action, _allowed: None
) -> Callable[[bytes], tuple[int, bytes]]:
    """`admit` decides from memory, `count` hears of the action and the outcome.

    The body of a refusal is a short ASCII reason: MediaMTX copies it into its log.
    """
    decode = msgspec.json.Decoder(StreamRequest).decode

    def answer(body: bytes) -> tuple[int, bytes]:
        try:
            question = decode(body)
        except NOT_JSON:
            return _UNREADABLE
        try:
            allowed = admit(question)
        except Exception:
            _log.exception("hook_request_failed", action=question.action[:16], protocol=question.protocol[:16])
            return _FAILED
        count(question.action, allowed.allowed)
        if allowed.allowed:
            return _YES
        return 401, allowed.reason.encode("ascii", "replace")[:_LONGEST_REASON]

    return answer
