"""Ingest beside a bare producer: the same events on the same core, through every door."""
