"""An outside issuer for tests: key pairs, a JWK set, tokens, and a server of its own with TLS on loopback."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

NOW = datetime.datetime(2026, 1, 1)


@dataclass
class Authority:
    """A certification authority of the test's own; `folder` gets its certificate and those that it signs."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {self.folder.name}")])
        made = self._make(self.name, self.key.public_key(), [], is_authority=True)
        self.file = self.folder / "authority.pem"
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def context(self, *hosts: str, days: int = 36500) -> ssl.SSLContext:
        """For a server that is called so; `days` is how long its certificate is good from 2026 on."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        made = self._make(name, key.public_key(), list(hosts), days=days)
        file = self.folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _make(
        self, name: x509.Name, public: Any, hosts: list[str], *, is_authority: bool = False, days: int = 36500
    ) -> x509.Certificate:
        named = [x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
        usage = {
            "digital_signature": not is_authority, "key_cert_sign": is_authority, "crl_sign": is_authority,
            "content_commitment": False, "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
            "encipher_only": False, "decipher_only": False,
        }  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if named:
            builder = builder.add_extension(x509.SubjectAlternativeName(named), critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Company:
    """Signs tokens as an identity provider does, with keys by kid."""

    def __init__(self, issuer: str = "https://login.example.com/") -> None:
        self.issuer = issuer
        self.keys: dict[str, ECKey | RSAKey] = {}

    def add(self, kid: str, algorithm: str = "ES256") -> Company:
        self.keys[kid] = ECKey.generate_key("P-256") if algorithm == "ES256" else RSAKey.generate_key(2048)
        return self

    def jwks(self, **more: object) -> bytes:
        public = [
            {name: value for name, value in key.as_dict(private=False).items() if name != "kid"} | {"kid": kid}
            for kid, key in self.keys.items()
        ]
        return json.dumps({"keys": public} | more).encode()

    def pem(self, kid: str) -> bytes:
        pem = self.keys[kid].as_pem(private=False)
        return pem if isinstance(pem, bytes) else pem.encode()

    def sign(
        self, kid: str, *, name_key: bool = True, header: Mapping[str, object] | None = None, **claims: object
    ) -> str:
        """`header` are further members of it; a claim that is None is left out."""
        key = self.keys[kid]
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        members = {"alg": algorithm} | ({"kid": kid} if name_key else {}) | dict(header or {})
        said = {"iss": self.issuer, "sub": "ann", "role": "viewer", "exp": 4_000_000_000} | claims
        kept = {name: value for name, value in said.items() if value is not None}
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        return jwt.encode(members, kept, key, registry=registry)


@dataclass
class KeyServer:
    """Answers every connection with `answer(head)`; notes what it was asked."""

    answer: Callable[[bytes], bytes]
    port: int = 0
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    async def handle(self, stream: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += (more := await stream.receive_some(4096))
            if not more:
                return
        self.asked.append(head.split()[1].decode())
        self.heads.append(head)
        await stream.send_all(self.answer(head))
        await stream.aclose()


def respond(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def key_server(
    answer: Callable[[bytes], bytes], context: ssl.SSLContext | None = None
) -> AsyncIterator[KeyServer]:
    """On a port of 127.0.0.1, with TLS if there is a context."""
    server = KeyServer(answer)

    async def handle(tcp: trio.SocketStream) -> None:
        stream: trio.abc.Stream = tcp if context is None else trio.SSLStream(tcp, context, server_side=True)
        try:
            await server.handle(stream)
        except trio.BrokenResourceError:
            # A client that does not trust us, or has heard enough.
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield server
        nursery.cancel_scope.cancel()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
