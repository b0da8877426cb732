"""Private halves under a wrapping key: nothing plain stays behind, and without the key nothing signs."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
import trio
from cli_helpers import Shell, write_config
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import all_named
from keyring_helpers import HOUR, POOL, START, Time, kid_of_token, opened
from planted import plant
from trust_helpers import BrokenCommits, rows

from edged.config.secrets import load_wrapping_key
from edged.credentials.signing_keys import Jwk, generate
from edged.credentials.wrapping import CannotUnwrap, WrappingKey, is_wrapped, read_private, write_private
from edged.errors import ConfigError, StartFailed, StoreFailed
from edged.store import backups, signing_keys
from edged.store.database import Database
from edged.store.migrations import TRUST

TEXT = plant("a wrapping key that is as long as it has to be", "the wrapping key")
KEY = WrappingKey(TEXT)
OTHER = WrappingKey(plant("another wrapping key that is long enough too", "another wrapping key"))


def secrets_of(*privates: Jwk | None) -> list[bytes]:
    """What only the owner of a key pair knows, as it would stand in a file."""
    names = {"d", "p", "q", "dp", "dq", "qi"}
    return [value.encode() for jwk in privates if jwk for name, value in jwk.items() if name in names]


def found_in(folder: Path, secrets: list[bytes]) -> set[str]:
    """The files below a folder in whose bytes one of these stands."""
    assert secrets
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name for path in files if any(secret in path.read_bytes() for secret in secrets)}


async def test_with_a_wrapping_key_nothing_plain_is_ever_written(tmp_path: Path) -> None:
    """First keys, a rotation, a restart: only envelopes in file and log, and signing works as ever."""
    path = tmp_path / "trust.db"
    async with opened(path, wrapping=KEY) as bench:
        made = [record.private for record in bench.keyring.all()]
        await bench.keyring.create(bench.grant, "ES256")
        made.append(bench.keyring.get("key-3").private)
        await bench.keyring.promote(bench.grant, "key-3", force=True)
        text = await bench.sign()
        assert (tmp_path / "trust.db-wal").stat().st_size > 0
        assert found_in(tmp_path, secrets_of(*made)) == set()
    async with opened(path, wrapping=KEY) as bench:
        assert bench.takes(text)
        assert kid_of_token(await bench.sign()) == "key-3"
        assert bench.takes(await bench.sign("RS256"))
    stored = rows(path, "SELECT private FROM signing_keys ORDER BY number")
    assert [str(value)[:4] for (value,) in stored] == ["eyJh", "None", "eyJh"]
    header = json.loads(base64.urlsafe_b64decode(str(stored[0][0]).split(".")[0] + "=="))
    assert header == {"alg": "dir", "enc": "A256GCM", "cty": "jwk+json"}
    assert found_in(tmp_path, secrets_of(*made)) == set()


@pytest.mark.parametrize("in_use", [False, True], ids=["after a stop", "with a log left by a kill"])
async def test_plain_keys_are_wrapped_and_leave_no_trace(tmp_path: Path, in_use: bool) -> None:
    """Neither in freed pages, nor in the log, nor in the copies: not of the keys in use, nor of one long retired."""
    path = tmp_path / "trust.db"
    async with opened(path) as bench:
        privates = [record.private for record in bench.keyring.all()]
        await bench.keyring.create(bench.grant, "ES256")
        privates.append(bench.keyring.get("key-3").private)
        await bench.keyring.promote(bench.grant, "key-3", force=True)
        texts = [await bench.sign(algorithm, seconds=48 * HOUR) for algorithm in ("RS256", "ES256")]
        with closing(sqlite3.connect(path)) as connection:
            for _ in range(2):
                backups.make(connection, path, len(TRUST))
        if in_use:
            for name in ("trust.db", "trust.db-wal"):
                (tmp_path / f"killed-{name}").write_bytes((tmp_path / name).read_bytes())
    if in_use:
        for name in ("trust.db", "trust.db-wal"):
            (tmp_path / f"killed-{name}").rename(tmp_path / name)
    secrets = secrets_of(*privates)
    before = found_in(tmp_path, secrets)
    assert {"trust.db-wal" if in_use else "trust.db", *(copy.path.name for copy in backups.find(path))} <= before
    (backups.folder_of(path) / ".trust.part").write_bytes(b"what a power cut left: " + secrets[0])

    async with opened(path, wrapping=KEY) as bench:
        assert found_in(tmp_path, secrets) == set()
        assert all(bench.takes(text) for text in texts)
        assert kid_of_token(await bench.sign()) == "key-3"
        assert bench.states() == {"key-1": "current", "key-2": "retired", "key-3": "current"}
    assert found_in(tmp_path, secrets) == set()
    assert [stat.S_IMODE(copy.path.stat().st_mode) for copy in backups.find(path)] == [0o600] * 2


async def test_a_cleaned_copy_is_a_database_that_starts(tmp_path: Path) -> None:
    """Also without the wrapping key, and by an edged of before: new keys sign, what the old ones signed is taken."""
    path = tmp_path / "state" / "trust.db"
    async with opened(path) as bench:
        text = await bench.sign(seconds=48 * HOUR)
        with closing(sqlite3.connect(path)) as connection:
            backups.make(connection, path, len(TRUST))
    async with opened(path, wrapping=KEY):
        pass
    restored = tmp_path / "restored" / "trust.db"
    restored.parent.mkdir()
    (copy,) = backups.find(path)
    copy.path.rename(restored)
    async with opened(restored) as bench:
        assert bench.states() == {"key-1": "retired", "key-2": "retired", "key-3": "current", "key-4": "current"}
        assert bench.published() == ["key-2", "key-3", "key-4"]
        assert bench.takes(text)


async def test_copies_of_before_there_were_keys_and_wrapped_ones_stay_as_they_are(tmp_path: Path) -> None:
    """Nothing is taken out of what holds nothing."""
    path = tmp_path / "trust.db"
    async with opened(path, wrapping=KEY) as bench:
        with closing(sqlite3.connect(path)) as connection:
            wrapped = backups.make(connection, path, len(TRUST))
        with closing(sqlite3.connect(tmp_path / "old.db")) as old:
            old.execute("PRAGMA user_version = 1")
            early = backups.make(old, path, 1)
        was = wrapped.read_bytes(), early.read_bytes()
        assert signing_keys.clean_backups(path) == 0
        assert (wrapped.read_bytes(), early.read_bytes()) == was
        assert bench.states() == {"key-1": "current", "key-2": "current"}


async def test_a_copy_that_cannot_be_cleaned_is_tried_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon starts all the same, says what is left and what to do, and the copy is as it was."""
    path = tmp_path / "trust.db"
    async with opened(path) as bench:
        secrets = secrets_of(*(record.private for record in bench.keyring.all()))
        with closing(sqlite3.connect(path)) as connection:
            backups.make(connection, path, len(TRUST))
    (copy,) = backups.find(path)
    was = copy.path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        async with opened(path, wrapping=KEY) as bench:
            assert kid_of_token(await bench.sign()) == "key-2"
    assert copy.path.read_bytes() == was
    assert found_in(tmp_path, secrets) == {copy.path.name}
    assert "plain_keys_left" in capsys.readouterr().out
    async with opened(path, wrapping=KEY):
        assert found_in(tmp_path, secrets) == set()
    assert "copies_cleaned=1" in capsys.readouterr().out
    async with opened(path, wrapping=KEY):
        assert "plain_keys_removed" not in capsys.readouterr().out


async def test_a_file_that_cannot_be_scrubbed_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody reads it just then, so that its log cannot be emptied."""
    path = tmp_path / "trust.db"
    async with opened(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM signing_keys").fetchall()
        async with opened(path, wrapping=KEY):
            assert "plain_keys_left" in capsys.readouterr().out
    async with opened(path, wrapping=KEY):
        assert "plain_keys_removed" in capsys.readouterr().out


async def test_a_disk_that_fails_while_wrapping_leaves_plain_keys_that_work(tmp_path: Path) -> None:
    """The transaction is whole or not at all."""
    path = tmp_path / "trust.db"
    async with opened(path):
        pass
    async with Database.open(path, TRUST, name="trust") as db:
        broken = await BrokenCommits(db).begin()
        with pytest.raises(StoreFailed):
            await db.write(lambda connection: signing_keys.wrap_plain(connection, KEY))
        await broken.mend()
        assert not await db.read(signing_keys.leaves_traces)
    async with opened(path) as bench:
        assert kid_of_token(await bench.sign()) == "key-2"


@pytest.mark.parametrize(("given", "said"), [(None, "was not given"), (OTHER, "is not the one")])
async def test_without_the_right_wrapping_key_the_start_fails_and_says_what_to_do(
    tmp_path: Path, given: WrappingKey | None, said: str
) -> None:
    """The credential by name, where it is put, and what to do if it is lost; nothing was changed."""
    path = tmp_path / "trust.db"
    async with opened(path, wrapping=KEY):
        pass
    was = rows(path, "SELECT * FROM signing_keys")
    with pytest.raises(StartFailed, match=said) as caught:
        async with opened(path, wrapping=given):
            pass
    for word in ("edged.wrapping_key", "/etc/credstore", "edged signing-key abandon", str(path)):
        assert word in str(caught.value)
    assert rows(path, "SELECT * FROM signing_keys") == was
    async with opened(path, wrapping=KEY) as bench:
        assert kid_of_token(await bench.sign()) == "key-2"


async def test_an_envelope_of_another_row_is_not_taken(tmp_path: Path) -> None:
    """A private half belongs to its public one, also if somebody exchanges two rows' envelopes."""
    path = tmp_path / "trust.db"
    async with opened(path, wrapping=KEY) as bench:
        await bench.keyring.create(bench.grant, "ES256")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE signing_keys SET private = (SELECT private FROM signing_keys WHERE number = 3) WHERE number = 2"
        )
    with pytest.raises(StartFailed, match="another key"):
        async with opened(path, wrapping=KEY):
            pass


def test_a_lost_wrapping_key_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`edged signing-key abandon`: the next start makes new keys, and what the old ones signed stays good."""
    shell = Shell(monkeypatch, capsys, write_config(tmp_path))
    path = tmp_path / "state" / "trust.db"
    ran = shell.run("signing-key", "abandon")
    assert (ran.code, "there is no database" in ran.err) == (1, True)

    async def make() -> str:
        async with opened(path, wrapping=KEY) as bench:
            return await bench.sign(seconds=48 * HOUR)

    text = trio.run(make)
    assert "2 private keys deleted" in shell.run("signing-key", "abandon").out
    assert shell.run("signing-key", "abandon", "--json").json == {"given_up": 0}
    assert "nothing was done" in shell.run("signing-key", "abandon").out

    async def check() -> None:
        async with opened(path, Time(START + 60), wrapping=OTHER) as bench:
            assert bench.states() == {"key-1": "retired", "key-2": "retired", "key-3": "current", "key-4": "current"}
            assert bench.takes(text)

    trio.run(check)


async def test_plain_keys_are_not_abandoned(tmp_path: Path) -> None:
    """They are not lost."""
    path = tmp_path / "trust.db"
    async with opened(path) as bench:
        assert await bench.db.write(lambda connection: signing_keys.give_up_wrapped(connection, START)) == 0
        assert bench.states() == {"key-1": "current", "key-2": "current"}


async def test_a_distrusted_key_signs_no_more_after_a_crash_in_between(tmp_path: Path) -> None:
    """It was denied, and the power went before another took over: the start makes up for it, for next ones too."""
    path = tmp_path / "trust.db"
    async with opened(path) as bench:
        await bench.keyring.create(bench.grant, "ES256")
    async with opened(path, denied=set(all_named("signing_key:key-2", "signing_key:key-3"))) as bench:
        assert bench.states() == {"key-1": "current", "key-2": "retired", "key-3": "retired", "key-4": "current"}
        assert kid_of_token(await bench.sign()) == "key-4"


@given(st.text(min_size=32, max_size=80))
def test_what_is_wrapped_is_unwrapped_by_the_same_text_only(text: str) -> None:
    """Whatever the text is; a last line end, which an editor adds, makes no other key."""
    stripped = text.removesuffix("\n").removesuffix("\r")
    if len(stripped.encode()) < 32:
        return
    key, private = WrappingKey(text), POOL["ES256"][0]
    envelope = key.wrap(private)
    assert is_wrapped(envelope)
    assert WrappingKey(stripped + "\n").unwrap(envelope) == private
    assert key.wrap(private) != envelope
    with pytest.raises(CannotUnwrap):
        WrappingKey(stripped + "x").unwrap(envelope)


@given(st.binary(max_size=40) | st.text(max_size=60))
def test_whatever_stands_in_the_row_is_an_envelope_or_refused(junk: object) -> None:
    """No other error comes out of a row that somebody damaged."""
    text = junk if isinstance(junk, str) else base64.urlsafe_b64encode(bytes(junk)).decode()  # type: ignore[call-overload]
    if not is_wrapped(text):
        return
    with pytest.raises(CannotUnwrap):
        read_private(text, KEY)


@pytest.mark.parametrize("at", range(5))
def test_a_changed_envelope_is_refused(at: int) -> None:
    """Header, nonce, text and tag are all under the seal; other algorithms are not looked at."""
    parts = write_private(generate("ES256"), KEY).split(".")
    parts[at] = ("B" if parts[at][:1] == "A" else "A") + parts[at][1:]
    with pytest.raises(CannotUnwrap):
        KEY.unwrap(".".join(parts))
    with pytest.raises(CannotUnwrap):
        read_private(write_private(generate("ES256"), KEY), None)


@pytest.mark.parametrize("text", ["", "short", "x" * 31, "x" * 31 + "\n"])
def test_a_short_wrapping_key_is_refused_with_the_way_to_a_good_one(text: str) -> None:
    """The credential by name; the text itself is never told."""
    with pytest.raises(ConfigError, match=r"edged\.wrapping_key is shorter.*openssl rand"):
        WrappingKey(text)
    assert "x" not in repr(WrappingKey("x" * 32))[12:]


def test_the_credential_is_taken_where_systemd_hands_it_over(tmp_path: Path) -> None:
    """By its name; without one, or without credentials at all, keys stay plain."""
    assert load_wrapping_key(None) is None
    assert load_wrapping_key(tmp_path) is None
    (tmp_path / "edged.wrapping_key").write_text(TEXT + "\n")
    assert load_wrapping_key(tmp_path) == TEXT + "\n"
    (tmp_path / "edged.wrapping_key").write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigError, match=r"credential edged\.wrapping_key.*not UTF-8"):
        load_wrapping_key(tmp_path)
