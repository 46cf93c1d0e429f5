"""What a published model says of itself, and the networks made from that again; trains nothing.

A model of one network has its preprocessing in the spec and its weights under their names. Of a blend of several `members` lists
each one's, oldest first, with its weight in the mean, and names of weights begin with the place; the spec's own vocabularies list
what any of them does, for texts are coded outside the graph, and the rest of its preprocessing is the newest's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from driftloop.scoring.model import ScoringModel
from driftloop.usecase import Task, UseCase
from services.trainer.blend import Member
from services.trainer.network import Core, Heads, Network
from services.trainer.preprocessing import Preprocessing, Target
from services.trainer.reference import reference

SPEC_VERSION, BLEND_VERSION = 2, 3


def digest_of(spec: Mapping[str, Any], weights: bytes) -> str:
    """SHA-256 of preprocessing and weights: what the model computes, not how its file is packed."""
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(len(canonical).to_bytes(8, "big") + canonical + weights).hexdigest()


def new_network(
    task: Task, outputs: int, preprocessing: Preprocessing, hidden: int, embedding: int, dropout: float
) -> Network:
    """A network that has learned nothing yet."""
    sizes = preprocessing.cardinalities
    core = Core(preprocessing.width, sizes, hidden, embedding, dropout, outputs)
    return Network(task, core, Heads(sizes, outputs), Heads(sizes, outputs))


def published_state(network: Network) -> dict[str, torch.Tensor]:
    """The weights that scoring uses: the heads of an earlier regime stay behind."""
    state = network.state_dict()
    return {name: state[name].cpu().contiguous() for name in sorted(state) if not name.startswith("earlier.")}


def spec_of(
    use_case: UseCase,
    numbers: npt.NDArray[np.float64],
    texts: npt.NDArray[Any],
    labels: npt.NDArray[np.float64],
    learned_rows: int,
    scale: float,
) -> dict[str, Any]:
    """What a spec says of a model beside its networks, from rows in order of time; `scale` as in `HeldOut`."""
    task, classes = use_case.predict.task, use_case.predict.classes
    # A spec is about a binary label unless it says otherwise.
    of_task: dict[str, Any] = {}
    if task == "multiclass":
        of_task = {"task": task, "classes": list(classes)}
    elif task == "regression":
        of_task = {"task": task, "label_scale": scale}
    return {
        "use_case": use_case.name,
        "inputs_digest": use_case.inputs_digest,
        "numeric_inputs": list(use_case.numeric_inputs),
        "text_inputs": list(use_case.text_inputs),
        "trained_rows": learned_rows,
        **of_task,
        **reference(use_case.predict, numbers[-learned_rows:], texts[-learned_rows:], labels[-learned_rows:]),
    }


def vocabularies_of(members: Sequence[Member]) -> list[list[str]]:
    """What any of the members lists, per text input, in order."""
    listed = zip(*(member.preprocessing.vocabularies for member in members), strict=True)
    return [sorted(set().union(*words)) for words in listed]


def published_parts(members: Sequence[Member]) -> tuple[dict[str, Any], bytes]:
    """What a spec says of the networks, and their weights; `members_of` reads both."""
    newest = members[-1]
    if len(members) == 1:
        return _part_of(newest), safetensors.torch.save(published_state(newest.network))
    spec = {
        **_part_of(newest),
        "version": BLEND_VERSION,
        "vocabularies": vocabularies_of(members),
        "members": [{**_part_of(member), "weight": member.weight} for member in members],
    }
    state = {
        f"{place}.{name}": tensor
        for place, member in enumerate(members)
        for name, tensor in published_state(member.network).items()
    }
    return spec, safetensors.torch.save(state)


def _part_of(member: Member) -> dict[str, Any]:
    core = member.network.core
    embedding = core.embeddings[0].embedding_dim if len(core.embeddings) else 0
    shape = {"hidden": core.first.out_features, "embedding": embedding}
    target = {"target": asdict(member.target)} if member.network.task == "regression" else {}
    return {"version": SPEC_VERSION, "network": shape, **member.preprocessing.to_spec(), **target}


def members_of(model: ScoringModel, dropout: float) -> list[Member]:
    """The networks that a published model was exported from, oldest first, to go on training the newest or to compare."""
    state = safetensors.torch.load(model.weights)
    told = model.spec.get("members")
    if told is None:
        return [_member(model, model.spec, state, dropout)]
    return [
        _member(model, part, {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}, dropout)
        for prefix, part in ((f"{place}.", part) for place, part in enumerate(told))
    ]


def _member(model: ScoringModel, part: Mapping[str, Any], state: dict[str, torch.Tensor], dropout: float) -> Member:
    preprocessing, shape, classes = Preprocessing.from_spec(part), part["network"], model.spec.get("classes", ())
    network = new_network(
        task_of(model), len(classes) or 1, preprocessing, shape["hidden"], shape["embedding"], dropout
    )
    network.load_state_dict(state, strict=False)
    network.eval()
    return Member(network, preprocessing, Target(**part.get("target", {})), part.get("weight", 1.0))


def task_of(model: ScoringModel) -> Task:
    """What a model was trained for."""
    found: Task = model.spec.get("task", "binary")
    return found


def learned_rows_of(champion: ScoringModel) -> int:
    """Rows that a model has learned from."""
    return max(1, int(champion.spec.get("trained_rows", 1)))


def answers_alike(use_case: UseCase, champion: ScoringModel) -> bool:
    """Whether a champion takes the inputs and answers the task that are declared now."""
    declared = use_case.predict
    learned = (task_of(champion), tuple(champion.spec.get("classes", ())))
    return champion.inputs_digest == use_case.inputs_digest and learned == (declared.task, declared.classes)


def is_compatible(use_case: UseCase, champion: ScoringModel) -> bool:
    """Whether a champion can be trained further: its network is of today's shape, for the inputs and the task declared now."""
    known = champion.spec.get("version") in (SPEC_VERSION, BLEND_VERSION)
    return bool(champion.weights and known and answers_alike(use_case, champion))
