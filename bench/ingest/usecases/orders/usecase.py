"""Ten typed fields in about 200 bytes, of every kind and with every bound that a schema knows; for benchmarks of ingest."""

from driftloop.usecase import Event, Field, Label, Prediction, UseCase, before

placed = Event(
    "placed",
    entity="order",
    fields={
        "shop": Field(str, one_of=("north", "south", "east", "west")),
        "country": Field(str, pattern="[A-Z]{2}"),
        "voucher": Field(str, max_length=16),
        "gift": Field(bool),
        "items": Field(int, ge=1, le=999),
        "price": Field(float, unit="EUR", ge=0, le=100_000),
        "weight": Field(float, unit="kg", ge=0, le=1_000),
        "lat": Field(float, ge=-90, le=90),
        "lon": Field(float, ge=-180, le=180),
        "due": Field("time"),
    },
)
delivered = Event("delivered", entity="order", fields={"late": Field(bool)})

orders = UseCase(
    name="orders",
    events=[placed, delivered],
    predict=Prediction(on=placed, at=before("due", "60m")),
    features=[],
    label=Label(on=delivered, value=lambda e: bool(e["late"])),
)
