"""What every section of the settings is: a frozen struct whose fields carry their own help."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One section of the settings."""


class Setting(msgspec.Struct, frozen=True):
    """One key of a section: `kind` its type without the help, `default` NODEFAULT where it must be given."""

    name: str
    annotation: object
    help: str
    default: object


def settings_of(section: type[Section]) -> dict[str, Setting]:
    """The keys of a section by name, in the order in which they are declared."""
    found: dict[str, Setting] = {}
    for field in msgspec.structs.fields(section):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        found[field.name] = Setting(field.name, field.type, _help_of(field.type), default)
    return found


def _help_of(annotation: object) -> str:
    metas = getattr(annotation, "__metadata__", ())
    return next((meta.description for meta in metas if isinstance(meta, Meta) and meta.description), "")
