"""A camera whose server says nothing of the picture: its SDP has no parameter sets, they come in the stream only."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

RATE = 5
_PAYLOAD_BYTES = 1300


def make_units(seconds: int = 8, gop: int = 5) -> list[list[bytes]]:
    """A test picture as H264: the NAL units of each picture."""
    arguments = [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc2=size=160x120:rate={RATE}"),
        *("-t", str(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(gop)),
        *("-x264-params", "sliced-threads=0:slices=1", "-pix_fmt", "yuv420p", "-f", "h264", "-"),
    ]
    data = subprocess.run(arguments, capture_output=True, check=True).stdout
    pictures: list[list[bytes]] = [[]]
    for piece in data.split(b"\0\0\1"):
        if not (unit := piece.rstrip(b"\0")):
            continue
        pictures[-1].append(unit)
        if unit[0] & 0x1F in (1, 5):
            pictures.append([])
    return pictures[:-1]


def packets_of(unit: bytes) -> list[bytes]:
    """RTP payloads of one NAL unit (RFC 6184: single unit, or FU-A)."""
    if len(unit) <= _PAYLOAD_BYTES:
        return [unit]
    kind, flags, body = unit[0] & 0x1F, unit[0] & 0xE0, unit[1:]
    pieces = [body[at : at + _PAYLOAD_BYTES] for at in range(0, len(body), _PAYLOAD_BYTES)]
    last = len(pieces) - 1
    return [
        bytes([flags | 28, kind | (0x80 * (at == 0)) | (0x40 * (at == last))]) + each for at, each in enumerate(pieces)
    ]


async def _play(stream: trio.SocketStream, turn: trio.Lock, pictures: list[list[bytes]]) -> None:
    sequence = count = 0
    # Whoever comes, comes between two key frames.
    pictures = [*pictures[1:], pictures[0]]
    while True:
        for units in pictures:
            for unit in units:
                parts = packets_of(unit)
                for at, part in enumerate(parts):
                    ends = unit is units[-1] and at == len(parts) - 1
                    head = bytes([0x80, 96 | (0x80 * ends)]) + sequence.to_bytes(2, "big")
                    head += (count * 90000 // RATE % 2**32).to_bytes(4, "big") + b"bare"
                    async with turn:
                        await stream.send_all(b"$\0" + len(head + part).to_bytes(2, "big") + head + part)
                    sequence = (sequence + 1) % 65536
            count += 1
            await trio.sleep(1 / RATE)


async def _serve(pictures: list[list[bytes]], stream: trio.SocketStream) -> None:
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    sdp += "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
    buffer, turn = b"", trio.Lock()
    async with trio.open_nursery() as nursery:
        try:
            while data := await stream.receive_some(4096):
                buffer += data
                while b"\r\n\r\n" in buffer:
                    request, _, buffer = buffer.partition(b"\r\n\r\n")
                    lines = request.lstrip(b"$").decode("latin-1").split("\r\n")
                    method = lines[0].split(" ")[0].rpartition("\0")[2]
                    number = next(line for line in lines if line.lower().startswith("cseq"))
                    more = {
                        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n",
                        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
                    }.get(method, "")
                    body = sdp if method == "DESCRIBE" else ""
                    async with turn:
                        await stream.send_all(f"RTSP/1.0 200 OK\r\n{number}\r\nSession: 1\r\n{more}\r\n{body}".encode())
                    if method == "PLAY":
                        nursery.start_soon(_play, stream, turn, pictures)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()


async def _serve_quietly(pictures: list[list[bytes]], stream: trio.SocketStream) -> None:
    try:
        await _serve(pictures, stream)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@asynccontextmanager
async def bare_camera() -> AsyncIterator[str]:
    """Its address."""
    pictures = make_units()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(_serve_quietly, pictures), 0, host="127.0.0.1"))
        yield f"rtsp://127.0.0.1:{listeners[0].socket.getsockname()[1]}/x"
        nursery.cancel_scope.cancel()
