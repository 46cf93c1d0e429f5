"""Errors of messaging, named by what the caller does next.

MessagingError
├── QueueFull         retry after `retry_after_s`
├── DeliveryFailed    stop: the broker refused a message for good
├── ReadFailed        stop: the broker refuses to be read
├── ClientRefused     an operator corrects KAFKA_<NAME>; the process stops
├── TopicsMissing     an operator creates the topics; the process stops
└── Stalled           stop: the process no longer makes progress, a restart cures it
"""

from __future__ import annotations


class MessagingError(Exception):
    """Base of every error of messaging."""


class QueueFull(MessagingError):
    """The bounded queue to the broker is full: nothing was sent; try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue to the broker is full: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class DeliveryFailed(MessagingError):
    """The broker refused a message for good, or did not acknowledge in time: stop, a restart sends it again."""


class ReadFailed(MessagingError):
    """A topic cannot be read and waiting will not help (missing, not authorised, a fatal error): stop."""


class ClientRefused(MessagingError):
    """Kafka's client cannot be made of its settings: correct them, then start again."""


class TopicsMissing(MessagingError):
    """Topics that the service needs do not exist after waiting for them: create them, then start the service."""


class Stalled(MessagingError):
    """Records wait and none is taken: stop the process, its supervisor starts a fresh one."""
