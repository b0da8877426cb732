"""edged: one daemon for a camera box. CONTRIBUTING.md says where things are; `edged.app` is the composition root."""

__version__ = "0.1.0"
