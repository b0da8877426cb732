"""operations/entry.py: what an HTTP endpoint is given beside operations."""

from __future__ import annotations

import pytest
from operations_helpers import Bench

from edged.operations.entry import entry_of


@pytest.mark.parametrize("root_needs_no_key", [True, False])
def test_an_endpoint_asks_the_gate_of_this_daemon_and_goes_by_its_setting_for_root(root_needs_no_key: bool) -> None:
    bench = Bench(root_needs_no_key=root_needs_no_key)
    entry = entry_of(bench.services)
    assert entry.gate is bench.gate
    assert entry.root_needs_no_key is root_needs_no_key


def test_without_the_setting_root_needs_a_credential_as_everybody() -> None:
    """contract 5.1: who forgets to say it opens nothing."""
    assert entry_of(Bench().services).root_needs_no_key is False
