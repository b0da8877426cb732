"""What several settings may not say together. Each raises ConfigError with the place of one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from edged.config.addresses import OFF, overlap, parse_address
from edged.config.cameras import complain_of_pre_rolls
from edged.config.model import (
    ADDRESSES,
    LISTENERS,
    UDP_ADDRESSES,
    AuthSettings,
    CameraSettings,
    ListenSettings,
    MediaMTXSettings,
)
from edged.config.places import Place, error_at
from edged.urls import is_loopback

#: (section, key) → where it was written.
Places: TypeAlias = Mapping[tuple[str, str], Place]
#: Each has its series among the metrics.
_MOST_ISSUERS = 8


def check_issuers(auth: AuthSettings, places: Places) -> None:
    """No issuer (iss) is configured twice, none is our own or one of shared secrets. Raises ConfigError."""
    place = places.get(("auth", "issuers"), Place("auth.issuers"))
    taken = dict.fromkeys((auth.issuer, *auth.shared_issuers), "auth.issuer or auth.shared_issuers")
    for name, issuer in auth.issuers.items():
        if other := taken.get(issuer.issuer):
            raise error_at(
                place, f"auth.issuers.{name}: the issuer {issuer.issuer!r} is already used by {other}",
                "each issuer (iss) may be configured once", key=f"auth.issuers.{name}.issuer",
            )  # fmt: skip
        taken[issuer.issuer] = f"auth.issuers.{name}"
    if len(auth.issuers) > _MOST_ISSUERS:
        raise error_at(place, f"there are {len(auth.issuers)} issuers", f"{_MOST_ISSUERS} at most", key="auth.issuers")


def check_demo(auth: AuthSettings, listen: ListenSettings, places: Places) -> None:
    """The demo password is only allowed if nobody else can reach edged. Raises ConfigError."""
    if not auth.demo_login:
        return
    for key in LISTENERS:
        for address in getattr(listen, key):
            host = parse_address(address)[0]
            if not is_loopback(host):
                raise error_at(
                    places.get(("auth", "demo_login"), Place("auth.demo_login")),
                    f"auth.demo_login: listen.{key} = {address!r} is not a loopback address",
                    "remove it, or listen on loopback addresses only", key="auth.demo_login",
                )  # fmt: skip


def check_addresses(listen: ListenSettings, mediamtx: MediaMTXSettings, places: Places) -> None:
    """No two settings name the same address and port. Raises ConfigError with both keys."""
    wanted = [("listen", key, address) for key in LISTENERS for address in getattr(listen, key)]
    if mediamtx.enabled:
        wanted += [("mediamtx", key, getattr(mediamtx, key)) for key in ADDRESSES]
    for number, (section, key, address) in enumerate(wanted):
        for other_section, other_key, other in wanted[:number]:
            if {key, other_key} & UDP_ADDRESSES and not {key, other_key} <= UDP_ADDRESSES:
                continue
            if OFF not in (address, other) and overlap(address, other):
                name, other_name = f"{section}.{key}", f"{other_section}.{other_key}"
                place = next(
                    (found for at in ((section, key), (other_section, other_key)) if (found := places.get(at))),
                    Place(name),
                )
                raise error_at(
                    place, f"{name} = {address!r} and {other_name} = {other!r} are the same address",
                    'use different ports, or set one of them to "off"', key=name, other=other_name,
                )  # fmt: skip


def check_apart(camera: CameraSettings, other: CameraSettings, place: Place) -> None:
    """Raises ConfigError for two cameras of one path, or of one id."""
    for key in ("path", "id"):
        if (value := getattr(camera, key)) and value == getattr(other, key):
            raise error_at(
                place, f"cameras {other.name!r} and {camera.name!r} have the same {key}, {value}",
                "change one of them", key=f"camera.{key}",
            )  # fmt: skip


def check_pre_rolls(cameras: Iterable[CameraSettings], place: Place) -> None:
    """The pre-rolls fit into the memory for them. Raises ConfigError with the figure."""
    if complaint := complain_of_pre_rolls(cameras):
        raise error_at(
            place, complaint, "lower pre_roll_seconds or bitrate of some cameras", key="camera.pre_roll_seconds"
        )
