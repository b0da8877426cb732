"""`edged token refresh` and `edged logout`: the token that a user keeps, and who else may read it (S0-18 to S0-21)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_helpers import SECRET, Shell, running_daemon

from edged.cli import token_file
from edged.credentials.tokens import SharedSecret, peek_claims, sign

VARIABLE = "CAMERA_SERVICE_JWT_TOKEN"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One daemon for all of them."""
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def kept(home: Path) -> Path:
    return home / ".camera_service_token"


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path, home: Path) -> Shell:
    return Shell(monkeypatch, capsys, directory)


def make(jti: str, left: float = 600) -> str:
    now = time.time()
    claims = {"sub": "ada", "role": "viewer", "iat": int(now - 60), "exp": int(now + left), "jti": jti}
    return sign(claims, SharedSecret("clients", SECRET))


def test_a_token_is_refreshed_from_wherever_it_is(shell: Shell) -> None:
    """The argument, the environment, a pipe: the new one is printed, and kept nowhere."""
    text = make("anywhere", left=-100)
    found = [
        shell.run("token", "refresh", "-q", text),
        shell.run("token", "refresh", "-q", stdin=text),
        shell.run("token", "refresh", "-q", "-", stdin=text),
    ]
    shell.setenv(VARIABLE, text)
    found.append(shell.run("token", "refresh", "--json"))
    texts = [ran.out.strip() for ran in found[:3]] + [found[3].json["token"]]
    assert [ran.code for ran in found] == [0] * 4
    # The same each time: it is one token.
    assert len(set(texts)) == 1
    assert peek_claims(texts[0])["sub"] == "ada"
    shown = shell.run("token", "refresh")
    assert texts[0] in shown.out
    assert "expires_in" in shown.out
    assert not token_file.path().exists()


def test_a_token_that_is_kept_is_replaced_by_its_successor(shell: Shell, kept: Path) -> None:
    """S0-20: written with mode 0600, whatever the umask; the other commands read it, too."""
    before = os.umask(0)
    try:
        assert shell.run("token", "refresh", "--save", stdin=make("kept")).code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    first = kept.read_text().strip()
    assert peek_claims(first)["jti"] != "kept"
    ran = shell.run("token", "refresh", "--quiet")
    # It is too young to have a successor of its own.
    assert ran.out.strip() == kept.read_text().strip() == first
    assert shell.run("token", "verify").code == 0
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]
    # What is said otherwise comes first, and then what is kept stays.
    assert shell.run("token", "refresh", stdin=make("piped")).code == 0
    assert ran.out.strip() == kept.read_text().strip()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o700 | 0o010])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(shell: Shell, kept: Path, mode: int) -> None:
    """Its token is not used, and not shown."""
    text = make("open")
    kept.write_text(text)
    kept.chmod(mode)
    ran = shell.run("token", "verify")
    assert ran.code == 78
    assert f"(mode {mode:04o})" in ran.err
    assert f"chmod 600 {kept}" in ran.err
    assert text not in ran.out + ran.err


def test_what_is_no_file_of_ones_own_is_not_read(shell: Shell, kept: Path, tmp_path: Path) -> None:
    """A link, a folder, a pipe that nobody writes: one line each, and no waiting."""
    (tmp_path / "elsewhere").write_text(make("elsewhere"))
    kept.symlink_to(tmp_path / "elsewhere")
    assert "cannot be read" in shell.run("token", "verify", "--json").err
    kept.unlink()
    kept.mkdir()
    assert "is not a regular file" in shell.run("token", "verify").err
    kept.rmdir()
    os.mkfifo(kept, 0o600)
    assert "is not a regular file" in shell.run("token", "verify").err


def test_where_there_is_no_token_the_command_says_where_it_looked(shell: Shell) -> None:
    """2, as for every command that was written wrongly."""
    for command in ("verify", "refresh", "revoke"):
        ran = shell.run("token", command)
        assert ran.code == 2
        assert all(name in ran.err for name in (VARIABLE, "~/.camera_service_token", "standard input"))
    assert shell.run("token", "verify", "-").code == 2


def test_of_two_tokens_that_are_named_none_is_revoked(shell: Shell) -> None:
    """1, and that one is to be named: neither is left out without a word."""
    text = make("first")
    for other in (("--jti", "second"), ("--hash", "0" * 64)):
        ran = shell.run("token", "revoke", text, *other)
        assert (ran.code, "exactly one of token, jti, token_hash" in ran.err) == (1, True)
    assert shell.run("token", "verify", text).code == 0


def test_a_token_that_is_not_refreshed_leaves_the_kept_one(shell: Shell, kept: Path) -> None:
    """1, and why."""
    text = make("over", left=-9999)
    token_file.write(text)
    ran = shell.run("token", "refresh")
    assert (ran.code, kept.read_text().strip()) == (1, text)


def test_a_home_that_cannot_be_written_costs_no_token(shell: Shell, kept: Path) -> None:
    """The new one is lost to nobody: asking again gives the same."""
    kept.mkdir()
    ran = shell.run("token", "refresh", "--save", stdin=make("lost"))
    assert ran.code == 78
    assert "cannot be written" in ran.err
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]
    assert "cannot be removed" in shell.run("logout").err
    kept.rmdir()
    assert shell.run("token", "refresh", "--save", stdin=make("lost")).code == 0


def test_logout_forgets_the_token(shell: Shell, kept: Path) -> None:
    """S0-21; what stands in the environment is the shell's own, and said."""
    token_file.write(make("gone"))
    assert shell.run("logout").out == "logged out\n"
    assert not kept.exists()
    shell.setenv(VARIABLE, make("left"))
    again = shell.run("logout")
    assert (again.code, again.out) == (0, "no token was saved\n")
    assert f"unset {VARIABLE}" in again.err
    assert shell.run("logout", "--json").json == {"removed": False, "in_environment": True}


def test_a_token_may_say_more_than_a_role(shell: Shell) -> None:
    """--also and --claim; a claim without a value is written wrongly, one that edged decides by is refused."""
    issued = shell.run(
        "token", "issue", "ada", "--role", "viewer", "--also", "operator", "--claim", "department=north",
        "--claim", 'place={"level": 3}', "--quiet",
    )  # fmt: skip
    claims = peek_claims(issued.out.strip())
    assert (claims["role"], claims["roles"]) == ("viewer", ["operator"])
    assert (claims["department"], claims["place"]) == ("north", {"level": 3})
    assert shell.run("token", "issue", "ada", "--claim", "novalue").code == 2
    assert "exp" in shell.run("token", "issue", "ada", "--claim", "exp=1").err
