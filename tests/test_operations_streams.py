"""operations/streams.py: whose streams are listed, and the answer to MediaMTX, which never waits and fails closed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from operations_helpers import GATE, NOW, YARD, Bench
from trust_helpers import SECRET

from edged.cameras.model import Status
from edged.credentials import tickets
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import API_KEY_PREFIX, ApiKey, NoCredential, Ticket, Token
from edged.credentials.identities import Identity
from edged.credentials.tokens import issue_claims, sign
from edged.mediamtx.client import PathState
from edged.mediamtx.server_state import ServerState
from edged.mediamtx.settings import USER
from edged.operations.streams import StreamRequest, admit, find_credential

KEY = API_KEY_PREFIX + "0" * 64
TICKET = tickets.mint()[0]
TOKEN = "a.b.c"
TEXTS = {KEY: ApiKey(KEY), TICKET: Ticket(TICKET), TOKEN: Token(TOKEN)}


class Box:
    """A bench with a MediaMTX that notes which publishers are woken and whom it is told to end."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.kicked: list[tuple[str, str]] = []
        self.states = [
            PathState(name, name == "gate", 2, 0, 100, "rtspSession") for name in ("gate", "stranger", "camera1")
        ]
        self.meanwhile: Any = lambda: None
        self.mediamtx = SimpleNamespace(state=ServerState("ready", rtsp_port=8554, addresses={"rtsp": ":8554"}))
        self.bench = Bench(
            GATE, YARD, replace(YARD, name="camera2", path="camera2", status=Status.ERROR),
            mediamtx=self.mediamtx, paths=SimpleNamespace(list=self._list),
            publishers=SimpleNamespace(wake=self.woken.append), viewers=SimpleNamespace(kick=self._kick),
        )  # fmt: skip

    async def _list(self) -> list[PathState]:
        await trio.lowlevel.checkpoint()
        self.meanwhile()
        return self.states

    def _kick(self, protocol: str, session: str, *, is_half: bool) -> None:
        self.kicked.append((protocol, session))

    def key(self, role: str = "viewer", **values: Any) -> str:
        """The secret of a new key."""
        made = mint()
        record = KeyRecord(key_id=made.key_id, digest=made.digest, name=role, role=role, created_at=NOW, **values)
        self.bench.ledger.put_key(record)
        return made.secret

    def ask(self, password: str = "", action: str = "read", path: str = "gate", **more: Any) -> str:
        """ "yes", or the reason for MediaMTX's log."""
        given = {"id": "session-1", "protocol": "rtsp", **more}
        question = StreamRequest(action=action, path=path, password=password, **given)
        answer = admit(self.bench.services, question)
        assert answer.allowed is not bool(answer.reason)
        return answer.reason or "yes"


async def test_streams_are_those_of_cameras_that_may_be_seen() -> None:
    """A path that is no camera's is nobody's; `source` is a kind."""
    box = Box()
    listed = msgspec.to_builtins(await box.bench.ask(box.bench.caller(), "get_streams"))
    assert [each["name"] for each in listed] == ["gate", "camera1"]
    assert listed[0] == {"name": "gate", "source": "rtspSession", "ready": True, "readers": 2, "bytes_sent": 100}
    narrow = box.bench.caller(camera_access=("camera1",))
    assert [each.name for each in await box.bench.ask(narrow, "get_streams")] == ["camera1"]
    box.meanwhile = lambda: box.bench.narrow(narrow, "camera2")
    assert await box.bench.ask(narrow, "get_streams") == []


async def test_pages_of_streams_go_by_name() -> None:
    """The cursor is the last name, which may be gone by then."""
    box = Box()
    viewer = box.bench.caller()
    assert [each.name for each in await box.bench.ask(viewer, "get_streams", limit=1)] == ["camera1"]
    assert [each.name for each in await box.bench.ask(viewer, "get_streams", limit=1, cursor="camera1")] == ["gate"]
    assert [each.name for each in await box.bench.ask(viewer, "get_streams", cursor="dock")] == ["gate"]
    assert await box.bench.ask(viewer, "get_streams", limit=1, cursor="gate") == []


async def test_the_address_of_a_stream_names_its_path_and_holds_no_credential() -> None:
    box = Box()
    reply = await box.bench.ask(box.bench.caller(), "get_stream_url", device="camera0")
    assert (reply.stream_url, reply.stream_name) == ("rtsp://localhost:8554/gate", "gate")
    assert (reply.live_url, reply.token_url) == (
        "/api/cameras/camera0/live.mjpeg", "rtsp://localhost:8554/gate?jwt={token}",
    )  # fmt: skip
    assert (reply.available, reply.active_consumers, reply.stream_status) == (True, 2, "READY")


@pytest.mark.parametrize(
    ("device", "status", "expected"),
    [("camera0", "ready", "READY"), ("camera0", "off", "NOT_READY"), ("camera2", "ready", "ERROR")],
)
async def test_a_stream_is_ready_where_camera_and_mediamtx_are(device: str, status: Any, expected: str) -> None:
    box = Box()
    box.mediamtx.state = replace(box.mediamtx.state, status=status)
    reply = await box.bench.ask(box.bench.caller(), "get_stream_url", device=device)
    assert (reply.stream_status, reply.available) == (expected, expected == "READY")
    assert bool(reply.stream_url) == (status == "ready")


async def test_a_camera_that_is_lost_while_mediamtx_is_asked_is_not_shown() -> None:
    box = Box()
    caller = box.bench.caller()
    box.meanwhile = lambda: box.bench.narrow(caller, "camera1")
    assert await box.bench.outcome(caller, "get_stream_url", device="camera0") == "camera_not_found"


async def test_a_reader_is_let_in_noted_and_its_camera_is_woken() -> None:
    """And is ended by what ends its key."""
    box = Box()
    secret = box.key()
    with trio.testing.assert_no_checkpoints():
        assert box.ask(secret) == "yes"
    assert box.woken == ["gate"]
    (admission,) = box.bench.gate.admissions
    assert (admission.path, admission.session, admission.transport) == ("camera0", "session-1", "rtsp")
    box.bench.gate.admissions.end({Identity.of_key(admission.caller.credential_id)}, "revoked", "")
    assert box.kicked == [("rtsp", "session-1")]


@pytest.mark.parametrize(
    ("role", "values", "action", "path", "reason"),
    [
        ("viewer", {}, "read", "gate", "yes"),
        ("viewer", {}, "playback", "gate", "yes"),
        ("viewer", {}, "read", "camera9", "yes"),
        ("viewer", {}, "publish", "gate", "missing_scope"),
        ("viewer", {"camera_access": ("camera1",)}, "read", "gate", "camera_denied"),
        ("viewer", {"camera_access": ("camera1",)}, "read", "camera1", "yes"),
        ("monitor", {}, "read", "gate", "missing_scope"),
        # edged's own: the control API, metrics and pprof, and whatever a newer version asks for.
        *(("admin", {}, action, "gate", "missing_scope") for action in ("api", "metrics", "pprof", "", "Read", "x")),
    ],
)
async def test_who_may_do_what_with_a_path(role: str, values: Any, action: str, path: str, reason: str) -> None:
    box = Box()
    assert box.ask(box.key(role, **values), action, path) == reason
    assert bool(box.woken) == (reason == "yes" and action == "read" and path != "camera9")


async def test_only_a_camera_can_be_published_and_nobody_learns_which_there_are() -> None:
    box = Box()
    publisher = box.key("admin", permissions=("stream:publish",))
    assert box.ask(publisher, "publish", "gate") == "yes"
    assert box.ask(publisher, "publish", "camera9") == "no such camera"
    narrow = box.key("admin", permissions=("stream:publish",), camera_access=("camera1",))
    assert box.ask(narrow, "publish", "gate") == box.ask(narrow, "publish", "camera9") == "camera_denied"
    assert box.woken == []


async def test_a_client_that_asks_without_a_credential_first_has_not_failed() -> None:
    """Most do (mediamtx.md 3.2); a wrong one counts."""
    box = Box()
    assert box.ask() == "missing"
    assert box.bench.counts.failed == []
    assert box.ask("wrong") == "unknown_key"
    assert len(box.bench.counts.failed) == 1
    assert not list(box.bench.gate.admissions)


async def test_a_child_s_password_is_for_its_path_and_its_action_once() -> None:
    """Under the name of edged's own user only; and its session is no stranger's."""
    box = Box()
    secret = box.bench.ledger.child_secrets.make("gate", "publish")
    assert box.ask(secret, "publish", user="somebody") == "unknown_key"
    assert box.ask(secret, "read", user=USER) == "unknown_key"
    assert box.ask(secret, "publish", "camera1", user=USER) == "unknown_key"
    assert box.ask(secret, "publish", user=USER) == "yes"
    assert box.ask(secret, "publish", user=USER) == "unknown_key"
    assert [each.path for each in box.bench.gate.admissions] == ["gate"]
    assert box.woken == []
    assert box.ask(box.bench.ledger.child_secrets.make("gate", "read"), user=USER) == "yes"
    assert box.woken == ["gate"]


async def test_a_token_that_a_player_cut_is_called_so() -> None:
    """Before its signature, or at the 127 bytes of `user:password` that ffmpeg keeps; one that is wrong is not."""
    box = Box()
    whole = sign(issue_claims("ada", role="viewer", now=NOW, expires_in=600), SECRET)
    header = whole.split(".")[0]
    assert box.ask(whole) == "yes"
    assert box.ask(f"{header}.e30") == "token_cut"
    long = f"{header}.e30.".ljust(116, "x")
    assert box.ask(long, user="u" * 10) == "token_cut"
    for text, user in ((long[:-1], "u" * 10), (long, "u" * 11)):
        assert box.ask(text, user=user) in ("bad_signature", "malformed")
    assert box.ask("", token=long, user="u" * 10) in ("bad_signature", "malformed")


@pytest.mark.parametrize("where", ["password", "token", "?ticket", "?token", "?jwt"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_player_may_put_its_credential_where_it_can(where: str, text: str) -> None:
    """Password, token, and the query's ticket, token and jwt (contract 10.6)."""
    if where.startswith("?"):
        question = StreamRequest(query=f"x=1&{where[1:]}={text}")
    else:
        question = StreamRequest(**{where: text})
    assert find_credential(question) == TEXTS[text]


def test_a_user_name_alone_is_no_credential_and_nothing_is_none() -> None:
    assert find_credential(StreamRequest(user=TICKET)) == NoCredential()
    assert find_credential(StreamRequest(query="ticket=&token=")) == NoCredential()
    assert find_credential(StreamRequest(query="ticket")) == NoCredential()


def test_the_password_counts_before_the_token_and_both_before_the_query() -> None:
    """With Basic MediaMTX repeats the password as token (mediamtx.md 3.3)."""
    everything = StreamRequest(password=KEY, token=TOKEN, query=f"ticket={TICKET}")
    assert find_credential(everything) == ApiKey(KEY)
    assert find_credential(msgspec.structs.replace(everything, password="")) == Token(TOKEN)
    assert find_credential(StreamRequest(query=f"jwt={TOKEN}&token={KEY}&ticket={TICKET}")) == Ticket(TICKET)
    # Of two members of one name the first: what stands behind may have been added by somebody else.
    assert find_credential(StreamRequest(query=f"ticket={TICKET}&ticket={KEY}")) == Ticket(TICKET)


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=40), st.integers(0, 40))
def test_a_query_of_anything_gives_the_credential_that_stands_among_its_first_members(
    members: list[tuple[str, str]], at: int
) -> None:
    """And never an error."""
    clean = [(name, value) for name, value in members if name not in ("ticket", "token", "jwt")]
    at = min(at, len(clean))
    parts = [urlencode([each], errors="replace") for each in clean]
    query = "&".join([*parts[:at], f"ticket={quote(TICKET)}", *parts[at:]])
    assert find_credential(StreamRequest(query=query)) == (Ticket(TICKET) if at < 32 else NoCredential())


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_no_text_is_let_in_or_makes_admit_fail(text: str, action: str, path: str) -> None:
    box = Box()
    for question in (
        StreamRequest(action, path, "rtsp", "1", password=text, user=path),
        StreamRequest("read", path, text, "1", token=text),
        StreamRequest("read", "gate", query=text, user=USER, password=path),
    ):
        assert not admit(box.bench.services, question).allowed
