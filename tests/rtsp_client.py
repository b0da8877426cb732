"""A small RTSP reader on trio (RFC 2326 over TCP, interleaved): enough to watch a stream and to see it end."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

import trio


class RtspRefused(Exception):
    """The server answered something other than 200; `status` is what."""

    def __init__(self, method: str, status: int) -> None:
        super().__init__(f"{method} was answered {status}")
        self.status = status


@dataclass
class RtspReader:
    """One viewer of `rtsp://127.0.0.1:port/path`, logged in as `user` with `password`, or as nobody."""

    port: int
    path: str
    user: str = ""
    password: str = field(default="", repr=False)
    session: str = ""
    received: int = 0
    _serial: int = 0
    _buffer: bytearray = field(default_factory=bytearray)
    _stream: trio.SocketStream | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/{self.path}"

    @property
    def stream(self) -> trio.SocketStream:
        assert self._stream is not None, "not connected"
        return self._stream

    async def play(self) -> None:
        """DESCRIBE, SETUP of the first track, PLAY. Raises RtspRefused, or OSError when cut off."""
        self._stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        description = await self.request("DESCRIBE", self.url, {"Accept": "application/sdp"})
        found = re.findall(r"^a=control:(\S+)", description, re.MULTILINE)
        track = next((name for name in found if name != "*"), "trackID=0")
        target = track if track.startswith("rtsp://") else f"{self.url}/{track}"
        await self.request("SETUP", target, {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"})
        await self.request("PLAY", self.url + "/")

    async def request(self, method: str, url: str, headers: dict[str, str] | None = None) -> str:
        """One exchange; returns the body."""
        self._serial += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._serial}"]
        if self.password:
            login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            lines.append(f"Authorization: Basic {login}")
        if self.session:
            lines.append(f"Session: {self.session}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        try:
            await self.stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())
        except trio.BrokenResourceError as problem:
            raise ConnectionResetError("the server reset the connection") from problem
        return await self._read_answer(method)

    async def _read_answer(self, method: str) -> str:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._fill()
        head = self._buffer[:end].decode()
        del self._buffer[: end + 4]
        status = int(head.split(" ", 2)[1])
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        length = int(fields.get("content-length", "0"))
        while len(self._buffer) < length:
            await self._fill()
        body = self._buffer[:length].decode()
        del self._buffer[:length]
        if status != 200:
            raise RtspRefused(method, status)
        if "session" in fields:
            self.session = fields["session"].split(";")[0]
        return body

    async def _fill(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError as problem:
            raise ConnectionResetError("the server reset the connection") from problem
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._buffer += data

    async def wait_packet(self) -> None:
        """Until something of the picture came."""
        await self._fill()
        self.received += len(self._buffer)
        self._buffer.clear()

    async def wait_end(self) -> None:
        """Read until the server ends the stream."""
        while True:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            self.received += len(data)

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
