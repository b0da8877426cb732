"""MediaMTX, the encoders and the pictures: the settings → everything that makes streams."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from edged import children
from edged.access.ledger import Ledger
from edged.config.model import Config
from edged.daemon.spawns import Spawns
from edged.library.pre_roll_files import PreRollFiles
from edged.library.recording_files import RecordingFiles
from edged.mediamtx.addresses import join_address, reach
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.ffmpeg import find_ffmpeg, remove_leftovers
from edged.mediamtx.frames import Frames
from edged.mediamtx.paths import Paths
from edged.mediamtx.process import Supervisor
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.settings import USER
from edged.mediamtx.source_checks import SourceChecks
from edged.mediamtx.stills import Stills
from edged.mediamtx.viewers import Viewers
from edged.metrics import Metrics
from edged.net.hook import serve_hook


class Hook:
    """The listener that MediaMTX asks: 127.0.0.1, a port that the kernel picks, and a path that nobody can guess
    (architecture 6)."""

    def __init__(self) -> None:
        self._path = f"/{secrets.token_urlsafe(24)}"
        self._port = 0

    @property
    def url(self) -> str:
        """Where MediaMTX asks; its port is known once `serve` has started."""
        return f"http://127.0.0.1:{self._port}{self._path}"

    async def serve(self, answer: Callable[[bytes], tuple[int, bytes]], task_status: trio.TaskStatus[None]) -> None:
        """Answer until cancelled; reports `started` once it listens."""
        async with trio.open_nursery() as nursery:
            self._port = await nursery.start(partial(serve_hook, answer, path=self._path))
            task_status.started()


class PublishedUrls:
    """Where edged itself reads a camera that is being published.

    `publishers` is set when they are made: they must be able to take a camera away from the pictures, and the pictures
    must know which cameras are published.
    """

    def __init__(self, mediamtx: Supervisor, ledger: Ledger) -> None:
        self._mediamtx = mediamtx
        self._ledger = ledger
        self.publishers: Publishers | None = None

    def find(self, name: str) -> str | None:
        """An rtsp:// URL whose password is good for one DESCRIBE and one SETUP.

        None for a camera that is not being published: a picture straight from the source is there sooner, and starts
        no encoder.
        """
        address = rtsp_address(self._mediamtx)
        if address is None or self.publishers is None or not self.publishers.is_active(name):
            return None
        return f"rtsp://{USER}:{self._ledger.child_secrets.make(name, 'read', 2)}@{address}/{name}"


class Media(msgspec.Struct, frozen=True):
    """MediaMTX and what stands around it; nothing runs yet. `spawn` starts children, which may write in `folder`."""

    hook: Hook
    paths: Paths
    mediamtx: Supervisor
    viewers: Viewers
    conditions: Conditions
    frames: Frames
    stills: Stills
    publishers: Publishers
    source_checks: SourceChecks
    spawn: children.Spawn
    folder: Path


def build_media(config: Config, ledger: Ledger, metrics: Metrics, spawns: Spawns) -> Media:
    """Build all of it, and remove what an earlier run that was killed left in the runtime folder."""
    spawn, folder = spawns.ffmpeg, spawns.folder
    link = folder / "recordings" if config.recording.removable else None
    recordings = RecordingFiles(config.recording.folder, link)
    pre_rolls = PreRollFiles(config.recording.pre_roll_folder, recordings)
    hook, paths, conditions = Hook(), Paths(recordings.record_path, pre_rolls.record_path), Conditions()
    mediamtx = Supervisor(
        config.mediamtx, hook_url=lambda: hook.url, spawn=spawns.server, search_path=spawns.search_path,
        folder=folder, new_secret=ledger.child_secrets.make, drop_secret=ledger.child_secrets.drop,
        wanted_paths=paths.wanted,
    )  # fmt: skip
    remove_leftovers(folder)
    recordings.make_link()
    urls = PublishedUrls(mediamtx, ledger)
    frames = Frames(
        spawn, find_ffmpeg, urls.find, drop_secret=ledger.child_secrets.drop,
        restarted=partial(metrics.child_restarted, "frames"), folder=folder, conditions=conditions,
    )  # fmt: skip
    publishers = urls.publishers = Publishers(
        spawn, find_ffmpeg, partial(rtsp_address, mediamtx), ledger.child_secrets.make, ledger.child_secrets.drop,
        paths.list,
        release_device=frames.release_device, restarted=partial(metrics.child_restarted, "publisher"),
        intruded=metrics.publisher_intruded, unreachable=mediamtx.suspect, folder=folder, conditions=conditions,
    )  # fmt: skip
    source_checks = SourceChecks(spawn, find_ffmpeg, frames, conditions, publishers.is_trying, folder=folder)
    viewers = Viewers(mediamtx, metrics.session_kicked)
    stills = Stills(spawn, find_ffmpeg)
    return Media(hook, paths, mediamtx, viewers, conditions, frames, stills, publishers, source_checks, spawn, folder)


@contextmanager
def removed_at_end(folder: Path) -> Iterator[None]:
    """Remove this folder, with what children left in it, when the block ends."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rtsp_address(mediamtx: Supervisor) -> str | None:
    """HOST:PORT where edged's own publishers and readers reach MediaMTX, None while it is not ready."""
    state = mediamtx.state
    address = state.addresses.get("rtsp") if state.status == "ready" else None
    return join_address(*reach(address)) if address else None
