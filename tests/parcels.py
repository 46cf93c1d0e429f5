"""A use case with every statistic and kind of value, missing ones too: for tests of features."""

from __future__ import annotations

from dataclasses import replace

from driftloop.usecase import (
    MINUTE_US,
    Event,
    Field,
    Label,
    Latest,
    Prediction,
    Request,
    Since,
    Sketch,
    UseCase,
    Window,
    before,
)
from driftloop.usecase.features import STATS

scanned = Event(
    "scanned",
    entity="parcel",
    fields={
        "depot": Field(str, optional=True),
        "lane": Field(str),
        "weight": Field(float, optional=True),
        "damaged": Field(bool, optional=True),
        "carrier": Field(str, optional=True),
    },
)
ordered = Event("ordered", entity="parcel", fields={"depot": Field(str), "lane": Field(str), "due_at": Field("time")})
PARCELS = UseCase(
    name="parcels",
    events=[scanned, ordered],
    predict=Prediction(on=ordered, at=before("due_at", "15m")),
    features=[
        Request("lane"),
        Window(scanned, by="depot", of="weight", over=["20m", "1h", "3h"], stats=list(STATS)),
        Window(scanned, by=("depot", "lane"), of="damaged", over=["2h"], stats=["mean", "count", "sum"]),
        Window(scanned, by="depot", of="carrier", over=["1h"], stats=["count", "distinct"]),
        Window(scanned, by="lane", of="weight", over=["1h", "90m"], stats=list(STATS), kind="tumbling"),
        Window(scanned, by="depot", of="weight", over=["10m", "1h"], stats=["mean", "count", "sum"], kind="decayed"),
        Window(scanned, by="depot", of="weight", over=["1h", "3h"], stats=list(STATS), sketch=Sketch("20m")),
        Window(scanned, by="lane", of="carrier", over=["40m"], stats=["distinct", "count"], sketch=Sketch("20m")),
        Window(
            scanned,
            by="lane",
            of="weight",
            over=["1h"],
            stats=["p90", "distinct"],
            kind="tumbling",
            sketch=Sketch("30m"),
        ),
        Since(scanned, by=("depot", "lane"), every="20m", max_age="3h"),
        Latest(scanned, by="depot", of=["weight", "damaged", "carrier"], max_age="90m"),
    ],
    label=Label(on=scanned, value=lambda fields: bool(fields.get("damaged"))),
    step_us=15 * MINUTE_US,
    clock="replay",
)
PARCELS = replace(PARCELS, policy=replace(PARCELS.policy, lateness="2h", dedupe_horizon="4h"))
