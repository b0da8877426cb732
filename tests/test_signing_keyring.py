"""signing/keyring.py and store/signing_keys.py: which key signs, which are published, and for how long."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from daemon_helpers import make_config
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from identity_helpers import named
from joserfc import jwt
from key_pool import make_by_a_process
from keyring_helpers import HOUR, POOL, START, Bench, Time, from_pool, kid_of_token, opened
from patience import FACTOR, fail_after, times
from trust_helpers import BrokenCommits, busy_writer, rows

from edged import children
from edged.access.grants import Upkeep
from edged.clock import Clock
from edged.credentials.signing_keys import (
    ALGORITHMS,
    PUBLISHED_SECONDS,
    Jwk,
    PrivateKey,
    SigningKeyRecord,
    public_part,
    read_key,
)
from edged.credentials.tokens import TokenRefused, issue_claims, sign
from edged.daemon.spawns import build_spawns
from edged.errors import DependencyFailed, InvalidState, NotFound, StoreFailed
from edged.signing import key_maker
from edged.signing.key_maker import child_environment
from edged.signing.keyring import Keyring
from edged.store import signing_keys
from edged.store.database import Database
from edged.store.migrations import TRUST

YEAR_2099 = 4_070_908_800.0


async def test_the_first_keys_of_each_algorithm_sign_at_once(tmp_path: Path) -> None:
    """Made where there are none (contract 10.21), found again after a restart, and real ones verify."""
    async with opened(tmp_path / "trust.db", real=True) as bench:
        assert bench.states() == {"key-1": "current", "key-2": "current"}
        assert [record.algorithm for record in bench.keyring.all()] == ["RS256", "ES256"]
        assert bench.published() == ["key-1", "key-2"]
        old = [await bench.sign(algorithm) for algorithm in ALGORITHMS]
    async with opened(tmp_path / "trust.db") as bench:
        assert bench.states() == {"key-1": "current", "key-2": "current"}
        assert all(bench.takes(text) for text in [*old, *[await bench.sign(algorithm) for algorithm in ALGORITHMS]])
    assert stat.S_IMODE((tmp_path / "trust.db").stat().st_mode) == 0o600


async def test_a_key_that_has_signed_nothing_is_not_read(tmp_path: Path) -> None:
    """To read one takes the libraries of a signature; the first signature reads it, and so does each start after it."""
    async with opened(tmp_path / "trust.db") as bench:
        assert [bench.keyring.find(kid).key for kid in bench.states()] == [None, None]  # type: ignore[union-attr]
        assert bench.takes(await bench.sign("ES256"))
        assert [bench.keyring.find(kid).key is None for kid in bench.states()] == [True, False]  # type: ignore[union-attr]
    async with opened(tmp_path / "trust.db") as bench:
        assert [bench.keyring.find(kid).key is None for kid in bench.states()] == [True, False]  # type: ignore[union-attr]


async def test_a_key_of_a_restored_database_may_have_signed_what_is_not_known_there(tmp_path: Path) -> None:
    """A copy that was made before the first signature says nothing of it; the tokens are good all the same."""
    async with opened(tmp_path / "trust.db") as bench:
        signer = read_key(bench.keyring.current("ES256").private or {})
    claims = issue_claims("ann", role="viewer", now=bench.time.system, expires_in=600) | {"iss": "edged"}
    text = sign(claims, PrivateKey("key-2", "ES256", signer))
    async with opened(tmp_path / "trust.db") as bench:
        with pytest.raises(TokenRefused, match="did not sign it"):
            bench.takes(text)
    async with opened(tmp_path / "trust.db", was_restored=True) as bench:
        assert bench.takes(text)
        await bench.keyring.create(bench.grant, "ES256")
        assert bench.keyring.find("key-3").key is None, "it was made here"  # type: ignore[union-attr]


async def test_a_key_that_is_retired_while_it_is_read_does_not_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its private half does not stay in memory; the token is signed by the one that took over."""
    began, promoted = threading.Event(), threading.Event()

    def read_slowly(jwk: Jwk) -> Any:
        began.set()
        assert promoted.wait(30 * FACTOR)
        return read_key(jwk)

    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "ES256")
        monkeypatch.setattr("edged.credentials.signing_keys.read_key", read_slowly)
        texts: list[str] = []

        async def ask() -> None:
            texts.append(await bench.sign("ES256"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            assert await trio.to_thread.run_sync(began.wait, 30 * FACTOR)
            await bench.keyring.promote(bench.grant, "key-3", force=True)
            promoted.set()
        assert kid_of_token(texts[0]) == "key-3"
        assert bench.takes(texts[0])
        assert bench.keyring._signing.keys() == {"key-1", "key-3"}


async def test_key_pairs_are_made_by_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and new ones, of each algorithm that was asked for, whatever stands in the working folder; as confined as a
    daemon's."""
    spawns = build_spawns(make_config(tmp_path))
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    first, second = [await make_by_a_process(spawns.key_maker, ALGORITHMS) for _ in range(2)]
    for made in (first, second):
        assert [public_part(pair)["kty"] for pair in made] == ["RSA", "EC"]
        for algorithm, pair in zip(ALGORITHMS, made, strict=True):
            text = sign({"sub": "ann", "exp": START}, PrivateKey("key-1", algorithm, read_key(pair)))
            assert jwt.decode(text, read_key(public_part(pair)), algorithms=[algorithm]).claims["sub"] == "ann"
    assert not any(pair in second for pair in first)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 1", "process that makes signing keys failed: it ended with 1"),
        ("echo no library >&2; exit 1", "failed: no library"),
        ("echo no JSON", "process that makes signing keys failed: JSON is malformed"),
        ("sleep 1000", "it took longer than 0.3 s"),
        (None, "no program"),
    ],
)
async def test_a_process_that_makes_no_key_is_told(
    program: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error of the family: a start ends with one line, a rotation tries again."""
    python = tmp_path / "python"
    if program is not None:
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    monkeypatch.setattr(key_maker, "LONGEST_SECONDS", 0.3 if program == "sleep 1000" else 60.0)
    spawn = partial(children.spawn, environment=child_environment(os.environ["PATH"]), landlock=None)
    with pytest.raises(DependencyFailed, match=said), fail_after(90):
        await make_by_a_process(spawn, ["ES256"])


async def test_the_process_that_makes_keys_has_nothing_of_the_daemon_that_it_does_not_need(
    disk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of its environment, no life behind its end, and no folder that holds anything; by what setpriv is
    told, which has no Landlock everywhere."""
    out = disk_path / "out"
    (out / "bin").mkdir(parents=True)
    setpriv, python = out / "bin" / "setpriv", out / "python"
    setpriv.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {out}/told\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n'
    )
    python.write_text(f"#!/bin/sh\ncat /proc/$$/environ > {out}/environ; exit 1\n")
    for program in (setpriv, python):
        program.chmod(0o755)
    for name, value in {
        "PATH": f"{out}/bin:{os.environ['PATH']}", "CREDENTIALS_DIRECTORY": str(disk_path / "credentials"),
        "EDGED_TEST_SECRET": "a secret", "HTTPS_PROXY": "http://user:password@192.0.2.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    config = make_config(disk_path)
    for name in ("state", "run", "credentials"):
        (disk_path / name).mkdir()
    spawns = build_spawns(config)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(DependencyFailed), fail_after(60):
        await make_by_a_process(spawns.key_maker, ["ES256"])
    given = dict(line.split("=", 1) for line in (out / "environ").read_text().split("\0") if line)
    assert given.keys() <= {"PATH", "PYTHONPATH", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"}
    told = (out / "told").read_text().splitlines()
    assert told[:4] == ["--pdeathsig", "KILL", "--landlock-access", "fs"]
    allowed = {Path(line.split(":", 2)[2]) for line in told if line.startswith("path-beneath:")}
    assert python in allowed
    shut = [*(disk_path / name for name in ("state", "run", "credentials", "secret")), config.recording.folder]
    shut += [config.recording.pre_roll_folder, config.snapshots.folder]
    assert not [
        path for path in allowed for hidden in shut if hidden.is_relative_to(path) or path.is_relative_to(hidden)
    ]


async def test_the_jwks_has_public_members_only(tmp_path: Path) -> None:
    """RFC 7517; no private member of either kind, and what each verifier needs (contract 5.2)."""
    async with opened(tmp_path / "trust.db") as bench:
        text = bench.keyring.jwks().decode()
        first, second = json.loads(text)["keys"]
        assert first.keys() == {"kty", "n", "e", "kid", "use", "alg"}
        assert second.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        private = [value for record in bench.keyring.all() for value in (record.private or {}).values()]
        secret = [value for value in private if value not in str([first, second])]
        assert len(secret) >= 7
        assert not any(value in text or value in repr(bench.keyring.all()) for value in secret)


async def test_a_key_goes_from_next_to_current_to_retired(tmp_path: Path) -> None:
    """Published before it signs, signs from its promotion on, published after it for as long as its tokens live."""
    async with opened(tmp_path / "trust.db") as bench:
        old = await bench.sign(seconds=3 * HOUR)
        made = await bench.keyring.create(bench.grant, "ES256")
        assert (made.kid, made.state) == ("key-3", "next")
        assert bench.published() == ["key-1", "key-2", "key-3"]
        assert kid_of_token(await bench.sign()) == "key-2"
        bench.time.pass_(PUBLISHED_SECONDS)
        assert (await bench.keyring.promote(bench.grant, "key-3")).state == "current"
        assert bench.states() == {"key-1": "current", "key-2": "retired", "key-3": "current"}
        new = await bench.sign()
        assert kid_of_token(new) == "key-3"
        assert bench.published() == ["key-1", "key-2", "key-3"]
        assert bench.takes(old)
        assert bench.takes(new)


async def test_a_retired_key_is_published_until_its_last_token_is_out(tmp_path: Path) -> None:
    """Also over a restart, and a clock that runs ahead and comes back takes nothing away: nothing at all, if nobody
    has confirmed it."""
    async with opened(tmp_path / "trust.db") as bench:
        text = await bench.sign(seconds=30 * 24 * HOUR)
        await bench.sign(seconds=60)
        await bench.keyring.create(bench.grant, "ES256")
        await bench.keyring.promote(bench.grant, "key-3", force=True)
        bench.time.pass_(30 * 24 * HOUR - 1)
        assert "key-2" in bench.published()
        assert bench.takes(text)
    async with opened(tmp_path / "trust.db", bench.time) as bench:
        assert "key-2" in bench.published()
        assert bench.takes(text)
        for trusted in (False, True):
            bench.time.trusted = trusted
            bench.time.system += 70 * 365 * 24 * HOUR
            assert ("key-2" in bench.published()) is not trusted
            bench.time.system -= 70 * 365 * 24 * HOUR
            assert "key-2" in bench.published()
        bench.time.pass_(2 * 24 * HOUR)
        assert bench.published() == ["key-1", "key-3"]


async def test_no_unconfirmed_jump_takes_a_key_out_of_the_jwks(tmp_path: Path) -> None:
    """By the daemon's own clock: 2099 and back, with and without a time server heard before, and a start in 2099; nor
    does one into the past, or a start there, bring back one whose tokens are out."""
    system, passed, synchronized = START, 0.0, True

    def make_clock(mark: float) -> Clock:
        return Clock(lambda: mark, system=lambda: system, monotonic=lambda: passed, synchronized=lambda: synchronized)

    async with Database.open(tmp_path / "trust.db", TRUST, name="trust") as db:

        def start(clock: Clock) -> Keyring:
            keyring = Keyring(db, clock, is_denied=set().__contains__, make=from_pool(), was_restored=False)
            keyring.load()
            return keyring

        def published() -> str:
            return " ".join(key["kid"][4:] for key in json.loads(keyring.jwks())["keys"])

        clock = make_clock(0.0)
        keyring = start(clock)
        await keyring.ensure()
        await keyring.sign({"exp": START + HOUR}, "ES256")
        await keyring.create(Upkeep(db), "ES256")
        await keyring.promote(Upkeep(db), "key-3", force=True)
        for heard in (True, False):
            if not heard:
                # Another start: no time server is heard in this one yet.
                system, synchronized = YEAR_2099, False
                clock = make_clock(clock.high_water())
                keyring = start(clock)
            for system in (START, YEAR_2099, 0.0, START):
                synchronized = False
                assert published() == "1 2 3", (heard, system)
        assert not clock.is_trusted
        system, synchronized = START, True
        passed, system = passed + 30 * HOUR, system + 30 * HOUR
        clock.look()
        assert published() == "1 3"
        for told in (0.0, YEAR_2099):
            system, synchronized = told, False
            keyring = start(make_clock(clock.high_water()))
            assert published() == "1 3"


async def test_a_key_that_never_signed_leaves_at_once_when_it_retires(tmp_path: Path) -> None:
    """A next key that is not wanted, also where nobody knows the time; the one after it has another number."""
    async with opened(tmp_path / "trust.db", Time(trusted=False, confirmed=0.0)) as bench:
        await bench.keyring.create(bench.grant, "ES256")
        assert (await bench.keyring.retire(bench.grant, "key-3")).state == "retired"
        assert bench.published() == ["key-1", "key-2"]
        assert (await bench.keyring.create(bench.grant, "ES256")).kid == "key-4"
        assert (await bench.keyring.retire(bench.grant, "key-3")).state == "retired"


async def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    """Not even when somebody deletes the row of the last key."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "RS256")
        await bench.db.write(lambda connection: connection.execute("DELETE FROM signing_keys WHERE number = 3"))
    async with opened(tmp_path / "trust.db") as bench:
        assert (await bench.keyring.create(bench.grant, "RS256")).kid == "key-4"


async def test_a_young_key_is_promoted_by_force_only(tmp_path: Path) -> None:
    """Two hours of real time; neither a step of the clock nor a second next key gets around that."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "ES256")
        with pytest.raises(InvalidState, match="already the next ES256 key"):
            await bench.keyring.create(bench.grant, "ES256")
        assert (await bench.keyring.create(bench.grant, "RS256")).kid == "key-4"
        bench.time.pass_(PUBLISHED_SECONDS - 1)
        with pytest.raises(InvalidState, match="or use force"):
            await bench.keyring.promote(bench.grant, "key-3")
        bench.time.system += 365 * 24 * HOUR
        with pytest.raises(InvalidState, match="less than 2 hours"):
            await bench.keyring.promote(bench.grant, "key-3")
        assert (await bench.keyring.promote(bench.grant, "key-3", force=True)).state == "current"
        bench.time.pass_(1)
        assert (await bench.keyring.promote(bench.grant, "key-4")).state == "current"


async def test_what_is_not_next_is_not_promoted_and_the_current_key_does_not_just_retire(tmp_path: Path) -> None:
    """Some key signs at any time; unknown ones are not found."""
    async with opened(tmp_path / "trust.db") as bench:
        for kid in ("key-1", "key-2"):
            with pytest.raises(InvalidState, match="not next"):
                await bench.keyring.promote(bench.grant, kid, force=True)
            with pytest.raises(InvalidState, match="signs"):
                await bench.keyring.retire(bench.grant, kid)
        for kid in ("key-3", "", "key-1 "):
            with pytest.raises(NotFound):
                await bench.keyring.promote(bench.grant, kid)
            with pytest.raises(NotFound):
                await bench.keyring.retire(bench.grant, kid)
            assert bench.keyring.find(kid) is None


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_leaked_key_is_replaced_at_once(tmp_path: Path, waiting: bool) -> None:
    """By the next key however young it is, or by a new one; the denied key is shown to nobody any more."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.sign()
        if waiting:
            await bench.keyring.create(bench.grant, "ES256")
        with pytest.raises(InvalidState, match="is not distrusted"):
            await bench.keyring.give_up("key-2")
        bench.denied.add(named("signing_key:key-2"))
        assert bench.published() == (["key-1", "key-3"] if waiting else ["key-1"])
        assert (await bench.keyring.give_up("key-2")).state == "retired"
        assert bench.states() == {"key-1": "current", "key-2": "retired", "key-3": "current"}
        assert kid_of_token(await bench.sign()) == "key-3"
        assert bench.published() == ["key-1", "key-3"]


async def test_a_retired_private_half_is_gone(tmp_path: Path) -> None:
    """From the memory and from its row."""
    async with opened(tmp_path / "trust.db") as bench:
        private = bench.keyring.get("key-2").private
        assert private is not None
        await bench.keyring.create(bench.grant, "ES256")
        await bench.keyring.promote(bench.grant, "key-3", force=True)
        assert bench.keyring.get("key-2").private is None
    kept = rows(tmp_path / "trust.db", "SELECT number FROM signing_keys WHERE private IS NOT NULL ORDER BY number")
    assert kept == [(1,), (3,)]


async def test_signing_costs_one_write_a_day(tmp_path: Path) -> None:
    """Until when a key must be known is written ahead; a token that ends later is written before it is told."""
    async with opened(tmp_path / "trust.db") as bench:
        seen: list[float] = []

        async def until() -> float:
            records = await bench.db.read(signing_keys.load)
            return records[1].signs_until

        for _ in range(48):
            await bench.sign()
            bench.time.pass_(HOUR)
            seen.append(await until())
            assert seen[-1] >= bench.time.system
        assert len(set(seen)) <= 3


async def test_a_disk_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """No key, no change, no token; and everything works once it is mended."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "ES256")
        before = bench.states()
        broken = await BrokenCommits(bench.db).begin()
        tries: list[Any] = [
            partial(bench.keyring.create, bench.grant, "RS256"),
            partial(bench.keyring.promote, bench.grant, "key-3", force=True),
            partial(bench.keyring.retire, bench.grant, "key-3"),
            partial(bench.distrust, "key-2"), bench.sign,
        ]  # fmt: skip
        for act in tries:
            with pytest.raises(StoreFailed):
                await act()
            assert bench.states() == before
        await broken.mend()
        assert kid_of_token(await bench.sign()) == "key-2"
        assert (await bench.keyring.promote(bench.grant, "key-3", force=True)).state == "current"


async def test_whoever_hangs_up_leaves_memory_and_disk_alike(tmp_path: Path) -> None:
    """A caller that is gone before the commit is through: the promotion is in force all the same."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "ES256")
        async with trio.open_nursery() as nursery, busy_writer(bench.db):
            nursery.start_soon(partial(bench.keyring.promote, bench.grant, "key-3", force=True))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        assert bench.states()["key-3"] == "current"
    assert rows(tmp_path / "trust.db", "SELECT state FROM signing_keys WHERE number = 3") == [("current",)]


async def test_a_token_that_is_signed_while_the_key_changes_is_by_the_key_that_signs_then(tmp_path: Path) -> None:
    """The end of a token is written first; by then another key may be current."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "ES256")
        found: list[str] = []

        async def sign() -> None:
            found.append(await bench.sign())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(bench.keyring.promote, bench.grant, "key-3", force=True))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                nursery.start_soon(sign)
        assert {kid_of_token(text) for text in found} == {"key-3"}
        assert all(bench.takes(text) for text in found)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["create", "promote", "force", "retire", "distrust", "sign", "wait"]),
              st.sampled_from(["key-2", "key-3", "key-4", "key-5"]), st.integers(0, 20000)),
    max_size=12,
)  # fmt: skip


@given(ACTIONS)
@example([("distrust", "key-3", 0), ("create", "key-2", 0), ("force", "key-3", 0), ("sign", "key-2", 0)])
@settings(max_examples=times(40, least=25), deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_done_to_keys_one_signs_and_what_was_signed_verifies(actions: list[tuple[str, str, int]]) -> None:
    """Any order of changes: memory as on disk, one current key, its tokens published to their end, numbers rising."""

    async def check() -> None:
        async with open_in_memory() as bench:
            ends: dict[str, float] = {}
            for action, kid, seconds in actions:
                try:
                    if action == "create":
                        await bench.keyring.create(bench.grant, "ES256")
                    elif action in ("promote", "force"):
                        await bench.keyring.promote(bench.grant, kid, force=action == "force")
                    elif action == "retire":
                        await bench.keyring.retire(bench.grant, kid)
                    elif action == "distrust":
                        try:
                            await bench.distrust(kid)
                        finally:
                            bench.denied.clear()  # what it signed is looked at below
                    elif action == "sign":
                        text = await bench.sign(seconds=seconds + 60)
                        ends[text] = bench.time.system + seconds + 60
                    else:
                        bench.time.pass_(seconds)
                except (InvalidState, NotFound):
                    pass
                states = [record.state for record in bench.keyring.all() if record.algorithm == "ES256"]
                assert states.count("current") == 1
                assert states.count("next") <= 1
                assert await bench.db.read(signing_keys.load) == list(bench.keyring.all())
                for text, end in ends.items():
                    if bench.time.system < end - 1:
                        assert bench.takes(text)
                        assert kid_of_token(text) in bench.published()

    trio.run(check)


@asynccontextmanager
async def open_in_memory() -> AsyncIterator[Bench]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder) / "trust.db") as bench:
            yield bench


def test_a_second_current_key_of_an_algorithm_is_impossible(tmp_path: Path) -> None:
    """The schema itself says so."""
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.row_factory = sqlite3.Row
    for step in TRUST:
        for statement in step:
            connection.execute(statement)
    jwk = POOL["ES256"][0]
    first = signing_keys.insert(connection, "ES256", "current", jwk, START)
    assert first == SigningKeyRecord(
        number=1, algorithm="ES256", state="current", public=first.public, private=jwk, created_at=START,
        promoted_at=START,
    )  # fmt: skip
    with pytest.raises(sqlite3.IntegrityError):
        signing_keys.insert(connection, "ES256", "current", jwk, START)
    connection.close()
