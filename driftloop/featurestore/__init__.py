"""Feast for a use case: definitions, the offline log, the join on known time, online reads and writes.

Nothing is imported here: `log` needs no Feast, and importing Feast takes ten seconds.
"""
