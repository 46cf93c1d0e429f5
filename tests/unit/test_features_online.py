"""Values reach the online store behind the stream: the newest of each entity, whatever the store does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from driftloop.contracts import Message, Record, watermark
from driftloop.contracts.features.v1.features_pb2 import KeyedEvents
from driftloop.telemetry import instruments
from driftloop.usecase import UseCase, load_use_case
from services.features.aggregation import Aggregation
from services.features.instruments import OnlineInstruments
from services.features.online import OnlineBounds, OnlineWriteBehind
from services.features.rekeying import Rekeying
from tests.tiny_usecase import MINUTE_US, START_US, told, write_use_case

ANSWER_S = 10.0


class Store:
    """An online store that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.opened = 0
        self.rows: dict[str, int] = {}
        self.writes: list[int] = []
        self._changed = threading.Condition()

    def open(self) -> Store:
        self.opened += 1
        return self

    def write(self, updates: Sequence[Message[Any]]) -> int:
        with self._changed:
            self.writes.append(len(updates))
            self._changed.notify_all()
            if self.away:
                raise ConnectionError("away")
            self.rows |= {message.key: message.payload.sequence for message in updates}
            return len(updates)

    def wait(self, rows: dict[str, int]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.rows == rows, ANSWER_S), (self.rows, rows)

    def wait_rows(self, count: int, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.rows) == count, timeout_s)

    def wait_tries(self, tries: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.writes) >= tries, ANSWER_S)


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    write_use_case(tmp_path, "online")
    return load_use_case("online", str(tmp_path))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def online(store: Store) -> Iterator[OnlineWriteBehind]:
    found = behind(store)
    yield found
    found.close(ANSWER_S)


def behind(store: Store, rows_max: int = 1_000) -> OnlineWriteBehind:
    return OnlineWriteBehind(
        store.open, OnlineBounds(0.01, 50, rows_max, 0.02), OnlineInstruments(instruments("features"))
    )


def folded(use_case: UseCase, heart: Aggregation, first: int, lines: Sequence[str]) -> list[Message[Any]]:
    """What the heart says when a trip has left on each of the lines; offsets in `keyed` count from `first`."""
    rekeying = Rekeying(use_case, 0, 1)
    records = []
    for number, line in enumerate(lines, first):
        message = told("online", "left", f"t{number}", START_US + number * MINUTE_US, line=line, delay=float(number))
        (keyed,) = rekeying.fold([Record("events", 0, number, message)])
        assert isinstance(keyed.payload, KeyedEvents)
        records.append(Record("keyed", 0, number, keyed))
    return heart.fold(records)


def sequences(outputs: Sequence[Message[Any]]) -> dict[str, int]:
    """What the store holds when it has these, the later ones over the earlier."""
    return {message.key: message.payload.sequence for message in outputs}


def test_the_newest_value_of_each_entity_arrives(use_case: UseCase, store: Store, online: OnlineWriteBehind) -> None:
    heart = Aggregation(use_case, 0, 1)
    online.restore(0, heart, None)
    outputs = folded(use_case, heart, 0, ["a", "b", "a"])
    online.take(0, heart, outputs)
    assert store.opened == 0, "nothing is opened before it is started"
    online.start()
    store.wait(sequences(outputs[1:]))
    assert store.writes == [2]
    online.close(ANSWER_S)
    assert len(online) == 0


def test_a_store_that_is_away_gets_everything_when_it_is_back(
    use_case: UseCase, store: Store, online: OnlineWriteBehind
) -> None:
    heart = Aggregation(use_case, 0, 1)
    online.restore(0, heart, None)
    store.away = True
    online.start()
    first = folded(use_case, heart, 0, ["a", "b"])
    online.take(0, heart, first)
    store.wait_tries(3)
    second = folded(use_case, heart, 2, ["a"])
    online.take(0, heart, second)
    store.away = False
    store.wait(sequences([first[1], second[0]]))


def test_what_the_heart_holds_is_written_again_after_a_restart(use_case: UseCase, store: Store) -> None:
    heart = Aggregation(use_case, 0, 1)
    before = behind(store)
    before.restore(0, heart, None)
    outputs = folded(use_case, heart, 0, ["a", "b"])
    before.take(0, heart, outputs[:1])
    state = before.cut(0, heart).state
    assert state == [], "the heart's own checkpoint has it"

    again = Aggregation(use_case, 0, 1)
    again.restore(heart.snapshot())
    online = behind(store)
    online.restore(0, again, state)
    online.start()
    store.wait(sequences(outputs))
    online.close(ANSWER_S)


def test_the_last_value_of_an_entity_that_is_no_more_is_in_the_checkpoint_and_comes_back(
    use_case: UseCase, store: Store
) -> None:
    heart = Aggregation(use_case, 0, 1)
    before = behind(store)
    before.restore(0, heart, None)
    before.take(0, heart, folded(use_case, heart, 0, ["a"]))
    (gone, mark) = heart.fold([Record("keyed", 0, 1, watermark("keyed", 0, "rekeying/0", START_US + 240 * MINUTE_US))])
    assert mark.is_watermark
    assert len(heart) == 0
    before.take(0, heart, [gone, mark])
    state = before.cut(0, heart).state

    again = Aggregation(use_case, 0, 1)
    again.restore(heart.snapshot())
    online = behind(store)
    online.restore(0, again, state)
    online.start()
    store.wait(sequences([gone]))
    online.close(ANSWER_S)


def test_after_a_restart_the_rest_of_many_values_is_made_between_folds(
    use_case: UseCase, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.features.online._RESTORED_ROWS_MAX", 4)
    monkeypatch.setattr("services.features.online._SETTLED_PER_TURN", 2)
    heart = Aggregation(use_case, 0, 1)
    outputs = folded(use_case, heart, 0, [f"line{n}" for n in range(10)])
    again = Aggregation(use_case, 0, 1)
    again.restore(heart.snapshot())
    online = behind(store)
    online.restore(0, again, [])
    assert len(online) == 4
    for _ in range(3):
        online.take(0, again, [])
    assert len(online) == 10
    online.start()
    store.wait(sequences(outputs))
    online.close(ANSWER_S)


def test_values_beyond_the_bound_are_taken_from_the_heart_when_there_is_room(use_case: UseCase, store: Store) -> None:
    heart = Aggregation(use_case, 0, 1)
    online = behind(store, rows_max=4)
    online.restore(0, heart, None)
    outputs = folded(use_case, heart, 0, [f"line{n}" for n in range(10)])
    online.take(0, heart, outputs)
    assert len(online) == 4
    online.start()
    store.wait_tries(1)
    late = folded(use_case, heart, 10, ["line0"])
    for _ in range(1_000):
        online.take(0, heart, late)
        if store.wait_rows(10, 0.05):
            break
    store.wait(sequences([*outputs, *late]))
    online.close(ANSWER_S)


def test_the_last_values_of_entities_that_are_no_more_arrive_however_many_wait(use_case: UseCase, store: Store) -> None:
    heart = Aggregation(use_case, 0, 1)
    before = behind(store, rows_max=4)
    before.restore(0, heart, None)
    outputs = folded(use_case, heart, 0, [f"line{n}" for n in range(10)])
    before.take(0, heart, outputs)
    gone = heart.fold([Record("keyed", 0, 10, watermark("keyed", 0, "rekeying/0", START_US + 240 * MINUTE_US))])
    assert len(heart) == 0, "the heart can make none of them again"
    before.take(0, heart, gone)
    state = before.cut(0, heart).state
    before.write_batch(store)
    last = sequences([message for message in gone if not message.is_watermark])
    assert len(last) == 10
    assert store.rows == last

    store.rows = {}
    online = behind(store, rows_max=4)
    online.restore(0, heart, state)
    online.write_batch(store)
    assert store.rows == last, "after a restart, too"


def test_a_group_that_goes_elsewhere_is_not_written_any_more(
    use_case: UseCase, store: Store, online: OnlineWriteBehind
) -> None:
    hearts = [Aggregation(use_case, group, 2) for group in range(2)]
    outputs = folded(use_case, Aggregation(use_case, 0, 1), 0, ["a", "b"])
    for group, heart in enumerate(hearts):
        online.restore(group, heart, None)
        online.take(group, heart, outputs[group : group + 1])
    online.release(0)
    online.start()
    store.wait(sequences(outputs[1:]))


def test_a_last_batch_is_written_at_the_end(use_case: UseCase, store: Store) -> None:
    heart = Aggregation(use_case, 0, 1)
    online = OnlineWriteBehind(
        store.open, OnlineBounds(0.01, 50, 100, 0.02), OnlineInstruments(instruments("features"))
    )
    online.restore(0, heart, None)
    online.start()
    online.take(0, heart, folded(use_case, heart, 0, ["a"]))
    store.wait_tries(1)
    outputs = folded(use_case, heart, 1, ["a"])
    online.take(0, heart, outputs)
    online.close(ANSWER_S)
    assert store.rows == sequences(outputs)
