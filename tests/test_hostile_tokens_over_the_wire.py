"""The corpus of hostile tokens against a running daemon, whose issuers' tasks run: refused, and nobody is asked for it.

Two servers count what they are asked: one is where the keys of the trusted issuers stand in the settings, the other is
named in the tokens themselves. An audit hook sees every name that is looked up and every connection that is made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, make_config, running_daemon
from issuer_helpers import KeyServer, key_server, respond
from joserfc.jwk import ECKey, RSAKey
from patience import fail_after
from test_credentials_hostile_tokens import (
    CLAIMS,
    COMPANY,
    CORPUS,
    EC,
    GIVEN_RSA,
    GOOD,
    NAMELESS,
    NEWER_MISFITS,
    NOW,
    OTHER_EC,
    OTHER_RSA,
    OUTSIDE_KINDS,
    OWN,
    PARTNER,
    PARTNERS,
    RSA,
    TEXT,
    THEIR_EC,
    THEIR_RSA,
    THEIRS,
    TWIN_RSA,
    b64,
    by,
    craft,
    deny_some,
    es,
    hs,
    jwk_of,
    pem,
    private_forms,
    rs,
)
from trio_websocket import ConnectionClosed

from edged.access.ledger import Ledger
from edged.children import Spawn
from edged.cli.client import connect
from edged.config.model import IssuerSettings
from edged.credentials.decision import OUTSIDE
from edged.credentials.signing_keys import ALGORITHMS, Algorithm, Jwk
from edged.signing import issuers

#: Classes of tokens that name an unknown kid of a trusted issuer, and fit otherwise: the keys may be fetched once more.
NEWER = ("outside: unknown kid", "outside: kid of another issuer")


@dataclass
class Reached:
    """Names that are looked up, addresses that are connected to, programs that are started, while somebody looks."""

    names: set[Any] = field(default_factory=set)
    addresses: set[Any] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    watching: bool = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self.names.add(arguments[0])
        elif event == "socket.connect":
            self.addresses.add(arguments[1])
        elif event.startswith(("socket.sendto", "urllib.", "subprocess.", "os.system")):
            self.other.add(event)


@pytest.fixture(scope="module")
def reached() -> Reached:
    """An audit hook cannot be taken off again."""
    found = Reached()
    sys.addaudithook(found.hear)
    return found


@dataclass
class Site:
    """The daemon, and both servers."""

    daemon: RunningDaemon
    pinned: KeyServer
    evil: KeyServer

    async def show(self, *texts: str) -> list[str]:
        """What becomes of each token, one after the other on one WebSocket for as long as that lasts: "" if it is
        taken, else the reason that is told, or how the daemon hung up."""
        told: list[str] = []
        while len(told) < len(texts):
            async with self.daemon.websocket() as client:
                try:
                    while len(told) < len(texts):
                        call = {"method": "authenticate", "params": {"auth_token": texts[len(told)]}}
                        await client.connection.send_message(json.dumps({"jsonrpc": "2.0", "id": 1, **call}))
                        answer = json.loads(await client.connection.get_message())
                        told.append("" if "result" in answer else answer["error"].get("data", {}).get("reason", "?"))
                except ConnectionClosed as closed:
                    told.append(f"closed {closed.reason.code if closed.reason else ''}")
        return told


def key_set(*keys: tuple[str, Any]) -> bytes:
    return json.dumps({"keys": [jwk_of(key) | {"kid": kid} for kid, key in keys]}).encode()


SETS = {
    "/company": key_set(("key-1", TWIN_RSA), ("their/rsa=", THEIR_RSA), ("ec.1", THEIR_EC)),
    "/partner": key_set(("only", OTHER_RSA)),
}


@asynccontextmanager
async def besieged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A daemon of the corpus's time, keys, secret, issuers and revocations."""
    own = iter((RSA, EC))

    def generate(algorithm: str) -> dict[str, str]:
        kind = RSAKey if algorithm == "RS256" else ECKey
        return {
            name: value
            for name, value in kind.import_key(private_forms(next(own))[0]).as_dict(private=True).items()
            if isinstance(value, str) and name != "kid"
        }

    ledgers: list[Ledger] = []

    def make_ledger() -> Ledger:
        ledgers.append(Ledger())
        return ledgers[-1]

    monkeypatch.setattr("edged.clock.time", SimpleNamespace(time=lambda: float(NOW)))

    async def make_keys(_spawn: Spawn, algorithms: Sequence[Algorithm]) -> list[Jwk]:
        return list(map(generate, algorithms))

    monkeypatch.setattr("edged.signing.key_maker.make", make_keys)
    monkeypatch.setattr("edged.daemon.access.Ledger", make_ledger)
    config = make_config(folder, cameras=0)
    (folder / "secret").write_text(TEXT)
    (folder / "nameless.pem").write_bytes(pem(GIVEN_RSA))
    async with (
        key_server(lambda head: respond(SETS[head.split()[1].decode()])) as pinned,
        key_server(lambda _head: respond(key_set(("evil", OTHER_RSA), ("evil", OTHER_EC)))) as evil,
    ):
        settings = {
            record.name: IssuerSettings(
                issuer=record.issuer, algorithms=record.algorithms, audience=tuple(record.audiences),
                ceiling=cast(Any, record.ceiling),
                jwks=f"http://127.0.0.1:{pinned.port}/{record.name}" if record.issuer else "",
                key="" if record.issuer else str(folder / "nameless.pem"),
            )
            for record in (COMPANY, PARTNER, NAMELESS)
        }  # fmt: skip
        config = msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, issuers=settings))
        async with running_daemon(folder, config=config) as daemon:
            async with connect(daemon.config.paths.runtime / "edged.sock") as admin:
                # Of a key that has signed nothing no token is good.
                for algorithm in ALGORITHMS:
                    await admin.call("issue_token", {"user_id": "x", "signing_key": algorithm})
            deny_some(ledgers[0])
            site = Site(daemon, pinned, evil)
            # What the corpus is one step away from is taken, once the issuers' keys are here.
            good = [*GOOD.values(), *(craft(*parts) for parts in OUTSIDE_KINDS.values())]
            with fail_after(30):
                while any(await site.show(*good)):
                    await trio.sleep(0.02)
            yield site


def luring(evil: str) -> list[str]:
    """Tokens by whoever runs that server, which serves the keys: in every place where an address could stand."""
    heads: list[dict[str, Any]] = [
        {"jku": evil}, {"jku": evil, "kid": "evil"}, {"x5u": evil}, {"x5u": evil, "kid": "key-1"}, {"url": evil},
        {"iss": evil}, {"kid": evil}, {"jku": evil, "x5u": evil, "kid": evil}, {"kid": "evil"},
        {"jwk": jwk_of(OTHER_RSA) | {"x5u": evil, "kid": "evil"}}, {"x5c": [b64(evil.encode())]},
    ]  # fmt: skip
    said: list[dict[str, Any]] = [
        {"iss": evil}, {"iss": f"{evil}/"}, {"iss": evil, "aud": "edged"}, {"iss": evil, "jku": evil, "jwks_uri": evil},
        {"jwks_uri": evil, "jku": evil}, {"sub": evil, "iss": "edged"}, {"cnf": {"jku": evil}, "iss": "edged"},
    ]  # fmt: skip
    signers = {"RS256": rs(OTHER_RSA), "ES256": es(OTHER_EC), "HS256": hs(b"k" * 32)}
    found = [
        craft({"alg": alg, "typ": "JWT"} | head, CLAIMS | claims, sign)
        for alg, sign in signers.items() for head in ({}, *heads) for claims in ({}, {"iss": "edged"}, *said)
    ]  # fmt: skip
    lured = ({"jku": evil}, {"x5u": evil}, {"jku": evil, "kid": "evil"})
    return found + [
        craft(by("RS256") | head, claims, rs(OTHER_RSA)) for head in lured for claims in (THEIRS, PARTNERS, OWN)
    ]


async def test_no_token_makes_edged_ask_anybody_but_for_a_newer_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: Reached
) -> None:
    """The whole corpus over a WebSocket: refused, told no more than the word for its reason; nothing is looked up or
    connected to for it. Only what would do but for an unknown kid has its issuer's own address asked, once in a while;
    what a token names is never asked."""
    # Whoever asks is served at once: nothing but the tokens decides whether anybody asks.
    monkeypatch.setattr(issuers, "LEAST_SECONDS", 0.0)
    with fail_after(240):
        async with besieged(tmp_path, monkeypatch) as site:
            assert sorted(site.pinned.asked) == ["/company", "/partner"]
            evil = f"http://127.0.0.1:{site.evil.port}/jwks.json"
            reached.watching = True
            wrong: dict[str, Any] = {}
            for name, (reason, cases) in CORPUS.items():
                if name not in NEWER:
                    told = await site.show(*cases)
                    meant = [expected(text, reason) for text in cases]
                    judged = zip(cases, told, meant, strict=True)
                    wrong |= {(name, text[:99]): (word, right) for text, word, right in judged if word != right}
            assert wrong == {}
            assert set(await site.show(*luring(evil), *NEWER_MISFITS)) == {"auth_failed"}
            for text in luring(evil)[::7]:
                bearer = {"Authorization": f"Bearer {text}"}
                for method, path in (("GET", "/api/sessions"), ("POST", "/api/token/refresh")):
                    assert (await site.daemon.request(method, path, headers=bearer)).status == 401
            assert len(site.pinned.asked) == 2
            assert reached.addresses == {("127.0.0.1", site.daemon.port)}
            # From here on nobody is asked twice within an hour: so many unknown kids are one question to each issuer.
            monkeypatch.setattr(issuers, "LEAST_SECONDS", 3600.0)
            newer = [text for name in NEWER for text in CORPUS[name][1]]
            newer += [craft(by("RS256", f"{evil}#{at}"), THEIRS, rs(OTHER_RSA)) for at in range(20)]
            for _ in range(3):
                assert set(await site.show(*newer)) == {"auth_failed"}
            while len(site.pinned.asked) < 4:
                await trio.sleep(0.01)
            assert set(await site.show(*newer)) == {"auth_failed"}
            reached.watching = False
            assert sorted(site.pinned.asked) == ["/company", "/company", "/partner", "/partner"]
            assert site.evil.asked == []
            assert reached.names <= {"127.0.0.1"}
            assert reached.addresses == {("127.0.0.1", port) for port in (site.daemon.port, site.pinned.port)}
            assert reached.other == set()
            assert await site.show(GOOD["shared"]) == [""]


def expected(text: str, reason: str) -> str:
    """What is told of a token: the endpoint itself refuses what is nothing, no text, or longer than a message."""
    if len(text) > 16384:
        return "closed 1009"
    return "parse_error" if "\ud800" in text else OUTSIDE[reason] if text else "auth_required"
