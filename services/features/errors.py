"""Why features stops, named by what an operator does next.

FeaturesError
└── CannotStart    look at the message: topics of the wrong shape, or a setting that contradicts another
"""

from __future__ import annotations


class FeaturesError(Exception):
    """Base of every error of features."""


class CannotStart(FeaturesError):
    """The process cannot become ready; its supervisor tries again."""
