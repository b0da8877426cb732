"""edged: one daemon for a camera box. The floor plan is in README.md; `edged.app` puts the house together."""

__version__ = "0.1.0"
