"""What can go wrong in trainer, named by what it does next.

TrainerError
├── DataRefused     answer the request as refused: the rows do not bear a model, and the message says why
├── Stopping        leave the request unanswered: the process ends, and its successor answers it
├── NoGpu           stop: a GPU was asked for and there is none
└── TooManyRequests stop: more open requests than any policy asks for, so something else is wrong
"""

from __future__ import annotations


class TrainerError(Exception):
    """Base of every error of trainer."""


class DataRefused(TrainerError):
    """The rows do not bear a model: answer that it is refused, and why."""


class Stopping(TrainerError):
    """The process is asked to end: the request stays unanswered and uncommitted."""


class TooManyRequests(TrainerError):
    """More requests are open than any policy asks for: stop, a person has to look."""


class NoGpu(TrainerError):
    """Training on a GPU was asked for and there is none: stop, the message says how to get one."""
