"""operations/caller_sessions.py: one connection, and all connections that notifications may go to."""

from __future__ import annotations

import re

import pytest
from web_helpers import LOCAL, REMOTE, UNIX

from edged.credentials.callers import Peer
from edged.operations.caller_sessions import Session, Sessions


def test_a_new_session_is_nobody_s_and_has_asked_for_nothing() -> None:
    session = Session(REMOTE, "ws")
    assert (session.caller, session.expired, session.admission) == (None, None, None)
    assert (session.topics, session.only_device, session.pushed, session.is_closed) == (set(), None, False, False)
    # A revocation may come before the endpoint has said how it closes the connection.
    session.end("revoked", "session_1")


def test_the_id_of_a_session_is_random_and_its_own() -> None:
    """Whoever knows one may end a session by it if they have the right: none is told by another."""
    ids = {Session(REMOTE, "ws").id for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"session_[0-9a-f]{16}", each) for each in ids)


def test_topics_of_one_session_are_not_another_s() -> None:
    first, second = Session(REMOTE, "ws"), Session(REMOTE, "ws")
    first.topics.add("camera.connected")
    assert second.topics == set()


@pytest.mark.parametrize(
    ("peer", "is_direct", "is_near"),
    [
        (UNIX, False, True),
        (UNIX, True, True),
        (LOCAL, True, True),
        # A loopback address alone says nothing: a relay or a proxy has one, too.
        (LOCAL, False, False),
        (REMOTE, False, False),
    ],
)
def test_near_is_the_unix_socket_or_a_program_that_asks_for_itself(peer: Peer, is_direct: bool, is_near: bool) -> None:
    assert Session(peer, "ws", is_direct=lambda: is_direct).is_near is is_near


def test_nobody_is_near_whose_headers_nobody_has_looked_at() -> None:
    assert not Session(LOCAL, "ws").is_near


def test_a_session_is_listed_from_its_adding_to_its_removal() -> None:
    sessions, one, other = Sessions(), Session(REMOTE, "ws"), Session(UNIX, "uds")
    sessions.add(one)
    sessions.add(other)
    sessions.add(one)
    assert list(sessions) == [one, other]
    sessions.remove(one)
    sessions.remove(one)
    assert list(sessions) == [other]
    assert len(sessions) == 1


def test_sessions_may_come_and_go_while_they_are_told_something() -> None:
    """Telling one may end it, and another opens meanwhile."""
    sessions = Sessions()
    for _ in range(3):
        sessions.add(Session(REMOTE, "ws"))
    told = 0
    for each in sessions:
        sessions.remove(each)
        for _ in range(2):
            sessions.add(Session(REMOTE, "ws"))
        told += 1
    assert (told, len(sessions)) == (3, 6)
