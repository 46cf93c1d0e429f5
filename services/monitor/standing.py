"""Which replicas of serving have loaded a model, by what their watermarks say; decides nothing.

A release is a wish until every replica has applied it: a model that some replica could not load, or has not loaded yet, must not
go a step further because the others are content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class Standing:
    """The newest word of each replica, and the release that first named each model of the newest one."""

    def __init__(self, replicas: Sequence[str]) -> None:
        self._replicas = tuple(replicas)
        self._applied: dict[str, int] = {}
        self._refused: dict[str, list[str]] = {}
        self._named: dict[str, int] = {}

    def released(self, revision: int, model_ids: Iterable[str]) -> None:
        """A release names these models, and no others any more."""
        self._named = {model_id: self._named.get(model_id, revision) for model_id in model_ids}

    def heard(self, replica: str, revision: int, refused: Sequence[str]) -> None:
        """A replica says which release it has applied (0: it does not say) and which models of it it refused."""
        if replica in self._replicas:
            self._applied[replica], self._refused[replica] = revision, list(refused)

    def missing(self, model_id: str) -> str:
        """In words, the replicas that do not hold a model; empty where all that speak of it do."""
        first = self._named.get(model_id, 0)
        found = []
        for replica in self._replicas:
            applied = self._applied.get(replica, 0)
            if model_id in self._refused.get(replica, ()):
                found.append(f"{replica} has refused it")
            elif 0 < applied < first:
                found.append(f"{replica} has not applied release {first} yet")
        return "; ".join(found)

    def snapshot(self) -> list[dict[str, Any]]:
        """State as plain values."""
        return [dict(self._applied), {name: list(models) for name, models in self._refused.items()}, dict(self._named)]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Takes a snapshot back."""
        applied, refused, named = state
        self._applied, self._named = dict(applied), dict(named)
        self._refused = {name: list(models) for name, models in refused.items()}
