"""The kinds of source as settings name them, and which camera an address names, whatever its credentials. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

#: What sort of source a camera is: a device on USB, an address in the network, somebody who publishes to its path, the
#: ribbon of a Raspberry Pi, or a picture that edged makes itself.
SourceKind: TypeAlias = Literal["usb", "rtsp", "http", "push", "rpi", "test"]


class KindFacts(msgspec.Struct, frozen=True):
    """What settings and registry know of one kind; how it is read is in edged/mediamtx/sources/.

    `ports`: scheme of its addresses → usual port, none for a kind without addresses; `words`: the whole texts of such
    sources, none for a kind that has more to say; `tells_figures`: size and rate are what its stream says, unknown
    until it was seen; `may_be_added`: by a call, not only by the settings.
    """

    ports: Mapping[str, int] = msgspec.field(default_factory=dict)
    words: tuple[str, ...] = ()
    tells_figures: bool = False
    may_be_added: bool = False


#: A source that fits none of the others is the udev match of a USB camera.
KINDS: Final[Mapping[SourceKind, KindFacts]] = MappingProxyType(
    {
        "rtsp": KindFacts(ports={"rtsp": 554, "rtsps": 322}, tells_figures=True, may_be_added=True),
        "http": KindFacts(ports={"http": 80, "https": 443}, tells_figures=True, may_be_added=True),
        "push": KindFacts(words=("push",), tells_figures=True, may_be_added=True),
        "rpi": KindFacts(words=("rpi:0", "rpi:1", "rpi:2", "rpi:3")),
        "test": KindFacts(words=("test",)),
        "usb": KindFacts(),
    }
)
#: How an RTSP source sends its pictures; auto: TCP, and UDP where there is no TCP.
RtspTransport: TypeAlias = Literal["auto", "tcp", "udp"]

#: Query parameters that are user names and passwords. Stored identities rest on these words: another list makes every
#: camera that has one of the words that differ a new camera.
_CREDENTIAL_PARTS: Final = (
    "pass",
    "pwd",
    "secret",
    "token",
    "auth",
    "credential",
    "apikey",
    "api_key",
    "jwt",
    "ticket",
)
_CREDENTIAL_NAMES: Final = frozenset({"pw", "psw", "usr", "user", "username", "login", "account", "key", "sig"})
DEFAULT_PORTS: Final = {scheme: port for facts in KINDS.values() for scheme, port in facts.ports.items()}


def kind_of(source: str) -> SourceKind:
    """The kind that a source of the settings is of."""
    scheme, colon, _ = source.partition("://")
    for kind, facts in KINDS.items():
        if source in facts.words or (colon and scheme in facts.ports):
            return kind
    return "usb"


def is_network(source: str) -> bool:
    """Whether a camera's source is a network address."""
    return bool(KINDS[kind_of(source)].ports)


def fault_of_sub(sub: str, source: str) -> str:
    """What is wrong with the address of a camera's smaller stream, "" if nothing is. Both stand on one host, so that
    what was judged of one holds for the other."""
    if kind_of(source) != "rtsp" or kind_of(sub) != "rtsp":
        return "sub_source is an rtsp:// or rtsps:// URL beside a source that is one"
    try:
        own, other = urlsplit(sub), urlsplit(source)
        is_same = (own.hostname or "") == (other.hostname or "") != ""
        _ = own.port
    except ValueError:
        return "sub_source is not a valid URL"
    return "" if is_same else "sub_source must have the host of source: it is a stream of the same camera"


def with_login(sub: str, source: str) -> str:
    """An address with the user name and password of another where it has none of its own."""
    own, other = urlsplit(sub), urlsplit(source)
    user, at, _ = other.netloc.rpartition("@")
    return sub if "@" in own.netloc or not at else own._replace(netloc=f"{user}@{own.netloc}").geturl()


def identify(source: str) -> str:
    """One short text for each source, whatever user name, password or token it is asked with.

    A digest: of an address that was mistyped, part of a password may stand where a path should.
    """
    text = _canonical(source) if is_network(source) else source
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _canonical(source: str) -> str:
    """Scheme, host, port, path and what is left of the query; the whole text where it cannot be taken apart."""
    try:
        url = urlsplit(source)
        port = url.port or DEFAULT_PORTS[url.scheme]
        query = parse_qsl(url.query, keep_blank_values=True)
    except ValueError:
        return source
    kept = urlencode([(name, value) for name, value in query if not _is_credential(name.lower())])
    return f"{url.scheme}://{url.hostname or ''}:{port}{url.path or '/'}?{kept}"


def _is_credential(name: str) -> bool:
    return name in _CREDENTIAL_NAMES or any(part in name for part in _CREDENTIAL_PARTS)
