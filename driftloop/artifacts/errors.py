"""Errors of the artifact store, named by what the caller does next."""

from __future__ import annotations

from collections.abc import Sequence


class ArtifactError(Exception):
    """Base of every error of the artifact store."""


class NoStore(ArtifactError):
    """No files can be kept at such a URL: correct DRIFTLOOP_ARTIFACTS_URL, or install what speaks its protocol."""


class StoreUnavailable(ArtifactError):
    """The store does not let itself be used (credentials, bucket, network, permissions): stop; a restart may cure it, or a person."""


class ArtifactNotFound(ArtifactError):
    """Nothing lies at that path: it was never written, or somebody removed it."""


class ArtifactTooLarge(ArtifactError):
    """More bytes than the caller allows: refuse it unread."""


class StoreFull(ArtifactError):
    """There is no room for a file: nothing of it was written. Stop, and begin again from what is there until there is room."""


class BundleRefused(ArtifactError):
    """A bundle that must not be imported: keep the model that is in use and say why. `reason` is short and stable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SchemaRefused(ArtifactError):
    """A declared schema may not follow the stored one: keep what is in use, and correct the declaration. `why`: all that breaks."""

    def __init__(self, use_case: str, why: Sequence[str]) -> None:
        super().__init__(f"the schema of {use_case} may not follow the stored one: " + " | ".join(why))
        self.why = tuple(why)
