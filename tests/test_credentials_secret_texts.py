"""Shared secrets: what everybody knows, or could guess, signs nobody's token."""

from __future__ import annotations

import base64
import datetime
import json
import re
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, RSAKey

from edged.config.load import load
from edged.config.secrets import load_shared_secrets
from edged.credentials.secret_texts import FEWEST_CHARACTERS, PUBLISHED_SECRETS, check_secret
from edged.credentials.tokens import SharedSecret
from edged.errors import ConfigError

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KEYS: dict[str, Private] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def certificate(key: Private) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "box")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (x509.CertificateBuilder(name, name, key.public_key(), 17, start, start + datetime.timedelta(days=1))).sign(
        key, digest
    )


def spellings(key: Private) -> Iterator[tuple[str, bytes]]:
    public, locked = key.public_key(), BestAvailableEncryption(b"x")
    for way, encoding in (("PEM", Encoding.PEM), ("DER", Encoding.DER)):
        yield f"spki {way}", public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        yield f"pkcs8 {way}", key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())
        yield f"pkcs8 locked {way}", key.private_bytes(encoding, PrivateFormat.PKCS8, locked)
        yield f"certificate {way}", certificate(key).public_bytes(encoding)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            yield f"sec1 {way}", key.private_bytes(encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        if isinstance(key, rsa.RSAPrivateKey):
            yield f"pkcs1 {way}", key.public_key().public_bytes(encoding, PublicFormat.PKCS1)
    yield "ssh", public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    yield "ssh own", key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


ALL = {f"{name} {form}": data for name, key in KEYS.items() for form, data in spellings(key)}
TEXTS = {name: data.decode() for name, data in ALL.items() if not name.endswith("DER")}
BINARY = {name: data for name, data in ALL.items() if name.endswith("DER")}


def jwks() -> Iterator[tuple[str, str]]:
    pairs: dict[str, RSAKey | ECKey] = {"rsa": RSAKey.generate_key(2048), "ec": ECKey.generate_key("P-256")}
    for name, key in pairs.items():
        for private in (False, True):
            jwk = key.as_dict(private=private)
            yield f"{name} {private}", json.dumps(jwk)
            yield f"{name} {private} pretty", json.dumps(jwk, indent=2)
            yield f"{name} {private} cut off", json.dumps(dict(sorted(jwk.items(), reverse=True)))[:100]
    yield "oct", json.dumps(OctKey.generate_key(256).as_dict(private=True))
    yield "set", json.dumps({"keys": [key.as_dict(private=False) for key in pairs.values()]})


def refusal(text: str) -> str:
    """What is said of it; nothing of the text is in there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="openssl rand -base64 32") as caught:
            SharedSecret("clients", text)
    said = str(caught.value)
    assert "'clients'" in said
    words = re.findall(r"\S{12,}", text)
    assert not [word for word in words if word in said]
    return said


@pytest.mark.parametrize("name", TEXTS)
def test_no_key_of_another_kind_is_a_shared_secret(name: str) -> None:
    """Whole, in blanks, behind a byte order mark, with other line ends, or cut off in the middle."""
    text = TEXTS[name]
    told = "SSH" if name.endswith(" ssh") else "PEM"
    for shown in (text, f"\n  {text}\n\n", "\ufeff" + text, text.replace("\n", "\r\n"), "\0".join(text)):
        assert told in refusal(shown)
    assert told in refusal(text[: max(60, len(text) // 2)])


@pytest.mark.parametrize("name", TEXTS)
def test_a_key_whose_armour_was_left_out_is_none_either(name: str) -> None:
    """The lines between BEGIN and END, or the middle word of an OpenSSH line, one after the other or in one."""
    body = "".join(line for line in TEXTS[name].splitlines() if "-----" not in line)
    if name.endswith(" ssh"):
        body = body.split()[1]
    assert refusal(body)
    assert refusal("\n".join(body[at : at + 64] for at in range(0, len(body), 64)))
    if len(body) > 200:
        assert refusal(body[:150])


@pytest.mark.parametrize("name", BINARY)
def test_der_is_no_shared_secret_in_base64_or_hex(name: str) -> None:
    """With padding or without, in either alphabet."""
    data = BINARY[name]
    for text in (
        base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("="), data.hex(), data.hex(":"),
    ):  # fmt: skip
        assert "DER" in refusal(text)


def test_der_in_a_file_is_refused_by_the_name_of_its_secret(tmp_path: Path) -> None:
    """It is no text, or it is one and is known for what it is."""
    conf, path = tmp_path / "conf.d", tmp_path / "secret"
    conf.mkdir()
    (conf / "a.toml").write_text(f'[auth.shared_secrets]\nclients = "{path}"\n')
    plain = ed25519.Ed25519PublicKey.from_public_bytes(secrets.token_hex(16).encode())
    texts = [*BINARY.values(), plain.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
    for data in texts:
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=r"'clients'.*openssl rand -base64 32"):
            SharedSecret("clients", load_shared_secrets(load(conf, {}), None)["clients"])


@pytest.mark.parametrize(("name", "text"), list(jwks()))
def test_the_text_of_a_jwk_is_no_shared_secret(name: str, text: str) -> None:
    """Whoever has the JWK set could sign with it."""
    assert "JWK" in refusal(text), name
    assert "JWK" in refusal(base64.urlsafe_b64encode(text.encode()).decode())


def test_an_old_key_of_ssh_is_none() -> None:
    """RFC 4716, PuTTY's files, and a line of authorized_keys with options."""
    line = KEYS["rsa"].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert refusal(f"---- BEGIN SSH2 PUBLIC KEY ----\nComment: x\n{line.split()[1]}\n---- END SSH2 PUBLIC KEY ----")
    assert refusal("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")
    assert refusal(f'command="true",no-pty {line} me@there')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = dsa.generate_private_key(1024)
        assert refusal(old.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize("sample", sorted(PUBLISHED_SECRETS))
def test_a_sample_stays_one_whatever_blanks_stand_around_it(sample: str) -> None:
    """Blanks make it longer, and nobody's secret."""
    for text in (sample, sample + "\n", sample + " " * 40, f"\t\n{sample}\r\n\n" + "\n" * 40):
        assert "sample" in refusal(text)


def test_a_key_or_token_that_a_guide_prints_is_no_secret_either() -> None:
    """By name, with blanks around it or without."""
    key = "camera_service_sk_" + "1234567890abcdef" * 4
    token = "ee6d52ece4fa6c4c8836820d2eb7feeb" + "6c78cbf2e2661ef76c9f5a805fc16340"
    assert "the client guide's sample key" in refusal(key) + refusal(f"{key}\n")
    assert "the upload server guide's sample token" in refusal(f" {token} ")


@pytest.mark.parametrize(
    "text",
    ["", " " * 32, "\n" * 64, "a" * 32, "ab" * 20, "0123456" * 8, "abcdefgh" * 4, "correct horse " * 4,
     "abcdefghi" + " " * 40, "x" * 31, "ä" * 15],
)  # fmt: skip
def test_what_says_too_little_is_refused(text: str) -> None:
    """Blanks, few characters, one word again and again: long, and soon guessed."""
    assert refusal(text)


@given(st.binary(min_size=32, max_size=64), st.sampled_from(["base64", "hex", "url", "line"]))
def test_what_is_random_is_taken_in_every_usual_spelling(data: bytes, form: str) -> None:
    """What openssl, Python and a password manager print; and it signs by all of its characters."""
    data = bytes(at ^ byte for at, byte in enumerate(secrets.token_bytes(len(data))))
    text = {
        "base64": base64.b64encode(data).decode(), "hex": data.hex(), "url": secrets.token_urlsafe(len(data)),
        "line": base64.b64encode(data).decode() + "\n",
    }[form]  # fmt: skip
    assert len(set(text)) >= FEWEST_CHARACTERS
    assert SharedSecret("clients", text).key == text.strip().encode()


@pytest.mark.parametrize("second", "abcdef0123456789")
def test_no_spelling_of_a_random_number_is_taken_for_der(second: str) -> None:
    """The character 0 is the byte that DER begins with. Nothing is raised."""
    check_secret("clients", f"0{second}0" + secrets.token_hex(31)[1:])
    check_secret("clients", "our ssh-server and the cameras share these words, " + secrets.token_hex(8))


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_whatever_a_file_says_ends_in_a_secret_or_in_a_sentence(text: str) -> None:
    """No other error leaves, and nothing of it is shown."""
    told = ""
    try:
        check_secret("clients", text)
    except ConfigError as problem:
        told = str(problem)
    assert len(text) < 20 or text not in told
