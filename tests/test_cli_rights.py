"""`edged key update, suspend, resume, import`, `session` and `revocation`: against a real daemon, and files of keys."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_helpers import SECRET, Shell, running_daemon
from hypothesis import given
from hypothesis import strategies as st

from edged.cli.foreign_keys import BadFile, KeyFile
from edged.credentials.tokens import SharedSecret, issue_claims, sign

SAMPLE = "camera_service_sk_" + "1234567890abcdef" * 4


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Shell:
    return Shell(monkeypatch, capsys, directory)


def record(key: str, role: object = 1, **more: object) -> dict[str, object]:
    """As the service with plain keys wrote them."""
    return {
        "id": "x", "key": key, "role": role, "created_at": "2025-03-01T10:00:00.123456789Z",
        "expires_at": "0001-01-01T00:00:00Z", "description": "", "last_used": "0001-01-01T00:00:00Z",
        "usage_count": 0, "status": "active", **more,
    }  # fmt: skip


def write(path: Path, document: object) -> Path:
    path.write_bytes(msgspec.json.encode(document))
    return path


# --- import -------------------------------------------------------------------------------------------------------


def test_keys_in_plain_text_are_taken_over_and_taken_out_of_the_file(shell: Shell, tmp_path: Path) -> None:
    """They work as they are, with role, name and end; the file keeps its owner and mode, and nothing of them."""
    texts = [f"csk_{name * 43}=" for name in "abc"]
    file = write(
        tmp_path / "api-keys.json",
        {
            "keys": {
                "one": record(texts[0], 3, description="Front desk"),
                "two": record(texts[1], 1, expires_at="2099-01-01T00:00:00+02:00"),
                "gone": record(texts[2], 2, status="revoked"),
            }
        },
    )
    file.chmod(0o600)
    done = shell.run("key", "import", str(file), "--json")
    assert done.code == 0
    assert [(item["source_id"], item["status"]) for item in done.json["keys"]] == [
        ("one", "imported"), ("two", "imported")
    ]  # fmt: skip
    assert msgspec.json.decode(file.read_bytes()) == {"keys": {}}
    assert file.stat().st_mode & 0o777 == 0o600
    ids = {item["source_id"]: item["key_id"] for item in done.json["keys"]}
    first, second = (shell.run("key", "show", ids[name], "--json").json for name in ("one", "two"))
    assert (first["name"], first["role"], first["created_at"], first["expires_at"]) == (
        "Front desk", "admin", "2025-03-01T10:00:00Z", None
    )  # fmt: skip
    assert (second["name"], second["role"], second["expires_at"]) == ("two", "viewer", "2098-12-31T22:00:00Z")


def test_what_cannot_be_taken_stays_in_the_file_and_is_told(shell: Shell, tmp_path: Path) -> None:
    """The guide's sample by name, a short one, an unknown role; what was taken is out of it."""
    keys = {
        "good": record("g" * 40), "sample": record(SAMPLE), "short": record("hunter2"),
        "king": record("k" * 40, "king"), "odd": record("o" * 40, status="paused"),
        "none": {**record(""), "name": "keyless"},
    }  # fmt: skip
    file = write(tmp_path / "api-keys.json", {"keys": keys})
    done = shell.run("key", "import", str(file))
    assert done.code == 1
    assert "sample key, known to everybody" in done.out
    assert "file does not contain its key" in done.out
    assert "5 left" in done.err
    assert "its status is 'paused'" in done.out
    assert msgspec.json.decode(file.read_bytes())["keys"].keys() == keys.keys() - {"good"}
    assert not [text for text in (SAMPLE, "hunter2", "g" * 40) if text in done.out + done.err]
    again = write(tmp_path / "again.json", {"keys": {"good": keys["good"]}})
    report = shell.run("key", "import", str(again), "--json")
    assert (report.code, report.json["keys"][0]["status"], report.json["left_in_file"]) == (0, "known", 0)


def test_what_has_ended_leaves_the_file_however_the_file_says_so(shell: Shell, tmp_path: Path) -> None:
    """By its status, or by an end that is past: neither stays in plain text, and the command is content."""
    keys = {
        "said": record("s" * 40, status="expired"), "late": record("l" * 40, expires_at="2001-01-01T00:00:00Z"),
        "off": {**record("o" * 40), "is_active": False},
    }  # fmt: skip
    file = write(tmp_path / "api-keys.json", {"keys": keys})
    done = shell.run("key", "import", str(file))
    assert (done.code, "emptied" in done.err, "it has expired" in done.out) == (0, True, True)
    assert msgspec.json.decode(file.read_bytes()) == {"keys": {}}
    assert shell.run("key", "import", str(file)).code == 0


def test_a_file_without_key_material_is_reported_and_left_alone(shell: Shell, tmp_path: Path) -> None:
    """The other service never wrote its keys down: each is named, with what a new one has to be like."""
    keys = [
        {"key_id": "abc", "name": "Dock", "role": "viewer", "created_at": "2025-01-01T00:00:00", "is_active": True},
        {"key_id": "def", "name": "Yard", "role": "operator", "created_at": "2025-01-01T00:00:00", "is_active": True},
    ]
    file = write(tmp_path / "api-keys.json", {"version": "1.0", "updated_at": "2025-01-01", "keys": keys})
    before = file.read_bytes()
    done = shell.run("key", "import", str(file))
    assert done.code == 1
    assert "viewer 'Dock'" in done.out
    assert "2 no key" in done.err
    assert "edged key create" in done.err
    assert file.read_bytes() == before


def test_more_keys_than_one_call_takes_are_all_taken(shell: Shell, tmp_path: Path) -> None:
    """In several calls; the file is emptied once."""
    keys = {f"{number}": record(f"many-keys-{number:030}") for number in range(205)}
    done = shell.run("key", "import", str(write(tmp_path / "f.json", {"keys": keys})), "--json")
    assert (done.code, len(done.json["keys"]), done.json["left_in_file"]) == (0, 205, 0)


def test_a_daemon_that_is_not_there_leaves_the_file_alone(shell: Shell, tmp_path: Path) -> None:
    """Exit code 3; nothing was committed, so nothing is emptied."""
    file = write(tmp_path / "f.json", {"keys": {"1": record("x" * 40)}})
    before = file.read_bytes()
    assert shell.run("key", "import", str(file), "--socket", str(tmp_path / "none")).code == 3
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"keys": 5}', b'{"keys": ["x"]}', b"\xff"])
def test_a_file_that_is_no_file_of_keys_is_named(shell: Shell, tmp_path: Path, text: bytes) -> None:
    """Exit code 1 and one line."""
    file = tmp_path / "f.json"
    file.write_bytes(text)
    done = shell.run("key", "import", str(file))
    assert done.code == 1
    assert str(file) in done.err
    assert file.read_bytes() == text


def test_a_link_is_not_followed_and_a_missing_file_is_named(tmp_path: Path) -> None:
    """Whoever owns the folder could otherwise have root empty any file of the system."""
    target = write(tmp_path / "target", {"keys": {}})
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "pipe").mkdir()
    for name in ("link", "missing", "pipe"):
        with pytest.raises(BadFile, match=name), KeyFile.open(tmp_path / name):
            pass


class Interrupted(BaseException):
    """The power goes: nobody tidies up."""


#: Everything that replacing a file asks of the system, in this order but for what asks nothing.
STEPS = ("unlink", "open", "fchown", "fchmod", "fsync", "stat", "rename")


class Failing:
    """The system refuses, or ends, at one of these steps; `power` decides which."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, number: int, *, power: bool) -> None:
        self._power, self._left, self.happened = power, number, False
        for name in STEPS:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name), fails=name == step))

    def _wrap(self, name: str, real: Callable[..., Any], *, fails: bool) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.happened and self._power:
                raise Interrupted
            if fails:
                self._left -= 1
                if self._left == 0:
                    self.happened = True
                    raise Interrupted if self._power else OSError(errno.EIO, os.strerror(errno.EIO), name)
            return real(*args, **options)

        return call


@pytest.mark.parametrize("power", [False, True], ids=["fails", "power"])
@pytest.mark.parametrize(("step", "number"), [*((step, 1) for step in STEPS), ("fsync", 2)])
def test_a_file_is_whole_whatever_becomes_of_taking_keys_out(
    tmp_path: Path, step: str, number: int, power: bool
) -> None:
    """At each step a failing disk, or the end of the power: the file is all that it was or all that it shall be, the
    remedy is said, and done again it is done, with nothing left beside it."""
    keys = {"1": record("x" * 40), "2": record("y" * 40, "king")}
    file = write(tmp_path / "f.json", {"keys": keys, "version": "1"})
    file.chmod(0o640)
    before, after = file.read_bytes(), {"keys": {"2": keys["2"]}, "version": "1"}
    with KeyFile.open(file) as found, pytest.MonkeyPatch.context() as patch:
        failing = Failing(patch, step, number, power=power)
        if power:
            with pytest.raises(Interrupted):
                found.take_out({"1"})
        else:
            with pytest.raises(BadFile, match="keys are imported") as told:
                found.take_out({"1"})
            assert told.value.hint
        assert failing.happened
    if number == 1:
        assert file.read_bytes() == before
    else:
        assert msgspec.json.decode(file.read_bytes()) == after
    assert power or list(tmp_path.iterdir()) == [file]
    with KeyFile.open(file) as found:
        assert found.take_out({"1"} & {item["source_id"] for item in found.keys}) == 1
    assert msgspec.json.decode(file.read_bytes()) == after
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o640, os.getuid())
    if number == 1:
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_new_file_is_its_owners_and_in_its_folder(tmp_path: Path) -> None:
    """Root replaces it and the other service still reads it; a link to the folder is followed and stays one."""
    folder = tmp_path / "real"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    file = write(folder / "f.json", {"keys": {"1": record("x" * 40)}})
    os.chown(file, 4711, 4712)
    file.chmod(0o600)
    with KeyFile.open(tmp_path / "link" / "f.json") as found:
        assert found.take_out({"1"}) == 0
    status = file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (4711, 4712, 0o600)
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in folder.iterdir()] == ["f.json"]


@pytest.mark.parametrize("way", ["written", "replaced", "linked"])
def test_a_file_that_another_changed_meanwhile_is_not_overwritten(tmp_path: Path, way: str) -> None:
    """Keys that came into it since it was read would be lost; nor does a link that came get followed."""
    file = write(tmp_path / "f.json", {"keys": {"1": record("x" * 40)}})
    newer = {"keys": {"1": record("x" * 40), "2": record("y" * 40)}}
    with KeyFile.open(file) as found:
        if way == "written":
            write(file, newer)
        else:
            (tmp_path / "other").write_bytes(msgspec.json.encode(newer))
            file.unlink()
            (file.symlink_to if way == "linked" else (tmp_path / "other").rename)(
                tmp_path / "other" if way == "linked" else file
            )
        with pytest.raises(BadFile, match="changed meanwhile"):
            found.take_out({"1"})
    assert msgspec.json.decode(file.read_bytes()) == newer


def test_one_file_is_imported_by_one_at_a_time(tmp_path: Path) -> None:
    """The second is told to wait; afterwards it may."""
    file = write(tmp_path / "f.json", {"keys": {}})
    with KeyFile.open(file), pytest.raises(BadFile, match="being imported already"), KeyFile.open(file):
        pass
    with KeyFile.open(file):
        pass


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | names, lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
records = st.dictionaries(
    st.sampled_from(["key", "role", "status", "is_active", "name", "id", "key_id", "created_at", "expires_at"]), values
)


@given(st.dictionaries(names, records, max_size=4) | st.lists(records, max_size=4))
def test_any_file_of_records_is_sorted_and_nothing_else_is_taken_out(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, dict[str, object]] | list[dict[str, object]]
) -> None:
    """Each record is handed over, unusable or ended; what is not taken stays as it was."""
    file = write(tmp_path_factory.mktemp("keys") / "f.json", {"keys": keys, "version": "1"})
    with KeyFile.open(file) as found:
        given = {item["source_id"] for item in found.keys}
        assert len(given) + len(found.ended) + len({item["source_id"] for item in found.unusable}) == len(keys)
        assert len(given) == len(found.keys)
        assert found.take_out(set()) == len(keys)
        assert msgspec.json.decode(file.read_bytes()) == {"keys": keys, "version": "1"}
        assert found.take_out(given) == len(keys) - len(given)
    left = msgspec.json.decode(file.read_bytes())["keys"]
    kept, before = (list(each.values()) if isinstance(each, dict) else each for each in (left, keys))
    handed = [item["key"] for item in found.keys]
    assert sorted(handed + [str(each.get("key")) for each in kept]) == sorted(str(each.get("key")) for each in before)


# --- the other commands -------------------------------------------------------------------------------------------


def test_a_key_is_changed_suspended_and_resumed(shell: Shell) -> None:
    """Every option reaches the daemon; those that lift a restriction say the contrary of those that make it."""
    made = shell.run(
        "key", "create", "k", "--role", "viewer", "--read", "camera0", "--publish", "in", "--force", "--json"
    ).json
    key_id = made["key_id"]
    shown = shell.run("key", "show", key_id).out
    assert "camera0" in shown
    changed = shell.run(
        "key", "update", key_id, "--name", "n", "--role", "user", "--expires-in-days", "3", "--camera", "camera1",
        "--force", "--permission", "camera:read", "--camera-streams", "--json",
    ).json  # fmt: skip
    assert (changed["name"], changed["role"], changed["camera_access"], changed["permissions"], changed["streams"]) == (
        "n", "operator", ["camera1"], ["camera:read"], None
    )  # fmt: skip
    assert changed["expires_at"] is not None
    freed = shell.run("key", "update", key_id, "--no-expiry", "--all-cameras", "--all-permissions", "--json").json
    assert (freed["expires_at"], freed["camera_access"], freed["permissions"]) == (None, None, None)
    for contrary in (("--camera", "camera0", "--all-cameras"), ("--no-expiry", "--expires-in-days", "3")):
        assert shell.run("key", "update", key_id, *contrary).code == 2
    assert shell.run("key", "update", key_id).code == 1
    assert shell.run("key", "suspend", key_id).out == f"{key_id} is suspended\n"
    assert key_id in shell.run("key", "list", "--status", "suspended").out
    assert shell.run("key", "resume", key_id).out == f"{key_id} is active\n"
    assert shell.run("key", "resume", key_id, "--json").json["status"] == "active"
    assert shell.run("key", "suspend", "key_0").code == 1


def test_streams_are_listed_with_commas_for_keys_users_and_tokens_alike(shell: Shell) -> None:
    """`--read a,b --read c` is three streams, whoever is to read them."""
    words = ("--read", "a,b", "--read", "c", "--publish", "d,e", "--json")
    key = shell.run("key", "create", "k", "--role", "viewer", "--force", *words).json
    user = shell.run("user", "add", "kim", "--no-password", *words).json
    token = shell.run("token", "issue", "kim", *words).json
    named = {"read": ["a", "b", "c"], "publish": ["d", "e"]}
    assert shell.run("key", "show", key["key_id"], "--json").json["streams"] == user["streams"] == named
    claims = shell.run("token", "verify", token["token"], "--json").json["payload"]
    listed = [(item["action"], item.get("path")) for item in claims["mediamtx_permissions"]]
    assert listed == [(action, path) for action, paths in named.items() for path in paths]


def test_sessions_are_listed_and_ended(shell: Shell) -> None:
    """The command's own session is among them; one that is not there is not found."""
    listed = shell.run("session", "list")
    assert listed.out.splitlines()[0].split()[:2] == ["SESSION", "ID"]
    assert "local:" in listed.out
    (own,) = shell.run("session", "list", "--json", "--limit", "5").json["sessions"]
    assert own["transport"] == "uds"
    assert shell.run("session", "end", own["session_id"]).code == 1


def test_things_are_denied_and_listed(shell: Shell) -> None:
    """A token by its subject; then by lines in time; pages say how many there are."""
    claims = issue_claims("carla", role="viewer", now=1_900_000_000, expires_in=4 * 10**9)
    token = sign({**claims, "iat": 1_500_000_000, "exp": 4_000_000_000}, SharedSecret("clients", SECRET))
    assert shell.run("token", "verify", token).code == 0
    added = shell.run("revocation", "add", "--yes", "--subject", "carla", "--reason", "left the firm")
    assert added.out == "revoked: subject carla\n"
    assert shell.run("token", "verify", token).code == 1
    line = shell.run("revocation", "add", "--yes", "--issuer", "old", "--before", "2020-01-01", "--json").json
    assert (line["issuer"], line["before"]) == ("old", "2020-01-01T00:00:00Z")
    listed = shell.run("revocation", "list")
    assert "subject carla" in listed.out
    assert "issuer old, before 2020-01-01T00:00:00Z" in listed.out
    page = shell.run("revocation", "list", "--limit", "1")
    assert "1 of 2" in page.err
    assert shell.run("revocation", "list", "--offset", "1", "--json").json["total"] == 2
    assert shell.run("revocation", "add").code == 1


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_session_that_is_there_is_ended(shell: Shell, directory: Path, words: tuple[str, ...]) -> None:
    """By its id, after a list too short for it said how many there are; the other end is told."""
    import trio
    from trio_websocket import ConnectionClosed

    from edged.cli.client import connect

    async def stay() -> str:
        async with connect(directory.parent / "run" / "edged.sock") as daemon:
            (mine,) = (await daemon.call("list_sessions"))["sessions"]

            def end() -> str:
                assert "1 of 2" in shell.run("session", "list", "--limit", "1").err
                return shell.run("session", "end", mine["session_id"], *words).out

            told = await trio.to_thread.run_sync(end)
            assert mine["session_id"] in told
            with pytest.raises(ConnectionClosed) as closed:
                await daemon._socket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason is not None
            return str(closed.value.reason.reason)

    assert trio.run(stay) == "session ended"
