"""[auth] and [auth.issuers.NAME]: which tokens are accepted, and what signs our own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, field

from edged.config.addresses import is_loopback
from edged.config.sections import Section


class IssuerSettings(Section, frozen=True, kw_only=True):
    """Somebody else whose tokens are good: keys by `jwks` or `key`, one of the two."""

    issuer: Annotated[
        str,
        Meta(
            max_length=256,
            description='What its tokens say as iss; "" for tokens that say nothing, which takes a key file.',
        ),
    ]
    jwks: Annotated[
        str,
        Meta(
            description="Its JWK set: an absolute path, or an https:// URL (http:// on this machine only), which is "
            "asked each hour; the last good answer is kept."
        ),
    ] = ""
    key: Annotated[str, Meta(description="Or a file with its public key in PEM, read at the start.")] = ""
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384"], ...],
        Meta(min_length=1, description="What it signs with; any other token of it is refused."),
    ] = ("RS256", "ES256")
    audience: Annotated[
        tuple[str, ...],
        Meta(description="A token must name one of these as aud; without any here it must name none at all."),
    ] = ()
    ceiling: Annotated[
        Literal["monitor", "viewer", "operator", "admin"],
        Meta(description="The role above which none of its tokens rises, whatever it says."),
    ] = "viewer"
    roles_claim: Annotated[
        str,
        Meta(
            max_length=256,
            description='Where its tokens name roles: a claim, one inside others as realm_access.roles; "" is role '
            "and roles.",
        ),
    ] = ""
    roles: Annotated[
        dict[str, Literal["monitor", "viewer", "operator", "user", "admin"]],
        Meta(
            description="What its words mean here, as [auth.issuers.NAME.roles]: WORD = ROLE; any other word gives "
            "nothing. Without any it must say our own."
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.jwks) == bool(self.key):
            raise ValueError("either jwks or key must be set, and not both")
        if not self.issuer and not self.key:
            raise ValueError("an issuer without a name needs a key file: a key set would vouch for tokens of anybody")
        if self.key and not self.key.startswith("/"):
            raise ValueError("key is not an absolute path")
        if self.jwks and not self.jwks.startswith("/"):
            check_key_url(self.jwks)


def check_key_url(text: str) -> None:
    """Raises ValueError unless keys may be fetched there: by TLS, or from this machine itself."""
    url = urlsplit(text)
    if url.scheme not in ("https", "http") or not url.hostname:
        raise ValueError("jwks is neither an absolute path nor an https:// URL")
    if "@" in url.netloc:
        raise ValueError("jwks has a user name or password in its URL")
    if not text.isascii() or not text.isprintable() or " " in text or url.fragment:
        raise ValueError("jwks is not a URL as it is sent: ASCII, without spaces and #")
    # A port that is none raises by itself.
    _ = url.port
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise ValueError("jwks by http:// would be whatever anybody on the way says: use https://")


class AuthSettings(Section, frozen=True, kw_only=True):
    """Whose tokens are good."""

    shared_secrets: Annotated[
        dict[str, str],
        Meta(
            description="HS256 secrets that sign tokens: name = file (mode 0600), or name = credential:NAME for the "
            "systemd credential edged.NAME. A credential edged.shared_secret.NAME is taken without being named here. "
            "None: only tokens that edged itself signed are good."
        ),
    ] = field(default_factory=dict)
    shared_issuers: Annotated[
        tuple[str, ...], Meta(description="Issuers (iss) that a token by a shared secret may name, beside our own.")
    ] = ("camera-service",)
    shared_audiences: Annotated[
        tuple[str, ...], Meta(description="Audiences (aud) that a token by a shared secret may be for.")
    ] = ("camera-clients",)
    issuer: Annotated[
        str, Meta(min_length=1, max_length=128, description="What tokens that edged's own key pairs sign say as iss.")
    ] = "edged"
    signing_key_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="Days after which another key pair signs, published two hours before; 0: only when you say so.",
        ),
    ] = 90
    issuers: Annotated[
        dict[str, IssuerSettings],
        Meta(description="Outside issuers, each as [auth.issuers.NAME]; eight at most."),
    ] = field(default_factory=dict)
    local_keys: Annotated[
        Literal["root", "off"],
        Meta(
            description="Who may administer API keys over loopback HTTP without showing one: root, by the kernel's "
            "word, or nobody. Off where a program of root's passes on what others ask; the unix socket stays."
        ),
    ] = "root"
    demo_login: Annotated[
        bool,
        Meta(
            description="Let the user demo with the password demo in, from this machine; refused unless edged listens "
            "on loopback only."
        ),
    ] = False
    leeway: Annotated[float, Meta(ge=0, description="Seconds by which a token may come from the future.")] = 60.0
    password_cost: Annotated[
        int,
        Meta(
            ge=2,
            le=10,
            description="Passes of argon2id over 19 MiB for each password, at least: 2 to 10. A fast box makes more; "
            "what is stored follows as its users log in.",
        ),
    ] = 2
    refresh_grace_seconds: Annotated[
        float,
        Meta(ge=0, le=86400, description="For how many seconds after its end a token may still be refreshed."),
    ] = 300.0
