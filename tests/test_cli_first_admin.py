"""`edged claim`: the first administrator, by a command on the box."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli_helpers import Shell, running_daemon
from planted import plant

ROOT = Path(__file__).parent.parent
PASSWORD = plant("a long passphrase for the claim", "the administrator's password")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Path]:
    """The folder of a new box that runs."""
    with running_daemon(tmp_path):
        yield tmp_path


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], box: Path) -> Shell:
    return Shell(monkeypatch, capsys, box / "conf.d")


def code_of(box: Path) -> str:
    return plant((box / "run" / "claim").read_text().strip(), "the claim code")


def answer(box: Path, *answers: tuple[str, str]) -> tuple[int, str]:
    """`edged claim` on a terminal of its own: what is typed at which prompt; exit code and all that was shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edged", "claim", "--directory", str(box / "conf.d")]
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT
    )
    os.close(theirs)
    shown = ""
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        for prompt, text in (*answers, ("", "")):
            seen = len(shown)
            with suppress(OSError):  # what a terminal says when nobody is at its other end any more
                while not prompt or prompt not in shown[seen:]:
                    data = terminal.read(4096)
                    if not data:
                        break
                    shown += data.decode()
            if prompt:
                terminal.write(f"{text}\n".encode())
        return process.wait(60), shown


def test_on_a_terminal_a_name_and_a_password_are_asked_for(shell: Shell, box: Path) -> None:
    """The password twice and without echo; then the box has an administrator, and says so before it asks again."""
    code = code_of(box)
    ended, shown = answer(
        box, ("User name: ", "ada"), ("Password: ", PASSWORD), ("Repeat for confirmation: ", PASSWORD)
    )
    assert ended == 0, shown
    assert "ada is an administrator now" in shown
    assert PASSWORD not in shown
    again = shell.run("claim", stdin="eve\n")
    assert again.code == 1
    assert again.err.startswith("edged: ")
    assert "there is an administrator already" in again.err
    assert "User name" not in again.err
    assert code not in (log := (box / "log").read_text())
    assert "no administrator yet" in log


def test_a_script_gives_the_password_on_its_input(shell: Shell) -> None:
    """Nothing of it stands in the process list; the answer is JSON."""
    done = shell.run("claim", "--username", "ada", "--password-stdin", "--json", stdin=f"{PASSWORD}\n")
    assert done.json == {"username": "ada", "role": "admin"}


def test_who_may_open_the_socket_needs_no_code(shell: Shell, box: Path) -> None:
    """As somebody in the group edged-admin, who may not read the file; nor once strangers have used the code up."""
    (box / "run" / "claim").unlink()
    done = shell.run("claim", "--password-stdin", "--username", "ada", stdin=f"{PASSWORD}\n")
    assert done.code == 0, done.err


def test_another_code_ends_the_one_before(shell: Shell, box: Path) -> None:
    """It is shown to who may read it; the daemon tells only where it is."""
    before = code_of(box)
    told = shell.run("claim", "--new", "--json").json
    assert told["path"] == str(box / "run" / "claim")
    now = (box / "run" / "claim").read_text().strip()
    assert now != before
    assert now not in str(told)
    shown = shell.run("claim", "--new").out
    assert (box / "run" / "claim").read_text().strip() in shown
    assert now not in shown


def test_another_code_and_an_administrator_are_not_asked_for_in_one_breath(shell: Shell, box: Path) -> None:
    """The name would be dropped without a word; the code stays as it was."""
    before = code_of(box)
    told = shell.run("claim", "--new", "--username", "ada")
    assert (told.code, "omit --username" in told.err) == (2, True)
    assert code_of(box) == before


def test_a_password_that_would_be_guessed_is_refused_and_the_code_stays_good(shell: Shell) -> None:
    """The remedy is another password, not another code."""
    told = shell.run("claim", "--username", "ada", "--password-stdin", stdin="password123\n")
    assert told.code == 1
    assert "tried first" in told.err
    assert shell.run("claim", "--username", "ada", "--password-stdin", stdin=f"{PASSWORD}\n").code == 0
