"""A window that is read from a real broker replays as it was recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.local.topics import create_topics
from driftloop.cli.replay_window import replay_window
from driftloop.messaging import KafkaProducer
from simulation.faults import parsed
from simulation.hosted.machine import SPREAD
from simulation.simulate import simulate


@pytest.mark.timeout(180)
def test_a_window_on_the_broker_gives_the_same_ids_and_decisions(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    outcome = simulate(5, parsed("duplicate=0.1,crash=0.03,never=0.03"))
    assert outcome.holds
    create_topics(kafka_bootstrap_servers, "trips", 30, SPREAD)
    producer = KafkaProducer(kafka_bootstrap_servers, "trips", "recorded")
    for record in outcome.recorded():
        producer.send(replace(record.message, partition=record.partition))
    asyncio.run(producer.drained())
    producer.close(5)
    folder = tmp_path / "usecases" / "trips"
    folder.mkdir(parents=True)
    (folder / "usecase.py").write_text("from simulation.trips import trips as use_case\n")
    options = ["--usecases", str(tmp_path / "usecases"), "--bootstrap-servers", kafka_bootstrap_servers]
    live = CliRunner().invoke(replay_window, ["trips", *options, "--save", str(tmp_path / "window")])
    assert live.exit_code == 0, live.output
    assert "nothing differs" in live.output
    saved = CliRunner().invoke(replay_window, ["trips", *options, "--file", str(tmp_path / "window")])
    assert saved.output.splitlines()[-2:] == live.output.splitlines()[-2:]
