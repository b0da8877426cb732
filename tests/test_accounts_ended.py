"""What is revoked on disk leaves memory but for 24 bytes: it stays refused, listed and counted until it is deleted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from gate_helpers import LOCAL
from identity_helpers import named
from services_helpers import running_services
from trust_helpers import BrokenCommits, TrustStack, busy_writer, rows, running_trust

from edged import operations
from edged.access.authority import EDGED, Asker
from edged.accounts.api_keys import ForeignKey
from edged.accounts.revocations import KEEP_ENDED_DAYS, PRUNE_SECONDS, Revocations
from edged.credentials.callers import ApiKey, Caller, LocalUser, Peer, TokenFacts
from edged.credentials.claims import LONGEST_LIFE, makers_of
from edged.credentials.identities import Identity
from edged.errors import InvalidState, NotFound, Refused, StoreFailed
from edged.operations.caller_sessions import Session
from edged.operations.services import Services
from edged.reactions import clock_upkeep

DAY = 86400.0
CATALOGUE = operations.gather()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


def refusal(trust: TrustStack, secret: str) -> str:
    """ "" for a secret that is good."""
    try:
        trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
    except Refused as refused:
        return str(refused.reason)
    return ""


def asker_of(trust: TrustStack, secret: str) -> Asker:
    """Whoever shows this key."""
    return Asker(trust.gate, trust.gate.authenticate(ApiKey(secret), LOCAL, "ws"), "keys:admin", "ws", ())


async def test_a_revoked_key_is_refused_as_revoked_without_being_in_memory(path: Path) -> None:
    """Each of its secrets, in this life and after a start; its id stands in the log as before."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        _, new = await trust.api_keys.rotate(EDGED, record.key_id, 3600)
        await trust.api_keys.revoke(record.key_id)
        assert record.key_id not in trust.ledger.keys
        assert [refusal(trust, secret) for secret in (old, new)] == ["revoked"] * 2
        assert trust.ledger.denials.identities == set()
    async with running_trust(path) as trust:
        assert not trust.ledger.keys
        assert [refusal(trust, secret) for secret in (old, new)] == ["revoked"] * 2
        found = trust.ledger.find_key(record.digest)
        assert found is not None
        assert (found.credential_id, found.capabilities) == (record.key_id, frozenset())
        assert refusal(trust, "camera_service_sk_" + "0" * 64) == "unknown_key"


async def test_a_key_leaves_memory_once_its_revocation_is_on_disk_and_no_sooner(path: Path) -> None:
    """While the disk fails a restart would bring it back: it is shown as revoked from memory."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.revoke(record.key_id)
        assert trust.ledger.keys[record.key_id].revoked_at is not None
        assert refusal(trust, secret) == "revoked"
        await broken.mend()
        await trust.api_keys.revoke(record.key_id)
        assert record.key_id not in trust.ledger.keys
        assert (await trust.api_keys.get(record.key_id)).revoked_at is not None


async def test_nothing_can_be_done_with_a_revoked_key_but_to_revoke_it_again(path: Path) -> None:
    """Told as revoked, not as unknown."""
    async with running_trust(path) as trust:
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        first = await trust.api_keys.revoke(record.key_id)
        with pytest.raises(InvalidState, match="revoked"):
            await trust.api_keys.rotate(EDGED, record.key_id)
        with pytest.raises(InvalidState, match="revoked"):
            await trust.api_keys.suspend(record.key_id)
        assert await trust.api_keys.revoke(record.key_id) == first
        assert trust.counted.revocations == ["key"]
        for missing in (trust.api_keys.get, trust.api_keys.revoke):
            with pytest.raises(NotFound):
                await missing("key_0000000000000000")


async def test_what_a_revoked_key_issued_stays_denied_after_a_start(path: Path) -> None:
    """By the id of the key, which stands in the token."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="admin")
        key = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
        await trust.api_keys.revoke(record.key_id)
    token = Caller(
        "jwt_local", "ann", frozenset({"viewer"}), frozenset(), token=TokenFacts({}, issued_by=makers_of(key))
    )
    other = Caller(
        "jwt_local",
        "ann",
        frozenset({"viewer"}),
        frozenset(),
        token=TokenFacts({}, issued_by=frozenset({named("key:key_1")})),
    )
    async with running_trust(path) as trust:
        assert trust.ledger.is_denied(token)
        assert not trust.ledger.is_denied(other)


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_the_chain_of_makers_does_not_break_at_a_revoked_one(path: Path, is_restarted: bool) -> None:
    """A key made a key, which made a third: whoever revokes what the first has made finds the third."""
    async with running_trust(path) as trust:
        first, secret = await trust.api_keys.create(EDGED, name="first", role="admin")
        asker = asker_of(trust, secret)
        second, secret = await trust.api_keys.create(asker, name="second", role="admin")
        asker = asker_of(trust, secret)
        third, _ = await trust.api_keys.create(asker, name="third", role="admin")
        await trust.api_keys.revoke(second.key_id)
        assert trust.ledger.made_by({Identity.of_key(first.key_id)}) == {Identity.of_key(third.key_id)}
        if not is_restarted:
            await trust.api_keys.revoke(third.key_id)
            assert trust.ledger.makers.retired == {}
            return
    async with running_trust(path) as trust:
        assert trust.ledger.made_by({Identity.of_key(first.key_id)}) == {Identity.of_key(third.key_id)}
        await trust.api_keys.revoke(third.key_id)
        assert trust.ledger.makers.retired == {}


async def test_a_revoked_key_is_forgotten_after_its_time_by_a_trusted_clock_only(path: Path) -> None:
    """It is unknown then; its row, its revocation and its tally are gone. An imported one stays revoked."""
    at, told = [time.time()], list[str]()
    async with running_trust(path, now=lambda: at[0]) as trust:
        revocations = Revocations(
            trust.registrar, trust.ledger, trust.db, trust.clock, trust.counted, forgotten=told.extend
        )
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        kept, good = await trust.api_keys.create(EDGED, name="kept", role="viewer")
        foreign = ForeignKey("x" * 40, "theirs", "viewer", at[0])
        (imported,) = await trust.api_keys.import_all(EDGED, [foreign])
        assert not isinstance(imported, str)
        for key_id in (record.key_id, imported.key_id):
            await trust.api_keys.revoke(key_id)
        at[0] += KEEP_ENDED_DAYS * DAY - 10
        assert await revocations.prune(at[0]) == 0
        at[0] += 20
        assert refusal(trust, secret) == "revoked"
        assert await revocations.prune(at[0]) == 1
        assert (refusal(trust, secret), refusal(trust, foreign.secret), refusal(trust, good)) == (
            "unknown_key", "revoked", "",
        )  # fmt: skip
        assert told == [record.key_id]
    assert {row[0] for row in rows(path, "SELECT key_id FROM api_keys")} == {kept.key_id, imported.key_id}
    assert rows(path, "SELECT identity FROM revocations") == [(f"key:{imported.key_id}",)]


async def test_an_expired_key_is_forgotten_that_long_after_a_trusted_clock_saw_it_expired(path: Path) -> None:
    """Not by the end that it says: one look by a clock of years to come deletes nothing, and its mark goes."""
    at, told = [time.time()], list[str]()
    async with running_trust(path, now=lambda: at[0]) as trust:
        revocations = Revocations(
            trust.registrar, trust.ledger, trust.db, trust.clock, trust.counted, forgotten=told.extend
        )
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer", expires_at=at[0] + 60)
        extended, longer = await trust.api_keys.create(EDGED, name="longer", role="viewer", expires_at=at[0] + 60)
        endless, good = await trust.api_keys.create(EDGED, name="good", role="viewer")
        foreign = ForeignKey("x" * 40, "theirs", "viewer", at[0], at[0] + 60)
        (imported,) = await trust.api_keys.import_all(EDGED, [foreign])
        assert not isinstance(imported, str)
        assert await revocations.prune(at[0] + 4000 * DAY) == 0
        assert await revocations.prune(at[0] + 30) == 0
        assert rows(path, "SELECT ended_at FROM api_keys WHERE ended_at IS NOT NULL") == []
        at[0] += 70
        assert await revocations.prune(at[0]) == 0
        assert refusal(trust, secret) == "expired"
        await trust.api_keys.update(
            EDGED, extended.key_id, {"expires_at": at[0] + 4000 * DAY}, lambda _before, _after: None
        )
        at[0] += KEEP_ENDED_DAYS * DAY
        assert await revocations.prune(at[0]) == 0, "two looks by a clock that lies twice are not enough"
        for _ in range(KEEP_ENDED_DAYS - 2):
            at[0] += DAY
            assert await revocations.prune(at[0]) == 0
        assert await revocations.prune(at[0]) == 2
        assert [refusal(trust, each) for each in (secret, foreign.secret, longer, good)] == [
            "unknown_key", "unknown_key", "", "",
        ]  # fmt: skip
        assert sorted(told) == sorted([record.key_id, imported.key_id])
        assert not trust.ledger.is_known(record.key_id)
    async with running_trust(path, now=lambda: at[0]) as trust:
        assert refusal(trust, secret) == "unknown_key"
    assert {row[0] for row in rows(path, "SELECT key_id FROM api_keys")} == {extended.key_id, endless.key_id}


async def test_revoked_keys_are_kept_for_as_long_as_a_token_that_one_issued_may_live(path: Path) -> None:
    """However few days the settings say."""
    async with running_trust(path) as trust:
        revocations = Revocations(
            trust.registrar, trust.ledger, trust.db, trust.clock, trust.counted, keep_ended_days=1
        )
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        await trust.api_keys.revoke(record.key_id)
        now = trust.clock.now()
        assert await revocations.prune(now + LONGEST_LIFE + PRUNE_SECONDS - 60) == 0
        assert await revocations.prune(now + LONGEST_LIFE + PRUNE_SECONDS + 60) == 1


async def test_a_clock_that_is_not_trusted_forgets_no_key(path: Path) -> None:
    """It may say a time of years to come."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        await trust.api_keys.revoke(record.key_id)

        class Untrusted:
            is_trusted = False

            def now(self) -> float:
                return 4e9

        assert await clock_upkeep.prune_if_trusted(Untrusted(), trust.revocations.prune) is False  # type: ignore[arg-type]
        assert refusal(trust, secret) == "revoked"


# --- lists -----------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[TrustStack, Services, Session]]:
    async with running_services(folder) as (trust, services):
        session = Session(Peer("unix", uid=0), "uds")
        session.caller = trust.gate.authenticate(LocalUser(0), LOCAL, "uds")
        yield trust, services, session


async def ask(method: str, services: Services, session: Session, **params: object) -> Any:
    """The reply as a client reads it."""
    return msgspec.json.decode(msgspec.json.encode(await CATALOGUE.call(method, params, services, session)))


async def test_lists_show_what_is_revoked_at_its_place_by_pages_and_filters(tmp_path: Path) -> None:
    """As if it were in memory: each key once, oldest first; get_key shows it whole."""
    async with opened(tmp_path) as (trust, services, session):
        made = [
            (await services.api_keys.create(EDGED, name=f"k{n}", role="operator" if n % 3 else "viewer"))[0].key_id
            for n in range(12)
        ]
        shown = await ask("list_keys", services, session)
        for key_id in made[::2]:
            await services.api_keys.revoke(key_id)
        assert len(trust.ledger.keys) == 6
        after = await ask("list_keys", services, session)
        assert [item["key_id"] for item in after["keys"]] == made
        for at, (before, item) in enumerate(zip(shown["keys"], after["keys"], strict=True)):
            assert item == before | {"status": "revoked" if at % 2 == 0 else "active"}
            assert await ask("get_key", services, session, key_id=item["key_id"]) == item
        paged, cursor = list[str](), dict[str, object]()
        for _ in range(9):
            page = await ask("list_keys", services, session, limit=5, **cursor)
            paged += [item["key_id"] for item in page["keys"]]
            if "next_cursor" not in page:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert paged == made
        for status, part in (("revoked", made[::2]), ("active", made[1::2])):
            found = await ask("list_keys", services, session, status=status)
            assert [item["key_id"] for item in found["keys"]] == part
        found = await ask("list_keys", services, session, status="revoked", role="viewer")
        assert [item["key_id"] for item in found["keys"]] == made[::6]


async def test_a_key_whose_revocation_is_being_saved_is_listed_once(tmp_path: Path) -> None:
    """It is in memory when the list begins, and on disk when the list comes there."""
    async with opened(tmp_path) as (trust, services, session):
        made = [(await services.api_keys.create(EDGED, name="k", role="viewer"))[0].key_id for _ in range(3)]
        async with trio.open_nursery() as nursery:
            async with busy_writer(trust.db):
                nursery.start_soon(services.api_keys.revoke, made[1])
                await trio.testing.wait_all_tasks_blocked()
                listed = await ask("list_keys", services, session)
            assert [item["key_id"] for item in listed["keys"]] == made
            assert [item["status"] for item in listed["keys"]] == ["active", "revoked", "active"]


async def test_revocations_are_listed_newest_first_by_pages_with_those_that_are_not_saved_yet(tmp_path: Path) -> None:
    """`total` counts all; an offset and a cursor lead to the same rows."""
    async with opened(tmp_path) as (trust, services, session):
        for n in range(7):
            await trust.registrar.revoke_token(frozenset({named(f"jti:{n}")}), None)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.registrar.revoke_token(frozenset({named("jti:late")}), None)
        listed = await ask("list_revocations", services, session)
        everything = [item["jti"] for item in listed["revocations"]]
        assert (everything, listed["total"]) == (["late", *"6543210"], 8)
        first = await ask("list_revocations", services, session, limit=3)
        rest = await ask("list_revocations", services, session, limit=5, cursor=first["next_cursor"])
        skipped = await ask("list_revocations", services, session, limit=5, offset=3)
        assert [item["jti"] for item in (first["revocations"] + rest["revocations"])] == everything
        assert skipped["revocations"] == rest["revocations"]
        await broken.mend()


async def test_pages_of_revocations_are_read_by_an_index_and_counted_once(tmp_path: Path) -> None:
    """To count 100,000 takes eight times as long as to read a page of them: once for all pages, until one is added."""
    async with opened(tmp_path) as (trust, services, session):
        for n in range(7):
            await trust.registrar.revoke_token(frozenset({named(f"jti:{n}")}), None)
        said: list[str] = []
        reader = trust.db._reader
        reader.set_trace_callback(said.append)
        page: dict[str, Any] = {"next_cursor": None}
        while "next_cursor" in page:
            page = await ask("list_revocations", services, session, limit=2, cursor=page["next_cursor"])
            assert page["total"] == 7
        assert sum("count(*)" in text for text in said) == 1
        await trust.registrar.revoke_token(frozenset({named("jti:late")}), None)
        assert (await ask("list_revocations", services, session, limit=2))["total"] == 8
        assert sum("count(*)" in text for text in said) == 2
        reader.set_trace_callback(None)
        # What SQLite tells has no text for the end of all time.
        pages = {
            text.replace("(Inf,", "(9e999,") for text in said if "FROM revocations" in text and "count(*)" not in text
        }
        assert any("ORDER BY at DESC" in text for text in pages)
        for text in pages:
            plan = " ".join(str(row[3]) for row in reader.execute(f"EXPLAIN QUERY PLAN {text}"))
            assert "SEARCH revocations USING" in plan, (text, plan)
            assert "TEMP B-TREE" not in plan, (text, plan)


async def test_service_tokens_end_as_keys_do(tmp_path: Path) -> None:
    """Refused as revoked without being in memory, and listed."""
    async with opened(tmp_path) as (trust, services, session):
        record, _ = await services.service_tokens.create(EDGED, "files", ["192.0.2.0/24"])
        other, _ = await services.service_tokens.create(EDGED, "more")
        await services.service_tokens.revoke(record.token_id)
        assert set(trust.ledger.service_tokens) == {other.token_id}
        found = trust.ledger.find_service_token(record.digest)
        assert found is not None
        assert trust.ledger.is_denied(found)
        assert (await services.service_tokens.get(record.token_id)).status == "revoked"
        with pytest.raises(InvalidState, match="revoked"):
            await services.service_tokens.rotate(EDGED, record.token_id)
        listed = (await ask("list_service_tokens", services, session))["service_tokens"]
        assert [(item["token_id"], item["status"]) for item in listed] == [
            (record.token_id, "revoked"), (other.token_id, "active"),
        ]  # fmt: skip
