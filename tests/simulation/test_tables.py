"""People's tables through the whole loop in one process: each task closes it, and nothing is known before its time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

from driftloop.cli.demo import missing_links
from driftloop.cli.replay import Played
from driftloop.cli.summary import summarise
from driftloop.contracts import Message
from driftloop.tables import InferenceOptions, TableStretch, infer, read_table, use_case_of
from driftloop.usecase import UseCase, duration_us, replay_steps
from simulation.loop import Loop
from simulation.trainer import RecordedTrainer
from tests.sample_tables import demand, payments, tickets

TOPICS = ("events", "features", "predictions", "scores", "drift", "decisions", "retrain", "models", "releases")
ROWS = 2_500
TABLES: dict[str, tuple[Callable[[int], pd.DataFrame], InferenceOptions]] = {
    "payments": (
        payments,
        InferenceOptions(label="charged_back", time="paid at", label_time="settled at", keys=["shop"]),
    ),
    "tickets": (tickets, InferenceOptions(label="team", label_delay=50, keys=["product"], categorical=["severity"])),
    "demand": (demand, InferenceOptions(label="load", time="hour")),
}


@cache
def run(name: str) -> tuple[UseCase, TableStretch, dict[str, Message]]:
    """A table's rows through a loop: the use case, the stretch, and every message by id."""
    make, options = TABLES[name]
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.parquet"
        make(ROWS).to_parquet(file)
        table = read_table(file)
    inferred = infer(table, options)
    use_case, stretch = use_case_of(inferred), TableStretch(table, inferred)
    loop = Loop(use_case, RecordedTrainer(use_case))
    loop.run(replay_steps(stretch, use_case.step_us, use_case.label.matures_after_us))
    messages: dict[str, Message] = {}
    for topic in TOPICS:
        for message in loop.messages(topic):
            if not message.is_watermark:
                messages.setdefault(message.id, message)
    return use_case, stretch, messages


@pytest.mark.parametrize("name", TABLES)
def test_a_table_closes_the_loop_and_every_row_is_accounted_for(name):
    use_case, _, messages = run(name)
    summary = summarise(Played(), messages, None, use_case.predict.on.name)
    assert missing_links(summary, injected=False) == []
    unlabelled = int(tickets(ROWS)["team"].isna().sum()) if name == "tickets" else 0
    assert summary["labels"] == {"matched": ROWS - unlabelled, "pending": 0, "never": unlabelled}


def test_what_is_known_of_a_key_holds_exactly_the_labels_that_were_known_by_then():
    use_case, stretch, messages = run("payments")
    told = [event for event in stretch.events() if event.type == "labelled"]
    known_us = {
        shop: np.sort([event.known_at_us for event in told if event.fields["shop"] == shop])
        for shop in {event.fields["shop"] for event in told}
    }
    view = use_case.views[0]
    place = use_case.numeric_inputs.index(f"{view.name}__count_{view.over[-1]}")
    shops = {request.entity: request.fields["shop"] for request in stretch.requests()}
    window_us = duration_us(view.over[-1])
    predictions = [message.payload for message in messages.values() if message.topic == "predictions"]
    assert predictions
    for prediction in predictions:
        known = known_us[shops[prediction.entity]]
        at_us = prediction.as_of_us
        within = np.searchsorted(known, at_us, "right") - np.searchsorted(known, at_us - window_us, "right")
        assert prediction.vector.numbers[place] == within
