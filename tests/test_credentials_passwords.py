"""credentials/passwords.py: what may be a password, its bytes, and what a stored hash says of its cost."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.passwords import LONGEST_BYTES, MINIMUM_COST, Cost, check_password, prepare, read_cost
from edged.errors import InvalidParams

PHC = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$sLfQtCbaqHBYPjXOkcDHz8pLDBVDj5NWJVMkxDBHZFA"


@pytest.mark.parametrize(
    "text", ["correct horse", "тысяча слов", "🐎🐎 battery 🐎", "a" * 1000 + "b", "passphrase with spaces ", "8 chars!"]
)
def test_long_and_foreign_and_unmixed_passwords_are_good(text: str) -> None:
    """No rule says what must be mixed, and nothing is too exotic. Nothing is raised."""
    check_password(text, "alice")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "shorter than 8"),
        ("demo", "shorter than 8"),
        ("seven77", "shorter than 8"),
        ("éé" + "e\N{COMBINING ACUTE ACCENT}" * 5, "shorter than 8"),
        ("password", "tried first"),
        ("PassWord123", "tried first"),
        ("your-secret-key", "tried first"),
        ("raspberry", "tried first"),
        ("zzzzzzzzzz", "tried first"),
        ("abcdefghij", "tried first"),
        ("987654321", "tried first"),
        ("Alice.Miller", "user name"),
        ("a long one\n", "control character"),
        ("a long \0 one", "control character"),
        ("x" * 1025, "longer than 1024"),
        ("é" * 513, "longer than 1024"),
        ("half a pair \ud800", "not Unicode"),
    ],
)
def test_a_password_that_would_be_guessed_or_never_typed_is_refused(text: str, said: str) -> None:
    """The answer says why, and never repeats it."""
    with pytest.raises(InvalidParams, match=said) as caught:
        check_password(text, "alice.miller")
    assert text in ("", "password") or text not in str(caught.value)


def test_nothing_is_cut_off() -> None:
    """Two passwords that differ in their last byte only are two passwords."""
    assert prepare("x" * 1023 + "a") != prepare("x" * 1023 + "b")


@given(st.text(max_size=1100))
def test_the_same_characters_are_the_same_bytes_however_they_were_typed(text: str) -> None:
    """Composed and decomposed accents are one password; what is prepared is never longer than allowed."""
    made = prepare(text)
    if len(unicodedata.normalize("NFD", text)) <= LONGEST_BYTES and len(text) <= LONGEST_BYTES:
        assert made == prepare(unicodedata.normalize("NFD", text))
    assert made is None or 0 < len(made) <= LONGEST_BYTES


def test_characters_that_only_look_alike_stay_different() -> None:
    """A superscript two is no two: compatibility forms are not folded."""
    assert prepare("x²x²x²x²") != prepare("x2x2x2x2")


def test_a_stored_hash_says_what_it_cost() -> None:
    """Its parameters, not what edged would use today."""
    assert read_cost(PHC) == MINIMUM_COST
    assert read_cost(PHC.replace("t=2", "t=7")) == Cost(19456, 7, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PHC.replace("argon2id", "argon2i"),
        PHC.replace("v=19", "v=16"),
        PHC.replace("m=19456", "m=4194304"),
        PHC.replace("t=2", "t=999"),
        PHC.replace("t=2", "t=0"),
        PHC.replace("p=1", "p=16"),
        PHC + "\n",
        PHC.rpartition("$")[0],
        "$2b$12$abcdefghijklmnopqrstuuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123",
    ],
)
def test_a_hash_of_another_kind_or_of_an_absurd_cost_is_none(text: str) -> None:
    """It would be refused by argon2, or take the memory or the minutes of the box."""
    assert read_cost(text) is None


@given(st.text(alphabet="$argon2idv=19mtp,0123456789abcAB+/\n", max_size=120))
def test_any_text_can_be_asked_for_its_cost(text: str) -> None:
    """What stands in a database may be anything."""
    cost = read_cost(text)
    assert cost is None or cost.passes >= 1


def test_a_cost_covers_another_only_in_every_respect() -> None:
    """More passes do not make up for less memory."""
    assert Cost(19456, 3).covers(MINIMUM_COST)
    assert MINIMUM_COST.covers(MINIMUM_COST)
    assert not Cost(4096, 10).covers(MINIMUM_COST)
    assert not MINIMUM_COST.covers(Cost(19456, 3))
