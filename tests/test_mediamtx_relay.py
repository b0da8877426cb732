"""Only a camera's own ffmpeg publishes it: no argument list holds a password, and nobody else is let through."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, free_port, make_config, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after

from edged import children, sockets
from edged.mediamtx.relay import Authorizer, Relay, open_relay

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}
LOGIN = b"Authorization: Basic " + base64.b64encode(b"edged:secret") + b"\r\n"
OPTIONS = b"OPTIONS rtsp://127.0.0.1:1/camera0 RTSP/1.0\r\nCSeq: 1\r\n\r\n"
WITH_BODY = b"GET_PARAMETER rtsp://127.0.0.1:1/camera0 RTSP/1.0\r\nCSeq: 2\r\ncontent-length: 9\r\n\r\nANNOUNCE "
HEAD = b"ANNOUNCE rtsp://127.0.0.1:1/camera0 RTSP/1.0\r\nCSeq: 3\r\nContent-Length: 5\r\n"
REST = b"\r\nv=0\r\nANNOUNCE rtsp://x/ RTSP/1.0\r\n\r\n$media"
#: A client in a process of its own: connects, sends what it was given, prints what it got until the end.
CLIENT = (
    "import socket, sys\n"
    "host, port = sys.argv[1].split(':')\n"
    "with socket.create_connection((host, int(port))) as s:\n"
    "    s.sendall(sys.argv[2].encode())\n"
    "    while data := s.recv(65536):\n"
    "        sys.stdout.write(data.decode()); sys.stdout.flush()\n"
)


@given(st.lists(st.sampled_from([OPTIONS, WITH_BODY]), max_size=3), st.data())
def test_the_first_announce_alone_gets_the_password_however_it_comes(before: list[bytes], data: st.DataObject) -> None:
    """Whatever pieces the bytes come in, they go on in order, with one header more."""
    text = b"".join(before) + HEAD + REST
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    authorizer = Authorizer("edged", "secret")
    assert b"".join(map(authorizer.feed, pieces)) == b"".join(before) + HEAD + LOGIN + REST
    assert authorizer.is_done


@given(st.lists(st.binary(max_size=40_000), max_size=4))
def test_no_bytes_break_it_and_none_are_kept_without_end(pieces: list[bytes]) -> None:
    """What is no RTSP is handed on or refused; what is kept back is less than one head."""
    authorizer, sent, given_ = Authorizer("edged", "secret"), 0, 0
    for piece in pieces:
        given_ += len(piece)
        try:
            sent += len(authorizer.feed(piece))
        except ValueError:
            return
        if not authorizer.is_done:
            assert given_ - sent < 16 * 1024


@dataclass
class Upstream:
    """What MediaMTX would get."""

    relay: Relay
    intruders: list[int | None] = field(default_factory=list)
    unreachable: int = 0
    got: bytearray = field(default_factory=bytearray)
    answer: bytes = b"RTSP/1.0 200 OK\r\n\r\n"

    async def serve(self, stream: trio.SocketStream) -> None:
        await stream.send_all(self.answer)
        while data := await stream.receive_some(65536):
            self.got += data


@asynccontextmanager
async def relayed(*, target: str = "") -> AsyncIterator[Upstream]:
    """A relay to a server that keeps what it gets, or to `target`."""
    up = Upstream(None)  # type: ignore[arg-type]

    def miss() -> None:
        up.unreachable += 1

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, up.serve, 0, host="127.0.0.1"))
        where = target or f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with open_relay(
            where, Authorizer("edged", "secret"), intruded=up.intruders.append, unreachable=miss
        ) as up.relay:
            yield up
            nursery.cancel_scope.cancel()


def start_client(relay: Relay, *, in_shell: bool = False) -> children.Child:
    command = [sys.executable, "-c", CLIENT, relay.address, (HEAD + REST).decode()]
    if in_shell:
        # Not replaced by its command: the shell waits for it.
        command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command]
    return children.spawn(command, environment=ENVIRONMENT, landlock=None)


async def read_until(child: children.Child, wanted: bytes) -> None:
    got = b""
    assert child.stdout is not None
    while wanted not in got:
        got += (piece := await child.stdout.receive_some(4096))
        assert piece, got


@pytest.mark.parametrize("in_shell", [False, True])
async def test_the_child_or_one_of_its_group_is_handed_on(in_shell: bool) -> None:
    """Its bytes arrive with the password, the answers come back, and its own argument list never held it."""
    with fail_after(30):
        async with relayed() as up, start_client(up.relay, in_shell=in_shell) as child, up.relay.serving(child.pid):
            await read_until(child, up.answer)
            while len(up.got) < len(HEAD + LOGIN + REST):
                await trio.sleep(0.01)
            assert bytes(up.got) == HEAD + LOGIN + REST
            assert up.intruders == []


async def receive_or_nothing(stream: trio.SocketStream) -> bytes | bytearray:
    """What arrives next, nothing if it was closed or reset."""
    try:
        return await stream.receive_some()
    except trio.BrokenResourceError:
        return b""


async def test_another_process_that_connects_first_is_refused() -> None:
    """Another process of the very same user: closed without a byte, and the child is served all the same."""
    with fail_after(30):
        async with relayed() as up:
            host, port = up.relay.address.split(":")
            thief = await trio.open_tcp_stream(host, int(port))
            await thief.send_all(HEAD + REST)
            async with start_client(up.relay) as child, up.relay.serving(child.pid):
                assert await receive_or_nothing(thief) == b""
                await read_until(child, up.answer)
                assert up.intruders == [os.getuid()]
                with pytest.raises(OSError, match="connect"):
                    await trio.open_tcp_stream(host, int(port))
            await thief.aclose()


async def test_an_unreachable_server_is_told_with_its_address() -> None:
    """Nothing listens at MediaMTX's address: the publisher's state says so, and somebody looks after MediaMTX."""
    with fail_after(30):
        target = f"127.0.0.1:{free_port()}"
        async with relayed(target=target) as up, start_client(up.relay) as child, up.relay.serving(child.pid):
            await child.wait()
            assert up.unreachable == 1
            assert up.relay.problem == f"MediaMTX's RTSP listener {target} could not be reached: Connection refused"


def test_a_socket_is_found_in_the_table_where_the_kernel_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same owner from /proc/net/tcp as from sock_diag, for both families."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            listener = socket.create_server((host, 0), family=family)
        except OSError:
            continue  # this machine has no IPv6
        with listener, socket.create_connection(listener.getsockname()[:2]) as client, listener.accept()[0] as accepted:
            theirs, ours = client.getsockname(), accepted.getsockname()
            found = sockets.find_in_table(family, theirs, ours)
            assert found == sockets.ask_kernel(family, theirs, ours)
            assert found == (os.getuid(), os.fstat(client.fileno()).st_ino)
            assert sockets.holds(os.getpgid(0), found.inode)
            assert sockets.find_in_table(family, ours, (host, 1)) is None

    def refuse(*_: object, **__: object) -> None:
        raise OSError("not permitted")

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        monkeypatch.setattr("edged.sockets.ask_kernel", refuse)
        owner = sockets.find_owner(socket.AF_INET, client.getsockname(), accepted.getsockname())
        assert owner == (os.getuid(), os.fstat(client.fileno()).st_ino)


def start_thief(part: str, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", str(Path(__file__).parent / "thief.py"), str(seconds), part]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@asynccontextmanager
async def thief(part: str, seconds: float) -> AsyncIterator[list[dict[str, object]]]:
    """A local user who tries to publish first; as another user where this is root. Yields what came of it, later."""
    found: list[dict[str, object]] = []
    process = start_thief(part, seconds)
    assert process.stdout is not None
    try:
        assert await trio.to_thread.run_sync(process.stdout.readline) == b"ready\n"
        yield found
        out, _ = await trio.to_thread.run_sync(process.communicate)
        found += [json.loads(line) for line in out.splitlines()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def read_metric(daemon: RunningDaemon, name: str) -> float:
    body = (await daemon.request("GET", "/metrics", port=int(daemon.config.listen.local[0].rpartition(":")[2]))).body
    return next(float(line.split(" ")[1]) for line in body.decode().splitlines() if line.startswith(f"{name} "))


async def wait_ready(daemon: RunningDaemon) -> None:
    async with daemon.local() as admin:
        while not all(each["ready"] for each in await admin.call("get_streams")):
            await trio.sleep(0.1)


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_a_local_user_cannot_take_a_cameras_place(tmp_path: Path) -> None:
    """Through many starts of a publisher somebody reads its argument list and publishes first: never accepted."""
    config = make_config(tmp_path, mediamtx=True, cameras=1)
    # A name of its own: the lists of processes show everybody's.
    path = f"yard_{secrets.token_hex(8)}"
    camera = msgspec.structs.replace(config.camera[0], mode="always", path=path)
    config = msgspec.structs.replace(config, camera=(camera,))
    with fail_after(80):
        async with thief(path, 8.0) as tries, running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            for _ in range(3):
                await trio.sleep(1.0)
                os.kill(await find_publisher(path), signal.SIGKILL)
            await wait_ready(daemon)
            assert await read_metric(daemon, "edged_publisher_intruders_total") >= 1
    assert len(tries) >= 2, "no publisher was seen: this test shows nothing"
    assert [each["status"] for each in tries] == [0] * len(tries)
    assert all("@" not in str(each["address"]) for each in tries)


async def find_publisher(part: str) -> int:
    """The ffmpeg that publishes to an address with this in it, once there is one."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                program, *arguments = (process / "cmdline").read_bytes().split(b"\0")
                if program.endswith(b"ffmpeg") and any(
                    b"rtsp://" in each and part.encode() in each for each in arguments
                ):
                    return int(process.name)
        await trio.sleep(0.05)
