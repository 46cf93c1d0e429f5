"""Transforms of request fields as a Feast on-demand view: for whoever asks Feast itself, online or offline, for whole vectors.

Serving and trainer compute them by the same code, `UseCase.request_values`, without Feast. A plain field needs no view: whoever
asks has it.
"""

from __future__ import annotations

from typing import Any

from feast import FeatureService, OnDemandFeatureView, RequestSource
from feast import Field as FeastField
from feast.types import Bool, FeastType, Float64, Int64, String

from driftloop.featurestore.definitions import Definitions, project_name
from driftloop.usecase import UseCase

_TYPES: dict[str, FeastType] = {"text": String, "number": Float64, "integer": Int64, "flag": Bool, "time": Int64}


def request_view_name(use_case: UseCase) -> str:
    """The name of the use case's on-demand view."""
    return f"{project_name(use_case)}_request"


def inputs_service_name(use_case: UseCase) -> str:
    """The name of the feature service that has the transforms and every feature of every view."""
    return f"{project_name(use_case)}_inputs"


def transformed(use_case: UseCase) -> list[int]:
    """Places among the request's features of those that are no plain field."""
    return [place for place, each in enumerate(use_case.request_transforms) if each.name != each.of]


def request_view(use_case: UseCase) -> OnDemandFeatureView:
    """The transforms of fields that come with each row asked for: numbers, texts, times in microseconds."""
    features = {place: use_case.request_inputs[place] for place in transformed(use_case)}
    fields = list(dict.fromkeys(use_case.request_transforms[place].of for place in features))
    declared = use_case.predict.on.fields
    values_of = use_case.request_values

    def compute(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = zip(*[inputs[name] for name in fields], strict=True)
        found = [values_of(dict(zip(fields, row, strict=True))) for row in rows]
        return {feature.name: [values[place] for values in found] for place, feature in features.items()}

    source = RequestSource(
        name=f"{request_view_name(use_case)}_fields",
        schema=[FeastField(name=name, dtype=_TYPES[declared[name].kind]) for name in fields],
    )
    schema = [FeastField(name=each.name, dtype=Float64 if each.numeric else String) for each in features.values()]
    return OnDemandFeatureView(
        name=request_view_name(use_case),
        sources=[source],
        schema=schema,
        udf=compute,
        udf_string=f"driftloop: {use_case.name}.request_values",
        mode="python",
    )


def with_request_view(use_case: UseCase, found: Definitions) -> list[Any]:
    """What is applied beside the definitions: the on-demand view, and the service that has it and every view."""
    view = request_view(use_case)
    by_name = {feast_view.name: feast_view for feast_view in found.views}
    projections = [by_name[each.name][[feature.name for feature in each.features]] for each in use_case.views]
    return [view, FeatureService(name=inputs_service_name(use_case), features=[view, *projections])]
