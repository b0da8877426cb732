"""Revocations: what is denied, by name and by time (contract 10.1, 10.8)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

from edged.access.ledger import ALL, issuer_identity, user_identity
from edged.access.registrar import Kind
from edged.clock import iso
from edged.credentials.claims import LEEWAY
from edged.errors import InvalidParams
from edged.operations.api_keys import read_time
from edged.operations.catalogue import Call, operation
from edged.store.revocations import CutOff

_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_LONGEST: Final = 256
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST)]
#: What a revocation's identity begins with → the member by which it was named.
_MEMBERS: Final = {"jti": "jti", "token": "token_hash", "key": "key_id", "user": "subject", "issuer": "issuer"}
#: What the list names besides: those have operations of their own that deny them.
_SHOWN: Final = _MEMBERS | {"service": "service_token_id", "signing_key": "kid", "family": "family_id"}
#: The other way round, for what one name stands for.
_TOKENS: Final = {"jti": "jti", "token_hash": "token"}


class ListRevocationsParams(msgspec.Struct, frozen=True):
    """A page, the newest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class RevocationItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is denied: named by exactly the members by which it was asked for; times ISO 8601. `kid`: a signing key;
    `family_id`: all that came of one token by refreshing, which ended with one of them.

    `at` is when it was denied, `until` when it ends by itself, where that is known. `provisional`: `before` is what an
    untrusted clock says of that moment; it is set right as soon as a time server or root vouches for one.
    """

    at: str
    reason: str
    jti: str | None = None
    token_hash: str | None = None
    key_id: str | None = None
    subject: str | None = None
    issuer: str | None = None
    service_token_id: str | None = None
    kid: str | None = None
    family_id: str | None = None
    before: str | None = None
    until: str | None = None
    provisional: bool = False


class RevocationList(msgspec.Struct, frozen=True):
    """`total` counts all of them, also those on other pages."""

    revocations: list[RevocationItem]
    total: int


@operation("tokens:revoke")
async def list_revocations(call: Call, params: ListRevocationsParams) -> RevocationList:
    """Everything that is denied, the newest first."""
    named, lines = await call.house.revocations.list_all()
    items: list[tuple[float, dict[str, Any], float | None, str]]
    items = [(item.at, _name(item.identity), item.until, item.reason) for item in named]
    items += [(line.at, {**_name(line.scope), **_describe(line)}, None, line.reason) for line in lines]
    items.sort(key=lambda item: item[0], reverse=True)
    page = items[params.offset : params.offset + params.limit]
    shown = [RevocationItem(at=iso(at), reason=why, until=_iso(until), **names) for at, names, until, why in page]
    return RevocationList(shown, len(items))


class RevokeParams(msgspec.Struct, frozen=True):
    """Exactly one of the first five; or `before`, for all tokens or those of the `subject` or `issuer` beside it.

    `subject` is what the tokens say, `token_hash` the SHA-256 of a token's text in hex, `before` ISO 8601 or `now`.
    """

    jti: Text | None = None
    token_hash: Text | None = None
    key_id: Text | None = None
    subject: Text | None = None
    issuer: Text | None = None
    before: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


@operation("tokens:revoke")
async def revoke(call: Call, params: RevokeParams) -> RevocationItem:
    """Deny a token, a key, a subject, an issuer, or every token that was issued up to a moment.

    Denied at once, everything that it opened ended, durable before this answers. Again is fine. A key needs
    keys:admin, too. A user's keys are suspended with their subject. For good, except for `before`: tokens that are
    issued later are good, and keys untouched. So without it the subject that is the last administrator stays, and
    edged's own issuer, by which everybody logs in.
    """
    named = [name for name in _MEMBERS.values() if getattr(params, name)]
    by = call.session.id
    now, before, provisional = call.house.clock.now(), None, False
    if params.before is not None:
        if len(named) > 1 or not set(named) <= {"subject", "issuer"}:
            raise InvalidParams("before goes alone, or with one of subject, issuer")
        line = None if params.before == "now" else _read_before(params.before, now)
        before, provisional = now if line is None else line, line is None and not call.house.clock.is_trusted
        await call.house.revocations.cut_off(_scope(params), line, by, params.reason)
    elif len(named) != 1:
        raise InvalidParams(f"give exactly one of {', '.join(_MEMBERS.values())}, before")
    elif params.key_id:
        call.house.gate.authorize(call.session.caller, "keys:admin", call.session.transport)
        await call.house.api_keys.revoke(params.key_id, by, params.reason)
    elif named[0] in _TOKENS:
        if params.token_hash and not _HASH.match(params.token_hash):
            raise InvalidParams("token_hash is not 64 hex digits", hint="it is the SHA-256 of the token's text")
        identity = f"{_TOKENS[named[0]]}:{getattr(params, named[0])}"
        await call.house.registrar.revoke_token(frozenset({identity}), None, by, reason=params.reason)
    else:
        kind: Kind = "subject" if params.subject else "issuer"
        await call.house.users.revoke(_scope(params), kind, by, params.reason)
    names = {name: getattr(params, name) for name in named}
    return RevocationItem(at=iso(now), reason=params.reason, before=_iso(before), provisional=provisional, **names)


def _scope(params: RevokeParams) -> str:
    if params.subject:
        return user_identity(params.subject)
    return issuer_identity(params.issuer) if params.issuer else ALL


def _name(identity: str) -> dict[str, str]:
    """`user:ann` → `subject` ann; nothing for the scope of all."""
    kind, _, name = identity.partition(":")
    return {_SHOWN[kind]: name} if kind in _SHOWN else {}


def _describe(line: CutOff) -> dict[str, Any]:
    return {"before": iso(line.before), "provisional": line.drawn is not None}


def _read_before(text: str, now: float) -> float:
    """Unix seconds. Raises InvalidParams for a moment that is yet to come: nothing issued until then would be good."""
    before = read_time("before", text)
    if before > now + LEEWAY:
        raise InvalidParams("before lies in the future", hint="now is the latest line that can be drawn")
    return before


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)
