"""The claim dialects of the guides → a Caller (contract 7.1, 7.3).

Guide S0 says `sub, name, role, permissions, camera_access`, guide S1 `user_id, role`, guide S2 `sub,
username, roles, permissions`; all mean the same few things. A member of the wrong JSON type refuses
the token: nothing is coerced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import msgspec

from edged.credentials.callers import Caller, Signer, Streams, TokenFacts
from edged.credentials.decision import Reason
from edged.credentials.identities import MAKERS, Identity, Kind, format_all, parse_all, widen
from edged.credentials.roles import FILES, FILES_SCOPE, ROLES, canonical_role, compute, name_cameras
from edged.credentials.stream_names import from_map, from_mediamtx, to_mediamtx

#: Seconds by which `iat` and `nbf` may lie in the future (contract S0-24, section 11 auth.leeway).
LEEWAY = 60.0
_LARGEST_TIME = float(2**53)
_MOST_PERMISSIONS = 64
_LONGEST_NAME = 128
#: Scopes that every identity provider writes into the tokens of a login (OpenID Connect Core 3.1.2.1, 5.4, 11): as
#: permissions they would narrow every role to nothing.
_OF_A_LOGIN = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})
#: Through how many hands a token may have been issued, and by how many names it says so: each adds up to four.
_MOST_HANDS = 8
_MOST_ISSUERS = 4 * _MOST_HANDS
_HANDS = (Kind.KEY, Kind.JTI, Kind.MAKER)
#: Details of refusals of which guide S0's validator has words of its own.
NO_SUBJECT = "neither user_id nor sub"
FUTURE = "{} lies in the future"
#: Of a subject and of a jti, characters: a revocation names a token by no more of it.
LONGEST_ID = 256
#: No token that edged issues lives longer, seconds.
LONGEST_LIFE = 30 * 86400


class Trust(msgspec.Struct, frozen=True):
    """Whom the tokens of one key may name as issuer (`iss`), and for whom they may be (`aud`) (contract S0-3).

    A token without `aud` is for everybody; one without `iss` is taken unless `needs_issuer`. One that names `own` is
    edged's own, if nobody else has the key, or if it says its epoch (contract 10.8).
    """

    issuers: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    needs_issuer: bool = False
    own: str = ""
    #: A token must say for whom it is: one without `aud` is for nobody.
    needs_audience: bool = False


#: What edged reads of a token to decide by, or writes itself: nobody hands in anything of that as a claim of their own.
RESERVED = frozenset(
    {
        "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "user_id", "role", "roles", "permissions", "scope",
        "camera_access", "stream_access", "mediamtx_permissions", "epoch", "username", "issued_by",
    }
)  # fmt: skip

#: What guide S0 writes into its tokens.
SEED_TRUST = Trust(frozenset({"camera-service"}), frozenset({"camera-clients"}))


class ClaimsRefused(Exception):
    """The claims do not make a caller; `reason` says why, `detail` names the member."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def check_trust(claims: Mapping[str, object], trust: Trust) -> None:
    """Raises ClaimsRefused unless the token says that it is from and for whom its key's tokens may be."""
    issuer = _text(claims, "iss")
    if (issuer is None and trust.needs_issuer) or (issuer is not None and issuer not in trust.issuers):
        raise ClaimsRefused(Reason.UNTRUSTED_ISSUER, "iss is not an issuer that this key signs for")
    audience = claims.get("aud")
    if audience is None:
        if trust.needs_audience:
            raise ClaimsRefused(Reason.BAD_AUDIENCE, "aud is required and names nobody")
        return
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise ClaimsRefused(Reason.MALFORMED, "aud is neither a string nor a list of strings")
    if trust.audiences.isdisjoint(named):
        raise ClaimsRefused(Reason.BAD_AUDIENCE, "aud names somebody else")


def read_epoch(claims: Mapping[str, object], trust: Trust) -> int | None:
    """The epoch of one of edged's own tokens, None for a foreign one.

    What our key pairs signed before there were epochs is older than every one.
    """
    if not trust.own or claims.get("iss") != trust.own:
        return None
    epoch = claims.get("epoch")
    if isinstance(epoch, int) and not isinstance(epoch, bool):
        return epoch
    return 0 if trust.needs_issuer else None


def read_caller(
    claims: Mapping[str, object], token: str, *, now: float, issuer: str, leeway: float = LEEWAY,
    signed_by: Identity | None = None,
    epoch: int | None = None, may_open_files: bool = False, signer: Signer | None = None, past: float = 0.0,
    roles_of: Callable[[Mapping[str, object]], frozenset[str]] | None = None,
) -> Caller:  # fmt: skip
    """Verified claims of one token → the caller. Raises ClaimsRefused.

    `now` is Unix seconds. A token without `jti` is known by the SHA-256 of its text (contract S0-8). `signed_by` is one
    more name by which a revocation hits it: that of the key. `epoch` as `read_epoch` says. With `may_open_files` the
    scope `files` makes a caller who may do that for its own subject, and nothing else; what ends the service token that
    `client_id` names ends it, too. `signer` becomes `TokenFacts.signed_by`; `exp` may be up to `past` seconds ago.
    `roles_of` reads the roles where they are not said as edged says them (role_claims). `issuer` as in Caller.
    """
    expires = _time(claims, "exp")
    if expires is None:
        raise ClaimsRefused(Reason.NO_EXPIRY, "exp is required")
    if now >= expires + past:
        raise ClaimsRefused(Reason.EXPIRED, "exp is past")
    for name in ("nbf", "iat"):
        since = _time(claims, name)
        if since is not None and since > now + leeway:
            raise ClaimsRefused(Reason.NOT_YET_VALID, FUTURE.format(name))
    subject = _subject(claims)
    if epoch is not None:
        # A login's token calls the subject `user_<name>` (contract S2-11); who it is of is the user.
        subject = _identifier(claims, "username") or subject
    roles = roles_of(claims) if roles_of is not None else frozenset(map(canonical_role, read_roles(claims)))
    permissions = _texts(claims, "permissions")
    scope = _scope(claims)
    # The very word, as edged writes it: not one among blanks.
    names_files = claims.get("scope") in (FILES_SCOPE, [FILES_SCOPE])
    only_files = may_open_files and names_files
    names_nothing = permissions is None and (scope is None or names_files)
    if permissions is None and scope is not None:
        permissions = _permissions_of(scope)
        names_nothing = names_nothing or permissions is None
    cameras = _texts(claims, "camera_access")
    streams = _streams(claims)
    if not roles & ROLES.keys() and names_nothing and streams is None and not only_files:
        raise ClaimsRefused(Reason.ROLE_DENIED, "Invalid role")
    whole, single = compute(roles, permissions, has_streams=streams is not None)
    if only_files:
        # Whatever else it says, it opens files and nothing more (contract 7.3).
        roles, whole, single, streams = frozenset(), FILES, frozenset(), None
    jti, maker = _identifier(claims, "jti"), _identifier(claims, "client_id") if only_files else None
    text_name = Identity.of_token(token)
    identities = {text_name}
    if jti:
        identities.add(Identity.of_jti(issuer, jti))
    if maker:
        identities.add(Identity.of_service_token(maker))
    if signed_by is not None:
        identities.add(signed_by)
    issued_by = _issued_by(claims) if epoch is not None else frozenset()
    shared = widen(issued_by) if issued_by else frozenset()
    return Caller(
        method="jwt_local",
        subject=subject,
        name=_text(claims, "name") or _text(claims, "username") or subject,
        roles=roles,
        capabilities=whole,
        grants=single,
        cameras=name_cameras(cameras),
        streams=streams,
        expires=expires,
        identities=frozenset(identities),
        credential_id=jti or text_name.value,
        permissions=tuple(permissions or ()),
        token=TokenFacts(
            claims=dict(claims),
            subject=subject,
            issuer=issuer,
            epoch=epoch,
            signed_by=signer,
            issued_by=issued_by,
            shared=shared | {Identity.of_any_jti(jti)} if jti else shared,
        ),
        only_files=only_files,
    )


def read_roles(claims: Mapping[str, object]) -> list[str]:
    """`role` and `roles` (contract 7.1). Raises ClaimsRefused."""
    return [*_optional_text(claims, "role"), *(_texts(claims, "roles") or ())]


def _scope(claims: Mapping[str, object]) -> list[str] | None:
    """The words of `scope`: a string with blanks between (RFC 8693 4.2), or a list of strings, as some providers have
    it."""
    value = claims.get("scope")
    if value is None:
        return None
    said = [value] if isinstance(value, str) else value
    if not isinstance(said, list) or not all(isinstance(item, str) for item in said):
        raise ClaimsRefused(Reason.MALFORMED, "scope is neither a string nor a list of strings")
    return _bounded([word for item in said for word in item.split()], "scope")


def _permissions_of(scope: list[str]) -> list[str] | None:
    """What a scope permits; None if it only says what others may be told of the subject, as a login's does."""
    permissions = [word for word in scope if word not in _OF_A_LOGIN]
    return permissions if permissions or not scope else None


def _subject(claims: Mapping[str, object]) -> str:
    user, sub = _identifier(claims, "user_id"), _identifier(claims, "sub")
    if user and sub and user != sub:
        raise ClaimsRefused(Reason.MALFORMED, "user_id and sub name different subjects")
    if not (user or sub):
        raise ClaimsRefused(Reason.MALFORMED, NO_SUBJECT)
    return user or sub or ""


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ClaimsRefused(Reason.MALFORMED, f"{name} is not a string")
    return value


def _identifier(claims: Mapping[str, object], name: str) -> str | None:
    """Text that names something: it goes to logs and lists, and is what a revocation says."""
    value = _text(claims, name)
    if value is not None and (len(value) > LONGEST_ID or not value.isprintable()):
        raise ClaimsRefused(Reason.MALFORMED, f"{name} is longer than {LONGEST_ID} characters or not printable")
    return value


def _optional_text(claims: Mapping[str, object], name: str) -> list[str]:
    value = _text(claims, name)
    return [] if value is None else [value]


def _texts(claims: Mapping[str, object], name: str) -> list[str] | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ClaimsRefused(Reason.MALFORMED, f"{name} is not a list of strings")
    return _bounded(cast("list[str]", value), name)


def _bounded(texts: list[str], name: str) -> list[str]:
    if len(texts) > _MOST_PERMISSIONS or any(len(text) > _LONGEST_NAME for text in texts):
        raise ClaimsRefused(
            Reason.MALFORMED, f"{name} is longer than {_MOST_PERMISSIONS} entries of {_LONGEST_NAME} characters"
        )
    return texts


def _time(claims: Mapping[str, object], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ClaimsRefused(Reason.MALFORMED, f"{name} is not a number of seconds")
    # Put so that NaN is refused too; a whole number of any size can be compared, but not made a float.
    if not abs(value) <= _LARGEST_TIME:
        raise ClaimsRefused(Reason.MALFORMED, f"{name} is out of range")
    return float(value)


def write_issued_by(caller: Caller) -> list[str]:
    """The claim `issued_by` of a token that this caller has issued, which names who it came of in the end and who came
    between. Raises ClaimsRefused for one that came through too many hands."""
    names = makers_of(caller)
    hands = sum(name.kind in _HANDS for name in names)
    if hands > _MOST_HANDS or len(names) > _MOST_ISSUERS:
        raise ClaimsRefused(Reason.MALFORMED, f"it would be issued through more than {_MOST_HANDS} hands")
    return format_all(names)


def makers_of(caller: Caller) -> frozenset[Identity]:
    """By which names whatever this caller makes is known as its own: an API key by its id; a token by its own names,
    those of the key pair that signed it, of its subject, and of what it was issued by. Nothing for whoever is root on
    the box."""
    if caller.method == "peercred":
        return caller.issued_by
    if caller.method == "api_key":
        return caller.issued_by | {Identity.of_key(caller.credential_id)}
    own = {name for name in caller.identities if name.kind in MAKERS}
    subject = caller.subject
    is_users = caller.epoch is not None
    own.add(Identity.of_user(subject) if is_users else Identity.of_maker(caller.issuer, subject))
    return caller.issued_by | own


def _issued_by(claims: Mapping[str, object]) -> frozenset[Identity]:
    names = claims.get("issued_by")
    if names is None:
        return frozenset()
    if (
        not isinstance(names, list)
        or len(names) > _MOST_ISSUERS
        or not all(isinstance(name, str) and Identity.parse(name).kind in MAKERS for name in names)
    ):
        raise ClaimsRefused(Reason.MALFORMED, "issued_by is not a list of users, subjects, tokens and keys")
    return parse_all(names)


def write_streams(streams: Streams, paths: Mapping[str, str] = MappingProxyType({})) -> dict[str, object]:
    """Stream rights as the claims of a token: the list that MediaMTX reads, and the map that says the same to people.

    An unknown member or action makes MediaMTX refuse the whole token; `path: ""` means every path there, so that it
    stands for `*` and for nothing else; `cam*` is an anchored expression (contract C-30 to C-32). `paths` are those of
    cameras that have another than their id: the list names both, the map, which edged itself reads, ids only.
    """
    named = {"read": sorted(streams.read), "publish": sorted(streams.publish)}
    listed = [
        {"action": action, "path": to_mediamtx(path)}
        for action, names in named.items()
        for path in (*names, *(paths[name] for name in names if name in paths and paths[name] not in names))
    ]
    return {"mediamtx_permissions": listed, "stream_access": named}


def _streams(claims: Mapping[str, object]) -> Streams | None:
    """`stream_access`, or `mediamtx_permissions` as list of {action, path} or map (contract C-30).

    edged's own tokens say the same in both; the map says `*` and `cam*` as they are. In a list `path: ""` is no grant
    here, only `*` means every stream; `~regex` is none either, but for the one that `cam*` is written as (C-32, 7.5).
    """
    value = claims.get("stream_access")
    if value is None:
        value = claims.get("mediamtx_permissions")
    if value is None:
        return None
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        read = from_map
        pairs = [(action, path) for action, paths in value.items() if isinstance(paths, list) for path in paths]
    elif isinstance(value, list):
        read = from_mediamtx
        pairs = [(item.get("action"), item.get("path")) for item in value if isinstance(item, dict)]
    else:
        raise ClaimsRefused(Reason.MALFORMED, "mediamtx_permissions is neither a list nor a map")
    named = [(action, read(path)) for action, path in pairs if isinstance(path, str)]
    return Streams(
        read=frozenset(path for action, path in named if path and action in ("read", "playback")),
        publish=frozenset(path for action, path in named if path and action == "publish"),
    )
