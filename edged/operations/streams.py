"""Streams: the list, addresses of one, and the reply to MediaMTX's authentication requests (contract 3, 10.6)."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Final
from urllib.parse import parse_qsl

import msgspec
import structlog

from edged.access.asking import asking
from edged.access.gate import Gate
from edged.cameras.model import Camera, Status
from edged.credentials.callers import (
    TRANSPORTS,
    ApiKey,
    Caller,
    Credential,
    NoCredential,
    Peer,
    Resource,
    Ticket,
    Token,
    Transport,
    parse_credential,
)
from edged.credentials.cut_tokens import REMEDY, lacks_parts, may_be_cut
from edged.credentials.decision import Reason
from edged.credentials.tickets import is_ticket
from edged.credentials.tokens import TokenRefused
from edged.errors import Refused
from edged.mediamtx.settings import USER
from edged.operations.catalogue import DeviceParams, OperationCall, camera_resource, find_camera, operation
from edged.operations.listings import list_streams
from edged.operations.pages import Cursor, Limit
from edged.operations.rest import get
from edged.operations.services import Services

#: Members of a player's query string that are looked at.
_MOST_MEMBERS: Final = 32
_log = structlog.get_logger("streams")
_CAPABILITIES: Final = {"read": "stream:read", "playback": "stream:read", "publish": "stream:publish"}


class StreamItem(msgspec.Struct, frozen=True):
    """One path of MediaMTX; `source` is its kind, never an address."""

    name: str
    source: str
    ready: bool
    readers: int
    bytes_sent: int


class GetStreamsParams(msgspec.Struct, frozen=True):
    """At most `limit` streams by name, behind the one that `cursor` names: the reply is an array, without
    next_cursor."""

    limit: Limit | None = None
    cursor: Cursor | None = None


@operation("camera:read", rest=get("/api/streams"))
async def get_streams(call: OperationCall, params: GetStreamsParams) -> list[StreamItem]:
    """Streams of the cameras that the caller may see: a bare array (contract 3)."""
    services, caller = call.services, call.session.caller
    found = [
        StreamItem(state.name, state.source_type, state.ready, state.readers, state.bytes_sent)
        for state in await services.paths.list()
        if (camera := services.cameras.find_stream(state.name)) is not None
        and services.gate.judge(caller, "camera:read", camera_resource(camera)).allowed
    ]
    if params.limit is None and params.cursor is None:
        return found
    left = [item for item in found if params.cursor is None or item.name > params.cursor]
    return sorted(left, key=attrgetter("name"))[: params.limit]


class StreamUrl(msgspec.Struct, frozen=True):
    """Addresses of a camera. `live_url` is edged's own picture, with or without MediaMTX.

    `token_url` is the RTSP address for a token in place of `{token}`, since ffmpeg cuts a token that is sent as a
    password.
    """

    device: str
    stream_name: str
    stream_url: str
    available: bool
    active_consumers: int
    stream_status: str
    streams: dict[str, str]
    live_url: str
    token_url: str


@operation("camera:read", on_camera=True, rest=get("/api/cameras/{device}/stream"))
async def get_stream_url(call: OperationCall, params: DeviceParams) -> StreamUrl:
    """Addresses of one camera's picture; the viewer sends its credential to MediaMTX itself."""
    camera, services = call.camera, call.services
    streams = list_streams(camera, services.own_urls.stream_host(call.session.peer.host), services.mediamtx.state)
    state = next((item for item in await services.paths.list() if item.name == camera.path), None)
    # To ask MediaMTX took time, in which a right may have ended.
    find_camera("camera:read", camera.name, services, call.session)
    available = camera.status is Status.CONNECTED and bool(streams)
    return StreamUrl(
        device=camera.name,
        stream_name=camera.path,
        stream_url=streams.get("rtsp", ""),
        available=available,
        active_consumers=state.readers if state else 0,
        stream_status="ERROR" if camera.status is Status.ERROR else "READY" if available else "NOT_READY",
        streams=streams,
        live_url=f"/api/cameras/{camera.name}/live.mjpeg",
        token_url=f"{streams['rtsp']}?jwt={{token}}" if "rtsp" in streams else "",
    )


class StreamRequest(msgspec.Struct, frozen=True):
    """An authentication request of MediaMTX (mediamtx.md 3.1)."""

    action: str = ""
    path: str = ""
    protocol: str = ""
    id: str | None = None
    user: str = ""
    password: str = ""
    token: str = ""
    query: str = ""
    ip: str = ""
    userAgent: str = ""  # noqa: N815 (MediaMTX's spelling)


class Answer(msgspec.Struct, frozen=True):
    """Allowed, or refused with a short reason for the log of MediaMTX."""

    allowed: bool
    reason: str = ""


_YES = Answer(True)


def admit(services: Services, question: StreamRequest) -> Answer:
    """Answer MediaMTX from memory, without waiting, since MediaMTX serves nobody meanwhile.

    An allowed session is admitted with its credential, so that a revocation can end it; an allowed read starts the
    publisher of an idle camera.
    """
    transport: Transport = question.protocol if question.protocol in TRANSPORTS else "http"
    if question.user == USER and services.ledger.child_secrets.use(question.password, question.path, question.action):
        if question.id:
            services.gate.admit_internal(transport, question.path, question.id)
        if question.action == "read":
            services.publishers.wake(question.path)
        return _YES
    credential = find_credential(question)
    if isinstance(credential, NoCredential):
        # Most clients first ask without a credential and then log in: not a failure (mediamtx.md 3.2).
        return Answer(False, "missing")
    capability = _CAPABILITIES.get(question.action)
    asking.set(_Viewer(question))
    try:
        _refuse_cut_token(services.gate, credential, question, transport)
        caller = services.gate.authenticate_viewer(credential, transport)
        if capability is None:
            # The control API, metrics and pprof are edged's own (contract 7.5).
            raise Refused("missing_scope")
        camera = services.cameras.find_stream(question.path)
        resource = camera_resource(camera) if camera else Resource.of_camera(question.path)
        services.gate.authorize(caller, capability, transport, resource, is_fresh=True)
        if camera is None and question.action == "publish":
            # MediaMTX asks about every path, so that names cannot be probed; only cameras can be published.
            return Answer(False, "no such camera")
        if question.action == "publish" and camera is not None and camera.kind == "push":
            if _is_held(services, camera, caller):
                return Answer(False, "somebody else publishes there")
            services.publishers.expect(camera.path)
        if question.id:
            kick = partial(_kick, services, question.protocol, question.id)
            services.gate.admit(
                caller, transport, kick, path=camera.name if camera else question.path, session=question.id,
                capability=capability, resource=resource, is_fresh=True,
            )  # fmt: skip
    except Refused as problem:
        return Answer(False, problem.reason)
    if question.action == "read" and camera is not None:
        services.publishers.wake(question.path)
    return _YES


def _is_held(services: Services, camera: Camera, caller: Caller) -> bool:
    """Whether somebody of another account publishes to this camera: a stream is replaced by its own sender only."""
    for each in services.gate.admissions:
        if each.capability == "stream:publish" and each.path == camera.name and each.caller.account != caller.account:
            _log.warning(
                "publisher_refused",
                camera=camera.name,
                why="another credential publishes there",
                remedy="end its session",
            )
            return True
    return False


def _refuse_cut_token(gate: Gate, credential: Credential, question: StreamRequest, transport: Transport) -> None:
    """Raises Refused with a reason of its own for a token that a player truncated."""
    if isinstance(credential, ApiKey):
        is_cut = lacks_parts(credential.secret)
    elif isinstance(credential, Token) and may_be_cut(credential.text, question.user, question.password):
        # A token of this length can be whole: then it is judged as any other.
        try:
            gate.read_token(credential.text)
            is_cut = False
        except TokenRefused as problem:
            is_cut = problem.reason in (Reason.BAD_SIGNATURE, Reason.MALFORMED)
    else:
        is_cut = False
    if is_cut:
        raise gate.refuse(Reason.TOKEN_CUT, "jwt_local", transport, REMEDY)


class _Viewer:
    """The client of MediaMTX, for the log."""

    __slots__ = ("_question",)
    caller = None

    def __init__(self, question: StreamRequest) -> None:
        self._question = question

    @property
    def peer(self) -> Peer:
        return Peer("mediamtx", self._question.ip[:64])

    @property
    def doing(self) -> str:
        return f"{self._question.action} {self._question.path}"


def _kick(services: Services, protocol: str, session: str, _cause: str, _by: str) -> None:
    services.viewers.kick(protocol, session, is_half=services.gate.admissions.is_ending_half)


def find_credential(question: StreamRequest) -> Credential:
    """A key, token or ticket in any place where players can put it (contract 10.6): password, token, and the query.

    With Basic or user:pass MediaMTX repeats the password as token, so the password comes first (mediamtx.md 3.3).
    """
    for text in (question.password, question.token):
        if text:
            return _parse(text)
    if question.query:
        # Sent by strangers: only so many members are read, and more are no error.
        first = "&".join(question.query.split("&", _MOST_MEMBERS)[:_MOST_MEMBERS])
        values = dict(reversed(parse_qsl(first, separator="&")))
        return _parse(values.get("ticket") or values.get("token") or values.get("jwt") or "")
    return NoCredential()


def _parse(text: str) -> Credential:
    return Ticket(text) if is_ticket(text) else parse_credential(text)
