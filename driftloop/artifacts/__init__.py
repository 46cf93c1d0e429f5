"""Bundles, dataset parts and checkpoints as files on any fsspec file system, with digests and signatures."""

from driftloop.artifacts.errors import (
    ArtifactError,
    ArtifactNotFound,
    ArtifactTooLarge,
    BundleRefused,
    SchemaRefused,
    StoreFull,
    StoreUnavailable,
)
from driftloop.artifacts.store import ArtifactStore

__all__ = [
    "ArtifactError",
    "ArtifactNotFound",
    "ArtifactStore",
    "ArtifactTooLarge",
    "BundleRefused",
    "SchemaRefused",
    "StoreFull",
    "StoreUnavailable",
]
