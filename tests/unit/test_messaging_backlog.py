"""What topics held when reading began is read when every end is reached, whatever retention has emptied."""

from __future__ import annotations

from driftloop.contracts import watermark
from driftloop.messaging import Backlog, MemoryBus


def test_a_backlog_ends_with_the_newest_record_of_every_partition_that_held_something():
    bus = MemoryBus("orders", 1)
    for topic, clock_us in (("events", 1), ("events", 2), ("scores", 1), ("features", 1)):
        bus.append(watermark(topic, 0, "ingest", clock_us))
    bus.delete_before({("features", 0): 1})
    reader = bus.reader(["events", "scores", "features", "models"])
    backlog = Backlog(reader.offset_ranges())
    assert str(backlog) == "events/0 up to 2, scores/0 up to 1"
    while backlog:
        backlog.read(reader.poll(0.0, 1))
    bus.append(watermark("events", 0, "ingest", 3))
    backlog.read(reader.poll(0.0, 1))
    assert not backlog
    assert reader.poll(0.0, 1) == []


def test_topics_that_hold_nothing_are_no_backlog():
    assert not Backlog(MemoryBus("orders", 1).reader(["events"]).offset_ranges())
