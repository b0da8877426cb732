"""Revocations, by identity and by time (contract 10.1, 10.8)."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET

from edged.clock import iso
from edged.credentials.claims import LEEWAY
from edged.credentials.identities import ALL, Identity, Kind
from edged.errors import InvalidParams
from edged.operations.catalogue import OperationCall, operation
from edged.operations.makers import Ids, deny_made
from edged.operations.pages import Cursor, Limit, NextCursor, Offset, Place, Rows, make_page, sort_rows
from edged.operations.params import read_time
from edged.operations.rest import create, get
from edged.store.revocations import CutOff, Revocation

_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_LONGEST: Final = 256
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST)]
#: The kind of what is revoked → the member by which it was named.
_MEMBERS: Final = {
    Kind.ANY_JTI: "jti",
    Kind.TOKEN: "token_hash",
    Kind.KEY: "key_id",
    Kind.USER: "subject",
    Kind.ISSUER: "issuer",
}
#: What the list names besides: those of one issuer, and what has operations of its own that deny it.
_SHOWN: Final = _MEMBERS | {
    Kind.JTI: "jti",
    Kind.SUBJECT: "subject",
    Kind.SERVICE_TOKEN: "service_token_id",
    Kind.SIGNING_KEY: "kid",
    Kind.FAMILY: "family_id",
}


class ListRevocationsParams(msgspec.Struct, frozen=True):
    """A page, the newest first: behind those that came with `cursor` as `next_cursor`, or after `offset`."""

    limit: Limit = 100
    offset: Offset = 0
    cursor: Cursor | None = None


class RevocationItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A revocation, with the members by which it was requested; times ISO 8601. `kid`: a signing key; `family_id`:
    all tokens that came of one by refreshing, and were revoked with one of them.

    `at` is when it was made, `until` when it ends by itself, where that is known. `provisional`: `before` was set by
    an untrusted clock; it is corrected as soon as a time server or root confirms the time.
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
    also_revoked: Ids = UNSET


class RevocationList(msgspec.Struct, frozen=True):
    """`total` counts all of them, also those on other pages."""

    revocations: Rows[RevocationItem]
    total: int
    next_cursor: NextCursor = UNSET


@operation("tokens:revoke", rest=get("/api/revocations"), counted_as="revocations")
async def list_revocations(call: OperationCall, params: ListRevocationsParams) -> RevocationList:
    """All revocations, the newest first."""
    services = call.services
    items, total = await services.revocations.load_pending_and_lines()
    own = services.keyring.issuer

    def show(item: Revocation | CutOff) -> RevocationItem:
        if isinstance(item, Revocation):
            return RevocationItem(
                at=iso(item.at), reason=item.reason, until=_iso(item.until), **_name(item.identity, own)
            )
        return RevocationItem(at=iso(item.at), reason=item.reason, **_name(item.scope, own), **_describe(item))

    def place(item: Revocation | CutOff) -> Place:
        # A scope has two cut-offs where an untrusted clock set one of them.
        if isinstance(item, Revocation):
            return item.at, str(item.identity)
        return item.at, f"{item.scope} {item.drawn is None}"

    items = sort_rows(items, "at", place)
    rows, cursor = await make_page(
        call, items, place, show, limit=params.limit, cursor=params.cursor, offset=params.offset, newest_first=True,
        load=services.revocations.load_page,
    )  # fmt: skip
    return RevocationList(rows, total, cursor)


class RevokeParams(msgspec.Struct, frozen=True):
    """Exactly one of the first five; or `before`, alone or beside `subject` or `issuer`.

    `subject` is that of the tokens, `token_hash` the SHA-256 of a token's text in hex, `before` ISO 8601 or `now`. A
    jti or a subject is that of every issuer, or only of the `issuer` beside it. `include_made`: also the keys and
    service tokens that were created with it, which takes keys:admin.
    """

    jti: Text | None = None
    token_hash: Text | None = None
    key_id: Text | None = None
    subject: Text | None = None
    issuer: Text | None = None
    before: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""
    include_made: bool = False


@operation("tokens:revoke", rest=create("/api/revocations"), counted_as="revocations")
async def revoke(call: OperationCall, params: RevokeParams) -> RevocationItem:
    """Revoke a token, a key, a subject, an issuer, or every token that was issued up to a moment.

    In force at once, sessions ended, durable before this answers. Idempotent. A key takes keys:admin as well. Keys
    of a user are suspended with the subject. A revocation is for good, but `before` leaves tokens that are issued
    later, and all keys. Without `before` the subject that is the last administrator, and the issuer of edged's own
    tokens, are refused.
    """
    services, by = call.services, call.session.id
    named = _read_named(params)
    now, before, provisional = services.clock.now(), None, False
    also: Ids = UNSET
    if params.before is not None:
        line = None if params.before == "now" else _read_before(params.before, now)
        before, provisional = now if line is None else line, line is None and not services.clock.is_trusted
        await services.revocations.cut_off(_scope(call, params), line, by, params.reason)
    elif params.subject or named == ["issuer"]:
        kind: Literal["subject", "issuer"] = "subject" if params.subject else "issuer"
        await services.users.revoke(_scope(call, params), kind, by, params.reason)
    else:
        if params.key_id or params.include_made:
            services.gate.authorize(call.session.caller, "keys:admin", call.session.transport)
        identities = frozenset({_credential(call, params)})
        if params.key_id:
            pending: Awaitable[object] = services.api_keys.revoke(params.key_id, by, params.reason)
        else:
            pending = services.registrar.revoke_token(identities, None, by, reason=params.reason)
        also, due = deny_made(call, identities, params.include_made)
        await pending
        await services.registrar.settle(due)
    names = {name: getattr(params, name) for name in named}
    return RevocationItem(
        at=iso(now), reason=params.reason, before=_iso(before), provisional=provisional, also_revoked=also, **names
    )


def _read_named(params: RevokeParams) -> list[str]:
    """The members that name something. Raises InvalidParams for a combination that is not allowed."""
    named = [name for name in _MEMBERS.values() if getattr(params, name)]
    pairs = {"issuer", "subject"}, {"issuer", "jti"}
    if params.before is not None:
        if not set(named) <= {"subject", "issuer"}:
            raise InvalidParams("before goes alone, or with subject, issuer or both")
    elif len(named) != 1 and set(named) not in pairs:
        raise InvalidParams(
            f"give exactly one of {', '.join(_MEMBERS.values())}, before; or issuer with jti or subject"
        )
    if params.include_made and not set(named) & {"jti", "token_hash", "key_id"}:
        raise InvalidParams("include_made goes with jti, token_hash or key_id", hint="leave it out here")
    if params.token_hash and not _HASH.match(params.token_hash):
        raise InvalidParams("token_hash is not 64 hex digits", hint="it is the SHA-256 of the token's text")
    return named


def _credential(call: OperationCall, params: RevokeParams) -> Identity:
    """The identity of a key or a token."""
    if params.key_id:
        return Identity.of_key(params.key_id)
    if params.token_hash:
        return Identity.of_token_hash(params.token_hash)
    jti = params.jti or ""
    if not params.issuer:
        return Identity.of_any_jti(jti)
    return Identity.of_jti(_find_issuer(call, params.issuer), jti)


def _scope(call: OperationCall, params: RevokeParams) -> Identity:
    if params.subject and params.issuer:
        return Identity.of_subject(_find_issuer(call, params.issuer), params.subject)
    if params.subject:
        return Identity.of_user(params.subject)
    return Identity.of_issuer(params.issuer) if params.issuer else ALL


def _find_issuer(call: OperationCall, issuer: str) -> str:
    """The issuer as identities name it (Caller.issuer), for the `iss` of tokens. Raises InvalidParams."""
    services = call.services
    if (found := services.gate.find_issuer(issuer)) is not None:
        return found
    if issuer == services.keyring.issuer or any(issuer in secret.trust.issuers for secret in services.shared_secrets):
        return ""
    raise InvalidParams(f"nobody is trusted by the iss {issuer[:64]!r}", hint="edged config show, [auth.issuers]")


def _name(identity: Identity, own: str) -> dict[str, Any]:
    """`user:ann` → `subject` ann; nothing for the scope of all. `own` is what our tokens say as `iss`."""
    member, issuer = _SHOWN.get(identity.kind), identity.issuer
    if member is None:
        return {}
    return {member: identity.name} if issuer is None else {member: identity.name, "issuer": issuer or own}


def _describe(line: CutOff) -> dict[str, Any]:
    return {"before": iso(line.before), "provisional": line.drawn is not None}


def _read_before(text: str, now: float) -> float:
    """Unix seconds. Raises InvalidParams for a moment in the future."""
    before = read_time("before", text)
    if before > now + LEEWAY:
        raise InvalidParams("before lies in the future", hint="now is the latest line that can be drawn")
    return before


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)
