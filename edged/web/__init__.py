"""HTTP: routes, credentials and faults. Formats only: the gate decides."""
