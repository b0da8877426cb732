"""access/gate.py: the one place that says yes or no, says why, and counts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from gate_helpers import LOCAL, make_gate
from identity_helpers import named
from msgspec.structs import replace
from trust_helpers import SECRET, Counted

from edged.access.admissions import Admissions
from edged.access.ledger import Ledger
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import ApiKey, Credential, LocalUser, NoCredential, Resource, Token
from edged.credentials.decision import Reason
from edged.credentials.tokens import TokenRefused, issue_claims, sign
from edged.errors import Refused


@dataclass
class Box:
    """A gate with a clock that tests move."""

    now: float = 2_000_000_000.0
    ledger: Ledger = field(default_factory=Ledger)
    counted: Counted = field(default_factory=Counted)
    tallied: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admissions = Admissions()
        self.gate = make_gate(
            self.ledger, self.admissions, Clock(system=lambda: self.now), self.counted,
            shared_secrets=[SECRET], tally=self.tallied.append,
        )  # fmt: skip

    def key(self, **changes: Any) -> tuple[KeyRecord, ApiKey]:
        key_id, secret, digest = mint()
        record = KeyRecord(key_id=key_id, name="k", role="viewer", digest=digest, created_at=self.now)
        record = replace(record, **changes)
        self.ledger.put_key(record)
        return record, ApiKey(secret)

    def token(self, seconds: int = 3600, **claims: object) -> Token:
        return Token(sign({**issue_claims("ann", role="viewer", now=self.now, expires_in=seconds), **claims}, SECRET))

    def refusal(self, credential: Credential) -> str:
        with pytest.raises(Refused) as caught:
            self.gate.authenticate(credential, LOCAL, "http")
        assert self.counted.failed[-1][0] == caught.value.reason
        assert self.counted.failed[-1][2] == "http"
        return caught.value.reason


@pytest.fixture
async def box() -> Box:
    return Box()


async def test_every_refusal_has_its_reason_and_is_counted_once(box: Box) -> None:
    """The exact reason, the method it was tried by, and where."""
    assert box.refusal(NoCredential()) == Reason.MISSING
    assert box.refusal(ApiKey("camera_service_sk_" + "0" * 64)) == Reason.UNKNOWN_KEY
    assert box.refusal(ApiKey("")) == Reason.UNKNOWN_KEY
    assert box.refusal(box.key(expires_at=box.now)[1]) == Reason.EXPIRED
    assert box.refusal(box.key(revoked_at=1.0)[1]) == Reason.REVOKED
    assert box.refusal(box.key(revoked_at=1.0, expires_at=1.0)[1]) == Reason.REVOKED
    assert box.refusal(Token("a.b.c")) == Reason.MALFORMED
    assert box.refusal(box.token(-1)) == Reason.EXPIRED
    assert [count[1] for count in box.counted.failed] == [
        "none", "api_key", "api_key", "api_key", "api_key", "api_key", "jwt_local", "jwt_local",
    ]  # fmt: skip
    assert box.counted.used == []
    assert box.tallied == []


async def test_a_good_credential_is_counted_with_its_role(box: Box) -> None:
    """Keys are tallied by their id; tokens and local users are not."""
    record, key = box.key(role="user")
    assert box.gate.authenticate(key, LOCAL, "ws").credential_id == record.key_id
    assert box.gate.authenticate(box.token(), LOCAL, "rtsp").subject == "ann"
    assert box.gate.authenticate(LocalUser(1000), LOCAL, "uds").role == "admin"
    assert box.counted.used == [
        ("api_key", "ws", "operator"),
        ("jwt_local", "rtsp", "viewer"),
        ("peercred", "uds", "admin"),
    ]
    assert box.tallied == [record.key_id]
    assert box.counted.failed == []


async def test_a_refusal_tells_no_secret(box: Box) -> None:
    """Neither the sentence nor the fields hold what was presented."""
    secret = "camera_service_sk_" + "5" * 64
    with pytest.raises(Refused) as caught:
        box.gate.authenticate(ApiKey(secret), LOCAL, "ws")
    assert secret not in repr((str(caught.value), caught.value.fields, caught.value.hint))
    assert secret not in repr(ApiKey(secret))


async def test_a_token_is_judged_anew_every_time_though_verified_once(box: Box) -> None:
    """Its end and its revocation are seen although its signature is remembered."""
    token = box.token(100)
    caller = box.gate.authenticate(token, LOCAL, "ws")
    assert box.gate.authenticate(token, LOCAL, "ws") is caller
    box.now += 100
    assert box.refusal(token) == Reason.EXPIRED
    other = box.token(1000)
    box.ledger.deny([named(f"jti:{box.gate.authenticate(other, LOCAL, 'ws').claims['jti']}")])
    assert box.refusal(other) == Reason.REVOKED


async def test_only_so_many_tokens_are_remembered(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; a forgotten token is verified again."""
    monkeypatch.setattr("edged.access.finders._REMEMBERED", 3)
    tokens = [box.token() for _ in range(5)]
    for token in [*tokens, tokens[0]]:
        box.gate.authenticate(token, LOCAL, "ws")
    assert len(box.gate._tokens._verified) == 3


async def test_authorize_asks_for_standing_first(box: Box) -> None:
    """Revoked comes before expired, expired before cameras, cameras before capabilities (contract 7.6)."""
    record, key = box.key(expires_at=box.now + 10, camera_access=("camera0",))
    caller = box.gate.authenticate(key, LOCAL, "ws")
    mine, foreign = Resource.of_camera("camera0", "/dev/video0"), Resource.of_camera("camera1")

    def reason(capability: str, resource: Resource) -> str:
        with pytest.raises(Refused) as caught:
            box.gate.authorize(caller, capability, "ws", resource)
        assert box.counted.failed[-1] == (caught.value.reason, "api_key", "ws")
        assert caught.value.fields == {"required": capability, "have": "viewer"}
        return caught.value.reason

    box.gate.authorize(caller, "camera:read", "ws", mine)
    assert reason("camera:delete", mine) == Reason.MISSING_SCOPE
    assert reason("camera:delete", foreign) == Reason.CAMERA_DENIED
    box.now += 10
    assert reason("camera:delete", foreign) == Reason.EXPIRED
    box.ledger.deny([named(f"key:{record.key_id}")])
    assert reason("camera:delete", foreign) == Reason.REVOKED


async def test_nobody_is_asked_for_a_credential(box: Box) -> None:
    """Without a caller everything but an open operation is refused as missing."""
    with pytest.raises(Refused) as caught:
        box.gate.authorize(None, "camera:read", "http")
    assert caught.value.reason == Reason.MISSING
    box.gate.authorize(None, "none", "http")
    assert box.counted.failed == [("missing", "none", "http")]


async def test_judging_counts_nothing(box: Box) -> None:
    """For rows of a list: the same answer, silently."""
    record, key = box.key()
    caller = box.gate.authenticate(key, LOCAL, "ws")
    assert box.gate.judge(caller, "camera:read").allowed
    assert box.gate.judge(caller, "keys:admin") == (False, Reason.MISSING_SCOPE)
    assert box.gate.judge(None, "keys:admin") == (False, Reason.MISSING)
    box.ledger.deny([named(f"key:{record.key_id}")])
    assert box.gate.judge(caller, "camera:read") == (False, Reason.REVOKED)
    assert box.counted.failed == []


async def test_an_admission_ends_with_its_credential(box: Box) -> None:
    """Its deadline is the credential's end, in monotonic time; a key without an end has none."""
    _, endless = box.key()
    _, ending = box.key(expires_at=box.now + 50)
    on_terminate = lambda cause, by: None  # noqa: E731
    assert box.gate.admit(box.gate.authenticate(endless, LOCAL, "ws"), "ws", on_terminate).deadline is None
    before = trio.current_time()
    admission = box.gate.admit(
        box.gate.authenticate(ending, LOCAL, "rtsp"), "rtsp", on_terminate, path="camera0", session="s"
    )
    assert admission.deadline is not None
    assert before + 50 <= admission.deadline <= trio.current_time() + 50
    assert (admission.path, admission.session) == ("camera0", "s")
    assert box.admissions.has_session("rtsp", "s")


async def test_an_admission_by_a_replaced_secret_ends_with_its_grace(box: Box) -> None:
    """Also for someone who was looked at before the rotation and stays only now."""
    record, key = box.key()
    caller = box.gate.authenticate(key, LOCAL, "ws")
    box.ledger.put_key(
        replace(record, digest=b"n" * 32, previous_digest=record.digest, previous_valid_until=box.now + 20)
    )
    admission = box.gate.admit(caller, "ws", lambda cause, by: None)
    assert admission.deadline is not None
    assert admission.deadline <= trio.current_time() + 20


@pytest.mark.parametrize("why", [Reason.REVOKED, Reason.EXPIRED])
async def test_nobody_is_admitted_whose_credential_has_ended_meanwhile(box: Box, why: Reason) -> None:
    """An endpoint that waited between looking and admitting: the revocation has come and gone, so the gate says no."""
    record, key = box.key(expires_at=box.now + 10)
    caller = box.gate.authenticate(key, LOCAL, "ws")
    if why is Reason.REVOKED:
        box.ledger.deny([named(f"key:{record.key_id}")])
    else:
        box.now += 10
    with pytest.raises(Refused) as caught:
        box.gate.admit(caller, "ws", lambda cause, by: None)
    assert caught.value.reason == why
    assert len(box.admissions) == 0


async def test_verifying_a_token_counts_no_use(box: Box) -> None:
    """For validate_token: the caller, or the reason; nothing is counted either way."""
    token = box.token(100)
    caller = box.gate.verify_token(token.text)
    assert caller.subject == "ann"
    box.ledger.deny(caller.identities)
    with pytest.raises(TokenRefused) as caught:
        box.gate.verify_token(token.text)
    assert caught.value.reason is Reason.REVOKED
    with pytest.raises(TokenRefused) as caught:
        box.gate.verify_token(box.token(-1).text)
    assert caught.value.reason is Reason.EXPIRED
    assert (box.counted.used, box.counted.failed) == ([], [])


async def test_a_gate_without_shared_secrets_takes_no_token(box: Box) -> None:
    """None by default: then HS256 tokens are refused."""
    gate = make_gate(box.ledger, box.admissions, Clock(), box.counted)
    with pytest.raises(Refused) as caught:
        gate.authenticate(box.token(), LOCAL, "ws")
    assert caught.value.reason == Reason.BAD_SIGNATURE
    assert "no shared secret configured" in str(caught.value)


async def test_a_session_of_edgeds_own_child_is_inside_by_right(box: Box) -> None:
    """No revocation reaches it, and no sweep takes it for a stranger's."""
    box.gate.admit_internal("rtsp", "camera0", "s1")
    assert box.admissions.has_session("rtsp", "s1")
    [admission] = box.admissions
    admission.on_terminate("revoked", "")
    assert admission.caller.method == "internal"
