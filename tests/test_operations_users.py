"""operations/users.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import REMOTE, ask, key_of, running_services

from edged.access.authority import EDGED
from edged.credentials.callers import ApiKey
from edged.errors import InvalidState, NotFound, Refused


async def test_no_reply_about_a_user_shows_the_hash_of_the_password(tmp_path: Path) -> None:
    """Neither the one that creates the user, nor the list, nor the one about a single user."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            made = await ask(services, admin, "create_user", name="ann", role="viewer", password="a long passphrase")
            listed = await ask(services, admin, "list_users")
            one = await ask(services, admin, "get_user", name="ann")
            stored = trust.users.get("ann").password
            assert stored is not None
            assert stored not in str((made, listed, one))
            assert (one["name"], one["role"]) == ("ann", "viewer")


async def test_the_only_administrator_cannot_be_deleted_or_demoted(tmp_path: Path) -> None:
    """InvalidState, and the user is as before."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            await ask(services, admin, "create_user", name="root", role="admin", password="a long passphrase")
            for name, params in (("delete_user", {}), ("update_user", {"role": "viewer"})):
                with pytest.raises(InvalidState):
                    await ask(services, admin, name, **{"name": "root", **params})
            assert trust.users.get("root").role == "admin"


async def test_deleting_a_user_revokes_the_keys_that_the_user_owns(tmp_path: Path) -> None:
    """From the reply on; and the user is not found any more."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            await ask(services, admin, "create_user", name="ann", role="viewer")
            _, secret = await trust.api_keys.create(EDGED, name="hers", role="viewer", owner="ann")
            await ask(services, admin, "delete_user", name="ann")
            with pytest.raises(Refused):
                trust.gate.authenticate(ApiKey(secret), REMOTE, "ws")
            with pytest.raises(NotFound):
                await ask(services, admin, "get_user", name="ann")
