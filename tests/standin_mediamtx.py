"""A stand-in for MediaMTX that can misbehave on purpose; standard library only, run as a real child.

It reads the same JSON configuration (unknown keys are fatal), listens where that says, asks the hook about API calls
and RTSP requests, keeps paths in memory, lists and kicks RTSP sessions, and writes the same log lines. The contract
tests (test_mediamtx_contract.py) hold it to what the real program does.

Orders are words in a file, looked at on each API call: `hang` (answer nothing), `500`, `500-once`, `no-kicks` (500 to
kicks), `crash`, `flood` (16 MiB of output, blocking as MediaMTX does; then the file `orders.flooded` is there), `close-
output`, `close-rtsp` (its RTSP listener is gone), `deaf` (ignore SIGINT). At the start only: `refuse:KEY` (KEY is
unknown to this version), `fail` (exit 3 at once), `mute` (run, but never listen), `junk-version`.
"""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KNOWN = {
    "logLevel", "logDestinations", "logStructured", "authMethod", "authHTTPAddress", "authHTTPExclude", "api",
    "apiAddress", "apiAllowOrigins", "metrics", "playback", "pprof", "rtsp", "rtspAddress", "rtspTransports",
    "rtspEncryption", "hls", "hlsAddress", "webrtc", "webrtcAddress", "webrtcLocalUDPAddress", "rtmp", "rtmpAddress",
    "srt", "srtAddress", "moq", "pathDefaults", "paths",
}  # fmt: skip
PATH_DEFAULTS = {
    "source": "publisher", "overridePublisher": True, "runOnDemand": "", "runOnDemandRestart": False,
    "runOnDemandStartTimeout": "10s", "runOnDemandCloseAfter": "10s",
}  # fmt: skip
LISTENERS = (
    ("rtspAddress", "rtsp", "tcp"), ("hlsAddress", "hls", "tcp"), ("webrtcAddress", "webrtc", "tcp"),
    ("webrtcLocalUDPAddress", "webrtc", "udp"), ("rtmpAddress", "rtmp", "tcp"), ("srtAddress", "srt", "udp"),
)  # fmt: skip


def log(level, message):
    line = json.dumps({"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "level": level, "message": message})
    os.write(1, line.encode() + b"\n")


class World:
    """Everything that lives: paths, sessions, orders."""

    def __init__(self, config, version, orders):
        self.config = config
        self.version = version
        self.orders_file = orders
        self.lock = threading.RLock()
        self.paths = {name: dict(conf or {}) for name, conf in config.get("paths", {}).items()}
        self.sessions = {}
        self.ended = threading.Event()
        self.rtsp = None

    def ordered(self):
        return read_orders(self.orders_file)

    def ask_hook(self, **question):
        asked = {
            "ip": "127.0.0.1", "user": "", "password": "", "token": "", "path": "", "protocol": "", "id": None,
            "query": "", "userAgent": "", **question,
        }  # fmt: skip
        request = urllib.request.Request(
            self.config["authHTTPAddress"], json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return 200 <= answer.status < 300
        except OSError:
            return False


def read_orders(file):
    try:
        return Path(file).read_text().split()
    except OSError:
        return []


class Session:
    def __init__(self, identity, connection_id, path, state, connection):
        self.id, self.connection_id, self.path, self.state, self.connection = (
            identity, connection_id, path, state, connection,
        )  # fmt: skip

    def kick(self):
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: "World"

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def answer(self, status, value):
        body = json.dumps(value).encode() if not isinstance(value, str) else value.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, text):
        log("ERR", f"[API] {text}")
        self.answer(status, {"status": "error", "error": text})

    def serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        self.misbehave()
        credentials = (self.headers.get("Authorization") or " ").split(" ")[1]
        user, _, password = base64.b64decode(credentials).decode().partition(":")
        if not self.world.ask_hook(user=user, password=password, token=password, action="api"):
            return self.fail(401, "authentication error")
        if "500-once" in self.world.ordered():
            Path(self.world.orders_file).unlink()
            return self.fail(500, "out of order")
        if "500" in self.world.ordered() or ("no-kicks" in self.world.ordered() and "/kick/" in self.path):
            return self.fail(500, "out of order")
        target = urllib.parse.urlsplit(self.path)
        with self.world.lock:
            return self.route(urllib.parse.unquote(target.path), urllib.parse.parse_qs(target.query), body)

    do_GET = do_POST = do_DELETE = serve

    def misbehave(self):
        orders = self.world.ordered()
        if "hang" in orders:
            self.world.ended.wait()
        if "crash" in orders:
            log("ERR", "it broke")
            os._exit(3)
        if "close-output" in orders:
            os.close(1)
            os.close(2)
        if "close-rtsp" in orders:
            with contextlib.suppress(OSError):
                assert self.world.rtsp is not None
                self.world.rtsp.shutdown(socket.SHUT_RDWR)
        if "flood" in orders:
            orders = Path(self.world.orders_file)
            flooding = orders.rename(orders.with_suffix(".flooding"))
            for _ in range(16 * 1024):
                os.write(1, b"x" * 1023 + b"\n")
            flooding.rename(orders.with_suffix(".flooded"))

    def route(self, path, query, body):
        world = self.world
        if (self.command, path) == ("GET", "/v3/info"):
            return self.answer(200, {"version": world.version, "started": "2026-01-01T00:00:00Z"})
        if (self.command, path) == ("GET", "/v3/config/paths/list"):
            return self.page([{"name": name, **PATH_DEFAULTS, **conf} for name, conf in world.paths.items()], query)
        if (self.command, path) == ("GET", "/v3/paths/list"):
            return self.page([self.path_state(name) for name in world.paths if name != "all_others"], query)
        if found := re.fullmatch(r"/v3/config/paths/(replace|delete)/(.+)", path):
            return self.change(found[1], found[2], body)
        if found := re.fullmatch(r"/v3/(rtsp|hls|webrtc)sessions/(list|kick/(.+))", path):
            if found[2] == "list" and self.command == "GET":
                return self.sessions(found[1], query)
            if found[3] and self.command == "POST":
                return self.kick(found[1], found[3])
        return self.answer(404, "404 page not found")

    def page(self, items, query):
        size, number = int(query.get("itemsPerPage", ["100"])[0]), int(query.get("page", ["0"])[0])
        pages = (len(items) + size - 1) // size
        self.answer(
            200, {"itemCount": len(items), "pageCount": pages, "items": items[number * size : (number + 1) * size]}
        )

    def path_state(self, name):
        here = [session for session in self.world.sessions.values() if session.path == name]
        publisher = next((session for session in here if session.state == "publish"), None)
        return {
            "name": name, "confName": name, "available": publisher is not None, "ready": publisher is not None,
            "source": {"type": "rtspSession", "id": publisher.id} if publisher else None,
            "readers": [{"type": "rtspSession", "id": one.id} for one in here if one.state == "read"],
            "inboundBytes": 0, "outboundBytes": 0, "bytesReceived": 0, "bytesSent": 0,
        }  # fmt: skip

    def change(self, do, name, body):
        world = self.world
        if do == "delete":
            if world.paths.pop(name, None) is None:
                return self.fail(404, "path not found")
            for session in [one for one in world.sessions.values() if one.path == name]:
                session.kick()
            return self.answer(200, {"status": "ok"})
        try:
            conf = json.loads(body)
        except ValueError as error:
            return self.fail(400, str(error))
        if unknown := set(conf) - PATH_DEFAULTS.keys():
            return self.fail(400, f'json: unknown field "{min(unknown)}"')
        if not re.fullmatch(r"[0-9a-zA-Z_\-/.]+", name):
            return self.fail(400, "invalid path name")
        world.paths[name] = conf
        return self.answer(200, {"status": "ok"})

    def sessions(self, protocol, query):
        items = [
            {"id": one.id, "path": one.path, "state": one.state, "conns": [one.connection_id], "query": ""}
            for one in self.world.sessions.values()
            if protocol == "rtsp"
        ]
        self.page(items, query)

    def kick(self, protocol, identity):
        session = self.world.sessions.pop(identity, None) if protocol == "rtsp" else None
        if session is None:
            return self.fail(404, "session not found")
        session.kick()
        return self.answer(200, {"status": "ok"})


def serve_rtsp(world, connection):
    """One RTSP connection: the requests of a publisher or a reader, and sessions that exist."""
    connection_id, session = str(uuid.uuid4()), None
    file = connection.makefile("rb")
    try:
        while first := file.readline():
            method, url, _ = first.decode().split(" ", 2)
            headers = {}
            while (line := file.readline().decode().strip()) != "":
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            file.read(int(headers.get("content-length", "0")))
            path = urllib.parse.urlsplit(url).path.strip("/").removesuffix("/trackID=0")
            login = base64.b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode().partition(":")
            session, status = handle_rtsp(world, method, path, session, connection, connection_id, login)
            body = "v=0\r\ns=x\r\nm=video 0 RTP/AVP 96\r\n" if method == "DESCRIBE" and status == 200 else ""
            lines = [f"RTSP/1.0 {status} X", f"CSeq: {headers.get('cseq', '0')}", f"Content-Length: {len(body)}"]
            if session:
                lines.append(f"Session: {session.id}")
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            if status != 200:
                break
    except (OSError, ValueError):
        pass
    finally:
        with world.lock:
            if session:
                world.sessions.pop(session.id, None)
        file.close()
        connection.close()


def handle_rtsp(world, method, path, session, connection, connection_id, login):
    """The session from here on, and the status."""
    if method == "OPTIONS":
        return session, 200
    action = "publish" if method == "ANNOUNCE" else "read"
    if path not in world.paths and "all_others" not in world.paths:
        return session, 400
    if method in ("ANNOUNCE", "DESCRIBE") or (method == "SETUP" and session is None):
        identity = connection_id if method == "DESCRIBE" else str(uuid.uuid4())
        user, _, password = login
        if not world.ask_hook(action=action, path=path, protocol="rtsp", id=identity, user=user, password=password):
            return session, 401
        if method == "DESCRIBE":
            with world.lock:
                published = any(one.path == path and one.state == "publish" for one in world.sessions.values())
            return session, 200 if published else 404
        session = Session(identity, connection_id, path, "idle", connection)
        with world.lock:
            world.sessions[identity] = session
    if session and method in ("RECORD", "PLAY"):
        session.state = {"RECORD": "publish", "PLAY": "read"}[method]
    return session, 200


def bind(address, kind):
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    if kind == "tcp":
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, int(port)))
    except OSError as error:
        log("ERR", f"listen {kind} {address}: bind: {os.strerror(error.errno or 0).lower()}")
        raise SystemExit(1) from error
    return holder


def accept_rtsp(world, listener):
    world.rtsp = listener
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve_rtsp, args=(world, connection), daemon=True).start()


def load(file, orders):
    refused = {word.partition(":")[2] for word in orders if word.startswith("refuse:")}
    config = json.loads(Path(file).read_text())
    for key in config:
        if key not in KNOWN - refused:
            os.write(1, f'ERR: json: unknown field "{key}"\n'.encode())
            raise SystemExit(1)
    return config


def main(arguments):
    version, orders_file, rest = arguments[1], arguments[3], arguments[4:]
    orders = read_orders(orders_file)
    if rest == ["--version"]:
        print("no idea" if "junk-version" in orders else version)
        return
    if "fail" in orders:
        log("ERR", "it will not do")
        raise SystemExit(3)
    config = load(rest[0], orders)
    log("INF", f"MediaMTX {version}, a stand-in")
    world = World(config, version, orders_file)
    held = {}
    for key, switch, kind in LISTENERS:
        if config.get(switch) and config.get(key):
            held[key] = bind(config[key], kind)
    if "rtspAddress" in held:
        held["rtspAddress"].listen()
        threading.Thread(target=accept_rtsp, args=(world, held["rtspAddress"]), daemon=True).start()
    if "mute" not in orders:
        Api.world = world
        bind(config["apiAddress"], "tcp").close()
        host, _, port = config["apiAddress"].rpartition(":")
        ThreadingHTTPServer.daemon_threads = True
        server = ThreadingHTTPServer((host, int(port)), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        log("INF", f"[API] started with listener on {config['apiAddress']} (TCP/HTTP)")

    def interrupted(*_):
        if "deaf" not in world.ordered():
            log("INF", "shutting down gracefully")
            os._exit(0)

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
