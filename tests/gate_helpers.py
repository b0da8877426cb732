"""A gate, and the check of a token, where a test names only what it is about: everybody else is trusted by nobody."""

from __future__ import annotations

from typing import Any

from edged.access.admissions import Admissions
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.access.limiter import Limiter
from edged.clock import Clock
from edged.credentials import tokens
from edged.credentials.callers import Caller, Peer

#: A program on this very machine, which is never slowed down.
LOCAL = Peer("main", "127.0.0.1")


class NoIssuers:
    """No outside issuer is trusted."""

    version = 0

    def find(self, _issuer: str) -> None:
        return None


def find_nothing(_name: str) -> None:
    """No key pair, and no outside issuer, has this name."""


def make_gate(ledger: Ledger, admissions: Admissions, clock: Clock, counts: Any, **options: Any) -> Gate:
    """A gate over these; `options` as Gate takes them."""
    trusted: dict[str, Any] = {
        "shared_secrets": (), "find_key": find_nothing, "issuers": NoIssuers(), "own": "edged",
    }  # fmt: skip
    limiter = options.pop("limiter", None) or Limiter(clock.monotonic)
    return Gate(ledger, admissions, limiter, clock, counts, **trusted | options)


def verify(text: str, secrets: Any, **options: Any) -> Caller:
    """credentials.tokens.verify; `options` as it takes them."""
    trusted: dict[str, Any] = {"find_key": find_nothing, "find_issuer": find_nothing, "own": ""}
    return tokens.verify(text, secrets, **trusted | options)
