"""Tickets through the real gate: how long, how often, how many, and what ends them. Time is the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from gate_helpers import LOCAL, make_gate
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import named
from msgspec.structs import replace
from patience import fail_after
from trust_helpers import SECRET, Counted, running_trust

from edged.access import tickets as module
from edged.access.admissions import Admissions
from edged.access.authority import EDGED
from edged.access.ledger import Ledger
from edged.access.tickets import Tickets
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import ApiKey, Caller, Resource, Ticket, Token
from edged.credentials.claims import read_caller
from edged.credentials.identities import Identity
from edged.credentials.tokens import issue_claims, sign
from edged.errors import Overloaded, RateLimited, Refused

ENDPOINT = Resource.of_camera("camera0")
YARD = Resource.of_camera("camera1")


@dataclass
class Box:
    """A gate whose wall clock and monotonic clock are turned by hand."""

    system: float = 1.8e9
    passed: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    counted: Counted = field(default_factory=Counted)
    out: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admissions = Admissions(lambda: self.passed)
        self.clock = Clock(system=lambda: self.system + self.passed, monotonic=lambda: self.passed)
        self.gate = make_gate(self.ledger, self.admissions, self.clock, self.counted, shared_secrets=[SECRET])

    def key(self, **values: object) -> tuple[KeyRecord, Caller]:
        key_id, secret, digest = mint()
        record = KeyRecord(key_id=key_id, name="wall", role="viewer", digest=digest, created_at=0.0)
        record = replace(record, **values)
        self.ledger.put_key(record)
        return record, self.gate.authenticate(ApiKey(secret), LOCAL, "ws")

    def token(self, seconds: int, subject: str = "ada") -> Caller:
        claims = issue_claims(subject, role="viewer", now=self.clock.now(), expires_in=seconds)
        return self.gate.authenticate(Token(sign(claims, SECRET)), LOCAL, "ws")

    def ticket(self, caller: Caller, seconds: float = 60.0, session: str = "session_1") -> Ticket:
        return Ticket(self.gate.tickets.make(caller, "read", "camera0", seconds, session))

    def ask(self, ticket: Ticket, resource: Resource = ENDPOINT, capability: str = "stream:read") -> str:
        """What MediaMTX's question comes to: yes, or the reason why not."""
        try:
            caller = self.gate.authenticate(ticket, LOCAL, "rtsp")
            self.gate.authorize(caller, capability, "rtsp", resource)
        except Refused as problem:
            return problem.reason
        return "yes"

    def enter(self, ticket: Ticket) -> None:
        caller = self.gate.authenticate(ticket, LOCAL, "rtsp")
        self.gate.admit(caller, "rtsp", lambda cause, by: self.out.append((cause, by)), path="camera0", session="x")

    async def pass_time(self, seconds: float) -> None:
        """Let it pass, and whoever's time is over be ended."""
        self.passed += seconds
        for admission in self.admissions:
            if admission.deadline is not None and admission.deadline <= self.passed:
                self.admissions.end(admission.caller.identities, "expired")


@pytest.fixture
async def box() -> Box:
    return Box()


async def test_a_ticket_works_any_number_of_times_for_a_minute(box: Box) -> None:
    """DESCRIBE and SETUP both ask, and a player that comes back asks again; then it is over."""
    ticket = box.ticket(box.key()[1])
    for _ in range(6):
        assert box.ask(ticket) == box.ask(ticket) == "yes"
        box.passed += 9.9
    box.passed += 0.7
    assert box.ask(ticket) == "expired"
    assert box.counted.failed[-1] == ("expired", "ticket", "rtsp")
    assert ("ticket", "rtsp", "none") in box.counted.used


async def test_a_ticket_is_for_one_camera_and_one_action(box: Box) -> None:
    """Neither another path, nor publishing, nor anything else that its parent may do."""
    ticket = box.ticket(box.key(role="admin")[1])
    assert box.ask(ticket, YARD) == "camera_denied"
    assert box.ask(ticket, ENDPOINT, "stream:publish") == "camera_denied"
    assert box.ask(ticket, ENDPOINT, "camera:read") == "missing_scope"
    assert box.ask(ticket, ENDPOINT, "keys:admin") == "missing_scope"
    assert box.ask(Ticket("edged_ticket_" + "A" * 43)) == "unknown_key"


async def test_jumps_of_the_clock_move_no_ticket(box: Box) -> None:
    """Its minute is sixty seconds of monotonic time, wherever the wall clock goes."""
    ticket = box.ticket(box.key()[1])
    for system in (4.07e9, 0.0):
        box.system = system
        assert box.ask(ticket) == "yes"
    box.passed = 61.0
    assert box.ask(ticket) == "expired"


async def test_revoking_the_key_ends_the_ticket_and_what_it_opened(box: Box) -> None:
    """By the key's one name."""
    record, caller = box.key()
    ticket = box.ticket(caller)
    box.enter(ticket)
    name = Identity.of_key(record.key_id)
    box.ledger.deny({name})
    box.admissions.end({name}, "revoked")
    assert box.out == [("revoked", "")]
    assert box.ask(ticket) == "revoked"


async def test_what_a_ticket_opened_stays_open_as_long_as_the_credential_that_asked(box: Box) -> None:
    """Not the ticket's minute ends the picture, but the token's hour; a new ticket is worth no more."""
    token = box.token(3600)
    box.enter(box.ticket(token))
    await box.pass_time(3000)
    assert box.out == []
    late = box.ticket(token, 3600)
    await box.pass_time(601)
    assert box.out == [("expired", "")]
    assert box.ask(late) == "expired"


async def test_a_key_that_is_narrowed_narrows_the_tickets_that_are_out(box: Box) -> None:
    """Neither may do more than the other, and the key counts as it is now; a key that lives longer, too."""
    record, caller = box.key(expires_at=box.clock.now() + 100)
    ticket = box.ticket(caller, 600)
    box.ledger.put_key(replace(record, camera_access=("camera1",)))
    assert box.ask(ticket) == "camera_denied"
    box.ledger.put_key(replace(record, camera_access=("/dev/video0",)))
    assert box.ask(ticket, Resource.of_camera("camera0", "/dev/video0")) == "yes"
    box.ledger.put_key(replace(record, role="monitor"))
    assert box.ask(ticket) == "missing_scope"
    box.ledger.put_key(replace(record, expires_at=None))
    box.passed = 101.0
    assert box.ask(ticket) == "yes"


async def test_a_key_that_is_suspended_suspends_its_tickets(box: Box) -> None:
    """Until it is resumed."""
    record, caller = box.key()
    ticket = box.ticket(caller)
    box.ledger.put_key(replace(record, suspended_at=1.0))
    assert box.ask(ticket) == "suspended"
    box.ledger.put_key(record)
    assert box.ask(ticket) == "yes"


async def test_a_cut_off_reaches_the_tickets_of_older_tokens(box: Box) -> None:
    """They carry when their parent was issued."""
    ticket = box.ticket(box.token(900))
    box.ledger.cut_offs.draw(named("user:eve"), box.clock.now())
    assert box.ask(ticket) == "yes"
    box.ledger.cut_offs.draw(named("user:ada"), box.clock.now())
    assert box.ask(ticket) == "revoked"


async def test_re_authentication_moves_the_end_of_the_session_s_tickets(box: Box) -> None:
    """24 hours of 15-minute tokens are one picture without a break; of this session's tickets only."""
    first = box.token(900)
    mine, foreign = box.ticket(first, 3600, "session_1"), box.ticket(first, 3600, "session_2")
    box.enter(mine)
    for _ in range(96):
        await box.pass_time(890)
        fresh = box.token(900)
        box.gate.renew_tickets(fresh, "session_1")
        if box.passed < 3600:
            assert box.ask(mine) == "yes"
        assert box.ask(foreign) == ("yes" if box.passed < 900 else "expired")
    assert box.out == []
    await box.pass_time(901)
    assert box.out == [("expired", "")]


@pytest.mark.parametrize("which", [0, 1])
async def test_after_re_authentication_either_token_s_revocation_ends_the_picture(box: Box, which: int) -> None:
    """The one that asked for the ticket, and the one that it lives by now."""
    first, second = box.token(900), box.token(900)
    box.enter(box.ticket(first))
    box.gate.renew_tickets(second, "session_1")
    box.admissions.end((first, second)[which].identities, "revoked")
    assert box.out == [("revoked", "")]
    assert len(box.admissions) == 0


async def test_another_user_in_the_session_moves_nothing(box: Box) -> None:
    """The picture stays with whom it was opened by, and ends with that token."""
    box.enter(box.ticket(box.token(900)))
    box.gate.renew_tickets(box.token(9000, "eve"), "session_1")
    await box.pass_time(901)
    assert box.out == [("expired", "")]


async def test_a_rotated_secret_is_let_go_of(box: Box) -> None:
    """Whoever shows the new secret keeps the picture when the old one's grace ends."""
    record, old = box.key()
    box.enter(box.ticket(old))
    _, secret, digest = mint()
    box.ledger.put_key(
        replace(record, digest=digest, previous_digest=record.digest, previous_valid_until=box.clock.now() + 60)
    )
    box.admissions.shorten(old.identities - {Identity.of_key(record.key_id)}, 60)
    box.gate.renew_tickets(box.gate.authenticate(ApiKey(secret), LOCAL, "ws"), "session_1")
    await box.pass_time(100)
    assert box.out == []


async def test_too_many_tickets_of_one_are_refused_and_nobody_else_notices(box: Box) -> None:
    """64 at once; when the first ends one more fits, and the answer says when."""
    eager, calm = box.key()[1], box.key()[1]
    for number in range(module.MOST_OF_ONE):
        box.ticket(eager, 60.0 + number)
    with pytest.raises(RateLimited) as refused:
        box.ticket(eager)
    assert refused.value.retry_after_ms == 60_000
    assert box.ask(box.ticket(calm)) == "yes"
    box.passed = 60.0
    box.ticket(eager)


async def test_the_subject_of_another_issuer_is_another_one(box: Box) -> None:
    """A partner's ann has as many tickets as one may have: edged's own ann, and another partner's, have theirs."""
    now, tickets = box.clock.now(), box.gate.tickets
    claims = {"sub": "ann", "role": "viewer", "exp": now + 600}
    ours, one, other = (
        read_caller({**claims, "iss": issuer or "edged"}, issuer, now=now, issuer=issuer)
        for issuer in ("", "https://a.example", "https://b.example")
    )
    for _ in range(module.MOST_OF_ONE):
        tickets.make(one, "read", "camera0", 60.0, "session_1")
    with pytest.raises(RateLimited):
        tickets.make(one, "read", "camera0", 60.0, "session_1")
    for caller in (ours, other):
        assert tickets.make(caller, "read", "camera0", 60.0, "session_2")


async def test_there_is_an_end_to_all_tickets_together(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded whoever asks; ended ones make module."""
    monkeypatch.setattr(module, "MOST", 10)
    callers = [box.key()[1] for _ in range(11)]
    for caller in callers[:10]:
        box.ticket(caller)
    with pytest.raises(Overloaded):
        box.ticket(callers[10])
    box.passed = 60.0
    box.ticket(callers[10])
    assert len(box.gate.tickets) == 1


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(5, 200), st.sampled_from("abc")), max_size=40))
def test_ended_tickets_are_forgotten(turns: list[tuple[float, int, str]]) -> None:
    """However they come and go, only those that live are kept, and each lives exactly as long as it was made for."""
    passed = 0.0
    tickets, ends = Tickets(lambda: passed), {}
    for pause, seconds, subject in turns:
        passed += pause
        parent = Caller("api_key", subject, frozenset(), frozenset())
        ends[tickets.make(parent, "read", "camera0", seconds, "s")] = passed + seconds
        assert len(tickets) == sum(end > passed for end in ends.values())
        for text, end in ends.items():
            found = tickets.find(text)
            assert (found is not None and not tickets.has_ended(found)) == (end > passed)


async def test_no_ticket_is_anywhere_in_memory_but_in_the_reply(box: Box) -> None:
    """Only its digest is kept."""
    ticket = box.ticket(box.key()[1])
    assert ticket.text not in repr(vars(box.gate.tickets))
    assert ticket.text not in repr(ticket)
    await trio.lowlevel.checkpoint()


async def test_what_a_ticket_opened_leaves_when_its_key_is_narrowed(tmp_path: Path) -> None:
    """By the real registrar: in force and ended when the change is answered."""
    out: list[str] = []
    with fail_after(30):
        async with running_trust(tmp_path / "trust.db") as trust:
            record, secret = await trust.api_keys.create(EDGED, name="wall", role="viewer")
            parent = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
            for camera in ("camera0", "camera1"):
                ticket = Ticket(trust.gate.tickets.make(parent, "read", camera, 60, "session_1"))
                caller = trust.gate.authenticate(ticket, LOCAL, "rtsp")
                leave = lambda _cause, _by, camera=camera: out.append(camera)  # noqa: E731
                trust.gate.admit(
                    caller, "rtsp", leave, path=camera, session=camera, capability="stream:read",
                    resource=Resource.of_camera(camera),
                )  # fmt: skip
            await trust.api_keys.update(
                EDGED, record.key_id, {"camera_access": ("camera1",)}, lambda _before, _after: None
            )
            assert out == ["camera0"]
            await trust.api_keys.revoke(record.key_id)
            assert out == ["camera0", "camera1"]
            assert len(trust.admissions) == 0
