"""The model that a bundle holds, under the name by which its readers know it."""

from driftloop.scoring.model import ScoringModel

__all__ = ["ScoringModel"]
