"""Scopes: what a token is within, so that a revocation or a cut-off of a subject or an issuer hits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edged.credentials.identities import ALL, Identity, Kind


def scopes_of(
    subject: str, issuer: str, claims: Mapping[str, object], issued_by: Iterable[Identity]
) -> tuple[Identity, ...]:
    """What a token with these claims is within; nothing without claims. `subject` and `issuer` as in Caller."""
    if not claims:
        return ()
    named_issuer, written = claims.get("iss"), claims.get("sub")
    named = [Identity.of_issuer(named_issuer)] if isinstance(named_issuer, str) else []
    if isinstance(written, str) and written != subject:
        named += [Identity.of_user(written), Identity.of_subject(issuer, written)]
    for maker in issued_by:
        if maker.kind is Kind.USER:
            named += [maker, Identity.of_subject("", maker.value)]
        elif maker.kind in (Kind.MAKER, Kind.OLD_MAKER):
            named.append(Identity.of_user(maker.name))
            if maker.issuer is not None:
                named.append(Identity.of_subject(maker.issuer, maker.name))
                # What a revoked issuer's token has issued ends with it.
                named.append(Identity.of_issuer(maker.issuer))
    return (ALL, Identity.of_user(subject), Identity.of_subject(issuer, subject), *named)
