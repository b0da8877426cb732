"""What it costs to show who one is: at the gate, over a WebSocket, and with a password."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from measure import (
    HERE,
    SECRET,
    Daemon,
    bare,
    compare,
    cpu_each,
    load,
    pinned,
    raw_result,
    request,
    resident_megabytes,
    running,
    sign,
)  # fmt: skip

KEYS = 1000
#: More than the gate remembers, so that each is verified.
TOKENS = 5000
PASSWORD = "a passphrase for benches"
GUESSES_A_SECOND = 200
GUESS_SECONDS = 10


def bench_auth(args: argparse.Namespace) -> None:
    """A key and tokens at the gate; `authenticate` over WebSocket; passwords."""
    _bench_gate(args)
    _bench_authenticate(args)
    _bench_login(args)


def _bench_authenticate(args: argparse.Namespace) -> None:
    """`authenticate` with a key and with tokens, beside a bare server that does the same look-up or verification."""
    with running(cameras=1, mediamtx=False) as daemon, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [trio.run(partial(daemon.call, "create_key", name="bench", role="viewer")) for _ in range(20)]
        keys = [item["api_key"] for item in made]
        others = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(KEYS - len(keys))]
        (folder / "keys").write_text("\n".join([*keys, *others]))
        now = int(time.time())
        base = {"user_id": "bench", "role": "viewer", "iat": now, "exp": now + 3600}
        tokens = [sign(base | {"jti": f"bench-{number}"}) for number in range(TOKENS)]
        (folder / "token").write_text(SECRET)
        for what, shown, kind in (("an API key", keys, "keys"), ("an HS256 token", tokens, "token")):
            calls = [request("authenticate", auth_token=text) for text in shown]
            answer, lines = folder / f"{kind}.json", folder / f"{kind}.lines"
            answer.write_bytes(trio.run(partial(raw_result, daemon, calls[0], calls[0])))
            lines.write_text("\n".join(calls))
            with bare("bare_websocket", str(answer), kind, str(folder / kind)) as (pid, port):
                options = {"lines": lines, "connections": 20, "seconds": args.seconds}
                compare(
                    f"authenticate with {what}",
                    args.rounds,
                    partial(load, daemon.pid, "ws", daemon.port, **options),
                    partial(load, pid, "ws", port, **options),
                    1.5,
                )


def _bench_login(args: argparse.Namespace) -> None:
    """What pings feel while somebody logs in again and again; what 200 guesses a second take of the memory."""
    with running(cameras=1, mediamtx=False) as daemon:
        before = resident_megabytes(daemon.pid)
        user = {"name": "bench", "role": "viewer", "password": PASSWORD}
        trio.run(partial(daemon.call, "create_user", **user))
        login = request("login", username="bench", password=PASSWORD)
        measure = partial(load, daemon.pid, "ws", daemon.port, request("ping"), connections=20, seconds=args.seconds)
        runs: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        logins = []
        for _ in range(args.rounds):
            for busy in random.sample([True, False], 2):
                pings: AbstractContextManager[list[dict[str, Any]]]
                pings = loading(daemon.port, login) if busy else nullcontext([])
                with pings as found:
                    runs[busy].append(measure())
                logins += found
        took = statistics.median(each["p50_ms"] for each in logins)
        for name in ("p50_ms", "p99_ms"):
            quiet, busy = (statistics.median(run[name] for run in runs[kind]) for kind in (False, True))
            print(
                f"login, {name} of pings meanwhile: {busy / quiet:.2f} times, {busy:.2f} against {quiet:.2f} ms; a login "
                f"takes {took:.0f} ms, and there is always one, {args.rounds} rounds",
                flush=True,
            )
        told, sizes = Counter[int](), list[float]()
        trio.run(_guess, daemon, told, sizes)
        print(
            f"guesses, {GUESSES_A_SECOND} a second for {GUESS_SECONDS} s: {max(sizes) - before:.1f} MB more than before "
            f"the first password (limit 40), {sizes[-1] - before:.1f} after; answers {dict(told)}",
            flush=True,
        )


@contextmanager
def loading(port: int, send: str) -> Iterator[list[dict[str, Any]]]:
    """One client that makes this call again and again while the block runs; then the list holds how it fared."""
    command = [sys.executable, str(HERE / "load.py"), "ws", str(port), "--send", send, "--connections", "1"]
    process = subprocess.Popen(
        [*command, "--until-closed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=pinned(1)
    )
    found: list[dict[str, Any]] = []
    yield found
    said, _ = process.communicate()
    found.append(json.loads(said))


async def _guess(daemon: Daemon, told: Counter[int], sizes: list[float]) -> None:
    """Each guess a connection and a password of its own."""

    async def one(number: int) -> None:
        body = json.dumps({"username": f"user{number % 50}", "password": f"a guess {number}"})
        head = f"POST /api/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(f"{head}\r\n\r\n{body}".encode())
            told[int((await stream.receive_some(65536))[9:12])] += 1

    async def watch() -> None:
        while True:
            sizes.append(resident_megabytes(daemon.pid))
            await trio.sleep(0.05)

    async with trio.open_nursery() as watcher:
        watcher.start_soon(watch)
        async with trio.open_nursery() as nursery:
            for number in range(GUESSES_A_SECOND * GUESS_SECONDS):
                nursery.start_soon(one, number)
                await trio.sleep(1 / GUESSES_A_SECOND)
        await trio.sleep(1)
        watcher.cancel_scope.cancel()


def _bench_gate(args: argparse.Namespace) -> None:
    """A key at the gate, beside its hash and look-up; a token, beside joserfc's decode of it. CPU of this process."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    from edged.access.admissions import Admissions
    from edged.access.gate import Gate
    from edged.access.ledger import Ledger
    from edged.access.limiter import Limiter
    from edged.clock import Clock
    from edged.credentials import api_keys, tokens
    from edged.credentials.callers import ApiKey, Peer
    from edged.credentials.claims import Trust
    from edged.credentials.signing_keys import ALGORITHMS, PrivateKey, VerifyingKey, generate, public_part, read_key
    from edged.metrics import Metrics

    ledger, now = Ledger(), time.time()
    made = [api_keys.mint() for _ in range(1000)]
    for key_id, _, digest in made:
        ledger.put_key(api_keys.KeyRecord(key_id=key_id, name="bench", role="viewer", digest=digest, created_at=now))
    no_issuers: Any = SimpleNamespace(version=0, find=lambda _issuer: None)
    gate = Gate(
        ledger,
        Admissions(monotonic=time.monotonic),
        Limiter(time.monotonic),
        Clock(monotonic=time.monotonic),
        Metrics({}),
        shared_secrets=(),
        find_key=lambda _kid: None,
        issuers=no_issuers,
        own="edged",
    )
    peer = Peer("main", "192.0.2.7", 40000)
    text, known_keys = made[500].secret, {key.digest: key for key in made}
    ours, plain = [], []
    for _ in range(max(args.rounds, 7)):
        ours.append(cpu_each(lambda: gate.authenticate(ApiKey(text), peer, "ws"), 20_000))
        plain.append(cpu_each(lambda: known_keys[hashlib.sha256(text.encode()).digest()], 20_000))
    above = statistics.median(ours) - statistics.median(plain)
    print(
        f"auth, API key: {above:.1f} µs of CPU above hash and look-up (limit 5): {statistics.median(ours):.1f} against "
        f"{statistics.median(plain):.1f}, among 1000 keys, {len(ours)} rounds",
        flush=True,
    )
    secret = tokens.SharedSecret("bench", SECRET)
    claims = tokens.issue_claims(
        "bench", role="viewer", now=now, expires_in=3600, permissions=["camera:read"], camera_access=["camera0"]
    )
    cases: list[tuple[str, Any, dict[str, VerifyingKey]]] = [("HS256", secret, {})]
    for algorithm in ALGORITHMS:
        pair = generate(algorithm)
        public = VerifyingKey("key-1", algorithm, read_key(public_part(pair)), Trust(frozenset({"edged"})))
        cases.append((algorithm, PrivateKey("key-1", algorithm, read_key(pair)), {"key-1": public}))
    for name, key, known in cases:
        text = tokens.sign(claims | ({"iss": "edged"} if known else {}), key)
        verify = partial(
            tokens.verify, text, [secret], now=now, find_key=known.get, find_issuer=lambda _issuer: None, own="edged"
        )
        shown: Any = known["key-1"].key if known else OctKey.import_key(secret.key)
        decode = partial(jwt.decode, text, shown, algorithms=[name])
        ours, library = [], []
        for _ in range(max(args.rounds, 7)):
            ours.append(cpu_each(verify))
            library.append(cpu_each(decode))
        ratio = statistics.median(ours) / statistics.median(library)
        print(
            f"auth, {name} token: {ratio:.2f} times joserfc's decode (limit 1.5): {statistics.median(ours):.1f} "
            f"against {statistics.median(library):.1f} µs of CPU, {len(ours)} rounds, {len(text)} characters",
            flush=True,
        )
