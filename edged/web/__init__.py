"""HTTP: routes, credentials and faults; formats only, every decision is the gate's."""
