"""Two request features and twelve looked-up ones, of three keys; for benchmarks of serving."""

from driftloop.usecase import Event, Field, Label, Prediction, Request, UseCase, Window, before, hour_of

shipped = Event(
    "shipped",
    entity="parcel",
    fields={
        "depot": Field(str),
        "courier": Field(str),
        "weight": Field(float, unit="kg", ge=0, le=1_000),
        "due": Field("time"),
    },
)
scanned = Event(
    "scanned", entity="parcel", fields={"depot": Field(str), "courier": Field(str), "minutes": Field(float, unit="min")}
)

parcels = UseCase(
    name="parcels",
    events=[shipped, scanned],
    predict=Prediction(on=shipped, at=before("due", "60m")),
    features=[
        Request("weight", hour_of("due")),
        Window(scanned, by="depot", of="minutes", over=["1h", "3h"], stats=["mean", "count"]),
        Window(scanned, by="courier", of="minutes", over=["1h", "3h"], stats=["mean", "count"]),
        Window(scanned, by=("depot", "courier"), of="minutes", over=["1h", "3h"], stats=["mean", "count"]),
    ],
    label=Label(on=scanned, value=lambda e: bool(e["minutes"] > 30)),
)
