"""operations/first_admin.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import ask, key_of, running_services

from edged.credentials.callers import Peer
from edged.errors import Refused


async def test_a_claim_code_is_refused_over_the_network_to_an_administrator(tmp_path: Path) -> None:
    """Only root on the unix socket gets one."""
    with fail_after(30):
        async with running_services(tmp_path) as (trust, services):
            admin = await key_of(trust, "admin")
            for name in ("get_claim_code", "create_claim_code"):
                with pytest.raises(Refused):
                    await ask(services, admin, name, Peer("main", "127.0.0.1", 40000))
