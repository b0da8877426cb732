"""Who asks on this very machine for themselves, and what is for those alone: the demo's login (contract 5.1, C-48)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import planted
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from starlette.datastructures import Headers
from trio_websocket import wrap_client_stream

from edged.credentials.callers import Peer
from edged.credentials.relays import is_direct
from edged.web import credentials

RELAYED = [
    "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host", "Forwarded", "Via", "X-Real-IP", "Origin",
    "Sec-Fetch-Site", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "X-Original-Forwarded-For", "X-Forwarded",
    "Fastly-Client-IP", "X-Cluster-Client-IP", "X-ProxyUser-Ip", "Proxy-Connection", "X-Envoy-External-Address",
    "X-Amzn-Trace-Id", "X-Varnish", "traceparent", "X-Request-ID", "Forwarded-For", "Client-IP", "X-Remote-Addr",
    "X-Originating-IP", "X-Azure-ClientIP", "WL-Proxy-Client-IP", "CDN-Loop",
]  # fmt: skip
#: What a reverse proxy on this machine leaves of a stranger's request, each by itself enough to tell.
BY_PROXY: list[Mapping[str, str]] = [
    *({name: "203.0.113.9"} for name in RELAYED),
    {"Host": "cams.example.org"},
    {"Host": "localhost.example.org:8002"},
    {"Host": "203.0.113.9"},
]
PASSWORD = planted.plant("correct horse battery", "a password of its own")
CREDENTIALS = {"username": "demo", "password": "demo"}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8002", "127.0.0.1", "127.0.0.1:3000", "[::1]", "[::1]:8002"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_program_of_this_machine_is_direct(address: str, host: str) -> None:
    """Whatever else it sends."""
    assert is_direct(address, ["host", "user-agent", "authorization", "x-api-key"], [host])


@given(
    address=st.sampled_from(["127.0.0.1", "::1", "192.0.2.7", "::ffff:192.0.2.7", "", "nonsense"]),
    names=st.lists(st.sampled_from([*map(str.lower, RELAYED), "host", "accept", "user-agent", "x-api-key"])),
    hosts=st.lists(st.sampled_from(["localhost", "127.0.0.1:1", "", ":1", "evil", "localhost:x", "[::1"]), max_size=2),
)
def test_whoever_is_relayed_in_any_way_is_not(address: str, names: list[str], hosts: list[str]) -> None:
    """From elsewhere, with a header of a proxy or a browser, or by a name that is not its own or stands twice."""
    told = is_direct(address, names, hosts)
    near = address in ("127.0.0.1", "::1")
    assert told is (near and hosts in (["localhost"], ["127.0.0.1:1"]) and not {*names} & {*map(str.lower, RELAYED)})


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost"]])
def test_a_request_over_http_is_asked_the_same(hosts: list[str]) -> None:
    """One Host, not two that could be read each by another."""
    headers = Headers(raw=[(b"host", host.encode()) for host in hosts])
    assert credentials.is_direct(headers, Peer("main", "127.0.0.1")) is (len(hosts) == 1)


# --- the demo's login --------------------------------------------------------


async def over_http(
    daemon: RunningDaemon, headers: Mapping[str, str], name: str = "demo", password: str = "demo"
) -> int:
    """The status of POST /api/token."""
    body = {"username": name, "password": password}
    return (await daemon.request("POST", "/api/token", body=body, headers=headers)).status


async def over_websocket(daemon: RunningDaemon, headers: Mapping[str, str]) -> list[str]:
    """What the upgrade's headers make of both ways to show a password."""
    sent = [(name.lower().encode(), value.encode()) for name, value in headers.items() if name != "Host"]
    stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
    async with stream, trio.open_nursery() as nursery:
        host = headers.get("Host", "localhost")
        client = Conversation(await wrap_client_stream(nursery, stream, host, "/ws", extra_headers=sent))
        told = [await client.ask(method, **CREDENTIALS) for method in ("login", "create_stream_token")]
        await client.connection.aclose()
        nursery.cancel_scope.cancel()
    return [reply["error"]["data"]["reason"] if "error" in reply else "ok" for reply in told]


async def test_a_password_that_everybody_knows_is_not_taken_through_a_proxy(tmp_path: Path) -> None:
    """One on this machine makes every stranger come from loopback; a good password is good all the same."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            async with daemon.local() as admin:
                await admin.call("create_demo_login")
                await admin.call("create_user", name="ann", role="viewer", password=PASSWORD)
            for headers in BY_PROXY:
                assert await over_http(daemon, headers) == 401, headers
                assert await over_websocket(daemon, headers) == ["auth_failed", "auth_failed"], headers
            assert await over_http(daemon, BY_PROXY[0], "ann", PASSWORD) == 200
            # On this machine itself, by each of its names.
            for name in ("localhost", "127.0.0.1"):
                assert await over_http(daemon, {"Host": f"{name}:{daemon.port}"}) == 200
                assert await over_websocket(daemon, {"Host": name}) == ["ok", "ok"]
