"""MediaMTX, which carries the pictures: its settings, its process, its paths and its viewers."""
