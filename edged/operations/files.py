"""Tokens for the files of users (contract 5.3)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import structlog

from edged.access.asking import asked_by
from edged.credentials.roles import FILES_SCOPE
from edged.credentials.tokens import issue_claims
from edged.errors import DependencyFailed
from edged.operations.catalogue import OperationCall, operation
from edged.operations.rest import post
from edged.operations.service_tokens import act_for

#: The longest life of a files token (contract S3-19).
MOST_HOURS: Final = 24
_HOUR: Final = 3600
_log = structlog.get_logger("files")


class GenerateTokenParams(msgspec.Struct, frozen=True):
    """The user, and the life of the token in hours."""

    user_id: str
    expires_hours: Annotated[int, msgspec.Meta(ge=1, le=MOST_HOURS)] = 1


class FilesToken(msgspec.Struct, frozen=True):
    """`expires_in` seconds."""

    token: str
    user_id: str
    expires_in: int
    token_type: str


@operation(
    "token:mint",
    rest=post("/v1/files/generate-token", source="query", at_files=True),
    no_command="only a service token may ask, never an administrator",
    counted_as="service_tokens",
)
async def generate_files_token(call: OperationCall, params: GenerateTokenParams) -> FilesToken:
    """A token (RS256) for the files of one user, which a service hands to that user's program (contract S3-4)."""
    act_for(call, params.user_id)
    assert call.session.caller is not None
    keyring = call.services.keyring
    call.services.users.check_subject(params.user_id)
    if not keyring.is_published(keyring.current("RS256")):
        raise DependencyFailed("no RS256 key may sign now", hint="make one: edged signing-key create RS256")
    seconds = params.expires_hours * _HOUR
    claims = issue_claims(
        params.user_id,
        role=None,
        now=call.services.clock.now(),
        expires_in=seconds,
        # The service token that asked (RFC 9068, section 2.2): this token ends with it.
        extra={
            "scope": FILES_SCOPE,
            "epoch": await call.services.registrar.epoch(),
            "client_id": call.session.caller.credential_id,
        },
    )
    token = await keyring.sign(claims, "RS256")
    # The service token may have been revoked while the disk was busy.
    call.services.gate.authorize(call.session.caller, "token:mint", call.session.transport)
    _log.info("files_token_issued", jti=claims["jti"], subject=params.user_id, expires_in=seconds, **asked_by())
    return FilesToken(
        token=token,
        user_id=params.user_id,
        expires_in=seconds,
        token_type="Bearer",  # noqa: S106 (the scheme of RFC 6750)
    )
