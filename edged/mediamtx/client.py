"""MediaMTX's control API (v3), typed: the lists and the few changes that edged uses.

One connection a call, HTTP/1.1 by h11, with a deadline. Its lists are polled, never single items, because MediaMTX
logs an error for each thing that is not there. Nothing is read, changed and written back: MediaMTX hides passwords in
what it shows, and would store what it shows instead. Only `list_paths` and its kind wait for MediaMTX's path manager.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import h11
import msgspec
import trio

from edged.descriptors import is_exhausted
from edged.errors import NOT_JSON, DependencyFailed, OutOfDescriptors
from edged.mediamtx.figures import UNKNOWN_FIGURES, Figures, figures_of_tracks
from edged.mediamtx.settings import PathConf

#: Bytes of an answer; 500 sessions are some 300 kB.
ANSWER_BYTES = 16 * 1024 * 1024
#: Items asked for at a time.
PAGE_ITEMS = 500
#: Seconds for one call. Refused credentials are answered after up to 4 s.
CALL_SECONDS = 5.0

#: Protocol → what the API calls its sessions.
_KINDS = {
    "rtsp": "rtspsessions", "webrtc": "webrtcsessions", "hls": "hlssessions", "rtmp": "rtmpconns", "srt": "srtconns",
}  # fmt: skip
PROTOCOLS: Final = tuple(_KINDS)
_T = TypeVar("_T")


class PathState(msgspec.Struct, frozen=True):
    """A path as it is now. `ready`: somebody publishes; `readers`: how many; bytes since it began.

    `ready_since`: Unix seconds, None while it is not ready or where MediaMTX does not say; `figures`: what is sent.
    """

    name: str
    ready: bool
    readers: int
    bytes_received: int
    bytes_sent: int
    source_type: str
    ready_since: float | None = None
    figures: Figures = UNKNOWN_FIGURES


class MediaSession(msgspec.Struct, frozen=True):
    """A publisher or reader. `state`: idle, read, publish, "" for HLS; `connections`: ids, RTSP only.

    `bytes_moved`: sent to a reader, received from a publisher.
    """

    protocol: str
    id: str
    path: str
    state: str
    connections: tuple[str, ...] = ()
    bytes_moved: int = 0


class Info(msgspec.Struct, frozen=True):
    """`version` as MediaMTX writes it (`v1.20.1`)."""

    version: str


class _Page(msgspec.Struct, Generic[_T], rename="camel"):
    items: list[_T]
    page_count: int = 1


class _Origin(msgspec.Struct):
    type: str = ""


class _Size(msgspec.Struct):
    width: int = 0
    height: int = 0


class _Track(msgspec.Struct, rename="camel"):
    codec: str = ""
    codec_props: _Size | None = None


class _Path(msgspec.Struct, rename="camel"):
    name: str
    available: bool | None = None
    available_time: str | None = None
    ready: bool = False
    ready_time: str | None = None
    readers: list[Any] = []
    source: _Origin | None = None
    tracks: list[str] = []
    tracks2: list[_Track] | None = None
    inbound_bytes: int | None = None
    outbound_bytes: int | None = None
    bytes_received: int = 0
    bytes_sent: int = 0


class _Session(msgspec.Struct, rename="camel"):
    id: str
    path: str | None = ""
    state: str | None = ""
    conns: list[str] | None = None
    inbound_bytes: int | None = None
    outbound_bytes: int | None = None
    bytes_received: int = 0
    bytes_sent: int = 0

    @property
    def bytes_moved(self) -> int:
        # SRT keeps the older names; HLS never had them.
        if self.state == "publish":
            return self.bytes_received if self.inbound_bytes is None else self.inbound_bytes
        return self.bytes_sent if self.outbound_bytes is None else self.outbound_bytes


class _Fault(msgspec.Struct):
    error: str = ""


class _Reply(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    is_json: bool


class ControlApi:
    """MediaMTX's control API at an address, as one user.

    `protocols` are those that are on. Every call raises DependencyFailed if MediaMTX does not answer within `timeout`
    seconds, or answers something else than asked for; OutOfDescriptors if it could not be asked for want of a socket.
    """

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        *,
        protocols: tuple[str, ...] = PROTOCOLS,
        timeout: float = CALL_SECONDS,
    ) -> None:
        self._address = (host, port)
        self._timeout = timeout
        self._protocols = protocols
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = [
            ("Host", f"{host}:{port}"), ("Authorization", f"Basic {credentials}"), ("Connection", "close"),
        ]  # fmt: skip

    async def info(self) -> Info:
        """Which MediaMTX answers. Never waits for the path manager: it shows readiness, and not health."""
        return _decode(await self._get("/v3/info"), Info, "/v3/info")

    async def list_paths(self, *, timeout: float | None = None) -> list[PathState]:
        """Every path as it is now; waits for the path manager."""
        return [_state_of(item) for item in await self._list("/v3/paths/list", _Path, timeout)]

    async def list_path_configs(self) -> dict[str, PathConf]:
        """Name → configuration merged with the defaults, values normalised, passwords hidden. Never write one back."""
        items = await self._list("/v3/config/paths/list", dict[str, Any])
        return {str(item["name"]): item for item in items if "name" in item}

    async def replace_path(self, name: str, conf: PathConf) -> None:
        """Create a path or set it anew; keys not named go back to the defaults. The same again disturbs no session."""
        await self._post(f"/v3/config/paths/replace/{quote(name)}", msgspec.json.encode(dict(conf)))

    async def delete_path(self, name: str) -> None:
        """Remove a path and end its sessions; one that is not there is fine."""
        target = f"/v3/config/paths/delete/{quote(name)}"
        answer = await self._ask("DELETE", target)
        if answer.status != 404:
            _must_be_good(answer, "DELETE", target)

    async def list_sessions(self, only: Collection[str] | None = None) -> list[MediaSession]:
        """Publishers and readers over every protocol that is on, or those of them that are named."""
        asked = [protocol for protocol in self._protocols if only is None or protocol in only]
        return [session for protocol in asked for session in await self.list_sessions_of(protocol)]

    async def list_sessions_of(self, protocol: str) -> list[MediaSession]:
        """Publishers and readers over one protocol; none where this MediaMTX has no such list."""
        items = await self._list(f"/v3/{_KINDS[protocol]}/list", _Session, may_be_absent=True)
        return [
            MediaSession(
                protocol, item.id, item.path or "", item.state or "", tuple(item.conns or ()), item.bytes_moved
            )
            for item in items
        ]

    async def kick(self, protocol: str, session: str) -> bool:
        """End a session; False if there is none of this id (or this MediaMTX cannot kick over this protocol)."""
        target = f"/v3/{_KINDS[protocol]}/kick/{quote(session, safe='')}"
        answer = await self._ask("POST", target)
        if answer.status == 404:
            return False
        _must_be_good(answer, "POST", target)
        return True

    async def _get(self, target: str) -> bytes:
        answer = await self._ask("GET", target)
        _must_be_good(answer, "GET", target)
        return answer.body

    async def _post(self, target: str, body: bytes) -> None:
        _must_be_good(await self._ask("POST", target, body), "POST", target)

    async def _list(
        self, target: str, kind: type[_T], timeout: float | None = None, *, may_be_absent: bool = False
    ) -> list[_T]:
        items: list[_T] = []
        page, pages = 0, 1
        while page < pages:
            answer = await self._ask("GET", f"{target}?itemsPerPage={PAGE_ITEMS}&page={page}", timeout=timeout)
            # A 404 in plain text: the route does not exist (protocol off, or an older version).
            if may_be_absent and answer.status == 404 and not answer.is_json:
                return []
            _must_be_good(answer, "GET", target)
            found = _decode(answer.body, _Page[kind], target)  # type: ignore[valid-type]
            items += found.items
            page, pages = page + 1, found.page_count
        return items

    async def _ask(self, method: str, target: str, body: bytes = b"", *, timeout: float | None = None) -> _Reply:
        seconds = self._timeout if timeout is None else timeout
        what = f"MediaMTX did not answer {method} {target.partition('?')[0]}"
        try:
            with trio.fail_after(seconds):
                return await self._exchange(method, target, body)
        except trio.TooSlowError as error:
            raise DependencyFailed(f"{what} within {seconds:g} s", hint="its log may say why") from error
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            if is_exhausted(error):
                raise OutOfDescriptors(
                    f"MediaMTX could not be asked: {error}", hint="see the limits of edged.service: LimitNOFILE"
                ) from error
            raise DependencyFailed(f"{what} ({error})", hint="its log may say why") from error

    async def _exchange(self, method: str, target: str, body: bytes) -> _Reply:
        connection = h11.Connection(h11.CLIENT)
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", "application/json"))
        question = connection.send(h11.Request(method=method, target=target, headers=headers)) or b""
        question += (connection.send(h11.Data(data=body)) or b"") if body else b""
        question += connection.send(h11.EndOfMessage()) or b""
        # No trio.open_tcp_stream: its races between addresses cost more than the call.
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_STREAM) as socket:
            await socket.connect(self._address)
            stream = trio.SocketStream(socket)
            await stream.send_all(question)
            return await _read_answer(connection, stream)


async def _read_answer(connection: h11.Connection, stream: trio.SocketStream) -> _Reply:
    status, is_json, body = 0, False, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
            is_json = any(name == b"content-type" and b"json" in value for name, value in event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_BYTES:
                raise h11.RemoteProtocolError("the answer is too long")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return _Reply(status, bytes(body), is_json)


def _must_be_good(answer: _Reply, method: str, target: str) -> None:
    if 200 <= answer.status < 300:
        return
    try:
        why = msgspec.json.decode(answer.body, type=_Fault).error
    except NOT_JSON:
        why = ""
    hint = "the hook that MediaMTX asks did not let edged in" if answer.status == 401 else ""
    sentence = f"MediaMTX answered {method} {target} with {answer.status}" + (f" ({why[:200]})" if why else "")
    raise DependencyFailed(sentence, hint=hint, status=answer.status)


def _decode(body: bytes, kind: type[_T], target: str) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_JSON as error:
        raise DependencyFailed(f"MediaMTX answered {target} with something else than expected ({error})") from error


def _state_of(item: _Path) -> PathState:
    # Since 1.16.2 `available` and the in/outbound names replace `ready` and the received/sent ones.
    ready, since = (item.ready, item.ready_time) if item.available is None else (item.available, item.available_time)
    return PathState(
        name=item.name,
        ready=ready,
        readers=len(item.readers),
        bytes_received=item.bytes_received if item.inbound_bytes is None else item.inbound_bytes,
        bytes_sent=item.bytes_sent if item.outbound_bytes is None else item.outbound_bytes,
        source_type=item.source.type if item.source else "",
        ready_since=_read_time(since) if ready else None,
        figures=figures_of_tracks(_tracks_of(item)) if ready else UNKNOWN_FIGURES,
    )


def _tracks_of(item: _Path) -> list[tuple[str, int, int]]:
    if item.tracks2 is None:
        return [(codec, 0, 0) for codec in item.tracks]
    sizes = [(track.codec, track.codec_props or _Size()) for track in item.tracks2]
    return [(codec, size.width, size.height) for codec, size in sizes]


def _read_time(text: str | None) -> float | None:
    """RFC 3339, as Go writes it with up to nine digits of a second → Unix seconds; None if it is no time."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
