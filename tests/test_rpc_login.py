"""What a client is told of the end of its credential, and when (contract S0-32, 10.3)."""

from __future__ import annotations

import pytest

from edged.access.admissions import Cause
from edged.rpc.login import Login

OWN_CALL, OTHER_CALL = object(), object()


def test_a_client_with_subscriptions_is_told_of_the_expiry_at_once() -> None:
    """It reads texts that are no answers; nothing follows behind its next answer."""
    login = Login()
    assert login.expire(tells=True, at_once=True) == "tell_expiry"
    login.refuse()
    assert not login.is_pending
    assert login.lost == "expired"


def test_a_client_without_subscriptions_is_told_once_behind_the_next_refusal() -> None:
    """An answer that does not say that the credential is missing is not followed by it."""
    login = Login()
    assert login.expire(tells=True, at_once=False) == "nothing"
    assert not login.is_pending
    login.refuse()
    assert login.is_pending
    assert login.answered(lambda: None, is_last=True) == ("tell_expiry",)
    login.refuse()
    assert not login.is_pending


def test_a_client_that_does_not_expect_it_is_never_told() -> None:
    """A v1 client."""
    login = Login()
    assert login.expire(tells=False, at_once=True) == "nothing"
    login.refuse()
    assert not login.is_pending


def test_a_new_credential_ends_what_was_to_be_told_of_the_one_before() -> None:
    """Also the reason that refusals give."""
    login = Login()
    login.expire(tells=True, at_once=False)
    login.enter()
    login.refuse()
    assert not login.is_pending
    assert login.lost is None


def test_a_failed_login_hides_why_the_credential_before_it_was_lost() -> None:
    """What is refused then is refused for the new credential."""
    login = Login()
    login.expire(tells=True, at_once=False)
    login.try_again()
    assert login.lost is None
    login.refuse()
    assert login.answered(lambda: None, is_last=True) == ("tell_expiry",)


@pytest.mark.parametrize("cause", ["revoked", "suspended", "ended"])
def test_a_revocation_by_somebody_else_closes_at_once(cause: Cause) -> None:
    assert Login().end(cause, task=None) == "close"


def test_a_revocation_by_an_own_call_closes_behind_the_answer_to_that_call() -> None:
    """Not behind the answer to another call that ends before."""
    login = Login()
    assert login.end("revoked", task=OWN_CALL) == "nothing"
    assert login.is_pending
    assert login.answered(lambda: OTHER_CALL, is_last=False) == ()
    assert login.is_pending
    assert login.answered(lambda: OWN_CALL, is_last=False) == ("close",)
    assert login.leaving == "revoked"


def test_the_last_call_closes_where_another_task_has_revoked() -> None:
    login = Login()
    login.end("revoked", task=OWN_CALL)
    assert login.answered(lambda: OTHER_CALL, is_last=True) == ("close",)
