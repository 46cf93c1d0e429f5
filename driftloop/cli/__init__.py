"""The `driftloop` command; the only place that brings library, deployment and simulation together."""
