"""Settings → TOML text: the defaults with their help (etc/defaults.toml), and what is in force."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from edged.config.model import SECTIONS, Config, IssuerSettings, Section, Setting, settings_of

_HEAD = """\
# Every setting of edged with its default. Generated from edged/config/model.py; the daemon never reads it.
# Change a setting in a file of your own in /etc/edged/conf.d, or as EDGED_<SECTION>_<KEY> in the environment.
"""
_USERINFO = re.compile(r"://[^\s\"']*@")
_LONGEST_HELP = 116
#: What is shown where nothing is the default.
_EXAMPLES = {
    "name": '"Front door"',
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
        lines = [f"# {(kind.__doc__ or '').splitlines()[0]}", f"{mark}{'[[camera]]' if mark else f'[{name}]'}"]
        for setting in settings_of(kind).values():
            if setting.name != "issuers":
                lines += [*_help(setting), f"{mark}{setting.name} = {_shown_default(setting)}"]
        if name == "auth":
            # A table of each issuer's own, below the keys of the section.
            lines += ["", *_help(settings_of(kind)["issuers"]), "#[auth.issuers.company]"]
            for setting in settings_of(IssuerSettings).values():
                lines += [*_help(setting), f"#{setting.name} = {_shown_default(setting)}"]
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
    lines = [header, *(f"{key} = {_toml(getattr(section, key))}" for key in settings_of(kind))]
    return _USERINFO.sub("://***@", "\n".join(lines) + "\n")


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
    # JSON's strings and numbers are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
