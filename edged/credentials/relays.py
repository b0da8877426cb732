"""Whether a program on this machine asks for itself, or somebody elsewhere through it (contract 5.1).

What an endpoint does for this machine alone it does for nobody whom a reverse proxy or a browser speaks for: their
connections come from loopback, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from edged.urls import is_loopback

#: Headers that browsers, proxies, caches, content networks and tracing sidecars add: by their beginning, or by what
#: they say of the client. Taken widely: whoever is refused for one of them can show a credential.
_RELAYED: Final = re.compile(
    r"(?:origin|via|referer|forwarded|x-forwarded|sec-fetch-|sec-ch-|cf-|cdn-|fastly-|akamai-|true-client|x-real|"
    r"x-client|x-cluster|x-original|x-originating|x-remote|x-proxy|proxy-|wl-proxy|x-host|x-scheme|x-http-|x-url-scheme|"
    r"x-arr-|x-azure|x-amz|x-appengine|x-cloud|x-envoy|x-varnish|x-cache|x-b3-|x-request-id|x-correlation-id|x-trace|"
    r"traceparent|tracestate|max-forwards|client-ip|remote-|ssl-client|x-ssl|front-end-https|x-nginx|x-haproxy|"
    r"x-accel)|.*(?:client-?ip|forwarded|remote-?addr|remote-?ip|real-?ip)"
)
_OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


def is_direct(address: str, names: Iterable[str], hosts: Sequence[str]) -> bool:
    """Whether no browser, no proxy, and no name that DNS could rebind stands between a program on this machine and us.

    `address` as the kernel gives it, `names` of the request's headers in lower case, `hosts` what its Host says.
    """
    if not is_loopback(address) or len(hosts) != 1:
        return False
    name, _, port = hosts[0].lower().rpartition(":")
    if not port.isdigit():
        name = hosts[0].lower()
    return name in _OWN_NAMES and not any(map(_RELAYED.match, names))
