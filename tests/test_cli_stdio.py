"""The command line never says done where nothing was done, and loses no secret silently: real processes, real files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fork_server
import msgspec
import pytest
from cli_helpers import running_daemon

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The settings folder of a running daemon."""
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


def run(settings: Path, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    is_plain = not options and all(isinstance(argument, str) for argument in arguments)
    environ = os.environ | {"EDGED_CONFIG_DIR": str(settings), "PYTHONUTF8": "1"} | options.pop("env", {})
    if is_plain:
        return fork_server.run(["-m", "edged", *map(str, arguments)], environ)
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | options
    command = [sys.executable, "-m", "edged", *arguments]
    return subprocess.run(command, env=environ, stderr=subprocess.PIPE, check=False, timeout=60, **given)


def list_keys(settings: Path) -> dict[str, str]:
    """Name → status."""
    found = msgspec.json.decode(run(settings, "key", "list", "--json").stdout)
    return {item["name"]: item["status"] for item in found["keys"]}


@pytest.mark.parametrize(
    "command",
    [
        (b"key", b"create", b"caf\xe9", b"--role", b"viewer"),
        (b"revocation", b"add", b"--yes", b"--subject", b"caf\xe9"),
        (b"token", b"issue", b"caf\xe9"),
        (b"key", b"create", b"a", b"--role", b"viewer", b"--force", b"--camera", b"caf\xe9"),
    ],
)
def test_an_argument_that_is_no_text_is_refused_by_name(settings: Path, command: tuple[bytes, ...]) -> None:
    """In a UTF-8 locale a Latin-1 é is no letter; nothing is asked of the daemon."""
    done = run(settings, *command)
    assert done.returncode in (1, 2)
    assert b"UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_ctrl_c_during_a_call_says_that_it_may_have_been_done(tmp_path: Path) -> None:
    """Exit code 130, and no `null` on standard output."""
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "edged", "key", "revoke", "k", "--json", "--socket", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            connection, _ = listener.accept()
            # It waits for the upgrade.
            connection.recv(4096)
            asking.send_signal(signal.SIGINT)
            out, err = asking.communicate(timeout=30)
            connection.close()
    assert asking.returncode == 130
    assert out == b""
    assert err == b"edged: interrupted: revoke_key was sent and may have been done\n"


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("options", [(), ("--json",), ("--quiet",)])
def test_a_key_whose_secret_cannot_be_written_out_is_revoked_again(
    settings: Path, options: tuple[str, ...], closed: bool
) -> None:
    """A full disk or a closed output: nobody has the secret, so nobody may use the key."""
    name = f"lost {closed} {options}"
    with FULL.open("wb") as full:
        close = {"preexec_fn": lambda: os.close(1)} if closed else {}
        done = run(settings, "key", "create", name, "--role", "viewer", *options, stdout=full, **close)
    assert done.returncode == 1
    assert b"is revoked again" in done.stderr
    assert b"Traceback" not in done.stderr
    assert list_keys(settings)[name] == "revoked"


def test_a_rotated_secret_that_cannot_be_written_out_leaves_the_old_one(settings: Path) -> None:
    """The key is in use: to revoke it would shut out whoever has the old secret."""
    made = msgspec.json.decode(run(settings, "key", "create", "rotated", "--role", "viewer", "--json").stdout)
    with FULL.open("wb") as full:
        done = run(settings, "key", "rotate", made["key_id"], stdout=full)
    assert done.returncode == 1
    assert b"edged key rotate" in done.stderr
    assert list_keys(settings)["rotated"] == "active"


@pytest.mark.parametrize(("closed", "why"), [(False, b"No space left"), (True, b"standard output is closed")])
def test_a_list_that_cannot_be_written_out_is_an_error(settings: Path, closed: bool, why: bytes) -> None:
    """One line and exit code 1."""
    close = {"preexec_fn": lambda: os.close(1)} if closed else {}
    with FULL.open("wb") as full:
        done = run(settings, "key", "list", "--json", stdout=full, **close)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr
    assert why in done.stderr


def test_serve_says_what_in_its_folder_it_does_not_read(tmp_path: Path) -> None:
    """Whoever put a setting into a copy finds the reason in the journal."""
    (tmp_path / "a.toml").write_text("[paths]\nstate = 7\n")
    (tmp_path / "b.toml~").write_text("")
    done = run(tmp_path, "config", "check")
    assert done.returncode == 78
    (tmp_path / "a.toml").write_text(f'[paths]\nstate = "{FULL}"\nruntime = "{FULL}"\n[mediamtx]\nenabled = false\n')
    served = run(tmp_path, "serve")
    assert served.returncode != 0
    assert b"b.toml~ is not read: a backup copy" in served.stderr


@pytest.mark.parametrize(
    "command",
    [("user", "add", "ann", "--role", "viewer", "--password-stdin"), ("user", "add", "ann", "--role", "viewer"),
     ("token", "verify", "-"), ("service-token", "import")],
)  # fmt: skip
def test_a_closed_standard_input_is_a_sentence(settings: Path, command: tuple[str, ...]) -> None:
    """As cron and some containers start programs."""
    done = run(settings, *command, preexec_fn=lambda: os.close(0), stdin=None)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"Error: " in done.stderr


def test_a_password_that_is_no_text_is_a_sentence(settings: Path, tmp_path: Path) -> None:
    """Latin-1 in a UTF-8 locale."""
    file = tmp_path / "password"
    file.write_bytes(b"caf\xe9 and more of it\n")
    with file.open("rb") as stdin:
        done = run(settings, "user", "add", "zoe", "--role", "viewer", "--password-stdin", stdin=stdin)
    assert done.returncode in (1, 2)
    assert b"is not UTF-8 text" in done.stderr


def test_a_byte_order_mark_is_no_part_of_a_password(settings: Path, tmp_path: Path) -> None:
    """Editors of other systems write one; the same password typed elsewhere is the same."""
    file = tmp_path / "password"
    file.write_bytes("\ufeffa long and good password\r\n".encode())
    with file.open("rb") as stdin:
        done = run(settings, "user", "add", "bom", "--role", "viewer", "--password-stdin", stdin=stdin)
    assert done.returncode == 0, done.stderr
    login = {"username": "bom", "password": "a long and good password"}
    client = (
        "import sys, msgspec, trio; from pathlib import Path; from edged.cli.client import call_once\n"
        "made = trio.run(call_once, Path(sys.argv[1]), 'login', msgspec.json.decode(sys.argv[2]))\n"
        "assert made['token']"
    )
    socket_path = settings.parent / "run" / "edged.sock"
    subprocess.run([sys.executable, "-c", client, str(socket_path), msgspec.json.encode(login).decode()], check=True)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_terminal_without_the_letters_shows_escapes(settings: Path, options: tuple[str, ...]) -> None:
    """A Latin-1 terminal and a camera's name in another script."""
    latin = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    assert run(settings, "key", "create", "玄関😀", "--role", "viewer").returncode == 0
    done = run(settings, "key", "list", *options, env=latin)
    assert done.returncode == 0, done.stderr
    assert b"\\u7384" in done.stdout
    if options:
        assert "玄関😀" in {item["name"] for item in msgspec.json.decode(done.stdout)["keys"]}
