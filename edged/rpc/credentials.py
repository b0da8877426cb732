"""The credentials in the params of a call, and in the head of the upgrade (contract 3, 5)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edged.credentials.callers import ApiKey, Credential, NoCredential, Token, parse_credential
from edged.errors import NOT_JSON
from edged.operations.sessions import AuthenticateParams
from edged.wire.jsonrpc import ABSENT, Call

_decode_authenticate = msgspec.json.Decoder(AuthenticateParams).decode


def read_authenticate(call: Call) -> AuthenticateParams | None:
    """The credential members of a call's params; None where there are none, or they are not understood."""
    if call.params is ABSENT:
        return None
    try:
        return _decode_authenticate(call.params)
    except NOT_JSON:
        return None


def presented(call: Call, members: frozenset[str] | None = None) -> Credential:
    """The credential in a call's params; with `members`, only in these."""
    given = read_authenticate(call)
    if given is None:
        return NoCredential()
    token = given.token if members is None or "token" in members else None
    text = token if token is not None else given.auth_token
    return parse_credential(text or "", given.auth_type or "auto")


def header_credentials(headers: Mapping[str, str]) -> list[ApiKey | Token]:
    """The credentials in the head of an upgrade, in the order of contract 5; `headers` by lower-case names."""
    found: list[ApiKey | Token] = []
    scheme, _, text = headers.get("authorization", "").partition(" ")
    shown = parse_credential(text.strip()) if scheme.lower() == "bearer" else None
    if isinstance(shown, (ApiKey, Token)):
        found.append(shown)
    if key := headers.get("x-api-key", "").strip():
        found.append(ApiKey(key))
    return found
