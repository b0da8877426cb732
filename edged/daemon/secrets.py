"""The secrets of the settings, read before anything is opened."""

from __future__ import annotations

import msgspec

from edged import systemd
from edged.config.model import Config
from edged.config.secrets import load_shared_secrets, load_wrapping_key
from edged.credentials.claims import Trust
from edged.credentials.tokens import SharedSecret
from edged.credentials.wrapping import WrappingKey


class Secrets(msgspec.Struct, frozen=True):
    """`shared`: the HS256 secrets; `wrapping`: what the private halves of signing keys are encrypted with, None where
    the operator gives no such key."""

    shared: tuple[SharedSecret, ...]
    wrapping: WrappingKey | None


def read_secrets(config: Config) -> Secrets:
    """All secrets of the settings. Raises ConfigError."""
    return Secrets(read_shared_secrets(config), read_wrapping_key())


def read_shared_secrets(config: Config) -> tuple[SharedSecret, ...]:
    """The HS256 secrets of the settings. Raises ConfigError."""
    texts = load_shared_secrets(config, systemd.credentials_directory())
    own = config.auth.issuer
    issuers, audiences = frozenset({own, *config.auth.shared_issuers}), frozenset(config.auth.shared_audiences)
    trust = Trust(issuers, audiences, own=own)
    return tuple(SharedSecret(name, text, trust) for name, text in texts.items())


def read_wrapping_key() -> WrappingKey | None:
    """The key of systemd's credential for it. Raises ConfigError."""
    text = load_wrapping_key(systemd.credentials_directory())
    return None if text is None else WrappingKey(text)
