"""How the daemon's children are started: what each kind may open, and its environment (architecture 7)."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from edged import children, systemd
from edged.config.load import DIRECTORY
from edged.config.model import Config
from edged.config.secrets import CREDENTIAL
from edged.landlock import Landlock
from edged.library.pre_roll_files import PreRollFiles
from edged.library.recording_files import RecordingFiles
from edged.signing import key_maker

#: The folder in paths.runtime that children may write in.
CHILDREN = "children"


class Spawns(msgspec.Struct, frozen=True):
    """Starts children: `ffmpeg` what reads cameras, `server` MediaMTX, `key_maker` the process that makes signing keys.

    `folder` is where the first two may write, `search_path` a PATH variable.
    """

    ffmpeg: children.Spawn
    server: children.Spawn
    key_maker: children.Spawn
    folder: Path
    search_path: str


def build_spawns(config: Config) -> Spawns:
    """Find out what can be shut to children here, and make the folders that they write in."""
    folder, environment = config.paths.runtime / CHILDREN, systemd.child_environment()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    recordings = RecordingFiles(config.recording.folder)
    pre_rolls = PreRollFiles(config.recording.pre_roll_folder, recordings)
    for files in (recordings, pre_rolls):
        with suppress(OSError):  # told when somebody asks for a recording
            files.prepare()
    private, opened = find_private(config), [folder, recordings.root]
    landlock = children.find_landlock(Landlock([*private, pre_rolls.root], opened), environment)
    # What cameras sent before anybody recorded is for MediaMTX alone, which writes it.
    writing = Landlock(private, [*opened, pre_rolls.root]) if landlock else None
    # Keys have nothing to do with anything that is kept here.
    alone = Landlock([*private, pre_rolls.root, recordings.root, config.snapshots.folder]) if landlock else None
    search_path = environment.get("PATH", "")
    return Spawns(
        ffmpeg=partial(children.spawn, environment=environment, landlock=landlock),
        server=partial(children.spawn, environment=environment, landlock=writing),
        key_maker=partial(children.spawn, environment=key_maker.child_environment(search_path), landlock=alone),
        folder=folder,
        search_path=search_path,
    )


def find_private(config: Config) -> list[Path]:
    """What no child has to open: the databases, the local socket and the code for the first administrator beside it,
    systemd's credentials, the settings (addresses of cameras hold passwords), and the files of shared secrets."""
    found = [config.paths.state, config.paths.runtime, DIRECTORY.parent, systemd.credentials_directory()]
    secrets_files = [
        Path(source) for source in config.auth.shared_secrets.values() if not source.startswith(CREDENTIAL)
    ]
    return [path for path in (*found, *secrets_files) if path is not None]
