"""Which model comes of which rows: candidates, their choice on the newest rows, and the refit; no I/O, no clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from driftloop.scoring.model import ScoringModel
from driftloop.usecase import LOSS_METRICS, LOSS_NAMES, Task, UseCase, duration_us, label_scale
from services.trainer.export import to_onnx
from services.trainer.measures import compared_losses, mean_and_error, measures
from services.trainer.network import Core, Fitted, Heads, Limits, Network, Pace, Rows, fit, repeatable
from services.trainer.preprocessing import Preprocessing, Target, fit_preprocessing, fit_target

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Device = Literal["cpu", "cuda"]
SPEC_VERSION = 1


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows, sorted by `at_us`, the declared prediction times.

    numbers: float64 (n, numeric inputs), NaN is missing; texts: object (n, text inputs); labels: float64 (n,), as
    `UseCase.label_of` gives them.
    """

    entities: list[str]
    at_us: Times
    numbers: Floats
    texts: npt.NDArray[Any]
    labels: Floats
    known_at_us: Times

    def __post_init__(self) -> None:
        texts = np.asarray(self.texts, dtype=object).reshape(len(self.entities), -1)
        object.__setattr__(self, "texts", texts)
        if np.any(np.diff(self.at_us) < 0):
            raise ValueError("training rows must be sorted by at_us")

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True)
class TrainingSettings:
    """How much is tried, and how hard.

    bins                 quantile bins per number: more find finer shapes and need more rows
    category_rows_min    rows below which a text counts as "not listed"
    dropout, weight_decay  strong, because labels are few and noisy
    heads_rate           learning rate of gains and offsets when a champion is adapted: few numbers, few rows, large steps
    large_rows           rows from which batches are twice as large, to save time; half of it where a champion is adapted
    patience             epochs without a better validation loss after which a fit ends
    validation_share     newest share of the rows (since the change, if there was one) on which candidates are compared
    since_rows_min       rows since a change below which it is not worth a candidate of its own
    threads              CPU threads; more than one makes sums, and so digests, depend on the machine
    """

    bins: int = 8
    category_rows_min: int = 20
    hidden: int = 64
    embedding: int = 4
    dropout: float = 0.4
    weight_decay: float = 0.1
    rate: float = 1e-3
    tuning_rate: float = 5e-4
    heads_rate: float = 1e-2
    batch_rows: int = 256
    tuning_batch_rows: int = 128
    large_rows: int = 12_000
    epochs: int = 40
    patience: int = 6
    validation_share: float = 0.2
    since_rows_min: int = 300
    threads: int = 1
    device: Device = "cpu"


@dataclass(frozen=True)
class HeldOut:
    """What the chosen candidate and the champion said about the newest rows before the refit saw them.

    base: what is answered without any input, from the labels before them: the rate of true ones or their mean, (); the
    classes' frequencies, (classes,). scale: the variance of the label that squared errors are counted in.
    """

    at_us: Times
    labels: Floats
    challenger: Floats
    base: Floats
    champion: Floats | None
    unseen_by_champion: npt.NDArray[np.bool_]
    scale: float = 1.0

    @property
    def base_answers(self) -> Floats:
        """`base` for every row."""
        return np.broadcast_to(self.base, self.challenger.shape)


@dataclass(frozen=True)
class Trained:
    """A trained model and what is known of it. `label_scale`: see `HeldOut.scale`; 0 where losses need none.

    Over all fits, candidates included: `fitted_rows` their rows, `row_epochs` rows × epochs. `trained_rows`: of the last fit.
    """

    model: ScoringModel
    trained_rows: int
    fitted_rows: int
    row_epochs: int
    metrics: dict[str, float]
    held_out: HeldOut
    label_scale: float
    chosen: str
    device: str
    onnx: bytes
    weights: bytes
    spec: dict[str, Any]
    model_digest: str


@dataclass(frozen=True)
class _Candidate:
    """A way to a model: rows from `first` on, from scratch or from the champion; rows before `change` have other heads."""

    name: str
    first: int
    pace: Pace
    from_champion: bool
    change: int = 0


@dataclass
class _Run:
    use_case: UseCase
    rows: TrainingSet
    champion: ScoringModel | None
    seed: int
    settings: TrainingSettings
    progress: Callable[[str], None]
    scale: float
    fitted_rows: int = 0
    row_epochs: int = 0

    @property
    def task(self) -> Task:
        return self.use_case.predict.task

    def losses(self, answers: Floats, first: int) -> Floats:
        """Losses of answers to the rows from `first` on, as models are compared by."""
        return compared_losses(self.task, answers, self.rows.labels[first:], self.scale)


class _Fit(NamedTuple):
    """A fitted candidate."""

    network: Network
    preprocessing: Preprocessing
    target: Target
    fitted: Fitted


def train(
    use_case: UseCase,
    rows: TrainingSet,
    since_us: int,
    champion: ScoringModel | None,
    seed: int,
    settings: TrainingSettings,
    progress: Callable[[str], None],
) -> Trained:
    """Trains on `rows`; `since_us` > 0: rows from there on belong to a new regime, which the model must serve.

    Candidates are fitted without the newest rows and compared on them by the task's loss; the steadiest of the best is fitted
    again on all its rows. The same rows, arguments and seed give the same digest on the same device class. ValueError: no rows
    to train on, or all of one label.
    """
    run = _Run(use_case, rows, champion, seed, settings, progress, _scale(use_case, rows, champion))
    since = int(np.searchsorted(rows.at_us, since_us)) if since_us > 0 else 0
    if since_us > 0 and len(rows) - since < settings.since_rows_min:
        progress(f"only {len(rows) - since} rows since the change: all history is used as one regime")
        since = 0
    held = len(rows) - max(1, round((len(rows) - since) * settings.validation_share))
    if held - since < 1:
        raise ValueError(f"{len(rows)} rows are too few to train on")
    candidates = _candidates(run, since)
    if np.unique(rows.labels[since:held]).size < 2:
        only = "one value of the label" if run.task == "regression" else "one class"
        raise ValueError(f"the rows to train on hold only {only}")
    with repeatable(seed, settings.threads, settings.device):
        tried = [_attempt(run, candidate, held, None) for candidate in candidates]
        answers = [_answers(run, fit, held) for fit in tried]
        losses = [run.losses(answer, held) for answer in answers]
        best = _steadiest(losses, rows.at_us[held:] // duration_us(use_case.policy.cohort))
        chosen, epochs = candidates[best], tried[best].fitted.epochs
        held_out = _held_out(run, answers[best], since, held)
        loss, name = float(np.mean(losses[best])), LOSS_NAMES[run.task]
        progress(f"{chosen.name} chosen with {name} {loss:.4f}; fitting {len(rows) - chosen.first} rows")
        published = _attempt(run, chosen, len(rows), epochs)
    spec = _spec(run, published)
    weights = safetensors.torch.save(_published_state(published.network))
    onnx = to_onnx(published.network, published.preprocessing, published.target)
    metrics = _metrics(run.task, held_out) | {
        f"candidate_{candidate.name}_{LOSS_METRICS[run.task]}": float(np.mean(found))
        for candidate, found in zip(candidates, losses, strict=True)
    }
    return Trained(
        model=ScoringModel(onnx, spec, weights),
        trained_rows=len(rows) - chosen.first,
        fitted_rows=run.fitted_rows,
        row_epochs=run.row_epochs,
        metrics=metrics,
        held_out=held_out,
        label_scale=run.scale if run.task == "regression" else 0.0,
        chosen=chosen.name,
        device=settings.device,
        onnx=onnx,
        weights=weights,
        spec=spec,
        model_digest=digest_of(spec, weights),
    )


def digest_of(spec: Mapping[str, Any], weights: bytes) -> str:
    """SHA-256 of preprocessing and weights: what the model computes, not how its file is packed."""
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(len(canonical).to_bytes(8, "big") + canonical + weights).hexdigest()


def network_of(model: ScoringModel, settings: TrainingSettings) -> tuple[Network, Preprocessing]:
    """The network that a published model was exported from, to go on training it or to compare."""
    preprocessing = Preprocessing.from_spec(model.spec)
    shape, task, classes = model.spec["network"], _task_of(model), model.spec.get("classes", ())
    network = _network(task, len(classes) or 1, preprocessing, shape["hidden"], shape["embedding"], settings.dropout)
    network.load_state_dict(safetensors.torch.load(model.weights), strict=False)
    return network, preprocessing


def _candidates(run: _Run, since: int) -> list[_Candidate]:
    """What is tried, the steadiest first: those that rest on the most rows, or learn the fewest numbers."""
    settings, total = run.settings, len(run.rows)

    def fresh(name: str, first: int, change: int = 0) -> _Candidate:
        batch_rows = settings.batch_rows * (2 if total - first >= settings.large_rows else 1)
        heads_rate = settings.heads_rate if change else settings.rate
        return _Candidate(name, first, Pace(settings.rate, heads_rate, batch_rows), False, change)

    if since == 0:
        return [fresh("all", 0)]
    found = [fresh("history", 0, change=since), fresh("since", since)]
    if run.champion is not None and _is_compatible(run, run.champion):
        batch_rows = settings.tuning_batch_rows * (2 if total - since >= settings.large_rows // 2 else 1)
        heads_only = Pace(0.0, settings.heads_rate * 2, batch_rows)
        everything = Pace(settings.tuning_rate, settings.heads_rate, batch_rows)
        found.insert(1, _Candidate("recalibrated", since, heads_only, True))
        found.insert(2, _Candidate("tuned", since, everything, True))
        # A change is sometimes dated far too early; the newer half of its rows then holds few of the old regime.
        found.append(_Candidate("recalibrated_newer_half", (since + total) // 2, heads_only, True))
    return found


def _task_of(model: ScoringModel) -> Task:
    found: Task = model.spec.get("task", "binary")
    return found


def _answers_alike(use_case: UseCase, champion: ScoringModel) -> bool:
    """Whether a champion takes the inputs and answers the task that are declared now."""
    declared = use_case.predict
    learned = (_task_of(champion), tuple(champion.spec.get("classes", ())))
    return champion.inputs_digest == use_case.inputs_digest and learned == (declared.task, declared.classes)


def _is_compatible(run: _Run, champion: ScoringModel) -> bool:
    return bool(
        champion.weights and champion.spec.get("version") == SPEC_VERSION and _answers_alike(run.use_case, champion)
    )


def _scale(use_case: UseCase, rows: TrainingSet, champion: ScoringModel | None) -> float:
    """The champion's scale as long as there is a champion: losses of models that follow each other are to be compared."""
    if use_case.predict.task != "regression":
        return 1.0
    inherited = 0.0 if champion is None else float(champion.spec.get("label_scale", 0.0))
    return inherited or label_scale(rows.labels.tolist())


def _attempt(run: _Run, candidate: _Candidate, end: int, epochs: int | None) -> _Fit:
    """Fits a candidate on its rows before `end`; `epochs` None: compared on the rows from `end` on, which end the fit."""
    settings, rows = run.settings, run.rows
    torch.manual_seed(run.seed)
    first = min(candidate.first, end - 1)
    if candidate.from_champion:
        assert run.champion is not None
        network, preprocessing = network_of(run.champion, settings)
        target = Target(**run.champion.spec.get("target", {}))
    else:
        preprocessing = fit_preprocessing(
            rows.numbers[first:end], rows.texts[first:end], settings.bins, settings.category_rows_min
        )
        outputs = len(run.use_case.predict.classes) or 1
        network = _network(run.task, outputs, preprocessing, settings.hidden, settings.embedding, settings.dropout)
        target = fit_target(rows.labels[first:end]) if run.task == "regression" else Target()
    network.to(settings.device)
    encoded = _encoded(run, preprocessing, target, first, end, candidate.change)
    validation = None if epochs is not None else _encoded(run, preprocessing, target, end, len(rows), 0)
    limits = Limits(settings.epochs if epochs is None else epochs, settings.patience)
    fitted = fit(network, encoded, validation, candidate.pace, limits, settings.weight_decay)
    run.fitted_rows += len(encoded)
    run.row_epochs += fitted.row_epochs
    if epochs is None:
        rows_told = f"after {fitted.epochs} epochs of {end - first} rows"
        run.progress(f"{candidate.name}: validation loss {fitted.loss:.4f} {rows_told}")
    network.eval()
    return _Fit(network, preprocessing, target, fitted)


def _encoded(run: _Run, preprocessing: Preprocessing, target: Target, first: int, end: int, change: int) -> Rows:
    rows, device = run.rows, run.settings.device
    labels = target.standardised(rows.labels[first:end])
    return Rows(
        encoded=torch.from_numpy(preprocessing.encode(rows.numbers[first:end])).to(device),
        codes=torch.from_numpy(preprocessing.codes(rows.texts[first:end])).to(device),
        labels=torch.from_numpy(labels.astype(np.int64 if run.task == "multiclass" else np.float32)).to(device),
        earlier=torch.from_numpy(np.arange(first, end) < change).to(device),
    )


def _network(
    task: Task, outputs: int, preprocessing: Preprocessing, hidden: int, embedding: int, dropout: float
) -> Network:
    sizes = preprocessing.cardinalities
    core = Core(preprocessing.width, sizes, hidden, embedding, dropout, outputs)
    return Network(task, core, Heads(sizes, outputs), Heads(sizes, outputs))


def _published_state(network: Network) -> dict[str, torch.Tensor]:
    """The weights that scoring uses: the heads of an earlier regime stay behind."""
    state = network.state_dict()
    return {name: state[name].cpu().contiguous() for name in sorted(state) if not name.startswith("earlier.")}


def _answers(run: _Run, fit: _Fit, first: int) -> Floats:
    """Answers to the rows from `first` on."""
    with torch.no_grad():
        found = fit.network(_encoded(run, fit.preprocessing, fit.target, first, len(run.rows), 0))
    if run.task == "binary":
        return np.asarray(torch.sigmoid(found).cpu().numpy(), dtype=np.float64)
    if run.task == "multiclass":
        return np.asarray(torch.softmax(found, dim=1).cpu().numpy(), dtype=np.float64)
    return fit.target.restored(found.cpu().numpy().astype(np.float64))


def _steadiest(losses: list[Floats], clusters: Times) -> int:
    """The first candidate that is not worse than the best by more than the standard error of their difference.

    The newest rows are few and of one or two days: the least loss among several candidates is partly luck, and luck
    favours those that learn the most from the fewest rows (the one-standard-error rule of Breiman et al., CART, 1984).
    """
    best = min(losses, key=np.mean)
    for place, loss in enumerate(losses):
        excess, error = mean_and_error(loss - best, clusters)
        if excess <= error or loss is best:
            return place
    raise AssertionError("the best is never worse than itself")


def _held_out(run: _Run, challenger: Floats, since: int, held: int) -> HeldOut:
    rows = run.rows
    champion, unseen = None, np.zeros(len(challenger), dtype=bool)
    if run.champion is not None and _answers_alike(run.use_case, run.champion):
        champion = run.champion.predict(rows.numbers[held:], rows.texts[held:])
        unseen = rows.at_us[held:] > int(run.champion.spec.get("newest_row_us", 0))
    base = _base(run.use_case, rows.labels[since:held])
    return HeldOut(rows.at_us[held:], rows.labels[held:], challenger, base, champion, unseen, run.scale)


def _base(use_case: UseCase, labels: Floats) -> Floats:
    """See `HeldOut.base`; a class that has not been seen has the frequency that Laplace's rule of succession gives it."""
    classes = len(use_case.predict.classes)
    if not classes:
        return np.array(np.mean(labels))
    return (np.bincount(labels.astype(np.int64), minlength=classes) + 1.0) / (len(labels) + classes)


def _spec(run: _Run, fit: _Fit) -> dict[str, Any]:
    settings = run.settings
    shape = {"hidden": settings.hidden, "embedding": settings.embedding}
    return {
        "version": SPEC_VERSION,
        "use_case": run.use_case.name,
        "inputs_digest": run.use_case.inputs_digest,
        "numeric_inputs": list(run.use_case.numeric_inputs),
        "text_inputs": list(run.use_case.text_inputs),
        "network": shape,
        "newest_row_us": int(run.rows.at_us[-1]),
        **fit.preprocessing.to_spec(),
        **_spec_of_task(run, fit.target),
    }


def _spec_of_task(run: _Run, target: Target) -> dict[str, Any]:
    """What other tasks than binary, which a spec is about unless it says otherwise, add to it."""
    if run.task == "multiclass":
        return {"task": run.task, "classes": list(run.use_case.predict.classes)}
    if run.task == "regression":
        return {"task": run.task, "target": asdict(target), "label_scale": run.scale}
    return {}


def _metrics(task: Task, held_out: HeldOut) -> dict[str, float]:
    labels, loss = held_out.labels, LOSS_METRICS[task]

    def found(answers: Floats) -> dict[str, float]:
        value = float(np.mean(compared_losses(task, answers, labels, held_out.scale)))
        return measures(task, answers, labels) | {loss: value}

    metrics = {"held_out_rows": float(len(labels))} | found(held_out.challenger)
    metrics[f"base_{loss}"] = found(held_out.base_answers)[loss]
    if held_out.champion is not None:
        metrics |= {f"champion_{name}": value for name, value in found(held_out.champion).items()}
    return metrics
