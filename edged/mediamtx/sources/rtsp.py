"""Cameras in the network that are asked for their stream: RTSP and RTSPS. It is passed on as it is."""

from __future__ import annotations

from typing import ClassVar, Final

from edged.mediamtx import causes, ffmpeg
from edged.mediamtx.causes import Cause
from edged.mediamtx.figures import NO_AUDIO
from edged.mediamtx.sources.base import CameraSource, Kind

#: Bits a second of sound that edged encodes.
_SOUND_RATE: Final = "64k"


class Rtsp(Kind):
    """An address, which may hold a user name and password; the stream says what it is."""

    by_network: ClassVar[bool] = True
    #: ffmpeg itself gives up after 10 s without a byte.
    silence: ClassVar[float] = 12.0
    never: ClassVar[Cause] = causes.SILENT

    def picture_of(self, source: CameraSource) -> tuple[object, ...]:
        return (source.kind, source.path, source.url, source.transport, source.is_pinned, source.audio)

    def sets_key_frames(self, source: CameraSource) -> bool:  # noqa: ARG002
        return True

    def playlist(self, source: CameraSource, failures: int, cause: str, *, patient: bool) -> str:
        transport = ffmpeg.choose_transport(source.transport, failures, cause)
        return ffmpeg.make_playlist(source.url or "", transport=transport, patient=patient, has_sound=source.audio)

    def publish(self, source: CameraSource, playlist: str) -> list[str]:  # noqa: ARG002
        # What comes before the first key frame is passed on: viewers see that it comes, and wait for the key frame.
        return [*ffmpeg.read_playlist(playlist), "-map", "0:v:0", "-c:v", "copy", "-copyinkf"]

    def sound(self, source: CameraSource) -> list[str]:
        # Opus is the one that WebRTC, HLS and recordings take; a camera without sound goes on without.
        if not source.audio or source.audio_codec == NO_AUDIO:
            return ["-an"]
        made = ("copy",) if source.audio_codec == "Opus" else ("libopus", "-b:a", _SOUND_RATE, "-ar", "48000")
        return ["-map", "0:a:0?", "-c:a", *made]
