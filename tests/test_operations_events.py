"""operations/events.py: what a session subscribes to, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from operations_helpers import GATE, YARD, Bench

from edged.errors import InvalidParams
from edged.library.event_kinds import topic_of
from edged.operations import events
from edged.operations.caller_sessions import Session
from edged.operations.events import TOPICS

INACTIVE = {topic for topic in TOPICS if topic not in events._ACTIVE}


def opened() -> tuple[Bench, Session]:
    bench = Bench(GATE, replace(YARD, stand_in="/dev/video7"))
    return bench, bench.session(bench.caller())


def filter_of(session: Session) -> str | None:
    return session.only_device


async def test_topics_are_added_and_each_reply_names_all_of_them() -> None:
    bench, session = opened()
    first = await bench.ask(session, "subscribe_events", topics=["recording.stop"])
    assert (first.subscribed, first.topics, first.inactive, first.filters.device) == (
        True,
        ["recording.stop"],
        [],
        None,
    )
    second = await bench.ask(session, "subscribe_events", topics=["camera.connected", "camera.connected"])
    assert second.topics == ["camera.connected", "recording.stop"]
    assert session.topics == {"camera.connected", "recording.stop"}


async def test_a_topic_that_is_not_published_is_taken_and_named_as_inactive() -> None:
    """Clients that ask for a fixed list go on, and can see what they will not hear."""
    bench, session = opened()
    reply = await bench.ask(session, "subscribe_events", topics=sorted(TOPICS))
    assert set(reply.inactive) == INACTIVE
    assert set(reply.topics) == TOPICS
    again = await bench.ask(session, "subscribe_events", topics=["camera.connected"])
    assert set(again.inactive) == INACTIVE


@pytest.mark.parametrize("topics", [[], ["nope"], ["camera.connected", "Camera.connected"], ["x" * 5000], [""]])
async def test_an_unknown_topic_changes_nothing_and_the_error_lists_the_known_ones(topics: list[str]) -> None:
    """What was sent is repeated in part only."""
    bench, session = opened()
    await bench.ask(session, "subscribe_events", topics=["camera.connected"], filters={"device": "camera1"})
    with pytest.raises(InvalidParams) as caught:
        await bench.ask(session, "subscribe_events", topics=topics, filters={"device": "camera0"})
    assert caught.value.fields["topics"] == sorted(TOPICS)
    assert "x" * 65 not in str(caught.value)
    assert (session.topics, session.only_device) == ({"camera.connected"}, "camera1")


@pytest.mark.parametrize(
    ("device", "kept"),
    [
        ("gate", "camera0"),
        ("camera0", "camera0"),
        ("/dev/video7", "camera1"),
        # A device file may be another camera's tomorrow, and its owner says so: it stays what was asked for.
        ("/dev/video0", "/dev/video0"),
        ("camera9", "camera9"),
    ],
)
async def test_a_filter_by_a_path_goes_on_for_the_camera_that_has_it_now(device: str, kept: str) -> None:
    bench, session = opened()
    reply = await bench.ask(session, "subscribe_events", topics=["camera.connected"], filters={"device": device})
    assert (reply.filters.device, session.only_device) == (kept, kept)


async def test_a_filter_stays_until_another_is_given_or_nothing_is_subscribed() -> None:
    bench, session = opened()
    await bench.ask(session, "subscribe_events", topics=["camera.connected"], filters={"device": "camera1"})
    await bench.ask(session, "subscribe_events", topics=["recording.stop"])
    assert session.only_device == "camera1"
    await bench.ask(session, "unsubscribe_events", topics=["recording.stop"])
    assert session.only_device == "camera1"
    await bench.ask(session, "unsubscribe_events")
    assert (session.topics, filter_of(session)) == (set(), None)
    await bench.ask(session, "subscribe_events", topics=["camera.connected"], filters={"device": "camera1"})
    await bench.ask(session, "subscribe_events", topics=["camera.connected"], filters={})
    assert filter_of(session) is None


async def test_the_end_of_subscriptions_names_those_that_ended() -> None:
    """An unknown one, and one that was never begun, is no error: it is not there afterwards."""
    bench, session = opened()
    await bench.ask(session, "subscribe_events", topics=["recording.stop", "camera.connected"])
    reply = await bench.ask(session, "unsubscribe_events", topics=["recording.stop", "snapshot.taken", "nope"])
    assert (reply.unsubscribed, reply.topics, session.topics) == (True, ["recording.stop"], {"camera.connected"})
    assert (await bench.ask(session, "unsubscribe_events", topics=[])).topics == []
    assert (await bench.ask(session, "unsubscribe_events")).topics == ["camera.connected"]
    assert (await bench.ask(session, "unsubscribe_events")).topics == []


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(sorted(TOPICS)), min_size=1)), max_size=6))
def test_a_session_has_what_it_began_and_did_not_end(steps: list[tuple[bool, list[str]]]) -> None:
    bench, session = opened()
    wanted: set[str] = set()
    for begins, topics in steps:
        if begins:
            call, given = bench.call(None, "subscribe_events"), events.SubscribeParams(topics)
            wanted |= set(topics)
            call.session = session
            assert events.subscribe_events(call, given).topics == sorted(wanted)
        else:
            call = bench.call(None, "unsubscribe_events")
            call.session = session
            ended = events.unsubscribe_events(call, events.UnsubscribeParams(topics)).topics
            assert ended == sorted(wanted & set(topics))
            wanted -= set(topics)
    assert session.topics == wanted


async def test_nobody_subscribes_who_may_see_no_camera() -> None:
    bench, _ = opened()
    for name in ("subscribe_events", "unsubscribe_events"):
        params: dict[str, Any] = {"topics": ["camera.connected"]}
        assert await bench.outcome(bench.caller("monitor"), name, **params) == "missing_scope"
        assert await bench.outcome(None, name, **params) == "missing"


def test_what_is_notified_can_be_subscribed_to() -> None:
    """Of events of the ring, and of those that come with the whole state."""
    kinds = ("snapshot.taken", "snapshot.error", "system.startup", "system.shutdown", "system.clock_jump", "motion")
    active = set(events._ACTIVE)
    assert {topic_of(kind) for kind in kinds} <= active
    assert {topic_of("recording.gap"), topic_of("recording.drift")} <= active
    assert not INACTIVE & active
