"""access/authority.py: a grant is asked for again right before its commit, after it, and before it is told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from gate_helpers import LOCAL
from trust_helpers import TrustStack, busy_writer, rows, running_trust, until

import edged
from edged.access.authority import EDGED, Asker, Authority, Proof
from edged.accounts.api_keys import ForeignKey
from edged.accounts.service_tokens import ServiceTokens
from edged.credentials.callers import ApiKey
from edged.errors import Refused, StoreFailed

FOLDERS = [Path(edged.__file__).parent / name for name in ("access", "accounts", "signing")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


async def an_asker(trust: TrustStack, *further: Callable[[], None]) -> tuple[str, Asker]:
    """An administrator's key, by its id, and its authority over keys."""
    record, secret = await trust.api_keys.create(EDGED, name="admin", role="admin")
    caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "http")
    return record.key_id, Asker(trust.gate, caller, "keys:admin", "http", further)


async def prepare(trust: TrustStack) -> None:
    """A key to rotate, one to resume, one to change, and a user."""
    for name in ("rotate", "resume", "change"):
        record, _ = await trust.api_keys.create(EDGED, name=name, role="viewer")
        if name == "resume":
            await trust.api_keys.suspend(record.key_id)
    await trust.users.create(EDGED, name="ann", role="viewer")
    await trust.users.create(EDGED, name="bob", role="viewer")
    await trust.users.disable("bob")


def key_named(trust: TrustStack, name: str) -> str:
    return next(record.key_id for record in trust.ledger.keys.values() if record.name == name)


def services(trust: TrustStack) -> ServiceTokens:
    return ServiceTokens(trust.registrar, trust.ledger, trust.admissions, trust.db, trust.clock)


Grant = Callable[[TrustStack, Authority], Awaitable[Any]]
GRANTS: dict[str, Grant] = {
    "create": lambda trust, asker: trust.api_keys.create(asker, name="new", role="admin"),
    "import": lambda trust, asker: trust.api_keys.import_all(asker, [ForeignKey("x" * 32, "new", "admin", 1.0)]),
    "rotate": lambda trust, asker: trust.api_keys.rotate(asker, key_named(trust, "rotate")),
    "resume": lambda trust, asker: trust.api_keys.resume(asker, key_named(trust, "resume")),
    "update": lambda trust, asker: trust.api_keys.update(
        asker, key_named(trust, "change"), {"role": "admin"}, lambda _before, _after: None
    ),
    "create a service token": lambda trust, asker: services(trust).create(asker, "new"),
    "import a service token": lambda trust, asker: services(trust).import_one(asker, "new", "y" * 32),
    "create a user": lambda trust, asker: trust.users.create(asker, name="eve", role="admin"),
    "widen a user": lambda trust, asker: trust.users.update(asker, "ann", {"role": "admin"}),
    "enable a user": lambda trust, asker: trust.users.enable(asker, "bob"),
}
TABLES = {
    "api_keys": "SELECT name, role, digest, previous_digest, suspended_at IS NULL FROM api_keys ORDER BY key_id",
    "service_tokens": "SELECT name, digest FROM service_tokens ORDER BY token_id",
    "users": "SELECT name, role, disabled_at IS NULL FROM users ORDER BY name",
}


def on_disk(path: Path) -> dict[str, list[tuple[object, ...]]]:
    return {table: rows(path, query) for table, query in TABLES.items()}


def known(trust: TrustStack, asker: str) -> tuple[object, ...]:
    """What is granted in memory, besides the key that asks; of the others not whether they are revoked."""
    ledger = trust.ledger
    keys = {
        (each.name, each.role, each.digest, each.suspended_at is None)
        for each in ledger.keys.values()
        if each.key_id != asker
    }
    users = {(each.name, each.role, each.disabled_at is None) for each in ledger.users.values()}
    return keys, users, set(ledger.service_tokens), ledger.find_service_token(b"")


async def refused(grant: Awaitable[Any], reasons: list[str]) -> None:
    with pytest.raises(Refused) as told:
        await grant
    reasons.append(str(told.value.reason))


@pytest.mark.parametrize("name", GRANTS)
async def test_a_grant_that_waits_is_not_made_for_whoever_was_revoked_meanwhile(path: Path, name: str) -> None:
    """It was allowed when it was asked for, and waits for the disk: nothing is written and nothing is known."""
    async with running_trust(path) as trust:
        await prepare(trust)
        key_id, asker = await an_asker(trust)
        before, stored, reasons = known(trust, key_id), on_disk(path), list[str]()
        async with trio.open_nursery() as nursery:
            async with busy_writer(trust.db):
                nursery.start_soon(partial(trust.api_keys.create, EDGED, name="first in the queue", role="viewer"))
                await trio.testing.wait_all_tasks_blocked()
                asker.check()
                nursery.start_soon(refused, GRANTS[name](trust, asker), reasons)
                await trio.testing.wait_all_tasks_blocked()
                pending = trust.api_keys.revoke(key_id)
            await pending
            await trust.api_keys.revoke(key_named(trust, "first in the queue"))
        assert reasons == ["revoked"]
        assert known(trust, key_id) == before
        left = on_disk(path)
        assert [row for row in left["api_keys"] if row[0] != "first in the queue"] == stored["api_keys"]
        assert (left["users"], left["service_tokens"]) == (stored["users"], stored["service_tokens"])


@pytest.mark.parametrize("name", GRANTS)
async def test_a_grant_whose_asker_is_revoked_while_it_is_written_is_taken_back(path: Path, name: str) -> None:
    """By the time that the revocation is answered it is neither on the disk nor in memory, nor told."""
    async with running_trust(path) as trust:
        await prepare(trust)
        key_id, asker = await an_asker(trust)
        before, stored, reasons = known(trust, key_id), on_disk(path), list[str]()
        async with trio.open_nursery() as nursery:
            async with busy_writer(trust.db):
                nursery.start_soon(refused, GRANTS[name](trust, asker), reasons)
                await trio.testing.wait_all_tasks_blocked()
                # The transaction is with the writer's thread by now.
                assert trust.db._waiting == 2
                pending = trust.api_keys.revoke(key_id)
            await pending
            assert (known(trust, key_id), on_disk(path)) == (before, stored)
        assert reasons == ["revoked"]
    assert on_disk(path) == stored


class Late:
    """An asker who is revoked between the commit and the answer."""

    made_by: frozenset[str] = frozenset()

    def check(self) -> None:
        pass

    def check_told(self) -> None:
        raise Refused("revoked")


@pytest.mark.parametrize("name", ["create", "create a service token"])
async def test_a_secret_whose_asker_is_revoked_before_it_is_told_opens_nothing(path: Path, name: str) -> None:
    """Committed and known, and the asker's task has not run yet: what nobody may hear of is denied for good."""
    async with running_trust(path) as trust:
        reasons: list[str] = []
        await refused(GRANTS[name](trust, cast(Authority, Late())), reasons)
        assert reasons == ["revoked"]
        assert [each.revoked_at is not None for each in trust.ledger.keys.values()] in ([True], [])
        assert [each.status for each in trust.ledger.service_tokens.values()] in (["revoked"], [])
        denied = "SELECT count(*) FROM revocations"
        await until(lambda: rows(path, denied) == [(1,)])


async def test_an_answer_is_withheld_from_whoever_was_revoked_after_the_commit(path: Path) -> None:
    """The very look of a caller's key, between the commit and the answer."""
    async with running_trust(path) as trust:
        key_id, asker = await an_asker(trust)
        withheld: list[str] = []

        async def work(_commit: object) -> str:
            await trio.lowlevel.checkpoint()
            return "a secret"

        job = trust.registrar.grant(asker, work, withhold=withheld.append)
        await job._done.wait()
        await trust.api_keys.revoke(key_id)
        with pytest.raises(Refused):
            await job.outcome()
        assert withheld == ["a secret"]


async def test_a_key_that_ends_its_own_secret_is_told_the_new_one(path: Path) -> None:
    """What the grant itself does to the asker is no reason to withhold the answer."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "http")
        asker = Asker(trust.gate, caller, "self", "http", ())
        _, new = await trust.api_keys.rotate(asker, record.key_id, 0)
        assert (trust.lets_in(secret), trust.lets_in(new)) == (False, True)


async def test_what_cannot_be_taken_back_now_is_taken_back_before_the_next_grant(path: Path) -> None:
    """The disk takes the grant and not its undoing: it is due like every denial, and nothing is built on top of it."""
    async with running_trust(path) as trust:
        key_id, asker = await an_asker(trust)
        reasons: list[str] = []
        await trust.db.write(lambda c: c.execute(
            "CREATE TRIGGER stay BEFORE DELETE ON api_keys BEGIN SELECT RAISE(ABORT, 'no room'); END"
        ))  # fmt: skip
        async with trio.open_nursery() as nursery:
            async with busy_writer(trust.db):
                nursery.start_soon(refused, GRANTS["create"](trust, asker), reasons)
                await trio.testing.wait_all_tasks_blocked()
                pending = trust.api_keys.revoke(key_id)
            with pytest.raises(StoreFailed, match="in force now, but not saved yet"):
                await pending
        assert "new" not in {each.name for each in trust.ledger.keys.values()}
        with pytest.raises(StoreFailed):
            await trust.api_keys.create(EDGED, name="on top", role="viewer")
        await trust.db.write(lambda c: c.execute("DROP TRIGGER stay"))
        await trust.api_keys.create(EDGED, name="on top", role="viewer")
        assert {row[0] for row in rows(path, "SELECT name FROM api_keys")} == {"admin", "on top"}
        assert rows(path, "SELECT identity FROM revocations") == [(f"key:{key_id}",)]


async def test_a_rule_of_the_grant_is_asked_again_too(path: Path) -> None:
    """Whoever was narrowed while it waited hands on no more than they may do by then."""
    async with running_trust(path) as trust:
        allowed = [True]

        def rule() -> None:
            if not allowed[0]:
                raise Refused("missing_scope")

        _, asker = await an_asker(trust, rule)
        reasons: list[str] = []
        async with trio.open_nursery() as nursery, busy_writer(trust.db):
            nursery.start_soon(partial(trust.api_keys.create, EDGED, name="first in the queue", role="viewer"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(refused, GRANTS["create"](trust, asker), reasons)
            await trio.testing.wait_all_tasks_blocked()
            allowed[0] = False
        assert reasons == ["missing_scope"]


async def test_a_proof_that_holds_no_more_grants_nothing(path: Path) -> None:
    """A code, or a token that is to be refreshed, is looked at as a credential is."""
    async with running_trust(path) as trust:
        reasons: list[str] = []

        def rule() -> None:
            raise Refused("revoked")

        await refused(trust.users.create(Proof(rule), name="eve", role="admin"), reasons)
        assert reasons == ["revoked"]
        assert trust.users.is_empty()


def test_what_changes_credentials_has_no_other_way_to_the_disk() -> None:
    """Kinds of credentials get a database that they can only read, and commit by what a grant is handed; the registrar,
    access.grants, which asks the authority around each write, and the keyring by itself are all that write."""
    writes = re.compile(r"db\.write\(")
    files = [file for folder in FOLDERS for file in folder.glob("*.py")]
    writers = {file.stem for file in files if writes.search(file.read_text())}
    assert writers == {"registrar", "grants", "keyring", "issuers", "limiter", "usage"}


async def test_a_revocation_waits_for_one_grant_at_most(path: Path) -> None:
    """Sixty grants wait for the disk: of them one more is made before the revocation is on it."""
    async with running_trust(path) as trust:
        key_id, asker = await an_asker(trust)
        made_by_then: list[int] = []
        reasons: list[str] = []

        async def make(number: int) -> None:
            await refused(trust.api_keys.create(asker, name=f"new {number}", role="viewer"), reasons)

        async with trio.open_nursery() as nursery:
            async with busy_writer(trust.db):
                for number in range(60):
                    nursery.start_soon(make, number)
                await trio.testing.wait_all_tasks_blocked()
                pending = trust.api_keys.revoke(key_id)
            await pending
            made_by_then.append(len(trust.ledger.keys))
        await until(lambda: len(trust.registrar._grants) == 0)
        assert (made_by_then, reasons) == ([0], ["revoked"] * 60)
        assert not trust.ledger.keys
