"""A sensor that goes missing is an incident and no drift: nothing is learned from its stretch, and the loop goes on afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainRequest
from driftloop.usecase import HOUR_US, ReplayEvent, ReplayRequest, replay_steps
from services.trainer.assembly import without_affected
from services.trainer.gates import GateSettings
from simulation.loop import Loop
from simulation.trainer import RecordedTrainer
from tests.trainer_twin import QUICK, trips

HOURS, ONSET, HEALED, TRIPS = 460, 230, 270, 6
START_US = 1_000 * HOUR_US
RESOLUTION = 0.5
USE_CASE = replace(
    trips, policy=replace(trips.policy, bootstrap_rows=400, recent_rows=120, cooldown="1h"), clock="replay", slices=()
)


@dataclass
class Stretch:
    """Six trips an hour on three lines, whose wear is measured every hour; on line blue the sensor says nothing for a while."""

    start_us: int = START_US
    end_us: int = START_US + HOURS * HOUR_US
    injected_at_us: int | None = START_US + ONSET * HOUR_US
    rows: int = HOURS * TRIPS

    def _trips(self) -> Iterator[tuple[int, str, dict, bool]]:
        rng = np.random.default_rng(0)
        for hour in range(2, HOURS - 3):
            for trip in range(TRIPS):
                line = ["blue", "red", "green"][trip % 3]
                load = float(rng.normal())
                late = rng.random() < 1.0 / (1.0 + np.exp(-2.0 * load))
                fields = {"line": line, "load": load, "leaves_at": START_US + (hour + 1) * HOUR_US}
                yield START_US + hour * HOUR_US, f"t{hour}-{trip}", fields, bool(late)

    def events(self) -> Iterator[ReplayEvent]:
        rng, found = np.random.default_rng(1), []
        for at_us, name, fields, late in self._trips():
            found.append(ReplayEvent("booked", f"b{name}", name, at_us - HOUR_US, at_us - HOUR_US, fields))
            came_us = at_us + 2 * HOUR_US
            found.append(ReplayEvent("came", f"c{name}", name, came_us, came_us, {"late": late}))
        for hour in range(HOURS):
            for line in ("blue", "red", "green"):
                fields = {"line": line, "wear": float(round(abs(rng.normal()) / RESOLUTION) * RESOLUTION + 1.0)}
                fields["heat"] = float(rng.integers(1, 9))
                if line == "blue" and ONSET <= hour < HEALED:
                    del fields["wear"]
                at_us = START_US + hour * HOUR_US
                found.append(ReplayEvent("measured", f"m{line}{hour}", line, at_us, at_us, fields))
        yield from sorted(found, key=lambda event: (event.known_at_us, event.id))

    def requests(self) -> Iterator[ReplayRequest]:
        for at_us, name, fields, _ in self._trips():
            yield ReplayRequest(at_us, name, fields)


class Watched(RecordedTrainer):
    """Remembers which rows it was asked to learn from."""

    def __init__(self) -> None:
        super().__init__(USE_CASE, QUICK, gates=GateSettings(first_confidence=0.9))
        self.learned: list[tuple[RetrainRequest, np.ndarray]] = []

    def train(self, request, recorded):
        rows, _ = without_affected(self.rows(recorded, request.clock_us), request.affected)
        self.learned.append((request, rows.at_us))
        return super().train(request, recorded)


@cache
def played() -> tuple[Loop, Watched]:
    trainer = Watched()
    loop = Loop(USE_CASE, trainer)
    loop.run(replay_steps(Stretch(), USE_CASE.step_us, 24 * HOUR_US))
    return loop, trainer


def incidents(loop: Loop):
    return [message.payload for message in loop.messages("incidents")]


def test_the_incident_names_the_source_soon_and_ends_by_itself():
    begun, ended = incidents(played()[0])
    assert (begun.rule, begun.event_type, begun.field, begun.entity) == ("missing", "measured", "wear", "blue")
    assert begun.from_us == START_US + ONSET * HOUR_US
    assert begun.clock_us - begun.from_us <= 24 * HOUR_US
    assert (ended.from_us, ended.to_us // HOUR_US) == (begun.from_us, begun.from_us // HOUR_US + HEALED - ONSET + 2)


def test_no_model_learns_from_the_faulty_stretch_and_the_loop_goes_on_after_it():
    loop, trainer = played()
    begun, ended = incidents(loop)
    asked = [(request.clock_us, rows) for request, rows in trainer.learned]
    assert not [clock_us for clock_us, _ in asked if begun.clock_us < clock_us < ended.to_us]
    after = [rows for clock_us, rows in asked if clock_us > ended.to_us]
    assert after
    for rows in after:
        assert not ((rows >= begun.from_us) & (rows < ended.to_us)).any()


def test_a_missing_sensor_raises_no_alarm_of_the_error():
    loop, _ = played()
    assert [message.payload.series for message in loop.messages("drift") if message.payload.series == "error"] == []
