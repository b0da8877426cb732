"""operations/files.py and the scope of files: what makes such a token, what reads it, and where it is worth nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from gate_helpers import LOCAL, make_gate
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import named
from patience import fail_after
from services_helpers import running_services
from trust_helpers import SECRET, TrustStack, busy_writer

from edged import operations
from edged.access.authority import EDGED
from edged.accounts.service_tokens import ServiceTokens
from edged.credentials import tokens
from edged.credentials.callers import Credential, Peer, Resource, ServiceToken, Streams, Token
from edged.credentials.claims import ClaimsRefused, read_caller
from edged.credentials.decision import decide
from edged.credentials.roles import CAPABILITIES, FILES, OPEN, SELF
from edged.errors import DependencyFailed, InvalidParams, Refused
from edged.operations.caller_sessions import Session
from edged.operations.services import Services
from edged.operations.streams import StreamRequest, admit
from edged.signing.keyring import Keyring

NOW = 2_000_000_000.0
FILES_CLAIMS = {"sub": "ann", "user_id": "ann", "iat": NOW, "exp": NOW + 60, "jti": "x", "scope": "files"}


@dataclass
class Box:
    """As many services as these tests need, with a service token and its session."""

    trust: TrustStack
    services: Services
    keyring: Keyring
    service_tokens: ServiceTokens
    token_id: str
    secret: str

    def session(self) -> Session:
        session = Session(Peer("main", "192.0.2.7"), "http")
        session.caller = self.trust.gate.authenticate(
            ServiceToken(self.secret, "192.0.2.7"), LOCAL, "http", at_files=True
        )
        return session

    async def generate(self, session: Session | None = None, **params: object) -> Any:
        given = {"user_id": "ann", **params}
        catalogue = operations.gather()
        return await catalogue.call("generate_files_token", given, self.services, session or self.session())

    def refusal(self, credential: Credential, *, at_files: bool = False) -> str:
        with pytest.raises(Refused) as caught:
            self.trust.gate.authenticate(credential, LOCAL, "ws", at_files=at_files)
        return caught.value.reason


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Box]:
    with fail_after(30):
        async with running_services(folder) as (trust, services):
            record, secret = await services.service_tokens.create(EDGED, "uploads")
            yield Box(trust, services, services.keyring, services.service_tokens, record.token_id, secret)


async def test_a_token_is_for_one_user_and_its_maker_acts_for_that_one(tmp_path: Path) -> None:
    """What the log says of it from then on: `service:<id> for <user_id>` (contract 7.3.5)."""
    async with opened(tmp_path) as box:
        session = box.session()
        made = await box.generate(session, expires_hours=24)
        assert (made.user_id, made.expires_in, made.token_type) == ("ann", 86400, "Bearer")
        assert session.caller is not None
        assert session.caller.who == f"service:{box.token_id} for ann"
        caller = box.trust.gate.authenticate(Token(made.token), LOCAL, "http", at_files=True)
        assert (caller.subject, caller.who, caller.capabilities) == ("ann", "ann", FILES)
        assert (caller.roles, caller.grants, caller.only_files, caller.epoch) == (frozenset(), frozenset(), True, 0)
        for bad in ("", "..", "a/b", "x" * 129):
            with pytest.raises(InvalidParams):
                await box.generate(user_id=bad)
        for hours in (0, 25, 1.5, "2", True):
            with pytest.raises(InvalidParams):
                await box.generate(expires_hours=hours)


async def test_while_no_key_may_sign_nothing_is_made(tmp_path: Path) -> None:
    """Contract 5.3: 503 while the RS256 key is distrusted and no other has taken over."""
    async with opened(tmp_path) as box:
        box.trust.ledger.deny({named("signing_key:key-1")})
        with pytest.raises(DependencyFailed, match="no RS256 key"):
            await box.generate()


async def test_a_service_token_that_is_revoked_meanwhile_makes_nothing(tmp_path: Path) -> None:
    """While the disk is slow to say until when the key must be published."""
    async with opened(tmp_path) as box:

        async def generate() -> None:
            with pytest.raises(Refused) as caught:
                await box.generate()
            assert caught.value.reason == "revoked"

        async with trio.open_nursery() as nursery, busy_writer(box.trust.db):
            nursery.start_soon(generate)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(box.service_tokens.revoke, box.token_id)


async def test_a_files_token_is_good_at_one_endpoint_only(tmp_path: Path) -> None:
    """Neither at another one, nor for a stream as password, token or in the query; and it is not refreshed."""
    async with opened(tmp_path) as box:
        text = (await box.generate()).token
        assert box.refusal(Token(text)) == "role_denied"
        for secret in (text, box.secret):
            for shown in (
                {"password": secret},
                {"token": secret},
                {"query": f"token={secret}"},
                {"query": f"jwt={secret}"},
            ):
                for action in ("read", "publish", "api"):
                    answer = admit(
                        box.services, StreamRequest(action=action, path="camera0", protocol="rtsp", id="1", **shown)
                    )
                    assert (answer.allowed, answer.reason in ("role_denied", "unknown_key")) == (False, True)
        with pytest.raises(Refused) as caught:
            box.trust.gate.enter_refresh(text, "http", 300.0)
        assert caught.value.reason == "role_denied"
        assert not len(box.trust.admissions)
        # What has ended says so first (contract 7.6).
        box.trust.ledger.deny({named("user:ann")})
        assert box.refusal(Token(text)) == box.refusal(Token(text), at_files=True) == "revoked"


@pytest.mark.parametrize(
    "more",
    [{"role": "admin"}, {"roles": ["admin"]}, {"permissions": ["*", "admin"]}, {"camera_access": ["*"]},
     {"mediamtx_permissions": [{"action": "publish", "path": "x"}]}, {"stream_access": {"read": ["*"]}}],
)  # fmt: skip
def test_whatever_else_it_says_it_opens_files_only(more: dict[str, object]) -> None:
    """The ceiling of what our RS256 key signs for files (contract 7.3, step 1)."""
    caller = read_caller({**FILES_CLAIMS, **more}, "text", issuer="", now=NOW, may_open_files=True)
    assert (caller.capabilities, caller.grants, caller.streams, caller.role) == (FILES, frozenset(), None, "none")
    assert caller.only_files


@given(
    st.text("files: readwtdl*", max_size=12) | st.sampled_from(["files", "files ", "files files", "files:read"]),
    st.none() | st.sampled_from(["admin", "viewer", "service", "files"]),
    st.none() | st.lists(st.sampled_from(["files", "files:*", "files:read", "token:mint", "*", "view"]), max_size=3),
    st.booleans(),
)  # fmt: skip
def test_only_the_very_scope_and_only_by_the_very_key_opens_files(
    scope: str, role: str | None, permissions: list[str] | None, may: bool
) -> None:
    """No other spelling, no other claim, no other key: nothing but that makes a caller for files."""
    said = {"scope": scope, "role": role, "permissions": permissions}
    claims = {name: value for name, value in {**FILES_CLAIMS, **said}.items() if value is not None}
    try:
        caller = read_caller(claims, "text", issuer="", now=NOW, may_open_files=may)
    except ClaimsRefused:
        assert not (may and scope == "files")
        return
    assert caller.only_files is (may and scope == "files")
    assert bool(caller.capabilities & FILES) is caller.only_files
    assert "token:mint" not in caller.capabilities


@given(st.sampled_from(sorted(CAPABILITIES)), st.sampled_from(["camera0", "*", ""]))
def test_what_a_files_caller_may_do_is_files(capability: str, name: str) -> None:
    """Asked of everything there is, with and without a camera."""
    caller = read_caller(FILES_CLAIMS, "text", issuer="", now=NOW, may_open_files=True)
    resource = Resource(name, frozenset({name} if name else ()))
    assert decide(caller, capability, resource, now=NOW).allowed is (capability in FILES)
    assert decide(caller, SELF, now=NOW).allowed
    assert decide(caller, OPEN, now=NOW).allowed
    assert caller.streams != Streams()


async def test_es256_and_shared_secrets_make_no_files_token(tmp_path: Path) -> None:
    """Contract 7.2: the RS256 key of our own issuer alone; another issuer's name in it is refused before."""
    async with opened(tmp_path) as box:
        now = box.trust.clock.now()
        claims = {**FILES_CLAIMS, "iat": now, "exp": now + 60}
        for text in (await box.keyring.sign(claims, "ES256"), tokens.sign({**claims, "iss": "edged"}, SECRET)):
            assert box.refusal(Token(text), at_files=True) in ("role_denied", "untrusted_issuer")
        good = await box.keyring.sign(claims, "RS256")
        assert box.trust.gate.authenticate(Token(good), LOCAL, "http", at_files=True).only_files


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda data: data.decode("latin-1")))
def test_whatever_is_shown_as_a_service_token_is_refused_and_nothing_else_happens(text: str) -> None:
    """No text makes the gate fail in another way."""

    async def show() -> None:
        from trust_helpers import Counted

        from edged.access.admissions import Admissions
        from edged.access.ledger import Ledger
        from edged.clock import Clock

        gate = make_gate(Ledger(), Admissions(), Clock(), Counted())
        with pytest.raises(Refused) as caught:
            gate.authenticate(ServiceToken(text, "192.0.2.1"), LOCAL, "http", at_files=True)
        assert caught.value.reason == "unknown_key"

    trio.run(show)
