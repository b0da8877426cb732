"""The command line. It imports click and little else at start: `edged serve` should not wait for `edged key`."""
