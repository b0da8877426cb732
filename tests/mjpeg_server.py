"""A small camera with a web server: an MJPEG stream and still images, and all that can be wrong with them."""

from __future__ import annotations

import base64
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import trio

USER, PASSWORD = "cam", "planted-SECRET_p@ss/word"
REALM, NONCE = "cam", "4f1d0a"


def make_jpegs(size: str = "160x120", count: int = 10) -> list[bytes]:
    """Pictures that move."""
    made = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc=size={size}:rate=10",
         "-frames:v", str(count), "-c:v", "mjpeg", "-f", "mjpeg", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    pieces = made.split(b"\xff\xd8\xff")[1:]
    assert len(pieces) == count
    return [b"\xff\xd8\xff" + piece for piece in pieces]


@dataclass
class Web:
    """`mood` is how it answers from the next request on; `requests` what it was asked, head by head."""

    jpegs: list[bytes]
    mood: str = "good"
    login: Literal["", "basic", "digest"] = ""
    seconds: float = 0.1
    requests: list[str] = field(default_factory=list)
    port: int = 0
    scopes: list[trio.CancelScope] = field(default_factory=list)

    def hang_up(self) -> None:
        """End every connection."""
        for scope in self.scopes:
            scope.cancel()

    async def answer(self, stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self.scopes.append(scope)
            await self._answer(stream)
        await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += (piece := await stream.receive_some(4096))
            if not piece:
                return
            if not head.startswith(b"GET"[: len(head)]):
                await self._say(stream, "400 Bad Request", "X: y")
                return
        text = head.decode("latin-1")
        self.requests.append(text)
        target = text.split(" ")[1]
        if self.login and not self._is_known(text, target):
            asked = (
                f'Digest realm="{REALM}", nonce="{NONCE}", qop="auth"' if self.login == "digest" else "Basic realm=x"
            )
            await self._say(stream, "401 Unauthorized", f"WWW-Authenticate: {asked}")
        elif self.mood == "still":
            picture = self.jpegs[len(self.requests) % len(self.jpegs)]
            await self._say(stream, "200 OK", "Content-Type: image/jpeg", picture)
        elif self.mood == "page":
            await self._say(stream, "200 OK", "Content-Type: text/html", b"<html>log in</html>")
        elif self.mood == "parts":
            await self._stream(stream, "text/plain", [b"nothing"] * 10)
        elif self.mood.isdigit():
            await self._say(stream, f"{self.mood} X", "Location: http://127.0.0.1:1/elsewhere")
        elif self.mood == "silent":
            await trio.sleep_forever()
        elif self.mood == "noise":
            await stream.send_all(b"SSH-2.0-camera\r\n\r\n" * 10)
        elif self.mood == "stalls":
            await self._stream(stream, "image/jpeg", self.jpegs[:3])
            await trio.sleep_forever()
        elif self.mood == "trickle":
            await stream.send_all(b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n")
            while True:
                await stream.send_all(b"\xff")
                await trio.sleep(0.5)
        else:
            await self._stream(stream, "image/jpeg", self._pictures())

    def _pictures(self) -> Iterator[bytes]:
        while True:
            yield from self.jpegs

    async def _stream(self, stream: trio.abc.Stream, kind: str, pictures: object) -> None:
        await stream.send_all(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=--frame\r\n\r\n")
        for picture in pictures:  # type: ignore[attr-defined]
            length = f"Content-Length: {len(picture)}\r\n" if self.mood != "unmeasured" else ""
            await stream.send_all(f"--frame\r\nContent-Type: {kind}\r\n{length}\r\n".encode() + picture + b"\r\n")
            await trio.sleep(self.seconds)

    async def _say(self, stream: trio.abc.Stream, status: str, header: str, body: bytes = b"") -> None:
        head = f"HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)

    def _is_known(self, text: str, target: str) -> bool:
        shown = next((line for line in text.split("\r\n") if line.startswith("Authorization: ")), "")
        if self.login == "basic":
            return shown == "Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if not shown.startswith("Authorization: Digest "):
            return False
        fields = dict(each.strip().split("=", 1) for each in shown[len("Authorization: Digest ") :].split(", "))
        given = {name: value.strip('"') for name, value in fields.items()}
        own, what = _md5(f"{USER}:{REALM}:{PASSWORD}"), _md5(f"GET:{target}")
        return given["response"] == _md5(f"{own}:{NONCE}:{given['nc']}:{given['cnonce']}:auth:{what}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def make_tls(folder: Path) -> ssl.SSLContext:
    """A certificate that nobody can verify, as cameras have it."""
    file = folder / "camera.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=camera", "-days", "2",
         "-keyout", str(file), "-out", str(folder / "camera.crt")],
        capture_output=True, check=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "camera.crt", file)
    return context


@asynccontextmanager
async def serving(web: Web, *, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Web]:
    """The server, on a port that the system picks; it dies, with all connections, when the block ends."""

    async def encrypted(stream: trio.SocketStream) -> None:
        assert tls is not None
        await web.answer(trio.SSLStream(stream, tls, server_side=True, https_compatible=True))

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, encrypted if tls else web.answer, port, host="127.0.0.1")
        listeners = await nursery.start(serve)
        web.port = listeners[0].socket.getsockname()[1]
        yield web
        nursery.cancel_scope.cancel()
