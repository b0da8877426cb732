"""operations/service_tokens.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import REMOTE, ask, key_of, running_services

from edged.credentials.callers import ServiceToken
from edged.errors import NotFound, Refused


async def test_a_service_token_is_shown_once_and_not_in_lists(tmp_path: Path) -> None:
    """By the reply that creates it; the list has its id and name."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            made = await ask(services, admin, "create_service_token", name="uploads")
            listed = await ask(services, admin, "list_service_tokens")
            assert [item["token_id"] for item in listed["service_tokens"]] == [made["token_id"]]
            assert made["service_token"] not in str(listed)


async def test_a_revoked_service_token_is_refused_and_an_unknown_one_not_found(tmp_path: Path) -> None:
    """It was good until then."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            made = await ask(services, admin, "create_service_token", name="uploads")
            credential = ServiceToken(made["service_token"], "192.0.2.7")
            trust.gate.authenticate(credential, REMOTE, "http", at_files=True)
            await ask(services, admin, "revoke_service_token", token_id=made["token_id"])
            with pytest.raises(Refused):
                trust.gate.authenticate(credential, REMOTE, "http", at_files=True)
            with pytest.raises(NotFound):
                await ask(services, admin, "revoke_service_token", token_id="svc_0000000000000000")
