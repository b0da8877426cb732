"""One conversation: order, barriers, limits, dialects, credentials and how it ends (contract 0, 3, 10.3, 10.4)."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from rpc_helpers import NOW, Box, Client, camera
from structlog.testing import capture_logs

from edged.wire import jsonrpc


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A services in which calls may wait."""
    with fail_after(10):
        async with trio.open_nursery() as nursery:
            yield Box(nursery)
            nursery.cancel_scope.cancel()


def entered(box: Box, role: str = "operator", member: str = "auth_token") -> Client:
    """A client that is in; its dialect follows from the member."""
    client = box.open()
    assert client.enter(box.make_key(role), member)["authenticated"]
    return client


async def settle() -> None:
    """Let every task run as far as it can."""
    with fail_after(5):
        await trio.testing.wait_all_tasks_blocked()


# --- calls that memory answers ------------------------------------------------------------------------------------


def test_ping_needs_no_credential() -> None:
    """Clients ask before they log in, and while they wait for their user."""
    box = Box()
    assert box.open().ask("ping")["result"] == "pong"
    assert box.counts.failed == []


@pytest.mark.parametrize("params", [{}, None, [], {"auth_token": "nonsense"}, {"anything": 1}])
def test_ping_takes_whatever_stands_in_params(params: object) -> None:
    """Stateless clients put their token everywhere; a bad one there is no failed login."""
    box = Box()
    assert box.open().ask("ping", params)["result"] == "pong"
    assert box.counts.failed == []


def test_a_call_without_credential_is_told_what_to_do() -> None:
    """v2 by default: one error, no result."""
    answer = Box().open().ask("get_camera_list")
    assert "result" not in answer
    assert answer["error"]["code"] == -32001
    assert answer["error"]["data"]["reason"] == "auth_required"
    assert "authenticate" in answer["error"]["data"]["hint"]


def test_an_unknown_method_is_told_by_both_dialects() -> None:
    """Notifications called as methods are unknown methods too."""
    box = Box()
    for name in ("nothing", "camera_status_update", "__init__", ""):
        old, new = box.open("compat").ask(name), box.open().ask(name)
        assert old["error"]["code"] == new["error"]["code"] == -32601
        assert old["result"] is None
        assert "result" not in new
    assert set(box.counts.answered) == {("unknown", "unknown_method")}


def test_bad_params_name_the_member() -> None:
    """The text is all that some clients show."""
    client = entered(Box())
    error = client.ask("get_camera_status", {})["error"]
    assert error["code"] == -32602
    assert "device" in error["message"]
    assert client.ask("get_camera_status", {"device": 5})["error"]["code"] == -32602
    assert client.ask("get_camera_status", ["camera0"])["error"]["code"] == -32602


def test_a_notification_is_run_and_never_answered() -> None:
    """Not even with an error."""
    client = Box().open()
    for method, params in (
        ("ping", {}),
        ("nothing", {}),
        ("get_camera_list", {}),
        ("break_down", {}),
        ("authenticate", {"token": 5}),
    ):
        client.send({"jsonrpc": "2.0", "method": method, "params": params})
    assert client.outbox.take() == []
    key = Box().make_key()
    client.send({"jsonrpc": "2.0", "method": "authenticate", "params": {"token": key}})
    assert client.outbox.take() == []


def test_a_defect_of_ours_costs_one_answer_and_tells_a_number_only() -> None:
    """The log has the rest under the same number, and the conversation goes on."""
    client = Box().open()
    for method in ("break_down", "give_nonsense"):
        with capture_logs() as logs:
            error = client.ask(method)["error"]
        assert error["code"] == -32603
        assert "hunter2" not in json.dumps(error)
        assert [entry["incident"] for entry in logs] == [error["data"]["incident"]]
    assert client.ask("ping")["result"] == "pong"


def test_an_unheard_of_error_is_an_internal_one_with_its_sentence() -> None:
    """Its sentence was written to be told."""
    error = Box().open().ask("raise_unknown")["error"]
    assert (error["code"], error["data"]["detail"], error["data"]["hint"]) == (-32603, "odd", "do nothing")


def test_garbage_is_answered_and_the_conversation_goes_on() -> None:
    """-32700 for what is no JSON, -32600 for JSON that is no request."""
    client = Box().open()
    for raw, code in ((b"{", -32700), (b"\xff", -32700), (b"[]", -32600), (b"{}", -32600), (b"7", -32600)):
        client.send(raw)
        (answer,) = client.outbox.take()
        assert (answer["error"]["code"], answer["id"]) == (code, None)
    assert client.ask("ping")["result"] == "pong"


# --- dialects -----------------------------------------------------------------------------------------------------


def test_token_speaks_v1_and_auth_token_v2() -> None:
    """Chosen by the first authenticate, for as long as the connection lives."""
    box = Box()
    old, new = entered(box, member="token"), entered(box, member="auth_token")
    assert old.ask("get_camera_list")["result"]["cameras"][0]["device"] == "/dev/video4"
    assert new.ask("get_camera_list")["result"]["cameras"][0]["device"] == "camera0"
    assert old.rpc.session.pushed
    assert not new.rpc.session.pushed
    old.enter(box.make_key(), "auth_token")
    assert old.ask("get_camera_list")["result"]["cameras"][0]["device"] == "/dev/video4"


def test_a_failed_first_authenticate_settles_the_dialect_too() -> None:
    """Guide S1's clients read the result of their first try."""
    client = Box().open()
    assert client.enter("nonsense", "token") == {"authenticated": False, "error": "Invalid or expired API key"}
    assert client.ask("get_camera_list")["result"] is None


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"token": "a.b.c"}, "JWT token"),
        ({"token": "a.b.c", "auth_type": "api_key"}, "API key"),
        ({"token": "x"}, "API key"),
        ({"token": "x", "auth_type": "jwt"}, "JWT token"),
        ({"token": "x", "auth_token": "y", "auth_type": "jwt"}, "JWT token"),
    ],
)
def test_v1_fails_softly_and_says_of_which_kind(params: object, text: str) -> None:
    """Contract S1-26, S1-39."""
    answer = Box().open().ask("authenticate", params)
    assert answer["result"] == {"authenticated": False, "error": f"Invalid or expired {text}"}
    assert "error" not in answer


def test_v2_fails_with_an_error() -> None:
    """The web client takes a resolved promise for a login (contract C-2)."""
    answer = Box().open().ask("authenticate", {"auth_token": "nonsense"})
    assert answer["error"]["code"] == -32001
    assert answer["error"]["data"]["reason"] == "auth_failed"
    assert "result" not in answer


def test_authenticate_with_nothing_satisfies_both_readers_on_8080() -> None:
    """Error and result in one frame there, strict elsewhere (contract C-3)."""
    for params in (None, {}, {"token": None}, {"token": ""}):
        old, new = Box().open("compat").ask("authenticate", params), Box().open().ask("authenticate", {})
        assert old["error"]["message"] == "Authentication required"
        assert old["result"] == {"authenticated": False, "error": "Authentication required"}
        assert new["error"]["data"]["reason"] == "auth_required"
        assert "result" not in new


def test_authenticate_with_wrong_types_is_invalid_params() -> None:
    """And settles no dialect."""
    client = Box().open()
    assert client.ask("authenticate", {"token": 5})["error"]["code"] == -32602
    assert "result" not in client.ask("nothing")


@pytest.mark.parametrize("member", ["token", "auth_token"])
def test_an_auth_type_that_does_not_exist_is_told_with_those_that_do(member: str) -> None:
    """In both dialects; the credential is not looked at, the session stays who it was, and the word is not repeated."""
    box = Box()
    client = entered(box, member=member)
    for word in ("foo", "JWT", "bearer", "x.y.z", "camera_service_sk_" + "1" * 64):
        told = client.ask("authenticate", {member: "x.y.z", "auth_type": word})["error"]
        assert (told["code"], told["message"]) == (-32602, "Invalid params: auth_type is none of jwt, api_key, auto")
        assert word not in told["message"] + told["data"]["hint"]
    assert client.ask("get_camera_list")["result"]["total"] == 2
    assert box.counts.failed == []
    for known in ("jwt", "api_key", "auto", "", None):
        told = Box().open().ask("authenticate", {member: "x.y.z", "auth_type": known})
        assert "Invalid params" not in str(told)


def test_the_subprotocol_forces_the_dialect() -> None:
    """Whatever the listener and the first authenticate say."""
    box = Box()
    new = box.open("compat", subprotocol="jsonrpc-2.0")
    assert "result" not in new.ask("nothing")
    new.enter(box.make_key(), "token")
    assert "result" not in new.ask("nothing")
    assert box.open("main", subprotocol="camera-v1").ask("nothing")["result"] is None
    assert "result" not in box.open("main", subprotocol="mqtt").ask("nothing")


def test_an_unknown_camera_is_null_to_v1_status_only() -> None:
    """Its clients test for a falsy answer (contract C-13)."""
    box = Box()
    old, new = entered(box, member="token"), entered(box)
    answer = old.ask("get_camera_status", {"device": "camera9"})
    assert answer["result"] is None
    assert "error" not in answer
    assert old.ask("take_snapshot", {"device": "camera9"})["error"]["code"] == -32004
    assert new.ask("get_camera_status", {"device": "camera9"})["error"]["code"] == -32010


def test_both_names_of_a_camera_are_understood() -> None:
    """A script may say /dev/video4 to v2, too."""
    client = entered(Box())
    for device in ("camera0", "/dev/video4"):
        assert client.ask("get_camera_status", {"device": device})["result"]["device"] == "camera0"


def test_an_administrator_of_v2_sees_device_files() -> None:
    """And sees them no more after logging in as somebody else."""
    box = Box()
    client = entered(box, "admin")
    assert client.ask("get_camera_list")["result"]["cameras"][0]["device_path"] == "/dev/video4"
    client.enter(box.make_key("viewer"), "auth_token")
    assert client.ask("get_camera_list")["result"]["cameras"][0]["device_path"] == "camera0"


# --- credentials --------------------------------------------------------------------------------------------------


def test_a_failed_new_login_leaves_the_session_without_any() -> None:
    """Who tried to become somebody else is not left who they were (contract S0-17)."""
    client = entered(Box())
    assert client.rpc.authenticated
    client.ask("authenticate", {"auth_token": "nonsense"})
    assert not client.rpc.authenticated
    assert client.ask("whoami")["error"]["code"] == -32001


@pytest.mark.parametrize("member", ["token", "auth_token"])
def test_a_stateless_call_logs_its_session_in(member: str) -> None:
    """One call with a credential, and the next needs none (contract C-12)."""
    box = Box()
    client = box.open()
    assert client.ask("whoami", {member: box.make_token()})["result"]["user_id"] == "alice"
    assert client.ask("whoami")["result"]["user_id"] == "alice"
    assert len(box.admissions) == 1


def test_a_stateless_call_with_a_bad_credential_is_refused() -> None:
    """And counted once, with its reason."""
    box = Box()
    error = box.open().ask("get_camera_list", {"auth_token": "nonsense"})["error"]
    assert (error["code"], error["data"]["reason"]) == (-32001, "auth_failed")
    assert box.counts.failed == ["unknown_key"]


def test_a_stateless_call_does_not_change_who_is_in() -> None:
    """A client that sends its token with every call is not logged in anew with every call."""
    box = Box()
    client = entered(box)
    used = len(box.counts.used)
    client.ask("get_camera_list", {"auth_token": "nonsense"})
    client.ask("get_camera_list", {"auth_token": box.make_token()})
    assert len(box.counts.used) == used
    assert client.ask("whoami")["result"]["user_id"].startswith("key:")


def test_the_head_of_the_upgrade_may_hold_the_credential() -> None:
    """Bearer first, then X-API-Key; the first good one counts."""
    box = Box()
    key, token = box.make_key(), box.make_token()
    for headers in (
        {"authorization": f"Bearer {token}"},
        {"authorization": "Bearer x", "x-api-key": key},
        {"x-api-key": key},
        {"authorization": f"bearer  {key}"},
    ):
        assert box.open(headers=headers).rpc.authenticated
    assert box.counts.failed == []
    assert len(box.counts.used) == 4


def test_a_bad_credential_in_the_head_is_neither_an_error_nor_a_failure() -> None:
    """The client's own authenticate will tell it (contract C-42)."""
    box = Box()
    revoked = box.make_key(revoked_at=NOW)
    for headers in (
        {"authorization": "Bearer a.b.c"},
        {"authorization": "Basic x"},
        {"authorization": "Bearer "},
        {"x-api-key": "nonsense"},
        {"x-api-key": revoked},
        {"x-api-key": box.make_key(expires_at=NOW - 1)},
        {"authorization": f"Bearer {box.make_token(expires_in=-3600)}"},
    ):
        client = box.open(headers=headers)
        assert not client.rpc.authenticated
        assert client.ask("ping")["result"] == "pong"
    assert box.counts.failed == []
    assert box.counts.used == []


def test_whoever_may_open_the_unix_socket_is_an_administrator() -> None:
    """The file mode has decided; a user without a number here is 65534 (contract 10.2)."""
    box = Box()
    client = box.open("unix", uid=1000)
    assert client.rpc.session.transport == "uds"
    assert client.ask("whoami")["result"]["user_id"] == "local:1000"
    assert client.ask("who")["result"] == "local:1000"
    assert box.open("unix", uid=None).ask("who")["result"] == "local:65534"
    assert not box.open("main", uid=0).rpc.authenticated


def test_a_closed_conversation_leaves_nothing_behind() -> None:
    """Neither an admission nor a session nor a way for notifications."""
    box = Box()
    client, other = entered(box), box.open()
    assert (len(box.sessions), len(box.admissions), len(box.rpc.conversations)) == (2, 1, 2)
    client.rpc.closed()
    client.rpc.closed()
    other.rpc.closed()
    assert (len(box.sessions), len(box.admissions), len(box.rpc.conversations)) == (0, 0, 0)


# --- order --------------------------------------------------------------------------------------------------------


async def test_a_call_that_waits_delays_no_other(box: Box) -> None:
    """Answers come as they are ready, under their ids."""
    client = entered(box)
    slow = client.call("wait_for")
    assert client.ask("ping")["result"] == "pong"
    box.open_gate("a")
    (answer,) = await client.outbox.wait()
    assert (answer["id"], answer["result"]) == (slow, "a")


async def test_a_waiting_calls_result_speaks_the_dialect(box: Box) -> None:
    """Also an error that comes late, and a defect."""
    old, new = entered(box, member="token"), entered(box)
    for client, device in ((old, "/dev/video4"), (new, "camera0")):
        client.call("take_snapshot", {"device": "camera0"})
        (answer,) = await client.outbox.wait()
        assert answer["result"] == {"success": True, "device": device}
    for client, code in ((old, -32004), (new, -32010)):
        client.call("lose_camera")
        (answer,) = await client.outbox.wait()
        assert answer["error"]["code"] == code
    with capture_logs():
        new.call("break_later")
        (answer,) = await new.outbox.wait()
    assert "hunter2" not in json.dumps(answer)
    assert ("break_later", "internal") in box.counts.answered


async def test_the_33rd_call_is_turned_away_at_once(box: Box) -> None:
    """Reading never stops, and the 32 are not disturbed."""
    client = entered(box)
    for _ in range(32):
        client.call("wait_for")
    refused = client.call("ping")
    (answer,) = client.outbox.take()
    assert answer["id"] == refused
    assert (answer["error"]["code"], answer["error"]["message"]) == (-32040, "Rate limited")
    assert answer["error"]["data"]["retry_after_ms"] > 0
    client.send({"jsonrpc": "2.0", "method": "ping"})
    client.send([{"jsonrpc": "2.0", "id": "x", "method": "ping"}, {"jsonrpc": "2.0", "method": "ping"}, 5])
    (batch,) = client.outbox.take()
    assert [(item["id"], item["error"]["code"]) for item in batch] == [("x", -32040), (None, -32040)]
    client.send([{"jsonrpc": "2.0", "method": "ping"}])
    client.send(b"{")
    (answer,) = client.outbox.take()
    assert answer["error"]["code"] == -32700
    box.open_gate("a")
    assert len(await client.outbox.wait(32)) == 32
    assert client.ask("ping")["result"] == "pong"


async def test_v1_hears_its_own_words_for_too_many(box: Box) -> None:
    """-32002 there is -32040 here."""
    client = entered(Box(box.nursery, calls_in_flight=1), member="token")
    client.call("wait_for")
    client.call("ping")
    (answer,) = client.outbox.take()
    assert (answer["error"]["code"], answer["error"]["message"]) == (-32002, "Rate limit exceeded")


def test_what_is_pipelined_behind_authenticate_is_authenticated() -> None:
    """Clients do not wait for the answer of their login."""
    box = Box()
    client = box.open()
    client.call("authenticate", {"auth_token": box.make_key()})
    client.call("get_camera_list")
    first, second = client.outbox.take()
    assert first["result"]["authenticated"]
    assert second["result"]["total"] == 2


async def test_authenticate_waits_for_what_is_before_it_and_holds_what_is_behind(box: Box) -> None:
    """A barrier: nothing runs beside it."""
    client = entered(box)
    subject = client.ask("who")["result"]
    client.call("wait_for")
    client.call("authenticate", {"auth_token": box.make_token()})
    client.call("who")
    client.send({"jsonrpc": "2.0", "method": "who"})
    await settle()
    assert client.outbox.take() == []
    assert client.rpc.session.caller is not None
    assert client.rpc.session.caller.subject == subject
    box.open_gate("a")
    slow, login, who = await client.outbox.wait(3)
    assert slow["result"] == "a"
    assert login["result"]["authenticated"]
    assert who["result"] == "alice"
    assert client.ask("who")["result"] == "alice"


async def test_authenticate_waits_behind_a_running_batch(box: Box) -> None:
    """The batch's later members still run as who sent them."""
    client = entered(box)
    subject = client.ask("who")["result"]
    client.send([{"jsonrpc": "2.0", "id": 1, "method": "wait_for"}, {"jsonrpc": "2.0", "id": 2, "method": "who"}])
    client.call("authenticate", {"auth_token": box.make_token()})
    box.open_gate("a")
    batch, login = await client.outbox.wait(2)
    assert [item["result"] for item in batch] == ["a", subject]
    assert login["result"]["user_id"] == "alice"


async def test_a_batch_that_holds_a_barrier_is_one(box: Box) -> None:
    """What comes behind it waits for all of it."""
    client = entered(box)
    login = {"jsonrpc": "2.0", "id": 2, "method": "authenticate", "params": {"auth_token": box.make_token()}}
    client.send([{"jsonrpc": "2.0", "id": 1, "method": "wait_for"}, login])
    client.call("who")
    await settle()
    assert client.outbox.take() == []
    box.open_gate("a")
    batch, who = await client.outbox.wait(2)
    assert len(batch) == 2
    assert who["result"] == "alice"


async def test_held_calls_count_as_in_flight(box: Box) -> None:
    """A client cannot queue without end behind a barrier."""
    client = entered(Box(box.nursery, calls_in_flight=3))
    client.call("wait_for")
    client.call("authenticate", {})
    client.call("ping")
    refused = client.call("ping")
    (answer,) = client.outbox.take()
    assert (answer["id"], answer["error"]["code"]) == (refused, -32040)


async def test_two_barriers_and_what_waits_between_keep_their_order(box: Box) -> None:
    """Held calls that wait themselves hold the second barrier back again."""
    client = entered(box)
    client.call("wait_for", {"name": "a"})
    client.call("authenticate", {"auth_token": box.make_token()})
    client.call("wait_for", {"name": "b"})
    client.call("authenticate", {"auth_token": "nonsense"})
    client.call("who")
    box.open_gate("a")
    first, login = await client.outbox.wait(2)
    assert first["result"] == "a"
    assert login["result"]["authenticated"]
    await settle()
    assert client.rpc.authenticated
    box.open_gate("b")
    second, failed, who = await client.outbox.wait(3)
    assert second["result"] == "b"
    assert failed["error"]["code"] == -32001
    assert who["result"] is None


# --- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_is_answered_in_one_array_in_its_order() -> None:
    """With one answer for each call and each thing that was none, and none for a notification."""
    client = Box().open()
    client.send(
        [
            {"jsonrpc": "2.0", "id": "a", "method": "ping"},
            {"jsonrpc": "2.0", "method": "ping"},
            {"foo": 1},
            {"jsonrpc": "2.0", "id": 2.5, "method": "nothing"},
            [],
            {"jsonrpc": "2.0", "id": None, "method": "ping"},
        ]
    )
    (batch,) = client.outbox.take()
    assert [item["id"] for item in batch] == ["a", None, 2.5, None, None]
    assert [item.get("error", {}).get("code") for item in batch] == [None, -32600, -32601, -32600, None]


def test_a_batch_of_notifications_is_not_answered() -> None:
    """Not with an empty array either."""
    client = Box().open()
    client.send([{"jsonrpc": "2.0", "method": "ping"}] * 3)
    assert client.outbox.take() == []


async def test_members_of_a_batch_run_one_after_the_other(box: Box) -> None:
    """The second waits for the first, though both could run."""
    client = entered(box)
    box.open_gate("b")
    calls = [{"jsonrpc": "2.0", "id": name, "method": "wait_for", "params": {"name": name}} for name in "abc"]
    client.send([{"jsonrpc": "2.0", "id": 0, "method": "ping"}, *calls, {"jsonrpc": "2.0", "method": "wait_for"}])
    await settle()
    assert set(box.barriers) == {"a", "b"}
    assert client.ask("ping")["result"] == "pong"
    box.open_gate("a")
    await settle()
    box.open_gate("c")
    (batch,) = await client.outbox.wait()
    assert [item["result"] for item in batch] == ["pong", "a", "b", "c"]


async def test_a_batch_of_waiting_notifications_ends_silently(box: Box) -> None:
    """And is in flight no more afterwards."""
    client = entered(Box(box.nursery, calls_in_flight=1))
    client.send([{"jsonrpc": "2.0", "method": "take_snapshot", "params": {"device": "camera0"}}])
    await settle()
    assert client.ask("ping")["result"] == "pong"


async def test_a_batch_counts_as_one_call(box: Box) -> None:
    """Fifty members take one of the places in flight."""
    client = entered(Box(box.nursery, calls_in_flight=2))
    client.send([{"jsonrpc": "2.0", "id": n, "method": "wait_for"} for n in range(50)])
    assert client.ask("ping")["result"] == "pong"


# --- the end of a credential --------------------------------------------------------------------------------------


def test_a_revoked_credential_closes_at_once() -> None:
    """4401, and nobody is there any more."""
    box = Box()
    client, other = entered(box), entered(box)
    assert client.rpc.session.caller is not None
    box.admissions.end(client.rpc.session.caller.identities, "revoked")
    assert client.outbox.code == 4401
    assert not client.rpc.authenticated
    assert other.outbox.code is None


def test_a_session_is_inside_by_its_newest_credential_alone() -> None:
    """Once in the list, since it showed that one; what ends an earlier one is no affair of it any more."""
    box = Box()
    client = entered(box)
    (inside,) = box.admissions
    first = client.rpc.session.caller
    assert first is not None
    client.enter(box.make_token())
    second = client.rpc.session.caller
    assert second is not None
    assert [each.caller for each in box.admissions] == [second]
    assert box.admissions.find(client.rpc.session.id) is inside
    assert box.admissions.end(first.identities, "revoked") == []
    assert "error" in client.ask("authenticate", {"auth_token": "nonsense"})
    assert list(box.admissions) == []
    client.enter(box.make_key())
    assert box.admissions.end(second.identities, "revoked") == []
    assert client.rpc.session.caller is not None
    assert len(box.admissions.end(client.rpc.session.caller.identities, "revoked")) == 1
    assert client.outbox.code == 4401


async def test_who_revokes_itself_gets_its_answer_then_the_close(box: Box) -> None:
    """And meanwhile is nobody; the answers of other calls do not close."""
    client = entered(box, "admin")
    box.barriers["commit"] = trio.Event()
    client.call("wait_for")
    own = client.call("revoke_key")
    await settle()
    assert client.ask("ping")["result"] == "pong"
    assert client.ask("whoami")["error"]["data"]["reason"] == "revoked"
    box.open_gate("a")
    (answer,) = await client.outbox.wait()
    assert answer["result"] == "a"
    assert client.outbox.code is None
    box.open_gate("commit")
    (answer,) = await client.outbox.wait()
    assert (answer["id"], answer["result"]) == (own, "revoked")
    assert client.outbox.code == 4401


async def test_who_revokes_itself_in_a_batch_gets_the_batch(box: Box) -> None:
    """What stands behind the revocation is refused, and told so."""
    client = entered(box, "admin")
    box.open_gate("commit")
    client.send([{"jsonrpc": "2.0", "id": 1, "method": "revoke_key"}, {"jsonrpc": "2.0", "id": 2, "method": "whoami"}])
    (batch,) = await client.outbox.wait()
    assert batch[0]["result"] == "revoked"
    assert batch[1]["error"]["code"] == -32001
    assert client.outbox.code == 4401


async def test_a_revocation_by_a_notification_of_ones_own_closes_too(box: Box) -> None:
    """There is no answer to wait for."""
    client = entered(box, "admin")
    box.open_gate("commit")
    client.send({"jsonrpc": "2.0", "method": "revoke_key"})
    await settle()
    assert client.outbox.texts == []
    assert client.outbox.code == 4401


async def test_a_revocation_that_another_task_carries_out_closes_after_the_last_answer(box: Box) -> None:
    """Whoever does it on the session's behalf need not be the session's task."""
    client = entered(box, "admin")
    client.call("wait_for")
    session = client.rpc.session
    assert session.caller is not None
    box.admissions.end(session.caller.identities, "revoked", session.id)
    assert client.outbox.code is None
    box.open_gate("a")
    (answer,) = await client.outbox.wait()
    assert answer["result"] == "a"
    assert client.outbox.code == 4401


async def test_answers_that_come_after_the_close_are_dropped(box: Box) -> None:
    """The call was begun by right, and nobody is there to hear of it."""
    client = entered(box)
    client.call("wait_for")
    assert client.rpc.session.caller is not None
    box.admissions.end(client.rpc.session.caller.identities, "revoked")
    box.open_gate("a")
    await settle()
    assert client.outbox.texts == []


async def test_calls_held_at_the_end_of_the_connection_never_run(box: Box) -> None:
    """Nobody waits for them."""
    client = entered(box)
    client.call("wait_for")
    client.call("authenticate", {"auth_token": box.make_token()})
    client.rpc.closed()
    box.open_gate("a")
    await settle()
    assert box.counts.used == ["api_key"]


def expire(box: Box, client: Client) -> None:
    assert client.rpc.session.caller is not None
    box.admissions.end(client.rpc.session.caller.identities, "expired")


async def test_expiry_comes_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    """By the admission's deadline; the socket stays."""
    async with trio.open_nursery() as nursery:
        box = Box(nursery)
        nursery.start_soon(box.admissions.run)
        client = box.open()
        client.enter(box.make_token(expires_in=3600), "auth_token")
        await trio.sleep(3599)
        assert client.rpc.authenticated
        await trio.sleep(2)
        assert not client.rpc.authenticated
        assert client.outbox.code is None
        nursery.cancel_scope.cancel()


def test_expiry_is_told_behind_the_next_refusal_once() -> None:
    """A v2 client that subscribed to nothing takes the next text for its answer (contract S0-32, C-22)."""
    box = Box()
    client = entered(box)
    expire(box, client)
    assert client.outbox.take() == []
    assert client.ask("ping")["result"] == "pong"
    client.call("get_camera_list")
    refusal, told = client.outbox.take()
    assert (refusal["error"]["code"], refusal["error"]["data"]["reason"]) == (-32001, "expired")
    assert told == {
        "jsonrpc": "2.0",
        "method": "auth_expired",
        "params": {"session_id": client.rpc.session.id, "reason": "expired"},
    }
    assert client.ask("get_camera_list")["error"]["data"]["reason"] == "expired"


def test_expiry_is_told_at_once_to_who_listens() -> None:
    """A subscriber expects texts that answer nothing; it is told once, too."""
    box = Box()
    client = entered(box)
    client.rpc.session.topics.add("camera.connected")
    expire(box, client)
    (told,) = client.outbox.take()
    assert told["method"] == "auth_expired"
    assert client.ask("get_camera_list")["error"]["code"] == -32001


def test_expiry_is_told_behind_the_batch_that_ran_into_it() -> None:
    """Never inside."""
    box = Box()
    client = entered(box)
    expire(box, client)
    client.send([{"jsonrpc": "2.0", "id": n, "method": "whoami"} for n in range(2)])
    batch, told = client.outbox.take()
    assert len(batch) == 2
    assert told["method"] == "auth_expired"


def test_v1_is_told_of_expiry_by_its_next_call_only() -> None:
    """It does not know the notification."""
    box = Box()
    client = entered(box, member="token")
    expire(box, client)
    error = client.ask("get_camera_list")["error"]
    assert (error["code"], error["message"]) == (-32001, "Authentication failed")


def test_a_new_login_after_expiry_is_as_good_as_the_first() -> None:
    """Subscriptions stay, and nothing is told of the old credential."""
    box = Box()
    client = entered(box)
    client.rpc.session.topics.add("camera.connected")
    expire(box, client)
    client.outbox.take()
    assert client.enter(box.make_token(), "auth_token")["authenticated"]
    assert client.ask("whoami")["result"]["user_id"] == "alice"
    assert client.rpc.session.topics == {"camera.connected"}
    client.ask("authenticate", {"auth_token": "nonsense"})
    assert client.ask("whoami")["error"]["data"]["reason"] == "auth_required"


def test_a_failed_login_after_expiry_is_what_counts_from_there() -> None:
    """The client is told of its last try, and still of the expiry once."""
    client = entered(box := Box())
    expire(box, client)
    client.call("authenticate", {"auth_token": "nonsense"})
    refusal, told = client.outbox.take()
    assert refusal["error"]["data"]["reason"] == "auth_failed"
    assert told["method"] == "auth_expired"
    assert client.ask("whoami")["error"]["data"]["reason"] == "auth_required"


def test_expiry_is_judged_by_the_call_even_before_the_deadline_fires() -> None:
    """Time that passed while nobody looked has passed."""
    box = Box()
    client = box.open()
    client.enter(box.make_token(expires_in=60), "auth_token")
    box.time += 3600
    assert client.ask("get_camera_list")["error"]["data"]["reason"] == "expired"


# --- whatever comes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [False, True])
def test_a_connection_that_is_over_starts_no_task(batch: bool) -> None:
    """And leaves no coroutine behind that was never awaited (warnings are errors here)."""
    box = Box()
    client = box.open(spawn=lambda work: None)
    client.enter(box.make_key(), "auth_token")
    call = {"jsonrpc": "2.0", "id": 1, "method": "wait_for"}
    client.send([call] if batch else call)
    gc.collect()
    assert client.outbox.take() == []


async def test_calls_held_when_the_connection_closes_never_run(box: Box) -> None:
    """Answers have nowhere to go, so nothing is begun for them."""
    client = entered(box)
    client.call("wait_for")
    client.call("authenticate", {"auth_token": box.make_token()})
    client.outbox.close(1013)
    box.open_gate("a")
    await settle()
    assert box.counts.used == ["api_key"]


def test_the_longest_batch_can_be_set() -> None:
    """One more member than the setting says is answered as a whole."""
    box = Box()
    rpc = box.make_endpoint(calls_in_flight=1, longest_batch=1)
    client = box.open()
    session = rpc.open(client.rpc.session.peer, {}, None, client.outbox, box.spawn)
    session.receive(b"[1,2]")
    (answer,) = client.outbox.take()
    assert answer["error"]["data"]["detail"] == "a batch holds at most 1 calls"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
IDS = st.none() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False)
METHODS = st.sampled_from(
    [
        "ping",
        "authenticate",
        "whoami",
        "get_camera_list",
        "get_camera_status",
        "take_snapshot",
        "who",
        "nothing",
        "be_unfit",
    ]
)
PARAMS = (
    st.none()
    | JSON
    | st.dictionaries(st.sampled_from(["device", "token", "auth_token", "auth_type", "x"]), JSON, max_size=4)
)
REQUESTS = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS}, optional={"id": IDS, "params": PARAMS, "more": JSON}
)
TEXTS = (
    st.binary(max_size=60)
    | REQUESTS.map(lambda value: json.dumps(value).encode())
    | st.lists(REQUESTS | JSON, max_size=5).map(lambda value: json.dumps(value).encode())
)


def check_answer(answer: Any) -> None:
    """One legal answer of JSON-RPC 2.0, or v1's error with its null."""
    assert answer["jsonrpc"] == "2.0"
    assert isinstance(answer["id"], (str, int, float, type(None)))
    assert not isinstance(answer["id"], bool)
    if "error" in answer:
        assert answer.keys() <= {"jsonrpc", "id", "error", "result"}
        assert isinstance(answer["error"]["code"], int)
        assert answer["error"]["message"]
        assert answer["error"]["data"].keys() >= {"reason", "required", "have", "code_v1", "code_v2"}
    else:
        assert answer.keys() == {"jsonrpc", "id", "result"}


@given(st.lists(TEXTS, max_size=6), st.sampled_from(["main", "compat"]), st.booleans())
def test_whatever_comes_only_legal_answers_go_out(texts: list[bytes], listener: str, known: bool) -> None:
    """Each call with an id is answered once under that id, with its type; nothing else is answered as a call."""

    async def play() -> None:
        with fail_after(10):
            async with trio.open_nursery() as nursery:
                box = Box(nursery)
                client = box.open(listener, headers={"x-api-key": box.make_key()} if known else {})
                for text in texts:
                    client.send(text)
                await trio.testing.wait_all_tasks_blocked()
        given = [jsonrpc.parse(text) for text in texts]
        answers = client.outbox.take()
        for answer in answers:
            for item in answer if isinstance(answer, list) else [answer]:
                check_answer(item)
        assert sorted(map(repr, _expected(given))) == sorted(
            repr([item["id"] for item in answer]) if isinstance(answer, list) else repr(answer["id"])
            for answer in answers
        )
        assert client.outbox.code is None

    trio.run(play)


def _expected(messages: list[Any]) -> list[Any]:
    """The ids that must come back: one for a call, a list for a batch."""
    found: list[Any] = []
    for message in messages:
        if isinstance(message, jsonrpc.Batch):
            ids = [_id(member) for member in message.members if not getattr(member, "is_notification", False)]
            found += [ids] if ids else []
        elif not getattr(message, "is_notification", False):
            found.append(_id(message))
    return found


def _id(message: Any) -> Any:
    return json.loads(bytes(message.id))


def test_cameras_that_come_later_are_known() -> None:
    """The name of a device file is looked up when it is told."""
    box = Box()
    client = entered(box, member="token")
    box.registry.known.append(camera(7, node="/dev/video9"))
    assert client.ask("get_camera_status", {"device": "camera7"})["result"]["device"] == "/dev/video9"
