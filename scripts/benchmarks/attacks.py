"""Attacks on an edged, from a process of its own, for a time. Prints what was sent as one JSON object.

    attacks.py ATTACK HOST PORT SECONDS [--key KEY] [--token TOKEN]

Without a credential: `text` (costly text at every endpoint), `pool` (connections that stay), `guess` (passwords and
claim codes). With a viewer's: `viewer-text`, `viewer-pool`, `viewer-refresh`. Only for daemons that scripts/bench
started: HOST is an address in its network namespace.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import resource
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

WORKERS = 8
#: An unclosed string behind more brackets than a document may have: 16 KiB.
DEEP = "[" * 65 + '"' + '\\"' * 8159
RESET = struct.pack("ii", 1, 0)

sent: Counter[str] = Counter()


class Attacker:
    """Where to, until when, and with what."""

    def __init__(self, host: str, port: int, seconds: float, key: str, token: str) -> None:
        self.host, self.port, self.key, self.token = host, port, key, token
        self.end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def connect(self) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def websocket(self, first: str | None = None) -> socket.socket:
        """A connection after the upgrade, and after the answer to `first`."""
        sock = self.connect()
        sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(4096)
            if not data:
                raise ConnectionError("closed before the upgrade")
            head += data
        if b" 101 " not in head:
            raise ConnectionError(f"not upgraded: {head[:60]!r}")
        if first is not None:
            sock.sendall(frame(first))
            sock.recv(65536)
        return sock

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """One exchange on a connection of its own; the beginning of the answer."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with self.connect() as sock:
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
            answer = sock.recv(4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return answer

    def authenticate(self) -> str:
        return call("authenticate", auth_token=self.key)


def call(method: str, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def frame(text: str) -> bytes:
    """A client's text frame with a mask of zeros."""
    data = text.encode()
    if len(data) < 126:
        head = struct.pack("!BB4x", 0x81, 0x80 | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH4x", 0x81, 0xFE, len(data))
    else:
        head = struct.pack("!BBQ4x", 0x81, 0xFF, len(data))
    return head + data


def drain(sock: socket.socket) -> None:
    """Take what was answered, without waiting for more."""
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while sock.recv(262144):
            pass
    sock.settimeout(5)


def repeat(attacker: Attacker, name: str, work: Callable[[], object]) -> None:
    """Do it until the end, whatever the answer."""
    while not attacker.is_over:
        try:
            work()
            sent[name] += 1
        except OSError:
            sent[f"{name}: cut off"] += 1
            time.sleep(0.001)


def send_texts(attacker: Attacker, texts: list[bytes], first: str | None) -> None:
    """These bytes over one WebSocket, until it is closed."""
    with attacker.websocket(first) as sock:
        for data in texts * 8:
            if attacker.is_over:
                return
            sock.sendall(data)
            drain(sock)


def send_raw(attacker: Attacker, data: bytes) -> None:
    """These bytes over one connection, and whatever comes back, to its end."""
    with attacker.connect() as sock:
        sock.sendall(data)
        sock.settimeout(2)
        with suppress(OSError):
            while sock.recv(262144) and not attacker.is_over:
                pass


def attack_text(attacker: Attacker) -> list[Callable[[], object]]:
    """Text whose reading is costly, without a credential."""
    bearer = "a." + base64.urlsafe_b64encode(('{"a":"' + '\\"' * 3000).encode()).decode() + ".b"
    deep = [frame(DEEP[:16000])]
    tiny = [frame("{}") * 2000, frame("") * 4000]
    batch = [frame("[" + ",".join(["1"] * 7000) + "]")]
    chunks = b"POST /api/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10000
    many = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    return [
        *[partial(send_texts, attacker, texts, None) for texts in (deep, deep, tiny, batch)],
        partial(send_raw, attacker, chunks),
        partial(send_raw, attacker, many),
        *[partial(attacker.request, "GET", "/api/keys", Authorization=f"Bearer {bearer}")] * 2,
    ]


def attack_pool(attacker: Attacker) -> list[Callable[[], object]]:
    """Connections that stay: silent, with heads and bodies that come a byte at a time, and as many as there may be."""
    held: list[socket.socket] = []

    def hold(first: bytes) -> None:
        sock = attacker.connect()
        sock.sendall(first)
        held.append(sock)
        time.sleep(0.005)

    def trickle() -> None:
        for sock in list(held):
            try:
                sock.send(b"a")
            except OSError:
                with suppress(ValueError):
                    held.remove(sock)
                sock.close()
        time.sleep(2)

    firsts = itertools.cycle(
        [
            b"",
            b"GET / HTTP/1.1\r\nX-A: ",
            b"GET / HTTP/1.1\r\nX-A: " + b"a" * 16000,
            b"POST /api/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n",
        ]
    )
    return [*[lambda: hold(next(firsts))] * 6, trickle]


def attack_guess(attacker: Attacker) -> list[Callable[[], object]]:
    """The same wrong password, other wrong ones, and claim codes."""
    numbers = itertools.count()

    def password(name: str, text: str) -> None:
        body = json.dumps({"username": name, "password": text}).encode()
        attacker.request("POST", "/api/token", body, Content_Type="application/json")

    def code(text: str) -> None:
        body = json.dumps({"code": text, "username": "mallory", "password": "a long wrong password"}).encode()
        attacker.request("POST", "/api/claim", body, Content_Type="application/json")

    return [
        *[lambda: password("bench", "the same wrong password")] * 3,
        *[lambda: password("bench", f"wrong password {next(numbers)}")] * 2,
        lambda: password(f"nobody{next(numbers)}", "a wrong password"),
        lambda: code("AAAA-AAAA-AAAA"),
        lambda: code(f"AAAA-{next(numbers):04}-AAAA"),
    ]


def attack_viewer_text(attacker: Attacker) -> list[Callable[[], object]]:
    """Text whose reading is costly, behind a viewer's authentication."""
    first = attacker.authenticate()
    deep = [frame("[" * 65 + '"' + '\\"' * 500_000)]
    tiny = [frame("{}") * 20_000]
    pings = [frame(json.dumps([json.loads(call("ping"))] * 50)) * 20]
    lists = [frame(call("get_camera_list")) * 500]
    return [
        partial(send_texts, attacker, texts, first) for texts in (deep, deep, tiny, tiny, pings, pings, lists, lists)
    ]


def attack_viewer_pool(attacker: Attacker) -> list[Callable[[], object]]:
    """As many authenticated WebSockets and live pictures as there may be."""
    held: list[socket.socket] = []
    first = attacker.authenticate()

    def hold() -> None:
        held.append(attacker.websocket(first))

    def watch() -> None:
        sock = attacker.connect()
        head = (
            f"GET /api/cameras/camera0/live.mjpeg HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {attacker.key}\r\n\r\n"
        )
        sock.sendall(head.encode())
        held.append(sock)
        time.sleep(0.05)

    return [*[hold] * 6, watch, watch]


def attack_viewer_refresh(attacker: Attacker) -> list[Callable[[], object]]:
    """Uses of one token that could cost a write each."""
    first = call("authenticate", auth_token=attacker.token)
    uses = [frame(call("refresh_token", token=attacker.token)) * 8]
    tickets = [frame(call("create_ticket", device="camera0")) * 8]
    bearer = f"Bearer {attacker.token}"
    return [
        *[partial(send_texts, attacker, texts, first) for texts in (uses, uses, tickets)],
        *[partial(attacker.request, "POST", "/api/token/refresh", Authorization=bearer)] * 4,
        partial(attacker.request, "POST", "/api/tickets", b'{"device":"camera0"}', Authorization=bearer,
                Content_Type="application/json"),
    ]  # fmt: skip


ATTACKS = {
    "text": attack_text,
    "pool": attack_pool,
    "guess": attack_guess,
    "viewer-text": attack_viewer_text,
    "viewer-pool": attack_viewer_pool,
    "viewer-refresh": attack_viewer_refresh,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--key", default=os.environ.get("BENCH_KEY", ""))
    parser.add_argument("--token", default=os.environ.get("BENCH_TOKEN", ""))
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    attacker = Attacker(args.host, args.port, args.seconds, args.key, args.token)
    work = ATTACKS[args.attack](attacker)
    threads = [
        threading.Thread(target=repeat, args=(attacker, f"{args.attack}-{number}", each), daemon=True)
        for number, each in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(args.seconds + 15)
    print(json.dumps(dict(sent)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
