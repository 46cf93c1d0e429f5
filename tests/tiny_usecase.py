"""A use case small enough for tests of services, as a file that a process can load."""

from __future__ import annotations

from pathlib import Path

from driftloop.contracts import Message
from driftloop.contracts.event.v1.event_pb2 import Event, Value

MINUTE_US = 60_000_000
START_US = 1_700_000_100_000_000 // (15 * MINUTE_US) * (15 * MINUTE_US)

_FILE = """
from driftloop.usecase import Event, Field, Label, Latest, Policy, Prediction, Request, UseCase, Window, before

announced = Event("announced", entity="trip", fields={"line": Field(str), "starts_at": Field("time")})
left = Event("left", entity="trip", fields={"line": Field(str), "delay": Field(float)})
came = Event("came", entity="trip", fields={"line": Field(str), "delay": Field(float)})
gone = Event("gone", entity="trip", fields={"line": Field(str)})

use_case = UseCase(
    name="NAME",
    events=[announced, left, came, gone],
    predict=Prediction(on=announced, at=before("starts_at", "30m")),
    features=[
        Request("line"),
        Window(left, by="line", of="delay", over=["1h", "3h"], stats=["mean", "count"]),
        Latest(came, by="line", of="delay", max_age="2h"),
    ],
    label=Label(on=came, value=lambda e: e["delay"] > 5, never=[gone], matures_after="2h"),
    slices=["line"],
    policy=Policy(bootstrap_rows=100),
    clock="replay",
)
"""


def write_use_case(folder: Path, name: str) -> None:
    """Writes the declaration to `<folder>/<name>/usecase.py`."""
    (folder / name).mkdir(parents=True)
    (folder / name / "usecase.py").write_text(_FILE.replace("NAME", name))


def told(name: str, kind: str, entity: str, at_us: int, **fields: str | float | int) -> Message[Event]:
    """An event known when it happened; `starts_at` is a time."""
    wire = {}
    for field, value in fields.items():
        if isinstance(value, str):
            wire[field] = Value(text=value)
        elif field == "starts_at":
            wire[field] = Value(time_us=int(value))
        else:
            wire[field] = Value(number=float(value))
    event_id = f"{kind}:{entity}"
    payload = Event(
        use_case=name,
        id=event_id,
        type=kind,
        source="test",
        entity=entity,
        event_time_us=at_us,
        known_at_us=at_us,
        fields=wire,
    )
    return Message("events", entity, payload, event_id, "test", at_us, at_us)
