"""Which sessions are notified of an event, and under which name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from edged.access.gate import Gate
from edged.credentials.callers import Resource
from edged.operations.caller_sessions import Session
from edged.rpc.session import RpcSession

#: The name under which a session is notified; None if it is not. The session has a caller.
TopicOf: TypeAlias = Callable[[Session], str | None]


def find_recipients(
    sessions: Iterable[Session],
    conversations: Mapping[str, RpcSession],
    gate: Gate,
    capability: str,
    resource: Resource,
    names: Collection[str],
    topic_of: TopicOf,
) -> Iterator[tuple[Session, RpcSession, str]]:
    """The sessions that asked for the event and have the capability on `resource`: a camera, whose names are `names`,
    or nothing; of an event of the box those hear that did not choose one camera."""
    for session in sessions:
        topic = topic_of(session) if session.caller is not None else None
        conversation = conversations.get(session.id)
        if topic is None or conversation is None or session.only_device not in (None, *names):
            continue
        if gate.judge(session.caller, capability, resource).allowed:
            yield session, conversation, topic


def choose_topic(session: Session, update: str, *events: str) -> str | None:
    """`update` for a session that is notified unasked or has subscribed to it, else the first of `events` that it has
    subscribed to (contract C-22)."""
    if session.pushed or update in session.topics:
        return update
    return next((event for event in events if event in session.topics), None)
