"""Why monitor stops, named by what an operator does next.

MonitorError
└── CannotStart    look at the message: topics of the wrong shape, or a setting that contradicts another
"""

from __future__ import annotations


class MonitorError(Exception):
    """Base of every error of monitor."""


class CannotStart(MonitorError):
    """The process cannot become ready; its supervisor tries again."""
