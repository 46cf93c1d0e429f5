"""What a published model computes, in process or behind BentoML; the same files travel in every bundle."""

from driftloop.scoring.model import ScoringModel

__all__ = ["ScoringModel"]
