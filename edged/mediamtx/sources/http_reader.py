"""Pictures of a camera's web server: a stream of JPEGs, or one still image after the other. Reads, and judges nothing.

edged reads them itself, so that nothing but the address that was judged is ever opened: ffmpeg follows redirects and
has no option against it. A redirect is never followed. As with rtsps://, the certificate of a camera is not verified:
hardly any has one that could be.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

import h11
import trio
from msgspec.structs import replace

from edged.config.sources import DEFAULT_PORTS
from edged.mediamtx import causes
from edged.mediamtx.addresses import connect, join_address
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.sources.http_login import AS_SENT, answer
from edged.mediamtx.sources.multipart import PICTURE_BYTES, PartsParser, is_jpeg
from edged.urls import mask_url

#: Seconds without a byte, and without a whole picture.
SILENCE_SECONDS: Final = 7.0
LONGEST_SECONDS: Final = 30.0
#: Parts without a picture after which a stream counts as one without pictures.
_WRONG_PARTS: Final = 5
_HEAD_BYTES: Final = 32 * 1024
_PIECE_BYTES: Final = 64 * 1024

_REFUSED: Final = replace(causes.REFUSED, remedy="check that the camera is on, and the port in its address")
_NOT_HTTP: Final = replace(
    causes.NOT_RTSP, sentence="what answers at its address does not speak HTTP",
    remedy="check the port in its address; 80 is usual, and https:// where it is encrypted",
)  # fmt: skip
_TLS: Final = replace(causes.TLS, remedy="use http:// instead of https://, or switch TLS on in the camera")
_NO_PICTURES: Final = replace(
    causes.NO_VIDEO, sentence="what is at its address is no picture",
    remedy="give the address of its MJPEG stream or of its still image, as its manual names it",
)  # fmt: skip
_REDIRECTED: Final = replace(causes.REDIRECTED, sentence="its server leads to another address, which is not followed")
_SLOW: Final = replace(
    causes.STALLED, sentence=f"it sends, but no whole picture came in {LONGEST_SECONDS:.0f} s",
    remedy="set the camera to smaller pictures, and look at the network between",
)  # fmt: skip
_BROKEN: Final = replace(causes.ENDED, sentence="its web server does not answer as it should")


class _Ended(Exception):
    """There will be no more of this, and why."""

    def __init__(self, cause: Cause, exact: str = "") -> None:
        super().__init__(cause.sentence)
        self.cause = replace(cause, exact=exact)


async def read_jpegs(
    camera: str, url: str, put: Callable[[bytes], None], opened: Callable[[], None], *, still_seconds: float
) -> None:
    """Hand every picture at `url` to `put`, until there are no more. `opened()` hears when pictures begin.

    One picture at its address is asked for again each `still_seconds`. Always raises NoPicture, with the cause.
    """
    try:
        reader = _Reader(url, put, opened)
        while True:
            began = trio.current_time()
            await reader.read_once()
            await trio.sleep_until(began + still_seconds)
    except _Ended as end:
        raise NoPicture(camera, end.cause) from None


class _Reader:
    """One address. It is asked without a password first, and with the same answer again where that was taken."""

    def __init__(self, url: str, put: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
            self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        except (ValueError, KeyError):
            raise _Ended(causes.BAD_ADDRESS) from None
        self._is_encrypted = parts.scheme == "https"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        is_usual = self._port == DEFAULT_PORTS[parts.scheme]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._shown_host = host if is_usual else join_address(self._host, self._port)
        self._put, self._opened = put, opened
        self._whole_by = 0.0
        self._is_moving = False

    async def read_once(self) -> None:
        """One still image; a stream until it ends, which is a cause. Raises _Ended."""
        if any(ord(letter) <= 0x20 or ord(letter) >= 0x7F for letter in self._target + self._shown_host):
            raise _Ended(causes.BAD_ADDRESS)
        challenges = await self._ask("")
        if challenges is None:
            return
        login = answer(challenges, self._user, self._password, self._target) if self._user else None
        if login is None or await self._ask(login) is not None:
            raise _Ended(causes.PASSWORD)

    async def _ask(self, login: str) -> list[str] | None:
        """One request; what the server wants to be shown if it refused, None after a picture was read."""
        self._whole_by = trio.current_time() + LONGEST_SECONDS
        async with self._connected() as stream:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
            headers = [
                (b"Host", self._shown_host.encode()), (b"User-Agent", b"edged"), (b"Connection", b"close"),
                (b"Accept", b"multipart/x-mixed-replace, image/jpeg"),
            ]  # fmt: skip
            if login:
                headers.append((b"Authorization", login.encode(errors=AS_SENT)))
            try:
                request = h11.Request(method="GET", target=self._target, headers=headers)
            except h11.LocalProtocolError:
                raise _Ended(causes.BAD_ADDRESS) from None
            data = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
            with trio.move_on_after(SILENCE_SECONDS) as limit:
                await stream.send_all(data)
            if limit.cancelled_caught:
                raise _Ended(causes.SILENT)
            head = await self._next(connection, stream)
            if not isinstance(head, h11.Response):
                raise _Ended(_NOT_HTTP)
            fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
            if head.status_code == 401:
                return [value.decode(errors=AS_SENT) for name, value in head.headers if name == b"www-authenticate"]
            self._refuse(head.status_code, dict(fields))
            kind = dict(fields).get("content-type", "").partition(";")[0].strip().lower()
            if kind.startswith("multipart/"):
                await self._read_stream(connection, stream)
            await self._read_still(connection, stream, kind)
            return None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[trio.abc.Stream]:
        """A connection whose failures are causes."""
        stream: trio.abc.Stream | None = None
        try:
            with trio.move_on_after(SILENCE_SECONDS) as limit:
                stream = await connect(self._host, self._port)
                if self._is_encrypted:
                    stream = await _encrypt(stream, self._host)
            if limit.cancelled_caught or stream is None:
                raise _Ended(causes.SILENT)
            yield stream
        except h11.RemoteProtocolError as error:
            raise _Ended(_NOT_HTTP, str(error)) from None
        except UnicodeError:  # a host that is no name (RFC 1035 2.3.4), told by the resolver's codec
            raise _Ended(causes.BAD_ADDRESS) from None
        except socket.gaierror:
            raise _Ended(causes.NAME_UNKNOWN) from None
        except ConnectionRefusedError as error:
            raise _Ended(_REFUSED, error.strerror or "") from None
        except TimeoutError:
            raise _Ended(causes.SILENT) from None
        except trio.BrokenResourceError as error:
            is_tls = self._is_encrypted and "SSL" in type(error.__cause__).__name__
            raise _Ended(_TLS if is_tls else causes.ENDED, str(error.__cause__ or "")) from None
        except OSError as error:
            raise _Ended(causes.ENDED if stream is not None else causes.UNREACHABLE, error.strerror or "") from None
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)

    async def _next(self, connection: h11.Connection, stream: trio.abc.Stream) -> object:
        """The next event. Raises _Ended where no byte, or no whole picture, comes in time."""
        while (event := connection.next_event()) is h11.NEED_DATA:
            with trio.move_on_at(min(trio.current_time() + SILENCE_SECONDS, self._whole_by)) as limit:
                connection.receive_data(bytes(await stream.receive_some(_PIECE_BYTES)))
            if limit.cancelled_caught:
                if trio.current_time() >= self._whole_by:
                    raise _Ended(_SLOW)
                raise _Ended(causes.STALLED if self._is_moving else causes.SILENT)
        return event

    def _refuse(self, status: int, fields: dict[str, str]) -> None:
        """Raises _Ended for every answer that brings no picture."""
        if 300 <= status < 400:
            raise _Ended(_REDIRECTED, f"{status}: {mask_url(fields.get('location', ''))[:200]}")
        cause = {403: causes.FORBIDDEN, 404: causes.NO_STREAM, 410: causes.NO_STREAM}.get(status, _BROKEN)
        if status != 200:
            raise _Ended(cause, f"it answered {status}")

    async def _read_stream(self, connection: h11.Connection, stream: trio.abc.Stream) -> None:
        parser, wrong = PartsParser(), 0
        while isinstance(event := await self._next(connection, stream), h11.Data):
            try:
                parts = parser.feed(event.data)
            except ValueError as error:
                raise _Ended(_NO_PICTURES, str(error)) from None
            for part in parts:
                if is_jpeg(part.content) and part.kind in ("", "image/jpeg", "image/jpg"):
                    self._take(part.content)
                    wrong = 0
                elif (wrong := wrong + 1) >= _WRONG_PARTS:
                    raise _Ended(_NO_PICTURES, f"its parts are {part.kind[:80] or 'something else'}")
        raise _Ended(causes.ENDED if self._is_moving else _NO_PICTURES)

    async def _read_still(self, connection: h11.Connection, stream: trio.abc.Stream, kind: str) -> None:
        if kind not in ("", "image/jpeg", "image/jpg", "application/octet-stream"):
            raise _Ended(_NO_PICTURES, f"it is {kind[:80]}")
        content = bytearray()
        while isinstance(event := await self._next(connection, stream), h11.Data):
            content += event.data
            if len(content) > PICTURE_BYTES:
                raise _Ended(_NO_PICTURES, "it is longer than a picture")
        if not is_jpeg(bytes(content[:4])):
            raise _Ended(_NO_PICTURES)
        self._take(bytes(content))

    def _take(self, jpeg: bytes) -> None:
        if not self._is_moving:
            self._is_moving = True
            self._opened()
        self._whole_by = trio.current_time() + LONGEST_SECONDS
        self._put(jpeg)


async def _encrypt(stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
    """TLS over a connection. Raises trio.BrokenResourceError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    encrypted = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    await encrypted.do_handshake()
    return encrypted
