"""systemd: what it hands over is taken, what it wants is told, and without it nothing happens."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edged import systemd
from edged.errors import StartFailed


def test_a_state_reaches_systemd_by_path_and_by_abstract_name(tmp_path: Path) -> None:
    """READY=1 makes the unit active; containers use abstract sockets."""
    abstract = f"edged-test-{os.getpid()}"
    for bound, told in ((str(tmp_path / "notify"), str(tmp_path / "notify")), (f"\0{abstract}", f"@{abstract}")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.settimeout(5)
            ear.bind(bound)
            assert systemd.notify("READY=1\nSTATUS=Größe", {"NOTIFY_SOCKET": told})
            assert ear.recv(100).decode() == "READY=1\nSTATUS=Größe"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1", "@" + "x" * 200])
def test_nobody_to_tell_is_no_error(address: str) -> None:
    """Outside systemd, or with a socket that is gone, notify says that it could not tell."""
    assert systemd.notify("READY=1", {"NOTIFY_SOCKET": address}) is False
    assert systemd.notify("READY=1", {}) is False


def test_the_process_s_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody has to hand it over."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert systemd.credentials_directory() == tmp_path
    assert systemd.credentials_directory({}) is None


def test_the_watchdog_is_fed_at_half_its_time() -> None:
    """As sd_watchdog_enabled(3) advises; a time meant for another process is not ours."""
    assert systemd.watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert systemd.watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 15.0
    for given in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}):
        assert systemd.watchdog_interval(given) is None


def high_fds(*sockets: socket.socket) -> int:
    """Descriptors in a row, away from those in use; the first of them."""
    first = 200
    for offset, each in enumerate(sockets):
        os.dup2(each.fileno(), first + offset, inheritable=True)
        each.close()
    return first


def environ(count: int, names: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}


def test_inherited_sockets_are_found_by_name() -> None:
    """The unix socket that systemd made with a group that the daemon could not give it."""
    first = high_fds(socket.create_server(("127.0.0.1", 0)), *socket.socketpair())
    found = systemd.listen_fds(environ(3, "main:main"), first=first)
    try:
        assert list(found) == ["main", "main.2", "unknown"]
        assert found["main"].getsockname()[0] == "127.0.0.1"
        assert found["main.2"].family is socket.AF_UNIX
        assert not any(each.get_inheritable() for each in found.values())
    finally:
        for each in found.values():
            each.close()


@pytest.mark.parametrize(
    "given",
    [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x", "LISTEN_PID": "self"}],
)
def test_sockets_of_another_process_are_left_alone(given: dict[str, str]) -> None:
    """A child that inherited the variables does not take its parent's descriptors."""
    given = {name: str(os.getpid()) if value == "self" else value for name, value in given.items()}
    assert systemd.listen_fds(given) == {}


def test_a_descriptor_that_is_no_socket_fails_the_start(tmp_path: Path) -> None:
    """The refusal names it, and what was opened before is closed again."""
    good = socket.create_server(("127.0.0.1", 0))
    first = high_fds(good)
    with (tmp_path / "file").open("w") as file:
        os.dup2(file.fileno(), first + 1)
    with pytest.raises(StartFailed, match=r"descriptor 201 \(odd\)"):
        systemd.listen_fds(environ(2, "good:odd"), first=first)
    os.close(first + 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)


def test_a_real_process_takes_its_sockets_from_3_on() -> None:
    """As the service manager passes them: exec with the descriptors in place and LISTEN_PID its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3)\n"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'main'}\n"
            "from edged.systemd import listen_fds\n"
            "found = listen_fds(); print(found['main'].getsockname()[1]); found['main'].close()"
        )
        answer = subprocess.run(
            [sys.executable, "-c", code, str(server.fileno())],
            pass_fds=[server.fileno()], capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert int(answer.stdout) == server.getsockname()[1]


def test_children_get_nothing_that_is_meant_for_us() -> None:
    """A child that told systemd READY=1, or a stray MTX_ setting, would be hard to find."""
    kept = {"PATH": "/bin", "LANG": "C", "MTXX": "1", "NOTIFY": "1", "JOURNAL_STREAM": "1:2"}
    ours = dict.fromkeys(
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
         "CREDENTIALS_DIRECTORY", "MTX_PATHS_X_SOURCE", "RTSP_PROTOCOLS"], "x",
    )  # fmt: skip
    assert systemd.child_environment(kept | ours) == kept


@pytest.mark.parametrize("answer", [True, False])
def test_the_kernel_s_word_on_the_clock_counts_before_timesyncd_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    """Its marker stays when somebody sets the clock by hand; the kernel's flag does not."""
    monkeypatch.setattr(systemd, "_ask_kernel", lambda: answer)
    marker = tmp_path / "synchronized"
    assert systemd.is_clock_synchronized(marker) is answer
    marker.touch()
    assert systemd.is_clock_synchronized(marker) is answer


@pytest.mark.parametrize(
    ("age", "expected"), [(0, True), (4000, True), (-3, True), (4200, False), (-60, False), (2e9, False), (-1e9, False)]
)
def test_where_the_kernel_may_not_be_asked_timesyncd_s_last_word_counts_while_it_is_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, expected: bool
) -> None:
    """Seconds by the very clock in question: after a jump to 2099 or to 1970 the marker is no word for it."""
    monkeypatch.setattr(systemd, "_ask_kernel", lambda: None)
    marker = tmp_path / "synchronized"
    assert not systemd.is_clock_synchronized(marker)
    marker.touch()
    heard = marker.stat().st_mtime
    assert systemd.is_clock_synchronized(marker, now=lambda: heard + age) is expected


def test_the_kernel_s_word_is_the_kernel_s() -> None:
    """Against adjtimex itself, read with a buffer of our own: state 5 or STA_UNSYNC is no."""
    buffer = (ctypes.c_long * 64)()
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(buffer))
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    expected = 0 <= state < 5 and not status & 0x40
    assert systemd._ask_kernel() is expected


def test_a_forbidden_question_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that answers EPERM, or a libc without the call."""

    class Refusing:
        def adjtimex(self, _buffer: object) -> int:
            return -1

    for library in (Refusing(), object()):
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, library=library, **__: library)
        assert systemd._ask_kernel() is None
