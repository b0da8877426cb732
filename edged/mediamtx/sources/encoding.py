"""How a picture that is no H264 yet becomes the stream that is published."""

from __future__ import annotations

from typing import Final

from edged.mediamtx.sources.base import CameraSource

#: Seconds between key frames: how long a new viewer waits for a picture at most.
KEY_FRAME_SECONDS: Final = 1.0


def encode_arguments(source: CameraSource, *, is_measured: bool = True) -> list[str]:
    """Arguments that encode H264 with little delay: no B frames, a key frame each second. `is_measured`: size and rate
    of the source are known."""
    encoder = source.encoder or "libx264"
    tuning = ("-preset", "ultrafast", "-tune", "zerolatency") if encoder == "libx264" else ("-bf", "0")
    rate = str(source.bitrate)
    limits = ("-maxrate", rate, "-bufsize", rate) if encoder == "libx264" else ()
    often = ["-g", str(max(1, round(source.rate * KEY_FRAME_SECONDS)))]
    if not is_measured:
        often = ["-g", "600", "-force_key_frames", f"expr:gte(t,n_forced*{KEY_FRAME_SECONDS:g})"]
    # yuv420p has one colour for two by two pixels, and some encoders take nothing else than even sizes.
    crop = (
        ("-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0")
        if source.width % 2 or source.height % 2 or not is_measured
        else ()
    )
    return ["-c:v", encoder, *tuning, *crop, "-pix_fmt", "yuv420p", "-b:v", rate, *limits, *often]
