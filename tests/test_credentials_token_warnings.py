"""credentials/token_warnings.py: what guide S0's validator warns of (S0-25 to S0-27)."""

from __future__ import annotations

import pytest

from edged.credentials.token_warnings import KINDS, errors_of, warnings_of
from edged.metrics.labels import TOKEN_WARNINGS

NOW = 2_000_000_000.0
DAY = 86400.0
PLAIN = {"sub": "ann", "user_id": "ann", "role": "viewer", "iat": NOW - 60, "exp": NOW + 60, "jti": "x"}
OLD = "Token is very old"
SUSPICIOUS = "Suspicious token patterns detected"


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, []),
        ({"permissions": ["a"] * 10, "roles": ["admin", "anything"]}, []),
        ({"iat": NOW - 30 * DAY}, []),
        ({"iat": NOW - 30 * DAY - 1}, [OLD]),
        ({"iat": None}, []),
        ({"sub": None}, ["Missing required claim: sub"]),
        ({"permissions": ["a"] * 11}, [SUSPICIOUS]),
        ({"role": "superadmin"}, [SUSPICIOUS]),
        ({"role": "root"}, [SUSPICIOUS]),
        ({"roles": ["viewer", "master"]}, [SUSPICIOUS]),
        ({"jti": None}, [SUSPICIOUS]),
        ({"jti": ""}, [SUSPICIOUS]),
        (
            {"sub": None, "iat": NOW - 31 * DAY, "jti": None, "role": "root", "permissions": ["a"] * 11},
            [OLD, "Missing required claim: sub", SUSPICIOUS],
        ),
    ],
)
def test_a_token_is_warned_of_in_the_seeds_words(changes: dict[str, object], warnings: list[str]) -> None:
    """Each once, in the validator's order; exactly thirty days and exactly ten permissions are nothing."""
    claims = {name: value for name, value in {**PLAIN, **changes}.items() if value is not None}
    assert warnings_of(claims, NOW) == warnings


def test_a_token_without_iat_is_wrong_in_the_seeds_words() -> None:
    """The validator requires it; a subject may stand under either name, and without an end no token is good."""
    assert errors_of({name: value for name, value in PLAIN.items() if name != "iat"}) == ["Missing required claim: iat"]
    assert errors_of({**PLAIN, "iat": None}) == ["Missing required claim: iat"]
    assert errors_of({"user_id": "ann", "role": "viewer", "iat": NOW, "exp": NOW + 60}) == []


def test_what_the_metrics_count_they_have_a_name_for() -> None:
    """Old and suspicious ones; that a claim is missing is not counted, whole families of clients leave one out."""
    assert {KINDS[OLD], KINDS[SUSPICIOUS]} == set(KINDS.values()) == set(TOKEN_WARNINGS)
