"""[auth] and [auth.issuers.NAME]: which tokens are accepted, and what signs our own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, field

from edged.config.sections import Section
from edged.urls import is_loopback


class IssuerSettings(Section, frozen=True, kw_only=True):
    ""

    """An external issuer whose tokens are accepted; its public keys come from `jwks` or from `key`, not both."""

    issuer: Annotated[
        str,
        Meta(
            max_length=256,
            description='Accepted JWT issuer (iss); "" accepts tokens without iss, which requires a key file.',
        ),
    ]
    jwks: Annotated[
        str,
        Meta(
            description="Its JWK set: an absolute path, or an https:// URL (http:// on this machine only), "
            "fetched every hour; if a fetch fails, the last good keys stay in use."
        ),
    ] = ""
    key: Annotated[
        str, Meta(description="Path of a PEM file with its public key, read at start-up; an alternative to jwks.")
    ] = ""
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384"], ...],
        Meta(min_length=1, description="Accepted signature algorithms."),
    ] = ("RS256", "ES256")
    audience: Annotated[
        tuple[str, ...],
        Meta(description="Accepted JWT audiences (aud); if empty, tokens must not have an aud."),
    ] = ()
    ceiling: Annotated[
        Literal["monitor", "viewer", "operator", "admin"],
        Meta(description="Maximum role that its tokens can give."),
    ] = "viewer"
    roles_claim: Annotated[
        str,
        Meta(
            max_length=256,
            description='Claim that names the roles; nested claims with dots, as in realm_access.roles; "" '
            "means role and roles.",
        ),
    ] = ""
    roles: Annotated[
        dict[str, Literal["monitor", "viewer", "operator", "user", "admin"]],
        Meta(
            description="Mapping of its role names to roles of edged, as [auth.issuers.NAME.roles]: ITS_ROLE = "
            '"viewer". Role names that are not listed give no rights. If empty, its tokens must use role names '
            "of edged."
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.jwks) == bool(self.key):
            raise ValueError("exactly one of jwks and key must be set")
        if not self.issuer and not self.key:
            raise ValueError('issuer "" needs a key file: with a JWK set, tokens of any issuer would be accepted')
        if self.key and not self.key.startswith("/"):
            raise ValueError("key must be an absolute path")
        if self.jwks and not self.jwks.startswith("/"):
            check_key_url(self.jwks)


def check_key_url(text: str) -> None:
    """Raises ValueError unless keys may be fetched from this URL: over TLS, or from this machine."""
    url = urlsplit(text)
    if url.scheme not in ("https", "http") or not url.hostname:
        raise ValueError("jwks must be an absolute path or an https:// URL")
    if "@" in url.netloc:
        raise ValueError("jwks must not contain a user name or password")
    if not text.isascii() or not text.isprintable() or " " in text or url.fragment:
        raise ValueError("jwks must be an ASCII URL without spaces and without a fragment (#)")
    # Raises ValueError for an invalid port.
    _ = url.port
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError(
            "jwks with http:// is allowed on this machine only, others could change the keys: use https://"
        )


class AuthSettings(Section, frozen=True, kw_only=True):
    """Accepted tokens, signing keys and passwords."""

    shared_secrets: Annotated[
        dict[str, str],
        Meta(
            description="Shared secrets (HS256) whose tokens are accepted: name = file (mode 0600), or name = "
            "credential:NAME for the systemd credential edged.NAME. A systemd credential "
            "edged.shared_secret.NAME needs no entry. If empty, only tokens signed by edged and by auth.issuers "
            "are accepted."
        ),
    ] = field(default_factory=dict)
    shared_issuers: Annotated[
        tuple[str, ...],
        Meta(
            description="Accepted JWT issuers (iss) of tokens signed with a shared secret, in addition to auth.issuer."
        ),
    ] = ("camera-service",)
    shared_audiences: Annotated[
        tuple[str, ...], Meta(description="Accepted JWT audiences (aud) of tokens signed with a shared secret.")
    ] = ("camera-clients",)
    issuer: Annotated[
        str, Meta(min_length=1, max_length=128, description="JWT issuer (iss) of the tokens that edged signs.")
    ] = "edged"
    signing_key_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="Days between automatic rotations of the signing keys; a new key is published two hours "
            "before it signs. 0 disables rotation.",
        ),
    ] = 90
    issuers: Annotated[
        dict[str, IssuerSettings],
        Meta(description="External issuers, each as [auth.issuers.NAME]; eight at most."),
    ] = field(default_factory=dict)
    local_keys: Annotated[
        Literal["root", "off"],
        Meta(
            description="Who may manage API keys over loopback HTTP without a credential: root (as the kernel "
            'reports the client), or nobody (off). Set "off" if a program that runs as root forwards requests '
            "of others. The unix socket is not affected."
        ),
    ] = "root"
    demo_login: Annotated[
        bool,
        Meta(
            description="Allow the user demo to log in with the password demo from this machine; refused unless "
            "edged listens on loopback only."
        ),
    ] = False
    leeway: Annotated[
        float,
        Meta(
            ge=0, description="Tolerated clock skew, seconds: how far in the future the iat and nbf of a token may be."
        ),
    ] = 60.0
    password_cost: Annotated[
        int,
        Meta(
            ge=2,
            le=10,
            description="Minimum number of argon2id passes (over 19 MiB) for a password hash, 2 to 10. A fast machine "
            "uses more; stored hashes are updated at the next login.",
        ),
    ] = 2
    keep_ended_days: Annotated[
        int,
        Meta(
            ge=32,
            le=3650,
            description="Days that an API key or a service token is listed after it was revoked, or an API "
            "key after it has expired; then it is deleted, and is refused as an unknown one. Imported ones that were "
            "revoked are kept. At least 32 days: a token that a key issued lives for 30.",
        ),
    ] = 90
    refresh_grace_seconds: Annotated[
        float,
        Meta(ge=0, le=86400, description="How many seconds after its expiry a token can still be refreshed."),
    ] = 300.0
