"""Errors of the feature store, named by what the caller does next."""

from __future__ import annotations


class FeatureStoreError(Exception):
    """Base of every error of the feature store."""


class LogBehind(FeatureStoreError):
    """The offline log has not reached a time within the wait: wait again. The message names what is behind."""


class LogDamaged(FeatureStoreError):
    """A manifest cannot be read or the manifests contradict each other: stop; a person has to look."""


class BackfillOvertaken(FeatureStoreError):
    """Another backfill was published while this one ran: run it again."""


class SecretMissing(FeatureStoreError):
    """A password's file is not there or empty: stop; the message names the file."""
