"""Settings → TOML text: the defaults with their help (etc/defaults.toml), and what is in force."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from edged.config.model import (
    LISTENERS,
    SECTIONS,
    Config,
    IssuerSettings,
    ListenerPolicy,
    ListenPolicies,
)
from edged.config.sections import Section, Setting, settings_of
from edged.urls import mask_url

_HEAD = """\
# Every setting of edged with its default. Generated from edged/config; the daemon never reads it.
# Change a setting in a file of your own in /etc/edged/conf.d, or as EDGED_<SECTION>_<KEY> in the environment.
"""
#: Settings that are tables of their own: the name that one has as an example, and its keys.
_TABLES: dict[str, tuple[str, type[Section]]] = {
    "issuers": ("company", IssuerSettings),
    "policy": ("tokens", ListenerPolicy),
}
_LONGEST_HELP = 116
#: What is shown where nothing is the default.
_EXAMPLES = {
    "name": '"Entrance"',
    "source": '"rtsp://192.0.2.7/stream1"',
    "issuer": '"https://login.example.com/"',
    "jwks": '"https://login.example.com/jwks.json"',
}


def render_defaults() -> str:
    """The documentation of every key: TOML that loads, and gives the defaults."""
    parts = [_HEAD]
    for name, kind in SECTIONS.items():
        # Cameras have no default: their keys are shown as comments.
        mark = "#" if name == "camera" else ""
        tables: list[str] = []
        lines = [f"# {(kind.__doc__ or '').splitlines()[0]}", f"{mark}{'[[camera]]' if mark else f'[{name}]'}"]
        for setting in settings_of(kind).values():
            if setting.name not in _TABLES:
                lines += [*_help(setting), f"{mark}{setting.name} = {_shown_default(setting)}"]
            else:
                # One of the tables that stand below the keys of the section.
                header, table = _TABLES[setting.name]
                tables += ["", *_help(setting), f"#[{name}.{setting.name}.{header}]"]
                for item in settings_of(table).values():
                    tables += [*_help(item), f"#{item.name} = {_shown_default(item)}"]
        lines += tables
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def render(config: Config) -> str:
    """The settings in force as TOML; passwords in URLs are masked, secrets are not in Config."""
    parts = []
    for name, kind in SECTIONS.items():
        if name == "camera":
            parts += [_section("[[camera]]", camera, kind) for camera in config.camera]
        else:
            parts.append(_section(f"[{name}]", getattr(config, name), kind))
    return "\n".join(parts)


def _section(header: str, section: Section, kind: type[Section]) -> str:
    lines, tables = [header], []
    for key in settings_of(kind):
        value = getattr(section, key)
        if isinstance(value, ListenPolicies):
            for name in LISTENERS:
                tables += ["", f"[listen.{key}.{name}]", *_pairs(getattr(value, name))]
        else:
            lines.append(f"{key} = {_toml(value)}")
    lines += tables
    return "\n".join(lines) + "\n"


def _pairs(section: Section) -> list[str]:
    return [f"{key} = {_toml(getattr(section, key))}" for key in settings_of(type(section))]


def _help(setting: Setting) -> list[str]:
    words, lines = setting.help.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > _LONGEST_HELP:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [f"# {line}" for line in lines]


def _shown_default(setting: Setting) -> str:
    if setting.default is msgspec.NODEFAULT:
        return _EXAMPLES[setting.name]
    return _EXAMPLES[setting.name] if setting.name == "jwks" else _toml(setting.default)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Path):
        return '""' if value == Path() else _toml(str(value))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Section):
        value = {key: getattr(value, key) for key in settings_of(type(value))}
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, str):
        # As the value that it is: in the text around it a quote or a blank would end a password too soon.
        value = mask_url(value)
    # JSON's strings and numbers are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
