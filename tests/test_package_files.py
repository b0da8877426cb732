"""The Debian package's files agree with the project; scripts/test --deb tries the package itself."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

import edged
from edged.accounts.first_admin import CONSOLE
from edged.credentials.wrapping import CREDENTIAL
from edged.descriptors import WANTED

ROOT = Path(__file__).parent.parent
DEBIAN = ROOT / "packaging/debian"
#: Debian's name where it is not python3-NAME.
NAMES = {"argon2-cffi": "python3-argon2", "sqlite-utils": "sqlite-utils"}


def read_unit(name: str) -> list[str]:
    return (DEBIAN / name).read_text().splitlines()


def test_dependencies_and_their_limits_are_those_of_pyproject() -> None:
    """dh_python3 takes limits from control alone: a new dependency has to be written in both."""
    wanted = set()
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        name, _, limit = requirement.partition(">=")
        wanted.add((NAMES.get(name, f"python3-{name}"), limit))
    found = set(re.findall(r"^ (\S+) \(>= (\S+)\),$", (DEBIAN / "control").read_text(), re.MULTILINE))
    assert found == wanted


def test_changelog_and_program_have_one_version() -> None:
    """What `apt` shows is what `edged version` says."""
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"edged ({edged.__version__}) trixie;")


def test_every_installed_file_is_there() -> None:
    """A file that moved is missed here, not on somebody's box."""
    for line in read_unit("edged.install"):
        source, target = line.split()
        assert (ROOT / source).is_file()
        assert target.startswith("usr/share/edged")


def test_no_link_of_roots_leads_into_a_folder_of_edgeds() -> None:
    """agetty follows it as root: the file that it shows stands in a folder of root's, and edged writes it in place."""
    lines = [line.split() for line in read_unit("edged.tmpfiles") if line and not line.startswith("#")]
    assert not [line for line in lines if line[0].startswith("L")]
    assert ["f", str(CONSOLE), "0600", "edged", "edged", "-"] in lines
    assert f"ReadWritePaths=-{CONSOLE}" in read_unit("edged.service")
    assert str(CONSOLE) in (DEBIAN / "edged.postrm").read_text()


def test_the_unit_sees_what_is_mounted_after_its_start() -> None:
    """systemd lets mounts of the system into a service's namespace unless MountFlags= says otherwise."""
    unit = read_unit("edged.service")
    assert "PrivateMounts=yes" in unit
    assert not [line for line in unit if line.startswith("MountFlags=")]


def test_the_unit_leaves_descriptors_for_viewers_and_no_core() -> None:
    """As many as the daemon asks for itself; what it held in memory is written nowhere when it crashes."""
    unit = read_unit("edged.service")
    assert f"LimitNOFILE={WANTED}" in unit
    assert "LimitCORE=0" in unit


def test_the_socket_is_not_in_a_folder_that_a_restart_removes() -> None:
    """RuntimeDirectory= of the same name would take it away (contract 10.2)."""
    service, socket = read_unit("edged.service"), read_unit("edged.socket")
    folder = next(line.partition("=")[2] for line in service if line.startswith("RuntimeDirectory="))
    path = next(line.partition("=")[2] for line in socket if line.startswith("ListenStream="))
    assert path == "/run/edged/edged.sock"
    assert not path.startswith(f"/run/{folder}/")
    assert f"Environment=EDGED_PATHS_RUNTIME=/run/{folder}" in service
    assert "FileDescriptorName=unix" in socket


@pytest.mark.parametrize("script", ["build-deb", "debian-root", "test-deb", "test-vm", "provision"])
def test_scripts_can_be_read_by_bash(script: str) -> None:
    """They run rarely, and as root. Bash exits with 0."""
    subprocess.run(["bash", "-n", ROOT / "scripts" / script], check=True)


def test_the_build_folder_has_what_the_control_file_wants() -> None:
    """A new dependency is written in one place: what is built in there, and the suite that runs in there, have it."""
    control = (DEBIAN / "control").read_text()
    wanted = re.findall(r"^ ([^\s,]+)", control[: control.index("Standards-Version")], re.MULTILINE)
    script = ". scripts/debian-root; debian_root() { printf '%s\\n' \"$@\"; }; debian_shop"
    done = subprocess.run(["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"python3-hatchling", "python3-trio"} <= set(wanted) <= set(done.stdout.split())


def test_where_a_script_stands_is_where_the_remedy_says() -> None:
    """A user of the package is told a path that exists."""
    # The package that is imported: it may be the installed one.
    source = (Path(edged.__file__).parent / "mediamtx/server_run.py").read_text()
    assert '"/usr/share/edged/scripts/get-mediamtx"' in source
    assert "scripts/get-mediamtx usr/share/edged/scripts" in read_unit("edged.install")


def test_what_is_handed_over_under_our_name_reaches_the_daemon() -> None:
    """The unit imports every credential of ours: the wrapping key of the signing keys, and shared secrets."""
    assert "ImportCredential=edged.*" in read_unit("edged.service")
    assert CREDENTIAL == "edged.wrapping_key"
    assert CREDENTIAL in (ROOT / "docs/settings.md").read_text()


@pytest.mark.parametrize(
    ("result", "code", "pauses"),
    [("signal", "KILL", False), ("watchdog", "ABRT", False), ("oom-kill", "KILL", False), ("success", "0", False),
     ("exit-code", "70", False), ("exit-code", "78", False), ("exit-code", "1", True)],
)  # fmt: skip
def test_only_after_a_failed_start_the_unit_waits(tmp_path: Path, result: str, code: str, pauses: bool) -> None:
    """systemd's own pause is short, and does not grow (RestartSteps=), however often it is ended."""
    unit = read_unit("edged.service")
    assert "RestartSec=100ms" in unit
    assert not any(line.startswith("RestartSteps") for line in unit)
    (line,) = (line.removeprefix("ExecStopPost=-") for line in unit if line.startswith("ExecStopPost=-/bin/sh"))
    program, option, script = shlex.split(line.replace("$$", "$"))
    waiting = tmp_path / "sleep"
    waiting.write_text("#!/bin/sh\nexit 9\n")
    waiting.chmod(0o755)
    environment = {"PATH": str(tmp_path), "SERVICE_RESULT": result, "EXIT_STATUS": code}
    done = subprocess.run([program, option, script], env=environment, check=False)
    assert done.returncode == (9 if pauses else 0)
