"""A start with databases of an older schema: they are migrated, and the program executes itself again."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cli_helpers import Shell, wait_for_socket, write_config

from edged.credentials.api_keys import mint_key_id, mint_secret
from edged.daemon.upgrade import needs_upgrade
from edged.store.migrating import migrate, schema_version
from edged.store.migrations import TRUST, USAGE, Migrations

ROOT = Path(__file__).parent.parent
#: A daemon that says at its end, on standard output, whether it has imported sqlite-utils.
PROGRAM = """
import atexit, os, sys
from pathlib import Path
from edged import app
from edged.config.load import load
print("began", os.getpid(), flush=True)
atexit.register(lambda: print("sqlite_utils" in sys.modules, flush=True))
sys.exit(app.main(load(Path(sys.argv[1]))))
"""


def make_database(path: Path, migrations: Migrations) -> None:
    """A file as the edged with these migrations left it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, migrations)


def find_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return schema_version(connection)


@contextmanager
def serving(folder: Path, directory: Path, *, command: list[str] | None = None, **environ: str) -> Iterator[list[str]]:
    """The program as a child that serves while the block runs; its process id, and afterwards what it printed."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    lines: list[str] = []
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [*(command or []), sys.executable, str(program), str(directory)],
            cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT), **environ}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, pass_fds=[3] if command else [],
        )  # fmt: skip
    try:
        wait_for_socket(folder / "run" / "edged.sock", daemon, folder / "log")
        lines.append(str(daemon.pid))
        yield lines
        daemon.send_signal(signal.SIGTERM)
        said, _ = daemon.communicate(timeout=60)
        assert daemon.returncode == 0, (folder / "log").read_text()
        lines += said.decode().splitlines()
    finally:
        daemon.kill()
        daemon.communicate()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, write_config(tmp_path))


def outcome(lines: list[str]) -> tuple[list[str], bool]:
    """The process ids with which the program began, and whether the one that served had imported sqlite-utils."""
    said = [line for line in lines[1:] if line.startswith("began ") or line in ("True", "False")]
    return [line.removeprefix("began ") for line in said[:-1]], said[-1] == "True"


@pytest.mark.slow
def test_a_start_with_an_old_schema_migrates_and_serves_without_sqlite_utils(tmp_path: Path, shell: Shell) -> None:
    """The program begins twice with one process id; what stood in the old file is there, and a backup of it."""
    state = tmp_path / "state"
    path = state / "trust.db"
    make_database(path, TRUST[:2])
    secret, digest = mint_secret()
    key_id = mint_key_id()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO api_keys (key_id, name, role, digest, created_at) VALUES (?, ?, ?, ?, ?)",
            (key_id, "old", "viewer", digest, 1.0),
        )
        connection.execute("INSERT INTO revocations VALUES ('jti:gone', 'leaked', 1.0, NULL)")
    with serving(tmp_path, tmp_path / "conf.d") as lines:
        (found,) = shell.run("key", "list", "--json").json["keys"]
        assert (found["key_id"], found["name"]) == (key_id, "old")
        assert shell.run("revocation", "list", "--json").json["total"] == 1
    pids, imported = outcome(lines)
    assert pids == [lines[0], lines[0]]
    assert not imported
    assert find_version(path) == len(TRUST)
    assert [each.name.split("-")[2] for each in (state / "backups").iterdir()] == ["schema2"]
    log = (tmp_path / "log").read_text()
    assert "databases_migrated" in log
    assert secret not in log


@pytest.mark.slow
def test_a_start_with_a_current_schema_and_one_with_none_import_nothing_of_sqlite_utils(
    tmp_path: Path, shell: Shell
) -> None:
    """Neither the first start, which makes the databases, nor the next one begins twice."""
    for _ in range(2):
        with serving(tmp_path, tmp_path / "conf.d") as lines:
            assert shell.run("status").code == 0
        assert outcome(lines) == ([lines[0]], False)


@pytest.mark.slow
def test_no_operation_imports_sqlite_utils(tmp_path: Path) -> None:
    """Each that there is, asked by an administrator with params that are good, in a process of its own."""
    program = (
        "import sys, pytest; "
        "code = pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'what_the_table_says and admin', "
        f"'--basetemp={tmp_path}/base', 'tests/test_operations_matrix.py']); "
        "print('imported', 'sqlite_utils' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert done.stdout.splitlines()[-1] == "imported False"


@pytest.mark.slow
def test_what_systemd_passed_is_kept_when_the_program_executes_itself(tmp_path: Path, shell: Shell) -> None:
    """The listening socket is still there, and READY=1 and the watchdog come from the process that systemd started."""
    make_database(tmp_path / "state/trust.db", TRUST[:4])
    make_database(tmp_path / "state/usage.db", USAGE[:1])
    (tmp_path / "run").mkdir()
    path = tmp_path / "run/edged.sock"
    saved = os.dup(3) if Path("/proc/self/fd/3").exists() else None
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listener.bind(str(path))
        listener.listen()
        notified.bind(str(tmp_path / "notify"))
        notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notified.settimeout(20)
        os.dup2(listener.fileno(), 3, inheritable=True)
        try:
            begin = ["/bin/sh", "-c", 'LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"', "sh"]
            with serving(
                tmp_path, tmp_path / "conf.d", command=begin, LISTEN_FDS="1", LISTEN_FDNAMES="unix",
                NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000",
            ) as lines:  # fmt: skip
                told: dict[str, int] = {}
                while not {"READY=1", "WATCHDOG=1"} <= told.keys():
                    data, credentials, *_ = notified.recvmsg(4096, 256)
                    pid = int.from_bytes(credentials[0][2][:4], sys.byteorder)
                    told.update(dict.fromkeys(data.decode().splitlines(), pid))
                assert shell.run("status").code == 0
        finally:
            if saved is None:
                os.close(3)
            else:
                os.dup2(saved, 3)
                os.close(saved)
    pids, imported = outcome(lines)
    assert pids == [lines[0], lines[0]]
    assert not imported
    assert "STATUS=migrating the databases" in told
    assert set(told.values()) == {int(lines[0])}


@pytest.mark.slow
def test_an_old_file_that_cannot_be_migrated_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """Exit code 1, what is missing, what to do; the file is as it was, and the program did not begin anew."""
    directory = write_config(tmp_path)
    path = tmp_path / "state/trust.db"
    make_database(path, TRUST[:3])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP INDEX signing_key_states")
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(directory)], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("began") + done.stderr.count("began ") == 1
    said = done.stdout + done.stderr
    assert "it says schema 3 and has not index on signing_keys (algorithm, state)" in said
    assert "Traceback" not in said
    assert find_version(path) == 3


def test_only_an_older_schema_needs_an_upgrade(tmp_path: Path) -> None:
    """None where there is no database, an empty or foreign file, one that is up to date, or a newer one."""
    assert not needs_upgrade(tmp_path)
    path = tmp_path / "trust.db"
    for content in (b"", b"SQLite", b"no database at all" * 10):
        path.write_bytes(content)
        assert not needs_upgrade(tmp_path)
    path.unlink()
    make_database(path, TRUST)
    make_database(tmp_path / "usage.db", USAGE)
    assert not needs_upgrade(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        for number, expected in ((len(TRUST) + 1, False), (-1, False), (0, False), (1, True)):
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert needs_upgrade(tmp_path) is expected
