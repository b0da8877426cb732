"""`[listen.policy.NAME]`: what one listener shows, and to whom (contract S1-38, C-9)."""

from __future__ import annotations

import ast
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cli_helpers import Shell, write_config
from daemon_helpers import RunningDaemon, free_port, make_config, port_of, running_daemon, talk
from hypothesis import given
from hypothesis import strategies as st
from net_helpers import UPGRADE, ask, connect, read_all, read_reply, running, until
from patience import fail_after
from rtsp_client import RtspReader
from structlog.testing import capture_logs

from edged.config.load import load
from edged.config.model import LISTENERS, Config, ListenerPolicy, ListenPolicies, ListenSettings
from edged.config.render import render
from edged.credentials.policies import Policy, find_neighbours
from edged.daemon.listeners import read_policies, read_restrictions
from edged.errors import ConfigError
from edged.metrics import Metrics
from edged.net.handlers import Handlers
from edged.net.listeners import inherit, open_tcp
from edged.net.server import Refusals
from edged.web.routes import list_paths

EVERYWHERE = ("0.0.0.0/0", "::/0")
NOTHING = {"error": "Not found", "detail": "there is nothing at this path", "code": "not_found"}


LETTERS = "ab/.%*\n ü"
PATHS = st.text(LETTERS, max_size=8).map(lambda text: f"/{text}")
LISTS = st.lists(PATHS, max_size=4)
V4_NETWORKS = st.builds(
    lambda number, length: f"{IPv4Address(number >> (32 - length) << (32 - length))}/{length}",
    st.integers(0, 2**32 - 1), st.integers(0, 32),
)  # fmt: skip
V6_NETWORKS = st.builds(
    lambda number, length: f"{IPv6Address(number >> (128 - length) << (128 - length))}/{length}",
    st.integers(2**120, 2**128 - 1), st.integers(0, 128),
)  # fmt: skip


# Settings ------------------------------------------------------------------------------------------------------------


def read(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> ListenPolicies:
    (folder / "50-mine.toml").write_text(text)
    return load(folder, environ or {}).listen.policy


def test_a_policy_is_read_from_files_and_environment_key_by_key(tmp_path: Path) -> None:
    """A later file changes what it names; one path or network may stand alone; the rest shows everything."""
    (tmp_path / "10.toml").write_text(
        '[listen.policy.tokens]\npaths = ["/jwks-path", "/.well-known/*"]\nnetworks = ["10.0.0.0/8"]\n'
        "[listen.policy.main]\nnetworks = ['192.0.2.7']\n"
    )
    found = read(
        tmp_path,
        "listen.policy.tokens.networks = '2001:db8::/32'\n",
        {"EDGED_LISTEN_POLICY_MAIN_NETWORKS": "10.1.0.0/16, ::1", "EDGED_LISTEN_POLICY_LOCAL_PATHS": "/metrics"},
    )
    assert found.tokens == ListenerPolicy(paths=("/jwks-path", "/.well-known/*"), networks=("2001:db8::/32",))
    assert found.main == ListenerPolicy(networks=("10.1.0.0/16", "::1"))
    assert found.local == ListenerPolicy(paths=("/metrics",))
    assert found.compat == ListenerPolicy() == ListenerPolicy(paths=("/*",), networks=EVERYWHERE)


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[listen.policy.token]\npaths = ['/']", 1, "listen.policy.token", ["not a listener", "listen.policy.tokens?"]),
        ("[listen.policy.unix]\npaths = ['/']", 1, "listen.policy.unix", ["is not a listener"]),
        ("[listen.policy.main]\npath = ['/']", 2, "listen.policy.main.path", ["mean listen.policy.main.paths?"]),
        ("[listen.policy.main]\npaths = [1]", 2, "listen.policy.main.paths", ["expected str, got int"]),
        ("[listen.policy.main]\n\npaths = ['/a', 'ws']", 3, "listen.policy.main.paths", ["'ws' must begin with /"]),
        ("[listen.policy.main]\npaths = ['*']", 2, "listen.policy.main.paths", ["must begin with /"]),
        ("[listen.policy.main]\npaths = ['']", 2, "listen.policy.main.paths", ["must begin with /"]),
        ("[listen.policy.main]\npaths = ['/a/*/b']", 2, "listen.policy.main.paths", ["at the end only"]),
        ("[listen.policy.main]\npaths = ['/a**']", 2, "listen.policy.main.paths", ["at the end only"]),
        ("[listen.policy.main]\npaths = ['/a?b=c']", 2, "listen.policy.main.paths", ["without query"]),
        ("[listen.policy.main]\npaths = ['/%61']", 2, "listen.policy.main.paths", ["%-encoding"]),
        ("[listen.policy.main]\npaths = []", 2, "listen.policy.main.paths", ['set its addresses to "off"']),
        ("[listen.policy.main]\nnetworks = 'off'", 2, "listen.policy.main.networks", ['set its addresses to "off"']),
        (
            "[listen.policy.main]\npaths = [\n'/ok',\n]\nnetworks = ['10.0.0.0/33']", 5, "listen.policy.main.networks",
            ["'10.0.0.0/33' is not a network"],
        ),
        ("[listen.policy.main]\nnetworks = ['box']", 2, "listen.policy.main.networks", ["'box' is not a network"]),
        ("[listen.policy.main]\nnetworks = ['fe80::%lo/64']", 2, "listen.policy.main.networks", ["no interface"]),
        (
            "[listen.policy.main]\nnetworks = ['10.0.0.5/24']", 2, "listen.policy.main.networks",
            ["host bits set", "10.0.0.0/24"],
        ),
        ("[listen]\npolicy = '/ws'", 2, "listen.policy", ["listen.policy is a section"]),
        ("[listen.policy]\nmain = '/ws'", 2, "listen.policy.main", ["listen.policy.main is a section"]),
        ("[listen.policy]\nmain = {paths = ['x']}", 2, "listen.policy.main.paths", ["must begin with /"]),
    ],
)  # fmt: skip
def test_a_wrong_policy_names_its_file_line_and_key(
    tmp_path: Path, text: str, line: int, key: str, words: list[str]
) -> None:
    """No policy is half understood: what is wrong with it is said before anything listens."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / '50-mine.toml'} line {line}: ")
    assert (caught.value.fields["line"], caught.value.fields["key"]) == (line, key)
    assert [word for word in words if word not in f"{caught.value} {caught.value.hint}"] == []


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("EDGED_LISTEN_POLICY_TOKEN_PATHS", "/a", ["listen.policy.token is not a listener", "listen.policy.tokens"]),
        ("EDGED_LISTEN_POLICY_MAIN_PATH", "/a", ["did you mean listen.policy.main.paths?"]),
        ("EDGED_LISTEN_POLICY_MAIN", "/a", ["EDGED_LISTEN_POLICY_MAIN"]),
        ("EDGED_LISTEN_POLICY", "/a", ["is not a listener"]),
        ("EDGED_LISTEN_POLICY_MAIN_PATHS", "ws", ["'ws' must begin with /"]),
        ("EDGED_LISTEN_POLICY_MAIN_NETWORKS", "10.0.0.0/8,x", ["'x' is not a network"]),
    ],
)
def test_a_wrong_variable_of_a_policy_is_named(tmp_path: Path, variable: str, text: str, words: list[str]) -> None:
    """As every other setting of the environment."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "", {variable: text})
    assert str(caught.value).startswith(f"environment variable {variable}: ")
    assert [word for word in words if word not in f"{caught.value} {caught.value.hint}"] == []


@given(
    st.lists(st.one_of(st.text(max_size=12), PATHS), max_size=3),
    st.lists(st.one_of(st.text("0123456789abcdf:./% ", max_size=12), V4_NETWORKS, V6_NETWORKS), max_size=3),
)
def test_what_the_settings_take_the_listener_understands(paths: list[str], networks: list[str]) -> None:
    """Whatever is written is refused as a setting or is a policy: nothing is left to fail at the start."""
    try:
        given_policy = ListenerPolicy(paths=tuple(paths), networks=tuple(networks))
    except ValueError:
        return
    policy = Policy(given_policy.paths, given_policy.networks)
    assert all(policy.shows(path.removesuffix("*")) for path in paths)
    assert all(policy.admits(network.partition("/")[0]) for network in networks)


def test_a_shown_policy_loads_again(tmp_path: Path) -> None:
    """`edged config show` prints every listener's."""
    found = read(tmp_path, "[listen.policy.local]\npaths = ['/ü*']\nnetworks = ['127.0.0.0/8', '::1']\n")
    (tmp_path / "again").mkdir()
    shown = render(load(tmp_path, {}))
    assert read(tmp_path / "again", shown) == found
    assert all(f"[listen.policy.{name}]\n" in shown for name in LISTENERS)


def test_the_check_of_settings_tells_what_is_restricted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words and as JSON; a listener that shows everything to everybody is not mentioned."""
    folder = write_config(tmp_path)
    shell = Shell(monkeypatch, capsys, folder)
    (folder / "90.toml").write_text("[listen.policy.tokens]\npaths = ['/jwks-path', '/a*']\n")
    said = shell.run("config", "check")
    assert said.out == "listen.tokens serves /jwks-path, /a* to 0.0.0.0/0, ::/0\nthe settings are valid\n"
    found = shell.run("config", "check", "--json").json["policies"]
    assert found == {"tokens": {"paths": ["/jwks-path", "/a*"], "networks": list(EVERYWHERE)}}


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (
            ["/jwks-path", "/api/token*"],
            "listen.policy.tokens.paths: '/api/token*' also allows /api/tokens, /api/tokens/usage, "
            "/api/tokens/validate; '/api/token' and '/api/token/*' do not",
        ),
        (["/health*"], "also allows /healthz"),
        (
            [
                "/api/token",
                "/api/token/*",
                "/.well-known/*",
                "/api/key*",
                "/api/keys*",
                "/jwks*",
                "/api/*",
                "/nothing*",
            ],
            "",
        ),
    ],
)
def test_the_check_of_settings_warns_of_what_only_begins_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], paths: list[str], told: str
) -> None:
    """A beginning and * is no folder: the tokens of /api/tokens are an administrator's."""
    folder = write_config(tmp_path)
    shell = Shell(monkeypatch, capsys, folder)
    (folder / "90.toml").write_text(f"[listen.policy.tokens]\npaths = {paths}\n")
    said = shell.run("config", "check")
    assert (said.code, told in said.err, "warning" in said.err) == (0, True, bool(told))
    found = shell.run("config", "check", "--json").json["warnings"]
    assert (len(found), all(told in warning for warning in found)) == (bool(told), True)


def test_the_policy_of_the_documentation_shows_nothing_by_the_way() -> None:
    """Whoever copies it opens what it says."""
    page = (Path(__file__).parent.parent / "docs/settings.md").read_text()
    (entries,) = re.findall(r"^\[listen\.policy\.tokens\].*\npaths = (\[.*\])", page, re.MULTILINE)
    paths = ast.literal_eval(entries.partition("]")[0] + "]")
    assert find_neighbours(paths, list_paths()) == {}
    assert "/api/token/*" in paths
    assert not Policy(paths, EVERYWHERE).shows("/api/tokens")


# The decision --------------------------------------------------------------------------------------------------------


@given(LISTS, PATHS)
def test_a_path_is_shown_if_it_is_listed_or_begins_as_one_with_a_star(listed: list[str], path: str) -> None:
    """Letter by letter: no case folded, no slash merged, no dot resolved, as the router reads it."""
    meant = any(
        path[: len(item) - 1] == item[:-1] if item.endswith("*") else path == item
        for item in listed
    )  # fmt: skip
    assert Policy(listed, EVERYWHERE).shows(path) is meant


@given(LISTS, PATHS, PATHS)
def test_a_longer_list_shows_no_less(listed: list[str], more: str, path: str) -> None:
    """Order and repetition do not matter, and no entry hides what another shows."""
    longer = [more, *reversed(listed), more]
    assert Policy(longer, EVERYWHERE).shows(path) >= Policy(listed, EVERYWHERE).shows(path)


@given(st.lists(st.one_of(V4_NETWORKS, V6_NETWORKS), max_size=4), st.integers(0, 2**32 - 1))
def test_an_ipv4_peer_is_the_same_however_its_socket_writes_it(networks: list[str], number: int) -> None:
    """It lies in IPv4 networks alone."""
    address = IPv4Address(number)
    policy = Policy(["/*"], networks)
    meant = any(address in ip_network(item) for item in networks if ":" not in item)
    assert policy.admits(str(address)) is policy.admits(f"::ffff:{address}") is meant


@given(st.lists(st.one_of(V4_NETWORKS, V6_NETWORKS), max_size=4), st.integers(2**120, 2**128 - 1))
def test_an_ipv6_peer_lies_in_ipv6_networks_alone(networks: list[str], number: int) -> None:
    """Whatever interface a link-local address came by."""
    address = IPv6Address(number)
    policy = Policy(["/*"], networks)
    meant = any(address in ip_network(item) for item in networks if ":" in item)
    assert policy.admits(str(address)) is policy.admits(f"{address}%eth0") is meant


@pytest.mark.parametrize("address", ["", "unknown", "127.0.0.1:80", "127.1", "[::1]", "0127.0.0.1"])
def test_what_is_no_address_is_nowhere(address: str) -> None:
    """Not even where everybody is let in."""
    assert not Policy(["/*"], EVERYWHERE).admits(address)


def test_without_a_policy_nothing_stands_in_the_way() -> None:
    """What is the default, however it is written, costs no request anything: no listener is held to anything."""
    metrics = Metrics({})
    handlers = Handlers(no_app, no_session)
    same = ListenerPolicy(paths=("/ws", "/*"), networks=("::/0", "10.0.0.0/8", "0.0.0.0/0"))
    for policy in (ListenPolicies(), ListenPolicies(main=same, tokens=same)):
        config = Config(listen=ListenSettings(policy=policy))
        assert read_policies(config.listen) == {} == read_restrictions(config.listen, handlers, metrics)
    config = Config(listen=ListenSettings(policy=ListenPolicies(main=ListenerPolicy(networks=("10.0.0.0/8",)))))
    assert read_restrictions(config.listen, handlers, metrics)["main"].handlers is handlers
    config = Config(listen=ListenSettings(policy=ListenPolicies(main=ListenerPolicy(paths=("/a",)))))
    assert read_restrictions(config.listen, handlers, metrics)["main"].admits is None


async def no_app(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("nobody asks")


def no_session(*_given: Any) -> Any:
    raise AssertionError("nobody calls")


# Networks, at bare listeners -----------------------------------------------------------------------------------------

GET = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def ask_from(address: str, port: int, data: bytes, to: str = "127.0.0.1") -> bytes:
    """Send bytes from this address of our own, and read until the server ends it."""
    sock = trio.socket.socket()
    await sock.bind((address, 0))
    await sock.connect((to, port))
    async with trio.SocketStream(sock) as stream:
        await stream.send_all(data)
        return await read_all(stream)


async def test_a_peer_outside_is_told_so_before_anything_is_read_of_it() -> None:
    """403 with its address and the setting, on that listener alone; loopback is a network like any other."""
    listeners = [open_tcp("main", "127.0.0.1:0"), open_tcp("compat", "127.0.0.1:0")]
    admits = {"main": Policy(["/*"], ["127.0.0.2"]).admits}
    with capture_logs() as log:
        async with running(listeners=listeners, admits=admits) as served:
            refused = await ask_from("127.0.0.1", listeners[0].port, b"")
            head, _, body = refused.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 403 ")
            assert b"Connection: close" in head
            assert b"Retry-After" not in head
            assert json.loads(body) == {
                "error": "Address denied",
                "detail": "127.0.0.1 is in none of the networks of listen.policy.main.networks",
                "code": "address_denied",
            }
            assert (await ask_from("127.0.0.1", listeners[0].port, UPGRADE)).startswith(b"HTTP/1.1 403 ")
            assert (await ask_from("127.0.0.1", listeners[0].port, b"\x16\x03\x01")).startswith(b"HTTP/1.1 403 ")
            assert (served.refused, served.scopes, served.sessions) == (3, [], [])
            assert (await ask_from("127.0.0.2", listeners[0].port, GET)).endswith(b"hello")
            assert (await ask_from("127.0.0.1", listeners[1].port, GET)).endswith(b"hello")
            assert served.refused == 3
    told = [entry for entry in log if entry["event"] == "peer_refused"]
    assert [(entry["listener"], entry["address"], entry["times"]) for entry in told] == [("main", "127.0.0.1", 1)]
    assert "listen.policy.main.networks" in told[0]["remedy"]


async def test_a_peer_outside_takes_no_place_of_those_inside() -> None:
    """A crowd of scanners fills no cap, and is told 403 and not 503."""
    listeners = [open_tcp("main", "127.0.0.1:0")]
    admits = {"main": Policy(["/*"], ["127.0.0.2"]).admits}
    async with running(listeners=listeners, admits=admits, connections=1) as served:
        crowd = [await connect(served.port) for _ in range(80)]
        await until(lambda: served.refused == 80)
        assert served.server is not None
        assert served.server.connections == 0
        assert (await ask_from("127.0.0.2", served.port, GET)).endswith(b"hello")
        for each in crowd:
            assert (await read_all(each)).startswith(b"HTTP/1.1 403 ")
            await each.aclose()


async def test_an_ipv4_peer_of_a_socket_that_takes_both_is_ipv4() -> None:
    """Such a socket comes from systemd; ours take IPv6 alone."""
    both = socket.socket(socket.AF_INET6)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind(("::", 0))
    both.listen()
    admits = {"main": Policy(["/*"], ["127.0.0.2/32"]).admits}
    async with running(listeners=[inherit("main", both)], admits=admits) as served:
        assert (await ask_from("127.0.0.2", served.port, GET)).endswith(b"hello")
        assert (await ask_from("127.0.0.1", served.port, GET)).startswith(b"HTTP/1.1 403 ")


async def test_a_unix_socket_is_held_to_nothing(tmp_path: Path) -> None:
    """The mode of its file says who may open it."""
    path = tmp_path / "main.sock"
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(path))
    given.listen()
    nobody = {"unix": Policy(["/*"], []).admits}
    async with (
        running(listeners=[inherit("unix", given)], admits=nobody),
        await trio.open_unix_socket(str(path)) as stream,
    ):
        await stream.send_all(GET)
        assert (await read_all(stream)).endswith(b"hello")


def test_a_crowd_outside_is_a_line_a_minute() -> None:
    """The first at once; each line says how many there were since the one before."""
    listener = open_tcp("main", "127.0.0.1:0")
    refusals = Refusals(listener)
    with capture_logs() as log:
        for second in range(130):
            for _ in range(10):
                refusals.note(f"192.0.2.{second}", float(second))
    listener.close()
    assert [(entry["address"], entry["times"]) for entry in log] == [
        ("192.0.2.0", 1), ("192.0.2.60", 600), ("192.0.2.120", 600),
    ]  # fmt: skip


# Paths and networks, at a running daemon ------------------------------------------------------------------------------


@asynccontextmanager
async def restricted_daemon(folder: Path, **policies: ListenerPolicy) -> AsyncIterator[RunningDaemon]:
    """A daemon with its fourth listener on, too, and these policies."""
    config = make_config(folder, cameras=0)
    listen = msgspec.structs.replace(
        config.listen, tokens=(f"127.0.0.1:{free_port()}",), policy=ListenPolicies(**policies)
    )
    with fail_after(60):
        async with running_daemon(folder, config=msgspec.structs.replace(config, listen=listen)) as daemon:
            yield daemon


def head_of(target: str, *more: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *more, "", ""]).encode()


def is_nothing(reply: bytes) -> bool:
    head, _, body = reply.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 404 ") and json.loads(body) == NOTHING


KEYS_ONLY = ListenerPolicy(paths=("/jwks-path", "/.well-known/*"))
HIDDEN = (
    "/api/keys", "/api%2Fkeys", "/%61pi/keys", "//api/keys", "/api//keys", "/./api/keys", "/API/keys", "/health",
    "/jwks-path/../api/keys", "/jwks-path/%2e%2e/api/keys", "/jwks-path%2f..%2fapi%2fkeys", "/jwks-path/",
    "//jwks-path", "/jwks-path%00", "/jwks-path%0a", "/jwks-path%20", "/jwks-path;x", "/JWKS-path",
    "/.well-known/../api/keys",
    "/.well-known", "/.Well-known/jwks.json", "http://localhost/api/keys", "http://localhost:1/%61pi/keys", "/ws", "/",
    "/ws/", "/api/keys?/jwks-path", "/metrics", "/api/token", "/files/snapshots/x.jpg", "/v1/files", "/nowhere",
)  # fmt: skip
SHOWN = ("/jwks-path", "/%6awks-path", "/jwks-path?x=%2Fapi%2Fkeys", "http://localhost/jwks-path",
         "/.well-known/jwks.json", "/.well-known%2Fjwks.json")  # fmt: skip


async def test_what_is_not_listed_is_not_there(tmp_path: Path) -> None:
    """However it is spelled, with whatever method and with a good credential: 404, the same as for what never was."""
    async with restricted_daemon(tmp_path, tokens=KEYS_ONLY) as daemon:
        port = port_of(daemon.config.listen.tokens)
        _, key = await daemon.create_key("admin")
        shown = (f"X-API-Key: {key}", "Connection: close")
        assert (await daemon.request("GET", "/api/keys", key=key)).status == 200, "the other listeners show it"
        for target in HIDDEN:
            assert is_nothing(await ask(port, head_of(target, *shown))), target
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert is_nothing(await ask(port, head_of("/api/keys", "Content-Length: 0", *shown, method=method))), method
        head = await ask(port, head_of("/api/keys", *shown, method="HEAD"))
        assert head.startswith(b"HTTP/1.1 404 ")
        assert head.endswith(b"\r\n\r\n")
        for target in SHOWN:
            assert (await ask(port, head_of(target, *shown))).startswith(b"HTTP/1.1 200 "), target
        wrong = await ask(port, head_of("/jwks-path", "Content-Length: 0", *shown, method="POST"))
        assert wrong.startswith(b"HTTP/1.1 405 "), "what is listed says itself what it knows"


async def test_a_hidden_path_is_asked_for_no_credential(tmp_path: Path) -> None:
    """A wrong key at a path that is not shown is no failed try: nobody looked at it."""
    async with restricted_daemon(tmp_path, tokens=KEYS_ONLY) as daemon:
        before = await failures(daemon)
        reply = await daemon.request("GET", "/api/keys", key="wrong", port=port_of(daemon.config.listen.tokens))
        assert (reply.status, reply.json) == (404, NOTHING)
        assert await failures(daemon) == before


async def test_each_request_of_a_connection_is_held_to_the_list(tmp_path: Path) -> None:
    """What was let in first opens nothing for what comes behind it, one by one or in one write."""
    async with (
        restricted_daemon(tmp_path, tokens=KEYS_ONLY) as daemon,
        await connect(port_of(daemon.config.listen.tokens)) as stream,
    ):
        for target, status in (("/jwks-path", b"200"), ("/api/keys", b"404"), ("/jwks-path", b"200")):
            await stream.send_all(head_of(target))
            head, _ = await read_reply(stream)
            assert head.split()[1] == status
        await stream.send_all(head_of("/jwks-path") + head_of("/api/keys", "Connection: close"))
        said = await read_all(stream)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.count(b"HTTP/1.1 404 ") == 1


async def test_a_websocket_opens_only_where_it_is_listed(tmp_path: Path) -> None:
    """A listener without one answers there as at any other path, also to whoever asks without an upgrade."""
    policies = {"tokens": KEYS_ONLY, "compat": ListenerPolicy(paths=("/ws",))}
    async with restricted_daemon(tmp_path, **policies) as daemon:
        tokens, compat = port_of(daemon.config.listen.tokens), port_of(daemon.config.listen.compat)
        for path in (b"/ws", b"/ws/", b"/", b"/api/keys", b"/jwks-path", b"//ws", b"/%77s"):
            assert is_nothing(await ask(tokens, UPGRADE.replace(b"/ws", path, 1))), path
        async with daemon.websocket(compat) as client:
            assert await client.call("ping") == "pong"
        for path in (b"/ws/", b"/", b"/WS"):
            said = await ask(compat, UPGRADE.replace(b"/ws", path, 1))
            assert said.startswith(b"HTTP/1.1 404 "), path
            assert b"a WebSocket opens at /ws" in said
        assert (await ask(compat, head_of("/ws"))).startswith(b"HTTP/1.1 426 ")
        async with daemon.websocket() as client:
            assert await client.call("ping") == "pong"


async def test_each_listener_has_networks_of_its_own(tmp_path: Path) -> None:
    """Peers are told apart by the address that the kernel gives, whatever headers they send; refusals are counted."""
    near = ListenerPolicy(networks=("127.0.0.2/31",))
    one = ListenerPolicy(paths=("/jwks-path",), networks=("127.0.0.9",))
    async with restricted_daemon(tmp_path, main=near, tokens=one) as daemon:
        main, tokens = daemon.port, port_of(daemon.config.listen.tokens)
        asked = head_of("/jwks-path", "X-Forwarded-For: 127.0.0.2", "Forwarded: for=127.0.0.9", "Connection: close")
        found = {
            (address, port): (await ask_from(address, port, asked)).split()[1].decode()
            for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.9")
            for port in (main, tokens)
        }
        let_in = {at for at, status in found.items() if status == "200"}
        assert let_in == {("127.0.0.2", main), ("127.0.0.3", main), ("127.0.0.9", tokens)}
        assert {status for at, status in found.items() if at not in let_in} == {"403"}
        assert await failures(daemon) == {"address_denied": 7.0}
        async with daemon.local() as admin:
            assert await admin.call("ping") == "pong", "the local socket is open as before"
        assert (await ask(main, UPGRADE)).startswith(b"HTTP/1.1 403 ")
        sock = trio.socket.socket()
        await sock.bind(("127.0.0.3", 0))
        await sock.connect(("127.0.0.1", main))
        async with talk(trio.SocketStream(sock)) as client:
            assert await client.call("ping") == "pong"


async def failures(daemon: RunningDaemon) -> dict[str, float]:
    """The refusals that were counted, by their reason."""
    reply = await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))
    found = re.findall(r'^edged_auth_failures_total\{.*reason="(\w+)".*\} (\S+)$', reply.body.decode(), re.MULTILINE)
    assert len(found) > 100, "every reason is there from the start"
    return {reason: float(value) for reason, value in found if float(value)}


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_mediamtx_asks_whatever_the_listeners_are_held_to(tmp_path: Path) -> None:
    """Its questions come by a listener of their own: a camera streams though nobody is let in anywhere."""
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    nobody = ListenerPolicy(paths=("/nothing",), networks=("192.0.2.0/24",))
    policy = ListenPolicies(**dict.fromkeys(LISTENERS, nobody))
    listen = msgspec.structs.replace(config.listen, policy=policy)
    with fail_after(80):
        async with running_daemon(tmp_path, config=msgspec.structs.replace(config, listen=listen)) as daemon:
            _, key = await daemon.create_key("viewer")
            await daemon.wait_media()
            reader = RtspReader(daemon.rtsp, "camera0", "anybody", key)
            await reader.play()
            await reader.aclose()
            assert (await ask(daemon.port, b"")).startswith(b"HTTP/1.1 403 ")
