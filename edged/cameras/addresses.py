"""Where an added camera may be: its host is resolved, judged, and replaced by the literal address.

A caller who may add cameras must not reach services that only this box itself can reach. So the name is resolved once,
every address is judged, and the stream is opened by the literal address that was judged: it does not matter what the
name resolves to a moment later.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import structlog
import trio

from edged.cameras.entries import CameraEntry
from edged.config.sources import DEFAULT_PORTS, is_network
from edged.errors import DependencyFailed, EdgedError, InvalidParams

Address: TypeAlias = IPv4Address | IPv6Address
#: As trio.socket.getaddrinfo.
LookUp: TypeAlias = Callable[..., Awaitable[Sequence[tuple[Any, ...]]]]

#: Seconds for one look-up, and between two look-ups of the same name.
LOOK_UP_SECONDS: Final = 5.0
FOLLOW_SECONDS: Final = 300.0
_log = structlog.get_logger("cameras")


class AddressRefused(InvalidParams):
    """It leads only to where added cameras may not be."""


class Addresses:
    """Judges where added cameras may be. `also_allowed`: networks that are refused otherwise."""

    def __init__(self, also_allowed: Iterable[str] = (), *, look_up: LookUp = trio.socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._allowed: tuple[IPv4Network | IPv6Network, ...] = ()
        #: Set when what is allowed has changed; another one takes its place.
        self.changed = trio.Event()
        self.allow(also_allowed)

    def allow(self, networks: Iterable[str]) -> None:
        """From here on these networks are allowed beside those that always are."""
        allowed = tuple(map(ip_network, networks))
        if allowed != self._allowed:
            self._allowed = allowed
            self.changed.set()
            self.changed = trio.Event()

    async def resolve(self, url: str) -> str:
        """The address with its host as a literal that may be opened.

        Raises InvalidParams for what is no such address, or an unknown name; AddressRefused for one that leads only to
        what is refused; DependencyFailed if no name server answers.
        """
        host, port = split_host(url)
        try:
            with trio.fail_after(LOOK_UP_SECONDS):
                found = await self._look_up(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (trio.TooSlowError, OSError, UnicodeError) as problem:
            if isinstance(problem, socket.gaierror) and problem.errno != socket.EAI_AGAIN:
                raise InvalidParams(
                    f"source: the name {host!r} is not known", hint="give the camera's address"
                ) from None
            raise DependencyFailed(
                f"source: the name {host!r} could not be looked up", hint="try again, or give the camera's address"
            ) from None
        refused = ""
        for family, *_, place in found:
            address = ip_address(place[0])
            why = self.judge(address, family, place)
            if not why:
                return replace_host(url, address)
            refused = refused or f"{address} is {why}"
        raise AddressRefused(
            f"source: {refused or f'{host!r} has no address'}",
            hint="name the camera's own address; what else is allowed says sources.also_allowed in the settings",
        )

    def judge(self, address: Address, family: int, place: tuple[Any, ...]) -> str:
        """Why an address is refused, "" if it is not. `family` and `place` as getaddrinfo gives them."""
        plain = _plain(address)
        if any(plain in network for network in self._allowed):
            return ""
        if plain.is_loopback or plain.is_unspecified:
            return "this box itself"
        if plain.is_link_local:
            return "link-local"
        if plain.is_multicast:
            return "multicast"
        if plain.is_reserved:
            return "reserved"
        return "this box itself" if _is_own(plain, family, place) else ""


def split_host(url: str) -> tuple[str, int]:
    """Host and port of a camera's address. Raises InvalidParams, which never repeats the address."""
    try:
        if not is_network(url) or any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in url) or "#" in url:
            raise ValueError
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise InvalidParams(
            "source is no rtsp://, rtsps://, http:// or https:// URL",
            hint="rtsp://USER:PASSWORD@HOST/PATH; write # / ? @ and blanks of a password as %23 %2F %3F %40 %20",
        )
    return host, port or DEFAULT_PORTS[parts.scheme]


def replace_host(url: str, address: Address) -> str:
    """The same address with another host; user name, password, port and the rest are kept as they stand."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{address}]" if address.version == 6 else str(address)
    port = f":{parts.port}" if parts.port is not None else ""
    return parts._replace(netloc=f"{user}{at}{host}{port}").geturl()


class Described(Protocol):
    """What `follow` needs of the registry, which imports this module."""

    @property
    def described(self) -> Mapping[int, CameraEntry]: ...
    async def readdress(self, one: CameraEntry, address: str) -> None: ...


async def follow(registry: Described, addresses: Addresses) -> None:
    """Resolve the names of the added cameras again every 5 minutes; runs until cancelled.

    The last address stays where no name server answers. A camera whose address is not allowed any more is not read.
    """
    told: dict[int, str] = {}
    while True:
        changed = addresses.changed
        for number, one in list(registry.described.items()):
            if one.number is None or not one.settings.is_network:
                continue
            try:
                address = await addresses.resolve(one.settings.source)
            except AddressRefused as problem:
                address, sentence = "", str(problem)
            except EdgedError as problem:
                # A name may be unknown for a moment only.
                address, sentence = one.address, str(problem)
            else:
                sentence = ""
            if sentence and told.get(number) != sentence:
                _log.warning("address_problem", camera=f"camera{number}", problem=sentence)
            told[number] = sentence
            if address != one.address:
                try:
                    await registry.readdress(one, address)
                except EdgedError as problem:
                    _log.warning("address_not_stored", camera=f"camera{number}", problem=str(problem))
        with trio.move_on_after(FOLLOW_SECONDS):
            await changed.wait()


def _plain(address: Address) -> Address:
    """An IPv4 address that is written as IPv6 is that IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_own(address: Address, family: int, place: tuple[Any, ...]) -> bool:
    """Whether this box has the address: only then can a socket be bound to it."""
    with socket.socket(socket.AF_INET if address.version == 4 else family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0) if address.version == 4 else (place[0], 0, *place[2:]))
        except OSError:
            return False
    return True
