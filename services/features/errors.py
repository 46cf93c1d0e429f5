"""Why features stops, named by what an operator does next.

FeaturesError
├── NothingToBackfill  ask for a stretch that the event log holds
├── OnlineStoreFailed  nothing: it is tried again; mend the store if it stays
└── CannotStart        look at the message: topics of the wrong shape, or a setting that contradicts another
"""

from __future__ import annotations


class FeaturesError(Exception):
    """Base of every error of features."""


class CannotStart(FeaturesError):
    """The process cannot become ready; its supervisor tries again."""


class NothingToBackfill(FeaturesError):
    """The event log does not hold the stretch that was asked for."""


class OnlineStoreFailed(FeaturesError):
    """A batch was not written to the online store, or nobody knows: it is written again."""
