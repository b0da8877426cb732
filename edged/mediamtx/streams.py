"""Streams as ffmpeg makes them: the arguments that pass a source on to MediaMTX, encoded or as it is."""

from __future__ import annotations

from typing import Final

from edged.mediamtx import ffmpeg
from edged.mediamtx.sources import CameraSource

#: Seconds between key frames: how long a new viewer waits for a picture at most.
KEY_FRAME_SECONDS: Final = 1.0
#: Seconds between two reports of ffmpeg on what it passed on.
_REPORT_SECONDS: Final = 5


def publish_arguments(source: CameraSource, url: str, playlist: str = "") -> list[str]:
    """ffmpeg's arguments, without its name, that publish a camera to `url` over TCP.

    What comes as H264 is passed on as it is. An RTSP camera is read from the file `playlist` (ffmpeg.py says why).
    """
    told: tuple[str, ...] = ffmpeg.QUIET
    if source.kind == "rtsp":
        told = (*ffmpeg.TELLING, "-stats_period", str(_REPORT_SECONDS), "-progress", "pipe:1")
        # What comes before the first key frame is passed on: viewers see that it comes, and wait for the key frame.
        picture = [*ffmpeg.read_playlist(playlist), "-map", "0:v:0", "-c:v", "copy", "-copyinkf"]
    elif source.kind == "test":
        picture = ffmpeg.read_test_picture(source, source.rate) + encode_arguments(source)
    else:
        passed_on = source.pixel_format == "H264"
        picture = ffmpeg.read_device(source, source.rate)
        picture += ["-c:v", "copy"] if passed_on else encode_arguments(source)
    # Packets that fit MediaMTX's own limit spare it the work of cutting them.
    return [*told, *picture, "-an", "-f", "rtsp", "-rtsp_transport", "tcp", "-pkt_size", "1440", url]


def check_arguments(playlist: str, seconds: float) -> list[str]:
    """ffmpeg's arguments, without its name, that read packets for so long, keep none, and report each second."""
    told = (*ffmpeg.TELLING, "-stats_period", "1", "-progress", "pipe:1")
    copied = ("-map", "0:v:0", "-c:v", "copy", "-copyinkf", "-an", "-t", ffmpeg.number(seconds))
    return [*told, *ffmpeg.read_playlist(playlist), *copied, "-f", "null", "-"]


def encode_arguments(source: CameraSource) -> list[str]:
    """Arguments that encode H264 with little delay: no B frames, a key frame each second."""
    encoder = source.encoder or "libx264"
    tuning = ("-preset", "ultrafast", "-tune", "zerolatency") if encoder == "libx264" else ("-bf", "0")
    rate = str(source.bitrate)
    limits = ("-maxrate", rate, "-bufsize", rate) if encoder == "libx264" else ()
    key_frames = str(max(1, round(source.rate * KEY_FRAME_SECONDS)))
    # yuv420p has one colour for two by two pixels, and some encoders take nothing else than even sizes.
    crop = ("-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0") if source.width % 2 or source.height % 2 else ()
    return ["-c:v", encoder, *tuning, *crop, "-pix_fmt", "yuv420p", "-b:v", rate, *limits, "-g", key_frames]
