"""What is known of a token or a key, for validate_token and RFC 7662 (contract 10.1)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edged.credentials.api_keys import digest
from edged.credentials.callers import Caller
from edged.credentials.identities import Identity
from edged.credentials.roles import SELF
from edged.credentials.tokens import TokenRefused
from edged.operations.catalogue import OperationCall, operation
from edged.operations.rest import post
from edged.operations.services import Services


def find_key(services: Services, text: str) -> Caller | None:
    """The caller of an API key or a service token by its text, good or not; None if it is neither."""
    shown = digest(text)
    return services.ledger.find_key(shown) or services.ledger.find_service_token(shown)


def authorize_look(call: OperationCall, text: str) -> None:
    """One's own token or key for anybody, any with audit:read. Raises Refused."""
    services, caller = call.services, call.session.caller
    names = {Identity.of_token(text)}
    if (key := find_key(services, text)) is not None:
        names |= key.identities
    if caller is None or names.isdisjoint(caller.identities):
        services.gate.authorize(caller, "audit:read", call.session.transport)


class IntrospectTokenParams(msgspec.Struct, frozen=True):
    """A token, an API key, or a service token."""

    token: Annotated[str, msgspec.Meta(min_length=1)]


class Introspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 7662, section 2.2; `scope` is what the holder may do now. Only `active` for one that is not good."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: str | None = None
    exp: int | None = None
    iat: int | None = None
    nbf: int | None = None
    sub: str | None = None
    aud: str | list[str] | None = None
    iss: str | None = None
    jti: str | None = None


@operation(
    "self",
    rest=post("/oauth/introspect", source="body"),
    no_command="edged token verify says more (validate_token)",
    counted_as="tokens",
)
def introspect_token(call: OperationCall, params: IntrospectTokenParams) -> Introspection:
    """Whether a token or key is good, whose it is, and what its holder may do. Permitted as validate_token is."""
    authorize_look(call, params.token)
    held = _find_good(call.services, params.token)
    if held is None:
        return Introspection(active=False)
    held = call.services.gate.current(held)
    claims = held.claims or _facts_of(call.services, held)
    return Introspection(
        active=True,
        scope=" ".join(sorted(held.capabilities | held.grants)),
        client_id=_text(claims.get("client_id")),
        username=held.name,
        token_type="Bearer",  # noqa: S106 (the scheme of RFC 6750)
        exp=_seconds(claims.get("exp")),
        iat=_seconds(claims.get("iat")),
        nbf=_seconds(claims.get("nbf")),
        sub=held.subject,
        aud=_audience(claims.get("aud")),
        iss=_text(claims.get("iss")),
        jti=_text(claims.get("jti")),
    )


def _find_good(services: Services, text: str) -> Caller | None:
    """The caller of a token, an API key or a service token that is good now; not counted as a use."""
    if (key := find_key(services, text)) is not None:
        return key if services.gate.judge(key, SELF).allowed else None
    try:
        return services.gate.verify_token(text)
    except TokenRefused:
        return None


def _facts_of(services: Services, key: Caller) -> dict[str, object]:
    """An API key or a service token in the names of claims."""
    ledger, name = services.ledger, key.credential_id
    record = ledger.service_tokens[name] if key.method == "service_token" else ledger.keys[name]
    return {"iat": record.created_at, "exp": ledger.end_of(key), "client_id": name}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> int | None:
    """Whole seconds, as in RFC 7662; claims may have fractions."""
    return int(value) if isinstance(value, (int, float)) else None


def _audience(value: object) -> str | list[str] | None:
    return [str(item) for item in value] if isinstance(value, list) else _text(value)
