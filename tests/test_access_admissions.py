"""access/admissions.py: who is inside, and how they are ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import named

from edged.access.admissions import Admissions, Ended
from edged.credentials.callers import Caller, Transport


def someone(*identities: Any) -> Caller:
    return Caller("api_key", "s", frozenset(), frozenset(), identities=frozenset(identities))


class Endpoint:
    """Notes how and when someone was ended."""

    def __init__(self) -> None:
        self.out: list[tuple[str, str, float]] = []

    def __call__(self, cause: str, by: str) -> None:
        self.out.append((cause, by, trio.current_time()))


async def test_ending_ends_everyone_who_answers_to_a_name() -> None:
    """Each once, however many of the names are theirs; nobody else."""
    admissions = Admissions()
    both, one, other = Endpoint(), Endpoint(), Endpoint()
    admissions.add(someone(named("key:a"), named("secret:a")), "ws", both, seconds_left=None)
    first = admissions.add(someone(named("key:a")), "http", one, seconds_left=None)
    admissions.add(someone(named("key:b")), "ws", other, seconds_left=None)
    ended = admissions.end([named("key:a"), named("secret:a"), named("key:unknown")], "revoked", "session_1")
    assert {len(endpoint.out) for endpoint in (both, one)} == {1}
    assert both.out[0][:2] == ("revoked", "session_1")
    assert other.out == []
    assert first in ended
    assert len(ended) == 2
    assert len(admissions) == 1
    assert admissions.end([named("key:a")], "revoked") == []


async def test_whoever_left_is_not_ended() -> None:
    """Leaving twice is fine."""
    admissions, endpoint = Admissions(), Endpoint()
    admission = admissions.add(someone(named("key:a")), "rtsp", endpoint, session="s1", seconds_left=None)
    admissions.remove(admission)
    admissions.remove(admission)
    assert admissions.end([named("key:a")], "revoked") == []
    assert (endpoint.out, len(admissions), list(admissions)) == ([], 0, [])
    assert not admissions.has_session("rtsp", "s1")


async def test_who_moves_answers_to_the_new_names_only(autojump_clock: trio.testing.MockClock) -> None:
    """And is inside since then if they showed the newer credential themselves."""
    admissions, endpoint = Admissions(), Endpoint()
    admission = admissions.add(someone(named("key:a"), named("key:both")), "ws", endpoint, seconds_left=None)
    came = admission.since
    await trio.sleep(10)
    assert admissions.move(admission, someone(named("key:b"), named("key:both")), 5.0) is admission
    assert (admission.since, admission.deadline) == (came, trio.current_time() + 5)
    admissions.move(admission, someone(named("key:c"), named("key:both")), None, is_entry=True)
    assert (admission.since, admission.deadline) == (trio.current_time(), None)
    assert admissions.of(named("key:a")) == admissions.of(named("key:b")) == ()
    assert admissions.of(named("key:c")) == admissions.of(named("key:both")) == (admission,)
    assert admissions.end([named("key:a"), named("key:b")], "revoked") == []
    assert admissions.end([named("key:both")], "revoked") == [admission]
    assert admissions.of(named("key:c")) == ()


async def test_an_on_terminate_may_remove_its_own_admission() -> None:
    """An endpoint that removes its admission, and its neighbour's, while everyone is being ended."""
    admissions = Admissions()
    inside: list[Any] = []

    def leave(_cause: str, _by: str) -> None:
        for admission in inside:
            admissions.remove(admission)

    inside += [admissions.add(someone(named("key:a")), "ws", leave, seconds_left=None) for _ in range(3)]
    assert len(admissions.end([named("key:a")], "revoked")) == 3
    assert len(admissions) == 0


async def test_a_deadline_ends_in_time(mock_clock: trio.testing.MockClock) -> None:
    """The earliest first, also one that was added while waiting for a later one, or that had passed."""
    mock_clock.autojump_threshold = 0
    admissions = Admissions()
    endpoints = {seconds: Endpoint() for seconds in (50.0, 10.0, 0.0)}
    forever = Endpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admissions.run)
        admissions.add(someone("f"), "ws", forever, seconds_left=None)
        for seconds, endpoint in endpoints.items():
            await trio.sleep(1)
            admissions.add(someone("a"), "ws", endpoint, seconds_left=seconds)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert {seconds: endpoint.out for seconds, endpoint in endpoints.items()} == {
        50.0: [("expired", "", 51.0)],
        10.0: [("expired", "", 12.0)],
        0.0: [("expired", "", 3.0)],
    }
    assert forever.out == []
    assert len(admissions) == 1


async def test_a_deadline_that_passes_is_told_as_a_revocation_is(mock_clock: trio.testing.MockClock) -> None:
    """Whoever sweeps looks soon whether all are gone; where nobody leaves nothing is told."""
    mock_clock.autojump_threshold = 0
    admissions = Admissions()
    with admissions.endings.subscribe() as endings:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(admissions.run)
            admissions.remove(admissions.add(someone("gone"), "rtsp", Endpoint(), seconds_left=2))
            admissions.add(someone("late"), "rtsp", Endpoint(), seconds_left=5)
            told = await endings.receive()
            assert told == Ended(frozenset(), 5.0)
            nursery.cancel_scope.cancel()


async def test_shortening_moves_deadlines_forward_only(mock_clock: trio.testing.MockClock) -> None:
    """No end gets one, a later one moves, an earlier one stays, one of this very moment too."""
    mock_clock.autojump_threshold = 0
    admissions = Admissions()
    endpoints = [Endpoint() for _ in range(4)]
    at_once, early, late, never = endpoints
    for endpoint, seconds in ((at_once, 0.0), (early, 5.0), (late, 500.0), (never, None)):
        admissions.add(someone(named("secret:a")), "ws", endpoint, seconds_left=seconds)
    admissions.shorten([named("secret:a"), named("key:unknown")], 100.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admissions.run)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert [endpoint.out[0][2] for endpoint in endpoints] == [0.0, 5.0, 100.0, 100.0]


async def test_shortening_wakes_whoever_waits_for_a_later_deadline(mock_clock: trio.testing.MockClock) -> None:
    """A rotation reaches sessions while the task sleeps."""
    mock_clock.autojump_threshold = 0
    admissions, endpoint = Admissions(), Endpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admissions.run)
        admissions.add(someone(named("secret:a")), "ws", endpoint, seconds_left=900.0)
        await trio.sleep(1)
        admissions.shorten([named("secret:a")], 10.0)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert endpoint.out == [("expired", "", 11.0)]


async def test_a_media_session_that_asks_again_moves_to_the_newer_credential() -> None:
    """An RTSP client asks twice: revoking the first credential does not end what the second opened."""
    admissions, first, second = Admissions(), Endpoint(), Endpoint()
    admissions.add(someone(named("key:a")), "rtsp", first, session="s1", path="camera0", seconds_left=None)
    admissions.add(someone(named("key:b")), "rtsp", second, session="s1", path="camera0", seconds_left=None)
    admissions.add(someone(named("key:a")), "webrtc", first, session="s1", seconds_left=None)
    assert len(admissions) == 2
    assert [a.transport for a in admissions.end([named("key:a")], "revoked")] == ["webrtc"]
    assert admissions.has_session("rtsp", "s1")
    assert not admissions.has_session("webrtc", "s1")
    admissions.end([named("key:b")], "revoked")
    assert [len(first.out), len(second.out)] == [1, 1]


@dataclass(frozen=True)
class Shown:
    """A session as MediaMTX lists it."""

    protocol: str
    id: str
    connections: tuple[str, ...] = ()
    bytes_moved: int = 0


PROTOCOLS = ("rtsp", "hls", "webrtc", "rtmp", "srt")


async def test_a_media_session_that_no_list_ever_showed_is_dropped(mock_clock: trio.testing.MockClock) -> None:
    """Twice unseen and older than 15 s; lists of other protocols tell nothing; nobody is ended by it."""
    admissions, endpoint = Admissions(), Endpoint()
    admissions.add(someone(named("key:a")), "hls", endpoint, session="held", seconds_left=None)
    admissions.add(someone(named("key:a")), "ws", endpoint, seconds_left=None)
    for _ in range(3):
        admissions.compare([], PROTOCOLS, trio.current_time())
    assert admissions.has_session("hls", "held")
    mock_clock.jump(15.1)
    admissions.compare([], ["rtsp"], trio.current_time())
    assert admissions.has_session("hls", "held")
    admissions.compare([], PROTOCOLS, trio.current_time())
    assert not admissions.has_session("hls", "held")
    assert (len(admissions), endpoint.out) == (1, [])


async def test_who_was_listed_and_is_not_any_more_has_left(mock_clock: trio.testing.MockClock) -> None:
    """At once; but an older list that comes in after a newer one tells nothing."""
    admissions, endpoint = Admissions(), Endpoint()
    viewer = admissions.add(
        someone(named("key:a")), "webrtc", endpoint, session="s1", path="camera0", seconds_left=None
    )
    asked_before = trio.current_time()
    mock_clock.jump(1)
    admissions.compare([Shown("webrtc", "s1", bytes_moved=70)], PROTOCOLS, trio.current_time())
    assert viewer.bytes_moved == 70
    admissions.compare([], PROTOCOLS, asked_before)
    assert admissions.has_session("webrtc", "s1")
    mock_clock.jump(1)
    admissions.compare([], PROTOCOLS, trio.current_time())
    assert (len(admissions), endpoint.out) == (0, [])


@pytest.mark.parametrize("order", ["aabb", "abab", "abba"])
async def test_an_rtsp_client_that_asks_twice_is_one_viewer(order: str, mock_clock: trio.testing.MockClock) -> None:
    """Two clients with one credential at one path ask under four ids in any order: two are here, and two are ended."""
    admissions, endpoint = Admissions(), Endpoint()
    asked = {"a": 0, "b": 0}
    for client in order:
        asked[client] += 1
        name = f"{client}-connection" if asked[client] == 1 else f"{client}-session"
        admissions.add(someone(named("key:a")), "rtsp", endpoint, session=name, path="camera0", seconds_left=None)
    assert sum(map(admissions.is_present, admissions)) == 2
    mock_clock.jump(0.3)
    shown = [Shown("rtsp", f"{client}-session", (f"{client}-connection",)) for client in "ab"]
    admissions.compare(shown, PROTOCOLS, trio.current_time())
    assert len(admissions) == 2
    assert all(map(admissions.is_present, admissions))
    mock_clock.jump(60)
    assert len(admissions.end([named("key:a")], "revoked")) == 2
    assert len(endpoint.out) == 2


async def test_a_client_that_only_asked_is_no_viewer_for_long(mock_clock: trio.testing.MockClock) -> None:
    """It is counted until the lists would show it; and it is ended like everybody else, without being counted."""
    admissions, endpoint = Admissions(), Endpoint()
    asked = admissions.add(someone(named("key:a")), "rtsp", endpoint, session="c1", path="camera0", seconds_left=None)
    assert admissions.is_present(asked)
    mock_clock.jump(3.1)
    assert not admissions.is_present(asked)
    assert admissions.end([named("key:a")], "revoked") == []
    assert len(endpoint.out) == 1


async def test_an_older_mediamtx_names_connections_only() -> None:
    """Before 1.19.3 the hook is told the connection's id for both questions: it is the viewer of that session."""
    admissions, endpoint = Admissions(), Endpoint()
    for _ in range(2):
        viewer = admissions.add(
            someone(named("key:a")), "rtsp", endpoint, session="c1", path="camera0", seconds_left=None
        )
    admissions.compare([Shown("rtsp", "s1", ("c1",), 5)], PROTOCOLS, trio.current_time())
    assert list(admissions) == [viewer]
    assert (admissions.is_present(viewer), viewer.bytes_moved) == (True, 5)


async def test_an_hls_viewer_whose_bytes_stand_still_has_left(mock_clock: trio.testing.MockClock) -> None:
    """MediaMTX lists it for 30 s more, and its session may go on: it is inside by right, and not counted."""
    admissions, endpoint = Admissions(), Endpoint()
    viewer = admissions.add(someone(named("key:a")), "hls", endpoint, session="h1", seconds_left=None)
    for sent in (100, 200, 200, 200):
        mock_clock.jump(1.5)
        admissions.compare([Shown("hls", "h1", bytes_moved=sent)], PROTOCOLS, trio.current_time())
    assert not admissions.is_present(viewer)
    assert admissions.has_session("hls", "h1")
    admissions.compare([Shown("hls", "h1", bytes_moved=300)], PROTOCOLS, trio.current_time())
    assert admissions.is_present(viewer)


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "list", "wait"]), st.integers(0, 3), st.sampled_from(["rtsp", "hls"])),
        max_size=30,
    )
)
def test_what_is_listed_is_counted_and_nothing_else_for_long(history: list[tuple[str, int, str]]) -> None:
    """Whatever happens before: after a list everybody on it who was let in is here, and only they and the newest."""
    now = 0.0
    admissions = Admissions(lambda: now)
    for what, number, protocol in history:
        if what == "ask":
            transport: Transport = "rtsp" if protocol == "rtsp" else "hls"
            admissions.add(
                someone(named("key:a")), transport, Endpoint(), session=f"s{number}", path="camera0", seconds_left=None
            )
        elif what == "wait":
            now += 4.0 * number
        else:
            now += 0.1
            shown = [Shown(protocol, f"s{each}", bytes_moved=int(now * 1000)) for each in range(number)]
            admissions.compare(shown, [protocol], now)
            names = {each.id for each in shown}
            for each in admissions:
                if each.transport == protocol and (each.session in names or now - each.since > 3.0):
                    assert admissions.is_present(each) is (each.session in names)


@pytest.mark.parametrize("way", ["end", "deadline"])
async def test_an_on_terminate_that_raises_stops_no_other(way: str, mock_clock: trio.testing.MockClock) -> None:
    """The others are ended, and the task lives."""
    mock_clock.autojump_threshold = 0
    admissions, endpoints = Admissions(), [Endpoint() for _ in range(6)]

    def jam(_cause: str, _by: str) -> None:
        raise ZeroDivisionError

    for endpoint in endpoints:
        admissions.add(someone(named("key:a")), "ws", jam, seconds_left=1.0)
        admissions.add(someone(named("key:a")), "ws", endpoint, seconds_left=1.0)
    if way == "end":
        admissions.end([named("key:a")], "revoked")
    else:
        with trio.move_on_after(5):
            await admissions.run()
    assert [len(endpoint.out) for endpoint in endpoints] == [1] * 6
    assert len(admissions) == 0
