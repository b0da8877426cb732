"""Load on a server from a process of its own: WebSocket calls, or POSTs on new connections. Prints one JSON object.

    load.py ws   PORT --path /ws --send '{"jsonrpc":…}' … --connections 50 --seconds 5 [--first '{…authenticate…}']
    load.py post PORT --path /x --send '{…}' --connections 16 --seconds 5

Plain sockets and epoll, so that the client costs less than what it measures; `client_percent` says how
much of its core it used: above 90 the client was the limit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import socket
import struct
import sys
import time


def read_frames(buffer: bytearray) -> list[bytes]:
    """Take the complete frames of an unmasked stream out of `buffer`; their payloads."""
    frames = []
    while len(buffer) >= 2:
        length, head = buffer[1] & 0x7F, 2
        if length == 126:
            if len(buffer) < 4:
                break
            length, head = struct.unpack_from("!H", buffer, 2)[0], 4
        elif length == 127:
            if len(buffer) < 10:
                break
            length, head = struct.unpack_from("!Q", buffer, 2)[0], 10
        if len(buffer) < head + length:
            break
        if buffer[0] & 0x0F == 8:
            raise ConnectionError(f"closed: {bytes(buffer[head : head + length])!r}")
        frames.append(bytes(buffer[head : head + length]))
        del buffer[: head + length]
    return frames


def frame(text: str) -> bytes:
    """A client's text frame; its mask is zero, which leaves the payload as it is."""
    data = text.encode()
    if len(data) < 126:
        return struct.pack("!BB4x", 0x81, 0x80 | len(data)) + data
    return struct.pack("!BBH4x", 0x81, 0xFE, len(data)) + data


def open_websocket(port: int, path: str, first: str | None) -> socket.socket:
    """A blocking socket behind the handshake and one answered call."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1) or sys.exit("the server closed the connection before it upgraded")
    if b" 101 " not in head:
        sys.exit(f"not upgraded: {head[:80]!r}")
    if first:
        sock.sendall(frame(first))
        buffer = bytearray()
        while not (replies := read_frames(buffer)):
            buffer += sock.recv(65536)
        if b'"error"' in replies[0]:
            sys.exit(f"first call: {replies[0][:200]!r}")
    return sock


def load_websocket(args: argparse.Namespace) -> dict[str, object]:
    socks = [open_websocket(args.port, args.path, args.first) for _ in range(args.connections)]
    requests = itertools.cycle([frame(line) for line in args.lines or [args.send]])
    poll = select.epoll()
    buffers: dict[int, bytearray] = {}
    started: dict[int, int] = {}
    by_number = {sock.fileno(): sock for sock in socks}
    latencies: list[int] = []
    errors = 0
    clock = time.perf_counter_ns
    for number, sock in by_number.items():
        sock.setblocking(False)
        poll.register(number, select.EPOLLIN)
        buffers[number] = bytearray()
    begin, cpu = clock(), time.process_time()
    end = begin + int(args.seconds * 1e9)
    if args.until_closed:
        poll.register(0, select.EPOLLIN)
    for number, sock in by_number.items():
        started[number] = clock()
        sock.send(next(requests))
    while args.until_closed or clock() < end:
        for number, _ in poll.poll(0.2):
            if number == 0:
                args.until_closed, end = False, 0
                break
            data = by_number[number].recv(262144)
            if not data:
                raise ConnectionError("the server closed a connection")
            buffer = buffers[number]
            buffer += data
            for reply in read_frames(buffer):
                if b'"id"' not in reply:
                    continue
                errors += b'"error"' in reply
                now = clock()
                latencies.append(now - started[number])
                started[number] = now
                by_number[number].send(next(requests))
    return report(latencies, (clock() - begin) / 1e9, time.process_time() - cpu, errors)


def load_post(args: argparse.Namespace) -> dict[str, object]:
    body = args.send.encode()
    request = (
        f"POST {args.path} HTTP/1.1\r\nHost: 127.0.0.1:{args.port}\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    ).encode() + body
    poll = select.epoll()
    socks: dict[int, tuple[socket.socket, int]] = {}
    latencies: list[int] = []
    statuses: dict[str, int] = {}
    clock = time.perf_counter_ns

    def ask() -> None:
        sock = socket.socket()
        began = clock()
        sock.connect(("127.0.0.1", args.port))
        sock.sendall(request)
        socks[sock.fileno()] = (sock, began)
        poll.register(sock.fileno(), select.EPOLLIN)

    begin, cpu = clock(), time.process_time()
    end = begin + int(args.seconds * 1e9)
    for _ in range(args.connections):
        ask()
    while clock() < end:
        for number, _ in poll.poll(0.2):
            sock, began = socks.pop(number)
            status = sock.recv(65536)[9:12].decode()
            statuses[status] = statuses.get(status, 0) + 1
            latencies.append(clock() - began)
            poll.unregister(number)
            # The client of this measure (MediaMTX) closes after the answer.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            ask()
    return report(latencies, (clock() - begin) / 1e9, time.process_time() - cpu, statuses.get("", 0)) | {
        "statuses": statuses
    }


def stall(args: argparse.Namespace) -> dict[str, object]:
    """Clients that ask and never read; whoever is cut off comes again."""
    end = time.monotonic() + args.seconds
    request = frame(args.send) * 50
    comers = 0
    socks: list[socket.socket] = []
    while time.monotonic() < end:
        while len(socks) < args.connections:
            sock = open_websocket(args.port, args.path, args.first)
            sock.setblocking(False)
            socks.append(sock)
            comers += 1
        for sock in list(socks):
            try:
                sock.send(request)
            except BlockingIOError:
                continue
            except OSError:
                socks.remove(sock)
                sock.close()
        time.sleep(0.01)
    return {"connections_made": comers}


def report(latencies: list[int], seconds: float, cpu: float, errors: int) -> dict[str, object]:
    latencies.sort()
    count = len(latencies)
    return {
        "requests": count,
        "per_second": count / seconds,
        "p50_ms": latencies[count // 2] / 1e6 if count else None,
        "p99_ms": latencies[int(count * 0.99)] / 1e6 if count else None,
        "errors": errors,
        "client_percent": 100 * cpu / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["ws", "post", "stall"])
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/ws")
    parser.add_argument("--send", help="JSON text, or @FILE")
    parser.add_argument("--lines", help="a file of calls, one a line, sent in turn instead")
    parser.add_argument("--first", help="a call to make once on each connection, or @FILE")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--until-closed", action="store_true", help="go on until standard input ends instead")
    args = parser.parse_args()
    for name in ("send", "first"):
        if (value := getattr(args, name)) and value.startswith("@"):
            with open(value[1:]) as file:
                setattr(args, name, file.read())
    if args.lines:
        with open(args.lines) as file:
            args.lines = file.read().splitlines()
    kinds = {"ws": load_websocket, "post": load_post, "stall": stall}
    print(json.dumps(kinds[args.kind](args)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
