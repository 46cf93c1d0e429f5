"""Will a flight arrive more than 30 minutes late? Asked 60 minutes before scheduled departure."""

from driftloop.usecase import (
    Event,
    Field,
    Label,
    Latest,
    Policy,
    Prediction,
    Request,
    Since,
    UseCase,
    Window,
    before,
    hour_of,
    weekday_of,
)

delay = Field(float, unit="min", ge=-120, le=2880)
scheduled = Event(
    "flight_scheduled",
    entity="flight_id",
    fields={
        "carrier": Field(str),
        "origin": Field(str),
        "dest": Field(str),
        "number": Field(str, optional=True),
        "tail_number": Field(str, optional=True),
        "distance": Field(float, unit="mile", ge=0),
        "departs_at": Field("time"),
    },
)
departed = Event(
    "flight_departed",
    entity="flight_id",
    fields={
        "carrier": Field(str),
        "origin": Field(str),
        "dest": Field(str),
        "tail_number": Field(str, optional=True),
        "delay": delay,
    },
)
overdue = Event(
    "flight_overdue",  # 20 minutes after its time it has not left
    entity="flight_id",
    fields={"carrier": Field(str), "origin": Field(str), "dest": Field(str)},
)
arrived = Event(
    "flight_arrived",
    entity="flight_id",
    fields={
        "carrier": Field(str),
        "origin": Field(str),
        "dest": Field(str),
        "number": Field(str, optional=True),
        "tail_number": Field(str, optional=True),
        "delay": delay,
        "lost": Field(float, unit="min", ge=-2880, le=2880, optional=True),  # on the way: delay less that of departure
    },
)
cancelled = Event(
    "flight_cancelled",
    entity="flight_id",
    fields={"carrier": Field(str), "origin": Field(str), "dest": Field(str, optional=True)},
)
diverted = Event("flight_diverted", entity="flight_id", fields={"carrier": Field(str), "origin": Field(str)})
weather = Event(
    "weather_observed",
    entity="station",
    fields={
        "origin": Field(str),
        "wind_speed": Field(float, unit="mph", ge=0, le=250, optional=True),
        "visibility": Field(float, unit="mile", ge=0, le=100, optional=True),
        "precipitation": Field(float, unit="inch", ge=0, le=50, optional=True),
    },
)

flights = UseCase(
    name="flights",
    events=[scheduled, departed, overdue, arrived, cancelled, diverted, weather],
    predict=Prediction(on=scheduled, at=before("departs_at", "60m"), task="binary"),
    features=[
        Request("distance", "carrier", "origin", "dest", hour_of("departs_at"), weekday_of("departs_at")),
        Window(departed, by="origin", of="delay", over=["1h", "3h", "12h"], stats=["mean", "count", "p90"]),
        Window(departed, by=("carrier", "origin"), of="delay", over=["1h", "12h"], stats=["mean", "count"]),
        Window(departed, by="dest", of="delay", over=["3h", "12h"], stats=["mean", "count"]),
        Window(overdue, by="origin", of="carrier", over=["1h", "3h"], stats=["count"]),
        Window(overdue, by="dest", of="carrier", over=["1h", "3h"], stats=["count"]),
        Window(cancelled, by="origin", of="carrier", over=["1h", "3h"], stats=["count"]),
        Window(cancelled, by="dest", of="carrier", over=["3h"], stats=["count"]),
        Window(arrived, by="dest", of="lost", over=["12h", "7d"], stats=["mean"]),
        Window(arrived, by="origin", of="lost", over=["3h"], stats=["mean"]),
        Window(arrived, by="number", of="delay", over=["28d"], stats=["mean"]),
        Latest(arrived, by="tail_number", of="delay", max_age="10h"),
        Since(arrived, by="tail_number", every="1h", max_age="12h"),
        Since(departed, by="tail_number", every="1h", max_age="12h"),
        Latest(weather, by="origin", of=["wind_speed", "visibility", "precipitation"], max_age="3h"),
    ],
    label=Label(on=arrived, value=lambda e: e["delay"] > 30, never=[cancelled, diverted], matures_after="24h"),
    slices=["origin", "carrier"],
    policy=Policy(budget="4 retrains/day"),  # everything else has a default that is worth having
    clock="replay",
)
