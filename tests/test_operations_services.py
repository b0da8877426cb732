"""operations/services.py: what stands ready where nothing is given, and that nothing can be replaced."""

from __future__ import annotations

from typing import Any

import pytest
from operations_helpers import Bench
from services_helpers import defaults_of, make_services

from edged.errors import Unsupported
from edged.operations.services import Services


def test_no_part_can_be_replaced_while_edged_runs() -> None:
    """Operations share it: what one of them set would be everybody's."""
    services: Any = Bench().services
    with pytest.raises(AttributeError, match="immutable"):
        services.gate = None
    with pytest.raises((AttributeError, TypeError)):
        services.another = None


def test_what_is_left_out_lets_nobody_in_and_signs_nothing() -> None:
    """Every part must be given but these, and these give no right."""
    left_out = defaults_of(Services)
    assert (left_out.pop("shared_secrets"), left_out.pop("root_needs_no_key")) == ((), False)
    assert list(left_out) == ["reset_clock"]


async def test_a_clock_that_cannot_be_reset_says_so() -> None:
    with pytest.raises(Unsupported, match="there is no clock to reset"):
        await make_services().reset_clock()
