"""What monitor does with each topic that it reads: every batch goes to the heart that folds it, found here by the topic's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftloop.contracts import Record
from driftloop.messaging import Malformed
from driftloop.messaging.faust_worker import Handler
from driftloop.messaging.heart_host import HeartHost

Batch = Sequence[Record | Malformed]
MATCHING_TOPICS = ("events", "predictions")
JUDGING_TOPICS = ("predictions", "scores", "models", "commands", "incidents")


class MatchingHandlers:
    """Topics of the first stage; partition p of either feeds `Matching` p."""

    def __init__(self, host: HeartHost) -> None:
        self._host = host

    def by_topic(self) -> Mapping[str, Handler]:
        """The function of each topic."""
        return {"events": self.events, "predictions": self.predictions}

    async def events(self, partition: int, records: Batch) -> None:
        """An event announces an entity, labels it, or says that it will never have a label."""
        await self._host.deliver(("events", partition), records)

    async def predictions(self, partition: int, records: Batch) -> None:
        """The first logged answer about an entity waits for its label."""
        await self._host.deliver(("predictions", partition), records)


class JudgingHandlers:
    """Topics of the second stage; all of them feed the one `Judging`."""

    def __init__(self, host: HeartHost) -> None:
        self._host = host

    def by_topic(self) -> Mapping[str, Handler]:
        """The function of each topic."""
        return {
            "predictions": self.predictions,
            "scores": self.scores,
            "models": self.models,
            "commands": self.commands,
            "incidents": self.incidents,
        }

    async def predictions(self, partition: int, records: Batch) -> None:
        """What is asked and answered now: inputs and predictions are watched for change before labels come."""
        await self._host.deliver(("predictions", partition), records)

    async def scores(self, partition: int, records: Batch) -> None:
        """Mature labels: the error is watched, and every model that scored the entity is compared."""
        await self._host.deliver(("scores", partition), records)

    async def models(self, partition: int, records: Batch) -> None:
        """Trainer's answer to a request: a challenger, or a refusal."""
        await self._host.deliver(("models", partition), records)

    async def commands(self, partition: int, records: Batch) -> None:
        """What people and serving's guardrails ask for."""
        await self._host.deliver(("commands", partition), records)

    async def incidents(self, partition: int, records: Batch) -> None:
        """Ingest's: an expectation that stops training is not met; our own come back and say nothing new."""
        await self._host.deliver(("incidents", partition), records)
