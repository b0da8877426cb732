"""Streams as ffmpeg makes them: the arguments that pass a source on to MediaMTX, encoded or as it is."""

from __future__ import annotations

from typing import Final

from edged.mediamtx import ffmpeg
from edged.mediamtx.sources import CameraSource, kind_of

#: Seconds between two reports of ffmpeg on what it passed on.
_REPORT_SECONDS: Final = 5


def publish_arguments(source: CameraSource, url: str, playlist: str = "") -> list[str]:
    """ffmpeg's arguments, without its name, that publish a camera to `url` over TCP.

    A source in the network is read from the file `playlist` (ffmpeg.py says why).
    """
    kind = kind_of(source)
    reports = ("-stats_period", str(_REPORT_SECONDS), "-progress", "pipe:1")
    told = (*ffmpeg.TELLING, *reports) if kind.by_network else ffmpeg.QUIET
    # Packets that fit MediaMTX's own limit spare it the work of cutting them.
    sent = ("-f", "rtsp", "-rtsp_transport", "tcp", "-pkt_size", "1440")
    return [*told, *kind.publish(source, playlist), *kind.sound(source), *sent, url]


def check_arguments(playlist: str, seconds: float) -> list[str]:
    """ffmpeg's arguments, without its name, that read packets for so long, keep none, and report each second."""
    told = (*ffmpeg.TELLING, "-stats_period", "1", "-progress", "pipe:1")
    copied = ("-map", "0:v:0", "-c:v", "copy", "-copyinkf", "-an", "-t", ffmpeg.number(seconds))
    return [*told, *ffmpeg.read_playlist(playlist), *copied, "-f", "null", "-"]
