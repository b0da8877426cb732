"""The recordings' part of the composition root."""

from __future__ import annotations

from collections.abc import Collection

from edged.clock import Clock
from edged.config.model import Config, RecordingSettings
from edged.daemon.access import Access
from edged.daemon.databases import Databases
from edged.daemon.media import Media
from edged.library.clips import Clips
from edged.library.joins import Joins
from edged.library.medium import Medium
from edged.library.pre_roll_files import PreRollFiles
from edged.library.pre_rolls import PreRolls
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.recordings import Recordings
from edged.library.retention import DAY_SECONDS, GIGABYTE, Policy
from edged.library.retention_policies import RetentionPolicies
from edged.library.retention_sweep import RetentionSweep
from edged.library.sealing import Sealing
from edged.mediamtx.ffmpeg import find_ffmpeg
from edged.mediamtx.paths import Paths
from edged.mediamtx.publisher import Publishers
from edged.metrics import Metrics

_MIB = 1024 * 1024


class MediaRecorders:
    """MediaMTX records, what the encoders publish."""

    def __init__(self, paths: Paths, publishers: Publishers) -> None:
        self._paths = paths
        self._publishers = publishers

    def set_recorded(self, cameras: Collection[str]) -> None:
        """From here on MediaMTX records these cameras."""
        self._paths.set_recorded(cameras)

    def wake(self, camera: str) -> None:
        """Publish this camera for the next ten seconds, also if it is plugged in only then."""
        if (path := self._paths.find_path(camera)) is not None:
            self._publishers.wake(path)


def build_recordings(
    config: Config, databases: Databases, access: Access, media: Media, metrics: Metrics
) -> Recordings:
    """Everything about recordings; nothing runs yet."""
    settings, clock, files = config.recording, access.clock, RecordingFiles(config.recording.folder)
    sealing = Sealing(files.find, databases.usage, databases.trust, clock, access.keyring)
    medium = Medium(settings.folder, is_removable=settings.removable)
    index = RecordingIndex(files, databases.usage, metrics.recording_deleted, sealing, medium)
    policies = RetentionPolicies(databases.trust, read_policy(settings))
    sweep = RetentionSweep(
        index, databases.trust, clock, policies, stop_bytes=settings.stop_free_mib * _MIB, on_full=settings.on_full
    )
    joins = Joins(files, media.spawn, find_ffmpeg, sweep.keep_free, sealing.seal_derived)
    pre_rolls = PreRolls(PreRollFiles(settings.pre_roll_folder, files), index, clock)
    recorders = MediaRecorders(media.paths, media.publishers)
    recordings = Recordings(index, databases.trust, clock, recorders, sweep, joins, pre_rolls)
    recordings.load()
    return recordings


def build_clips(recordings: Recordings, clock: Clock) -> Clips:
    """Intervals and moments of what was recorded."""
    return Clips(recordings, clock)


def read_policy(settings: RecordingSettings) -> Policy:
    """What retention keeps, by the settings."""
    return Policy(
        max_age=settings.max_age_days * DAY_SECONDS or None,
        max_bytes=int(settings.max_size_gb * GIGABYTE) or None,
        keep_free_bytes=settings.keep_free_mib * _MIB,
    )
