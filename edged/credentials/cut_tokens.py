"""A token that lost its end on the way: players cut what does not fit their buffers, and say nothing.

ffmpeg, and with it ffplay and PyAV, keeps 127 bytes of `user:password` of an RTSP URL (libavformat/rtsp.c); SRT's
stream id holds 512. What arrives has the beginning of a token and is none.
"""

from __future__ import annotations

from typing import Final

#: What is told with the reason.
REMEDY: Final = (
    "the player cut the token: ffmpeg keeps 127 bytes of user:password; give it as rtsp://HOST:8554/PATH?jwt=TOKEN, "
    "or use a ticket"
)
#: Bytes of `user:password` that ffmpeg keeps.
FFMPEG_BYTES: Final = 127
#: How the header of every token begins: `{"` in base64url (RFC 7515 7.1), and one of the first letters of its members.
_BEGINS: Final = "eyJ"
_PARTS: Final = 3


def lacks_parts(text: str) -> bool:
    """Whether this begins as a token does and ends before its signature."""
    return text.startswith(_BEGINS) and text.count(".") < _PARTS - 1


def may_be_cut(text: str, user: str, password: str) -> bool:
    """Whether a token with all its parts, shown as that password, has just the length at which ffmpeg cuts."""
    return (
        text.startswith(_BEGINS)
        and text == password
        and text.count(".") == _PARTS - 1
        and len(user.encode("utf-8", "replace")) + 1 + len(text.encode("utf-8", "replace")) == FFMPEG_BYTES
    )
