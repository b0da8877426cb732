"""Scopes: what a token is within, so that a revocation or a cut-off of a subject or an issuer hits it."""

from __future__ import annotations

from edged.credentials.callers import Caller
from edged.credentials.identities import ALL, Identity, Kind
from edged.credentials.users import login_subject


def scopes_of(caller: Caller) -> tuple[Identity, ...]:
    """What a caller is within if a token made it, from what its claims say; nothing for every other caller."""
    if not caller.claims:
        return ()
    issuer, written = caller.claims.get("iss"), caller.claims.get("sub")
    named = [Identity.of_issuer(issuer)] if isinstance(issuer, str) else []
    if isinstance(written, str) and written != caller.subject:
        named += [Identity.of_user(written), Identity.of_subject(caller.issuer, written)]
    for maker in caller.issued_by:
        if maker.kind is Kind.USER:
            named += [maker, Identity.of_subject("", maker.value)]
        elif maker.kind in (Kind.MAKER, Kind.OLD_MAKER):
            named.append(Identity.of_user(maker.name))
            if maker.issuer is not None:
                named.append(Identity.of_subject(maker.issuer, maker.name))
                # What a revoked issuer's token has issued ends with it.
                named.append(Identity.of_issuer(maker.issuer))
    return (ALL, Identity.of_user(caller.subject), Identity.of_subject(caller.issuer, caller.subject), *named)


def login_identities(name: str) -> tuple[Identity, ...]:
    """By what a revocation of a subject hits every login of a user (`scopes_of`)."""
    written = login_subject(name)
    of_user, of_subject = Identity.of_user, Identity.of_subject
    return of_user(name), of_user(written), of_subject("", name), of_subject("", written)
