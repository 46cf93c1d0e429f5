"""Feast's entities, feature views and feature service that follow from a use case; never applies or reads them."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from feast import Entity, FeatureService, FeatureView, ValueType
from feast import Field as FeastField
from feast.types import Float64, Int64, String

from driftloop.featurestore.log import EVENT_TIME_US, KEY, KNOWN_AT_US, SEQUENCE, UPDATE_ID
from driftloop.featurestore.source import OfflineLogSource
from driftloop.usecase import UseCase, View


class Definitions(NamedTuple):
    """What a use case is in Feast; `service` names every feature of every view, in declared order."""

    project: str
    entities: list[Entity]
    views: list[FeatureView]
    service: FeatureService


def join_key(view: View) -> str:
    """The column that holds a view's keys (`View.key`) in entity frames, and the name of its Feast entity."""
    return f"{view.name}_key"


def project_name(use_case: UseCase) -> str:
    """The use case's Feast project: Feast allows letters, digits and underscores."""
    return use_case.name.replace("-", "_").lower()


def service_name(use_case: UseCase) -> str:
    """The name of the use case's feature service."""
    return f"{project_name(use_case)}_vector"


def definitions(use_case: UseCase, artifacts_url: str) -> Definitions:
    """One entity and one view per declared view, with sources in the offline log of the artifact store at `artifacts_url`.

    A view's timestamp is `known_at`: Feast's join asks for what was *known* by a row's time, not for what had happened by
    then. Its lifetime is unlimited (TTL 0), because a value holds until the next update says otherwise, even that it is gone.
    """
    entities, views = [], []
    for view in use_case.views:
        entity = Entity(name=join_key(view), join_keys=[join_key(view)], value_type=ValueType.STRING)
        entities.append(entity)
        views.append(_feature_view(use_case, view, entity, artifacts_url))
    projections = [
        feast_view[[feature.name for feature in view.features]]
        for feast_view, view in zip(views, use_case.views, strict=True)
    ]
    service = FeatureService(name=service_name(use_case), features=projections)
    return Definitions(project_name(use_case), entities, views, service)


def _feature_view(use_case: UseCase, view: View, entity: Entity, artifacts_url: str) -> FeatureView:
    source = OfflineLogSource(
        name=f"{view.name}_log",
        artifacts_url=artifacts_url,
        use_case=use_case.name,
        view=view.name,
        numbers=[feature.name for feature in view.features if feature.numeric],
        texts=[feature.name for feature in view.features if not feature.numeric],
        field_mapping={KEY: join_key(view)},
    )
    features = [FeastField(name=f.name, dtype=Float64 if f.numeric else String) for f in view.features]
    # Kept beside the values for whoever reads online: how fresh they are, which update they are, what came before.
    kept = [
        FeastField(name=EVENT_TIME_US, dtype=Int64),
        FeastField(name=KNOWN_AT_US, dtype=Int64),
        FeastField(name=SEQUENCE, dtype=Int64),
        FeastField(name=UPDATE_ID, dtype=String),
    ]
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=timedelta(0),
        schema=[FeastField(name=join_key(view), dtype=String), *features, *kept],
        source=source,
        online=True,
    )
