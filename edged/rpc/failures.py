"""Answers to calls that fail in a way of their own (contract 4b, 10.3)."""

from __future__ import annotations

from typing import Final

from edged.errors import EdgedError, RateLimited, without_paths
from edged.operations.not_built import unknown_method
from edged.rpc import dialects
from edged.rpc.credentials import presented
from edged.rpc.dialects import Dialect, Fault
from edged.wire import jsonrpc
from edged.wire.jsonrpc import Batch, Call, Invalid

_RETRY_AFTER_MS: Final = 100


def too_many_calls(message: Call | Batch, calls_in_flight: int, dialect: Dialect) -> bytes | None:
    """The answer to a message that came while so many calls were unanswered; None if nobody waits for one."""
    problem = RateLimited(f"{calls_in_flight} calls are in flight on this connection", retry_after_ms=_RETRY_AFTER_MS)
    fault = dialects.fault(problem)
    if isinstance(message, Call):
        return None if message.is_notification else fault.encode(message.id, dialect)
    replies = [
        fault.encode(member.id, dialect)
        for member in message.members
        if isinstance(member, Invalid) or not member.is_notification
    ]
    return jsonrpc.join(replies) if replies else None


def no_such_method(call: Call, dialect: Dialect) -> tuple[str, bytes | None]:
    """The slug of the error, and the answer; None for a notification."""
    problem = unknown_method(call.method)
    return problem.slug, None if call.is_notification else dialects.fault(problem).encode(call.id, dialect)


def failed_login(call: Call, fault: Fault, dialect: Dialect) -> bytes:
    """A failed authenticate for clients that read `result.authenticated` (contract C-2, C-3)."""
    if fault.row == "auth_required":
        told = dialects.failed_authentication("Authentication required")
        return fault.encode(call.id, dialect, result=told)
    return jsonrpc.reply(call.id, dialects.failed_authentication(dialects.authentication_text(presented(call))))


def hide_paths(problem: EdgedError) -> None:
    """Take the paths of this machine out of what a client elsewhere is told."""
    problem.sentence, problem.hint = without_paths(problem.sentence), without_paths(problem.hint)
    problem.fields = {
        name: without_paths(value) if isinstance(value, str) else value for name, value in problem.fields.items()
    }
