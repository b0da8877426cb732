"""operations/signing_keys.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import ask, key_of, running_services

from edged.errors import InvalidParams, Refused


async def test_no_private_member_of_a_signing_key_is_in_a_reply(tmp_path: Path) -> None:
    """Neither of the one that is created nor in the list."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            made = await ask(services, admin, "create_signing_key", algorithm="ES256")
            listed = await ask(services, admin, "list_signing_keys")
            assert {item["kid"] for item in listed["keys"]} == {"key-1", "key-2", made["kid"]}
            for record in services.keyring.all():
                assert record.private is not None
                assert record.private["d"] not in str((made, listed))


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_only_an_administrator_may_create_a_signing_key(tmp_path: Path, role: str) -> None:
    """And only of an algorithm that edged signs with."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            with pytest.raises(Refused):
                await ask(services, await key_of(trust, role), "create_signing_key", algorithm="ES256")
            with pytest.raises(InvalidParams):
                await ask(services, await key_of(trust, "admin"), "create_signing_key", algorithm="none")
            assert [record.kid for record in services.keyring.all()] == ["key-1", "key-2"]
