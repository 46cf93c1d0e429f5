"""The offline log: what a checkpoint names counts exactly once, whatever crash comes between its steps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from driftloop.artifacts import ArtifactStore
from driftloop.featurestore.errors import LogBehind, LogDamaged, PartUnreadable
from driftloop.featurestore.log import (
    OBSOLETE_CUTS,
    PARTS_PER_MERGE,
    EventLogWriter,
    FeatureLogWriter,
    OfflineLogReader,
    view_schema,
)
from driftloop.featurestore.manifest import manifest_path
from tests.featurestore_twin import SEEN, SOLD, Writer, accepted, shop, update


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def started(store: ArtifactStore, state: Any = None, spread: int = 1) -> FeatureLogWriter:
    """A writer as a host starts it; the events stage stands still at an early clock beside it."""
    for partition in range(spread):
        events = EventLogWriter(store, shop, spread)
        events.restore(partition, Writer(), None)
        events.cut(partition, Writer()).publish()
    writer = FeatureLogWriter(store, shop, spread)
    for partition in range(spread):
        writer.restore(partition, Writer(), state)
    return writer


def sold(number: int) -> Any:
    return update(SOLD.name, f"{SOLD.name}|k", number, number, [float(number), 1.0])


def counted(store: ArtifactStore) -> list[int]:
    """Sequences of the updates that count, sorted."""
    found = OfflineLogReader(store, "shop").snapshot().updates(SOLD.name, view_schema(SOLD)).to_table()
    return sorted(found["sequence"].to_pylist())


def test_rows_count_once_they_are_published(store: ArtifactStore) -> None:
    writer = started(store)
    writer.take(0, Writer(updates=[sold(1), sold(2)]), [])
    cut = writer.cut(0, Writer(clock_us=7))
    cut.write()
    with pytest.raises(LogBehind):
        OfflineLogReader(store, "shop").snapshot()
    cut.publish()
    assert counted(store) == [1, 2]
    assert OfflineLogReader(store, "shop").snapshot().clock_us == 7


def test_values_keep_their_types_and_missing_ones_are_null(store: ArtifactStore) -> None:
    writer = started(store)
    writer.take(0, Writer(updates=[update(SEEN.name, f"{SEEN.name}|t", 3, 1, ["blue", True], event_time_us=2)]), [])
    writer.take(0, Writer(updates=[update(SEEN.name, f"{SEEN.name}|t", 4, 2, [None, None])]), [])
    cut = writer.cut(0, Writer())
    cut.write()
    cut.publish()
    table = OfflineLogReader(store, "shop").snapshot().updates(SEEN.name, view_schema(SEEN)).to_table()
    sky, warm = (feature.name for feature in SEEN.features)
    assert [(row[sky], row[warm]) for row in table.to_pylist()] == [("blue", 1.0), (None, None)]
    assert table.to_pylist()[0]["event_time"].microsecond == 2


def test_a_crash_before_the_checkpoint_leaves_nothing_doubled(store: ArtifactStore) -> None:
    writer = started(store)
    writer.take(0, Writer(updates=[sold(1)]), [])
    first = writer.cut(0, Writer())
    first.write()
    first.publish()
    writer.take(0, Writer(updates=[sold(2)]), [])
    writer.cut(0, Writer()).write()  # written, but no checkpoint names it

    again = started(store, first.state)
    again.take(0, Writer(updates=[sold(2), sold(3)]), [])  # folded again, and cut elsewhere
    cut = again.cut(0, Writer())
    cut.write()
    cut.publish()
    assert counted(store) == [1, 2, 3]


def test_a_crash_between_checkpoint_and_manifest_is_healed_by_the_restart(store: ArtifactStore) -> None:
    writer = started(store)
    writer.take(0, Writer(updates=[sold(1)]), [])
    cut = writer.cut(0, Writer(clock_us=9))
    cut.write()  # and the checkpoint with cut.state is saved, but the manifest is not
    started(store, cut.state)
    assert counted(store) == [1]
    assert OfflineLogReader(store, "shop").snapshot().clock_us == 9


def test_many_cuts_are_merged_into_few_parts_without_losing_or_doubling_a_row(store: ArtifactStore) -> None:
    writer = started(store)
    cuts = PARTS_PER_MERGE * PARTS_PER_MERGE + 3
    for number in range(cuts):
        writer.take(0, Writer(updates=[sold(number)]), [])
        cut = writer.cut(0, Writer())
        cut.write()
        cut.publish()
    assert counted(store) == list(range(cuts))
    assert len(OfflineLogReader(store, "shop").snapshot().paths("features", SOLD.name)) <= 2 * PARTS_PER_MERGE
    files = list(store.list(f"shop/offline/features/{SOLD.name}"))
    assert len(files) <= 4 * PARTS_PER_MERGE + OBSOLETE_CUTS


def test_a_reader_with_an_older_manifest_can_finish_after_a_merge(store: ArtifactStore) -> None:
    writer = started(store)
    snapshot = None
    for number in range(PARTS_PER_MERGE):
        writer.take(0, Writer(updates=[sold(number)]), [])
        cut = writer.cut(0, Writer())
        cut.write()
        cut.publish()
        if number == PARTS_PER_MERGE - 2:
            snapshot = OfflineLogReader(store, "shop").snapshot()
    assert snapshot is not None
    assert snapshot.updates(SOLD.name, view_schema(SOLD)).dataset.count_rows() == PARTS_PER_MERGE - 1


def test_a_feature_that_an_old_part_does_not_have_is_null(store: ArtifactStore) -> None:
    writer = started(store)
    writer.take(0, Writer(updates=[sold(1)]), [])
    cut = writer.cut(0, Writer())
    cut.write()
    cut.publish()
    wider = view_schema(SOLD).append(view_schema(SEEN).field(-1))
    table = OfflineLogReader(store, "shop").snapshot().updates(SOLD.name, wider).to_table()
    assert table[wider.names[-1]].to_pylist() == [None]


@pytest.mark.parametrize("how", ["gone", "broken off"])
def test_a_part_that_breaks_off_is_said_with_where_it_lies(store: ArtifactStore, how: str) -> None:
    writer = started(store)
    writer.take(0, Writer(updates=[sold(1)]), [])
    cut = writer.cut(0, Writer())
    cut.write()
    cut.publish()
    snapshot = OfflineLogReader(store, "shop").snapshot()
    (path,) = snapshot.paths("features", SOLD.name)
    part = Path(store.full_path(path))
    if how == "gone":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(PartUnreadable, match=rf"^a part of the offline log in {store.url} .*{path}.*restore the file$"):
        snapshot.updates(SOLD.name, view_schema(SOLD)).to_table()


def test_accepted_events_are_logged_with_their_offsets(store: ArtifactStore) -> None:
    features = started(store)
    features.cut(0, Writer()).publish()
    heart, writer = Writer(), EventLogWriter(store, shop, 1)
    writer.restore(0, heart, None)
    heart.accepted = [accepted(4, known_at_us=11), accepted(5, known_at_us=12)]
    writer.take(0, heart, [])
    cut = writer.cut(0, heart)
    cut.write()
    cut.publish()
    rows = OfflineLogReader(store, "shop").snapshot().events().to_table().to_pylist()
    assert [(row["id"], row["type"], row["entity"], row["offset"]) for row in rows] == [
        ("e4", "ordered", "o4", 4),
        ("e5", "ordered", "o5", 5),
    ]
    assert heart.accepted == []


def test_the_clock_is_the_slowest_partitions(store: ArtifactStore) -> None:
    writer = started(store, spread=2)
    writer.cut(0, Writer(clock_us=50)).publish()
    writer.cut(1, Writer(clock_us=40)).publish()
    assert OfflineLogReader(store, "shop").snapshot().clock_us == 40


def test_waiting_ends_when_the_last_partition_arrives(store: ArtifactStore) -> None:
    writer = started(store, spread=2)
    writer.cut(0, Writer(clock_us=50)).publish()
    late = threading.Timer(0.05, lambda: writer.cut(1, Writer(clock_us=50)).publish())
    late.start()
    snapshot = OfflineLogReader(store, "shop").await_clock(50, timeout_s=10, stop=threading.Event(), pause_s=0.01)
    late.join()
    assert snapshot.clock_us == 50


def test_waiting_names_who_is_behind(store: ArtifactStore) -> None:
    writer = started(store, spread=2)
    writer.cut(0, Writer(clock_us=50)).publish()
    writer.cut(1, Writer(clock_us=40)).publish()
    with pytest.raises(LogBehind, match="features-1 at 40"):
        OfflineLogReader(store, "shop").await_clock(50, timeout_s=0, stop=threading.Event())


def test_waiting_ends_at_once_when_the_process_stops(store: ArtifactStore) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(LogBehind):
        OfflineLogReader(store, "shop").await_clock(1, timeout_s=3_600, stop=stop, pause_s=60)


def test_a_manifest_that_is_none_stops_the_reader(store: ArtifactStore) -> None:
    store.put(manifest_path("shop", "events", 0), b"{}")
    with pytest.raises(LogDamaged):
        OfflineLogReader(store, "shop").snapshot()
