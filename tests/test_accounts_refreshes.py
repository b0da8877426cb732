"""accounts/refreshes.py: one successor per token, and a family that ends as one."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from gate_helpers import LOCAL, make_gate
from identity_helpers import named
from key_pool import make_here
from patience import fail_after
from trust_helpers import BrokenCommits, TrustStack, busy_writer, change_nothing, running_trust, until

from edged.access.authority import EDGED
from edged.access.gate import Gate
from edged.accounts.refreshes import GRACE_SECONDS, Refreshed, Refreshes
from edged.credentials.callers import ApiKey, Caller, LocalUser, Signer, Ticket, Token
from edged.credentials.claims import Trust
from edged.credentials.identities import ALL, Identity, Kind
from edged.credentials.refreshes import signer_of
from edged.credentials.tokens import LONGEST_TOKEN, SharedSecret, sign
from edged.errors import InvalidState, Overloaded, Refused, StoreFailed
from edged.signing.keyring import Keyring
from edged.store import refreshes as stored

DAY = 86400
SECRET = SharedSecret(
    "test", "a secret of the tests, long enough for HS256", Trust(frozenset({"camera-service", "edged"}), own="edged")
)
OTHER = SharedSecret("other", "another secret of the tests, long enough for HS256")


@dataclass
class Box:
    """A trust that refreshes, and a clock that the test turns."""

    trust: TrustStack
    gate: Gate
    keyring: Keyring
    refreshes: Refreshes
    time: list[float] = field(default_factory=list)

    @property
    def now(self) -> float:
        return self.time[0]

    def token(self, secret: SharedSecret = SECRET, *, life: float = 3600, jti: str | None = "root", **more: Any) -> str:
        claims = {"sub": "ada", "role": "viewer", "iat": int(self.now), "exp": int(self.now) + life, **more}
        return sign(claims | ({"jti": jti} if jti is not None else {}), secret)

    async def refresh(self, shown: str | Caller) -> Refreshed:
        return await self.refreshes.refresh(shown, "ws")

    async def chain(self, text: str, length: int) -> list[str]:
        """The token and what came of it, one after the other."""
        found = [text]
        while len(found) < length:
            self.time[0] += 30
            found.append((await self.refresh(found[-1])).text)
        return found

    def lets_in(self, text: str) -> bool:
        try:
            self.gate.authenticate(Token(text), LOCAL, "ws")
        except Refused:
            return False
        return True

    def stays(self, text: str) -> list[str]:
        """Let someone in by this token; the list tells why they were ended."""
        terminate: list[str] = []
        self.gate.admit(
            self.gate.authenticate(Token(text), LOCAL, "ws"), "ws", lambda cause, _by: terminate.append(cause)
        )
        return terminate


@asynccontextmanager
async def opened(path: Path, now: list[float] | None = None) -> AsyncIterator[Box]:
    at = now if now is not None else [time.time()]
    with fail_after(60):
        async with running_trust(path, now=lambda: at[0]) as trust:
            keyring = Keyring(
                trust.db, trust.clock, is_denied=trust.ledger.denials.__contains__, make=make_here, was_restored=False
            )
            keyring.load()
            await keyring.ensure()
            secrets = [SECRET, OTHER]
            gate = make_gate(
                trust.ledger,
                trust.admissions,
                trust.clock,
                trust.counted,
                shared_secrets=secrets,
                find_key=keyring.find,
            )
            refreshes = Refreshes(
                trust.registrar,
                trust.ledger,
                gate,
                keyring,
                trust.db,
                trust.clock,
                trust.counted,
                shared_secrets=secrets,
            )
            refreshes.load()
            yield Box(trust, gate, keyring, refreshes, at)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


def jti_of(refreshed: Refreshed) -> str:
    return str(refreshed.caller.claims["jti"])


def hash_of(text: str) -> Identity:
    return Identity.of_token(text)


# --- one successor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, OTHER])
async def test_a_token_is_refreshed_by_the_secret_that_signed_it(path: Path, secret: SharedSecret) -> None:
    """S0-15: it decodes with the client's own secret; both are good, each to its own end."""
    async with opened(path) as box:
        text = box.token(secret, department="north")
        box.time[0] += 1800
        made = await box.refresh(text)
        assert signer_of(made.caller) == Signer("HS256", secret.name)
        assert (made.caller.subject, made.caller.claims["department"]) == ("ada", "north")
        assert made.caller.expires == int(box.now) + DAY
        assert (box.lets_in(text), box.lets_in(made.text)) == (True, True)
        box.time[0] += 1801
        assert (box.lets_in(text), box.lets_in(made.text)) == (False, True)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_key_pairs_token_is_refreshed_by_the_key_that_signs_now(path: Path, algorithm: Any) -> None:
    """The same algorithm, whichever key: the one before may be retired by then."""
    async with opened(path) as box:
        claims = {"sub": "ada", "role": "viewer", "jti": "root", "exp": int(box.now) + 60, "iat": int(box.now)}
        text = await box.keyring.sign({**claims, "epoch": 0}, algorithm)
        before = signer_of(box.gate.verify_token(text))
        grant = box.trust.registrar.granting(EDGED)
        await box.keyring.promote(grant, (await box.keyring.create(grant, algorithm)).kid, force=True)
        made = await box.refresh(text)
        after = signer_of(made.caller)
        assert before is not None
        assert after is not None
        assert (before.algorithm, after.algorithm) == (algorithm, algorithm)
        assert after != before
        assert (made.caller.claims["iss"], made.caller.epoch) == ("edged", 0)


@pytest.mark.parametrize("jti", ["root", None])
async def test_whoever_asks_again_gets_the_same_until_five_minutes_after_the_end(path: Path, jti: str | None) -> None:
    """Contract 10.5: the same jti and claims, also over a restart; a token without jti is known by its text."""
    at = [time.time()]
    async with opened(path, at) as box:
        text = box.token(jti=jti, life=600)
        first = await box.refresh(text)
        box.time[0] += 500
        assert (await box.refresh(text)).caller.claims == first.caller.claims
        assert box.trust.counted.refreshes == ["ok", "replayed"]
    async with opened(path, at) as box:
        box.time[0] += 100 + GRACE_SECONDS - 1
        assert (await box.refresh(text)).text == first.text
        box.time[0] += 1
        with pytest.raises(Refused) as caught:
            await box.refresh(text)
        assert caught.value.reason == "expired"
        assert box.trust.counted.refreshes == ["replayed", "denied"]


async def test_many_who_ask_at_once_get_one_successor(path: Path) -> None:
    """A token that processes share: nobody is logged out, and there is one row."""
    async with opened(path) as box:
        text, found = box.token(), []

        async def ask() -> None:
            found.append(jti_of(await box.refresh(text)))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert (len(found), len(set(found))) == (20, 1)
        assert sorted(box.trust.counted.refreshes) == ["ok", *["replayed"] * 19]


async def test_whoever_refreshes_in_a_loop_has_one_place_in_the_queue(path: Path) -> None:
    """A hundred at once of one family, half of whom hang up: everybody else's changes are taken, and revocations."""
    async with opened(path) as box:
        texts = await box.chain(box.token(), 4)
        box.trust.counted.refreshes.clear()
        scopes = [trio.CancelScope() for _ in range(100)]

        async def ask(text: str, scope: trio.CancelScope) -> None:
            with scope:
                await box.refresh(text)

        async with trio.open_nursery() as nursery:
            async with busy_writer(box.trust.db):
                for number, scope in enumerate(scopes):
                    nursery.start_soon(ask, texts[number % 4], scope)
                await trio.testing.wait_all_tasks_blocked()
                for scope in scopes[::2]:
                    scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert len(box.trust.registrar._grants) == 0
                pending = box.trust.registrar.revoke_token(frozenset({named("jti:another")}), None)
            await pending
        # All who stayed; and of those who hung up whoever had been served by then.
        assert len(box.trust.counted.refreshes) >= 50
        assert box.refreshes._running == {}


async def test_a_token_that_has_just_ended_is_refreshed_once_more(path: Path) -> None:
    """S0-16: `ensure_valid_token` asks after the end; the gate itself lets nobody in by it."""
    async with opened(path) as box:
        text = box.token(life=60)
        box.time[0] += 60 + GRACE_SECONDS - 2
        assert not box.lets_in(text)
        made = await box.refresh(text)
        assert box.lets_in(made.text)


async def test_two_tokens_of_one_jti_have_two_successors(path: Path) -> None:
    """A foreign issuer that gives each of its tokens the same jti makes nobody somebody else."""
    async with opened(path) as box:
        ada, eve = box.token(jti="1", role="admin"), box.token(jti="1", sub="eve")
        found = [await box.refresh(text) for text in (ada, eve, ada)]
        assert [(each.caller.subject, each.caller.role) for each in found] == [
            ("ada", "admin"), ("eve", "viewer"), ("ada", "admin"),
        ]  # fmt: skip
        assert jti_of(found[0]) == jti_of(found[2]) != jti_of(found[1])


async def test_a_caller_that_hangs_up_gets_the_same_when_it_comes_back(path: Path) -> None:
    """Cancelled while the commit runs: there is a successor, and the next question finds it."""
    async with opened(path) as box:
        text = box.token()
        async with busy_writer(box.trust.db):
            with trio.move_on_after(0.02) as scope:
                await box.refresh(text)
            assert scope.cancelled_caught
        await until(lambda: box.trust.counted.refreshes == ["ok"])
        again = await box.refresh(text)
        assert box.trust.counted.refreshes == ["ok", "replayed"]
        assert box.lets_in(again.text)


async def test_a_disk_that_fails_gives_nothing(path: Path) -> None:
    """store_error; the token stays good, and is refreshed when the disk is mended. No token's text is on it."""
    async with opened(path) as box:
        text = box.token()
        broken = await BrokenCommits(box.trust.db).begin()
        with pytest.raises(StoreFailed):
            await box.refresh(text)
        await broken.mend()
        made = await box.refresh(text)
        assert box.lets_in(text)
        assert box.lets_in(made.text)
        assert box.trust.counted.refreshes == ["ok"]
    content = path.read_bytes()
    assert str(hash_of(made.text)).encode() in content
    assert all(each.encode() not in content for each in (text, made.text, made.text.rpartition(".")[2]))


# --- who has none ---------------------------------------------------------------------------------------------------


async def test_what_is_no_token_of_edgeds_has_no_successor(path: Path) -> None:
    """A key, a ticket and the local user are told what to do instead; a token that nobody here signed is refused."""
    async with opened(path) as box:
        _, secret = await box.trust.api_keys.create(EDGED, name="k", role="admin")
        key = box.gate.authenticate(ApiKey(secret), LOCAL, "ws")
        holder = box.gate.authenticate(Token(box.token()), LOCAL, "ws")
        ticket = box.gate.tickets.make(holder, "read", "camera0", 60, "session_1")
        for caller in (key, box.gate.authenticate(Ticket(ticket), LOCAL, "rtsp")):
            with pytest.raises(InvalidState):
                await box.refresh(caller)
        stranger = SharedSecret("x", "a secret that this services does not know at all")
        with pytest.raises(Refused) as caught:
            await box.refresh(box.token(stranger))
        assert caught.value.reason == "bad_signature"
        assert box.trust.counted.refreshes == ["denied"] * 3
        assert ("bad_signature", "jwt_local", "ws") in box.trust.counted.failed


async def test_a_family_ends_thirty_days_after_its_first_token(path: Path) -> None:
    """Contract 10.5: the last one is shorter, then the answer is expired, however fresh the token that asks."""
    async with opened(path) as box:
        began = box.now
        claims = {"sub": "ada", "role": "viewer", "jti": "x", "iat": int(began), "exp": int(began) + 10 * DAY}
        text = await box.keyring.sign({**claims, "epoch": 0}, "RS256")
        for _ in range(3):
            box.time[0] += 9 * DAY
            last = await box.refresh(text)
            text = last.text
        assert last.caller.expires == int(began) + 30 * DAY
        box.time[0] = last.caller.expires
        with pytest.raises(Refused, match="30 days") as caught:
            await box.refresh(text)
        assert caught.value.reason == "expired"


async def test_what_would_be_too_long_to_be_taken_is_not_made(path: Path) -> None:
    """A map of streams that just fits says more as a list: the caller hears why, and the token stays what it was."""
    async with opened(path) as box:
        text = box.token(role=None, mediamtx_permissions={"read": [f"a-long-name-of-a-path-{at}" for at in range(180)]})
        assert len(text) < LONGEST_TOKEN
        for _ in range(2):
            with pytest.raises(InvalidState, match="too long"):
                await box.refresh(text)
        assert box.lets_in(text)
        assert box.trust.ledger.denials.families == set()


async def test_a_family_cannot_be_made_to_fill_the_box(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever refreshes in a loop is told to log in anew; what they have stays good."""
    monkeypatch.setattr("edged.accounts.refreshes.MOST_NAMES", 6)
    async with opened(path) as box:
        texts = await box.chain(box.token(), 3)
        box.time[0] += 30
        with pytest.raises(Overloaded):
            await box.refresh(texts[-1])
        assert all(map(box.lets_in, texts))


# --- a use costs no write -------------------------------------------------------------------------------------------


class Writes:
    """Counts the transactions of the trust database."""

    def __init__(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, write = 0, box.trust.db.write

        async def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            return await write(*args, **options)

        monkeypatch.setattr(box.trust.db, "write", counted)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_whoever_refreshes_in_a_loop_costs_one_write_in_ten_seconds(
    path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, restarts: bool
) -> None:
    """Six hundred times, always by the newest, or always by the first, or by all in turn: each is answered by a good
    token of the family, and the family has one more."""
    at = [float(int(time.time()))]
    async with opened(path, at) as box:
        first = box.token(epoch=0, iss="edged")
        if algorithm != "HS256":
            claims = {"sub": "ada", "role": "viewer", "jti": "1", "exp": int(at[0]) + 3600, "iat": int(at[0])}
            first = await box.keyring.sign({**claims, "epoch": 0}, cast("Any", algorithm))
        texts = [first]
        if restarts:
            texts.append((await box.refresh(first)).text)
            at[0] += 2
    async with opened(path, at) as box:
        writes, known = Writes(box, monkeypatch), set(texts)
        for number in range(60):
            at[0] += 0.1
            for text in (texts[-1], first, texts[number % len(texts)]):
                texts.append((await box.refresh(text)).text)
            known |= set(texts)
        # Another text of what an earlier run made is noted once.
        assert writes.count <= 1
        jtis = {str(box.gate.verify_token(text).claims["jti"]) for text in known}
        assert len(jtis) == 2
        assert all(map(box.lets_in, known))
        at[0] += 10
        made = await box.refresh(texts[-1])
        assert jti_of(made) not in jtis
        assert jti_of(await box.refresh(made.text)) == jti_of(made)
        assert writes.count <= 2


async def test_a_short_life_has_a_short_interval(path: Path) -> None:
    """A tenth of it, so that nobody whose token ends soon is left with what is over."""
    async with opened(path) as box:
        first = box.token(life=20, epoch=0, iss="edged")
        second = await box.refresh(first)
        # The clock runs by monotonic time, too: on a busy machine it is ahead of what the test has set.
        made = box.trust.clock.now()
        box.time[0] = made + 1.5
        assert (await box.refresh(second.text)).text == second.text
        box.time[0] = made + 2.5
        third = await box.refresh(second.text)
        assert jti_of(third) != jti_of(second)
        assert (await box.refresh(first)).text == second.text


async def test_the_newest_token_is_no_answer_once_it_is_denied(path: Path) -> None:
    """Young, remembered, and revoked: whoever shows one of its family hears so."""
    async with opened(path) as box:
        first = box.token()
        second = await box.refresh(first)
        await box.trust.registrar.revoke_token(frozenset({hash_of(first)}), None)
        for text in (first, second.text):
            with pytest.raises(Refused):
                await box.refresh(text)


# --- the family ends as one -----------------------------------------------------------------------------------------

NAMES: dict[str, Callable[[Box, str], Identity]] = {
    "jti": lambda box, text: named(f"jti:{box.gate.verify_token(text).claims['jti']}"),
    "hash": lambda _box, text: hash_of(text),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("member", range(4))
async def test_to_revoke_any_member_ends_all(path: Path, member: int, name: str) -> None:
    """The first, the last or one between, by jti or by hash: at once, whoever is inside, and after a restart."""
    at = [time.time()]
    async with opened(path, at) as box:
        texts = await box.chain(box.token(), 4)
        stranger = box.token(jti="other")
        inside = [box.stays(text) for text in texts]
        outside = box.stays(stranger)
        pending = box.trust.registrar.revoke_token(frozenset({NAMES[name](box, texts[member])}), box.now + 9e9)
        # In force when the call returns, also for those that the gate has seen before there was a family.
        assert not any(map(box.lets_in, texts))
        assert (inside, outside) == ([["revoked"]] * 4, [])
        await pending
        assert box.lets_in(stranger)
        for text in texts:
            with pytest.raises(Refused, match="revoked"):
                await box.refresh(text)
    async with opened(path, at) as box:
        assert [box.lets_in(text) for text in (*texts, stranger)] == [False] * 4 + [True]


async def test_what_is_revoked_before_it_was_refreshed_has_no_successor(path: Path) -> None:
    """Nothing comes of it, then or later."""
    async with opened(path) as box:
        text = box.token()
        await box.trust.registrar.revoke_token(frozenset({named("jti:root")}), None)
        with pytest.raises(Refused, match="revoked"):
            await box.refresh(text)
        assert box.trust.db.read_now(stored.load) == []


@pytest.mark.parametrize("name", ["jti:root", "hash", "user:ada", "cut-off"])
async def test_a_revocation_finds_a_refresh_that_is_on_its_way_to_the_disk(path: Path, name: str) -> None:
    """Between the question and the commit: the successor is told to nobody, and is worth nothing, also later."""
    at, answers = [time.time()], []
    async with opened(path, at) as box, trio.open_nursery() as nursery:
        text = box.token(epoch=0, iss="edged")

        async def ask() -> None:
            with pytest.raises(Refused) as caught:
                await box.refresh(text)
            answers.append(caught.value.reason)

        async with busy_writer(box.trust.db):
            nursery.start_soon(ask)
            # The question is in the writer's queue, behind the job that holds it.
            await until(lambda: bool(box.trust.ledger.denials.families))
            await trio.testing.wait_all_tasks_blocked()
            box.trust.revocations.cut_off(ALL, None).close() if name == "cut-off" else box.trust.registrar.revoke_token(
                frozenset({hash_of(text) if name == "hash" else named(name)}), None
            ).close()
        await until(lambda: bool(answers))
        assert answers == ["revoked"]
        await box.trust.registrar.grant(EDGED, change_nothing).outcome()
        (family,) = box.trust.db.read_now(stored.load)
    found = next(each for each in family.members if each.kind is Kind.JTI and each != named("jti_of::root"))
    async with opened(path, at) as box:
        claims = {"sub": "ada", "role": "viewer", "iss": "edged", "iat": int(at[0]), "exp": at[0] + 60, "epoch": 0}
        assert not box.lets_in(sign({**claims, "jti": found.name}, SECRET))


@pytest.mark.parametrize("own", [True, False])
async def test_a_cut_off_while_the_disk_is_asked_leaves_no_successor(
    path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """The token was good when it was shown, and its successor would be younger than the line."""
    asked, release, find = threading.Event(), threading.Event(), stored.find

    def find_slowly(*args: Any, **named: Any) -> Any:
        asked.set()
        assert release.wait(30)
        return find(*args, **named)

    monkeypatch.setattr(stored, "find", find_slowly)
    async with opened(path) as box, trio.open_nursery() as nursery:
        text = box.token(epoch=0, iss="edged") if own else box.token()
        answers: list[str] = []

        async def ask() -> None:
            with pytest.raises(Refused) as caught:
                await box.refresh(text)
            answers.append(caught.value.reason)

        nursery.start_soon(ask)
        await trio.to_thread.run_sync(asked.wait, 30)
        drawn = box.trust.revocations.cut_off(ALL, None)
        box.time[0] += 2
        release.set()
        await drawn
        await until(lambda: bool(answers))
        assert answers == ["revoked"]


async def test_every_text_of_a_successor_is_known_by_its_hash(path: Path) -> None:
    """ES256 signs differently each time, and keys follow each other: a hash of any text ends the family."""
    at, texts, root = [time.time()], set[str](), ""
    for _ in range(3):
        # What was told is remembered while edged runs.
        async with opened(path, at) as box:
            claims = {"sub": "ada", "role": "viewer", "jti": "root", "exp": int(box.now) + 600, "iat": int(box.now)}
            root = root or await box.keyring.sign({**claims, "epoch": 0}, "ES256")
            told = {(await box.refresh(root)).text for _ in range(3)}
            assert len(told) == 1
            texts |= told
    assert len(texts) == 3
    async with opened(path, at) as box:
        assert len({jti_of(await box.refresh(root)) for _ in range(2)}) == 1
        box.time[0] += 30
        # One successor for each of its texts, too.
        assert len({jti_of(await box.refresh(text)) for text in texts}) == 1
    async with opened(path, at) as box:
        await box.trust.registrar.revoke_token(frozenset({hash_of(texts.pop())}), None)
        assert not any(map(box.lets_in, [root, *texts]))


async def test_a_signing_key_that_leaked_takes_with_it_what_came_of_its_tokens(path: Path) -> None:
    """A token forged by it may have been refreshed by the next key: the family goes, the next key stays."""
    at = [time.time()]
    async with opened(path, at) as box:
        claims = {"sub": "eve", "role": "admin", "jti": "forged", "exp": int(box.now) + 600, "iat": int(box.now)}
        kid = box.keyring.current("RS256").kid
        forged = await box.keyring.sign({**claims, "epoch": 0}, "RS256")
        grant = box.trust.registrar.granting(EDGED)
        await box.keyring.promote(grant, (await box.keyring.create(grant, "RS256")).kid, force=True)
        honest = await box.keyring.sign({**claims, "jti": "honest", "epoch": 0}, "RS256")
        made = (await box.refresh(forged)).text
        kept = (await box.refresh(honest)).text
        await box.trust.registrar.revoke_token(frozenset({Identity.of_signing_key(kid)}), None)
        facts = [box.lets_in(text) for text in (forged, made, honest, kept)]
        assert facts == [False, False, True, True]
    async with opened(path, at) as box:
        assert [box.lets_in(text) for text in (forged, made, honest, kept)] == facts


# --- those who stay -------------------------------------------------------------------------------------------------


async def test_a_newer_token_of_the_family_moves_its_streams_and_nothing_else(path: Path) -> None:
    """Contract 10.5: every way in that streams; no other conversation, no other family, and never to an earlier end."""
    async with opened(path) as box:
        root, stranger = box.token(life=60), box.token(jti="root", sub="eve", life=60)
        await box.refresh(stranger)
        roads = ("rtsp", "rtmp", "srt", "hls", "webrtc", "http", "ws", "uds")

        def enter(text: str, road: Any) -> Any:
            return box.gate.admit(box.gate.authenticate(Token(text), LOCAL, road), road, lambda _cause, _by: None)

        box.time[0] += 30
        old = {road: enter(root, road) for road in roads}
        others = [enter(stranger, road) for road in roads]
        new = await box.refresh(root)
        longer = enter(new.text, "rtsp")
        before = {each: each.deadline for each in (*old.values(), *others, longer)}
        box.gate.renew_streams(box.gate.authenticate(Token(root), LOCAL, "ws"))
        assert all(each.deadline - before[each] < 1 for each in before)
        box.gate.renew_streams(new.caller)
        moved = {each for each in before if each.deadline - before[each] > 1}
        assert moved == {old[road] for road in roads[:6]}
        assert all(each.deadline - before[each] == pytest.approx(DAY - 30, abs=2) for each in moved)
        # They answer to the names of both from here on.
        await box.trust.registrar.revoke_token(frozenset({named("jti:root")}), None)
        assert set(box.trust.admissions).isdisjoint({*old.values(), longer})


async def test_a_key_shown_again_after_its_rotation_moves_its_streams(path: Path) -> None:
    """The same key_id: what the old secret opened stays as long as the new one is good; another key's does not."""
    async with opened(path) as box:
        record, old = await box.trust.api_keys.create(EDGED, name="k", role="viewer")
        _, other = await box.trust.api_keys.create(EDGED, name="o", role="viewer", expires_at=box.now + 900)
        streams = [
            box.gate.admit(box.gate.authenticate(ApiKey(secret), LOCAL, "rtsp"), "rtsp", lambda _cause, _by: None)
            for secret in (old, other)
        ]
        _, new = await box.trust.api_keys.rotate(EDGED, record.key_id, 100)
        assert [each.deadline is None for each in streams] == [False, False]
        box.gate.renew_streams(box.gate.authenticate(ApiKey(new), LOCAL, "ws"))
        assert [each.deadline is None for each in streams] == [True, False]


async def test_the_local_user_moves_nothing(path: Path) -> None:
    """Whoever came in without a token has no family."""
    async with opened(path) as box:
        local = [box.gate.authenticate(LocalUser(0), LOCAL, "uds") for _ in range(2)]
        stream = box.gate.admit(local[0], "http", lambda _cause, _by: None)
        stream.deadline = 5.0
        box.gate.renew_streams(local[1])
        assert stream.deadline == 5.0
