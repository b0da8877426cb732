"""signing/key_servers.py: one GET with a certificate that is checked, a deadline, a limit, and no detours."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

import pytest
import trio
from issuer_helpers import Authority, key_server, respond
from patience import fail_after

from edged.credentials.issuers import LARGEST_SET
from edged.errors import DependencyFailed
from edged.signing import key_servers
from edged.signing.key_servers import fetch, make_tls_context

BODY = b'{"keys": []}'


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this process trusts, as it would one in /etc/ssl/certs."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


async def refusal(url: str) -> DependencyFailed:
    with fail_after(30), pytest.raises(DependencyFailed) as caught:
        await fetch(url)
    return caught.value


async def test_keys_come_by_tls_from_a_server_that_proves_its_name(authority: Authority) -> None:
    """Path and query as they are set, and nothing that tells more of us than our name."""
    with fail_after(30):
        async with key_server(lambda _head: respond(BODY), authority.context("localhost")) as server:
            assert await fetch(f"https://localhost:{server.port}/a/jwks.json?b=c") == BODY
    assert server.asked == ["/a/jwks.json?b=c"]
    names = [line.split(b":")[0].lower() for line in server.heads[0].split(b"\r\n")[1:] if line]
    assert names == [b"host", b"accept", b"user-agent", b"connection"]


async def test_this_machine_may_be_asked_without_tls() -> None:
    """A sidecar on loopback; also one that ends its answer by closing."""
    with fail_after(30):
        async with key_server(lambda _head: respond(BODY)) as server:
            assert await fetch(f"http://127.0.0.1:{server.port}") == BODY
        async with key_server(lambda _head: b"HTTP/1.0 200 OK\r\n\r\n" + BODY) as server:
            assert await fetch(f"http://localhost:{server.port}/") == BODY
        interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        async with key_server(lambda _head: interim + respond(BODY)) as server:
            assert await fetch(f"http://localhost:{server.port}/") == BODY
            assert server.asked == ["/"]


@pytest.mark.parametrize("what", ["another name", "too old", "of nobody"])
async def test_a_server_that_cannot_prove_its_name_is_not_asked(
    tmp_path: Path, authority: Authority, what: str
) -> None:
    """Not a byte of the question goes out; authorities and the clock are the remedy."""
    (tmp_path / "other").mkdir()
    context = {
        "another name": partial(authority.context, "elsewhere.example"),
        "too old": partial(authority.context, "localhost", days=1),
        "of nobody": partial(Authority(tmp_path / "other").context, "localhost"),
    }[what]()
    async with key_server(lambda _head: respond(BODY), context) as server:
        problem = await refusal(f"https://localhost:{server.port}/")
        assert server.asked == []
    assert "localhost cannot be trusted by TLS" in problem.sentence
    assert "ca-certificates" in problem.hint
    assert "timedatectl" in problem.hint


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (respond(b"no", "404 Not Found"), "answered with 404"),
        (respond(b"no", "500 Oops"), "answered with 500"),
        (respond(b"", "204 No Content"), "answered with 204"),
        (respond(b"", "302 Found"), "answered with 302"),
        (respond(b"", "302 Found", "Location: https://evil.example/jwks"), "another server"),
        (respond(b"", "307 Temporary", "Location: //evil.example/jwks"), "another server"),
        (respond(b"", "301 Moved", "Location: http://127.0.0.1:1/jwks"), "another server"),
        (respond(b"", "308 Moved", "Location: ftp://localhost/jwks"), "another server"),
        (respond(b"", "302 Found", "Location: /again"), "redirects for ever"),
        (respond(b"x" * (LARGEST_SET + 1)), "longer than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", "cannot be asked"),
        (respond(b"", "302 Found", "Location: http://[bad"), "cannot be asked"),
        (respond(b"", "302 Found", "Location: /a b"), "cannot be asked"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "cannot be asked"),
        (b"hello\r\n\r\n", "cannot be asked"),
        (b"", "cannot be asked"),
        (b"HTTP/1.1 302 Found\r\nLocation: \xff\r\nContent-Length: 0\r\n\r\n", "cannot be asked"),
    ],
)  # fmt: skip
async def test_a_bad_answer_is_one_error_with_what_to_do(answer: bytes, says: str) -> None:
    """It names the host, never the path, which may hold a secret."""
    async with key_server(lambda _head: answer) as server:
        problem = await refusal(f"http://localhost:{server.port}/secret-path")
    assert says in problem.sentence
    assert problem.hint
    assert "secret-path" not in str(problem)


async def test_a_redirect_on_the_same_server_is_followed(authority: Authority) -> None:
    """Three of them at most."""

    def answer(head: bytes) -> bytes:
        where = {b"/a": b"b", b"/b": b"/c/d", b"/c/d": b"../e"}.get(head.split()[1])
        return respond(BODY) if where is None else respond(b"", "302 Found", f"Location: {where.decode()}")

    with fail_after(30):
        async with key_server(answer, authority.context("localhost")) as server:
            assert await fetch(f"https://localhost:{server.port}/a") == BODY
    assert server.asked == ["/a", "/b", "/c/d", "/e"]


async def test_nobody_there_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, and a name that does not exist."""
    async with key_server(lambda _head: b"") as server:
        pass
    assert "localhost cannot be asked" in (await refusal(f"http://localhost:{server.port}/")).sentence
    problem = await refusal("https://nowhere.invalid/jwks")
    # How long a resolver takes is its own business.
    assert problem.sentence.startswith("nowhere.invalid ")
    assert "network" in problem.hint


async def test_a_connection_that_breaks_is_one_error(authority: Authority) -> None:
    """In the middle of the answer, without a word of TLS."""
    context = authority.context("localhost")

    async def handle(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True)
        await stream.receive_some(1000)
        tcp.setsockopt(*_reset())
        await trio.aclose_forcefully(tcp)

    with fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handle, listeners)
            problem = await refusal(f"https://localhost:{listeners[0].socket.getsockname()[1]}/")
            nursery.cancel_scope.cancel()
    assert "broke the connection off" in problem.sentence


def _reset() -> tuple[int, int, bytes]:
    import socket
    import struct

    return socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)


async def test_a_server_that_says_nothing_is_left_after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirects and handshake included."""
    assert key_servers.SECONDS == 10
    monkeypatch.setattr(key_servers, "SECONDS", 0.3)
    silent = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await silent.wait()

    with fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handle, listeners)
            port = listeners[0].socket.getsockname()[1]
            for scheme in ("http", "https"):
                assert "did not answer within" in (await refusal(f"{scheme}://localhost:{port}/")).sentence
            nursery.cancel_scope.cancel()


async def test_whoever_stops_edged_stops_a_fetch(authority: Authority) -> None:
    """In the middle of a handshake, too: nothing is left open. It ends before the deadline."""
    waiting = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            waiting.set()
            await trio.sleep_forever()

    with fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handle, listeners)
            nursery.start_soon(fetch, f"https://localhost:{listeners[0].socket.getsockname()[1]}/")
            await waiting.wait()
            nursery.cancel_scope.cancel()


def test_certificates_are_checked_by_default() -> None:
    """Name and chain, and no old TLS, whatever Python's build calls a default."""
    context = make_tls_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
