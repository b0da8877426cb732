"""Every setting there is, with its default and its one line of help (contract section 11).

One frozen struct per section of the TOML files. The help is the description of the field, from which
`render` makes etc/defaults.toml; nothing is documented anywhere else. Empty paths are filled in here,
so that whoever reads `config.paths.media` gets the folder and not the question where it is.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

#: What switches an address off.
OFF = "off"
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a setting without a host asks for
_LABEL = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,63}\Z")
_PATH = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_SLOT_NAME = re.compile(r"camera[0-9]+\Z")
_CAMERA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})\Z")
_UDEV_MATCH = re.compile(r"[A-Z][A-Z0-9_]*=[^,]+(,[A-Z][A-Z0-9_]*=[^,]+)*\Z")

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8003`, `[::]:8002` or `:8554` → (host, port); no host means every interface, "".

    Port 0 lets the kernel choose. Raises ValueError with what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address is written in brackets, [{host}]:{port}")
    return host, int(port)


def expand(address: str) -> tuple[str, ...]:
    """:PORT → every IPv4 and every IPv6 address, `localhost:PORT` → both of loopback, others as they are.

    Raises ValueError as `parse_address` does.
    """
    host, port = parse_address(address)
    if host == "localhost":
        return (f"127.0.0.1:{port}", f"[::1]:{port}")
    return (address,) if host else (f"0.0.0.0:{port}", f"[::]:{port}")


def overlap(one: str, other: str) -> bool:
    """Whether two sockets could not listen at these two addresses at a time. Port 0 is never the same twice."""
    port = parse_address(one)[1]
    if port == 0 or port != parse_address(other)[1]:
        return False
    for mine, _ in map(parse_address, expand(one)):
        for theirs, _ in map(parse_address, expand(other)):
            same_family = (":" in mine) == (":" in theirs)
            if mine == theirs or (same_family and {mine, theirs} & _EVERYWHERE):
                return True
    return False


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One section of the settings."""


class PathSettings(Section, frozen=True, kw_only=True):
    """Where edged keeps its things."""

    state: Annotated[Path, Meta(description="Databases and what must outlive a restart.")] = Path("/var/lib/edged")
    runtime: Annotated[Path, Meta(description="Sockets and what a restart may lose.")] = Path("/run/edged")
    media: Annotated[Path, Meta(description='Pictures and recordings; "" is the folder media in paths.state.')] = Path()

    def __post_init__(self) -> None:
        if self.media == Path():
            msgspec.structs.force_setattr(self, "media", self.state / "media")


class ListenerPolicy(Section, frozen=True, kw_only=True):
    """What one listener shows, and to whom: [listen.policy.NAME], NAME being main, compat, local or tokens."""

    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="The paths that it answers at: exact ones, or a beginning with * behind it; at every other one "
            "there is nothing (404). A WebSocket needs /ws, and / for clients that open it there."
        ),
    ] = ("/*",)
    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Whose connections it takes: networks or single addresses; everybody else is told 403 and no "
            "more. It says exactly who: this machine is 127.0.0.0/8 and ::1, and behind a proxy the peer is the proxy."
        ),
    ] = ("0.0.0.0/0", "::/0")

    def __post_init__(self) -> None:
        for path in self.paths:
            _check_listed_path(path)
        for network in self.networks:
            _check_network(network)
        for name in ("paths", "networks"):
            if not getattr(self, name):
                raise ValueError(f'{name} is empty: to shut a listener, set its addresses to "off"')


def _check_listed_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"paths: {path!r} does not begin with /")
    if "*" in path[:-1]:
        raise ValueError(f"paths: {path!r}: a * stands at the end only")
    if not path.isprintable() or any(sign in path for sign in " ?#%"):
        raise ValueError(f"paths: {path!r} is not a path alone: no query, no blanks, nothing %-encoded")


def _check_network(text: str, key: str = "networks") -> None:
    if "%" in text:
        raise ValueError(f"{key}: {text!r}: networks have no interface")
    try:
        wide = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{key}: {text!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32") from None
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{key}: {text!r} has bits of a host: the network is {wide}") from None


class ListenPolicies(Section, frozen=True, kw_only=True):
    """The policy of each listener; the unix socket has none, its file's mode says who may open it."""

    main: Annotated[ListenerPolicy, Meta(description="Of listen.main.")] = ListenerPolicy()
    compat: Annotated[ListenerPolicy, Meta(description="Of listen.compat.")] = ListenerPolicy()
    local: Annotated[ListenerPolicy, Meta(description="Of listen.local.")] = ListenerPolicy()
    tokens: Annotated[ListenerPolicy, Meta(description="Of listen.tokens.")] = ListenerPolicy()


class ListenSettings(Section, frozen=True, kw_only=True):
    """Where edged answers; addresses are HOST:PORT, [IPV6]:PORT or :PORT (all), several a list, "off" or [] none."""

    main: Annotated[tuple[str, ...], Meta(description="WebSocket and HTTP for everybody.")] = (
        "0.0.0.0:8002",
        "[::]:8002",
    )
    compat: Annotated[
        tuple[str, ...], Meta(description="The same for clients that know only port 8080 (dialect v1).")
    ] = (
        "0.0.0.0:8080",
        "[::]:8080",
    )
    local: Annotated[tuple[str, ...], Meta(description="Health and metrics without a credential: loopback only.")] = (
        "127.0.0.1:8003",
        "[::1]:8003",
    )
    tokens: Annotated[
        tuple[str, ...],
        Meta(
            description="The same where MediaMTX servers on this machine look for the JWKS; a taken port is no error."
        ),
    ] = ("127.0.0.1:3000", "[::1]:3000")
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks or addresses of proxies whose X-Forwarded-For is believed: its right-most address "
            "that is none of these is the client's, for limits, networks of service tokens, and the log."
        ),
    ] = ()
    unix: Annotated[
        str,
        Meta(description='The local socket; "" is edged.sock in paths.runtime. Who may open it is admin.'),
    ] = ""
    policy: Annotated[
        ListenPolicies,
        Meta(
            description="What a listener shows, and to whom: [listen.policy.main], compat, local or tokens; in the "
            "environment EDGED_LISTEN_POLICY_MAIN_PATHS."
        ),
    ] = ListenPolicies()

    def __post_init__(self) -> None:
        for name in ("main", "compat", "local", "tokens"):
            for address in getattr(self, name):
                parse_address(address)
        for network in self.trusted_proxies:
            _check_network(network, "trusted_proxies")


class LimitSettings(Section, frozen=True, kw_only=True):
    """How much of everything, and how long."""

    connections: Annotated[Count, Meta(description="Connections at a time by the network, as open files allow.")] = 2048
    unauthenticated_per_address: Annotated[
        Count, Meta(description="Of these from one IPv4 address or IPv6 /64 without a credential; loopback is exempt.")
    ] = 32
    connections_per_credential: Annotated[
        Count, Meta(description="Of these with one key, or with one subject's tokens.")
    ] = 128
    head_bytes: Annotated[Count, Meta(description="The longest head of an HTTP request.")] = 16384
    message_bytes: Annotated[Count, Meta(description="The longest WebSocket message or HTTP body.")] = 1048576
    message_bytes_unauthenticated: Annotated[
        Count, Meta(description="The longest WebSocket message or HTTP body before authentication.")
    ] = 16384
    calls_in_flight: Annotated[Count, Meta(description="Calls that one WebSocket may have unanswered.")] = 32
    batch: Annotated[Count, Meta(description="Calls in one JSON-RPC batch.")] = 50
    outbox_messages: Annotated[Count, Meta(description="Messages that may wait for one slow reader.")] = 256
    outbox_bytes: Annotated[Count, Meta(description="Bytes that may wait for one slow reader.")] = 1048576
    stall_seconds: Annotated[Seconds, Meta(description="How long a reader may take nothing.")] = 10.0
    head_seconds: Annotated[
        Seconds,
        Meta(description="How long a request's head may take, or any message or body before authentication."),
    ] = 10.0
    keep_alive_seconds: Annotated[Seconds, Meta(description="How long an HTTP connection may idle.")] = 75.0
    ping_seconds: Annotated[Seconds, Meta(description="How often a WebSocket is pinged.")] = 30.0
    silence_seconds: Annotated[Seconds, Meta(description="How long a WebSocket may say nothing at all.")] = 75.0
    guesses: Annotated[
        Count, Meta(description="Different wrong credentials of one address or user after which it has to wait.")
    ] = 10
    guess_seconds: Annotated[
        Seconds, Meta(description="Within so many seconds; after as many without one all is forgotten.")
    ] = 60.0
    longest_backoff_seconds: Annotated[
        Seconds, Meta(description="The longest wait; the first is one second, each further wrong one doubles it.")
    ] = 60.0
    disk_low_mib: Annotated[
        Count,
        Meta(
            description="Free space, MiB, below which health is degraded; on a disk smaller than ten times this, a "
            "tenth of it."
        ),
    ] = 256


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
    ] = {}

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


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class AuthSettings(Section, frozen=True, kw_only=True):
    """Whose tokens are good."""

    shared_secrets: Annotated[
        dict[str, str],
        Meta(
            description="HS256 secrets that sign tokens: name = file (mode 0600), or name = credential:NAME for the "
            "systemd credential edged.NAME. A credential edged.shared_secret.NAME is taken without being named here. "
            "None: only tokens that edged itself signed are good."
        ),
    ] = {}
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
    ] = {}
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


class MediaMTXSettings(Section, frozen=True, kw_only=True):
    """The MediaMTX that edged runs; each address is HOST:PORT, :PORT for every interface, or "off"."""

    enabled: Annotated[bool, Meta(description="Run it; without it pictures come straight from the source.")] = True
    binary: Annotated[str, Meta(description='The program; "" looks on PATH, then in /usr/lib/edged.')] = ""
    rtsp: Annotated[str, Meta(description="RTSP over TCP; the cameras are published through it.")] = ":8554"
    hls: Annotated[str, Meta(description="HLS, for browsers and players; a few seconds late.")] = ":8888"
    webrtc: Annotated[str, Meta(description="WebRTC: WHEP and the player page.")] = ":8889"
    webrtc_udp: Annotated[str, Meta(description="WebRTC's pictures, UDP.")] = ":8189"
    rtmp: Annotated[str, Meta(description="RTMP, for older players.")] = OFF
    srt: Annotated[str, Meta(description="SRT, for bad lines.")] = OFF
    minimum_version: Annotated[
        str, Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", description="An older MediaMTX is refused.")
    ] = "1.17.1"
    recommended: Annotated[
        str, Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", description="An older MediaMTX runs with a warning.")
    ] = "1.20.1"

    def __post_init__(self) -> None:
        for address in (self.rtsp, self.hls, self.webrtc, self.webrtc_udp, self.rtmp, self.srt):
            if address != OFF:
                parse_address(address)


class CameraSettings(Section, frozen=True, kw_only=True):
    """A camera that udev cannot find by itself, or how one that it finds is to be used."""

    name: Annotated[str, Meta(description="What people call it; no two alike.")]
    source: Annotated[
        str,
        Meta(description='An rtsp:// URL, "test" for a test picture, or what udev says of it, such as ID_SERIAL=….'),
    ]
    mode: Annotated[
        Literal["on_demand", "always"],
        Meta(description="on_demand: it streams while somebody watches; always: all the time."),
    ] = "on_demand"
    size: Annotated[str, Meta(description="WIDTHxHEIGHT of the stream, or the nearest there is.")] = "640x480"
    rate: Annotated[float, Meta(gt=0, le=240, description="Frames a second, or the nearest there is.")] = 15.0
    bitrate: Annotated[int, Meta(ge=10_000, description="Bits a second when edged encodes.")] = 1_000_000
    encoder: Annotated[str, Meta(description='ffmpeg\'s name of the encoder; "" chooses.')] = ""
    path: Annotated[
        str,
        Meta(
            description="The name of its stream, as in rtsp://HOST:8554/front_door: up to 32 of a-z, 0-9, _ and -, a "
            'letter first, no two alike; "" is its id, cameraN.'
        ),
    ] = ""
    id: Annotated[
        str,
        Meta(
            description="By which it is recognised when its source has changed: up to 64 of A-Z, a-z, 0-9, ., _ and -. "
            "Without one it is its source, whatever user name and password; a test picture, its name."
        ),
    ] = ""
    rtsp_transport: Annotated[
        Literal["auto", "tcp", "udp"],
        Meta(description="How an rtsp:// camera sends: tcp, udp, or auto: TCP, and UDP where it has no TCP."),
    ] = "auto"

    def __post_init__(self) -> None:
        if not _LABEL.match(self.name):
            raise ValueError("name is 1 to 64 characters without / and does not begin with a dot")
        if not (self.is_test or self.is_rtsp or _UDEV_MATCH.match(self.source)):
            raise ValueError("source is rtsp://…, test, or a udev match such as ID_SERIAL=Vendor_Camera_0001")
        if self.path and (not _PATH.match(self.path) or _SLOT_NAME.match(self.path)):
            raise ValueError("path is up to 32 of a-z, 0-9, _ and -, a letter first, and not camera and a number")
        if self.id and not _CAMERA_ID.match(self.id):
            raise ValueError("id is up to 64 of A-Z, a-z, 0-9, ., _ and -, a letter or digit first")
        if not _SIZE.match(self.size):
            raise ValueError("size is WIDTHxHEIGHT, such as 640x480")

    @property
    def is_test(self) -> bool:
        """A picture that edged makes itself."""
        return self.source == "test"

    @property
    def is_rtsp(self) -> bool:
        """A camera in the network."""
        return self.source.startswith(("rtsp://", "rtsps://"))

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[1])


class SourceSettings(Section, frozen=True, kw_only=True):
    """Where cameras may be that calls add (add_camera, update_camera); a [[camera]] may be anywhere."""

    also_allowed: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks that are refused otherwise: this box itself, link-local and multicast. 127.0.0.0/8 "
            "lets calls add a stream that this box serves."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for network in self.also_allowed:
            _check_network(network, "also_allowed")


class SnapshotSettings(Section, frozen=True, kw_only=True):
    """Pictures that somebody asked for."""

    folder: Annotated[Path, Meta(description='Their folder; "" is snapshots in paths.media.')] = Path()


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Numbers for Prometheus."""

    enabled: Annotated[bool, Meta(description="Answer on /metrics.")] = True


class LogSettings(Section, frozen=True, kw_only=True):
    """What is written to the journal."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is written.")] = (
        "info"
    )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; `Config()` is the defaults. Paths are filled in, `camera` has one entry for each [[camera]]."""

    paths: PathSettings = PathSettings()
    listen: ListenSettings = ListenSettings()
    limits: LimitSettings = LimitSettings()
    auth: AuthSettings = AuthSettings()
    mediamtx: MediaMTXSettings = MediaMTXSettings()
    camera: tuple[CameraSettings, ...] = ()
    snapshots: SnapshotSettings = SnapshotSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    sources: SourceSettings = SourceSettings()
    #: Where each of `camera` stands: file and line.
    camera_places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fill = msgspec.structs.force_setattr
        if not self.listen.unix:
            socket = str(self.paths.runtime / "edged.sock")
            fill(self, "listen", msgspec.structs.replace(self.listen, unix=socket))
        if self.snapshots.folder == Path():
            folder = self.paths.media / "snapshots"
            fill(self, "snapshots", msgspec.structs.replace(self.snapshots, folder=folder))


#: The addresses of [mediamtx]; those over UDP do not meet the others.
ADDRESSES = ("rtsp", "hls", "webrtc", "webrtc_udp", "rtmp", "srt")
UDP_ADDRESSES = frozenset({"webrtc_udp", "srt"})

#: The names of the listeners that have a policy, each with its section [listen.policy.NAME].
LISTENERS: tuple[str, ...] = ListenPolicies.__struct_fields__
POLICIES: dict[str, type[Section]] = {f"listen.policy.{name}": ListenerPolicy for name in LISTENERS}

#: The sections by name, in the order in which they are shown; `camera` is an array of them.
SECTIONS: dict[str, type[Section]] = {
    "paths": PathSettings,
    "listen": ListenSettings,
    "limits": LimitSettings,
    "auth": AuthSettings,
    "mediamtx": MediaMTXSettings,
    "camera": CameraSettings,
    "snapshots": SnapshotSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
    "sources": SourceSettings,
}


class Setting(msgspec.Struct, frozen=True):
    """One key of a section: `kind` its type without the help, `default` NODEFAULT where it must be given."""

    name: str
    annotation: object
    help: str
    default: object


def settings_of(section: type[Section]) -> dict[str, Setting]:
    """The keys of a section by name, in the order in which they are declared."""
    found: dict[str, Setting] = {}
    for field in msgspec.structs.fields(section):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        found[field.name] = Setting(field.name, field.type, _help_of(field.type), default)
    return found


def _help_of(annotation: object) -> str:
    metas = getattr(annotation, "__metadata__", ())
    return next((meta.description for meta in metas if isinstance(meta, Meta) and meta.description), "")
