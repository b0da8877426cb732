"""accounts/service_tokens.py: durable when told, denied at once, two secrets at a time; what the gate makes of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from gate_helpers import LOCAL
from patience import fail_after
from trust_helpers import BrokenCommits, TrustStack, busy_writer, rows, running_trust

from edged.access.authority import EDGED
from edged.accounts.service_tokens import ServiceTokens
from edged.credentials.callers import ApiKey, Caller, Peer, ServiceToken
from edged.credentials.decision import Reason
from edged.credentials.roles import FILES
from edged.errors import InvalidParams, InvalidState, NotFound, RateLimited, Refused, StoreFailed

HERE = "192.0.2.7"
PRINTED = "ee6d52ece4fa6c4c8836820d2eb7feeb" + "6c78cbf2e2661ef76c9f5a805fc16340"


@dataclass
class Box:
    """A running trust with its service tokens, by a clock that tests move."""

    trust: TrustStack
    tokens: ServiceTokens
    time: list[float]

    def enter(self, secret: str, address: str = HERE) -> Caller:
        return self.trust.gate.authenticate(ServiceToken(secret, address), LOCAL, "http", at_files=True)

    def refusal(self, secret: str, address: str = HERE) -> str:
        with pytest.raises(Refused) as caught:
            self.enter(secret, address)
        assert self.trust.counted.failed[-1] == (caught.value.reason, "service_token", "http")
        return caught.value.reason


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Box]:
    time = [2_000_000_000.0]
    with fail_after(30):
        async with running_trust(folder / "trust.db", now=lambda: time[0]) as trust:
            tokens = ServiceTokens(trust.registrar, trust.ledger, trust.admissions, trust.db, trust.clock)
            tokens.load()
            yield Box(trust, tokens, time)


async def test_a_new_token_is_on_disk_by_its_hash_and_opens_files(tmp_path: Path) -> None:
    """The secret stands in no file; the caller is the service, and each use is counted as one."""
    async with opened(tmp_path) as box:
        record, secret = await box.tokens.create(EDGED, "uploads", ["192.0.2.0/24"])
        assert rows(tmp_path / "trust.db", "SELECT token_id, name, digest, networks FROM service_tokens") == [
            (record.token_id, "uploads", record.digest, '["192.0.2.0/24"]')
        ]
        assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        caller = box.enter(secret)
        assert (caller.method, caller.credential_id) == ("service_token", record.token_id)
        assert caller.capabilities >= FILES
        assert box.trust.counted.used == [("service_token", "http", "none")]


async def test_tokens_are_known_after_a_restart(tmp_path: Path) -> None:
    """With networks, the old secret's grace, and what was revoked."""
    async with opened(tmp_path) as box:
        held, first = await box.tokens.create(EDGED, "held", [HERE])
        _, second = await box.tokens.rotate(EDGED, held.token_id, 60)
        gone, lost = await box.tokens.create(EDGED, "gone")
        await box.tokens.revoke(gone.token_id)
    async with opened(tmp_path) as box:
        assert box.enter(first).credential_id == box.enter(second).credential_id == held.token_id
        assert box.refusal(second, "192.0.2.8") == "address_denied"
        assert (box.refusal(lost), (await box.tokens.get(gone.token_id)).status) == ("revoked", "revoked")
        box.time[0] += 60
        assert box.refusal(first) == "expired"
        assert box.enter(second)


async def test_two_secrets_are_good_for_the_grace_and_never_three(tmp_path: Path) -> None:
    """A rotation keeps id, name and networks; a second ends the first secret whatever grace it had; 0 ends at once."""
    async with opened(tmp_path) as box:
        record, first = await box.tokens.create(EDGED, "uploads", [HERE])
        inside = [box.trust.gate.admit(box.enter(first), "http", lambda cause, _by: ended.append(cause))]
        ended: list[str] = []
        _, second = await box.tokens.rotate(EDGED, record.token_id)
        assert box.enter(first).credential_id == box.enter(second).credential_id == record.token_id
        assert inside[0].deadline is not None
        after, third = await box.tokens.rotate(EDGED, record.token_id, 0)
        assert (after.name, after.networks) == ("uploads", ("192.0.2.7/32",))
        assert box.refusal(first) == "unknown_key"
        assert box.refusal(second) == "expired"
        assert box.enter(third)
        assert inside[0].deadline <= box.trust.clock.monotonic()


async def test_a_revoked_token_is_refused_before_anything_is_on_disk(tmp_path: Path) -> None:
    """Both its secrets, and whoever is inside is ended; again is fine; a new secret is for the living."""
    async with opened(tmp_path) as box:
        record, first = await box.tokens.create(EDGED, "uploads")
        _, second = await box.tokens.rotate(EDGED, record.token_id)
        ended: list[str] = []
        box.trust.gate.admit(box.enter(second), "http", lambda cause, _by: ended.append(cause))
        async with busy_writer(box.trust.db):
            waiting = box.tokens.revoke(record.token_id)
            # What is in memory says so as what is on disk does.
            assert box.trust.ledger.service_tokens[record.token_id].status == "revoked"
            assert (box.refusal(first), box.refusal(second), ended) == ("revoked", "revoked", ["revoked"])
        await waiting
        assert await box.tokens.revoke(record.token_id) == await box.tokens.get(record.token_id)
        assert box.trust.counted.revocations == ["service_token"]
        with pytest.raises(InvalidState, match="revoked"):
            await box.tokens.rotate(EDGED, record.token_id)
        identity = f"service:{record.token_id}"
        assert rows(tmp_path / "trust.db", "SELECT identity FROM revocations") == [(identity,)]


async def test_a_disk_that_fails_grants_nothing_and_gives_nothing_back(tmp_path: Path) -> None:
    """No new token and no new secret; what was denied stays so, and the caller is told."""
    async with opened(tmp_path) as box:
        record, secret = await box.tokens.create(EDGED, "uploads")
        broken = await BrokenCommits(box.trust.db).begin()
        for change in (
            box.tokens.create(EDGED, "more"),
            box.tokens.rotate(EDGED, record.token_id),
            box.tokens.import_one(EDGED, "x", "y" * 40),
        ):
            with pytest.raises(StoreFailed):
                await change
        assert box.trust.ledger.service_tokens == {record.token_id: record}
        assert box.enter(secret)
        with pytest.raises(StoreFailed):
            await box.tokens.revoke(record.token_id)
        assert box.refusal(secret) == "revoked"
        await broken.mend()


async def test_a_revocation_during_a_rotation_wins(tmp_path: Path) -> None:
    """The rotation is told so, and neither secret is good."""
    async with opened(tmp_path) as box:
        record, secret = await box.tokens.create(EDGED, "uploads")

        async def rotate() -> None:
            with pytest.raises(InvalidState):
                await box.tokens.rotate(EDGED, record.token_id)

        async with trio.open_nursery() as nursery:
            async with busy_writer(box.trust.db):
                nursery.start_soon(rotate)
                await trio.testing.wait_all_tasks_blocked(0.05)
                denied = box.tokens.revoke(record.token_id)
            await denied
        assert box.refusal(secret) == "revoked"


async def test_it_is_good_from_its_networks_only(tmp_path: Path) -> None:
    """Told apart in the log and the metric; outside it is one more failure. What is revoked says so from anywhere."""
    async with opened(tmp_path) as box:
        record, secret = await box.tokens.create(EDGED, "uploads", ["192.0.2.0/24", "2001:db8::/32"])
        for good in ("192.0.2.0", "192.0.2.255", "::ffff:192.0.2.9", "2001:db8::1"):
            assert box.enter(secret, good)
        for wrong in ("192.0.3.0", "2001:db9::", "::ffff:192.0.3.9", "127.0.0.1", ""):
            assert box.refusal(secret, wrong) == Reason.ADDRESS_DENIED
        await box.tokens.revoke(record.token_id)
        assert box.refusal(secret, "127.0.0.1") == "revoked"


async def test_what_nobody_made_is_unknown_and_the_guides_token_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that is good elsewhere is none; the printed one is named in the log (contract S3-1)."""
    async with opened(tmp_path) as box:
        _, key = await box.trust.api_keys.create(EDGED, name="k", role="admin")
        _, token = await box.tokens.create(EDGED, "uploads")
        for text in (PRINTED, "", "0" * 64, key, token.upper(), token[:-1], f" {token}"):
            assert box.refusal(text) == "unknown_key"
        assert "the upload server guide's sample token" in capsys.readouterr().out
        with pytest.raises(Refused) as caught:
            box.trust.gate.authenticate(ApiKey(token), LOCAL, "http")
        assert caught.value.reason == "unknown_key"


async def test_a_service_token_is_refused_at_every_other_endpoint(tmp_path: Path) -> None:
    """An endpoint that is not under /v1/files refuses it for its role, whoever hands it there (contract 7.3.5)."""
    async with opened(tmp_path) as box:
        _, secret = await box.tokens.create(EDGED, "uploads")
        with pytest.raises(Refused) as caught:
            box.trust.gate.authenticate(ServiceToken(secret, HERE), LOCAL, "ws")
        assert caught.value.reason == "role_denied"


async def test_one_that_is_in_use_elsewhere_is_taken_over_once(tmp_path: Path) -> None:
    """Its users need not change (contract S3-22); again it is the same token; a sample is refused by name."""
    async with opened(tmp_path) as box:
        text = "an old token of some length, 40 and more"
        record, fresh = await box.tokens.import_one(EDGED, "uploads", text, [HERE])
        assert (fresh, box.enter(text).credential_id) == (True, record.token_id)
        assert await box.tokens.import_one(EDGED, "another name", text) == (record, False)
        await box.tokens.revoke(record.token_id)
        again, fresh = await box.tokens.import_one(EDGED, "back again", text)
        assert (again.token_id, again.status, fresh) == (record.token_id, "revoked", False)
        assert box.refusal(text) == "revoked"
        with pytest.raises(InvalidParams, match="sample token, known to everybody"):
            await box.tokens.import_one(EDGED, "sample", PRINTED)


async def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    """A name, networks, a grace, an id."""
    async with opened(tmp_path) as box:
        for name, networks in (("", None), ("x" * 101, None), ("x", []), ("x", ["nowhere"]), ("x", ["::/0"] * 65)):
            with pytest.raises(InvalidParams):
                await box.tokens.create(EDGED, name, networks)
        record, _ = await box.tokens.create(EDGED, "x", ["0.0.0.0/0"])
        for grace in (-1, float("inf"), float("nan")):
            with pytest.raises(InvalidParams):
                await box.tokens.rotate(EDGED, record.token_id, grace)
        with pytest.raises(NotFound):
            await box.tokens.rotate(EDGED, "svc_0")
        with pytest.raises(NotFound):
            await box.tokens.revoke("svc_0")
        assert len(box.trust.ledger.service_tokens) == 1


async def test_guessing_one_costs_time_and_a_good_one_gets_through(tmp_path: Path) -> None:
    """As for keys (contract C-43): ten different wrong ones from an address, then a wait, but not for who holds one."""
    async with opened(tmp_path) as box:
        _, secret = await box.tokens.create(EDGED, "uploads")
        _, elsewhere = await box.tokens.create(EDGED, "elsewhere", ["192.0.2.8"])
        peer = Peer("main", HERE)

        def show(text: str) -> Caller:
            return box.trust.gate.authenticate(ServiceToken(text, HERE), peer, "http", at_files=True)

        for number in range(10):
            with pytest.raises(Refused):
                show(f"{number:064}")
        with pytest.raises(RateLimited):
            show("f" * 64)
        assert show(secret).method == "service_token"
        # Whoever holds one and shows it from elsewhere is told so, and guesses nothing.
        for _ in range(20):
            with pytest.raises(Refused) as caught:
                show(elsewhere)
            assert caught.value.reason == "address_denied"
