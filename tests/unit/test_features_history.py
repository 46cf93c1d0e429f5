"""Columns of a stretch give, at every clock, the value that the streaming heart emitted last."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.usecase import (
    MINUTE_US,
    ReplayEvent,
    ReplayRequest,
    ReplayStep,
    UseCase,
    load_replay,
    load_use_case,
    replay_steps,
)
from simulation.loop import Loop
from simulation.vectors import vectors
from tests.parcels import PARCELS

FLIGHTS = load_use_case("flights")

NAMES = st.sampled_from(["a", "b", "a|b"])
EVENTS = st.builds(
    lambda known_min, late_min, number, depot, lane, weight, damaged, carrier: ReplayEvent(
        "scanned",
        f"e{number}",
        "p",
        (known_min - late_min) * MINUTE_US,
        known_min * MINUTE_US,
        {
            name: value
            for name, value in (("depot", depot), ("weight", weight), ("damaged", damaged), ("carrier", carrier))
            if value is not None
        }
        | {"lane": lane},
    ),
    st.integers(1_000, 1_000 + 8 * 60),
    st.one_of(st.just(0), st.integers(0, 200)),
    st.integers(0, 30),
    st.one_of(NAMES, st.none()),
    NAMES,
    st.one_of(st.none(), st.integers(-5, 5).map(float), st.floats(-1e9, 1e9)),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), NAMES),
)


class Made:
    """A stretch made of given events, with requests for every depot and lane at every step."""

    start_us, end_us, injected_at_us, rows = 1_000 * MINUTE_US, 1_600 * MINUTE_US, None, 0

    def __init__(self, made: list[ReplayEvent]) -> None:
        self._made = sorted(made, key=lambda event: (event.known_at_us, event.id))

    def events(self):
        return iter(self._made)

    def requests(self):
        for at_us in range(self.start_us, self.end_us, 15 * MINUTE_US):
            for depot in ("a", "b", "a|b", "never", None):
                fields = {"lane": "a", "due_at": at_us} | ({} if depot is None else {"depot": depot})
                yield ReplayRequest(at_us, f"{at_us}/{depot}", fields)


def assert_as_in_the_loop(use_case: UseCase, stretch) -> None:
    found = vectors(use_case, replay_steps(stretch, use_case.step_us))
    loop = Loop(use_case, None, vectors_only=True)
    loop.run(replay_steps(stretch, use_case.step_us))
    expected = [loop.recorded.vectors[entity] for entity in found.entities]
    numbers = np.array([list(vector.numbers) for vector in expected])
    np.testing.assert_array_equal(found.numbers, numbers)
    assert found.texts.tolist() == [list(vector.texts) for vector in expected]
    assert found.at_us.tolist() == [loop.recorded.at_us[entity] for entity in found.entities]


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=40))
def test_late_repeated_tied_and_missing_events_give_the_vectors_of_the_loop(made):
    assert_as_in_the_loop(PARCELS, Made(made))


def test_flights_with_an_injected_change_give_the_vectors_of_the_loop():
    assert_as_in_the_loop(FLIGHTS, load_replay("flights").stretch(start="2013-03-01", days=3, inject="concept"))


def test_shuffled_hours_give_the_vectors_of_the_loop():
    assert_as_in_the_loop(FLIGHTS, load_replay("flights").stretch(start="2013-07-01", days=2, shuffle_hours=True))


def test_steps_are_told_as_they_are_read():
    told: list[ReplayStep] = []
    steps = list(replay_steps(Made([]), PARCELS.step_us))
    vectors(PARCELS, steps, told.append)
    assert told == steps


def test_nothing_asked_gives_no_rows():
    found = vectors(PARCELS, [])
    assert (found.entities, found.numbers.shape, found.texts.shape) == ([], (0, len(PARCELS.numeric_inputs)), (0, 2))
