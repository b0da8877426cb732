"""scripts/get-mediamtx: only what its checksum confirms is installed, whole, and also without internet."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/get-mediamtx"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armv7", "armv8l": "armv7", "armv6l": "armv6"}
ARCH = MACHINES.get(platform.machine(), "")
#: A version that the script knows no digest of; its default in most of these tests.
VERSION = "1.20.9"
NAME = f"mediamtx_v{VERSION}_linux_{ARCH}.tar.gz"
PROGRAM = b"#!/bin/sh\necho v1.20.9\n"
pytestmark = pytest.mark.skipif(not ARCH, reason=f"no MediaMTX release for {platform.machine()}")


def make_archive(path: Path, program: bytes = PROGRAM, member: str = "mediamtx") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in ((member, program), ("mediamtx.yml", b"{}"), ("LICENSE", b"MIT")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return path


def write_checksums(archive: Path, path: Path | None = None) -> Path:
    """As the release has them: `hash *name`, one line a file."""
    target = path or archive.parent / "checksums.sha256"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    target.write_text(f"{'0' * 64} *mediamtx_v1.20.9_linux_other.tar.gz\n{digest} *{archive.name}\n")
    return target


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder that looks like a release."""
    write_checksums(make_archive(tmp_path / "release" / NAME))
    return tmp_path / "release"


def write_script(folder: Path, **known: str) -> Path:
    """The script with another version by default; `known`: architecture → the digest that it knows of it."""
    text = SCRIPT.read_text()
    assert text.count("\nversion=1.20.1\n") == 1
    text = text.replace("\nversion=1.20.1\n", f"\nversion={VERSION}\n")
    for arch, digest in known.items():
        text = re.sub(rf"1\.20\.1-{arch}\) pinned=[0-9a-f]{{64}} ", f"{VERSION}-{arch}) pinned={digest} ", text)
    script = folder / "get-mediamtx"
    script.write_text(text)
    script.chmod(0o755)
    return script


def run(
    tmp_path: Path, *arguments: str | Path, script: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.run(
        [script or write_script(tmp_path.parent), *arguments, "--to", tmp_path / "bin"],
        env=kept | {"TMPDIR": str(tmp_path)} | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def refused(tmp_path: Path, *arguments: str | Path, script: Path | None = None, **environ: str) -> str:
    """What it says when it installs nothing; and nothing is left behind."""
    before = {path.name for path in tmp_path.iterdir()} | {"bin"}
    done = run(tmp_path, *arguments, script=script, **environ)
    assert done.returncode == 1, done.stdout
    assert not [path for path in (tmp_path / "bin").glob("*") if path.read_bytes() != b"old"]
    assert {path.name for path in tmp_path.iterdir()} <= before
    return done.stderr


def test_a_release_on_disk_is_installed(tmp_path: Path, release: Path) -> None:
    """No network is needed: the folder, or the archive in it, is enough."""
    for source in (release, release / NAME):
        done = run(tmp_path, "--from", source)
        assert done.returncode == 0, done.stderr
        assert f"{tmp_path}/bin/mediamtx is MediaMTX v1.20.9" in done.stdout
        assert (tmp_path / "bin/mediamtx").read_bytes() == PROGRAM
        assert (tmp_path / "bin/mediamtx").stat().st_mode & 0o777 == 0o755
        assert [path.name for path in (tmp_path / "bin").iterdir()] == ["mediamtx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "release"]


@pytest.mark.skipif(ARCH not in ("amd64", "arm64"), reason="the script knows no digest for this machine")
def test_a_known_digest_counts_and_not_what_lies_beside_the_archive(tmp_path: Path, release: Path) -> None:
    """An archive and its checksums from one forger are refused; the known one needs no checksums at all."""
    archive = release / NAME
    other = write_script(tmp_path.parent, **{ARCH: "0" * 64})
    assert "does not match its checksum" in refused(tmp_path, "--from", release, script=other)
    good = write_script(tmp_path.parent, **{ARCH: hashlib.sha256(archive.read_bytes()).hexdigest()})
    (release / "checksums.sha256").unlink()
    done = run(tmp_path, "--from", release, script=good)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_script_as_it_is_shipped_refuses_a_forged_release(tmp_path: Path) -> None:
    """The recommended version, with checksums that fit the forged archive."""
    archive = make_archive(tmp_path / "release" / NAME.replace(VERSION, "1.20.1"))
    write_checksums(archive)
    done = run(tmp_path, "--from", archive.parent, script=SCRIPT)
    if ARCH in ("amd64", "arm64"):
        assert done.returncode == 1
        assert "does not match its checksum" in done.stderr
    else:
        assert "comes from where the archive comes from" in done.stderr


def test_a_checksum_of_the_archives_own_origin_is_told(tmp_path: Path, release: Path) -> None:
    """It shows a broken download, and no forged one; one that was named on purpose is not commented on."""
    assert "comes from where the archive comes from" in run(tmp_path, "--from", release).stderr
    assert run(tmp_path, "--from", release, "--checksums", release / "checksums.sha256").stderr == ""


def test_another_version_is_found_by_its_name(tmp_path: Path) -> None:
    """--version chooses among several in one folder, with or without the v."""
    archive = make_archive(
        tmp_path / "release" / NAME.replace("1.20.9", "1.19.3"), PROGRAM.replace(b"1.20.9", b"1.19.3")
    )
    write_checksums(archive)
    done = run(tmp_path, "--version", "v1.19.3", "--from", archive.parent)
    assert "is MediaMTX v1.19.3" in done.stdout


def test_one_flipped_bit_is_refused_and_the_old_program_stays(tmp_path: Path, release: Path) -> None:
    """What is installed already goes on working."""
    archive = release / NAME
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mediamtx").write_bytes(b"old")
    assert "does not match its checksum" in refused(tmp_path, "--from", release)
    assert (tmp_path / "bin/mediamtx").read_bytes() == b"old"


def test_without_checksums_it_refuses(tmp_path: Path, release: Path) -> None:
    """Neither beside the archive nor named: nobody confirms it."""
    (release / "checksums.sha256").unlink()
    said = refused(tmp_path, "--from", release / NAME)
    assert "no checksums at" in said
    assert "--checksums" in said


def test_checksums_may_be_named(tmp_path: Path, release: Path) -> None:
    """They may have come another way than the archive."""
    elsewhere = write_checksums(release / NAME, tmp_path / "sums")
    (release / "checksums.sha256").unlink()
    assert run(tmp_path, "--from", release / NAME, "--checksums", elsewhere).returncode == 0


def test_checksums_of_another_release_are_refused(tmp_path: Path, release: Path) -> None:
    """A name that is not in the list has no checksum; nor has one whose line is damaged."""
    (release / "checksums.sha256").write_text(f"{'0' * 64} *mediamtx_v1.0.0_linux_{ARCH}.tar.gz\n")
    assert f"{NAME} is not in" in refused(tmp_path, "--from", release)
    (release / "checksums.sha256").write_text(f"xyz *{NAME}\n")
    assert f"{NAME} is not in" in refused(tmp_path, "--from", release)


def test_an_archive_for_another_machine_is_refused(tmp_path: Path, release: Path) -> None:
    """The refusal says what it is for and what is needed here."""
    other = next(arch for arch in MACHINES.values() if arch != ARCH)
    said = refused(tmp_path, "--from", release / NAME.replace(ARCH, other))
    assert f"is for {other}; this machine needs {ARCH}" in said


def test_an_archive_that_is_not_named_like_a_release_is_refused(tmp_path: Path, release: Path) -> None:
    """Its checksum is found by its name."""
    (release / NAME).rename(release / "mediamtx.tar.gz")
    assert "not named like a release" in refused(tmp_path, "--from", release / "mediamtx.tar.gz")


def test_an_archive_without_the_program_is_refused(tmp_path: Path) -> None:
    """Also one in which it is only a link."""
    archive = make_archive(tmp_path / "release" / NAME, member="something-else")
    write_checksums(archive)
    assert "holds no file mediamtx" in refused(tmp_path, "--from", archive)
    with tarfile.open(archive, "w:gz") as changed:
        link = tarfile.TarInfo("mediamtx")
        link.type, link.linkname = tarfile.SYMTYPE, "/bin/true"
        changed.addfile(link)
    write_checksums(archive)
    assert "holds no file mediamtx" in refused(tmp_path, "--from", archive)


def test_a_program_that_does_not_run_is_not_installed(tmp_path: Path) -> None:
    """`mediamtx --version` is asked before it takes the old one's place."""
    archive = make_archive(tmp_path / "release" / NAME, b"#!/bin/sh\necho wrong libc >&2\nexit 3\n")
    write_checksums(archive)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mediamtx").write_bytes(b"old")
    assert "does not run on this machine (wrong libc)" in refused(tmp_path, "--from", archive)


def test_a_missing_archive_is_said_plainly(tmp_path: Path, release: Path) -> None:
    """With its checksums there, and without."""
    (release / NAME).unlink()
    assert "cannot get" in refused(tmp_path, "--from", release)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version", "latest"], "is not X.Y.Z"),
        (["--from"], "needs a value"),
        (["--form", "x"], "unknown argument --form"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], words: str) -> None:
    """And nothing is tried."""
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr


def test_help_shows_every_option() -> None:
    """The head of the script is its manual."""
    shown = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert all(option in shown for option in ("--version", "--from", "--checksums", "--to"))
    assert "set -euo" not in shown


def test_no_network_names_the_way_without(tmp_path: Path) -> None:
    """A port where nobody listens stands for a network that is not there."""
    sums = write_checksums(make_archive(tmp_path / "release" / NAME))
    said = refused(tmp_path, "--from", "http://127.0.0.1:9/release", "--checksums", sums)
    assert "Connection refused" in said
    assert "name that with --from" in said


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path: Path, release: Path) -> None:
    """A file stands where the folder should be: the same for root."""
    (tmp_path / "bin").write_bytes(b"old")
    done = run(tmp_path, "--from", release)
    assert done.returncode == 1
    assert "--to DIR" in done.stderr


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing while tests run."""

    def log_message(self, *arguments: object) -> None:
        """Its parent writes to stderr."""


@pytest.fixture
def served(release: Path) -> Iterator[str]:
    """The release folder by HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(release))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_nothing_is_downloaded_by_a_digest_from_the_same_server(tmp_path: Path, served: str) -> None:
    """As for armv7 and armv6: it says where to get a digest, and the command after that."""
    for source in (served, f"{served}/{NAME}"):
        said = refused(tmp_path, "--from", source)
        assert f"the digest of {NAME} is not known here" in said
        assert f"releases/tag/v{VERSION} with a browser" in said
        assert f"get-mediamtx --version {VERSION} --checksums FILE" in said


def test_a_release_is_downloaded_with_python_alone(tmp_path: Path, release: Path, served: str) -> None:
    """Folder URL or archive URL; a server's 404 is named."""
    sums = release / "checksums.sha256"
    for source in (served, f"{served}/{NAME}"):
        done = run(tmp_path, "--from", source, "--checksums", sums)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "bin/mediamtx").read_bytes() == PROGRAM
        (tmp_path / "bin/mediamtx").unlink()
    assert "HTTP Error 404" in refused(tmp_path, "--from", f"{served}/nowhere", "--checksums", sums)
