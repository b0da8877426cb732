"""`edged recording verify`: what it says and how it exits, without any daemon."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import Ran, Shell
from evidence_helpers import COUNT, Box, Folder

from edged.clock import iso


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("evidence"), Box()).make()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def verify(shell: Shell, *arguments: str | Path) -> Ran:
    return shell.run("recording", "verify", *map(str, arguments))


def test_without_a_key_it_is_about_consistency_only_and_says_so(shell: Shell, folder: Folder) -> None:
    ran = verify(shell, folder.root)
    assert ran.code == 0
    assert "22 files with 22 segments: as they were sealed" in ran.out
    assert f"signed by {', '.join(key.thumbprint for key in folder.box.keys.values())}, not proven whose" in ran.out


def test_a_thumbprint_or_a_jwks_proves_whose_it_is(shell: Shell, folder: Folder, tmp_path: Path) -> None:
    current = folder.box.current
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [{**current.public, "kid": current.kid, "alg": "ES256", "use": "sig"}]}))
    for given in (("--thumbprint", current.thumbprint), ("--jwks", jwks)):
        ran = verify(shell, folder.root, *given)
        assert ran.code == 0, ran.err
        assert "a key that you gave, or that it confirms" in ran.out
        assert "not proven" not in ran.out
        assert verify(shell, folder.root, *given, "--json").json["proven"]
    ran = verify(shell, folder.root, "--thumbprint", "x" * 43)
    assert ran.code == 1
    assert "none of the keys that you gave confirms" in ran.err


def test_the_first_that_is_wrong_is_named_and_the_exit_code_is_1(shell: Shell, folder: Folder) -> None:
    with folder.changed():
        folder.flip(folder.file(9), 3)
        folder.flip(folder.file(3), 3)
        ran = verify(shell, folder.root)
        assert ran.code == 1
        assert ran.err.splitlines()[0] == f"first: changed: {folder.file(3)}: its bytes are not those that were sealed"
        told = verify(shell, folder.root, "--json").json
        assert not told["as_sealed"]
        assert [(each["kind"], each["number"]) for each in told["problems"]] == [("changed", 3), ("changed", 9)]


def test_a_time_range_leaves_the_rest_out(shell: Shell, folder: Folder) -> None:
    with folder.changed():
        folder.flip(folder.file(3), 3)
        began = folder.seals[10].began
        ran = verify(shell, folder.root, "--from", iso(began), "--to", iso(began + 300), "--json")
        assert (ran.code, ran.json["segments"]) == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday"), "is no time"),
        (("--jwks", "/etc/hostname"), "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_told(shell: Shell, folder: Folder, arguments: tuple[str, str], said: str) -> None:
    ran = verify(shell, folder.root, *arguments)
    assert ran.code == 1
    assert said in ran.err


def test_a_file_that_is_not_there_is_a_wrong_command(shell: Shell, tmp_path: Path) -> None:
    assert verify(shell, tmp_path / "none").code == 2


def test_nothing_with_a_seal_is_no_success(shell: Shell, tmp_path: Path) -> None:
    ran = verify(shell, tmp_path)
    assert (ran.code, ran.err) == (1, "edged: nothing with a seal was found\n")
    (tmp_path / "a.mp4").write_bytes(b"x")
    ran = verify(shell, tmp_path)
    assert ran.code == 1
    assert "there is no a.mp4.seal beside it" in ran.err


def test_names_of_files_reach_no_terminal_as_commands(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2J.mp4").write_bytes(b"x")
    assert "\x1b" not in verify(shell, tmp_path).err


@pytest.mark.slow
def test_it_runs_where_nothing_of_edged_runs(folder: Folder) -> None:
    """A process of its own, without any setting, and without the network."""
    command = [sys.executable, "-m", "edged", "recording", "verify", str(folder.root)]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/usr/bin", "LANG": "C.UTF-8"}, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"{COUNT - 2} segments" in ran.stdout


def test_a_digest_of_the_seal_is_of_the_bytes_of_the_file(folder: Folder) -> None:
    assert hashlib.sha256(folder.file(1).read_bytes()).hexdigest() == folder.seals[1].sha256
