"""Counts, means and quantiles of an amount by shop over tumbling hours; for benchmarks of features."""

from driftloop.usecase import Event, Field, Label, Policy, Prediction, Request, UseCase, Window, before

opened = Event("opened", entity="visit", fields={"shop": Field(str), "ends_at": Field("time")})
spent = Event("spent", entity="visit", fields={"shop": Field(str), "amount": Field(float)})
ended = Event("ended", entity="visit", fields={"late": Field(bool)})

shops = UseCase(
    name="shops",
    events=[opened, spent, ended],
    predict=Prediction(on=opened, at=before("ends_at", "5m")),
    features=[
        Request("shop"),
        Window(spent, by="shop", of="amount", over=["1h"], stats=["count", "mean", "p90"], kind="tumbling"),
    ],
    label=Label(on=ended, value=lambda e: bool(e["late"])),
    policy=Policy(lateness="1h"),
    clock="replay",
)
