"""Old bundles may go, but none that a release, a rollback or a returning concept may ask for."""

from __future__ import annotations

from pathlib import Path

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.archive import ARCHIVE_TOPICS, sorted_out
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
    Archived,
    Arm,
    Release,
    RetrainRequest,
)
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, OUTCOME_REFUSED, Model
from driftloop.messaging import MemoryBus
from driftloop.usecase.durations import DAY_US
from services.trainer.archive import BundleArchive
from services.trainer.recording import Recorded


def model(number: int, outcome: int = OUTCOME_PUBLISHED) -> Model:
    """The model of a day's request."""
    return Model(
        id=f"m{number}", request_id=f"r{number}", outcome=outcome, bundle_url=f"b/m{number}", clock_us=number * DAY_US
    )


MODELS = [model(number) for number in range(1, 101)]


def release(champion: int, *arms: tuple[int, int], revision: int = 1, pending: str = "", day: int = 100) -> Release:
    return Release(
        revision=revision,
        champion=Arm(model_id=f"m{champion}"),
        arms=[Arm(model_id=f"m{number}", role=role) for number, role in arms],
        pending_retrain=pending,
        clock_us=day * DAY_US,
    )


def removed(releases: list[Release], requests: list[RetrainRequest], keep: int, older_than_days: int) -> set[str]:
    found = sorted_out(MODELS, releases, requests, keep, older_than_days * DAY_US)
    return {bundle.model_id for bundle in found if not bundle.why}


def test_what_is_old_and_not_among_the_newest_goes():
    assert removed([release(100)], [], keep=10, older_than_days=30) == {f"m{n}" for n in range(1, 71)}
    assert removed([release(100)], [], keep=50, older_than_days=30) == {f"m{n}" for n in range(1, 51)}


def test_what_answers_is_compared_or_is_held_ready_stays_however_old():
    arms = [release(1, (2, ROLE_PREVIOUS), (3, ROLE_STANDBY), (4, ROLE_SHADOW))]
    assert not removed(arms, [], keep=0, older_than_days=1) & {"m1", "m2", "m3", "m4"}


def test_former_champions_that_may_return_stay():
    request = RetrainRequest(champion_id="m9", archive=[Archived(model_id="m7"), Archived(model_id="m8")])
    assert not removed([release(100)], [RetrainRequest(champion_id="m5"), request], keep=0, older_than_days=1) & {
        "m7",
        "m8",
        "m9",
    }
    assert not removed([release(6), release(100, revision=2)], [], keep=0, older_than_days=1) & {"m6"}


def test_what_was_published_a_moment_ago_stays_until_a_release_speaks_of_its_request():
    assert not removed([release(100, pending="r50")], [], keep=0, older_than_days=1) & {"m50"}
    assert removed([release(100)], [], keep=0, older_than_days=1) >= {"m50"}


def test_before_the_first_release_nothing_goes_and_a_refused_model_has_no_bundle():
    assert removed([], [], keep=0, older_than_days=1) == set()
    refused = sorted_out([model(1, OUTCOME_REFUSED)], [release(100)], [], 0, DAY_US)
    assert refused == []


def test_after_an_answer_the_archive_keeps_what_may_be_needed_and_lets_the_rest_go_whatever_retention_has_deleted(
    tmp_path: Path,
):
    bus, store = MemoryBus("flights", 1), ArtifactStore(tmp_path)
    for each in MODELS:
        store.put(each.bundle_url, b"bundle")
        bus.append(Message("models", "flights", each, each.id, "test", 0, each.clock_us))
    newest = release(100, (2, ROLE_PREVIOUS))
    bus.append(Message("releases", "flights", newest, "r1", "test", 0, 0))
    asked = RetrainRequest(id="r1")
    bus.append(Message("retrain", "flights", asked, asked.id, "test", 0, 0))
    bus.delete_before({("retrain", 0): 1})
    archive = BundleArchive(store, lambda: bus.reader(ARCHIVE_TOPICS), 10, 30 * DAY_US, 1.0)
    for _ in range(2):
        archive.record(Recorded(RetrainRequest(), MODELS[-1], 0.0, 0.0))
        left = {each.id for each in MODELS if store.exists(each.bundle_url)}
        assert left == {"m2", *(f"m{n}" for n in range(71, 101))}
