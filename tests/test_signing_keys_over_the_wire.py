"""Signing keys and their tokens on the running daemon: JWKS, operations, and a MediaMTX that knows nothing of edged."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import planted
import pytest
import trio
from daemon_helpers import Conversation, Reply, RunningDaemon, ended, free_port, make_config, port_of, running_daemon
from joserfc import jwt
from joserfc.jwk import KeySet
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused
from services_helpers import make_services

from edged.config.model import Config
from edged.credentials import tokens
from edged.credentials.callers import Streams
from edged.credentials.claims import read_caller, write_streams
from edged.credentials.signing_keys import PrivateKey, read_key
from edged.errors import StartFailed, StoreFailed
from edged.mediamtx.ffmpeg import find_ffmpeg
from edged.mediamtx.settings import find_binary, parse_version
from edged.operations.services import Services
from edged.signing.keyring import Keyring
from edged.web import jwks

PATHS = ("/jwks-path", "/.well-known/jwks.json")
ALGORITHMS = ("RS256", "ES256")


def with_tokens(folder: Path) -> Config:
    """Settings with a free port for the JWKS."""
    config = make_config(folder, cameras=0)
    listen = msgspec.structs.replace(config.listen, tokens=(f"127.0.0.1:{free_port()}",))
    return msgspec.structs.replace(config, listen=listen)


async def code_of(client: Conversation, method: str, **params: object) -> int:
    return int((await client.ask(method, **params))["error"]["code"])


def kids(reply: Reply) -> list[str]:
    return [key["kid"] for key in reply.json["keys"]]


def kid_of(text: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(text.split(".")[0] + "=="))["kid"])


async def test_the_jwks_stands_at_every_listener_for_everybody(tmp_path: Path) -> None:
    """Both paths, the loopback endpoint of guide S4 too; kept for 5 minutes, read by any page; HEAD as GET, no POST."""
    with fail_after(30):
        async with running_daemon(tmp_path, config=(config := with_tokens(tmp_path))) as daemon:
            listen = config.listen
            for port in map(port_of, (listen.main, listen.compat, listen.local, listen.tokens)):
                for path in PATHS:
                    reply = await daemon.request("GET", path, port=port)
                    assert (reply.status, kids(reply)) == (200, ["key-1", "key-2"])
                    assert reply.headers["cache-control"] == "max-age=300"
                    assert reply.headers["access-control-allow-origin"] == "*"
                    assert reply.headers["content-type"] == "application/json"
            shown = {name for key in reply.json["keys"] for name in key}
            assert shown == {"kty", "n", "e", "crv", "x", "y", "kid", "use", "alg"}
            assert (await daemon.request("HEAD", PATHS[0])).body == b""
            assert (await daemon.request("POST", PATHS[0])).status == 405


async def test_a_taken_port_of_the_tokens_listener_is_no_failed_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning that names the address and what to do; the other endpoints serve the same (contract S4-1)."""
    config = with_tokens(tmp_path)
    with fail_after(30), socket.socket() as other:
        other.bind(("127.0.0.1", port_of(config.listen.tokens)))
        other.listen()
        async with running_daemon(tmp_path, config=config) as daemon:
            assert (await daemon.request("GET", PATHS[0])).status == 200
    said = capsys.readouterr().out
    assert "listener_not_opened" in said
    assert config.listen.tokens[0] in said
    assert "listen.tokens" in said


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_is_verified_by_others_with_nothing_but_the_jwks(tmp_path: Path, algorithm: str) -> None:
    """joserfc with the fetched key set; the token opens the daemon too, and says who issued it."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            issued = await admin.call("issue_token", user_id="guest", signing_key=algorithm, expires_in=60)
            fetched = KeySet.import_key_set((await daemon.request("GET", PATHS[0])).json)
            read = jwt.decode(issued["token"], fetched, algorithms=[algorithm])
            assert read.header == {"alg": algorithm, "typ": "JWT", "kid": "key-1" if algorithm == "RS256" else "key-2"}
            assert {"sub": "guest", "iss": "edged", "role": "viewer"}.items() <= read.claims.items()
            assert "aud" not in read.claims
            async with daemon.websocket() as client:
                assert (await client.call("authenticate", auth_token=issued["token"]))["user_id"] == "guest"
                assert (await client.call("get_camera_list"))["total"] == 1


async def test_what_signs_can_be_chosen(tmp_path: Path) -> None:
    """By algorithm, by the name of a secret, by kid; a key that does not sign now is refused with the one that does."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:

            async def header(**params: object) -> Any:
                text = (await admin.call("issue_token", user_id="x", **params))["token"]
                return json.loads(base64.urlsafe_b64decode(text.split(".")[0] + "=="))

            for wanted in ({}, {"signing_key": "HS256"}, {"signing_key": "test"}):
                assert await header(**wanted) == {"alg": "HS256", "typ": "JWT"}
            assert (await header(signing_key="RS256"))["kid"] == "key-1"
            assert (await header(signing_key="key-2"))["alg"] == "ES256"
            await admin.call("create_signing_key", algorithm="ES256")
            assert await code_of(admin, "issue_token", user_id="x", signing_key="key-3") == -32020
            for unknown in ("key-9", "none", "", "HS512", "../secret"):
                assert await code_of(admin, "issue_token", user_id="x", signing_key=unknown) == -32010


async def test_keys_are_made_promoted_and_given_up_over_rpc_and_rest(tmp_path: Path) -> None:
    """The life of a key as its list shows it; the young one needs force; nothing private is told."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            base = "/api/signing-keys"
            made = await daemon.request("POST", base, key=key, body={"algorithm": "ES256"})
            assert (made.status, made.json["kid"], made.json["state"]) == (201, "key-3", "next")
            assert made.json["promotable_at"] > made.json["created_at"]
            assert kids(await daemon.request("GET", PATHS[0])) == ["key-1", "key-2", "key-3"]
            assert (await daemon.request("POST", base, key=key, body={"algorithm": "ES256"})).status == 409
            assert (await daemon.request("POST", base, key=key, body={"algorithm": "HS256"})).status == 400
            assert (await daemon.request("POST", base, key=key, headers={"Content-Type": "text/plain"})).status == 415
            early = await daemon.request("POST", f"{base}/key-3/promote", key=key)
            assert (early.status, "force" in early.json["detail"]) == (409, True)
            done = await daemon.request("POST", f"{base}/key-3/promote", key=key, body={"force": True})
            assert (done.status, done.json["state"], done.json["promotable_at"]) == (200, "current", None)
            typed = {"Content-Type": "text/plain"}
            wrong = await daemon.request("POST", f"{base}/key-3/retire", key=key, body={}, headers=typed)
            assert wrong.status == 415
            bodies: list[object] = [[], 5, {"force": "yes"}]
            for bad in bodies:
                assert (await daemon.request("POST", f"{base}/key-3/promote", key=key, body=bad)).status == 400
            assert (await daemon.request("POST", f"{base}/key-9/promote", key=key)).status == 404
            assert (await daemon.request("POST", f"{base}/key-1/retire", key=key)).status == 409
            listed = (await daemon.request("GET", base, key=key)).json["keys"]
            assert {item["kid"]: item["state"] for item in listed} == {
                "key-1": "current", "key-2": "retired", "key-3": "current",
            }  # fmt: skip
            assert listed == (await admin.call("list_signing_keys"))["keys"]
            assert kids(await daemon.request("GET", PATHS[0])) == ["key-1", "key-3"]
            assert all('"d"' not in str(part) and "private" not in str(part) for part in (listed, made.json, done.json))
            given_up = await admin.call("create_signing_key", algorithm="RS256")
            assert (await admin.call("retire_signing_key", kid=given_up["kid"]))["published"] is False
            assert (await daemon.request("GET", base)).status == 401


async def test_a_body_that_cannot_be_read_promotes_nothing(tmp_path: Path) -> None:
    """400, and the key is next as before."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            await admin.call("create_signing_key", algorithm="ES256")
            for body in (b"{", b"\xff", b"[" * 9000):
                head = (
                    "POST /api/signing-keys/key-3/promote HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                async with await trio.open_unix_socket(daemon.config.listen.unix) as stream:
                    await stream.send_all(head.encode() + body)
                    assert (await stream.receive_some()).split(b" ", 2)[1] == b"400"
            assert (await admin.call("list_signing_keys"))["keys"][2]["state"] == "next"


async def test_an_empty_key_set_is_no_answer() -> None:
    """503 while no key may be relied on (contract 5.2): MediaMTX would keep an empty set for an hour."""
    keyring = SimpleNamespace(all=lambda: ("key",), is_published=lambda _key: False)
    services: Services = make_services(keyring=keyring, restores=SimpleNamespace(pending=None))
    asked: Any = SimpleNamespace(services=services)
    answer = await jwks.show(asked)
    assert answer.status_code == 503
    assert b"No signing key" in answer.body


async def test_a_token_is_issued_over_rest(tmp_path: Path) -> None:
    """POST /api/tokens (contract 10.1): the same params and the same rights."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            _, key = await daemon.create_key("admin")
            _, weak = await daemon.create_key("viewer")
            body = {"user_id": "x", "signing_key": "ES256", "streams": {"read": ["dock"]}}
            made = await daemon.request("POST", "/api/tokens", key=key, body=body)
            assert (made.status, made.headers["cache-control"]) == (201, "no-store")
            assert kid_of(made.json["token"]) == "key-2"
            assert (await daemon.request("POST", "/api/tokens", key=weak, body=body)).status == 403
            text = {"Content-Type": "text/plain"}
            assert (await daemon.request("POST", "/api/tokens", key=key, headers=text)).status == 415


async def test_a_leaked_key_that_the_disk_keeps_from_retiring_is_told_to_be_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its denial is saved, what comes after is not: who asked hears both, and asks again once the disk is mended."""

    async def fail(*_: object, **__: object) -> None:
        raise StoreFailed("nothing was done: database trust: disk I/O error", hint="look for disk errors")

    with fail_after(60):
        config = make_config(tmp_path, cameras=0)
        async with (
            running_daemon(tmp_path, config=config) as daemon,
            daemon.local() as admin,
            daemon.websocket() as client,
        ):
            leaked = (await admin.call("issue_token", user_id="x", signing_key="ES256"))["token"]
            with monkeypatch.context() as patch:
                for change in ("retire", "give_up"):
                    patch.setattr(Keyring, change, fail)
                told = (await admin.ask("retire_signing_key", kid="key-2", distrust=True))["error"]["data"]
                assert (told["in_force"], told["reason"]) == (True, "store_error")
                assert told["detail"].startswith("key-2 is distrusted, and that is saved; it is not retired: nothing")
                told = (await admin.ask("retire_signing_key", kid="key-1"))["error"]["data"]
                assert "distrusted" not in told["detail"]
            assert "error" in await client.ask("authenticate", auth_token=leaked)
            done = await admin.call("retire_signing_key", kid="key-2", distrust=True)
            assert (done["state"], done["distrusted"]) == ("retired", True)


async def test_a_leaked_key_is_out_at_once_with_all_that_it_signed(tmp_path: Path) -> None:
    """Sessions by its tokens close with 4401, new ones are refused, another key signs; also after a restart."""
    with fail_after(60):
        config = make_config(tmp_path, cameras=0)
        async with (
            running_daemon(tmp_path, config=config) as daemon,
            daemon.local() as admin,
            daemon.websocket() as client,
        ):
            leaked = (await admin.call("issue_token", user_id="x", signing_key="ES256"))["token"]
            other = (await admin.call("issue_token", user_id="x", signing_key="RS256"))["token"]
            await client.call("authenticate", auth_token=leaked)
            done = await admin.call("retire_signing_key", kid="key-2", distrust=True)
            assert (done["state"], done["distrusted"], done["published"]) == ("retired", True, False)
            assert await ended(client) == 4401
            assert kids(await daemon.request("GET", PATHS[0])) == ["key-1", "key-3"]
            fresh = (await admin.call("issue_token", user_id="x", signing_key="ES256"))["token"]
            assert kid_of(fresh) == "key-3"
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            answers = [await admin.call("validate_token", token=text) for text in (leaked, other, fresh)]
            assert [answer["errors"] for answer in answers] == [["Token is blacklisted"], [], []]
            for kid in ("key-1", "key-3"):
                await admin.call("retire_signing_key", kid=kid, distrust=True)
            assert kids(await daemon.request("GET", PATHS[0])) == ["key-4", "key-5"]


async def test_streams_of_a_token_are_within_those_of_whoever_issues_it(tmp_path: Path) -> None:
    """A role is not added to a token for streams alone; names are names of paths."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            issued = await admin.call("issue_token", user_id="x", streams={"read": ["dock", "*"], "publish": ["in"]})
            claims = (await admin.call("validate_token", token=issued["token"]))["payload"]
            assert "role" not in claims
            assert claims["stream_access"] == {"read": ["*", "dock"], "publish": ["in"]}
            assert claims["mediamtx_permissions"] == [
                {"action": "read", "path": ""}, {"action": "read", "path": "dock"}, {"action": "publish", "path": "in"},
            ]  # fmt: skip
            for bad in ("", "~x", "a*b", "*a", "a b", "a?b", "é", "x" * 129):
                assert await code_of(admin, "issue_token", user_id="x", streams={"read": [bad]}) == -32602
            _, key = await daemon.create_key("admin", permissions=["tokens:issue", "stream:read"])
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                assert await client.call("issue_token", user_id="x", streams={"read": ["dock"]})
                assert await code_of(client, "issue_token", user_id="x", streams={"publish": ["dock"]}) == -32002


def test_what_a_token_says_of_streams_is_read_back_as_it_was_meant() -> None:
    """The list is for MediaMTX and the map says the same here; an empty path in a list is no grant (contract C-32)."""
    streams = Streams(frozenset({"*", "dock"}), frozenset({"in"}))
    claims = {"sub": "x", "exp": 2e9, **write_streams(streams)}
    assert read_caller(claims, "text", issuer="", now=1e9).streams == streams
    del claims["stream_access"]
    assert read_caller(claims, "text", issuer="", now=1e9).streams == Streams(frozenset({"dock"}), frozenset({"in"}))


# A MediaMTX somewhere else ------------------------------------------------------------------------------------------

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:trackID=0\r\n"
)


@dataclass
class Elsewhere:
    """An unmodified MediaMTX in jwt mode that knows our JWKS address and nothing else of us."""

    rtsp: int
    api: int

    async def may(self, action: str, path: str, token: str) -> bool:
        """Whether it lets the holder of this token do this: by what RTSP answers, 401 or anything that comes after."""
        login = base64.b64encode(f"any:{token}".encode()).decode()
        method, body = ("ANNOUNCE", SDP) if action == "publish" else ("DESCRIBE", "")
        lines = [f"{method} rtsp://127.0.0.1:{self.rtsp}/{path} RTSP/1.0", "CSeq: 1", f"Authorization: Basic {login}"]
        if body:
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        async with await trio.open_tcp_stream("127.0.0.1", self.rtsp) as stream:
            await stream.send_all(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            answer = b""
            while b"\r\n" not in answer:
                answer += (data := await stream.receive_some())
                assert data, "it hung up"
        status = int(answer.split(b" ", 2)[1])
        # Nobody publishes there, so a reader who may read hears that there is no stream.
        assert status in (200, 401, 404), answer
        return status != 401

    async def ask_all(self, token: str, questions: list[tuple[str, str]]) -> list[bool]:
        """All at once: it answers a refused one after up to four seconds."""
        answers: dict[int, bool] = {}

        async def ask(number: int, action: str, path: str) -> None:
            answers[number] = await self.may(action, path, token)

        async with trio.open_nursery() as nursery:
            for number, (action, path) in enumerate(questions):
                nursery.start_soon(ask, number, action, path)
        return [answers[number] for number in range(len(questions))]

    async def refresh(self) -> None:
        """Its own way to fetch the JWKS before the hour is over."""
        async with await trio.open_tcp_stream("127.0.0.1", self.api) as stream:
            await stream.send_all(
                b"POST /v3/auth/jwks/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            answer = b""
            while data := await stream.receive_some():
                answer += data
        assert answer.split(b" ", 2)[1] == b"200", answer


@asynccontextmanager
async def elsewhere(folder: Path, jwks_port: int) -> AsyncIterator[Elsewhere]:
    binary = find_binary("", os.environ["PATH"]).path
    assert binary is not None
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
    version = parse_version(told)
    assert version is not None, told
    server = Elsewhere(free_port(), free_port())
    file = folder / "elsewhere.json"
    file.write_text(json.dumps({
        "authMethod": "jwt", "authJWTJWKS": f"http://127.0.0.1:{jwks_port}/jwks-path",
        "authJWTClaimKey": "mediamtx_permissions", "authJWTExclude": [{"action": "api"}],
        "api": True, "apiAddress": f"127.0.0.1:{server.api}", "rtsp": True, "rtspAddress": f"127.0.0.1:{server.rtsp}",
        "rtspTransports": ["tcp"], "rtmp": False, "hls": False, "webrtc": False, "srt": False,
        "paths": {"all_others": {}}, **({"moq": False} if version >= (1, 19, 0) else {}),
    }))  # fmt: skip
    with (folder / "elsewhere.log").open("wb") as log:
        process = subprocess.Popen([binary, str(file)], stdout=log, stderr=log, cwd=folder)  # noqa: ASYNC220
    try:
        while True:
            assert process.poll() is None, (folder / "elsewhere.log").read_text()
            try:
                async with await trio.open_tcp_stream("127.0.0.1", server.api):
                    break
            except OSError:
                await trio.sleep(0.02)
        yield server
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[RunningDaemon, Conversation, Elsewhere]]:
    config = with_tokens(folder)
    async with (
        running_daemon(folder, config=config) as daemon, daemon.local() as admin,
        elsewhere(folder, port_of(config.listen.tokens)) as server,
    ):  # fmt: skip
        yield daemon, admin, server


QUESTIONS = [
    ("read", "camera_one"), ("read", "camera_one2"), ("read", "camera_on"), ("read", "camera_one/sub"),
    ("read", "dock"), ("publish", "camera_one"), ("publish", "dock"), ("publish", "dock2"),
]  # fmt: skip


@pytest.mark.mediamtx
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_mediamtx_elsewhere_admits_exactly_what_the_token_says(tmp_path: Path, algorithm: str) -> None:
    """Named paths and no others, all where `*` was granted, nothing without a grant or with another's signature."""
    with fail_after(90):
        async with both(tmp_path) as (_, admin, server):

            async def issue(**streams: list[str]) -> str:
                made = await admin.call("issue_token", user_id="x", streams=streams, signing_key=algorithm)
                return str(made["token"])

            named = await issue(read=["camera_one"], publish=["dock"])
            expected = {("read", "camera_one"), ("publish", "dock")}
            assert await server.ask_all(named, QUESTIONS) == [question in expected for question in QUESTIONS]
            begins = await issue(read=["camera_one*", "do.*"])
            expected = {("read", path) for path in ("camera_one", "camera_one2", "camera_one/sub")}
            assert await server.ask_all(begins, QUESTIONS) == [question in expected for question in QUESTIONS]
            cam = await issue(read=["cam*"])
            inside, outside = ("camera0", "cam", "cam.a-b_c/d"), ("other", "xcamera0", "x/camera0", "ca")
            asked = [("read", path) for path in (*inside, *outside)]
            assert await server.ask_all(cam, asked) == [path in inside for _, path in asked]
            everything = await issue(read=["*"])
            assert await server.ask_all(everything, QUESTIONS) == [action == "read" for action, _ in QUESTIONS]
            plain = (await admin.call("issue_token", user_id="x", role="admin", signing_key=algorithm))["token"]
            for nothing in (plain, "", named[:-8] + "AAAAAAAA"):
                assert not any(await server.ask_all(nothing, QUESTIONS[:1]))


@pytest.mark.mediamtx
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_map_is_refused_elsewhere_and_a_list_by_the_same_key_is_not(tmp_path: Path, algorithm: str) -> None:
    """Why the claim that MediaMTX reads is always a list (contract C-30)."""
    with fail_after(60):
        async with both(tmp_path) as (daemon, _, server):
            with sqlite3.connect(daemon.config.paths.state / "trust.db") as connection:
                number = 1 + ALGORITHMS.index(algorithm)
                rows = connection.execute("SELECT private FROM signing_keys WHERE number = ?", (number,))
                text = rows.fetchone()[0]
            connection.close()
            key = PrivateKey(f"key-{number}", algorithm, read_key(json.loads(text)))
            claims = {"sub": "x", "iss": "edged", "exp": int(time.time()) + 600}
            listed = tokens.sign(claims | {"mediamtx_permissions": [{"action": "read", "path": "a"}]}, key)
            mapped = tokens.sign(claims | {"mediamtx_permissions": {"read": ["a"], "publish": []}}, key)
            unknown = tokens.sign(claims | {"mediamtx_permissions": [{"action": "read", "path": "a", "x": 1}]}, key)
            found = [await server.may("read", "a", token) for token in (listed, mapped, unknown)]
            assert found == [True, False, False]


@pytest.mark.mediamtx
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_rotation_is_no_outage_for_a_mediamtx_elsewhere(tmp_path: Path, algorithm: str) -> None:
    """Old tokens before, during and after; new ones from the promotion on; a distrusted key's no more."""
    with fail_after(90):
        async with both(tmp_path) as (_, admin, server):

            async def issue() -> str:
                made = await admin.call("issue_token", user_id="x", streams={"read": ["a"]}, signing_key=algorithm)
                return str(made["token"])

            may = partial(server.may, "read", "a")
            old = await issue()
            assert await may(old)
            made = await admin.call("create_signing_key", algorithm=algorithm)
            assert [kid_of(await issue()), await may(old)] == [kid_of(old), True]
            # The hour after which it fetches by itself; two of them lie between a key's first and its second state.
            await server.refresh()
            await admin.call("promote_signing_key", kid=made["kid"], force=True)
            new = await issue()
            assert (kid_of(old) != kid_of(new) == made["kid"]) is True
            assert [await may(old), await may(new)] == [True, True]
            await server.refresh()
            assert [await may(old), await may(new)] == [True, True]
            # Why a young key needs force: whoever has not fetched the JWKS since refuses its tokens.
            third = await admin.call("create_signing_key", algorithm=algorithm)
            await admin.call("promote_signing_key", kid=third["kid"], force=True)
            newest = await issue()
            assert [await may(new), await may(newest)] == [True, False]
            await admin.call("retire_signing_key", kid=kid_of(old), distrust=True)
            await server.refresh()
            assert [await may(old), await may(new), await may(newest)] == [False, True, True]


@asynccontextmanager
async def publishing(server: Elsewhere, path: str, token: str) -> AsyncIterator[Callable[[], bool]]:
    """A real publisher there by this token; whether it still is."""
    # ffmpeg has room for a token in the address, and none as a password.
    url = f"rtsp://127.0.0.1:{server.rtsp}/{path}?token={token}"
    picture = ("-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=10", "-c:v", "libx264", "-g", "10")
    encoded = ("-preset", "ultrafast", "-tune", "zerolatency", "-f", "rtsp", "-rtsp_transport", "tcp", url)
    process = await trio.lowlevel.open_process(
        [str(find_ffmpeg()), "-nostdin", "-loglevel", "error", *picture, *encoded], stdin=subprocess.DEVNULL
    )
    try:
        yield lambda: process.poll() is None
    finally:
        process.kill()
        await process.wait()


async def watch(server: Elsewhere, path: str, token: str, is_published: Callable[[], bool]) -> RtspReader:
    """A real reader there by this token, who has seen something; a publisher needs a moment."""
    while True:
        reader = RtspReader(server.rtsp, path, "any", token)
        try:
            await reader.play()
            await reader.wait_packet()
            return reader
        except RtspRefused as problem:
            await reader.aclose()
            if problem.status != 404 or not is_published():
                raise
            await trio.sleep(0.1)


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_streams_elsewhere_go_on_through_a_rotation(tmp_path: Path, algorithm: str) -> None:
    """Who publishes and reads by a token of the key before neither ends nor stutters to an end at the promotion, or at
    the next look at the JWKS; who comes then publishes and reads by either token, each what the other publishes."""
    async with AsyncExitStack() as stack:
        stack.enter_context(fail_after(80))
        _, admin, server = await stack.enter_async_context(both(tmp_path))
        streams = {"read": ["a", "b", "c"], "publish": ["a", "b", "c"]}

        async def issue() -> str:
            made = await admin.call("issue_token", user_id="x", streams=streams, signing_key=algorithm)
            return str(made["token"])

        publishers, readers = [], []

        async def join(path: str, publisher: str, *viewers: str) -> None:
            if publisher:
                publishers.append(await stack.enter_async_context(publishing(server, path, publisher)))
            for viewer in viewers:
                readers.append(await watch(server, path, viewer, publishers[-1]))
                stack.push_async_callback(readers[-1].aclose)

        async def look() -> None:
            """Everybody who came is there, and what they see goes on."""
            for reader in readers:
                with fail_after(20):
                    for _ in range(3):
                        await reader.wait_packet()
            assert all(publisher() for publisher in publishers)

        old = await issue()
        await join("a", old, old)
        made = await admin.call("create_signing_key", algorithm=algorithm)
        # The hour after which it looks by itself; two of them lie between a key's first and its second state.
        await server.refresh()
        await look()
        await admin.call("promote_signing_key", kid=made["kid"], force=True)
        new = await issue()
        assert kid_of(new) == made["kid"] != kid_of(old)
        await look()
        await join("a", "", old, new)
        await join("b", new, old, new)
        await look()
        await server.refresh()
        await look()
        await join("c", old, old, new)
        await look()


async def test_a_box_with_a_wrapping_key_starts_with_it_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credential as systemd hands it over: nothing private stands in the file, and its loss is told by name."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    text = "the wrapping key of a whole daemon, of some length"
    (credentials / "edged.wrapping_key").write_text(planted.plant(text, "the wrapping key"))
    config = make_config(tmp_path, cameras=0)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            old = (await admin.call("issue_token", user_id="guest", signing_key="ES256"))["token"]
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        for _ in range(2):
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                new = (await admin.call("issue_token", user_id="guest", signing_key="ES256"))["token"]
                assert kid_of(new) == kid_of(old) == "key-2"
                for token in (old, new):
                    async with daemon.websocket() as client:
                        assert (await client.call("authenticate", auth_token=token))["user_id"] == "guest"
        assert b'"d":"' not in (config.paths.state / "trust.db").read_bytes()
        monkeypatch.delenv("CREDENTIALS_DIRECTORY")
        with pytest.raises(ExceptionGroup) as caught:
            async with running_daemon(tmp_path, config=config):
                pass
        assert caught.group_contains(StartFailed, match=r"the credential edged\.wrapping_key was not given", depth=None)


async def test_edged_rotates_its_keys_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of three days ago where a day is the limit: the next ones are published, and the JWKS shows both."""
    monkeypatch.setattr("edged.systemd.is_clock_synchronized", lambda: True)
    monkeypatch.setattr("edged.reactions.signing_keys.LOOK_SECONDS", 0.05)
    config = make_config(tmp_path, cameras=0)
    config = msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, signing_key_days=1))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            assert kids(await daemon.request("GET", PATHS[0])) == ["key-1", "key-2"]
        with contextlib.closing(sqlite3.connect(config.paths.state / "trust.db")) as connection, connection:
            connection.execute("UPDATE signing_keys SET promoted_at = promoted_at - 3 * 86400")
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            while len(kids(await daemon.request("GET", PATHS[0]))) < 4:
                await trio.sleep(0.02)
            shown = (await admin.call("list_signing_keys"))["keys"]
            assert [(key["kid"], key["state"]) for key in shown[2:]] == [("key-3", "next"), ("key-4", "next")]
            assert all(key["promotable_at"] for key in shown[2:])
