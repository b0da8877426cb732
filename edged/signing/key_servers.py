"""Where outside issuers publish their keys: one GET, by TLS with a certificate that is checked, and nothing else.

HTTP/1.1 by h11, one connection a question, with a deadline and a limit; only the machine itself is asked without TLS.
"""

from __future__ import annotations

import itertools
import ssl
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import h11
import trio

from edged.credentials.issuers import LARGEST_SET
from edged.errors import DependencyFailed

#: For one question, all redirects included.
SECONDS: Final = 10.0
_MOST_REDIRECTS: Final = 3
#: Chunks of an answer that are read before other tasks get their turn.
_EVENTS_IN_A_ROW: Final = 64
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_PORTS: Final = {"https": 443, "http": 80}
_CHECK_NETWORK: Final = "are name and port right, and does the network work? edged asks again by itself"
_CHECK_TLS: Final = (
    "its certificate must come from an authority in /etc/ssl/certs (package ca-certificates), and the clock be right: "
    "timedatectl"
)


class _Answer(NamedTuple):
    status: int
    location: str
    body: bytes


async def fetch(url: str) -> bytes:
    """What stands at this https:// URL, or at an http:// one of this machine: at most `LARGEST_SET` bytes.

    Redirects are followed on the same host and port only. Raises DependencyFailed within `SECONDS`.
    """
    host = urlsplit(url).hostname
    try:
        with trio.fail_after(SECONDS):
            return await _follow(url)
    except trio.TooSlowError:
        raise DependencyFailed(f"{host} did not answer within {SECONDS:g} s", hint=_CHECK_NETWORK) from None
    except (trio.BrokenResourceError, ssl.SSLError) as problem:
        why = problem if isinstance(problem, ssl.SSLError) else problem.__cause__
        if isinstance(why, ssl.SSLError):
            said = getattr(why, "verify_message", "") or why.reason or str(why)
            raise DependencyFailed(f"{host} cannot be trusted by TLS: {said}", hint=_CHECK_TLS) from None
        raise DependencyFailed(f"{host} broke the connection off", hint=_CHECK_NETWORK) from None
    except (OSError, h11.ProtocolError, ValueError) as problem:
        # Also a redirect to what is no URL.
        said = (problem.strerror if isinstance(problem, OSError) else "") or str(problem)
        raise DependencyFailed(f"{host} cannot be asked: {said}", hint=_CHECK_NETWORK) from None


async def _follow(url: str) -> bytes:
    first = urlsplit(url)
    for _ in range(_MOST_REDIRECTS + 1):
        answer = await _ask(urlsplit(url))
        if answer.status == 200:
            return answer.body
        if answer.status not in _REDIRECTS or not answer.location:
            raise DependencyFailed(
                f"{first.hostname} answered with {answer.status}", hint="is the path of the URL right? curl shows it"
            )
        url = urljoin(url, answer.location)
        target = urlsplit(url)
        if (target.scheme, target.netloc) != (first.scheme, first.netloc):
            raise DependencyFailed(
                f"{first.hostname} sends edged to another server", hint="set the URL at which the keys really stand"
            )
    raise DependencyFailed(f"{first.hostname} redirects for ever", hint="set the URL at which the keys really stand")


async def _ask(url: SplitResult) -> _Answer:
    connection = h11.Connection(h11.CLIENT)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = [
        ("Host", url.netloc), ("Accept", "application/jwk-set+json, application/json"), ("User-Agent", "edged"),
        ("Connection", "close"),
    ]  # fmt: skip
    question = connection.send(h11.Request(method="GET", target=target, headers=headers)) or b""
    question += connection.send(h11.EndOfMessage()) or b""
    async with await _connect(url) as stream:
        await stream.send_all(question)
        return await _read(connection, stream)


def make_tls_context() -> ssl.SSLContext:
    """Name and chain are checked, no TLS before 1.2 is spoken (which Debian's Python leaves to OpenSSL's settings)."""
    context = ssl.create_default_context()
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    return context


async def _connect(url: SplitResult) -> trio.abc.Stream:
    host = url.hostname or ""
    # Reading the authorities takes tens of milliseconds.
    context = await trio.to_thread.run_sync(make_tls_context) if url.scheme == "https" else None
    tcp = await trio.open_tcp_stream(host, url.port or _PORTS[url.scheme])
    if context is None:
        return tcp
    stream = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _read(connection: h11.Connection, stream: trio.abc.Stream) -> _Answer:
    status, location, body = 0, "", bytearray()
    for number in itertools.count(1):
        if not number % _EVENTS_IN_A_ROW:
            await trio.lowlevel.checkpoint()
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            location = next((value.decode("ascii") for name, value in event.headers if name == b"location"), "")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_SET:
                raise h11.RemoteProtocolError(f"its answer is longer than {LARGEST_SET} bytes")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    return _Answer(status, location, bytes(body))
