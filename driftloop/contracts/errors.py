"""Errors of the contracts, named by what the caller does next."""

from __future__ import annotations


class ContractError(Exception):
    """Base of every error of the contracts."""


class MalformedRecord(ContractError):
    """Bytes that are no message of their topic: dead-letter them and go on. `rule` is short and stable."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{rule}: {reason}")
        self.rule = rule
        self.reason = reason


class TopicFileError(ContractError):
    """A topic's YAML contradicts itself or names an unknown message: correct the file."""
