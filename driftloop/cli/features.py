"""`driftloop features`: feature values computed anew from the event log, and what was served compared with what was known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from driftloop.cli.broker import bootstrap_servers_option
from driftloop.cli.checkout import import_from_checkout
from driftloop.cli.history import moments
from driftloop.contracts import rfc3339
from driftloop.usecase import UseCaseError, load_use_case


def _store_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="The result as one JSON object."),
        click.option(
            "--artifacts-url",
            envvar="DRIFTLOOP_ARTIFACTS_URL",
            default="build/local/artifacts",
            show_default=True,
            help="The artifact store, which holds the offline log.",
        ),
        click.option("--usecases", envvar="DRIFTLOOP_USECASES", default="", help="Folders that hold use cases."),
        click.argument("name"),
    ):
        command = option(command)
    return command


@click.group()
def features() -> None:
    """Compute feature values anew, and compare what was served with what was known."""


@features.command()
@_store_options
@click.option("--from", "from_text", help="First moment, as 2013-03-08T12:00, UTC; the log's beginning if not given.")
@click.option("--to", "to_text", help="The moment before which it ends; the log's end if not given.")
@click.option("--online/--no-online", default=True, show_default=True, help="Write current values online as well.")
@click.option(
    "--state-dir",
    envvar="DRIFTLOOP_STATE_DIR",
    default="build/local/state",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where Feast's SQLite store lies.",
)
@click.option("--online-redis", envvar="FEATURES_ONLINE_REDIS", default="", help="host:port of a Redis online store.")
def backfill(
    name: str,
    usecases: str,
    artifacts_url: str,
    as_json: bool,
    from_text: str | None,
    to_text: str | None,
    online: bool,
    state_dir: Path,
    online_redis: str,
) -> None:
    """Compute the feature values of use case NAME anew from its event log, and write them offline and online.

    It may run beside the live service: training reads the new values of the stretch once all are written, and a value online is
    replaced by a newer one only. Online values are written where the stretch reaches the log's end.
    """
    import_from_checkout("services/features", "A backfill is run")
    from driftloop.artifacts import ArtifactStore
    from driftloop.featurestore.errors import FeatureStoreError
    from services.features.backfilling import run
    from services.features.errors import FeaturesError

    from_us, to_us = moments(from_text, to_text)

    def open_online() -> Any:
        from driftloop.featurestore.online import online_writer
        from driftloop.featurestore.store import FeatureStoreSettings, feature_store

        folder = state_dir / "feast"
        places = FeatureStoreSettings(
            folder / "registry-backfill.db", artifacts_url, folder / "online.db", online_redis=online_redis
        )
        return online_writer(feature_store(use_case, places), use_case)

    try:
        use_case = load_use_case(name, usecases)
    except UseCaseError as error:
        raise click.UsageError(str(error)) from error
    try:
        found = run(
            use_case,
            ArtifactStore(artifacts_url),
            from_us,
            to_us,
            open_online if online else None,
            lambda done, of: click.echo(f"{done:,} of {of:,} events", err=True),
        )
    except (FeaturesError, FeatureStoreError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    written = "not written online" if found.online is None else f"{found.online:,} values written online"
    click.echo(f"backfill {found.id} from {rfc3339(found.from_us)} until before {rfc3339(found.to_us)}: ", nl=False)
    click.echo(f"{found.events:,} events, {sum(found.updates.values()):,} updates logged, {written}")


@features.command()
@_store_options
@click.option(
    "--sample", type=click.IntRange(1), default=10_000, show_default=True, help="Predictions compared at most."
)
@click.option("--from", "from_text", help="First moment of a prediction, as 2013-03-08T12:00, UTC.")
@click.option("--to", "to_text", help="The moment before which predictions are taken; the log's end if not given.")
@bootstrap_servers_option
def parity(
    name: str,
    usecases: str,
    artifacts_url: str,
    as_json: bool,
    sample: int,
    from_text: str | None,
    to_text: str | None,
    bootstrap_servers: str,
) -> None:
    """Compare the values that use case NAME served with what its offline log says was known; exit code 1: unexplained ones.

    The sample is the same each time it is drawn from the same predictions. Counts go to telemetry as well, where it is set up.
    """
    from heapq import nsmallest
    from tempfile import TemporaryDirectory
    from zlib import crc32

    from driftloop.artifacts import ArtifactStore
    from driftloop.cli.history import first_by_id, read_topics
    from driftloop.featurestore.errors import FeatureStoreError
    from driftloop.featurestore.known import KnownValues
    from driftloop.featurestore.log import OfflineLogReader
    from driftloop.featurestore.parity import compare, place_of
    from driftloop.featurestore.store import FeatureStoreSettings, feature_store
    from driftloop.telemetry import instruments, setup_telemetry

    from_us, to_us = moments(from_text, to_text)
    try:
        use_case = load_use_case(name, usecases)
    except UseCaseError as error:
        raise click.UsageError(str(error)) from error
    store = ArtifactStore(artifacts_url)
    try:
        end_us = OfflineLogReader(store, name).snapshot().clock_us
        taken = [
            message.payload
            for message in first_by_id(read_topics(bootstrap_servers, name, ["predictions"])).values()
            if (from_us or 0) <= message.payload.as_of_us and (to_us is None or message.payload.as_of_us < to_us)
        ]
        whole = [p for p in taken if all(place_of(p, reading).at_us <= end_us for reading in p.vector.readings)]
        chosen = nsmallest(sample, whole, key=lambda prediction: (crc32(prediction.id.encode()), prediction.id))
        with TemporaryDirectory() as folder:
            places = FeatureStoreSettings(Path(folder) / "registry.db", artifacts_url, Path(folder) / "online.db")
            known = KnownValues(use_case, feature_store(use_case, places), store)
            found = compare(use_case, chosen, known.joined, known.by_id)
    except (FeatureStoreError, TimeoutError) as error:
        raise click.ClickException(str(error)) from error
    telemetry = setup_telemetry("features")
    declared = instruments("features")
    declared.counter("parity_values").add(found.values)
    for (feature, cause), count in found.mismatches.items():
        declared.counter("parity_mismatches").add(count, {"feature": feature, "cause": cause})
    telemetry.shutdown()
    if as_json:
        rows = [{"feature": f, "cause": c, "values": n} for (f, c), n in sorted(found.mismatches.items())]
        counts = {"predictions": found.predictions, "values": found.values, "unexplained": found.unexplained}
        click.echo(json.dumps(counts | {"mismatches": rows, "examples": [asdict(one) for one in found.examples]}))
    else:
        click.echo(f"{found.predictions:,} predictions of {len(whole):,}, {found.values:,} values compared")
        for (feature, cause), count in sorted(found.mismatches.items()):
            click.echo(f"{count:>9,}  {cause:<15}  {feature}")
        for one in found.examples:
            click.echo(f"{one.prediction_id}: {one.feature} was served as {one.served}, the log says {one.joined}")
        click.echo(f"{found.unexplained} unexplained")
    if found.unexplained:
        raise click.exceptions.Exit(1)
