"""`edged user` and whose a key is: against a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import planted
import pytest
from cli_helpers import Shell, running_daemon

PASSWORD = "a passphrase for the command line"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Shell:
    return Shell(monkeypatch, capsys, directory)


def test_a_box_without_users_says_how_to_make_one(shell: Shell) -> None:
    """An empty list is no table."""
    ran = shell.run("user", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "edged user add NAME --role admin" in ran.err


def test_a_user_is_made_shown_changed_and_removed(shell: Shell) -> None:
    """From the first line of standard input comes the password; lists show who they are and what they may do."""
    planted.plant(PASSWORD, "a password on standard input")
    made = shell.run(
        "user", "add", "ann", "--role", "user", "--display-name", "Änne", "--camera", "camera0", "--read", "a,b",
        "--read", "c", "--publish", "d", "--password-stdin", stdin=PASSWORD + "\n",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "has_password" in made.out
    shown = shell.run("user", "show", "ann", "--json").json
    assert shown["streams"] == {"read": ["a", "b", "c"], "publish": ["d"]}
    assert (shown["role"], shown["display_name"], shown["camera_access"]) == ("operator", "Änne", ["camera0"])
    changed = shell.run(
        "user", "set", "ann", "--role", "viewer", "--all-cameras", "--camera-streams", "--permission", "camera:read",
        "--disable", "--json",
    )  # fmt: skip
    assert changed.json == shown | {
        "role": "viewer", "camera_access": None, "streams": None, "permissions": ["camera:read"], "disabled": True,
        "effective_permissions": ["camera:read", "stream:read"],
    }  # fmt: skip
    assert shell.run("user", "set", "ann", "--enable", "--all-permissions", "--json").json["permissions"] is None
    line = next(line for line in shell.run("user", "list").out.splitlines() if line.startswith("ann"))
    assert line.split()[:5] == ["ann", "Änne", "viewer", "no", "yes"]
    ran = shell.run("user", "password", "ann", "--password-stdin", stdin=PASSWORD + " again\n")
    assert (ran.code, ran.out) == (0, "ann: password set\n")
    assert shell.run("user", "remove", "ann").out == "ann: user deleted\n"
    gone = shell.run("user", "show", "ann")
    assert (gone.code, "no user 'ann'" in gone.err) == (1, True)


def test_a_user_without_a_password_may_own_keys(shell: Shell) -> None:
    """They are listed by whose they are, and given to somebody else or to nobody."""
    for name in ("bob", "eve"):
        assert shell.run("user", "add", name, "--no-password").code == 0
    assert shell.run("user", "show", "bob", "--json").json["has_password"] is False
    key = shell.run("key", "create", "bob's", "--role", "admin", "--owner", "bob", "--json").json
    assert key["owner"] == "bob"
    assert [item["key_id"] for item in shell.run("key", "list", "--owner", "bob", "--json").json["keys"]] == [
        key["key_id"]
    ]
    assert shell.run("key", "list", "--owner", "eve", "--json").json == {"keys": []}
    assert shell.run("key", "update", key["key_id"], "--owner", "eve", "--json").json["owner"] == "eve"
    assert shell.run("key", "update", key["key_id"], "--no-owner", "--json").json["owner"] is None
    assert shell.run("key", "create", "k", "--role", "viewer", "--owner", "nobody").code == 1
    assert shell.run("key", "update", key["key_id"], "--owner", "eve", "--no-owner").code == 2


def test_a_password_is_asked_for_or_piped_and_never_an_argument(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal the command says what to use; on one it asks twice, without echo."""
    ran = shell.run("user", "add", "kim")
    assert (ran.code, "--password-stdin" in ran.err) == (2, True)
    assert shell.run("user", "add", "kim", "--no-password", "--password-stdin").code == 2
    asked: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append({"text": text, **options})
        return PASSWORD

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr("os.isatty", lambda _fd: True)
    from edged.cli import options

    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)})())
    assert options.ask_password(from_stdin=False) == PASSWORD
    assert asked == [{"text": "Password", "hide_input": True, "confirmation_prompt": True, "err": True}]


@pytest.mark.parametrize("password", ["", "short", "12345678", "password123", "kim" * 400])
def test_a_password_that_nobody_should_have_is_refused(shell: Shell, password: str) -> None:
    """With what is wrong with it, and without saying it."""
    ran = shell.run("user", "add", "kim", "--password-stdin", stdin=password + "\n")
    assert ran.code == 1
    assert "password" in ran.err
    if len(password) > 5:
        assert password not in ran.err
    assert shell.run("user", "show", "kim").code == 1


def test_options_that_contradict_each_other_are_no_command(shell: Shell) -> None:
    """Nothing is asked of the daemon."""
    for pair in (("--camera", "camera0", "--all-cameras"), ("--read", "a", "--camera-streams")):
        assert shell.run("user", "set", "ann", *pair).code == 2


def test_the_demos_user_has_the_password_of_the_example(shell: Shell) -> None:
    """Once; a second time there is one already."""
    assert shell.run("user", "demo-login", "--json").json["role"] == "viewer"
    again = shell.run("user", "demo-login")
    assert (again.code, "there is a user 'demo'" in again.err) == (1, True)
