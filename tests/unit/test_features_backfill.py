"""A backfill gives the values that the stream gave, owns its stretch for whoever trains, and replaces nothing newer online."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore
from driftloop.cli.__main__ import main
from driftloop.contracts import Message, Record, from_value, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.featurestore.backfills import BackfillWriter
from driftloop.featurestore.definitions import join_key, service_name
from driftloop.featurestore.errors import BackfillOvertaken
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter, view_schema
from driftloop.featurestore.online import online_reader, online_writer
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from driftloop.usecase import MINUTE_US, UseCase, duration_us, load_use_case
from services.features import backfilling
from services.features.aggregation import Aggregation
from services.features.backfill import LoggedEvents, updates, view_parts
from services.features.errors import NothingToBackfill
from services.features.rekeying import Rekeying
from tests.featurestore_twin import update
from tests.parcels import PARCELS
from tests.tiny_usecase import START_US, told, write_use_case

BEGIN_US, STEPS, STEP_US = 1_000 * MINUTE_US, 40, 15 * MINUTE_US
FIELDS = PARCELS.events[0].fields
NAMES = st.sampled_from(["a", "b", "a|b"])
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "known_us": st.integers(BEGIN_US, BEGIN_US + (STEPS - 4) * STEP_US),
            "late_us": st.one_of(st.just(0), st.integers(0, 200 * MINUTE_US)),
            "fields": st.fixed_dictionaries(
                {"lane": NAMES},
                optional={
                    "depot": NAMES,
                    "weight": st.one_of(st.integers(-5, 5).map(float), st.floats(-1e9, 1e9), st.just(-0.0)),
                    "damaged": st.booleans(),
                    "carrier": NAMES,
                },
            ),
        }
    ),
    max_size=40,
)


def _event(number: int, drawn: dict[str, Any]) -> Event:
    return Event(
        use_case=PARCELS.name,
        id=f"e{number}",
        type="scanned",
        entity="p",
        event_time_us=drawn["known_us"] - drawn["late_us"],
        known_at_us=drawn["known_us"],
        fields=to_wire(drawn["fields"], FIELDS),
    )


def _streamed(use_case: UseCase, events: list[Event], clocks_us: list[int]) -> list[dict[str, list[Any]]]:
    """The newest value of each key at each clock, as the hearts say them."""
    first, second = Rekeying(use_case, 0, 1), Aggregation(use_case, 0, 1)
    found, values, waiting, offset = [], {}, list(events), 0
    for clock_us in clocks_us:
        records = []
        while waiting and waiting[0].known_at_us <= clock_us:
            event = waiting.pop(0)
            times = (event.event_time_us, event.known_at_us)
            records.append(Record("events", 0, offset, Message("events", "p", event, event.id, "test", *times)))
            offset += 1
        records.append(Record("events", 0, offset, watermark("events", 0, "ingest", clock_us)))
        offset += 1
        keyed = [Record("keyed", 0, offset * 100 + n, m) for n, m in enumerate(first.fold(records))]
        for message in second.fold(keyed):
            if not message.is_watermark:
                values[message.key] = [from_value(value) for value in message.payload.values]
        found.append(dict(values))
    return found


def _backfilled(use_case: UseCase, events: list[Event], spans: list[tuple[int, int]], clocks_us: list[int]) -> Any:
    """The same of a backfill in pieces."""
    logged = LoggedEvents(
        [event.type for event in events],
        [event.id for event in events],
        np.array([event.event_time_us for event in events], dtype=np.int64),
        np.array([event.known_at_us for event in events], dtype=np.int64),
        [event.SerializeToString() for event in events],
    )
    rows = []
    for parts in view_parts(use_case, logged):
        for from_us, to_us in spans:
            said = updates(parts, duration_us(use_case.policy.lateness), from_us, to_us)
            columns = [[None if v != v else v for v in column.tolist()] for column in said.values]
            rows += zip(said.known_at_us.tolist(), said.keys.tolist(), zip(*columns, strict=True), strict=True)
    rows.sort(key=lambda row: row[0])
    found, values = [], {}
    for clock_us in clocks_us:
        while rows and rows[0][0] <= clock_us:
            _, key, now = rows.pop(0)
            values[key] = list(now)
        found.append(dict(values))
    return found


@settings(max_examples=80)
@given(EVENTS, st.integers(1, STEPS))
def test_at_every_clock_its_values_are_those_of_the_stream(drawn: list[dict[str, Any]], cut: int) -> None:
    events = sorted((_event(n, each) for n, each in enumerate(drawn)), key=lambda e: (e.known_at_us, e.id))
    clocks_us = [BEGIN_US + step * STEP_US for step in range(STEPS)]
    cut_us = BEGIN_US + cut * STEP_US
    spans = [(0, cut_us), (cut_us, clocks_us[-1] + 1)]
    assert _backfilled(PARCELS, events, spans, clocks_us) == _streamed(PARCELS, events, clocks_us)


class World:
    """The tiny use case with an event log and a live log of its own, as the service leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_use_case(folder / "usecases", "tiny")
        self.use_case = load_use_case("tiny", str(folder / "usecases"))
        self.store = ArtifactStore(folder / "artifacts")
        self.window = self.use_case.views[0]
        self.places = FeatureStoreSettings(folder / "registry.db", self.store.url, folder / "online.db")
        self.feast = feature_store(self.use_case, self.places)

    def log(self, trips: int, *, lie: float | None = None) -> int:
        """Logs trips a minute apart and the values that the hearts say (`lie`: all of them this); returns the clock."""
        events, features = (writer(self.store, self.use_case, 1) for writer in (EventLogWriter, FeatureLogWriter))
        first, second = Rekeying(self.use_case, 0, 1), Aggregation(self.use_case, 0, 1)
        events.restore(0, first, None)
        features.restore(0, second, None)
        for number in range(trips):
            at_us = START_US + number * MINUTE_US
            trip = told("tiny", "left", f"t{number}", at_us, line=f"line{number % 3}", delay=float(number))
            records = [
                Record("events", 0, 2 * number, trip),
                Record("events", 0, 2 * number + 1, watermark("events", 0, "ingest", at_us)),
            ]
            keyed = [Record("keyed", 0, 10 * number + n, m) for n, m in enumerate(first.fold(records))]
            events.take(0, first, [])
            second.fold(keyed)
            if lie is not None:
                for said in second.updates.values():
                    said[:] = [update._replace(values=[lie] * len(update.values)) for update in said]
            features.take(0, second, [])
        for writer, heart in ((events, first), (features, second)):
            cut = writer.cut(0, heart)
            cut.write()
            cut.publish()
        return START_US + (trips - 1) * MINUTE_US

    def joined(self, line: str, at_us: int) -> float | None:
        """The window's mean over an hour, by a join."""
        frame = pd.DataFrame(
            {
                "event_timestamp": pd.to_datetime([at_us], unit="us", utc=True),
                **{join_key(view): [view.key({"line": line})] for view in self.use_case.views},
            }
        )
        service = self.feast.get_feature_service(service_name(self.use_case))
        found = self.feast.get_historical_features(entity_df=frame, features=service).to_df()
        value = found[self.window.features[0].name][0]
        return None if np.isnan(value) else float(value)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_its_stretch_is_read_from_it_and_the_rest_from_the_live_log(world: World) -> None:
    world.log(40, lie=-1.0)
    moments = [START_US + minute * MINUTE_US for minute in (8, 14, 26, 38)]
    assert [world.joined("line2", at_us) for at_us in moments] == [-1.0] * 4
    backfilling.run(world.use_case, world.store, START_US + 10 * MINUTE_US, START_US + 30 * MINUTE_US)
    assert [world.joined("line2", at_us) for at_us in moments] == [-1.0, 8.0, 14.0, -1.0]


def test_of_two_the_later_holds(world: World) -> None:
    world.log(40)
    right = world.joined("line2", START_US + 20 * MINUTE_US)
    writer = BackfillWriter(world.store, "tiny", 0, START_US + 25 * MINUTE_US)
    writer.add(world.window.name, view_schema(world.window).empty_table())
    writer.publish()
    assert world.joined("line2", START_US + 20 * MINUTE_US) is None, "it owns the stretch, and knows nothing of it"
    backfilling.run(world.use_case, world.store, None, None)
    assert world.joined("line2", START_US + 20 * MINUTE_US) == right


def test_one_that_another_has_overtaken_is_not_published(world: World) -> None:
    world.log(3)
    slow = BackfillWriter(world.store, "tiny", 0, 1)
    BackfillWriter(world.store, "tiny", 0, 1).publish()
    with pytest.raises(BackfillOvertaken):
        slow.publish()


def test_online_it_fills_what_is_missing_and_replaces_nothing_that_the_service_wrote(world: World) -> None:
    last_us = world.log(40)
    writer = online_writer(world.feast, world.use_case)
    live_key = world.window.key({"line": "line1"})
    assert live_key is not None
    writer.write([update(world.window.name, live_key, 5, 0, [77.0] * len(world.window.features))])
    found = backfilling.run(world.use_case, world.store, None, None, lambda: online_writer(world.feast, world.use_case))
    assert found.online == 2
    keys = [world.window.key({"line": line}) for line in ("line0", "line1", "line2")]
    entries = online_reader(world.feast, world.use_case).read(world.window.name, [key for key in keys if key])
    assert entries[live_key].values[0] == 77.0
    assert entries[keys[0] or ""].values[0] == np.mean(range(0, 40, 3))
    assert entries[keys[0] or ""].known_at_us == last_us


def test_a_stretch_that_ends_before_the_log_is_not_written_online(world: World) -> None:
    world.log(40)

    def never() -> Any:
        raise AssertionError("values of the past are no current ones")

    found = backfilling.run(world.use_case, world.store, None, START_US + 30 * MINUTE_US, never)
    assert found.online is None
    assert found.events == 30


def test_a_stretch_that_the_log_does_not_hold_is_refused(world: World) -> None:
    last_us = world.log(5)
    with pytest.raises(NothingToBackfill, match="complete up to"):
        backfilling.run(world.use_case, world.store, None, last_us + 2)
    with pytest.raises(NothingToBackfill, match="no event"):
        backfilling.run(world.use_case, world.store, 0, START_US)


def test_pieces_of_bounded_size_give_what_one_gives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.log(90)
    backfilling.run(world.use_case, world.store, None, None)
    moments = [START_US + minute * MINUTE_US for minute in (7, 33, 61, 89)]
    whole = [world.joined(line, at_us) for at_us in moments for line in ("line0", "line1", "line2")]
    monkeypatch.setattr(backfilling, "SLICE_EVENTS_MAX", 7)
    told: list[tuple[int, int]] = []
    backfilling.run(world.use_case, world.store, None, None, progress=lambda done, of: told.append((done, of)))
    assert [world.joined(line, at_us) for at_us in moments for line in ("line0", "line1", "line2")] == whole
    assert told[-1] == (90, 90)
    assert len(told) == 13


def test_the_command_says_what_it_did_and_refuses_what_it_cannot_do(world: World) -> None:
    world.log(12)
    common = ["--usecases", str(world.folder / "usecases"), "--artifacts-url", world.store.url, "--no-online"]
    done = CliRunner().invoke(main, ["features", "backfill", "tiny", *common, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["events"] == 12
    assert CliRunner().invoke(main, ["features", "backfill", "nobody", *common]).exit_code == 2
    assert CliRunner().invoke(main, ["features", "backfill", "tiny", *common, "--from", "yesterday"]).exit_code == 2
    backwards = ["--from", "2024-01-02T00:00", "--to", "2024-01-01T00:00"]
    assert CliRunner().invoke(main, ["features", "backfill", "tiny", *common, *backwards]).exit_code == 2
    beyond = CliRunner().invoke(main, ["features", "backfill", "tiny", *common, "--to", "2124-01-01T00:00"])
    assert beyond.exit_code == 1
    assert "complete up to" in beyond.output
