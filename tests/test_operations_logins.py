"""operations/logins.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import REMOTE, ask, running_services

from edged.access.authority import EDGED
from edged.credentials.callers import Token
from edged.errors import Refused


async def test_a_login_gives_a_token_of_the_role_of_the_user(tmp_path: Path) -> None:
    """The gate takes it, as this user."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            password = await services.passwords.hash("a long passphrase")
            await trust.users.create(EDGED, name="ann", role="operator", password=password)
            reply = await ask(services, None, "login", username="ann", password="a long passphrase")
            caller = trust.gate.authenticate(Token(reply["token"]), REMOTE, "ws")
            assert (caller.subject, caller.role) == ("ann", "operator")


@pytest.mark.parametrize("name", ["ann", "nobody"])
async def test_a_wrong_password_and_an_unknown_user_are_refused_alike(tmp_path: Path, name: str) -> None:
    """By the same reason."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            password = await services.passwords.hash("a long passphrase")
            await trust.users.create(EDGED, name="ann", role="operator", password=password)
            with pytest.raises(Refused) as caught:
                await ask(services, None, "login", username=name, password="another passphrase")
            assert caught.value.reason == "unknown_key"
