"""What it costs to show who one is: at the gate, over a WebSocket, and with a password."""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio
from measure import SECRET, bare, compare, cpu_each, load, raw_result, request, running, sign

KEYS = 1000
#: More than the gate remembers, so that each is verified.
TOKENS = 5000


def bench_auth(args: argparse.Namespace) -> None:
    """A key and tokens at the gate; `authenticate` over WebSocket."""
    _bench_gate(args)
    _bench_authenticate(args)


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


def _bench_gate(args: argparse.Namespace) -> None:
    """A key at the gate, beside its hash and look-up; a token, beside joserfc's decode of it. CPU of this process."""
    from joserfc import jwt

    from edged.access.admissions import Admissions
    from edged.access.gate import Gate
    from edged.access.ledger import Ledger
    from edged.clock import Clock
    from edged.credentials import api_keys, tokens
    from edged.credentials.callers import ApiKey
    from edged.credentials.claims import Trust
    from edged.credentials.signing_keys import ALGORITHMS, PrivateKey, VerifyingKey, generate, public_part, read_key
    from edged.metrics import Metrics

    ledger, now = Ledger(), time.time()
    made = [api_keys.mint() for _ in range(1000)]
    for key_id, _, digest in made:
        ledger.put_key(api_keys.KeyRecord(key_id=key_id, name="bench", role="viewer", digest=digest, created_at=now))
    gate = Gate(ledger, Admissions(monotonic=time.monotonic), Clock(monotonic=time.monotonic), Metrics({}))
    text, known_keys = made[500].secret, {key.digest: key for key in made}
    ours, plain = [], []
    for _ in range(max(args.rounds, 7)):
        ours.append(cpu_each(lambda: gate.authenticate(ApiKey(text), "ws"), 20_000))
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
        verify = partial(tokens.verify, text, [secret], now=now, find_key=known.get)
        decode = partial(jwt.decode, text, known["key-1"].key if known else secret.key, algorithms=[name])
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
