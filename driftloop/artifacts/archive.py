"""Which published bundles nobody will need again, by what the loop has said; and their removal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftloop.artifacts.bundles import SIGNATURE_FILE
from driftloop.artifacts.store import ArtifactStore
from driftloop.contracts.monitor.v1.monitor_pb2 import Release, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model

ARCHIVE_TOPICS = ("models", "releases", "retrain")
"""What tells of bundles and of who needs them."""


@dataclass(frozen=True)
class Bundle:
    """A published model; `why`: what it is kept for, empty: nobody needs it."""

    model_id: str
    url: str
    clock_us: int
    why: str


def needed(releases: Sequence[Release], requests: Sequence[RetrainRequest]) -> dict[str, str]:
    """Models that a release, a rollback or a return to an old concept may ask for, and for which of these.

    All releases and requests that are known, oldest first. The newest request names the former champions that may return; who
    lost its place since then is an arm of the newest release.
    """
    found: dict[str, str] = {}
    if requests:
        newest = requests[-1]
        found |= {archived.model_id: "former champion" for archived in newest.archive}
        found[newest.champion_id] = "former champion"
    for release in releases:
        if release.HasField("champion"):
            found.setdefault(release.champion.model_id, "former champion")
    if releases and releases[-1].HasField("champion"):
        now = releases[-1]
        found |= {arm.model_id: "released" for arm in (now.champion, *now.arms)}
    return found


def sorted_out(
    models: Sequence[Model],
    releases: Sequence[Release],
    requests: Sequence[RetrainRequest],
    keep: int,
    older_than_us: int,
) -> list[Bundle]:
    """Every published model, newest first, with what it is kept for.

    The newest `keep` stay, and what is not older than `older_than_us` on the use case's clock, and what no release has answered
    yet: trainer may have published it a moment ago.
    """
    wanted = needed(releases, requests)
    clock_us = max([release.clock_us for release in releases], default=0)
    pending = releases[-1].pending_retrain if releases else ""
    published = sorted((m for m in models if m.outcome == OUTCOME_PUBLISHED), key=lambda m: (-m.clock_us, m.id))
    found = []
    for place, model in enumerate(published):
        why = wanted.get(model.id, "")
        if not why and (not releases or model.request_id == pending):
            why = "not released yet"
        if not why and place < keep:
            why = f"one of the newest {keep}"
        if not why and model.clock_us > clock_us - older_than_us:
            why = "not old enough"
        found.append(Bundle(model.id, model.bundle_url, model.clock_us, why))
    return found


def remove(store: ArtifactStore, bundle: Bundle) -> None:
    """Takes a bundle and its signature out of the store."""
    store.delete(bundle.url)
    store.delete(f"{bundle.url.rpartition('/')[0]}/{SIGNATURE_FILE}")
