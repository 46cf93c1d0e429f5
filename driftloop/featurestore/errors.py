"""Errors of the feature store, named by what the caller does next."""

from __future__ import annotations


class FeatureStoreError(Exception):
    """Base of every error of the feature store."""


class LogBehind(FeatureStoreError):
    """The offline log has not reached a time within the wait: wait again. The message names what is behind."""


class LogDamaged(FeatureStoreError):
    """A manifest cannot be read or the manifests contradict each other: stop; a person has to look."""


class PartUnreadable(FeatureStoreError):
    """A part of the log that counts cannot be read: try again, the store may have broken off; if it stays, restore the file."""

    def __init__(self, where: str, why: BaseException) -> None:
        said = str(why).splitlines()[0].partition(" Detail:")[0] if str(why) else ""
        super().__init__(
            f"a part of the offline log{where} cannot be read: {type(why).__name__}: {said}; try again if the store broke off, "
            "else restore the file"
        )


class BackfillOvertaken(FeatureStoreError):
    """Another backfill was published while this one ran: run it again."""


class SecretMissing(FeatureStoreError):
    """A password's file is not there or empty: stop; the message names the file."""
