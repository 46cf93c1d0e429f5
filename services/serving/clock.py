"""Knows how far the loop has come, as seen from this replica, and says what is behind; never waits."""

from __future__ import annotations

from driftloop.contracts import UNSET_US, Message, Watermarks, rfc3339
from driftloop.contracts.monitor.v1.monitor_pb2 import Release
from services.serving.routing import only_recalibrates

JUDGING = "judging"
NO_REVISION = -1


class LoopClock:
    """The use-case clock of the features read here, judging's clock, and which release is read and applied.

    `spread` is the number of partitions of `features`.
    """

    def __init__(self, spread: int) -> None:
        self._features = Watermarks({("features", q): [f"aggregation/{q}"] for q in range(spread)})
        self._judging = Watermarks({("releases", 0): [JUDGING]})
        self.read_revision = NO_REVISION
        self.applied_revision = NO_REVISION
        self.pending_retrain = ""
        self._refused: dict[str, int] = {}

    @property
    def clock_us(self) -> int:
        """The clock of this replica's features in microseconds; UNSET_US before every partition has said its own."""
        return self._features.clock_us

    @property
    def judged_us(self) -> int:
        """The clock up to which monitor has judged, in microseconds."""
        return self._judging.clock_us

    def observe(self, partition: int, message: Message) -> bool:
        """Takes a watermark of `features` or `releases` in; whether a clock moved."""
        mark = message.payload
        marks = self._features if message.topic == "features" else self._judging
        return marks.observe(message.topic, partition, mark.writer, mark.known_at_us)

    def read(self, release: Release) -> bool:
        """Takes note of a release; False if a newer one, or this one, was read before."""
        if release.revision <= self.read_revision:
            return False
        self.read_revision = release.revision
        self.pending_retrain = release.pending_retrain
        if not only_recalibrates(release):
            self._refused = {
                model: revision for model, revision in self._refused.items() if revision >= release.revision
            }
        return True

    def applied(self, revision: int) -> None:
        """Takes note that every bundle of a release is loaded or refused."""
        self.applied_revision = max(self.applied_revision, revision)

    def refused(self, model_id: str) -> None:
        """Monitor is told that a model is refused here: it answers with a release, which may decide about who answers."""
        self._refused[model_id] = self.read_revision

    @property
    def up_to_date(self) -> bool:
        """Whether every release read so far is applied."""
        return self.applied_revision >= self.read_revision

    def behind(self, clock_us: int) -> list[str]:
        """What has not reached a clock, in words for a person; empty once the loop is there."""
        found = []
        if self.clock_us < clock_us:
            found.append(f"features at {_shown(self.clock_us)}: {', '.join(self._features.behind(clock_us))}")
        if self.judged_us < clock_us:
            found.append(f"judging at {_shown(self.judged_us)}")
        if not self.up_to_date:
            found.append(f"release {self.read_revision} is not applied yet")
        found += [f"monitor has not answered the refusal of model {model_id}" for model_id in self._refused]
        if self.pending_retrain:
            found.append(f"retrain {self.pending_retrain} is open")
        return found


def _shown(clock_us: int) -> str:
    return "no clock" if clock_us == UNSET_US else rfc3339(clock_us)
