"""Described cameras for tests."""

from __future__ import annotations

from typing import Any

from edged.cameras.entries import CameraEntry
from edged.config.model import CameraSettings


def make_entry(
    name: str, source: str, *, number: int | None = None, address: str = "", stand_in: str = "", **settings: Any
) -> CameraEntry:
    """A camera of the settings, or with a `number` one that a call has added. `settings`: further keys of it."""
    described = CameraSettings(name=name, source=source, **settings)
    return CameraEntry(described, number=number, address=address, stand_in=stand_in)
