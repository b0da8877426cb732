"""`edged config`, `version`, `serve` and `demo` as far as they go without a running daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cli_helpers import SECRET, Shell, write_config
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import edged
from edged.config.model import Config


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Shell:
    return Shell(monkeypatch, capsys, directory)


def test_good_settings_are_called_good(shell: Shell, tmp_path: Path) -> None:
    """Exit code 0; --json says what was found; a folder that is not there is mentioned."""
    assert shell.run("config", "check").out == "the settings are valid\n"
    found = shell.run("config", "check", "--json").json
    assert found == {
        "ok": True, "cameras": 1, "shared_secrets": ["clients"], "policies": {}, "warnings": [], "not_read": {},
    }  # fmt: skip
    none = shell.run("config", "check", "--directory", str(tmp_path / "none"))
    assert none.code == 0
    assert "does not exist" in none.err


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("/srv/recordings", "ReadWritePaths=-/srv/recordings in [Service]"),
        ("/home/ann/recordings", "ReadWritePaths=-/home/ann/recordings and ProtectHome=no"),
        ("/var/tmp/recordings", "ReadWritePaths=-/var/tmp/recordings and PrivateTmp=no"),
    ],
)
def test_a_folder_where_the_unit_may_not_write_is_a_warning(
    shell: Shell, directory: Path, folder: str, says: str
) -> None:
    (directory / "z.toml").write_text(f"[recording]\nfolder = '{folder}'\n")
    ran = shell.run("config", "check")
    assert (ran.code, ran.out) == (0, "the settings are valid\n")
    assert says in ran.err
    assert "snapshots.folder" not in ran.err


def test_a_medium_that_is_not_there_is_a_warning(shell: Shell, directory: Path) -> None:
    (directory / "z.toml").write_text("[recording]\nremovable = true\n")
    (warning,) = shell.run("config", "check", "--json").json["warnings"]
    assert "there is no medium at" in warning
    assert ".edged-medium" in warning


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limits]\nconections = 5\n", ("limits.conections", "limits.connections", "z.toml line 2")),
        ("[limits]\nconnections = 0\n", ("limits.connections",)),
        ("[[camera]]\nname = 'x'\n", ("source",)),
        ("nonsense", ("z.toml",)),
    ],
)
def test_bad_settings_are_78_with_file_key_and_remedy(
    shell: Shell, directory: Path, text: str, says: tuple[str, ...]
) -> None:
    """One line that says where to look; the same from `serve`."""
    (directory / "z.toml").write_text(text)
    for command in (("config", "check"), ("config", "show"), ("serve",)):
        ran = shell.run(*command)
        assert (ran.code, ran.out) == (78, "")
        assert all(word in ran.err for word in says)
        assert "Traceback" not in ran.err


@pytest.mark.parametrize("secret", ["short", "your-secret-key-change-in-production"])
def test_a_bad_shared_secret_is_found_before_the_start(shell: Shell, directory: Path, secret: str) -> None:
    """Too short, or printed in a guide: refused, and not repeated."""
    (directory.parent / "secret").write_text(secret)
    ran = shell.run("config", "check")
    assert ran.code == 78
    assert "openssl rand" in ran.err
    assert secret not in ran.err.replace("shorter", "")


def test_a_key_pair_s_file_is_no_shared_secret(shell: Shell, directory: Path) -> None:
    """Neither half: whoever sees the public one would be an administrator. No line of code is shown."""
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data in (public, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public[:200]):
        (directory.parent / "secret").write_bytes(data)
        checked = shell.run("config", "check")
        # The daemon has a process of its own: it sets up signals and the log for good.
        served = subprocess.run(
            [sys.executable, "-m", "edged", "serve", "--directory", str(directory)], capture_output=True, text=True
        )
        assert (checked.code, served.returncode, checked.out, served.stdout) == (78, 78, "", "")
        for told in (checked.err, served.stderr):
            assert "shared secret 'clients' is a key or a certificate in PEM" in told
            assert "openssl rand -base64 32" in told
            assert not [word for word in ("Traceback", "Warning", "MII", "BEGIN") if word in told]


def test_a_secret_that_others_may_read_is_refused(shell: Shell, directory: Path) -> None:
    """With the command that mends it."""
    (directory.parent / "secret").chmod(0o644)
    ran = shell.run("config", "check")
    assert ran.code == 78
    assert "chmod 600" in ran.err


def test_the_settings_in_force_are_shown_without_secrets(shell: Shell, directory: Path) -> None:
    """Files and environment together, as TOML or JSON; passwords in camera addresses are masked."""
    (directory / "z.toml").write_text("[[camera]]\nname = 'yard'\nsource = 'rtsp://me:hunter2@192.0.2.9/s'\n")
    shell.setenv("EDGED_LIMITS_CONNECTIONS", "77")
    shown = shell.run("config", "show")
    assert tomllib.loads(shown.out)["limits"]["connections"] == 77
    structured = shell.run("config", "show", "--json")
    assert structured.json["limits"]["connections"] == 77
    for text in (shown.out, structured.out):
        assert "hunter2" not in text
        assert SECRET not in text
        assert "192.0.2.9" in text


def test_version_is_said_in_three_ways(shell: Shell) -> None:
    """As a command, as an option, and for programs."""
    assert shell.run("version").out.startswith(f"edged {edged.__version__} ")
    assert shell.run("--version").out == f"edged {edged.__version__}\n"
    assert shell.run("version", "--json").json["version"] == edged.__version__


def test_every_command_has_help(shell: Shell) -> None:
    """For operators there is no other documentation."""
    for arguments in ([], ["serve"], ["demo"], ["key"], ["key", "create"], ["token", "verify"], ["config", "show"]):
        ran = shell.run(*arguments, "--help")
        assert ran.code == 0
        assert len(ran.out.splitlines()) > 5


def test_serve_and_demo_hand_over_and_keep_the_exit_code(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gets the settings that were read; what it returns is what the shell sees."""
    from edged import app
    from edged.cli import demo

    seen = []

    def serve(config: Config, _load: object) -> int:
        seen.append(config.limits.connections)
        return 5

    monkeypatch.setattr(app, "main", serve)
    monkeypatch.setattr(demo, "main", lambda *, once: 6 if once else 7)
    shell.setenv("EDGED_LIMITS_CONNECTIONS", "78")
    assert shell.run("serve").code == 5
    assert seen == [78]
    assert shell.run("demo", "--once").code == 6
    assert shell.run("demo").code == 7


def test_asking_does_not_import_the_daemon() -> None:
    """`edged key list` on a Pi does not wait for the web, the cameras or the databases to be imported."""
    heavy = ("starlette", "pyudev", "sqlite_utils", "prometheus_client", "joserfc", "edged.app", "edged.operations")
    program = (
        "import sys; import edged.cli.main, edged.cli.client; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_module_runs_as_a_program() -> None:
    """`python -m edged` is `edged`."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ran = subprocess.run(
        [sys.executable, "-m", "edged", "version"], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("edged ")


def test_settings_that_may_not_be_read_are_no_obstacle_to_the_socket(shell: Shell, directory: Path) -> None:
    """A member of edged-admin who may not see the cameras' passwords asks where the socket always is.

    What reads the settings themselves says that it cannot; an unreadable folder is not an empty one.
    """
    root = os.geteuid() == 0
    directory.chmod(0)
    if root:
        os.seteuid(65534)
    try:
        asked, checked = shell.run("key", "list"), shell.run("config", "check")
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o700)
    assert asked.code == 3
    assert "/run/edged/edged.sock" in asked.err
    assert checked.code == 78
    assert "cannot be read (Permission denied): run this as root" in checked.err
