"""What a published model says of itself, and the network made from that again; trains nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from driftloop.scoring.model import ScoringModel
from driftloop.usecase import Task, UseCase
from services.trainer.network import Core, Heads, Network
from services.trainer.preprocessing import Preprocessing

SPEC_VERSION = 2


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


def network_of(model: ScoringModel, dropout: float) -> tuple[Network, Preprocessing]:
    """The network that a published model was exported from, to go on training it or to compare."""
    preprocessing = Preprocessing.from_spec(model.spec)
    shape, task, classes = model.spec["network"], task_of(model), model.spec.get("classes", ())
    network = new_network(task, len(classes) or 1, preprocessing, shape["hidden"], shape["embedding"], dropout)
    network.load_state_dict(safetensors.torch.load(model.weights), strict=False)
    return network, preprocessing


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
    return bool(champion.weights and champion.spec.get("version") == SPEC_VERSION and answers_alike(use_case, champion))
