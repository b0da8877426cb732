"""Lines "up to now" that are drawn while nobody has confirmed the clock (contract 10.8, 10.9): what they end is ended,
and nothing else once somebody does."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from gate_helpers import LOCAL, make_gate
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_helpers import lines_of
from patience import times
from trust_helpers import SECRET, BrokenCommits, Counted, rows

from edged.access.admissions import Admissions
from edged.access.ledger import Ledger
from edged.accounts.registrar import Registrar
from edged.accounts.revocations import Revocations
from edged.clock import Boot, Clock
from edged.credentials.callers import Token
from edged.credentials.identities import ALL, Identity
from edged.credentials.tokens import sign
from edged.errors import Refused, StoreFailed
from edged.reactions import clock_upkeep
from edged.store import meta
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.revocations import CutOff

NOW = 1_800_000_000.0
DAY = 86400.0
WEEK = 7 * DAY
YEAR_2099 = 4_070_908_800.0
#: A clock that runs on its own may be wrong by so much, as a share of the time that passes.
DRIFT = 4e-4
ANN, BOB = Identity.of_user("ann"), Identity.of_user("bob")


@dataclass
class Box:
    """A machine whose clock tells `system` while it is `true`; what it knows is in the database at `path`."""

    path: Path
    true: float = NOW
    system: float = NOW
    synchronized: bool = False
    boot: int = 1
    up: float = 50.0
    number: int = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Box]:
        """The daemon, from its start to its end."""
        async with Database.open(self.path, TRUST, name="trust") as db, trio.open_nursery() as nursery:
            started = self.true
            counts: Any = Counted()
            self.db, self.ledger = db, Ledger()
            self.clock = Clock(
                lambda: db.read_now(meta.load_high_water), system=lambda: self.system,
                monotonic=lambda: self.true - started, synchronized=lambda: self.synchronized,
            )  # fmt: skip
            self.admissions = Admissions(lambda: self.true)
            boot = Boot(str(self.boot), lambda: self.up)
            self.registrar = Registrar(self.ledger, self.admissions, db, self.clock, counts)
            self.revocations = Revocations(self.registrar, self.ledger, db, self.clock, counts, boot=boot)
            self.registrar.load()
            self.revocations.load()
            self.gate = make_gate(self.ledger, self.admissions, self.clock, counts, shared_secrets=[SECRET])
            self.mark = clock_upkeep.Mark(self.clock, self._save, self._replace, self.revocations.follow_reset)
            await nursery.start(self.registrar.run)
            yield self
            nursery.cancel_scope.cancel()

    async def _save(self, mark: float) -> None:
        await self.db.write(lambda connection: meta.save_high_water(connection, mark))

    async def _replace(self, mark: float) -> None:
        await self.db.write(lambda connection: meta.replace_high_water(connection, mark))

    def pass_(self, seconds: float, drift: float = 0.0) -> None:
        self.true, self.system, self.up = self.true + seconds, self.system + seconds, self.up + seconds * (1 + drift)

    def look(self) -> None:
        """What clock_upkeep.watch_clock does each second."""
        self.clock.look()
        self.revocations.mind_clock()

    def set(self, system: float, *, synchronized: bool) -> None:
        """A time server is heard, or somebody set the clock."""
        self.system, self.synchronized = system, synchronized
        self.look()

    def token(self, subject: str = "ann", issued: float | None = None, **claims: Any) -> str:
        """What somebody signs elsewhere, who knows the time, by the shared secret."""
        self.number += 1
        at = int(self.true if issued is None else issued)
        return sign(
            {"sub": subject, "role": "viewer", "iat": at, "exp": 2**40, "jti": str(self.number), **claims}, SECRET
        )

    def reason(self, text: str) -> str:
        """Why the gate refuses a token; "" if it takes it."""
        try:
            self.gate.authenticate(Token(text), LOCAL, "ws")
        except Refused as refusal:
            return str(refusal.reason)
        return ""

    async def lines(self) -> list[tuple[Identity, float, bool]]:
        """What the list says: scope, before, provisional."""
        found, _ = await self.revocations.load_pending_and_lines()
        return sorted((line.scope, line.before, line.drawn is not None) for line in found if isinstance(line, CutOff))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "trust.db")


@pytest.mark.parametrize("scope", [ALL, ANN, Identity.of_issuer("camera-service")], ids=str)
@pytest.mark.parametrize("restart", ["none", "same boot", "other boot"])
async def test_a_clock_that_is_behind_lets_nothing_in_that_was_revoked_by_it(
    box: Box, scope: Identity, restart: str
) -> None:
    """Thirty days behind, `before: now`, then the time server is heard: a token of a week before the line is refused,
    also when edged or the machine was started again in between; one of after the start is good."""
    text = box.token(iss="camera-service", issued=NOW - WEEK)
    box.system = NOW - 30 * DAY
    async with box.run():
        await box.revocations.cut_off(scope, None)
        assert await box.lines() == [(scope, box.system, True)]
        box.pass_(3600)
        if restart == "none":
            box.set(box.true, synchronized=True)
            assert box.reason(text) == "revoked"
    if restart == "other boot":
        box.boot, box.up = 2, 5.0
    for _ in range(2):
        async with box.run():
            if restart == "other boot" and not box.synchronized:
                box.pass_(600)
            box.set(box.true, synchronized=True)
            assert box.reason(text) == "revoked"
            ((_, before, provisional),) = await box.lines()
            assert not provisional
            # Of another boot it is only known that it was over when this one began.
            drawn = box.true - box.up if restart == "other boot" else NOW
            assert drawn <= before < drawn + 3
            box.pass_(3600)
            assert box.reason(box.token(iss="camera-service")) == ""
    assert rows(box.path, "SELECT 1 FROM provisional_cut_offs") == []


async def test_one_visit_to_2099_refuses_no_token_afterwards(box: Box) -> None:
    """Nobody has confirmed 2099, where ann is revoked up to now; the clock comes back, a time server is heard: what is
    signed for her from then on is good, and what was revoked is not; in each of two more starts, too."""
    text = box.token(issued=NOW - WEEK)
    box.system = YEAR_2099
    async with box.run():
        await box.revocations.cut_off(ANN, None, reason="left")
        box.pass_(60)
        assert (box.reason(text), box.reason(box.token())) == ("revoked", "revoked")
        box.set(box.true, synchronized=False)
        assert box.reason(text) == "revoked"
        assert box.reason(box.token()) == ""
        box.set(box.true, synchronized=True)
    for _ in range(3):
        async with box.run():
            box.pass_(60)
            assert (box.reason(text), box.reason(box.token()), box.reason(box.token("bob"))) == ("revoked", "", "")
            assert [(scope, provisional) for scope, _, provisional in await box.lines()] == [(ANN, False)]
    before: Any
    ((before, reason, at),) = rows(box.path, "SELECT before, reason, at FROM cut_offs")
    assert (NOW <= before < NOW + 1, reason, at) == (True, "left", before)


async def test_a_session_by_what_was_revoked_is_terminated_when_the_line_moves_up(box: Box) -> None:
    """By a clock that is behind they came after the line; the time server shows that they were signed before it."""
    text, other = box.token(issued=NOW - 10 * DAY), box.token("bob", issued=NOW - 10 * DAY)
    box.system = NOW - 30 * DAY
    out: list[str] = []
    async with box.run():
        await box.revocations.cut_off(ANN, None)
        box.pass_(25 * DAY)
        for each in (text, other):
            caller = box.gate.authenticate(Token(each), LOCAL, "ws")
            box.gate.admit(caller, "ws", lambda cause, _by, name=caller.subject: out.append(f"{name} {cause}"))  # type: ignore[misc]
        broken = await BrokenCommits(box.db).begin()
        box.set(box.true, synchronized=True)
        # In force before it is on the disk.
        assert out == ["ann revoked"]
        assert (box.reason(text), box.reason(other)) == ("revoked", "")
        assert rows(box.path, "SELECT scope FROM provisional_cut_offs") == [(str(ANN),)]
        assert [provisional for *_, provisional in await box.lines()] == [False]
        await broken.mend()
        await box.registrar.settle(box.registrar.add_pending([]))
    assert rows(box.path, "SELECT scope FROM provisional_cut_offs") == []
    assert rows(box.path, "SELECT scope FROM cut_offs") == [(str(ANN),)]


async def test_a_provisional_line_that_falls_takes_no_firm_one_with_it(box: Box) -> None:
    """A line of yesterday by a good clock, one of an earlier boot, and a named one: each says what it says."""
    box.synchronized = True
    async with box.run():
        await box.revocations.cut_off(ANN, None)
        await box.mark.save()
    box.pass_(DAY)
    box.system, box.synchronized = 0.0, False
    async with box.run():
        await box.revocations.cut_off(ANN, NOW - WEEK)
        await box.revocations.cut_off(ANN, None)
        assert [provisional for *_, provisional in await box.lines()] == [False, True]
        assert lines_of(box.ledger) == {ANN: NOW}
        box.set(box.true, synchronized=True)
        assert NOW + DAY <= lines_of(box.ledger)[ANN] < NOW + DAY + 1
        assert lines_of(box.ledger, "second") == {}


@pytest.mark.parametrize("how", ["a time server", "a named time"])
async def test_root_s_word_lowers_lines_that_are_yet_to_come(box: Box, how: str) -> None:
    """A time server told 2099, or somebody named a day that only a wrong clock had behind it: after the reset all of
    before is revoked as it was, and what is signed later is good; after a restart, too."""
    text = box.token()
    own: dict[str, Any] = {"iss": "edged", "epoch": 0}
    mine, ahead = box.token(**own), box.token(**own, issued=YEAR_2099 - WEEK)
    box.system, box.synchronized = YEAR_2099, how == "a time server"
    async with box.run():
        await box.revocations.cut_off(ANN, None if how == "a time server" else YEAR_2099 - DAY)
        box.pass_(60)
        box.set(box.true, synchronized=False)
        assert box.reason(box.token()) == "revoked"
        await box.mark.reset()
        assert lines_of(box.ledger) == {ANN: box.true}
        box.pass_(60)
        epoch = await box.registrar.epoch()
    for _ in range(2):
        async with box.run():
            assert [box.reason(each) for each in (text, mine)] == ["revoked", "revoked"]
            assert [box.reason(each) for each in (box.token(), box.token(iss="edged", epoch=epoch))] == ["", ""]
            assert lines_of(box.ledger) == {ANN: NOW + 60}
            assert lines_of(box.ledger, "epoch")[ANN] == epoch
    box.true = box.system = YEAR_2099
    async with box.run():
        # What was ended of our own did not come back when its time came.
        assert box.reason(ahead) == "revoked"


async def test_a_named_time_is_what_was_named(box: Box) -> None:
    """Whatever the clock says then and later: neither its coming back nor a time server moves the line."""
    box.system = NOW + 30 * DAY
    async with box.run():
        await box.revocations.cut_off(ANN, NOW + DAY)
        for synchronized in (False, True):
            box.set(box.true, synchronized=synchronized)
            assert lines_of(box.ledger) == lines_of(box.ledger, "own_before") == {ANN: NOW + DAY}
            assert box.reason(box.token()) == "revoked"


async def test_a_line_that_is_drawn_while_another_is_lowered_is_not_lost(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between root's word on the disk and its effect: the new line is in force, on the disk, and no later."""
    box.system, box.synchronized = YEAR_2099, True
    async with box.run():
        await box.revocations.cut_off(ANN, None)
        box.set(NOW, synchronized=False)
        box.true = NOW
        text, drawn = box.token(issued=NOW + 30), list[Any]()
        commit = box.registrar.write

        async def draw_meanwhile(transaction: Callable[..., Any], **options: Any) -> Any:
            done = await commit(transaction, **options)
            if not drawn:
                box.pass_(60)
                drawn.append(box.revocations.cut_off(ANN, None))
            return done

        monkeypatch.setattr(box.registrar, "write", draw_meanwhile)
        await box.mark.reset()
        await drawn[0]
        assert lines_of(box.ledger) == {ANN: NOW + 60}
        assert box.reason(text) == "revoked"
        box.pass_(60)
        assert box.reason(box.token()) == ""
    assert rows(box.path, "SELECT before FROM cut_offs") == [(NOW + 60,)]


async def test_a_disk_that_does_not_take_the_lower_line_is_told(box: Box) -> None:
    """The clock is reset; the line stays where it was until root says so once more."""
    box.system, box.synchronized = YEAR_2099, True
    async with box.run():
        await box.revocations.cut_off(ANN, None)
        box.set(NOW, synchronized=False)
        broken = BrokenCommits(box.db)
        replace = box.mark._replace

        async def then_fail(mark: float) -> None:
            await replace(mark)
            await broken.begin()

        box.mark._replace = then_fail
        with pytest.raises(StoreFailed, match="yet to come"):
            await box.mark.reset()
        assert lines_of(box.ledger) == {ANN: YEAR_2099}
        await broken.mend()
        box.mark._replace = replace
        await box.mark.reset()
        assert lines_of(box.ledger) == {ANN: NOW}


def test_a_boot_counts_seconds_that_no_clock_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's name for it is the same for each process; where it tells none each process is a boot of its own."""
    assert Boot().name == Boot().name
    assert Boot().seconds() > 0
    monkeypatch.setattr("edged.clock._BOOT_ID", tmp_path / "none")
    first, second = Boot(), Boot()
    assert first.name != second.name
    assert 0 <= first.seconds() < 60
    frozen = Boot("one", lambda: 1000.0)
    assert 999.0 < frozen.since(0.0) < 1000.0
    assert frozen.since(2000.0) == 0.0


# --- any order of events ----------------------------------------------------------------------------------------------


@dataclass
class Line:
    """When a line was really drawn; the first real time after that at which the clock was trusted, if it was."""

    scope: Identity
    drawn: float
    settled: float | None


@dataclass
class Model:
    """Knows the true time, and so what must be refused and what must not."""

    lines: list[Line] = field(default_factory=list)
    tokens: list[tuple[str, str, float]] = field(default_factory=list)

    def look(self, box: Box) -> None:
        if box.clock.is_trusted:
            for line in self.lines:
                line.settled = box.true if line.settled is None else line.settled

    def check(self, box: Box) -> None:
        """Nothing is said of tokens while nobody knows what time it is."""
        box.look()
        self.look(box)
        if not box.clock.is_trusted:
            return
        assert abs(box.clock.now() - box.true) < 1
        for text, subject, issued in self.tokens:
            mine = [line for line in self.lines if line.scope in (ALL, Identity.of_user(subject))]
            reason = box.reason(text)
            if any(issued <= line.drawn for line in mine):
                assert reason == "revoked", (issued - NOW, [line.drawn - NOW for line in mine])
            elif all(line.settled is not None and int(issued) > line.settled for line in mine):
                assert reason == "", (issued - NOW, mine)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("draw"), st.sampled_from([ALL, ANN, BOB])),
        st.tuples(st.just("issue"), st.sampled_from(["ann", "bob"])),
        st.tuples(st.just("wait"), st.sampled_from([2.5, 3600.0, 20 * DAY])),
        # Near or anywhere from 1970 to 2099.
        st.tuples(st.just("jump"), st.one_of(st.floats(NOW - 40 * DAY, NOW + 40 * DAY), st.floats(0.0, YEAR_2099))),
        st.tuples(st.sampled_from(["sync", "unsync", "restart", "reboot", "reset", "save"]), st.none()),
    ),
    min_size=4,
    max_size=40,
)


@settings(deadline=None, max_examples=times(120, least=25))
@given(EVENTS, st.sampled_from([-DRIFT, 0.0, DRIFT]))
def test_no_order_of_events_brings_a_revoked_token_back_or_refuses_a_later_one(
    events: list[tuple[str, Any]], drift: float
) -> None:
    """Once the clock is trusted: no foreign token of before a line's true drawing is accepted, none of after the moment
    at which the clock became trusted is refused; the list, the memory and the disk agree, over restarts of edged and of
    the machine."""
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_live, Path(folder) / "trust.db", events, drift)


async def _live(path: Path, events: list[tuple[str, Any]], drift: float) -> None:
    box, model = Box(path), Model()
    left = [*events, ("reset", None)]
    while left:
        async with box.run():
            model.check(box)
            known = await _knowledge(box)
            while left and left[0][0] not in ("restart", "reboot"):
                await _happen(box, model, *left.pop(0), drift)
                model.check(box)
            known = await _knowledge(box)
        if left:
            what, _ = left.pop(0)
            if what == "reboot":
                box.boot, box.up, box.synchronized = box.boot + 1, 0.0, False
                box.pass_(5)
            async with box.run():
                if what == "restart" and not lines_of(box.ledger, "second"):
                    assert await _knowledge(box) == known
                assert [scope for scope, *_ in await box.lines()] == [scope for scope, *_ in known[0]]
                assert lines_of(box.ledger, "epoch") == known[1]


async def _knowledge(box: Box) -> tuple[Any, ...]:
    """What the list and the memory say, which must be the same."""
    lines = await box.lines()
    assert {scope: before for scope, before, provisional in lines if not provisional} == lines_of(box.ledger)
    assert {scope for scope, _, provisional in lines if provisional} == lines_of(box.ledger, "second").keys()
    return lines, lines_of(box.ledger, "epoch")


async def _happen(box: Box, model: Model, what: str, value: Any, drift: float) -> None:
    if what == "draw":
        box.clock.now()
        model.lines.append(Line(value, box.true, box.true if box.clock.is_trusted else None))
        await box.revocations.cut_off(value, None)
    elif what == "issue":
        model.tokens.append((box.token(value), value, box.true))
    elif what == "wait":
        box.pass_(value, drift)
    elif what == "jump":
        box.set(value, synchronized=False)
    elif what == "sync":
        box.set(box.true, synchronized=True)
    elif what == "unsync":
        box.set(box.system, synchronized=False)
    elif what == "save":
        await box.mark.save()
    else:
        box.set(box.true, synchronized=False)
        await box.mark.reset()
        model.look(box)
