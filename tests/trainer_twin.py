"""Training sets with a known concept, and twins of trainer's gateways: for tests of its hearts and its handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from driftloop.artifacts import BundleRefused
from driftloop.artifacts.bundles import PublishedBundle
from driftloop.contracts import Message, to_wire
from driftloop.contracts.event.v1.event_pb2 import Event as WireEvent
from driftloop.contracts.monitor.v1.monitor_pb2 import RETRAIN_REASON_DRIFT, RetrainRequest
from driftloop.featurestore.errors import LogBehind
from driftloop.featurestore.log import LogSnapshot
from driftloop.scoring import ScoringModel
from driftloop.usecase import HOUR_US, Event, Field, Label, Latest, Policy, Prediction, Request, Task, UseCase, before
from services.trainer.assembly import Examples
from services.trainer.attempts import Device, TrainingSet, TrainingSettings
from services.trainer.network import Rows
from services.trainer.published import members_of
from services.trainer.training import Trained, train

booked = Event("booked", entity="trip", fields={"line": Field(str), "load": Field(float), "leaves_at": Field("time")})
measured = Event("measured", entity="line", fields={"line": Field(str), "wear": Field(float), "heat": Field(float)})
came = Event("came", entity="trip", fields={"late": Field(bool)})
dropped = Event("dropped", entity="trip")

trips = UseCase(
    name="trips",
    events=[booked, measured, came, dropped],
    predict=Prediction(on=booked, at=before("leaves_at", "1h")),
    features=[Request("load", "line"), Latest(measured, by="line", of=["wear", "heat"], max_age="24h")],
    label=Label(on=came, value=lambda e: bool(e["late"]), never=[dropped], matures_after="24h"),
    slices=["line"],
    policy=Policy(cohort="1h"),
)
minutes_late = Event("came", entity="trip", fields={"minutes": Field(float)})
said = Event("came", entity="trip", fields={"how": Field(str, one_of=("early", "punctual", "late"))})
TASKS: dict[Task, UseCase] = {
    "binary": trips,
    "multiclass": replace(
        trips,
        events=[booked, measured, said, dropped],
        predict=Prediction(
            on=booked, at=before("leaves_at", "1h"), task="multiclass", classes=said.fields["how"].one_of
        ),
        label=Label(on=said, value=lambda e: str(e["how"]), never=[dropped], matures_after="24h"),
    ),
    "regression": replace(
        trips,
        events=[booked, measured, minutes_late, dropped],
        predict=Prediction(on=booked, at=before("leaves_at", "1h"), task="regression"),
        label=Label(on=minutes_late, value=lambda e: float(e["minutes"]), never=[dropped], matures_after="24h"),
    ),
}
# Where there is a GPU trainer uses it, and so do its tests.
DEVICE: Device = "cuda" if torch.cuda.is_available() else "cpu"
QUICK = TrainingSettings(epochs=15, patience=4, hidden=24, category_rows_min=5, device=DEVICE)
STEP_US = 60_000_000
NOISE = 1.5


def rows(
    count: int, seed: int = 0, turned: Iterable[str] = (), turned_from: int = 0, task: Task = "binary"
) -> TrainingSet:
    """Rows a minute apart whose odds follow load and wear; from row `turned_from` on they are the reverse for some lines.

    Of other tasks: three classes, or minutes about 100 000 with a few extremes, that follow the same.
    """
    draws = np.random.default_rng(seed)
    lines = draws.choice(["blue", "red", "green"], size=count)
    load, wear, heat = draws.normal(size=(3, count))
    logit = 2.0 * load + NOISE * np.abs(wear) - 1.0
    flipped = np.isin(lines, list(turned)) & (np.arange(count) >= turned_from)
    leaning = np.where(flipped, -logit, logit)
    labels = draws.random(count) < 1.0 / (1.0 + np.exp(-leaning))
    heat[draws.random(count) < 0.3] = np.nan
    if task == "multiclass":
        labels = np.digitize(leaning + draws.logistic(size=count), [-1.0, 1.0])
    elif task == "regression":
        labels = 1e5 + 20.0 * leaning + draws.normal(0.0, 20.0, count) + 500.0 * (draws.random(count) < 0.002)
    at_us = np.arange(count, dtype=np.int64) * STEP_US
    return TrainingSet(
        entities=[f"t{place}" for place in range(count)],
        at_us=at_us,
        numbers=np.column_stack([load, wear, heat]),
        texts=np.array(lines, dtype=object)[:, None],
        labels=labels.astype(np.float64),
        known_at_us=at_us + HOUR_US,
    )


def part(whole: TrainingSet, first: int, end: int) -> TrainingSet:
    """Rows `first` to `end` of a set."""
    place = slice(first, end)
    return TrainingSet(
        whole.entities[place],
        whole.at_us[place],
        whole.numbers[place],
        whole.texts[place],
        whole.labels[place],
        whole.known_at_us[place],
    )


def trained_on(
    whole: TrainingSet,
    since_us: int = 0,
    champion: ScoringModel | None = None,
    seed: int = 1,
    task: Task = "binary",
    **changes: Any,
) -> Trained:
    """A model of `trips`."""
    return train(TASKS[task], whole, since_us, champion, seed, replace(QUICK, **changes), lambda detail: None)


def mean_of(model: ScoringModel, numbers: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The weighted mean of what a model's networks say, by torch: logits, or values."""
    total = 0.0
    for member in members_of(model, QUICK.dropout):
        encoded, codes = member.preprocessing.encode(numbers), member.preprocessing.codes(texts)
        unused = torch.zeros(len(texts))
        with torch.no_grad():
            raw = member.network(Rows(torch.from_numpy(encoded), torch.from_numpy(codes), unused, unused.bool()))
        total = total + member.weight * member.target.restored(raw.numpy().astype(np.float64))
    return total


def event(kind: Event, entity: str, known_at_us: int, **fields: Any) -> WireEvent:
    """An accepted event."""
    return WireEvent(
        use_case="trips",
        id=f"{kind.name}:{entity}:{known_at_us}",
        type=kind.name,
        entity=entity,
        event_time_us=known_at_us,
        known_at_us=known_at_us,
        fields=to_wire(fields, kind.fields),
    )


def trip_events(whole: TrainingSet) -> list[WireEvent]:
    """The events from which assembly makes the rows of a set: each known an hour after its prediction time."""
    found = []
    for place, entity in enumerate(whole.entities):
        at_us = int(whole.at_us[place])
        fields = {"line": whole.texts[place, 0], "load": float(whole.numbers[place, 0]), "leaves_at": at_us + HOUR_US}
        found.append(event(booked, entity, at_us, **fields))
        found.append(event(came, entity, int(whole.known_at_us[place]), late=bool(whole.labels[place])))
    return found


def request(number: int = 1, clock_us: int = 10**15, **fields: Any) -> Message[RetrainRequest]:
    """A retrain request."""
    payload = RetrainRequest(
        use_case="trips", id=f"r{number}", reason=RETRAIN_REASON_DRIFT, clock_us=clock_us, seed=number, **fields
    )
    return Message("retrain", "trips", payload, payload.id, "driftloop/monitor", clock_us, clock_us)


class TwinData:
    """Events and feature values in memory."""

    def __init__(self, whole: TrainingSet) -> None:
        self.accepted = trip_events(whole)
        self._columns = {name: whole.numbers[:, place] for place, name in enumerate(trips.numeric_inputs)}
        self._places = {entity: place for place, entity in enumerate(whole.entities)}
        self.behind = False
        self.kept: list[str] = []

    def await_clock(self, clock_us: int) -> LogSnapshot:
        """See `Data.await_clock`."""
        if self.behind:
            raise LogBehind("features-0 at 5")
        return LogSnapshot(None, ())  # type: ignore[arg-type]  # nobody reads parts of a twin

    def events(self, snapshot: LogSnapshot, types: Iterable[str], until_us: int) -> list[WireEvent]:
        """See `Data.events`."""
        wanted = set(types)
        return [found for found in self.accepted if found.type in wanted and found.known_at_us <= until_us]

    def values(self, examples: Examples) -> Mapping[str, Any]:
        """See `Data.values`."""
        places = [self._places[entity] for entity in examples.entities]
        return {name: column[places] for name, column in self._columns.items() if name != "load"}

    def keep(self, digest: str, found: TrainingSet) -> None:
        """See `Data.keep`."""
        self.kept.append(digest)


class TwinBundles:
    """Models in memory."""

    def __init__(self) -> None:
        self.models: dict[str, ScoringModel] = {}

    def model(self, model_id: str, url: str, digest: str) -> ScoringModel:
        """See `Bundles.model`."""
        if model_id not in self.models:
            raise BundleRefused("missing", model_id)
        return self.models[model_id]

    def publish(self, model_id: str, trained: Trained) -> PublishedBundle:
        """See `Bundles.publish`."""
        self.models[model_id] = trained.model
        return PublishedBundle(f"trips/bundles/{model_id}/model.bento", "d" * 64, 1)


class TwinOutgoing:
    """Messages in a list."""

    def __init__(self, on_tell: Callable[[], None] = lambda: None) -> None:
        self.told: list[Message[Any]] = []
        self.delivered: list[Message[Any]] = []
        self._on_tell = on_tell

    def tell(self, message: Message[Any]) -> None:
        """See `Outgoing.tell`."""
        self.told.append(message)
        self._on_tell()

    def deliver(self, message: Message[Any]) -> None:
        """See `Outgoing.deliver`."""
        self.delivered.append(message)
