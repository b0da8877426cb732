"""Who is taken for local root, or for an administrator, without showing a credential: by facts, never by a name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import make_config, running_daemon
from patience import fail_after
from structlog.testing import capture_logs
from web_helpers import Site

from edged import app, systemd
from edged.config.load import load
from edged.config.model import AuthSettings
from edged.credentials.callers import Peer
from edged.errors import ConfigError, StartFailed
from edged.net.listeners import inherit

ROOT = Peer("main", "127.0.0.1", 4711, find_uid=lambda: 0)


def listening(family: int = socket.AF_INET, path: Path | None = None) -> socket.socket:
    """A socket as systemd hands one over."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind(str(path) if path else ("127.0.0.1", 0))
    sock.listen()
    return sock


@pytest.mark.parametrize("name", ["unix", "unknown", "edged.socket", "Main", ""])
def test_a_tcp_socket_of_a_wrong_name_is_no_start(name: str) -> None:
    """One called unix would make everybody an administrator, one of no known name would have no policy."""
    with listening() as sock, pytest.raises(StartFailed) as failed:
        inherit(name, sock)
    assert "a TCP socket from systemd" in str(failed.value)
    assert "FileDescriptorName=" in failed.value.hint


@pytest.mark.parametrize("name", ["main", "local", "unknown"])
def test_a_unix_socket_of_another_name_is_no_start(tmp_path: Path, name: str) -> None:
    """Whoever may open it would count as nobody in particular, and by no address."""
    with listening(socket.AF_UNIX, tmp_path / "s") as sock, pytest.raises(StartFailed, match="a unix socket from"):
        inherit(name, sock)


def test_a_socket_that_does_not_listen_is_no_start(tmp_path: Path) -> None:
    """Accept=yes hands over a connection, ListenDatagram= something else again."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for sock in (ours, datagrams):
            with pytest.raises(StartFailed, match="does not listen"):
                inherit("unix", sock)


def test_sockets_of_the_right_family_are_taken(tmp_path: Path) -> None:
    """Each name with its own kind. Nothing is raised."""
    inherit("unix", listening(socket.AF_UNIX, tmp_path / "s")).close()
    for name in ("main", "compat", "local", "tokens"):
        inherit(name, listening()).close()


async def test_a_start_with_a_tcp_socket_called_unix_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole daemon, as systemd starts it; the socket is closed again."""
    sock = listening()
    monkeypatch.setattr(systemd, "listen_fds", lambda: {"unix": sock})
    with fail_after(20), pytest.raises(BaseExceptionGroup) as failed:
        await app.run(make_config(tmp_path, cameras=0))
    assert failed.group_contains(StartFailed, match="a TCP socket from systemd is called 'unix'")
    assert sock.fileno() == -1


# -- root over loopback ------------------------------------------------------------------------------------------------


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    """The HTTP app over a real gate."""
    return Site(tmp_path)


async def test_each_use_of_roots_authority_is_logged_with_its_peer(site: Site) -> None:
    """Somebody who finds keys that nobody made can see from where and by what program."""
    with capture_logs() as log:
        reply = await site.ask("GET", "/api/keys", peer=ROOT, headers={"User-Agent": "curl/8"})
    assert reply.status == 200
    line = next(line for line in log if line["event"] == "root_without_credential")
    assert {name: line[name] for name in ("address", "port", "listener", "method", "path", "agent")} == {
        "address": "127.0.0.1", "port": 4711, "listener": "main",
        "method": "GET", "path": "/api/keys", "agent": "curl/8",
    }  # fmt: skip
    assert line["log_level"] == "warning"


@pytest.mark.parametrize("peer", [
    Peer("main", "127.0.0.1", 4711, find_uid=lambda: 0, is_http10=True),
    Peer("main", "127.0.0.1", 4711, find_uid=lambda: 0, proxy="127.0.0.1"),
])  # fmt: skip
async def test_what_a_relay_may_have_sent_has_no_authority(site: Site, peer: Peer) -> None:
    """HTTP/1.0, and whatever comes from a trusted proxy's address, with or without a header of it."""
    assert (await site.ask("GET", "/api/keys", peer=peer)).status == 401


async def test_switched_off_root_shows_a_credential_as_everybody(tmp_path: Path) -> None:
    """Where a relay of root's own adds nothing and speaks HTTP/1.1; the answer promises nothing then."""
    site = Site(tmp_path, root_needs_no_key=False)
    reply = await site.ask("GET", "/api/keys", peer=ROOT)
    assert reply.status == 401
    assert "root" not in reply.json["detail"]
    assert (await site.ask("GET", "/api/keys", peer=ROOT, key=site.key()[1])).status == 200


async def ask_raw(port: int, head: str) -> bytes:
    """One request by hand; the status line."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(head.encode())
        return (await stream.receive_some(65536)).partition(b"\r\n")[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="asks as root")
async def test_over_real_sockets_http_1_0_is_nobody_and_1_1_is_root(tmp_path: Path) -> None:
    """A proxy_pass of nginx without any setting sends just that; with local_keys off neither is."""
    for local_keys, status in (("root", b"200"), ("off", b"401")):
        config = make_config(tmp_path, cameras=0)
        auth = msgspec.structs.replace(config.auth, local_keys=local_keys)
        config = msgspec.structs.replace(config, auth=auth)
        with fail_after(30):
            async with running_daemon(tmp_path, config=config) as daemon:
                asked = f"Host: 127.0.0.1:{daemon.port}\r\nConnection: close\r\n\r\n"
                assert (await ask_raw(daemon.port, f"GET /api/keys HTTP/1.1\r\n{asked}")).split()[1] == status
                assert (await ask_raw(daemon.port, f"GET /api/keys HTTP/1.0\r\n{asked}")).split()[1] == b"401"


# -- the demo's password -----------------------------------------------------------------------------------------------


async def test_outside_a_demo_there_is_no_demo_login(tmp_path: Path) -> None:
    """Neither made nor taken, were it there from before."""
    config = make_config(tmp_path, cameras=0)
    config = msgspec.structs.replace(config, auth=AuthSettings())
    with fail_after(30):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            refused = (await admin.ask("create_demo_login"))["error"]
            assert "no demo" in refused["message"] + str(refused["data"])


@pytest.mark.parametrize("address", ["0.0.0.0:1", ":1", "[::]:1", "192.0.2.1:1"])
def test_a_demo_listens_on_loopback_only(tmp_path: Path, address: str) -> None:
    """The setting is refused for a box that others can reach."""
    (tmp_path / "a.toml").write_text(f'[listen]\nmain = "{address}"\n[auth]\ndemo_login = true\n')
    with pytest.raises(ConfigError, match=r"auth.demo_login: listen.main .* is not a loopback address"):
        load(tmp_path, {})
    listen = "\n".join(f'{name} = "127.0.0.1:{port}"' for port, name in enumerate(("main", "compat", "local"), 1))
    (tmp_path / "a.toml").write_text(f"[listen]\n{listen}\n[auth]\ndemo_login = true\n")
    assert load(tmp_path, {}).auth.demo_login
