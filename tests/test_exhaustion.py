"""What happens when this process has no descriptor left: nothing is taken for a child's fault, and no zombie stays."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_helpers import ENVIRONMENT, eventually, install_standin, is_alive, open_hook, running, supervisor, until
from patience import fail_after
from structlog.testing import capture_logs

from edged.children import spawn
from edged.descriptors import RESERVE, connections_within, raise_limit
from edged.errors import DependencyFailed, OutOfDescriptors
from edged.mediamtx import server_run
from edged.mediamtx.client import ControlApi
from edged.mediamtx.health import is_own_shortage
from edged.mediamtx.server_run import Timing

OPEN = Path("/proc/self/fd")


@contextmanager
def no_descriptor() -> Iterator[None]:
    """In this block whatever needs a descriptor gets EMFILE."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    try:
        most = max(int(each.name) for each in OPEN.iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_own_exhaustion_leaves_a_healthy_mediamtx_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its health cannot be asked for some time; it is neither stopped nor called unhealthy, and viewers go on. The log
    says it once, however often it was tried, and once when it can be asked again."""
    tries = 0

    def note(problem: DependencyFailed) -> bool:
        nonlocal tries
        tries += 1
        return is_own_shortage(problem)

    monkeypatch.setattr(server_run, "is_own_shortage", note)
    folder = install_standin(tmp_path / "bin").parent
    timing = Timing(health_every=0.05, health_within=1.0, stop_grace=0.5)
    with fail_after(30), capture_logs() as logs:
        async with open_hook() as hook:
            server = supervisor(hook, tmp_path / "run", folder / "mediamtx", timing=timing)
            async with running(server.run):
                first = await until(server, "ready")
                with no_descriptor():
                    await eventually(lambda: tries >= 4)
                    assert server.state == first
                asked = len(hook.questions)
                await eventually(lambda: len(hook.questions) > asked + 2)
                assert server.state == first
    said = [line["event"] for line in logs if line["event"].startswith(("health", "unhealthy"))]
    assert said == ["health_not_checked", "health_checked_again"]


async def test_a_call_without_a_socket_says_so() -> None:
    """It is told apart from a MediaMTX that does not answer."""
    client = ControlApi("127.0.0.1", 1, "edged", "secret")
    with pytest.raises(DependencyFailed) as refused:
        await client.info()
    assert not isinstance(refused.value, OutOfDescriptors)
    with no_descriptor(), pytest.raises(OutOfDescriptors, match="Too many open files"):
        await client.info()


async def test_a_child_that_ends_meanwhile_is_no_zombie() -> None:
    """Its end is noticed without a descriptor, and it is reaped."""
    with fail_after(10):
        async with spawn(["sleep", "60"], environment=ENVIRONMENT, landlock=None) as child:
            with no_descriptor():
                child.kill()
                assert await child.wait() == -9
            assert not Path(f"/proc/{child.pid}").exists()


async def test_leaving_the_block_reaps_it_also_then() -> None:
    """Whoever spawned it and fails for want of a descriptor leaves nothing behind."""
    with fail_after(10):
        child = spawn(["sleep", "60"], environment=ENVIRONMENT, landlock=None)
        with no_descriptor():
            async with child:
                pass
        assert not is_alive(child.pid)
        assert not Path(f"/proc/{child.pid}").exists()


async def test_a_child_that_cannot_be_spawned_leaves_no_pipe() -> None:
    """The error is of the family, and as many descriptors are open as before."""
    before = len(list(OPEN.iterdir()))
    with no_descriptor(), pytest.raises(OutOfDescriptors, match="Too many open files"):
        spawn(["sleep", "60"], environment=ENVIRONMENT, landlock=None)
    assert len(list(OPEN.iterdir())) == before


@given(st.integers(1, 2**20), st.integers(1, 100_000))
def test_connections_leave_enough_for_everything_else(limit: int, wanted: int) -> None:
    """Never more than asked for, and at least half of the descriptors, or RESERVE of them, are left."""
    found = connections_within(limit, wanted)
    assert 1 <= found <= wanted
    assert found == 1 or limit - found >= min(RESERVE, limit // 2)


def test_the_defaults_of_systemd_and_of_a_shell_leave_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit of 1,024 is raised to what the hard one allows; where it may not be, fewer connections fit."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 524288))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert raise_limit() == 65536
    assert asked == [(65536, 524288)]
    assert connections_within(65536, 2048) == 2048

    def forbid(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", forbid)
    assert raise_limit() == 1024
    assert connections_within(1024, 2048) == 512
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_limit() >= 65536
