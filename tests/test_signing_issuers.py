"""signing/issuers.py: keys of other issuers are fetched in the background and kept; the gate never fetches."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from gate_helpers import verify
from issuer_helpers import Company, key_server, respond
from patience import fail_after
from trust_helpers import BrokenCommits, rows

from edged.config.model import IssuerSettings
from edged.credentials.tokens import TokenRefused
from edged.errors import ConfigError, DependencyFailed
from edged.signing.issuers import EACH_SECONDS, LEAST_SECONDS, Issuer, Issuers
from edged.store import issuers as rows_of_issuers
from edged.store.database import Database
from edged.store.issuers import StoredKeys
from edged.store.migrations import TRUST

START = 1_900_000_000.0
ISS = "https://login.example.com/"
URL = "https://login.example.com/jwks.json"


def make_settings(name: str = "company", issuer: str = ISS, **given: Any) -> dict[str, IssuerSettings]:
    """[auth.issuers.NAME]; its keys are at URL unless `given` says otherwise."""
    return {name: IssuerSettings(issuer=issuer, **({"jwks": URL} | given))}


@dataclass
class Time:
    """The daemon's clock, moved by the test or with trio's."""

    system: float = START
    follows: bool = False

    def now(self) -> float:
        return self.system + (trio.current_time() if self.follows else 0.0)


@dataclass
class Server:
    """What is fetched, and how often it was."""

    answer: bytes | DependencyFailed
    at: list[float] = field(default_factory=list)

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        await trio.lowlevel.checkpoint()
        self.at.append(trio.current_time())
        if isinstance(self.answer, DependencyFailed):
            raise self.answer
        return self.answer


DOWN = DependencyFailed("login.example.com cannot be asked: no network", hint="look at the network")


@pytest.fixture
def company() -> Company:
    return Company(ISS).add("one").add("two")


@asynccontextmanager
async def opened(path: Path, server: Server, time: Time | None = None, **given: Any) -> AsyncIterator[Any]:
    """Loaded issuers over the trust database at `path`: (issuers, the one, database)."""
    async with Database.open(path, TRUST, name="trust") as db:
        clock: Any = time or Time()
        settings = make_settings(**given)
        held = Issuers(settings, db, clock, fetch=server.fetch)
        held.load()
        issuer = held.find(*(each.issuer for each in settings.values()))
        assert issuer is not None
        yield held, issuer, db


def kids(issuer: Issuer) -> list[str]:
    return [key.kid for key in issuer.keys]


def takes(held: Issuers, text: str) -> bool:
    try:
        return verify(text, [], now=START, find_issuer=held.find).method == "jwt_federated"
    except TokenRefused:
        return False


async def test_keys_are_fetched_and_outlive_a_restart_without_a_network(tmp_path: Path, company: Company) -> None:
    """The last good answer is in the trust database; its age is told."""
    text = company.sign("two")
    async with opened(tmp_path / "trust.db", Server(company.jwks())) as (held, issuer, _):
        assert not takes(held, text)
        assert held.last_success() == {"company": 0.0}
        assert await held.refresh(issuer)
        assert takes(held, text)
        assert held.last_success() == {"company": START}
    async with opened(tmp_path / "trust.db", Server(DOWN), Time(START + 9e6)) as (held, issuer, _):
        assert takes(held, text)
        assert not await held.refresh(issuer)
        assert takes(held, text)
        assert held.last_success() == {"company": START}


@pytest.mark.parametrize(
    "answer", [DOWN, b"", b"<html>login</html>", b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"AAAA"}]}', b"\xff" * 99]
)
async def test_a_bad_answer_changes_nothing_and_is_told_once(
    tmp_path: Path, company: Company, answer: bytes | DependencyFailed, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys of before go on, on the disk too; the line says which they are and what to do."""
    server = Server(company.jwks())
    async with opened(tmp_path / "trust.db", server) as (held, issuer, _):
        await held.refresh(issuer)
        stored = rows(tmp_path / "trust.db", "SELECT * FROM issuers")
        capsys.readouterr()
        server.answer = answer
        for _ in range(3):
            assert not await held.refresh(issuer)
        assert kids(issuer) == ["one", "two"]
        assert rows(tmp_path / "trust.db", "SELECT * FROM issuers") == stored
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "keys_not_renewed" in line]
        for word in ("issuer=company", "2030-03-17", "remedy="):
            assert word in line
        server.answer = company.jwks()
        assert await held.refresh(issuer)
        assert "keys_taken" in capsys.readouterr().out
        assert await held.refresh(issuer)
        assert capsys.readouterr().out == ""


async def test_without_any_keys_the_line_says_that_nothing_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator who mistyped the URL reads it at the first start."""
    async with opened(tmp_path / "trust.db", Server(DOWN)) as (held, issuer, _):
        await held.refresh(issuer)
    said = capsys.readouterr().out
    assert "every token of it is refused" in said
    assert "look at the network" in said


async def test_a_new_key_is_in_force_at_once_and_a_withdrawn_one_no_more(tmp_path: Path, company: Company) -> None:
    """What a key verified that is withdrawn must be verified anew: the version says so; a new one changes it not."""
    old = company.sign("one")
    server = Server(company.jwks())
    async with opened(tmp_path / "trust.db", server) as (held, issuer, _):
        await held.refresh(issuer)
        company.add("three")
        server.answer = company.jwks()
        await held.refresh(issuer)
        assert held.version == 0
        assert takes(held, company.sign("three"))
        del company.keys["one"]
        server.answer = company.jwks()
        await held.refresh(issuer)
        assert held.version == 1
        assert not takes(held, old)
        company.add("two")
        server.answer = company.jwks()
        await held.refresh(issuer)
        assert held.version == 2
    async with opened(tmp_path / "trust.db", Server(DOWN)) as (held, issuer, _):
        assert kids(issuer) == ["two", "three"]


async def test_an_unchanged_set_is_written_once_a_day(tmp_path: Path, company: Company) -> None:
    """An SD card wears out; the time of the last success is a day old at most after a restart."""
    server, time = Server(company.jwks()), Time()
    async with opened(tmp_path / "trust.db", server, time) as (held, issuer, _):
        written = set()
        for _ in range(72):
            # The order in which they are listed says nothing.
            server.answer = json.dumps({"keys": json.loads(company.jwks())["keys"][:: -1 if _ % 2 else 1]}).encode()
            await held.refresh(issuer)
            written |= set(rows(tmp_path / "trust.db", "SELECT fetched_at FROM issuers"))
            assert held.last_success() == {"company": time.system}
            time.system += 3600
        assert len(written) == 3


async def test_a_disk_that_fails_costs_nobody_a_key(tmp_path: Path, company: Company) -> None:
    """They are in force; what could not be kept is written with the next answer."""
    async with opened(tmp_path / "trust.db", Server(company.jwks())) as (held, issuer, db):
        broken = await BrokenCommits(db).begin()
        assert await held.refresh(issuer)
        assert takes(held, company.sign("one"))
        assert await db.read(rows_of_issuers.load) == []
        await broken.mend()
        await held.refresh(issuer)
        assert [item.name for item in await db.read(rows_of_issuers.load)] == ["company"]


async def test_keys_that_were_kept_from_elsewhere_or_fit_no_more_are_not_used(
    tmp_path: Path, company: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings name another place, or allow another algorithm only: what the old ones got counts for nothing."""
    async with opened(tmp_path / "trust.db", Server(company.jwks())) as (held, issuer, _):
        await held.refresh(issuer)
    for given in ({"jwks": "https://elsewhere.example/jwks"}, {"name": "other"}, {"algorithms": ("PS256",)}):
        async with opened(tmp_path / "trust.db", Server(DOWN), **given) as (held, issuer, _):
            assert issuer.keys == ()
            assert list(held.last_success().values()) == [0.0]
    assert "kept_keys_refused" in capsys.readouterr().out


async def test_keys_may_stand_in_a_file(tmp_path: Path, company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """It is read anew like an answer: one that is not there, no file or unreadable keeps what was."""
    file = tmp_path / "jwks.json"
    server = Server(DOWN)
    async with opened(tmp_path / "trust.db", server, jwks=str(file)) as (held, issuer, _):
        assert not await held.refresh(issuer)
        assert "cannot be read: No such file" in capsys.readouterr().out
        file.write_bytes(company.jwks())
        assert await held.refresh(issuer)
        assert kids(issuer) == ["one", "two"]
        file.unlink()
        file.mkdir()
        assert not await held.refresh(issuer)
        assert "is not a file" in capsys.readouterr().out
        assert kids(issuer) == ["one", "two"]
    assert server.at == []


async def test_a_pem_file_is_read_at_the_start_and_never_fetched(tmp_path: Path, company: Company) -> None:
    """Tokens without iss and kid: the one key verifies them; a box of a partner without any web server."""
    file = tmp_path / "partner.pem"
    file.write_bytes(company.add("rsa", "RS256").pem("rsa"))
    server = Server(DOWN)
    given: dict[str, Any] = {"name": "nameless", "issuer": "", "algorithms": ("RS256",), "jwks": "", "key": str(file)}
    async with opened(tmp_path / "trust.db", server, **given) as (held, _, _):
        assert takes(held, company.sign("rsa", name_key=False, iss=None))
        assert takes(held, company.sign("rsa", iss=None))
        assert not takes(held, company.sign("rsa"))
        assert held.last_success() == {"nameless": START}
        with trio.move_on_after(0.1):
            await held.run()
    assert server.at == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"junk", "not one public key"), (b"-----BEGIN PRIVATE KEY-----", "openssl pkey")],
)
async def test_a_pem_file_that_is_none_is_a_wrong_setting(tmp_path: Path, content: bytes | None, says: str) -> None:
    """By the name of the setting, with the file and what to do."""
    file = tmp_path / "partner.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        async with opened(tmp_path / "trust.db", Server(DOWN), jwks="", key=str(file)):
            pass
    assert "auth.issuers.company.key" in caught.value.sentence
    assert str(file) in str(caught.value)
    assert caught.value.hint


# When it is fetched: the clock is trio's, and nothing runs in a thread, so that time passes only when all wait -------


class Memory:
    """A database without a thread of its own."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        for step in TRUST:
            for statement in step:
                self.connection.execute(statement)

    def read_now(self, query: Callable[[sqlite3.Connection], Any]) -> Any:
        return query(self.connection)

    async def write(self, transaction: Callable[[sqlite3.Connection], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return transaction(self.connection)


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.connection.close()


@asynccontextmanager
async def running(memory: Memory, server: Server, time: Time) -> AsyncIterator[tuple[Issuers, Issuer]]:
    db: Any = memory
    clock: Any = time
    held = Issuers(make_settings(), db, clock, fetch=server.fetch)
    held.load()
    issuer = held.find(ISS)
    assert issuer is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        yield held, issuer
        nursery.cancel_scope.cancel()


def since(server: Server, began: float) -> list[float]:
    return [round(at - began, 3) for at in server.at]


async def test_keys_are_fetched_at_the_start_and_each_hour(
    memory: Memory, company: Company, autojump_clock: trio.testing.MockClock
) -> None:
    """The first time at once, for nothing is known."""
    server, began = Server(company.jwks()), trio.current_time()
    async with running(memory, server, Time(follows=True)):
        await trio.sleep(3 * EACH_SECONDS + 10)
    assert since(server, began) == [0, 3600, 7200, 10800]


@pytest.mark.parametrize(
    ("age", "first"), [(0, 3600), (600, 3000), (3599, 1), (3601, 0), (30 * 86400, 0), (-5, 0), (-9e8, 0)]
)
async def test_kept_keys_are_fetched_anew_when_they_are_an_hour_old(
    memory: Memory, company: Company, autojump_clock: trio.testing.MockClock, age: float, first: float
) -> None:
    """Those that come from the future are of unknown age."""
    time = Time(START - trio.current_time(), follows=True)
    rows_of_issuers.save(memory.connection, StoredKeys("company", URL, company.jwks().decode(), START - age))
    server, began = Server(company.jwks()), trio.current_time()
    async with running(memory, server, time) as (held, _):
        assert takes(held, company.sign("one"))
        await trio.sleep(3700)
    assert since(server, began)[0] == pytest.approx(first, abs=0.01)


async def test_an_unknown_kid_asks_once_a_minute_at_most(
    memory: Memory, company: Company, autojump_clock: trio.testing.MockClock
) -> None:
    """Somebody who invents kids makes one question a minute; a new key is known a minute after it was first shown."""
    server, began = Server(company.jwks()), trio.current_time()
    async with running(memory, server, Time(follows=True)) as (held, _):
        await trio.sleep(600)
        company.add("new")
        server.answer = company.jwks()
        text = company.sign("new")
        assert not takes(held, text)
        await trio.sleep(0.5)
        assert takes(held, text)
        assert since(server, began) == [0, 600]
        forged = Company(ISS).add("forged")
        for _ in range(300):
            assert not takes(held, forged.sign("forged"))
            await trio.sleep(1)
        assert since(server, began)[2:] == pytest.approx([660, 720, 780, 840, 900], abs=1)


async def test_what_fails_is_tried_again_with_growing_pauses(
    memory: Memory, company: Company, autojump_clock: trio.testing.MockClock
) -> None:
    """A box that starts before its network has its keys a minute later; one without a network asks once an hour."""
    server, began = Server(DOWN), trio.current_time()
    async with running(memory, server, Time(follows=True)) as (_, issuer):
        await trio.sleep(4 * EACH_SECONDS)
        pauses = [later - earlier for earlier, later in zip(server.at, server.at[1:], strict=False)]
        assert pauses == pytest.approx([60, 120, 240, 480, 960, 1920, 3600, 3600])
        server.answer = company.jwks()
        await trio.sleep(EACH_SECONDS)
        assert kids(issuer) == ["one", "two"]
        count = len(server.at)
        await trio.sleep(EACH_SECONDS - LEAST_SECONDS)
        assert len(server.at) <= count + 1
    assert since(server, began)[0] == 0


async def test_the_real_client_fetches_for_it(tmp_path: Path, company: Company) -> None:
    """From a server on this machine, without anything put in its place."""
    with fail_after(30):
        async with (
            key_server(lambda _head: respond(company.jwks())) as server,
            Database.open(tmp_path / "trust.db", TRUST, name="trust") as db,
        ):
            clock: Any = Time()
            held = Issuers(make_settings(jwks=f"http://127.0.0.1:{server.port}/jwks"), db, clock)
            held.load()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(held.run)
                while not takes(held, company.sign("one")):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            assert server.asked == ["/jwks"]
