"""Tokens for a user's name and password (contract 5.2, 6.5, S2-3, S4-3)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from edged.credentials.callers import Streams
from edged.credentials.claims import write_streams
from edged.credentials.decision import decide
from edged.credentials.signing_keys import Algorithm
from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.credentials.users import UserRecord
from edged.operations.camera_names import paths_of
from edged.operations.catalogue import OperationCall, camera_resource, operation
from edged.operations.rest import post
from edged.operations.rights import StreamAccess
from edged.operations.services import Services

#: Life of the token of a login, seconds.
EXPIRES_IN: Final = 3600
#: Longer texts are neither names nor passwords, and are refused at once.
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class LoginParams(msgspec.Struct, frozen=True):
    """Name and password of a user."""

    username: _Text
    password: _Text


class LoggedIn(msgspec.Struct, frozen=True):
    """The user of the token."""

    username: str
    roles: list[str]


class Login(msgspec.Struct, frozen=True):
    """A token with all rights of the user; `expires_in` seconds."""

    status: str
    message: str
    token: str
    expires_in: int
    token_type: str
    user: LoggedIn


@operation(
    "none", rest=post("/api/login", source="body"), no_command="the unix socket needs no token", counted_as="logins"
)
async def login(call: OperationCall, params: LoginParams) -> Login:
    """A token for a user's name and password, with the members of guide S2 (contract S2-11).

    It is signed by the first shared secret, or RS256 where there is none. It has the rights that the user has now,
    and is void as soon as the user has less, is disabled, or has another password.
    """
    services, session = call.services, call.session
    user, epoch = await services.logins.enter(
        params.username, params.password, session.peer.address, session.transport, is_near=session.is_near
    )
    issued, claims = int(services.clock.now()), user.login_claims()
    claims |= {"iat": issued, "exp": issued + EXPIRES_IN, "jti": secrets.token_urlsafe(16)}
    if user.camera_access is not None:
        claims["camera_access"] = list(user.camera_access)
    if user.streams is not None:
        claims |= write_streams(user.streams, paths_of(services.cameras))
    token = await _sign(services, claims, services.shared_secrets[0] if services.shared_secrets else "RS256", epoch)
    services.logins.confirm(user, session.transport)
    return Login(
        status="success",
        message="Login successful",
        token=token,
        expires_in=EXPIRES_IN,
        token_type="Bearer",  # noqa: S106 (the scheme of RFC 6750)
        user=LoggedIn(user.name, [user.role]),
    )


class CreateStreamTokenParams(msgspec.Struct, frozen=True):
    """Name and password of a user; `alg` ES256 makes a shorter token, for players that take short URLs only."""

    username: _Text
    password: _Text
    alg: Algorithm = "RS256"


class StreamToken(msgspec.Struct, frozen=True):
    """A token for streams only; `permissions` are the streams that it names. `expires_in` seconds."""

    token: str
    token_type: str
    expires_in: int
    permissions: StreamAccess


@operation(
    "none",
    rest=post("/api/token", source="body"),
    no_command="edged token issue signs such a token without a password",
    counted_as="logins",
)
async def create_stream_token(call: OperationCall, params: CreateStreamTokenParams) -> StreamToken:
    """A token that a MediaMTX in jwt mode with our JWKS accepts, for a user's name and password (contract S4-3 to
    S4-8).

    It names the streams that the user was given, or else those of the cameras that the user may see; it has no role,
    and opens nothing else of edged.
    """
    services, session = call.services, call.session
    user, epoch = await services.logins.enter(
        params.username, params.password, session.peer.address, session.transport, is_near=session.is_near
    )
    streams = _streams_of(user, services)
    claims = issue_claims(
        user.name,
        role=None,
        now=services.clock.now(),
        expires_in=EXPIRES_IN,
        extra=write_streams(streams, paths_of(services.cameras)),
    )
    token = await _sign(services, claims, params.alg, epoch)
    services.logins.confirm(user, session.transport)
    return StreamToken(
        token=token,
        token_type="Bearer",  # noqa: S106 (the scheme of RFC 6750)
        expires_in=EXPIRES_IN,
        permissions=StreamAccess(sorted(streams.read), sorted(streams.publish)),
    )


async def _sign(services: Services, claims: Mapping[str, object], key: SharedSecret | Algorithm, epoch: int) -> str:
    """A token with edged as issuer, and the epoch of now (contract 10.8, 10.18)."""
    claims = {**claims, "iss": services.keyring.issuer, "epoch": epoch}
    return sign(claims, key) if isinstance(key, SharedSecret) else await services.keyring.sign(claims, key)


def _streams_of(user: UserRecord, services: Services) -> Streams:
    """The streams that a user was given, or the paths of the present cameras that the user may read and publish
    (contract 7.5)."""
    if user.streams is not None:
        return user.streams
    rights, now = user.rights, services.clock.now()
    read, publish = (
        frozenset(
            camera.name
            for camera in services.cameras.all()
            if decide(rights, capability, camera_resource(camera), now=now).allowed
        )
        for capability in ("stream:read", "stream:publish")
    )
    return Streams(read, publish)
