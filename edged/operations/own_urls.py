"""By what name edged is reached: what stands in front of every absolute URL that it builds (contract 10.26)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec

from edged.credentials.callers import Peer
from edged.urls import is_loopback

#: What a box's own name may end with besides its domain: it is the local network's (RFC 6762).
_LOCAL: Final = ".local"


class OwnUrls(msgspec.Struct, frozen=True):
    """`public_url` is the setting, "" for none; `main_port` the port of the main listener, 0 where there is none or the
    kernel has picked it; `names` those of this box (`list_names`)."""

    public_url: str = ""
    main_port: int = 0
    names: frozenset[str] = frozenset()

    def stream_host(self, host: str) -> str:
        """The host of an address that holds no credential, for whoever reached us at `host` by its own word (Host): it
        goes back to who said it, and to nobody else."""
        public = urlsplit(self.public_url).hostname
        if not public:
            return host
        return f"[{public}]" if ":" in public else public

    def ticket_host(self, peer: Peer) -> str:
        """The host of an address that holds a credential; "" where edged cannot know one.

        What somebody calls us by counts where it can be nobody else's: an IP address, or a name of this box. For any
        other name it is the address of ours that the connection has reached, by the kernel; not where a relay stands
        in between, whose client cannot reach that.
        """
        if self.public_url or self._is_own(peer.host):
            return self.stream_host(peer.host)
        reached = peer.reached.rpartition(":")[0]
        return "" if peer.proxy or is_loopback(reached) or "%" in reached else reached

    def base(self, peer: Peer) -> str:
        """What stands in front of the path of a signed link; "" where edged cannot know it.

        The setting, else the address of ours that the connection reached, by the kernel: never Host, whose port nobody
        can check. Through a proxy only the setting says by what name edged is reached.
        """
        if self.public_url or peer.proxy:
            return self.public_url
        if peer.is_local_socket:
            return f"http://localhost:{self.main_port}" if self.main_port else ""
        # An address with a zone (fe80::1%eth0) is none for a URL.
        return f"http://{peer.reached}" if peer.reached and "%" not in peer.reached else ""

    def _is_own(self, host: str) -> bool:
        if host.lower() in self.names or is_loopback(host):
            return True
        try:
            ip_address(host.strip("[]"))
        except ValueError:
            return False
        return True


def list_names(hostname: str) -> frozenset[str]:
    """The names of a box whose host name (gethostname(2)) this is."""
    whole = hostname.lower()
    first = whole.partition(".")[0]
    return frozenset({whole, first, first + _LOCAL}) if first else frozenset()
